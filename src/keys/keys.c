/* Finding, setting and removing keys; the layout and the invariants are in keys_parts.h. */
#include "base/checked.h"
#include "keys/keys_parts.h"

#include <assert.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    TABLE_MIN = 16,
    COMPACT_FROM = 1 << 16, /* an arena smaller than this is let be */
};

static uint64_t hash_key(const pe_keys *k, const void *key, size_t size)
{
    return XXH3_64bits_withSeed(key, size, k->seed);
}

/* ---- the arena ---- */

int pe_keys_next_record(const pe_keys *k, const pe_key_view *v, size_t *place)
{
    size_t chunk = (size_t)v->arena.mask + 1;
    while (*place < k->used) {
        size_t left = chunk - (*place & v->arena.mask);
        if (left >= PE_KEY_RECORD_MIN && pe_key_at(v, *place)->size != 0)
            return 1;
        *place += left;
    }
    return 0;
}

/* Room for records of `total` bytes, heads and all, after the first `used` bytes. */
static peri_status widen_arena(pe_keys *k, pe_key_view *v, size_t used, size_t total)
{
    size_t chunk = (size_t)v->arena.mask + 1, inside = used & v->arena.mask, end = used + total;
    if (total > chunk - inside) { /* then each chunk may end in a gap */
        size_t more = total / (chunk - PE_KEY_RECORD_MAX) + 1;
        end = used - inside + chunk * (more + 1);
    }
    return pe_array_reserve(&v->arena, k->epoch, end, 0);
}

/* A record of `size` bytes goes to *used, or to the next chunk when it does not fit in this one. */
static pe_key_record *append(pe_key_view *v, size_t *used, uint64_t id, size_t size, size_t *place)
{
    size_t chunk = (size_t)v->arena.mask + 1, inside = *used & v->arena.mask;
    size_t whole = pe_key_record_size(size);
    *place = inside + whole > chunk ? *used - inside + chunk : *used;
    *used = *place + whole;
    assert(*used <= v->arena.capacity);
    pe_key_record *r = pe_key_at(v, *place);
    atomic_store_explicit(&r->id, id, memory_order_relaxed);
    r->size = (uint16_t)size;
    return r;
}

/* ---- tables ---- */

static size_t table_bytes(size_t capacity)
{
    return sizeof(pe_key_table) + capacity * sizeof(uint64_t);
}

/* For `count` keys, at most five eighths full. Tables are rebuilt at three quarters, so at least an
 * eighth of the slots is used up between two rebuilds. */
static pe_key_table *new_table(pe_host *host, size_t count)
{
    size_t capacity = TABLE_MIN;
    if ((uint64_t)count >> 50 != 0) {
        pe_fail(PERI_ERR_NOMEM, "a table of %zu keys", count);
        return NULL;
    }
    while (capacity / 8 * 5 < count)
        capacity *= 2;
    pe_key_table *t = pe_calloc(host, table_bytes(capacity));
    if (t)
        t->capacity = capacity;
    return t;
}

static void free_table(pe_host *host, pe_key_table *t)
{
    if (t)
        pe_free(host, t, table_bytes(t->capacity));
}

/* The next slot from probe *i on whose hash bits fit; its place, or 0 at the end of the chain. */
static _Atomic uint64_t *probe(pe_key_table *t, uint64_t hash, size_t *i, size_t *place)
{
    for (;; ++*i) {
        _Atomic uint64_t *at = &t->slots[(hash + *i) & (t->capacity - 1)];
        uint64_t slot = atomic_load_explicit(at, memory_order_acquire);
        if (slot == PE_SLOT_EMPTY)
            return NULL;
        if (slot == PE_SLOT_GONE || (slot ^ hash) >> 48 != 0)
            continue;
        *place = pe_slot_place(slot);
        return at;
    }
}

pe_key_record *pe_keys_by_key(const pe_keys *k, const pe_key_view *v, peri_slice key, size_t *place,
                              _Atomic uint64_t **slot)
{
    pe_key_table *t = atomic_load_explicit(&v->by_key, memory_order_acquire);
    uint64_t hash = hash_key(k, key.data, key.size);
    _Atomic uint64_t *at;
    size_t where;
    for (size_t i = 0; (at = probe(t, hash, &i, &where)) != NULL; i++) {
        pe_key_record *r = pe_key_at(v, where);
        if (r->size != key.size || memcmp(r->key, key.data, key.size) != 0)
            continue;
        if (place)
            *place = where;
        if (slot)
            *slot = at;
        return r;
    }
    return NULL;
}

pe_key_record *pe_keys_by_id(const pe_key_view *v, uint64_t id, size_t *place,
                             _Atomic uint64_t **slot)
{
    pe_key_table *t = atomic_load_explicit(&v->by_id, memory_order_acquire);
    uint64_t hash = pe_mix64(id);
    _Atomic uint64_t *at;
    size_t where;
    for (size_t i = 0; (at = probe(t, hash, &i, &where)) != NULL; i++) {
        pe_key_record *r = pe_key_at(v, where);
        if (pe_key_id(r) != id)
            continue;
        if (place)
            *place = where;
        if (slot)
            *slot = at;
        return r;
    }
    return NULL;
}

