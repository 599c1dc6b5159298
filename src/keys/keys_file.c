/* The section of a file that holds keys, and the proof of the tables. */
#include "base/checked.h"
#include "keys/keys_parts.h"
#include "persist/bytes.h"

#include <stdio.h>

enum { FILE_HEAD = 16, FILE_RECORD_HEAD = 10 };

static void total_up(const pe_keys *k, const pe_key_view *v, uint64_t *count, uint64_t *bytes)
{
    *count = *bytes = 0;
    for (size_t place = 0; pe_keys_next_record(k, v, &place);) {
        const pe_key_record *r = pe_key_at(v, place);
        *count += !r->dead;
        *bytes += r->dead ? 0 : r->size;
        place += pe_key_record_size(r->size);
    }
}

int pe_keys_next(const pe_keys *k, size_t *cursor, uint64_t *id, peri_slice *key)
{
    const pe_key_view *v = pe_keys_view(k);
    while (pe_keys_next_record(k, v, cursor)) {
        const pe_key_record *r = pe_key_at(v, *cursor);
        *cursor += pe_key_record_size(r->size);
        if (r->dead)
            continue;
        *id = pe_key_id(r);
        *key = (peri_slice){r->key, r->size};
        return 1;
    }
    return 0;
}

static peri_status save_head(pe_segw *w, uint32_t tag, uint64_t count, uint64_t bytes)
{
    unsigned char head[FILE_HEAD];
    pe_put_le64(head, count);
    pe_put_le64(head + 8, bytes);
    PE_TRY(pe_segw_begin(w, tag, 0));
    return pe_segw_put(w, head, sizeof head);
}

static peri_status save_key(pe_segw *w, uint64_t id, peri_slice key)
{
    unsigned char head[FILE_RECORD_HEAD];
    pe_put_le64(head, id);
    pe_put_le16(head + 8, (uint16_t)key.size);
    PE_TRY(pe_segw_put(w, head, sizeof head));
    return pe_segw_put(w, key.data, key.size);
}

peri_status pe_keys_save(const pe_keys *k, pe_segw *w)
{
    uint64_t count, bytes, id;
    peri_slice key;
    total_up(k, pe_keys_view(k), &count, &bytes);
    PE_TRY(save_head(w, PE_KEYS_SECTION, count, bytes));
    for (size_t cursor = 0; pe_keys_next(k, &cursor, &id, &key);)
        PE_TRY(save_key(w, id, key));
    return pe_segw_end(w);
}

peri_status pe_keys_save_as(const pe_keys *k, pe_segw *w, uint32_t tag, size_t n,
                            const uint32_t *ids)
{
    uint64_t count = 0, bytes = 0;
    peri_slice key;
    for (size_t i = 0; i < n; i++)
        if (pe_keys_key_of(k, ids[i], &key)) {
            count++;
            bytes += key.size;
        }
    PE_TRY(save_head(w, tag, count, bytes));
    for (size_t i = 0; i < n; i++)
        if (pe_keys_key_of(k, ids[i], &key))
            PE_TRY(save_key(w, ids[i], key));
    return pe_segw_end(w);
}

/* Records are read in groups, and the slots that a group will look at are fetched while the rest of
 * it is still being read: on a million keys that is twice as fast as one by one. */
enum { GROUP = 32 };

typedef struct group {
    size_t n;
    pe_key_record *record[GROUP];
    size_t place[GROUP];
    uint64_t at[GROUP]; /* in the section */
} group;

/* Read the record at *at into the arena. bytes: what is left of the keys' total, which the arena
 * was made for. */
static peri_status read_record(pe_keys *k, pe_segr *r, const pe_section *s, uint64_t *at,
                               uint64_t *bytes, group *g)
{
    pe_key_view *v = pe_keys_view(k);
    unsigned char head[FILE_RECORD_HEAD];
    PE_TRY(pe_segr_read(r, s, *at, head, sizeof head));
    size_t size = pe_get_le16(head + 8);
    if (size == 0 || size > *bytes)
        return pe_segr_fault(r, s, *at, "a key of %zu bytes, %llu are left", size,
                             (unsigned long long)*bytes);
    pe_key_record *record = pe_keys_append(k, v, pe_get_le64(head), size, &g->place[g->n]);
    PE_TRY(pe_segr_read(r, s, *at + FILE_RECORD_HEAD, record->key, size));
    pe_keys_prefetch(k, v, record);
    g->record[g->n] = record;
    g->at[g->n++] = *at;
    *at += FILE_RECORD_HEAD + size;
    *bytes -= size;
    return PERI_OK;
}

