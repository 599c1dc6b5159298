/* Epoch reclamation: readers never wait, writers free what no reader can still see.
 *
 * Invariants:
 *  E1. A reader publishes the epoch it entered in before it loads any shared pointer.
 *  E2. A writer unlinks a thing before it retires it, and stamps it with the epoch of that moment.
 *  E3. A retired thing is given back only when every reader that is inside entered later.
 * Why that is enough: a reader whose stamp the writer's scan misses stored it after the scan, hence
 * loads its pointers after the unlink and cannot find the thing.
 *
 * Readers take one of a fixed number of places by compare-and-swap, never a lock: a child of fork
 * may inherit places that stay taken for ever, but no lock that does. One writer at a time. */
#ifndef PE_EPOCH_H
#define PE_EPOCH_H

#include "base/host.h"

enum { PE_READERS = 128 };

typedef struct pe_reader {
    _Alignas(64) _Atomic uint64_t seen; /* 0 = no reader inside */
    _Atomic uint32_t taken;
    void *scratch; /* whatever the owner keeps per place; freed by the owner at the end */
} pe_reader;

typedef void (*pe_retire_fn)(void *owner, void *ptr, uint64_t arg);

typedef struct pe_retired {
    uint64_t epoch;
    pe_retire_fn fn;
    void *ptr;
    uint64_t arg;
} pe_retired;

typedef struct pe_epoch {
    _Atomic uint64_t now;
    pe_host *host;
    void *owner; /* first argument of the retire functions */
    pe_retired *retired;
    size_t n_retired, room;
    size_t held;        /* see pe_epoch_hold */
    pe_retire_fn again; /* see pe_epoch_again */
    pe_reader readers[PE_READERS];
} pe_epoch;

void pe_epoch_init(pe_epoch *e, pe_host *host, void *owner);
/* Gives back all that is retired; no reader may be inside. */
void pe_epoch_destroy(pe_epoch *e);

/* Enter and leave. Waits only when all places are taken by other threads. */
pe_reader *pe_epoch_enter(const pe_epoch *e);
void pe_epoch_exit(pe_reader *r);

/* Make room for n more retirements, so that pe_epoch_retire cannot fail. */
peri_status pe_epoch_reserve(pe_epoch *e, size_t n);
/* The same for the caller of others that reserve and retire themselves: until let go, what they
 * reserve comes on top of these n. */
peri_status pe_epoch_hold(pe_epoch *e, size_t n);
void pe_epoch_let_go(pe_epoch *e);
void pe_epoch_retire(pe_epoch *e, pe_retire_fn fn, void *ptr, uint64_t arg);
/* For a retire function: call that one with the same arguments once all readers have left that are
 * inside now. */
void pe_epoch_again(pe_epoch *e, pe_retire_fn fn);
/* Give back what no reader can still see. */
void pe_epoch_reclaim(pe_epoch *e);

/* Return once all readers have left that are inside now. Not from within one. */
void pe_epoch_wait(pe_epoch *e);

/* A retire function that frees ptr of `arg` bytes from the epoch's host (owner unused). */
void pe_epoch_retire_memory(pe_epoch *e, void *ptr, size_t size);

#endif
