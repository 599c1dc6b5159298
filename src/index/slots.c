#include "index/slots.h"
#include "base/checked.h"
#include "base/rng.h"

#define EMPTY   UINT32_MAX
#define REMOVED (UINT32_MAX - 1)

void pe_slots_init(pe_slots *s, pe_host *host, pe_epoch *epoch)
{
    memset(s, 0, sizeof *s);
    s->host = host;
    s->epoch = epoch;
    atomic_store_explicit(&s->direct, 1, memory_order_relaxed);
    pe_array_init(&s->ids, host, sizeof(uint64_t));
    pe_array_init(&s->dead, host, sizeof(uint64_t));
}

static size_t map_bytes(size_t capacity)
{
    return sizeof(pe_idmap) + capacity * sizeof(uint32_t);
}

static pe_idmap *get_map(const pe_slots *s)
{
    return atomic_load_explicit(&s->map, memory_order_acquire);
}

void pe_slots_destroy(pe_slots *s)
{
    pe_idmap *m = get_map(s);
    if (m)
        pe_free(s->host, m, map_bytes(m->mask + 1));
    atomic_store_explicit(&s->map, NULL, memory_order_relaxed);
    pe_array_destroy(&s->ids);
    pe_array_destroy(&s->dead);
    pe_free(s->host, s->free, s->free_room * sizeof *s->free);
    s->free = NULL;
    s->n_free = s->free_room = 0;
}

static int is_direct(const pe_slots *s)
{
    return atomic_load_explicit(&s->direct, memory_order_acquire);
}

static _Atomic uint64_t *id_cell(const pe_slots *s, uint32_t slot)
{
    return (_Atomic uint64_t *)pe_array_at(&s->ids, slot);
}

uint64_t pe_slots_id(const pe_slots *s, uint32_t slot)
{
    return is_direct(s) ? slot : atomic_load_explicit(id_cell(s, slot), memory_order_relaxed);
}

static void set_dead(pe_slots *s, uint32_t slot, int dead)
{
    _Atomic uint64_t *w = (_Atomic uint64_t *)pe_array_at(&s->dead, slot / 64);
    uint64_t bit = (uint64_t)1 << (slot % 64);
    if (dead)
        atomic_fetch_or_explicit(w, bit, memory_order_release);
    else
        atomic_fetch_and_explicit(w, ~bit, memory_order_release);
}

/* ---- the map: linear probing over slots; the id itself is read from the id array ---- */

static uint32_t map_find(const pe_slots *s, const pe_idmap *m, uint64_t id, size_t *at)
{
    size_t i = (size_t)pe_mix64(id) & m->mask;
    for (;; i = (i + 1) & m->mask) {
        uint32_t slot = atomic_load_explicit(&m->entry[i], memory_order_acquire);
        if (slot == EMPTY)
            return PE_NO_SLOT;
        if (slot != REMOVED && atomic_load_explicit(id_cell(s, slot), memory_order_relaxed) == id) {
            *at = i;
            return slot;
        }
    }
}

static void map_insert(pe_idmap *m, uint64_t id, uint32_t slot)
{
    size_t i = (size_t)pe_mix64(id) & m->mask;
    /* Removed places are not used again: a reader's probe for a moved id must not meet it twice.
     * A fresh map drops them. */
    while (atomic_load_explicit(&m->entry[i], memory_order_relaxed) != EMPTY)
        i = (i + 1) & m->mask;
    m->used++;
    atomic_store_explicit(&m->entry[i], slot, memory_order_release);
}

static pe_idmap *new_map(const pe_slots *s, size_t entries)
{
    size_t capacity = 16;
    while (capacity / 4 * 3 < entries)
        capacity *= 2;
    pe_idmap *m = pe_alloc(s->host, map_bytes(capacity));
    if (!m)
        return NULL;
    m->mask = capacity - 1;
    m->used = 0;
    for (size_t i = 0; i < capacity; i++)
        atomic_init(&m->entry[i], EMPTY);
    return m;
}

/* A map with room for n more than the live ids, published; the old one is retired. */
static peri_status rebuild_map(pe_slots *s, size_t n)
{
    uint32_t count = pe_slots_count(s);
    pe_idmap *old = get_map(s);
    PE_TRY(pe_epoch_reserve(s->epoch, 1));
    size_t live = pe_slots_live(s);
    pe_idmap *fresh = new_map(s, live + n + live / 4);
    if (!fresh)
        return PERI_ERR_NOMEM;
    for (uint32_t slot = 0; slot < count; slot++)
        if (old ? !pe_slots_hidden(s, slot) : !pe_slots_dead(s, slot))
            map_insert(fresh, atomic_load_explicit(id_cell(s, slot), memory_order_relaxed), slot);
    atomic_store_explicit(&s->map, fresh, memory_order_release);
    if (old)
        pe_epoch_retire_memory(s->epoch, old, map_bytes(old->mask + 1));
    return PERI_OK;
}

