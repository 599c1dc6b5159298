/* Wells: lists of blocks, adding rows to them, taking rows out, closing the gaps. */
#include "gwi/gwi.h"

static size_t list_bytes(uint32_t room)
{
    return sizeof(gwi_list) + room * sizeof(uint32_t);
}

gwi_list *pe_gwi_new_list(pe_host *host, uint32_t room)
{
    gwi_list *l = pe_calloc(host, list_bytes(room));
    if (l)
        l->room = room;
    return l;
}

static uint32_t list_n(const gwi_list *l)
{
    return atomic_load_explicit(&l->n, memory_order_acquire);
}

static uint32_t list_block(const gwi_list *l, uint32_t i)
{
    return atomic_load_explicit(&l->block[i], memory_order_acquire);
}

static void free_block(gwi *g, uint32_t block)
{
    g->free_blocks.number[g->free_blocks.n++] = block; /* room for all was reserved */
}

void pe_gwi_free_list(peri_index *ix, gwi_list *l, int with_blocks)
{
    if (!l)
        return;
    for (uint32_t i = 0; with_blocks && i < list_n(l); i++)
        free_block(gwi_of(ix), list_block(l, i));
    pe_free(&ix->host, l, list_bytes(l->room));
}

static void give_back_list(void *owner, void *ptr, uint64_t arg)
{
    (void)arg;
    pe_gwi_free_list(owner, ptr, 1);
}

static void give_back_block(void *owner, void *ptr, uint64_t block)
{
    (void)ptr;
    free_block(gwi_of(owner), (uint32_t)block);
}

peri_status pe_gwi_reserve_blocks(peri_index *ix, size_t n)
{
    gwi *g = gwi_of(ix);
    gwi_free *f = &g->free_blocks;
    size_t fresh = n > f->n ? n - f->n : 0;
    if (fresh > UINT32_MAX - 1 - (size_t)f->used)
        return pe_fail(PERI_ERR_FULL, "%u blocks and %zu more", f->used, fresh);
    PE_TRY(pe_array_reserve(&g->blocks, &ix->epoch, f->used + fresh, 0));
    return pe_grow(&ix->host, &f->number, &f->room, f->used + fresh, sizeof *f->number);
}

uint32_t pe_gwi_take_block(gwi *g)
{
    gwi_free *f = &g->free_blocks;
    return f->n ? f->number[--f->n] : f->used++;
}

/* ---- adding ---- */

uint32_t pe_gwi_blocks_for(const gwi_well *w, uint32_t n)
{
    return (w->lanes % PE_BLOCK_ROWS + n + PE_BLOCK_ROWS - 1) / PE_BLOCK_ROWS;
}

peri_status pe_gwi_prepare(peri_index *ix, gwi_well *w, uint32_t n, uint32_t *blocks, gwi_append *a)
{
    gwi *g = gwi_of(ix);
    const gwi_list *l = gwi_list_of(w);
    *a = (gwi_append){.well = w, .n = n, .n_blocks = pe_gwi_blocks_for(w, n), .block = blocks};
    a->copy = w->lanes % PE_BLOCK_ROWS != 0;
    uint32_t had = list_n(l), need = had + a->n_blocks - (uint32_t)a->copy;
    if (a->copy)
        a->former = list_block(l, had - 1);
    PE_TRY(pe_gwi_reserve_blocks(ix, a->n_blocks));
    if (need > l->room) {
        a->grown = pe_gwi_new_list(&ix->host, need + need / 2);
        if (!a->grown)
            return PERI_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < a->n_blocks; i++)
        blocks[i] = pe_gwi_take_block(g);
    return PERI_OK;
}

void pe_gwi_abandon(peri_index *ix, gwi_append *a)
{
    for (uint32_t i = 0; i < a->n_blocks; i++)
        free_block(gwi_of(ix), a->block[i]);
    pe_gwi_free_list(ix, a->grown, 0);
}