static peri_status show_group(pe_keys *k, pe_segr *r, const pe_section *s, const group *g)
{
    pe_key_view *v = pe_keys_view(k);
    for (size_t i = 0; i < g->n; i++) {
        const pe_key_record *record = g->record[i];
        peri_slice key = {record->key, record->size};
        uint64_t id = pe_key_id(record);
        if (pe_keys_by_id(v, id, NULL, NULL) || pe_keys_by_key(k, v, key, NULL, NULL))
            return pe_segr_fault(r, s, g->at[i], "key or id %llu stands twice",
                                 (unsigned long long)id);
        pe_keys_show(k, v, record, g->place[i]);
    }
    return PERI_OK;
}

static peri_status read_keys(pe_keys *k, pe_segr *r, const pe_section *s)
{
    unsigned char head[FILE_HEAD];
    PE_TRY(pe_segr_read(r, s, 0, head, sizeof head));
    uint64_t count = pe_get_le64(head), bytes = pe_get_le64(head + 8), left = s->size - FILE_HEAD;
    if (count > left / (FILE_RECORD_HEAD + 1) || bytes != left - count * FILE_RECORD_HEAD)
        return pe_segr_fault(r, s, 0, "%llu keys of %llu bytes in all do not fit it",
                             (unsigned long long)count, (unsigned long long)bytes);
    PE_TRY(pe_segr_verify(r, s)); /* before memory is taken for what it says */
    PE_TRY(pe_keys_reserve(k, (size_t)count, (size_t)bytes));
    uint64_t at = FILE_HEAD;
    for (uint64_t i = 0; i < count;) {
        group g = {.n = 0};
        for (; i < count && g.n < GROUP; i++)
            PE_TRY(read_record(k, r, s, &at, &bytes, &g));
        PE_TRY(show_group(k, r, s, &g));
    }
    if (bytes != 0)
        return pe_segr_fault(r, s, at, "%llu bytes that belong to no key",
                             (unsigned long long)bytes);
    return PERI_OK;
}

peri_status pe_keys_open(pe_keys **out, pe_host *host, pe_epoch *epoch, pe_segr *r)
{
    return pe_keys_open_as(out, host, epoch, r, PE_KEYS_SECTION);
}

peri_status pe_keys_open_as(pe_keys **out, pe_host *host, pe_epoch *epoch, pe_segr *r, uint32_t tag)
{
    PE_TRY(pe_keys_create(out, host, epoch));
    const pe_section *s = pe_segr_find(r, tag);
    if (!s)
        return PERI_OK;
    peri_status status = read_keys(*out, r, s);
    if (status != PERI_OK) {
        pe_keys_destroy(*out);
        *out = NULL;
    }
    return status;
}

/* ---- the proof ---- */

static void fault(uint64_t *n_faults, const char *what, size_t place)
{
    if (++*n_faults == 1)
        pe_fail(PERI_ERR_CORRUPT, "keys: %s (record at %zu)", what, place);
}

static size_t slots_in_use(const pe_key_table *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->capacity; i++)
        n += atomic_load_explicit(&t->slots[i], memory_order_relaxed) >= PE_SLOT_FIRST;
    return n;
}

peri_status pe_keys_check(const pe_keys *k, uint64_t *n_faults)
{
    const pe_key_view *v = pe_keys_view(k);
    size_t live = 0, dead = 0, where;
    *n_faults = 0;
    for (size_t place = 0; pe_keys_next_record(k, v, &place);) {
        const pe_key_record *r = pe_key_at(v, place);
        size_t whole = pe_key_record_size(r->size);
        if (whole > k->used - place || (place & v->arena.mask) + whole > v->arena.mask + 1u) {
            fault(n_faults, "a record leaves its chunk", place);
            return PERI_OK;
        }
        live += !r->dead;
        dead += r->dead ? whole : 0;
        if (!r->dead &&
            (!pe_keys_by_key(k, v, (peri_slice){r->key, r->size}, &where, NULL) || where != place))
            fault(n_faults, "a key is not found, or another in its place", place);
        if (!r->dead && (!pe_keys_by_id(v, pe_key_id(r), &where, NULL) || where != place))
            fault(n_faults, "an id is not found, or another in its place", place);
        place += whole;
    }
    /* All live records are found, each at its own place: with the numbers equal, no slot points
     * anywhere else. */
    const pe_key_table *by_key = atomic_load_explicit(&v->by_key, memory_order_acquire);
    const pe_key_table *by_id = atomic_load_explicit(&v->by_id, memory_order_acquire);
    if (slots_in_use(by_key) != live || slots_in_use(by_id) != live || pe_keys_count(k) != live)
        fault(n_faults, "the tables hold more than the live keys", 0);
    if (dead != k->dead)
        fault(n_faults, "the dead bytes are miscounted", 0);
    return PERI_OK;
}