/* Leave the direct case: ids in an array, found by a map. */
static peri_status leave_direct(pe_slots *s, size_t n)
{
    uint32_t count = pe_slots_count(s);
    PE_TRY(pe_array_reserve(&s->ids, s->epoch, count + n, 0));
    for (uint32_t slot = 0; slot < count; slot++)
        atomic_store_explicit(id_cell(s, slot), slot, memory_order_relaxed);
    PE_TRY(rebuild_map(s, n));
    atomic_store_explicit(&s->direct, 0, memory_order_release);
    return PERI_OK;
}

/* Would these ids, in the slots that take() will hand out, all equal their slots? */
static int stays_direct(const pe_slots *s, size_t n, const uint64_t *ids)
{
    uint32_t count = pe_slots_count(s);
    if (s->n_free || s->next_id < count)
        return 0;
    if (!ids)
        return s->next_id == count;
    for (size_t i = 0; i < n; i++)
        if (ids[i] != count + i)
            return 0;
    return 1;
}

peri_status pe_slots_reserve(pe_slots *s, size_t n, const uint64_t *ids, int exact)
{
    uint32_t count = pe_slots_count(s);
    size_t fresh = n > s->n_free ? n - s->n_free : 0;
    if (fresh > PE_MAX_SLOTS - (size_t)count)
        return pe_fail(PERI_ERR_FULL, "%u rows and %zu more, at most %d are possible", count, n,
                       PE_MAX_SLOTS);
    PE_TRY(pe_array_reserve(&s->dead, s->epoch, (count + fresh + 63) / 64, exact));
    if (is_direct(s) && !stays_direct(s, n, ids))
        PE_TRY(leave_direct(s, n));
    if (!is_direct(s)) {
        PE_TRY(pe_array_reserve(&s->ids, s->epoch, count + fresh, exact));
        pe_idmap *m = get_map(s);
        if ((m->mask + 1) / 4 * 3 < m->used + n)
            PE_TRY(rebuild_map(s, n));
    }
    /* Every slot may become free one day: release must find room on the stack. */
    PE_TRY(pe_grow(s->host, &s->free, &s->free_room, s->n_free + 64, sizeof *s->free));
    return pe_epoch_reserve(s->epoch, 64);
}

peri_status pe_slots_reserve_to(pe_slots *s, uint32_t n)
{
    if (n > PE_MAX_SLOTS)
        return pe_fail(PERI_ERR_FULL, "%u rows, at most %d are possible", n, PE_MAX_SLOTS);
    PE_TRY(pe_array_reserve(&s->dead, s->epoch, ((size_t)n + 63) / 64, 1));
    PE_TRY(pe_grow(s->host, &s->free, &s->free_room, s->n_free + 64, sizeof *s->free));
    return pe_epoch_reserve(s->epoch, 64);
}

void pe_slots_claim(pe_slots *s, uint32_t slot)
{
    set_dead(s, slot, 1);
}

uint32_t pe_slots_take(pe_slots *s, uint32_t *next)
{
    uint32_t slot = s->n_free ? s->free[--s->n_free] : (*next)++;
    atomic_store_explicit(&s->spare, (uint32_t)s->n_free, memory_order_relaxed);
    set_dead(s, slot, 1);
    return slot;
}

void pe_slots_publish(pe_slots *s, uint32_t n)
{
    if (n > pe_slots_count(s))
        atomic_store_explicit(&s->count, n, memory_order_release);
}

static void hide_former(void *owner, void *ptr, uint64_t slot)
{
    (void)owner;
    set_dead(ptr, (uint32_t)slot, 1);
}

int pe_slots_hidden(const pe_slots *s, uint32_t slot)
{
    return pe_slots_dead(s, slot) || pe_slots_find(s, pe_slots_id(s, slot)) != slot;
}

uint32_t pe_slots_bind(pe_slots *s, uint64_t id, uint32_t slot)
{
    uint32_t former = PE_NO_SLOT;
    if (id >= s->next_id && id < UINT64_MAX)
        s->next_id = id + 1;
    if (!is_direct(s)) {
        size_t at = 0;
        pe_idmap *m = get_map(s);
        atomic_store_explicit(id_cell(s, slot), id, memory_order_relaxed);
        set_dead(s, slot, 0);
        former = map_find(s, m, id, &at);
        if (former == PE_NO_SLOT)
            map_insert(m, id, slot);
        else
            atomic_store_explicit(&m->entry[at], slot, memory_order_release);
    } else {
        set_dead(s, slot, 0);
    }
    if (former != PE_NO_SLOT) {
        atomic_store_explicit(&s->churned, 1, memory_order_release);
        pe_epoch_retire(s->epoch, hide_former, s, former);
    } else {
        atomic_fetch_add_explicit(&s->live, 1, memory_order_release);
    }
    return former;
}

uint32_t pe_slots_unbind(pe_slots *s, uint64_t id)
{
    uint32_t slot = pe_slots_find(s, id);
    if (slot == PE_NO_SLOT)
        return slot;
    atomic_store_explicit(&s->churned, 1, memory_order_release);
    if (!is_direct(s)) {
        size_t at = 0;
        pe_idmap *m = get_map(s);
        map_find(s, m, id, &at);
        atomic_store_explicit(&m->entry[at], REMOVED, memory_order_release);
    }
    set_dead(s, slot, 1);
    atomic_fetch_sub_explicit(&s->live, 1, memory_order_release);
    return slot;
}