static void clear_block(const gwi *g, unsigned char *block)
{
    _Atomic uint32_t *entry = gwi_entries(g, block);
    memset(block, 0, g->entries_at);
    for (unsigned lane = 0; lane < PE_BLOCK_ROWS; lane++)
        atomic_store_explicit(&entry[lane], PE_NO_SLOT, memory_order_relaxed);
}

/* Entries of the copy are read one by one: a removal may not run meanwhile, but a reader's view of
 * them is atomic. */
static void copy_block(const gwi *g, unsigned char *to, unsigned char *from)
{
    _Atomic uint32_t *t = gwi_entries(g, to), *f = gwi_entries(g, from);
    memcpy(to, from, g->entries_at);
    for (unsigned lane = 0; lane < PE_BLOCK_ROWS; lane++)
        atomic_store_explicit(&t[lane], atomic_load_explicit(&f[lane], memory_order_relaxed),
                              memory_order_relaxed);
}

void pe_gwi_fill(const peri_index *ix, const gwi_append *a, const uint32_t *slots,
                 const float *const *rows, uint8_t *symbols, uint8_t *room)
{
    const gwi *g = gwi_of(ix);
    const pe_bitcode *b = &g->bitcode;
    const float *centre = gwi_centre(g, a->well->centre);
    uint32_t lane = a->well->lanes % PE_BLOCK_ROWS;
    for (uint32_t i = 0; i < a->n_blocks; i++) {
        unsigned char *block = pe_array_at(&g->blocks, a->block[i]);
        if (i == 0 && a->copy)
            copy_block(g, block, pe_array_at(&g->blocks, a->former));
        else
            clear_block(g, block);
    }
    for (uint32_t i = 0; i < a->n; i++, lane++) {
        unsigned char *block = pe_array_at(&g->blocks, a->block[lane / PE_BLOCK_ROWS]);
        pe_bit_factors f = pe_bitcode_encode(b, rows[i], centre, symbols, room);
        pe_block_set(b, block, lane % PE_BLOCK_ROWS, symbols, f);
        atomic_store_explicit(&gwi_entries(g, block)[lane % PE_BLOCK_ROWS], slots[i],
                              memory_order_relaxed);
    }
}

void pe_gwi_commit(peri_index *ix, gwi_append *a, const uint32_t *slots)
{
    gwi *g = gwi_of(ix);
    gwi_well *w = a->well;
    gwi_list *l = gwi_list_of(w), *old = NULL;
    uint32_t n = list_n(l), used = 0;
    if (a->grown) {
        for (uint32_t i = 0; i < n; i++)
            atomic_store_explicit(&a->grown->block[i], list_block(l, i), memory_order_relaxed);
        old = l;
        l = a->grown;
    }
    if (a->copy)
        atomic_store_explicit(&l->block[n - 1], a->block[used++], memory_order_release);
    for (; used < a->n_blocks; used++, n++)
        atomic_store_explicit(&l->block[n], a->block[used], memory_order_release);
    atomic_store_explicit(&l->n, n, memory_order_release);
    if (old) {
        atomic_store_explicit(&w->list, l, memory_order_release);
        pe_epoch_retire_memory(&ix->epoch, old, list_bytes(old->room));
    }
    if (a->copy)
        pe_epoch_retire(&ix->epoch, give_back_block, NULL, a->former);
    w->rows += a->n;
    w->lanes += a->n;
    for (uint32_t i = 0; i < a->n; i++)
        atomic_store_explicit(gwi_where(g, slots[i]), w->centre + 1, memory_order_relaxed);
}

/* ---- taking out ---- */

