/* peri_idset: an open-addressing table of 64-bit ids, at most half full. Membership costs one or
 * two probes, which a filtered search pays for each candidate; a roaring bitmap's nested binary
 * searches measured several times that. */
#include "base/idset.h"
#include "base/checked.h"
#include "base/rng.h"

struct peri_idset {
    pe_host host;
    uint64_t *table; /* 0 = empty place; id 0 is kept apart */
    size_t capacity; /* a power of two, or 0 */
    uint64_t count;
    int has_zero;
};

peri_status peri_idset_create(peri_idset **out, const peri_env *env)
{
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    *out = NULL;
    pe_host host;
    PE_TRY(pe_host_init(&host, env));
    peri_idset *set = pe_calloc(&host, sizeof *set);
    if (!set)
        return PERI_ERR_NOMEM;
    set->host = host;
    *out = set;
    return PERI_OK;
}

static size_t find(const uint64_t *table, size_t capacity, uint64_t id)
{
    size_t i = (size_t)pe_mix64(id) & (capacity - 1);
    while (table[i] != 0 && table[i] != id)
        i = (i + 1) & (capacity - 1);
    return i;
}

static peri_status make_room(peri_idset *set, uint64_t count)
{
    size_t capacity = set->capacity ? set->capacity : 16, bytes;
    while (capacity / 2 < count)
        if (pe_mul_size(capacity, 2, &capacity))
            return pe_fail(PERI_ERR_NOMEM, "a set of %llu ids", (unsigned long long)count);
    if (capacity == set->capacity)
        return PERI_OK;
    if (pe_mul_size(capacity, sizeof(uint64_t), &bytes))
        return pe_fail(PERI_ERR_NOMEM, "a set of %llu ids", (unsigned long long)count);
    uint64_t *table = pe_calloc(&set->host, bytes);
    if (!table)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < set->capacity; i++)
        if (set->table[i])
            table[find(table, capacity, set->table[i])] = set->table[i];
    pe_free(&set->host, set->table, set->capacity * sizeof(uint64_t));
    set->table = table;
    set->capacity = capacity;
    return PERI_OK;
}

peri_status peri_idset_add(peri_idset *set, size_t n, const uint64_t *ids)
{
    if (!set || (n && !ids))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", set ? "ids" : "set");
    PE_TRY(make_room(set, set->count + n));
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == 0) {
            set->count += !set->has_zero;
            set->has_zero = 1;
            continue;
        }
        size_t at = find(set->table, set->capacity, ids[i]);
        set->count += set->table[at] == 0;
        set->table[at] = ids[i];
    }
    return PERI_OK;
}

uint64_t peri_idset_count(const peri_idset *set)
{
    return set ? set->count : 0;
}

int peri_idset_contains(const peri_idset *set, uint64_t id)
{
    if (!set)
        return 0;
    if (id == 0)
        return set->has_zero;
    return set->capacity && set->table[find(set->table, set->capacity, id)] != 0;
}

int pe_idset_next(const peri_idset *set, size_t *cursor, uint64_t *id)
{
    if (*cursor == 0) {
        *cursor = 1;
        if (set->has_zero) {
            *id = 0;
            return 1;
        }
    }
    while (*cursor <= set->capacity) {
        uint64_t found = set->table[(*cursor)++ - 1];
        if (found) {
            *id = found;
            return 1;
        }
    }
    return 0;
}

void peri_idset_close(peri_idset *set)
{
    if (!set)
        return;
    pe_host host = set->host;
    pe_free(&host, set->table, set->capacity * sizeof(uint64_t));
    pe_free(&host, set, sizeof *set);
}
