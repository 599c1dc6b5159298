/* The inside of pe_keys, for keys.c and keys_file.c.
 *
 * Keys lie in an arena as records; two hash tables point into it, one by key and one by id.
 *
 * Record, at a multiple of 8, never across a chunk of the arena:
 *   offset size
 *   0      8  id; atomic: moving a key to another id is one store here
 *   8      2  size of the key; 0 = no more records in this chunk
 *   10     2  1 = dead
 *   12     .. the key
 *
 * Table slot: 0 = never used, 1 = used once and given up, else 16 bits of the hash above the
 * record's place, counted in 8 bytes from 2.
 *
 * Invariants:
 *  K1. A record's key and size never change once a slot points to it, nor does its place: readers
 *      compare it without a lock. Its bytes are used again only when its whole view is retired.
 *  K2. A slot is published after the record and its chunk (release), and read so (acquire).
 *  K3. A reader asks the record, not the slot, which id it has. set puts the new id's slot in its
 *      place, stores the id, then gives up the old slot: the store is the moment of the change.
 *  K4. Places are good only within the view they were found in. Compaction replaces arena and
 *      tables together; a table that grows alone holds the same places.
 *
 * Two tables of 8-byte slots, not an array by id: an index that replaces rows hands out new ids for
 * ever, and the live ones are then few and far apart. */
#ifndef PE_KEYS_PARTS_H
#define PE_KEYS_PARTS_H

#include "base/array.h"
#include "base/rng.h"
#include "keys/keys.h"

enum {
    PE_KEY_HEAD = 12,
    PE_KEY_RECORD_MIN = 16,
    PE_KEY_RECORD_MAX = PE_KEY_HEAD + PE_KEY_SIZE_MAX + 7,
};

/* What a slot can be beside a place. */
enum { PE_SLOT_EMPTY = 0, PE_SLOT_GONE = 1, PE_SLOT_FIRST = 2 };

typedef struct pe_key_record {
    _Atomic uint64_t id;
    uint16_t size;
    uint16_t dead;
    unsigned char key[];
} pe_key_record;

typedef struct pe_key_table {
    size_t capacity; /* a power of two */
    size_t taken;    /* slots that are not PE_SLOT_EMPTY; the writer's */
    _Atomic uint64_t slots[];
} pe_key_table;

typedef struct pe_key_view {
    pe_host *host;
    pe_array arena;
    _Atomic(pe_key_table *) by_key, by_id;
} pe_key_view;

struct pe_keys {
    pe_host *host;
    pe_epoch *epoch;
    _Atomic(pe_key_view *) view;
    uint64_t seed; /* of the key hash; not the same in any two processes */
    size_t used;   /* the arena's bytes up to the end of the last record */
    size_t dead;   /* of these, in dead records */
    _Atomic size_t count;
};

static inline pe_key_view *pe_keys_view(const pe_keys *k)
{
    return atomic_load_explicit(&k->view, memory_order_acquire);
}

static inline pe_key_record *pe_key_at(const pe_key_view *v, size_t place)
{
    return (pe_key_record *)(void *)pe_array_at(&v->arena, place);
}

static inline uint64_t pe_key_id(const pe_key_record *r)
{
    return atomic_load_explicit(&r->id, memory_order_relaxed);
}

static inline size_t pe_key_record_size(size_t key_size)
{
    return (PE_KEY_HEAD + key_size + 7) & ~(size_t)7;
}

static inline size_t pe_slot_place(uint64_t slot)
{
    return (size_t)((slot & 0xffffffffffff) - PE_SLOT_FIRST) * 8;
}

/* Move *place to the next record at or after it, live or dead; 0 at the end. */
int pe_keys_next_record(const pe_keys *k, const pe_key_view *v, size_t *place);

/* The live record of a key or an id, NULL if there is none; its place and, for the writer, its slot
 * (both may be NULL). */
pe_key_record *pe_keys_by_key(const pe_keys *k, const pe_key_view *v, peri_slice key, size_t *place,
                              _Atomic uint64_t **slot);
pe_key_record *pe_keys_by_id(const pe_key_view *v, uint64_t id, size_t *place,
                             _Atomic uint64_t **slot);

/* Fetch the slots where the record will be looked for. */
void pe_keys_prefetch(const pe_keys *k, const pe_key_view *v, const pe_key_record *r);

/* Put a record at the arena's end, within what is reserved; the caller fills in its key and then
 * shows it to readers. */
pe_key_record *pe_keys_append(pe_keys *k, pe_key_view *v, uint64_t id, size_t size, size_t *place);
void pe_keys_show(pe_keys *k, pe_key_view *v, const pe_key_record *r, size_t place);

#endif