static void push_free(void *owner, void *ptr, uint64_t slot)
{
    (void)owner;
    pe_slots *s = ptr;
    if (s->n_free == s->free_room &&
        pe_grow(s->host, &s->free, &s->free_room, s->n_free + 1, sizeof *s->free) != PERI_OK)
        return; /* the slot stays unused until the index is saved: a leak of one row, no harm */
    s->free[s->n_free++] = (uint32_t)slot;
    atomic_store_explicit(&s->spare, (uint32_t)s->n_free, memory_order_relaxed);
}

static void release_hidden(void *owner, void *ptr, uint64_t slot)
{
    (void)owner;
    (void)slot;
    pe_epoch_again(((pe_slots *)ptr)->epoch, push_free);
}

/* A slot that was replaced is hidden when older readers have left (pe_slots_bind); those that came
 * before it was hidden may be reading it, so it is free only after another round. */
void pe_slots_release(pe_slots *s, uint32_t slot)
{
    pe_epoch_retire(s->epoch, pe_slots_dead(s, slot) ? push_free : release_hidden, s, slot);
}

void pe_slots_untake(pe_slots *s, uint32_t slot)
{
    push_free(NULL, s, slot);
}

uint32_t pe_slots_find(const pe_slots *s, uint64_t id)
{
    if (is_direct(s)) {
        if (id >= pe_slots_count(s) || pe_slots_dead(s, (uint32_t)id))
            return PE_NO_SLOT;
        return (uint32_t)id;
    }
    size_t at;
    pe_idmap *m = get_map(s);
    return m ? map_find(s, m, id, &at) : PE_NO_SLOT;
}

peri_status pe_slots_load(pe_slots *s, uint32_t count, const uint64_t *ids,
                          const uint64_t *dead_words, uint64_t next_id, const char *path)
{
    PE_TRY(pe_array_reserve(&s->dead, s->epoch, (count + 63) / 64, 1));
    uint32_t live = 0;
    for (uint32_t w = 0; w < (count + 63) / 64; w++)
        memcpy(pe_array_at(&s->dead, w), &dead_words[w], sizeof(uint64_t));
    for (uint32_t slot = 0; slot < count; slot++)
        live += !pe_slots_dead(s, slot);
    atomic_store_explicit(&s->live, live, memory_order_relaxed);
    atomic_store_explicit(&s->count, count, memory_order_relaxed);
    atomic_store_explicit(&s->churned, live != count, memory_order_relaxed);
    s->next_id = next_id;
    if (ids) {
        PE_TRY(pe_array_reserve(&s->ids, s->epoch, count, 1));
        pe_idmap *m = new_map(s, (size_t)live + live / 8);
        if (!m)
            return PERI_ERR_NOMEM;
        atomic_store_explicit(&s->map, m, memory_order_relaxed);
        atomic_store_explicit(&s->direct, 0, memory_order_relaxed);
        for (uint32_t slot = 0; slot < count; slot++) {
            size_t at;
            atomic_store_explicit(id_cell(s, slot), ids[slot], memory_order_relaxed);
            if (pe_slots_dead(s, slot))
                continue;
            if (map_find(s, m, ids[slot], &at) != PE_NO_SLOT)
                return pe_fail(PERI_ERR_CORRUPT, "%s: id %llu stands twice", path,
                               (unsigned long long)ids[slot]);
            map_insert(m, ids[slot], slot);
        }
    }
    for (uint32_t slot = 0; slot < count; slot++)
        if (!pe_slots_dead(s, slot) && pe_slots_id(s, slot) >= next_id &&
            pe_slots_id(s, slot) < UINT64_MAX)
            return pe_fail(PERI_ERR_CORRUPT, "%s: id %llu is above the next id %llu", path,
                           (unsigned long long)pe_slots_id(s, slot), (unsigned long long)next_id);
    atomic_store_explicit(&s->readable, count, memory_order_release);
    return PERI_OK;
}

uint64_t pe_slots_check(const pe_slots *s)
{
    uint64_t faults = 0;
    uint32_t live = 0, count = pe_slots_count(s);
    for (uint32_t slot = 0; slot < count; slot++) {
        if (pe_slots_dead(s, slot))
            continue;
        uint64_t id = pe_slots_id(s, slot);
        if (pe_slots_find(s, id) != slot)
            continue; /* replaced, perhaps removed since, and a reader is still inside */
        live++;
        if (id >= s->next_id && id < UINT64_MAX && faults++ == 0)
            pe_fail(PERI_ERR_CORRUPT, "id %llu is above next_id", (unsigned long long)id);
    }
    if (live != pe_slots_live(s) && faults++ == 0)
        pe_fail(PERI_ERR_CORRUPT, "%u live slots, the count says %u", live, pe_slots_live(s));
    for (size_t i = 0; i < s->n_free; i++)
        if ((s->free[i] >= count || !pe_slots_dead(s, s->free[i])) && faults++ == 0)
            pe_fail(PERI_ERR_CORRUPT, "slot %u is free and live", s->free[i]);
    return faults;
}