void pe_keys_prefetch(const pe_keys *k, const pe_key_view *v, const pe_key_record *r)
{
    pe_key_table *by_key = atomic_load_explicit(&v->by_key, memory_order_relaxed);
    pe_key_table *by_id = atomic_load_explicit(&v->by_id, memory_order_relaxed);
    uint64_t hash = hash_key(k, r->key, r->size);
    __builtin_prefetch(&by_key->slots[hash & (by_key->capacity - 1)]);
    __builtin_prefetch(&by_id->slots[pe_mix64(pe_key_id(r)) & (by_id->capacity - 1)]);
}

static void insert(pe_key_table *t, uint64_t hash, size_t place)
{
    for (size_t i = 0;; i++) {
        _Atomic uint64_t *at = &t->slots[(hash + i) & (t->capacity - 1)];
        uint64_t slot = atomic_load_explicit(at, memory_order_relaxed);
        if (slot >= PE_SLOT_FIRST)
            continue;
        t->taken += slot == PE_SLOT_EMPTY;
        slot = hash >> 48 << 48 | (place / 8 + PE_SLOT_FIRST);
        atomic_store_explicit(at, slot, memory_order_release);
        return;
    }
}

static void insert_key(const pe_keys *k, pe_key_view *v, const pe_key_record *r, size_t place)
{
    pe_key_table *t = atomic_load_explicit(&v->by_key, memory_order_relaxed);
    insert(t, hash_key(k, r->key, r->size), place);
}

static void insert_id(pe_key_view *v, uint64_t id, size_t place)
{
    insert(atomic_load_explicit(&v->by_id, memory_order_relaxed), pe_mix64(id), place);
}

static void give_up(_Atomic uint64_t *slot)
{
    atomic_store_explicit(slot, PE_SLOT_GONE, memory_order_release);
}

/* Room in one table for n more slots. */
static peri_status widen_table(pe_keys *k, pe_key_view *v, int by_id, size_t n)
{
    _Atomic(pe_key_table *) *at = by_id ? &v->by_id : &v->by_key;
    pe_key_table *old = atomic_load_explicit(at, memory_order_relaxed);
    size_t room = old->capacity / 4 * 3;
    if (old->taken <= room && n <= room - old->taken)
        return PERI_OK;
    PE_TRY(pe_epoch_reserve(k->epoch, 1));
    pe_key_table *fresh = new_table(k->host, pe_keys_count(k) + n);
    if (!fresh)
        return PERI_ERR_NOMEM;
    for (size_t place = 0; pe_keys_next_record(k, v, &place);) {
        const pe_key_record *r = pe_key_at(v, place);
        if (!r->dead)
            insert(fresh, by_id ? pe_mix64(pe_key_id(r)) : hash_key(k, r->key, r->size), place);
        place += pe_key_record_size(r->size);
    }
    atomic_store_explicit(at, fresh, memory_order_release);
    pe_epoch_retire_memory(k->epoch, old, table_bytes(old->capacity));
    return PERI_OK;
}

/* ---- views ---- */

static void free_view(void *owner, void *ptr, uint64_t arg)
{
    (void)owner;
    (void)arg;
    pe_key_view *v = ptr;
    free_table(v->host, atomic_load_explicit(&v->by_key, memory_order_relaxed));
    free_table(v->host, atomic_load_explicit(&v->by_id, memory_order_relaxed));
    pe_array_destroy(&v->arena);
    pe_free(v->host, v, sizeof *v);
}

static pe_key_view *new_view(pe_host *host, size_t count)
{
    pe_key_view *v = pe_calloc(host, sizeof *v);
    if (!v)
        return NULL;
    v->host = host;
    pe_array_init(&v->arena, host, 1);
    pe_key_table *by_key = new_table(host, count);
    pe_key_table *by_id = by_key ? new_table(host, count) : NULL;
    atomic_store_explicit(&v->by_key, by_key, memory_order_relaxed);
    atomic_store_explicit(&v->by_id, by_id, memory_order_relaxed);
    if (!by_id) {
        free_view(NULL, v, 0);
        return NULL;
    }
    return v;
}

/* ---- the handle ---- */

peri_status pe_keys_create(pe_keys **out, pe_host *host, pe_epoch *epoch)
{
    *out = NULL;
    pe_keys *k = pe_calloc(host, sizeof *k);
    pe_key_view *v = k ? new_view(host, 0) : NULL;
    if (!v) {
        pe_free(host, k, sizeof *k);
        return PERI_ERR_NOMEM;
    }
    k->host = host;
    k->epoch = epoch;
    /* Addresses differ from run to run, so which keys collide is not known beforehand. Nothing that
     * is saved depends on it. */
    k->seed = pe_mix64((uint64_t)(uintptr_t)k ^ pe_mix64((uint64_t)(uintptr_t)&k));
    atomic_store_explicit(&k->view, v, memory_order_release);
    *out = k;
    return PERI_OK;
}

