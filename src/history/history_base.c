/* Tables in files: the base that a compaction leaves, and what it has in common with hints. */
#include "base/checked.h"
#include "history/history_parts.h"

void pe_table_head_put(unsigned char b[PE_TABLE_HEAD], const pe_table_head *h)
{
    const uint64_t numbers[] = {h->last,    h->slots, h->keys, h->live,
                                h->horizon, h->base,  h->file, h->offset};
    memset(b, 0, PE_TABLE_HEAD);
    memcpy(b, h->history, 16);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        pe_put_le64(b + 16 + 8 * i, numbers[i]);
}

static void head_get(const unsigned char b[PE_TABLE_HEAD], pe_table_head *h)
{
    uint64_t *const numbers[] = {&h->last,    &h->slots, &h->keys, &h->live,
                                 &h->horizon, &h->base,  &h->file, &h->offset};
    memcpy(h->history, b, 16);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i] = pe_get_le64(b + 16 + 8 * i);
}

static peri_status save_words(pe_segw *w, uint32_t tag, const void *words, size_t bytes)
{
    PE_TRY(pe_segw_begin(w, tag, 1));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    PE_TRY(pe_segw_put(w, words, bytes));
#else
    for (size_t at = 0; at < bytes; at += 8) {
        unsigned char b[8];
        uint64_t word;
        memcpy(&word, (const unsigned char *)words + at, 8);
        pe_put_le64(b, word);
        PE_TRY(pe_segw_put(w, b, 8));
    }
#endif
    return pe_segw_end(w);
}

peri_status pe_table_save(pe_segw *w, const pe_table_head *head, const pe_slot *slots,
                          const pe_entry *order, size_t n_order)
{
    unsigned char b[PE_TABLE_HEAD];
    pe_table_head_put(b, head);
    PE_TRY(pe_segw_begin(w, PE_TAG_HEAD, 0));
    PE_TRY(pe_segw_put(w, b, sizeof b));
    PE_TRY(pe_segw_end(w));
    PE_TRY(save_words(w, PE_TAG_HASH, (const void *)slots, head->slots * sizeof *slots));
    return n_order ? save_words(w, PE_TAG_ORDER, order, n_order * sizeof *order) : PERI_OK;
}

/* The slots are used where they lie in the map, so a host of the other byte order would have to
 * turn each round first: it is refused by the segment's byte order already. */
peri_status pe_table_load(pe_segr *r, pe_table_head *head, pe_slot **slots)
{
    unsigned char b[PE_TABLE_HEAD];
    const pe_section *s = pe_segr_find(r, PE_TAG_HEAD), *t = pe_segr_find(r, PE_TAG_HASH);
    if (!s || s->size != sizeof b || !t)
        return pe_fail(PERI_ERR_CORRUPT, "%s: the table of keys is missing", pe_segr_path(r));
    PE_TRY(pe_segr_verify(r, s));
    PE_TRY(pe_segr_verify(r, t));
    memcpy(b, s->data, sizeof b);
    head_get(b, head);
    if (head->slots == 0 || head->slots & (head->slots - 1) ||
        t->size / sizeof(pe_slot) != head->slots || t->size % sizeof(pe_slot))
        return pe_segr_fault(r, s, 24, "%llu slots", (unsigned long long)head->slots);
    if (head->keys > head->slots / 3 * 2 + 1 || head->live > head->keys)
        return pe_segr_fault(r, s, 32, "%llu keys, of them %llu live, in %llu slots",
                             (unsigned long long)head->keys, (unsigned long long)head->live,
                             (unsigned long long)head->slots);
    *slots = (pe_slot *)(void *)t->data;
    return PERI_OK;
}