int pe_gwi_clear_lane(const gwi *g, gwi_well *w, uint32_t slot)
{
    const gwi_list *l = gwi_list_of(w);
    for (uint32_t i = 0, n = list_n(l); i < n; i++) {
        _Atomic uint32_t *entry = gwi_entries(g, pe_array_at(&g->blocks, list_block(l, i)));
        for (unsigned lane = 0; lane < PE_BLOCK_ROWS; lane++)
            if (atomic_load_explicit(&entry[lane], memory_order_relaxed) == slot) {
                atomic_store_explicit(&entry[lane], PE_NO_SLOT, memory_order_relaxed);
                w->rows--;
                return 1;
            }
    }
    return 0;
}

uint32_t pe_gwi_slots_of(const gwi *g, const gwi_well *w, uint32_t *slots)
{
    const gwi_list *l = gwi_list_of(w);
    uint32_t found = 0;
    for (uint32_t i = 0, n = list_n(l); i < n; i++) {
        _Atomic uint32_t *entry = gwi_entries(g, pe_array_at(&g->blocks, list_block(l, i)));
        for (unsigned lane = 0; lane < PE_BLOCK_ROWS; lane++) {
            uint32_t slot = atomic_load_explicit(&entry[lane], memory_order_relaxed);
            if (slot != PE_NO_SLOT && found < w->rows)
                slots[found++] = slot;
        }
    }
    return found;
}

void pe_gwi_claim(const gwi *g, const gwi_well *w)
{
    const gwi_list *l = gwi_list_of(w);
    for (uint32_t i = 0, n = list_n(l); i < n; i++) {
        _Atomic uint32_t *entry = gwi_entries(g, pe_array_at(&g->blocks, list_block(l, i)));
        for (unsigned lane = 0; lane < PE_BLOCK_ROWS; lane++) {
            uint32_t slot = atomic_load_explicit(&entry[lane], memory_order_relaxed);
            if (slot != PE_NO_SLOT)
                atomic_store_explicit(gwi_where(g, slot), w->centre + 1, memory_order_relaxed);
        }
    }
}

/* Move what is left of every lane to the front of fresh blocks. */
static void copy_rows(const gwi *g, const gwi_list *from, const gwi_list *to)
{
    uint32_t at = 0;
    for (uint32_t i = 0, n = list_n(to); i < n; i++)
        clear_block(g, pe_array_at(&g->blocks, list_block(to, i)));
    for (uint32_t i = 0, n = list_n(from); i < n; i++) {
        unsigned char *block = pe_array_at(&g->blocks, list_block(from, i));
        for (unsigned lane = 0; lane < PE_BLOCK_ROWS; lane++) {
            uint32_t slot =
                atomic_load_explicit(&gwi_entries(g, block)[lane], memory_order_relaxed);
            if (slot == PE_NO_SLOT)
                continue;
            unsigned char *out = pe_array_at(&g->blocks, list_block(to, at / PE_BLOCK_ROWS));
            pe_block_move(&g->bitcode, out, at % PE_BLOCK_ROWS, block, lane);
            atomic_store_explicit(&gwi_entries(g, out)[at++ % PE_BLOCK_ROWS], slot,
                                  memory_order_relaxed);
        }
    }
}

peri_status pe_gwi_compact(peri_index *ix, gwi_well *w)
{
    gwi *g = gwi_of(ix);
    uint32_t n = (w->rows + PE_BLOCK_ROWS - 1) / PE_BLOCK_ROWS;
    if (w->rows == w->lanes)
        return PERI_OK;
    PE_TRY(pe_epoch_reserve(&ix->epoch, 1));
    PE_TRY(pe_gwi_reserve_blocks(ix, n));
    gwi_list *old = gwi_list_of(w), *l = pe_gwi_new_list(&ix->host, n + 1);
    if (!l)
        return PERI_ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++)
        atomic_store_explicit(&l->block[i], pe_gwi_take_block(g), memory_order_relaxed);
    atomic_store_explicit(&l->n, n, memory_order_relaxed);
    copy_rows(g, old, l);
    w->lanes = w->rows;
    atomic_store_explicit(&w->list, l, memory_order_release);
    pe_epoch_retire(&ix->epoch, give_back_list, old, 0);
    return PERI_OK;
}