void pe_keys_destroy(pe_keys *k)
{
    if (!k)
        return;
    free_view(NULL, pe_keys_view(k), 0);
    pe_free(k->host, k, sizeof *k);
}

size_t pe_keys_count(const pe_keys *k)
{
    return atomic_load_explicit(&k->count, memory_order_relaxed);
}

int pe_keys_find(const pe_keys *k, peri_slice key, uint64_t *id)
{
    const pe_key_record *r = pe_keys_by_key(k, pe_keys_view(k), key, NULL, NULL);
    if (r)
        *id = pe_key_id(r);
    return r != NULL;
}

int pe_keys_key_of(const pe_keys *k, uint64_t id, peri_slice *key)
{
    const pe_key_record *r = pe_keys_by_id(pe_keys_view(k), id, NULL, NULL);
    if (r)
        *key = (peri_slice){r->key, r->size};
    return r != NULL;
}

peri_status pe_keys_reserve(pe_keys *k, size_t n, size_t key_bytes)
{
    pe_key_view *v = pe_keys_view(k);
    size_t total, end;
    if (pe_mul_size(n, PE_KEY_HEAD + 7, &total) || pe_add_size(total, key_bytes, &total) ||
        pe_add_size(k->used, total, &end) || (uint64_t)end >> 50 != 0)
        return pe_fail(PERI_ERR_NOMEM, "%zu keys of %zu bytes in all", n, key_bytes);
    PE_TRY(widen_arena(k, v, k->used, total));
    PE_TRY(widen_table(k, v, 0, n));
    return widen_table(k, v, 1, n);
}

pe_key_record *pe_keys_append(pe_keys *k, pe_key_view *v, uint64_t id, size_t size, size_t *place)
{
    return append(v, &k->used, id, size, place);
}

static void add_count(pe_keys *k, size_t n)
{
    atomic_store_explicit(&k->count, pe_keys_count(k) + n, memory_order_relaxed);
}

void pe_keys_show(pe_keys *k, pe_key_view *v, const pe_key_record *r, size_t place)
{
    /* By id first: who finds the key may at once ask for the id's key. */
    insert_id(v, pe_key_id(r), place);
    insert_key(k, v, r, place);
    add_count(k, 1);
}

void pe_keys_set(pe_keys *k, peri_slice key, uint64_t id)
{
    pe_key_view *v = pe_keys_view(k);
    size_t place;
    assert(key.size > 0 && key.size <= PE_KEY_SIZE_MAX);
    pe_key_record *r = pe_keys_by_key(k, v, key, &place, NULL);
    if (!r) {
        r = append(v, &k->used, id, key.size, &place);
        memcpy(r->key, key.data, key.size);
        pe_keys_show(k, v, r, place);
        return;
    }
    uint64_t before = pe_key_id(r);
    _Atomic uint64_t *slot = NULL;
    if (before == id)
        return;
    pe_keys_by_id(v, before, NULL, &slot);
    insert_id(v, id, place);
    atomic_store_explicit(&r->id, id, memory_order_release);
    give_up(slot);
}

int pe_keys_remove(pe_keys *k, peri_slice key)
{
    pe_key_view *v = pe_keys_view(k);
    _Atomic uint64_t *by_key, *by_id = NULL;
    pe_key_record *r = pe_keys_by_key(k, v, key, NULL, &by_key);
    if (!r)
        return 0;
    pe_keys_by_id(v, pe_key_id(r), NULL, &by_id);
    r->dead = 1;
    give_up(by_key);
    give_up(by_id);
    k->dead += pe_key_record_size(r->size);
    add_count(k, (size_t)-1);
    if (k->used >= COMPACT_FROM && k->dead > k->used / 2)
        (void)pe_keys_compact(k); /* no room for it now: the next remove tries again */
    return 1;
}

peri_status pe_keys_compact(pe_keys *k)
{
    pe_key_view *old = pe_keys_view(k);
    size_t used = 0, keys = pe_keys_count(k), to;
    PE_TRY(pe_epoch_reserve(k->epoch, 1));
    pe_key_view *v = new_view(k->host, keys);
    if (!v)
        return PERI_ERR_NOMEM;
    peri_status status = widen_arena(k, v, 0, k->used - k->dead);
    if (status == PERI_OK) /* that may have retired a short table of chunks */
        status = pe_epoch_reserve(k->epoch, 1);
    if (status != PERI_OK) {
        free_view(NULL, v, 0);
        return status;
    }
    for (size_t place = 0; pe_keys_next_record(k, old, &place);) {
        const pe_key_record *from = pe_key_at(old, place);
        if (!from->dead) {
            pe_key_record *r = append(v, &used, pe_key_id(from), from->size, &to);
            memcpy(r->key, from->key, from->size);
            insert_id(v, pe_key_id(r), to);
            insert_key(k, v, r, to);
        }
        place += pe_key_record_size(from->size);
    }
    k->used = used;
    k->dead = 0;
    atomic_store_explicit(&k->view, v, memory_order_release);
    pe_epoch_retire(k->epoch, free_view, old, 0);
    return PERI_OK;
}