peri_status pe_table_map(pe_table **out, pe_history *h, const char *path, uint32_t kind,
                         pe_table_head *head)
{
    pe_table *t = pe_calloc(&h->host, sizeof *t);
    if (!t)
        return PERI_ERR_NOMEM;
    peri_status status = pe_segr_open(&t->hint, &h->host, path, PE_SEGMENT_MAP_COW);
    if (status == PERI_OK)
        status = pe_segr_expect(t->hint, kind, 1, 0);
    if (status == PERI_OK && memcmp(pe_segr_id(t->hint)->uuid, h->journal->uuid, 16) != 0)
        status = pe_fail(PERI_ERR_CORRUPT, "%s: this file belongs elsewhere", path);
    if (status == PERI_OK)
        status = pe_table_load(t->hint, head, &t->slots);
    if (status != PERI_OK) {
        pe_segr_close(t->hint);
        pe_free(&h->host, t, sizeof *t);
        return status;
    }
    t->mask = head->slots - 1;
    *out = t;
    return PERI_OK;
}

/* ---- the base ---- */

void pe_base_unpin(void *owner, void *base, uint64_t host_address)
{
    pe_host *host = (pe_host *)(uintptr_t)host_address;
    pe_base *b = base;
    (void)owner;
    if (atomic_fetch_sub_explicit(&b->pins, 1, memory_order_acq_rel) != 1)
        return;
    pe_segr_close(b->segment);
    pe_free(host, b->verified, b->n_verified * sizeof *b->verified);
    pe_free(host, b, sizeof *b);
}

static peri_status load_base(pe_base *b, pe_history *h, const char *path)
{
    pe_table_head head;
    pe_slot *slots;
    PE_TRY(pe_segr_open(&b->segment, &h->host, path, PE_SEGMENT_MAP));
    PE_TRY(pe_segr_expect(b->segment, PE_BASE_KIND, 1, 0));
    const pe_segment_id *id = pe_segr_id(b->segment);
    if (memcmp(id->uuid, h->journal->uuid, 16) != 0 || id->generation != b->number)
        return pe_fail(PERI_ERR_CORRUPT, "%s: this file belongs elsewhere", path);
    PE_TRY(pe_table_load(b->segment, &head, &slots));
    const pe_section *data = pe_segr_find(b->segment, PE_TAG_DATA);
    if (!data)
        return pe_fail(PERI_ERR_CORRUPT, "%s: the versions are missing", path);
    b->data = data->data;
    b->size = data->size;
    b->slots = slots;
    b->mask = head.slots - 1;
    b->last = head.last;
    b->keys = head.keys;
    b->live = head.live;
    b->horizon = head.horizon;
    b->n_verified = (size_t)(b->size >> 16) / 64 + 1;
    b->verified = pe_calloc(&h->host, b->n_verified * sizeof *b->verified);
    return b->verified ? PERI_OK : PERI_ERR_NOMEM;
}

peri_status pe_base_open(pe_base **out, pe_history *h, uint64_t number)
{
    char *path;
    size_t room;
    pe_base *b = pe_calloc(&h->host, sizeof *b);
    if (!b)
        return PERI_ERR_NOMEM;
    atomic_init(&b->pins, 1);
    b->number = number;
    b->seed = pe_journal_file_seed(h->journal->uuid, number);
    peri_status status = pe_journal_path(h->journal, number, "peb", &path, &room);
    if (status == PERI_OK) {
        status = load_base(b, h, path);
        if (status == PERI_ERR_NOT_FOUND && !h->config.readonly)
            status = pe_fail(PERI_ERR_CORRUPT, "%s: listed in the manifest, but gone", path);
        pe_free(&h->host, path, room);
    }
    if (status != PERI_OK) {
        pe_base_unpin(NULL, b, (uint64_t)(uintptr_t)&h->host);
        return status;
    }
    *out = b;
    return PERI_OK;
}

peri_status pe_base_find(const pe_history *h, const pe_view *v, peri_slice key, pe_version *out)
{
    pe_table t = {(pe_slot *)(uintptr_t)v->base->slots, v->base->mask, 0, NULL};
    pe_slot *slot;
    return pe_table_find(h, v, &t, pe_history_hash(h, key), key, 1, &slot, out);
}
