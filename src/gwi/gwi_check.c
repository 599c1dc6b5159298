/* The full structural proof of W1, W4 and W5. */
#include "gwi/gwi.h"

typedef struct checker {
    const peri_index *ix;
    const gwi *g;
    uint64_t faults;
    uint64_t *blocks; /* one bit a block that a list names */
    uint64_t *seen;   /* one bit a slot that a lane names */
} checker;

static void fault(checker *c, const char *what, uint32_t well, uint32_t value)
{
    if (c->faults++ == 0)
        pe_fail(PERI_ERR_CORRUPT, "well %u: %s (%u)", well, what, value);
}

/* Set a bit; was it set? */
static int mark(uint64_t *bits, uint32_t i)
{
    uint64_t bit = (uint64_t)1 << i % 64;
    int was = (bits[i / 64] & bit) != 0;
    bits[i / 64] |= bit;
    return was;
}

static void check_lane(checker *c, const gwi_well *w, uint32_t slot, uint32_t count)
{
    if (slot >= count) {
        fault(c, "a lane names a slot beyond the last", w->index, slot);
        return;
    }
    if (mark(c->seen, slot))
        fault(c, "a row lies in a second lane", w->index, slot);
    uint32_t where = atomic_load_explicit(gwi_where(c->g, slot), memory_order_relaxed);
    if (where != w->centre + 1)
        fault(c, "a row is said to lie elsewhere", w->index, slot);
}

static void check_well(checker *c, const gwi_tree *t, uint32_t index, uint32_t count)
{
    const gwi *g = c->g;
    const gwi_well *w = t->well[index];
    const gwi_list *l = gwi_list_of(w);
    uint32_t n = atomic_load_explicit(&l->n, memory_order_relaxed), rows = 0;
    if (w->index != index || t->centre[index] != w->centre || g->by_centre[w->centre] != w)
        fault(c, "it does not know its place", index, w->index);
    if (n != (w->lanes + PE_BLOCK_ROWS - 1) / PE_BLOCK_ROWS || n > l->room)
        fault(c, "lanes and blocks do not agree", index, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t block = atomic_load_explicit(&l->block[i], memory_order_relaxed);
        if (block >= g->free_blocks.used || mark(c->blocks, block)) {
            fault(c, "a block is beyond the last, or in two lists", index, block);
            continue;
        }
        _Atomic uint32_t *entry = gwi_entries(g, pe_array_at(&g->blocks, block));
        for (uint32_t lane = 0; lane < PE_BLOCK_ROWS; lane++) {
            uint32_t slot = atomic_load_explicit(&entry[lane], memory_order_relaxed);
            if (slot == PE_NO_SLOT)
                continue;
            rows++;
            if (i * PE_BLOCK_ROWS + lane >= w->lanes)
                fault(c, "a lane beyond the last in use has a row", index, slot);
            check_lane(c, w, slot, count);
        }
    }
    if (rows != w->rows)
        fault(c, "it has another number of rows than it says", index, rows);
}

static void check_rows(checker *c, uint32_t count)
{
    for (uint32_t slot = 0; slot < count; slot++) {
        int in = (int)(c->seen[slot / 64] >> slot % 64 & 1);
        int live = !pe_slots_hidden(&c->ix->slots, slot);
        if (live != in && c->faults++ == 0)
            pe_fail(PERI_ERR_CORRUPT, "slot %u is %s and lies in %s", slot,
                    live ? "live" : "removed", in ? "a well" : "none");
    }
}

static void check_free(checker *c, const gwi_free *f, const char *what)
{
    const gwi *g = c->g;
    for (size_t i = 0; i < f->n; i++) {
        int used =
            f->number[i] >= f->used || (f == &g->free_blocks ? mark(c->blocks, f->number[i])
                                                             : g->by_centre[f->number[i]] != NULL);
        if (used && c->faults++ == 0)
            pe_fail(PERI_ERR_CORRUPT, "%s %u is free and in use", what, f->number[i]);
    }
}

peri_status pe_gwi_check(const peri_index *ix, pe_progress *progress, uint64_t *faults)
{
    const gwi *g = gwi_of(ix);
    const gwi_tree *t = gwi_tree_of(g);
    uint32_t count = pe_slots_count(&ix->slots);
    pe_host *host = (pe_host *)(uintptr_t)&ix->host;
    if (!t)
        return PERI_OK;
    size_t blocks = ((size_t)g->free_blocks.used / 64 + 1) * sizeof(uint64_t);
    size_t seen = ((size_t)count / 64 + 1) * sizeof(uint64_t);
    checker c = {
        .ix = ix, .g = g, .blocks = pe_calloc(host, blocks), .seen = pe_calloc(host, seen)};
    int room = c.blocks && c.seen;
    if (room) {
        if (t->first[0] != 0 || t->first[t->n_groups] != t->n_wells)
            fault(&c, "groups do not cover the wells", 0, t->first[t->n_groups]);
        for (uint32_t i = 0; i < t->n_groups; i++)
            if (t->first[i] >= t->first[i + 1])
                fault(&c, "a group has no wells", t->first[i], i);
        for (uint32_t i = 0; i < t->n_wells; i++)
            check_well(&c, t, i, count);
        check_rows(&c, count);
        check_free(&c, &g->free_blocks, "block");
        check_free(&c, &g->free_centres, "centre");
        pe_progress_add(progress, 0, count);
    }
    pe_free(host, c.blocks, blocks);
    pe_free(host, c.seen, seen);
    *faults += c.faults;
    return room ? PERI_OK : PERI_ERR_NOMEM;
}
