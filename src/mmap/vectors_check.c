/* The full proof: the file read again from the disk, block by block; the keys in memory against the
 * slots; the index against both. */
#include "mmap/vectors_parts.h"

#include <unistd.h>

static void fault(uint64_t *faults, const pe_vgen *g, const char *what, uint64_t slot)
{
    if (++*faults == 1)
        pe_fail(PERI_ERR_CORRUPT, "%s: %s (slot %llu)", g->file.path, what,
                (unsigned long long)slot);
}

/* Every live slot is found by its key, and nothing else is. */
static void check_keys(const pe_vgen *g, uint64_t *faults)
{
    uint32_t count = pe_vgen_count(g);
    uint64_t live = 0;
    size_t used = 0;
    for (uint32_t slot = 0; slot < count; slot++) {
        peri_slice key = pe_vkeys_of(&g->keys, slot);
        uint32_t died = atomic_load_explicit(pe_vgen_died(g, slot), memory_order_relaxed);
        if (died > count)
            fault(faults, g, "a row that dies later", slot);
        if (died)
            continue;
        live++;
        if (!key.data ||
            pe_vkeys_find(&g->keys, key, pe_vkeys_hash(&g->keys, key.data, key.size)) != slot)
            fault(faults, g, "a key does not lead to its row", slot);
    }
    const pe_vtable *t = atomic_load_explicit(&g->keys.table, memory_order_relaxed);
    for (size_t i = 0; t && i <= t->mask; i++)
        used += (uint32_t)atomic_load_explicit(&t->entry[i], memory_order_relaxed) >= 2;
    if (live != atomic_load(&g->keys.live) || used != live)
        fault(faults, g, "more keys than rows", live);
}

static peri_status check_blocks(const pe_vgen *g, pe_progress *progress, uint64_t *faults)
{
    uint64_t end = atomic_load(&g->trusted);
    pe_progress_phase(progress, "rows", end >> PE_VBLOCK_SHIFT);
    for (uint64_t at = 0; at < end; at += PE_VBLOCK) {
        uint64_t n = end - at < PE_VBLOCK ? end - at : PE_VBLOCK;
        if (pe_vgen_verify(g, at, n) != PERI_OK)
            ++*faults;
        if (pe_progress_add(progress, 0, 1))
            break;
    }
    return pe_progress_end(progress);
}

/* The file as the next process would find it. */
static peri_status check_file(peri_vectors *v, pe_progress *progress, uint64_t *faults)
{
    pe_vgen *g;
    peri_status status = pe_vgen_open(&g, v, 0);
    if (status == PERI_ERR_CORRUPT || status == PERI_ERR_FORMAT) {
        ++*faults;
        return PERI_OK;
    }
    PE_TRY(status);
    uint64_t before = *faults;
    char detail[PE_DETAIL_SIZE];
    pe_detail_copy(detail);
    check_keys(g, faults);
    if (before)
        pe_detail_set(detail);
    status = check_blocks(g, progress, faults);
    /* What it retired by growing goes back now: no reader of it can be. */
    pe_vgen_destroy(NULL, g, 0);
    return status;
}

static peri_status check_index(const pe_vindex *x, const peri_task *task, uint64_t *faults)
{
    const pe_slots *s = &x->ix->slots;
    uint64_t inside = 0;
    uint32_t mark = atomic_load(&x->rows), slots = pe_slots_count(s);
    if (slots > mark)
        fault(faults, x->gen, "the index is ahead of its mark", slots);
    for (uint32_t slot = 0; slot < mark; slot++)
        if (atomic_load(pe_vgen_died(x->gen, slot)) == 0 &&
            (slot >= slots || pe_slots_dead(s, slot)))
            fault(faults, x->gen, "the index lacks a row", slot);
    peri_status status = peri_index_check(x->ix, task, &inside);
    *faults += inside;
    return status;
}

static peri_status check(peri_vectors *v, const peri_task *task, pe_progress *progress,
                         uint64_t *faults)
{
    const pe_vgen *g = atomic_load(&v->gen);
    const pe_vindex *x = atomic_load(&v->index);
    check_keys(g, faults);
    PE_TRY(check_file(v, progress, faults));
    return x ? check_index(x, task, faults) : PERI_OK;
}

peri_status peri_vectors_check(const peri_vectors *shared, const peri_task *task,
                               uint64_t *n_faults)
{
    peri_vectors *v = (peri_vectors *)(uintptr_t)shared; /* its locks */
    pe_progress progress;
    if (!v || !n_faults)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "n_faults" : "vectors");
    PE_TRY(pe_progress_init(&progress, task));
    *n_faults = 0;
    if (getpid() != v->owner)
        return pe_fail(PERI_ERR_FORKED, "vectors opened by process %d, checked by process %d",
                       (int)v->owner, (int)getpid());
    pthread_mutex_lock(&v->building);
    pthread_mutex_lock(&v->write);
    pe_epoch_reclaim(&v->epoch);
    peri_status status = check(v, task, &progress, n_faults);
    pe_vectors_end_write(v);
    pthread_mutex_unlock(&v->building);
    return status;
}
