/* The hash table of keys. Slots hold the whole hash, so that growing reads no key and a probe
 * compares a key about once in 2^64; filled to two thirds at most. */
#include "base/checked.h"
#include "history/history_parts.h"

enum { TABLE_LOW = 64 };

uint64_t pe_history_hash(const pe_history *h, peri_slice key)
{
    uint64_t hash = pe_segment_hash(key.data, key.size, h->key_seed);
    return hash ? hash : 1;
}

peri_status pe_table_create(pe_table **out, pe_host *host, uint64_t keys)
{
    uint64_t slots = TABLE_LOW;
    while (slots / 3 * 2 < keys + 1 && slots < (uint64_t)1 << 58)
        slots *= 2;
    pe_table *t = pe_calloc(host, sizeof *t);
    if (!t)
        return PERI_ERR_NOMEM;
    t->bytes = (size_t)slots * sizeof *t->slots;
    t->slots = pe_alloc_aligned(host, t->bytes, t->bytes >= PE_HUGE ? (size_t)PE_HUGE : PE_ALIGN);
    if (!t->slots) {
        pe_free(host, t, sizeof *t);
        return PERI_ERR_NOMEM;
    }
    memset((void *)t->slots, 0, t->bytes);
    t->mask = slots - 1;
    *out = t;
    return PERI_OK;
}

void pe_table_free(pe_table *t, pe_host *host)
{
    if (!t)
        return;
    if (t->bytes)
        pe_free(host, t->slots, t->bytes);
    pe_segr_close(t->hint);
    pe_free(host, t, sizeof *t);
}

void pe_table_insert(pe_table *t, uint64_t hash, uint64_t place)
{
    uint64_t i = hash & t->mask;
    while (atomic_load_explicit(&t->slots[i].place, memory_order_relaxed))
        i = (i + 1) & t->mask;
    atomic_store_explicit(&t->slots[i].hash, hash, memory_order_relaxed);
    atomic_store_explicit(&t->slots[i].place, place, memory_order_release);
}

peri_status pe_table_find(const pe_history *h, const pe_view *v, const pe_table *t, uint64_t hash,
                          peri_slice key, int verify, pe_slot **slot, pe_version *newest)
{
    uint64_t i = hash & t->mask;
    for (uint64_t probes = 0; probes <= t->mask; probes++, i = (i + 1) & t->mask) {
        pe_slot *s = &t->slots[i];
        uint64_t place = atomic_load_explicit(&s->place, memory_order_acquire);
        if (place == 0) {
            *slot = s;
            return PERI_ERR_NOT_FOUND;
        }
        if (atomic_load_explicit(&s->hash, memory_order_relaxed) != hash)
            continue;
        *slot = s;
        PE_TRY(verify ? pe_view_version(h, v, place, newest) : pe_view_peek(h, v, place, newest));
        if (newest->key.size == key.size && memcmp(newest->key.data, key.data, key.size) == 0)
            return PERI_OK;
        /* The same hash and another key: once in 2^64, or damage. */
        if (!verify)
            PE_TRY(pe_view_version(h, v, place, newest));
    }
    *slot = NULL;
    return pe_fail(PERI_ERR_CORRUPT, "%s: the table of keys has no end", h->journal->dir);
}

static void retire_table(void *owner, void *table, uint64_t host)
{
    (void)owner;
    pe_table_free(table, (pe_host *)(uintptr_t)host);
}

peri_status pe_history_reserve_keys(pe_history *h, uint64_t n)
{
    pe_view *v = atomic_load(&h->view), *next;
    pe_table *t;
    uint64_t keys = atomic_load_explicit(&h->keys, memory_order_relaxed);
    if (keys + n <= (v->table->mask + 1) / 3 * 2)
        return PERI_OK;
    PE_TRY(pe_epoch_reserve(&h->epoch, 2));
    PE_TRY(pe_table_create(&t, &h->host, (keys + n) * 2));
    peri_status status = pe_view_create(h, t, v->base, v->files, &next);
    if (status != PERI_OK) {
        pe_table_free(t, &h->host);
        return status;
    }
    for (uint64_t i = 0; i <= v->table->mask; i++) {
        const pe_slot *s = &v->table->slots[i];
        uint64_t place =
            atomic_load_explicit(&((pe_slot *)(uintptr_t)s)->place, memory_order_relaxed);
        if (place)
            pe_table_insert(
                t, atomic_load_explicit(&((pe_slot *)(uintptr_t)s)->hash, memory_order_relaxed),
                place);
    }
    /* The mapped file stays: a run of ordered keys may lie in it. */
    t->hint = v->table->hint;
    v->table->hint = NULL;
    pe_view_publish(h, next);
    pe_epoch_retire(&h->epoch, retire_table, v->table, (uint64_t)(uintptr_t)&h->host);
    pe_epoch_reclaim(&h->epoch);
    return PERI_OK;
}
