/* Which slot holds which id: the directory of an index.
 *
 * Invariants:
 *  S1. A slot below `count` is live (its id maps to it), dead (hidden, perhaps still linked to) or
 *      free (nothing refers to it; it waits to be used again). Dead and free slots have their bit
 *      set in `dead`.
 *  S2. An id names at most one slot at any moment: the one its map entry holds. Moving an id to
 *      another slot is one atomic store.
 *  S3. While every id equals its slot there is neither id array nor map (`direct`): the common case
 *      of rows numbered from 0 costs no memory.
 *  S4. A slot is free only after an epoch in which nothing referred to it.
 *
 * One writer; readers inside an epoch. */
#ifndef PE_SLOTS_H
#define PE_SLOTS_H

#include "base/array.h"

#define PE_NO_SLOT UINT32_MAX
enum { PE_MAX_SLOTS = 0x7ffffff0 }; /* the top bit of a link is a mark */

typedef struct pe_idmap {
    size_t mask;
    size_t used; /* entries that are not empty, removed ones included */
    _Atomic uint32_t entry[];
} pe_idmap;

typedef struct pe_slots {
    pe_host *host;
    pe_epoch *epoch;
    _Atomic uint32_t count;    /* slots ever used; all below are readable */
    _Atomic uint32_t readable; /* slots that all arrays of the index have room for */
    _Atomic uint32_t live;
    _Atomic int direct;
    _Atomic int churned;     /* an id was ever removed or moved: readers check S2 */
    pe_array ids;            /* u64 a slot, unless direct */
    pe_array dead;           /* one u64 word per 64 slots */
    _Atomic(pe_idmap *) map; /* NULL while direct */
    uint32_t *free;          /* stack */
    size_t n_free, free_room;
    _Atomic uint32_t spare;   /* n_free, for readers */
    _Atomic uint64_t next_id; /* above every id seen */
} pe_slots;

void pe_slots_init(pe_slots *s, pe_host *host, pe_epoch *epoch);
void pe_slots_destroy(pe_slots *s);

/* Room for n more rows: after this, take, bind and unbind of as many cannot fail. `ids` may be NULL
 * (numbered from next_id). */
peri_status pe_slots_reserve(pe_slots *s, size_t n, const uint64_t *ids, int exact);
/* Slots that take() can hand out before the count grows. */
static inline size_t pe_slots_free(const pe_slots *s)
{
    return s->n_free;
}
/* A slot for a new row: a free one, else the next. It is hidden until bound. */
uint32_t pe_slots_take(pe_slots *s, uint32_t *next);
/* Publish slots below n. */
void pe_slots_publish(pe_slots *s, uint32_t n);
/* Make `slot` the row of `id`; returns the slot it had before or PE_NO_SLOT. The former slot dies
 * once no reader is inside that entered before: a search that passed the new row's place before it
 * was linked still finds the old one, and measures the new in its stead. Two retirements are
 * reserved. */
uint32_t pe_slots_bind(pe_slots *s, uint64_t id, uint32_t slot);
/* Hide the row of `id`; returns its slot or PE_NO_SLOT. */
uint32_t pe_slots_unbind(pe_slots *s, uint64_t id);
/* Nothing links to a dead slot any more: free it once no reader can hold it. Needs room from
 * pe_epoch_reserve. */
void pe_slots_release(pe_slots *s, uint32_t slot);
/* The same where slots are given and each is the row of its own number (borrowed rows): room for
 * slots below n; a slot from count on is hidden until bound. What is passed over counts as free,
 * but nothing is taken from there. */
peri_status pe_slots_reserve_to(pe_slots *s, uint32_t n);
void pe_slots_claim(pe_slots *s, uint32_t slot);
/* Undo take() of a slot that was never bound. */
void pe_slots_untake(pe_slots *s, uint32_t slot);

/* For the writer: dead, or replaced and about to be (see pe_slots_bind). */
int pe_slots_hidden(const pe_slots *s, uint32_t slot);

/* Readers. */
uint32_t pe_slots_find(const pe_slots *s, uint64_t id);
uint64_t pe_slots_id(const pe_slots *s, uint32_t slot);
static inline int pe_slots_dead(const pe_slots *s, uint32_t slot)
{
    const _Atomic uint64_t *w = (const _Atomic uint64_t *)pe_array_at(&s->dead, slot / 64);
    return (int)(atomic_load_explicit(w, memory_order_acquire) >> (slot % 64) & 1);
}
/* Are slots [first, first + n) all live? A reader must not look at the row of one that is not: it
 * may be free, and given a new row this very moment. */
static inline int pe_slots_all_live(const pe_slots *s, uint32_t first, uint32_t n)
{
    uint64_t dead = 0;
    for (uint32_t at = first, end = first + n; at < end;) {
        uint32_t bit = at % 64, here = 64 - bit < end - at ? 64 - bit : end - at;
        const _Atomic uint64_t *w = (const _Atomic uint64_t *)pe_array_at(&s->dead, at / 64);
        uint64_t mask = here == 64 ? ~(uint64_t)0 : (((uint64_t)1 << here) - 1) << bit;
        dead |= atomic_load_explicit(w, memory_order_acquire) & mask;
        at += here;
    }
    return dead == 0;
}
static inline uint32_t pe_slots_count(const pe_slots *s)
{
    return atomic_load_explicit(&s->count, memory_order_acquire);
}
static inline uint32_t pe_slots_live(const pe_slots *s)
{
    return atomic_load_explicit(&s->live, memory_order_acquire);
}

/* Take over a loaded directory: count slots, ids NULL = direct, dead words. Builds the map; an id
 * that stands twice among live slots or is not below next_id is ERR_CORRUPT. */
peri_status pe_slots_load(pe_slots *s, uint32_t count, const uint64_t *ids,
                          const uint64_t *dead_words, uint64_t next_id, const char *path);
/* Count violations of S1 to S3; the first is named in the detail. */
uint64_t pe_slots_check(const pe_slots *s);

#endif
