/* Keys of slots: which slot a key has now, and the key of each slot.
 *
 * Not keys/, though its subject is the same: slots here are dense and never used again, so an array
 * answers "the key of this slot", one table of 8-byte entries "the slot of this key", and what a
 * checkpoint wrote can be adopted where it was read. A million keys: inserting takes 95 ns each,
 * rows of one dimension and all, against 350 for the keys alone; opening 30 against 130. A row of
 * 384 dimensions takes 400 in all.
 *
 * Invariants:
 *  K1. The bytes of a key never move or change while the generation lives.
 *  K2. A key has at most one entry. Giving it another slot is one store to that entry.
 *  K3. An entry is stored after its key's bytes and its slot's pointer to them (release). */
#include "base/checked.h"
#include "base/rng.h"
#include "mmap/vectors_parts.h"

#include <assert.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { EMPTY = 0, GONE = 1, FIRST = 2, TABLE_MIN = 64, CHUNK_MIN = 1 << 14, CHUNK_MAX = 8 << 20 };

void pe_vkeys_init(pe_vkeys *k, pe_host *host, pe_epoch *epoch)
{
    k->host = host;
    k->epoch = epoch;
    k->seed = pe_mix64((uint64_t)(uintptr_t)k ^ pe_mix64((uint64_t)(uintptr_t)&host));
    pe_array_init(&k->of_slot, host, sizeof(unsigned char *));
}

static size_t table_bytes(size_t capacity)
{
    return sizeof(pe_vtable) + capacity * sizeof(uint64_t);
}

void pe_vkeys_destroy(pe_vkeys *k)
{
    pe_vtable *t = atomic_load_explicit(&k->table, memory_order_relaxed);
    if (t)
        pe_free(k->host, t, table_bytes(t->mask + 1));
    while (k->chunks) {
        pe_vchunk *c = k->chunks;
        k->chunks = c->next;
        pe_free(k->host, c, sizeof *c + c->size);
    }
    if (k->of_slot.host)
        pe_array_destroy(&k->of_slot);
}

uint32_t pe_vkeys_hash(const pe_vkeys *k, const void *key, size_t size)
{
    return (uint32_t)(XXH3_64bits_withSeed(key, size, k->seed) >> 32);
}

/* ---- room ---- */

unsigned char *pe_vkeys_chunk(pe_vkeys *k, size_t bytes)
{
    size_t whole;
    if (pe_add_size(sizeof(pe_vchunk), bytes, &whole)) {
        pe_fail(PERI_ERR_NOMEM, "%zu bytes of keys", bytes);
        return NULL;
    }
    pe_vchunk *c = pe_alloc_aligned(k->host, whole, bytes >= PE_HUGE ? PE_HUGE : PE_ALIGN);
    if (!c)
        return NULL;
    c->next = k->chunks;
    c->size = bytes;
    k->chunks = c;
    k->used = bytes; /* it is the caller's; what follows goes to a new one */
    return c->bytes;
}

/* What is left of the chunk before is given up: never more than this one brings. */
static peri_status reserve_bytes(pe_vkeys *k, size_t bytes)
{
    size_t size = k->chunks ? k->chunks->size : 0;
    if (bytes <= size - k->used)
        return PERI_OK;
    size = size < CHUNK_MIN ? CHUNK_MIN : size >= CHUNK_MAX / 2 ? CHUNK_MAX : size * 2;
    if (!pe_vkeys_chunk(k, bytes > size ? bytes : size))
        return PERI_ERR_NOMEM;
    k->used = 0;
    return PERI_OK;
}

/* Where the entry goes depends only on the 32 bits that the entry holds: growing does not look at
 * the keys, and doubling reads and writes in order. */
static void place(pe_vtable *t, uint64_t entry, size_t *taken)
{
    for (size_t i = (size_t)(entry >> 32);; i++) {
        _Atomic uint64_t *at = &t->entry[i & t->mask];
        uint64_t had = atomic_load_explicit(at, memory_order_relaxed);
        if ((uint32_t)had >= FIRST)
            continue;
        *taken += had == EMPTY;
        atomic_store_explicit(at, entry, memory_order_release);
        return;
    }
}

static peri_status reserve_table(pe_vkeys *k, size_t n)
{
    pe_vtable *old = atomic_load_explicit(&k->table, memory_order_relaxed);
    size_t room = old ? (old->mask + 1) / 4 * 3 : 0, capacity = TABLE_MIN, taken = 0;
    if (k->taken <= room && n <= room - k->taken)
        return PERI_OK;
    size_t want = (size_t)atomic_load_explicit(&k->live, memory_order_relaxed) + n;
    while (capacity / 8 * 5 < want)
        capacity *= 2;
    PE_TRY(pe_epoch_reserve(k->epoch, 1));
    size_t bytes = table_bytes(capacity);
    pe_vtable *t = pe_alloc_aligned(k->host, bytes, bytes >= PE_HUGE ? PE_HUGE : PE_ALIGN);
    if (!t)
        return PERI_ERR_NOMEM;
    memset(t, 0, bytes);
    t->mask = capacity - 1;
    for (size_t i = 0; old && i <= old->mask; i++) {
        uint64_t entry = atomic_load_explicit(&old->entry[i], memory_order_relaxed);
        if ((uint32_t)entry >= FIRST)
            place(t, entry, &taken);
    }
    k->taken = taken;
    atomic_store_explicit(&k->table, t, memory_order_release);
    if (old)
        pe_epoch_retire_memory(k->epoch, old, table_bytes(old->mask + 1));
    return PERI_OK;
}

