/* Writing a batch: look every key up, build the versions where the record will lie, append the
 * record, then switch the slots. Up to the append nothing is visible; after it nothing can fail. */
#define _GNU_SOURCE
#include "base/checked.h"
#include "history/history_parts.h"

#include <time.h>

typedef struct pe_pending {
    uint64_t hash, place;
    int is_new; /* the key has no slot yet */
    int was_live;
    uint32_t twin; /* the former write of this key in the batch, + 1 */
    uint32_t depth;
    uint8_t kind;
    pe_slot *slot; /* where the key is, when it has one */
} pending;

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static peri_status check_writes(const pe_write *w, size_t n, uint64_t *size)
{
    *size = 0;
    if (n == 0 || n > UINT32_MAX / 4)
        return pe_fail(PERI_ERR_ARG, "a batch of %zu writes, expected 1 to %u", n, UINT32_MAX / 4);
    for (size_t i = 0; i < n; i++) {
        if (w[i].key.size == 0 || w[i].key.size > PE_KEY_MAX || !w[i].key.data)
            return pe_fail(PERI_ERR_ARG, "a key of %zu bytes, expected 1 to %d", w[i].key.size,
                           PE_KEY_MAX);
        if (w[i].kind != PE_OP_PUT && w[i].kind != PE_OP_DELETE)
            return pe_fail(PERI_ERR_ARG, "write %zu is neither put nor delete", i);
        if (w[i].value.size > PE_JOURNAL_MAX || (w[i].value.size && !w[i].value.data))
            return pe_fail(w[i].value.data ? PERI_ERR_FULL : PERI_ERR_ARG,
                           "a value of %zu bytes, expected up to %d", w[i].value.size,
                           PE_JOURNAL_MAX);
        *size += PE_OP_HEAD + w[i].key.size + w[i].value.size + 14 +
                 (w[i].value.size >= PE_OP_LARGE ? 56 : 0);
    }
    return PERI_OK;
}

static peri_status reserve_scratch(pe_history *h, size_t n)
{
    size_t room = h->pending_room / sizeof(pending), twins = 16;
    if (room < n) {
        size_t bytes = (n + n / 2) * sizeof(pending);
        pending *p = pe_alloc(&h->host, bytes);
        if (!p)
            return PERI_ERR_NOMEM;
        pe_free(&h->host, h->pending, h->pending_room);
        h->pending = p;
        h->pending_room = bytes;
    }
    if (n == 1)
        return PERI_OK;
    while (twins < n * 2)
        twins *= 2;
    if (h->twins_room < twins) {
        uint32_t *t = pe_alloc(&h->host, twins * sizeof *t);
        if (!t)
            return PERI_ERR_NOMEM;
        pe_free(&h->host, h->twins, h->twins_room * sizeof *t);
        h->twins = t;
        h->twins_room = twins;
    }
    memset(h->twins, 0, twins * sizeof *h->twins);
    return PERI_OK;
}

/* The write of the same key before this one in the batch, + 1. */
static uint32_t find_twin(pe_history *h, const pe_write *w, size_t n, size_t i)
{
    size_t mask = 16;
    while (mask < n * 2)
        mask *= 2;
    mask--;
    for (size_t at = h->pending[i].hash & mask;; at = (at + 1) & mask) {
        uint32_t other = h->twins[at];
        if (other == 0 || (h->pending[other - 1].hash == h->pending[i].hash &&
                           w[other - 1].key.size == w[i].key.size &&
                           memcmp(w[other - 1].key.data, w[i].key.data, w[i].key.size) == 0)) {
            h->twins[at] = (uint32_t)i + 1;
            return other;
        }
    }
}

/* What came before this write: in the batch, or in the table. */
static peri_status look_up(pe_history *h, const pe_view *v, const pe_write *w, size_t n, size_t i,
                           pe_version *op)
{
    pending *p = &h->pending[i];
    pe_version newest;
    memset(p, 0, sizeof *p);
    p->hash = pe_history_hash(h, w[i].key);
    p->twin = n > 1 ? find_twin(h, w, n, i) : 0;
    op->prev = 0;
    op->depth = 1;
    if (p->twin) {
        const pending *former = &h->pending[p->twin - 1];
        p->is_new = former->is_new;
        p->slot = former->slot;
        p->was_live = former->kind == PE_OP_PUT || (former->kind == 0 && former->was_live);
        op->prev = former->place;
        op->depth = former->depth + 1;
        return PERI_OK;
    }
    peri_status status = pe_table_find(h, v, v->table, p->hash, w[i].key, w[i].kind == PE_OP_DELETE,
                                       &p->slot, &newest);
    if (status == PERI_OK) {
        op->prev = newest.place;
        op->depth = newest.depth + 1 ? newest.depth + 1 : UINT32_MAX;
        p->was_live = newest.kind != PE_OP_DELETE;
    } else if (status == PERI_ERR_NOT_FOUND) {
        p->is_new = 1;
    } else {
        return status;
    }
    /* For a delete that is left out and has a twin later. */
    p->place = op->prev;
    p->depth = op->depth - 1;
    return PERI_OK;
}

