/* String keys for the dense ids of whatever needs names: one to one, both ways.
 *
 * Keys are 1 to 65,535 bytes, any bytes. Ids are the caller's; they need not be dense or small.
 *
 * Threads: one writer (everything that takes a pe_keys without const, and save, which needs writers
 * to be away); readers call find and key_of at any time, inside the epoch that the keys were made
 * with. A reader sees each set and each remove happen at one moment. */
#ifndef PE_KEYS_H
#define PE_KEYS_H

#include "base/epoch.h"
#include "persist/segment.h"

enum { PE_KEY_SIZE_MAX = 65535 };

/* The section that pe_keys_save writes:
 *   offset size
 *   0      8    number of keys
 *   8      8    bytes of all keys together
 *   16     ...  per key, in the order they were first set: id (8), size (2), the key */
#define PE_KEYS_SECTION PE_FOURCC('K', 'E', 'Y', 'S')

typedef struct pe_keys pe_keys;

/* Host and epoch outlive the keys. Errors: ERR_NOMEM. */
peri_status pe_keys_create(pe_keys **out, pe_host *host, pe_epoch *epoch);

/* NULL is fine. No reader may be inside. */
void pe_keys_destroy(pe_keys *k);

/* 1 and the key's id, or 0. */
int pe_keys_find(const pe_keys *k, peri_slice key, uint64_t *id);

/* 1 and the id's key, or 0. The bytes stay valid until the reader leaves the epoch; for the writer,
 * until its next call that is not const. */
int pe_keys_key_of(const pe_keys *k, uint64_t id, peri_slice *key);

size_t pe_keys_count(const pe_keys *k);

/* Room for n calls of set with key_bytes bytes of keys in all, so that they cannot fail. On failure
 * nothing changes. Growing moves all slots: most calls cost nothing, a few cost time by the number
 * of keys. Errors: ERR_NOMEM. */
peri_status pe_keys_reserve(pe_keys *k, size_t n, size_t key_bytes);

/* Give the key this id, instead of the one that it may have had. The room is reserved, and no other
 * key has the id. */
void pe_keys_set(pe_keys *k, peri_slice key, uint64_t id);

/* 1 if the key was there. When that leaves more than half of the bytes dead, they are given back
 * there and then, if memory allows (pe_keys_compact). */
int pe_keys_remove(pe_keys *k, peri_slice key);

/* Move all live keys together and give back the rest. On failure nothing changes. */
peri_status pe_keys_compact(pe_keys *k);

/* The next key in the order in which they were first set (in a file: written), and its id; start
 * with *cursor = 0, 0 at the end. The writer's. */
int pe_keys_next(const pe_keys *k, size_t *cursor, uint64_t *id, peri_slice *key);

/* Write the section; save_as under another tag, for a file with several, and only the keys of these
 * n ids, in this order. */
peri_status pe_keys_save(const pe_keys *k, pe_segw *w);
peri_status pe_keys_save_as(const pe_keys *k, pe_segw *w, uint32_t tag, size_t n,
                            const uint32_t *ids);

/* Read it; an absent section is no keys at all. The reader may be closed afterwards.
 * Errors: ERR_CORRUPT, ERR_NOMEM, ERR_IO. */
peri_status pe_keys_open(pe_keys **out, pe_host *host, pe_epoch *epoch, pe_segr *r);
peri_status pe_keys_open_as(pe_keys **out, pe_host *host, pe_epoch *epoch, pe_segr *r,
                            uint32_t tag);

/* Prove that both tables hold exactly the live keys. *n_faults counts what is wrong, the error
 * detail names the first. */
peri_status pe_keys_check(const pe_keys *k, uint64_t *n_faults);

#endif