peri_status pe_vkeys_reserve(pe_vkeys *k, size_t slots, size_t n, size_t bytes)
{
    if (n > PE_MAX_SLOTS)
        return pe_fail(PERI_ERR_FULL, "%zu keys, at most %d are possible", n, PE_MAX_SLOTS);
    PE_TRY(pe_array_reserve(&k->of_slot, k->epoch, slots, 0));
    PE_TRY(reserve_bytes(k, bytes));
    return reserve_table(k, n);
}

/* ---- finding and setting ---- */

static _Atomic uint64_t *find(const pe_vkeys *k, peri_slice key, uint32_t hash, uint32_t *slot)
{
    pe_vtable *t = atomic_load_explicit(&k->table, memory_order_acquire);
    for (size_t i = hash; t; i++) {
        _Atomic uint64_t *at = &t->entry[i & t->mask];
        uint64_t entry = atomic_load_explicit(at, memory_order_acquire);
        if (entry == EMPTY)
            break;
        if ((uint32_t)(entry >> 32) != hash || (uint32_t)entry < FIRST)
            continue;
        peri_slice had = pe_vkeys_of(k, (uint32_t)entry - FIRST);
        if (had.size == key.size && memcmp(had.data, key.data, key.size) == 0) {
            *slot = (uint32_t)entry - FIRST;
            return at;
        }
    }
    return NULL;
}

uint32_t pe_vkeys_find(const pe_vkeys *k, peri_slice key, uint32_t hash)
{
    uint32_t slot = PE_NO_SLOT;
    return find(k, key, hash, &slot) ? slot : PE_NO_SLOT;
}

void pe_vkeys_prefetch(const pe_vkeys *k, uint32_t hash)
{
    pe_vtable *t = atomic_load_explicit(&k->table, memory_order_relaxed);
    if (t)
        __builtin_prefetch(&t->entry[hash & t->mask]);
}

static uint64_t entry_of(uint32_t hash, uint32_t slot)
{
    return (uint64_t)hash << 32 | (slot + FIRST);
}

static void set_of_slot(pe_vkeys *k, uint32_t slot, const unsigned char *key)
{
    memcpy(pe_array_at(&k->of_slot, slot), &key, sizeof key);
}

static void insert(pe_vkeys *k, uint32_t hash, uint32_t slot)
{
    place(atomic_load_explicit(&k->table, memory_order_relaxed), entry_of(hash, slot), &k->taken);
    atomic_fetch_add_explicit(&k->live, 1, memory_order_relaxed);
}

uint32_t pe_vkeys_set(pe_vkeys *k, peri_slice key, uint32_t hash, uint32_t slot)
{
    uint32_t former = PE_NO_SLOT;
    _Atomic uint64_t *at = find(k, key, hash, &former);
    if (at) {
        memcpy(pe_array_at(&k->of_slot, slot), pe_array_at(&k->of_slot, former), k->of_slot.stride);
        atomic_store_explicit(at, entry_of(hash, slot), memory_order_release);
        return former;
    }
    unsigned char *to = k->chunks->bytes + k->used;
    assert(k->chunks->size - k->used >= PE_VKEY_HEAD + key.size);
    to[0] = (unsigned char)key.size;
    to[1] = (unsigned char)(key.size >> 8);
    memcpy(to + PE_VKEY_HEAD, key.data, key.size);
    k->used += PE_VKEY_HEAD + key.size;
    set_of_slot(k, slot, to);
    insert(k, hash, slot);
    return former;
}

int pe_vkeys_adopt(pe_vkeys *k, const unsigned char *key, uint32_t hash, uint32_t slot)
{
    uint32_t former;
    peri_slice bytes = {key + PE_VKEY_HEAD, (size_t)(key[0] | key[1] << 8)};
    if (find(k, bytes, hash, &former))
        return 0;
    set_of_slot(k, slot, key);
    insert(k, hash, slot);
    return 1;
}

void pe_vkeys_remove(pe_vkeys *k, peri_slice key, uint32_t hash)
{
    uint32_t slot;
    _Atomic uint64_t *at = find(k, key, hash, &slot);
    if (!at)
        return;
    atomic_store_explicit(at, GONE, memory_order_release);
    atomic_fetch_sub_explicit(&k->live, 1, memory_order_relaxed);
}
