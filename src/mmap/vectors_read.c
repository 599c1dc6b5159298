/* Reading by key and by id, views in place, walking the keys. */
#include "mmap/vectors_parts.h"

static peri_status find_row(const pe_vreader *r, peri_slice key, uint32_t *slot)
{
    PE_TRY(pe_vectors_check_key(key, 0));
    const pe_vkeys *k = &r->gen->keys;
    *slot = pe_vkeys_find(k, key, pe_vkeys_hash(k, key.data, key.size));
    if (*slot == PE_NO_SLOT)
        return pe_fail(PERI_ERR_NOT_FOUND, "no such key");
    return pe_vgen_touch(r->gen, *slot);
}

static peri_status slot_of(const pe_vreader *r, uint64_t id, uint32_t *slot)
{
    uint64_t at = id - r->gen->id_base;
    if (id < r->gen->id_base || at >= r->count)
        return pe_fail(PERI_ERR_NOT_FOUND, "no row of id %llu", (unsigned long long)id);
    *slot = (uint32_t)at;
    return PERI_OK;
}

peri_status peri_vectors_get(const peri_vectors *v, peri_slice key, float *row, uint64_t *id)
{
    uint32_t slot = 0;
    if (!v || !row)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "row" : "vectors");
    pe_vreader r = pe_vectors_enter(v);
    peri_status status = find_row(&r, key, &slot);
    if (status == PERI_OK) {
        pe_rows_get(&r.gen->rows, slot, row, 1);
        if (id)
            *id = r.gen->id_base + slot;
    }
    pe_vectors_leave(&r);
    return status;
}

peri_status peri_vectors_get_id(const peri_vectors *v, uint64_t id, float *row)
{
    uint32_t slot = 0;
    if (!v || !row)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "row" : "vectors");
    pe_vreader r = pe_vectors_enter(v);
    peri_status status = slot_of(&r, id, &slot);
    if (status == PERI_OK && !pe_vgen_visible(r.gen, slot, r.count))
        status = pe_fail(PERI_ERR_NOT_FOUND, "the row of id %llu was replaced or deleted",
                         (unsigned long long)id);
    if (status == PERI_OK)
        status = pe_vgen_touch(r.gen, slot);
    if (status == PERI_OK)
        pe_rows_get(&r.gen->rows, slot, row, 1);
    pe_vectors_leave(&r);
    return status;
}

peri_status peri_vectors_key_of(const peri_vectors *v, uint64_t id, peri_buf *key)
{
    uint32_t slot = 0;
    if (!v || !key)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "key" : "vectors");
    pe_vreader r = pe_vectors_enter(v);
    peri_status status = slot_of(&r, id, &slot);
    if (status == PERI_OK) {
        peri_slice found = pe_vkeys_of(&r.gen->keys, slot);
        status = found.data ? pe_buf_set(key, found.data, found.size)
                            : pe_fail(PERI_ERR_NOT_FOUND, "the row of id %llu left no key",
                                      (unsigned long long)id);
    }
    pe_vectors_leave(&r);
    return status;
}

/* ---- views ---- */

static void fill_view(const pe_vreader *r, uint32_t slot, uint64_t n, peri_vectors_view *view)
{
    const pe_vgen *g = r->gen;
    pe_vmap *m = pe_vgen_mapping(g);
    pe_vmap_ref(m);
    memset(view, 0, sizeof *view);
    view->data = m->base + (size_t)slot * g->stride;
    view->stride = g->stride;
    view->n = n;
    view->id = g->id_base + slot;
    view->norm = 1;
    if (n == 1 && g->rows.space.metric == PERI_METRIC_COSINE)
        memcpy(&view->norm, pe_array_at(&g->rows.norms, slot), sizeof view->norm);
    view->hold = m;
}

peri_status peri_vectors_view_key(const peri_vectors *v, peri_slice key, peri_vectors_view *view)
{
    uint32_t slot = 0;
    if (!v || !view)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "view" : "vectors");
    memset(view, 0, sizeof *view);
    pe_vreader r = pe_vectors_enter(v);
    peri_status status = find_row(&r, key, &slot);
    if (status == PERI_OK)
        fill_view(&r, slot, 1, view);
    pe_vectors_leave(&r);
    return status;
}

peri_status peri_vectors_view_rows(const peri_vectors *v, uint64_t id, uint64_t n,
                                   peri_vectors_view *view)
{
    uint32_t slot = 0;
    if (!v || !view)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", v ? "view" : "vectors");
    memset(view, 0, sizeof *view);
    pe_vreader r = pe_vectors_enter(v);
    peri_status status = slot_of(&r, id, &slot);
    if (status == PERI_OK && (n == 0 || n > r.count - slot))
        status = pe_fail(PERI_ERR_NOT_FOUND, "%llu rows from id %llu on, there are %u",
                         (unsigned long long)n, (unsigned long long)id, r.count - slot);
    if (status == PERI_OK)
        status = pe_vgen_verify(r.gen, (uint64_t)slot * r.gen->stride, n * r.gen->stride);
    if (status == PERI_OK)
        fill_view(&r, slot, n, view);
    pe_vectors_leave(&r);
    return status;
}

void peri_vectors_release(peri_vectors_view *view)
{
    if (!view)
        return;
    pe_vmap_unref(view->hold);
    memset(view, 0, sizeof *view);
}

/* ---- walking ---- */

peri_status peri_vectors_next(const peri_vectors *v, uint64_t *cursor, peri_buf *key, uint64_t *id)
{
    if (!v || !cursor || !key)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !v ? "vectors" : !cursor ? "cursor" : "key");
    pe_vreader r = pe_vectors_enter(v);
    const pe_vgen *g = r.gen;
    uint64_t slot = *cursor > g->id_base ? *cursor - g->id_base : 0;
    while (slot < r.count && !pe_vgen_visible(g, (uint32_t)slot, r.count))
        slot++;
    peri_status status = PERI_OK;
    if (slot >= r.count) {
        status =
            pe_fail(PERI_ERR_NOT_FOUND, "no key at or after id %llu", (unsigned long long)*cursor);
    } else {
        peri_slice found = pe_vkeys_of(&g->keys, (uint32_t)slot);
        status = pe_buf_set(key, found.data, found.size);
    }
    if (status == PERI_OK) {
        *cursor = g->id_base + slot + 1;
        if (id)
            *id = g->id_base + slot;
    }
    pe_vectors_leave(&r);
    return status;
}