/* Build all versions; *size: bytes of payload, 0 when nothing is to be written. */
static peri_status build(pe_history *h, const pe_write *w, size_t n, unsigned char *payload,
                         uint64_t offset, const pe_jfile *f, uint64_t *size, size_t *n_done)
{
    const pe_view *v = atomic_load_explicit(&h->view, memory_order_relaxed);
    int64_t now = 0;
    *size = 0;
    *n_done = 0;
    for (size_t i = 0; i < n; i++) {
        pe_version op;
        PE_TRY(look_up(h, v, w, n, i, &op));
        pending *p = &h->pending[i];
        if (w[i].kind == PE_OP_DELETE && !p->was_live) {
            if (p->twin) { /* pass what the twin knew on to the next of this key */
                p->place = h->pending[p->twin - 1].place;
                p->depth = h->pending[p->twin - 1].depth;
            }
            continue; /* kind 0: nothing written */
        }
        if (w[i].time == 0 && now == 0)
            now = now_us();
        op.sequence = h->journal->next_sequence;
        op.time = w[i].time ? w[i].time : now;
        op.key = w[i].key;
        op.value = w[i].value.data;
        op.size = w[i].kind == PE_OP_PUT ? (uint32_t)w[i].value.size : 0;
        op.kind = (uint8_t)w[i].kind;
        op.tag = w[i].kind == PE_OP_PUT ? w[i].tag : 0;
        p->place = pe_place(f->number, offset + *size);
        p->depth = op.depth;
        p->kind = op.kind;
        *size += pe_op_put(payload + *size, f->seed, offset + *size, &op);
        ++*n_done;
    }
    return PERI_OK;
}

/* Switch the slots. A key's first write in the batch knows the slot; new keys are put in last, when
 * no slot that was found can move any more. */
static void publish(pe_history *h, size_t n, uint64_t sequence)
{
    pe_view *v = atomic_load_explicit(&h->view, memory_order_relaxed);
    uint64_t keys = 0, live = 0, dead = 0;
    for (size_t i = 0; i < n; i++) {
        pending *p = &h->pending[i];
        if (p->kind == 0)
            continue;
        live += p->kind == PE_OP_PUT && !p->was_live;
        dead += p->kind == PE_OP_DELETE;
        uint64_t former = 0;
        for (uint32_t t = p->twin; t && !former; t = h->pending[t - 1].twin)
            former = h->pending[t - 1].kind ? h->pending[t - 1].place : 0;
        if (!p->is_new) {
            atomic_store_explicit(&p->slot->place, p->place, memory_order_release);
        } else if (n == 1) {
            atomic_store_explicit(&p->slot->hash, p->hash, memory_order_relaxed);
            atomic_store_explicit(&p->slot->place, p->place, memory_order_release);
        } else if (former) {
            uint64_t s = p->hash & v->table->mask;
            while (atomic_load_explicit(&v->table->slots[s].place, memory_order_relaxed) != former)
                s = (s + 1) & v->table->mask;
            atomic_store_explicit(&v->table->slots[s].place, p->place, memory_order_release);
            continue;
        } else {
            pe_table_insert(v->table, p->hash, p->place);
        }
        if (p->is_new) {
            keys++;
            pe_order_add(h, p->place);
        }
    }
    atomic_fetch_add_explicit(&h->keys, keys, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->live, live - dead, memory_order_relaxed);
    atomic_store_explicit(&h->published, sequence, memory_order_release);
}

static peri_status write_locked(pe_history *h, const pe_write *w, size_t n, uint64_t room,
                                int durability, uint64_t *sequence, size_t *n_done)
{
    unsigned char *payload;
    uint64_t offset, size;
    pe_jfile *f;
    if (n == 1) { /* its slot comes while the journal makes room */
        const pe_table *t = atomic_load_explicit(&h->view, memory_order_relaxed)->table;
        __builtin_prefetch(&t->slots[pe_history_hash(h, w[0].key) & t->mask], 1);
    }
    PE_TRY(pe_journal_reserve(h->journal, room, &payload, &offset, &f));
    if (h->files_version != h->journal->files_version) {
        PE_TRY(pe_files_extend(h));
        pe_epoch_reclaim(&h->epoch);
    }
    PE_TRY(reserve_scratch(h, n));
    PE_TRY(pe_history_reserve_keys(h, n));
    PE_TRY(pe_order_reserve(h, n));
    PE_TRY(build(h, w, n, payload, offset, f, &size, n_done));
    if (size == 0)
        return PERI_OK;
    PE_TRY(pe_journal_append(h->journal, size, durability, sequence));
    publish(h, n, *sequence);
    h->journal_bytes += pe_journal_extent(size);
    return PERI_OK;
}

peri_status pe_history_write(pe_history *h, const pe_write *writes, size_t n, int durability,
                             uint64_t *sequence, size_t *n_done)
{
    uint64_t room, number = 0;
    size_t done = 0;
    if (durability == 0 || durability > (int)h->config.durability)
        durability = (int)h->config.durability;
    PE_TRY(pe_history_writable(h));
    PE_TRY(check_writes(writes, n, &room));
    pthread_mutex_lock(&h->write);
    peri_status status = write_locked(h, writes, n, room, durability, &number, &done);
    pthread_mutex_unlock(&h->write);
    if (sequence)
        *sequence = number;
    if (n_done)
        *n_done = done;
    if (status != PERI_OK || number == 0 || durability < PE_DURABLE_COMMIT)
        return status;
    int led;
    PE_TRY(pe_journal_wait(h->journal, number, &led));
    if (led && pthread_mutex_trylock(&h->write) == 0) {
        pe_journal_mark(h->journal); /* or the writer that holds the lock carries the watermark */
        pthread_mutex_unlock(&h->write);
    }
    return PERI_OK;
}
