/* Byte key -> versions by sequence, on the journal: the one engine under log/ and under the store's
 * embedded record backend.
 *
 * A directory holds journal files (persist/journal.h) with the writes as they came; after a
 * compaction also one base (a segment, .peb) with the older versions, sorted by key, numeric series
 * in columns; and perhaps a hint (a segment, .peh), which is the hash table of keys as it was at
 * some sequence. base and hint are written once. docs/formats/history.md has the layouts.
 *
 * Invariants:
 *  H1. A version never changes and never moves; a compaction copies it. Each names its key's former
 *      version, so that history is a chain from the newest to the oldest, sequences falling.
 *  H2. The table maps a key to its newest version: 16-byte slots, open addressing; a slot's hash is
 *      stored before its place, the place with release. Slots are never emptied. A table that grows
 *      is replaced whole.
 *  H3. `published` is stored after all slots of a batch: who reads up to it sees whole batches. A
 *      plain get is a read as of `published`.
 *  H4. What readers find through a view (table, files, base) lives until their place in the epoch
 *      is given up; what a pin holds lives until it is unpinned.
 *  H5. A former version in a file that a compaction has dropped is the newest one of that key in
 *      the base: everything older than the journal's files is there or was given up.
 *  H6. A hint is only a shortcut: it is durable after the records it stands for, names the base it
 *      belongs to, and is left aside when any of that does not hold.
 *
 * Locks, in the order in which they are taken: `care` for one compaction or hint at a time; `write`
 * for one writer at a time, which compaction holds at its beginning and end only; `order`.
 * Reads of single keys take no lock. Ordered scans take `order`, which sorts lazily: keys are put
 * into order when somebody asks for order, so that a load without scans pays nothing for it. */
#ifndef PE_HISTORY_H
#define PE_HISTORY_H

#include "base/array.h"
#include "persist/journal.h"
#include "persist/segment.h"

enum {
    PE_KEY_MAX = 65535, /* bytes, inclusive; a key has one at least */
    PE_OP_PUT = 1,
    PE_OP_DELETE = 2,
    PE_OP_BLOCK = 3, /* several versions of a numeric key: history/series.h; made by compaction */
    /* Tags 1 and 2 mean numbers of 8 bytes, which compaction may put into columns. The other
     * values are the owner's. */
    PE_TAG_F64 = 1,
    PE_TAG_I64 = 2,
};

typedef struct pe_history pe_history;

typedef struct pe_history_config {
    const char *dir;
    int readonly, create, accept_loss;
    uint32_t durability; /* PE_DURABLE_*, the strongest that writes will ask for */
    uint32_t interval_ms;
    uint64_t file_size;  /* 0 = 128 MiB */
    int compress;        /* series in compacted files */
    uint64_t hint_bytes; /* of journal that make a new hint worth while; 0 = 4 MiB */
} pe_history_config;

/* One version, or a block of them. Pointers live as long as the read. */
typedef struct pe_version {
    uint64_t sequence; /* of a block: of its newest version */
    int64_t time;      /* microseconds since 1970 */
    peri_slice key;
    const unsigned char *value;
    uint32_t size;
    uint32_t depth; /* versions of this key up to this one; never less than the chain has */
    uint8_t kind, tag;
    uint64_t prev, place;
} pe_version;

typedef struct pe_write {
    int kind; /* PE_OP_PUT or PE_OP_DELETE */
    uint8_t tag;
    int64_t time; /* 0 = now */
    peri_slice key, value;
} pe_write;

/* ---- life ---- */

peri_status pe_history_open(pe_history **out, const peri_env *env, const pe_history_config *config);
void pe_history_close(pe_history *h);

/* ---- writing ---- */

/* One atomic batch of n >= 1 writes. A delete of a key that has no live version is kept out of the
 * batch; when nothing remains, *sequence is 0 and *n_done says so. Returns as `durability` (at most
 * the config's) says. n_done: writes that were taken; may be NULL.
 * Errors: ERR_ARG, ERR_FULL, ERR_IO, ERR_NOMEM, ERR_POISONED, ERR_FORKED, ERR_STATE (read-only).
 * After a failed fsync the batch is visible and the handle poisoned. */
peri_status pe_history_write(pe_history *h, const pe_write *writes, size_t n, int durability,
                             uint64_t *sequence, size_t *n_done);
/* Everything accepted so far becomes durable. */
peri_status pe_history_sync(pe_history *h);
/* Write a hint for what there is now, when it saves reading config.hint_bytes; syncs first. */
peri_status pe_history_save_hint(pe_history *h);

/* ---- reading ---- */

typedef struct pe_read {
    const pe_history *history;
    pe_reader *reader;
    const struct pe_view *view;
    uint64_t as_of;
    uint64_t *unpack; /* columns of the block last looked into; freed at the end */
} pe_read;

/* as_of 0 = the published sequence. Errors: ERR_STATE when as_of lies where compaction gave
 * versions up (unless a snapshot holds it). */
peri_status pe_read_begin(pe_read *r, const pe_history *h, uint64_t as_of);
void pe_read_end(pe_read *r);
/* The newest version not after as_of, deletes included: ERR_NOT_FOUND when there is none. */
peri_status pe_read_version(pe_read *r, peri_slice key, pe_version *out);
/* The same, where a delete is ERR_NOT_FOUND too. */
peri_status pe_read_get(pe_read *r, peri_slice key, pe_version *out);
/* The chain as it lies: newest entry (which may be after as_of), then each former one. Blocks are
 * given as such. ERR_NOT_FOUND at the end. */
peri_status pe_read_head(pe_read *r, peri_slice key, pe_version *out);
peri_status pe_read_former(pe_read *r, pe_version *v);

/* Keys in order: those that begin with `prefix`, after the key `after` (data NULL = from the
 * first). fn gets each key that is live as of the read, with its version; a status other than OK
 * ends the scan and is its result. values: versions are wanted, deleted keys too. */
typedef peri_status (*pe_scan_fn)(void *ctx, const pe_version *v);
peri_status pe_read_scan(pe_read *r, peri_slice prefix, peri_slice after, int deleted,
                         pe_scan_fn fn, void *ctx);

/* Writes in the order of their sequences, from `since` + 1 to the read's as_of. ERR_STATE when the
 * first of them have been compacted: they are no longer told apart. */
peri_status pe_read_changes(pe_read *r, uint64_t since, pe_scan_fn fn, void *ctx);

/* Keep what a version's value points to beyond the read. NULL: it lies in a buffer and must be
 * copied. */
void *pe_read_pin(pe_read *r, const pe_version *v);
void pe_history_unpin(pe_history *h, void *pin);

/* ---- care ---- */

/* Hold versions as of now against compaction. */
peri_status pe_history_snapshot(pe_history *h, uint64_t *sequence);
peri_status pe_history_release(pe_history *h, uint64_t sequence);

typedef struct pe_retention {
    uint64_t keep;      /* versions per key; 0 = all */
    int64_t keep_since; /* and those of this time and later, whatever `keep` says; 0 = none */
    int keep_deleted;   /* keys whose newest version is a delete stay with their history */
} pe_retention;

peri_status pe_history_compact(pe_history *h, const pe_retention *keep, const peri_task *task);

/* A reader: take in what was written since. ERR_STATE: files have come or gone; open anew. */
peri_status pe_history_refresh(pe_history *h);

typedef struct pe_history_info {
    uint8_t uuid[16], history[16];
    uint64_t sequence, synced;  /* published; known durable */
    uint64_t keys, live;        /* keys with a version; of them not deleted */
    uint64_t horizon;           /* reads as of earlier sequences are refused; 0 = none given up */
    uint64_t files, file_bytes; /* of journal and base, as far as they are valid */
    uint64_t syncs;             /* fsyncs of data by this handle */
    uint64_t scanned;           /* records read by open: 0 when a hint or base told all */
    pe_journal_report report;   /* what open found */
    uint64_t heap;
} pe_history_info;
void pe_history_get_info(const pe_history *h, pe_history_info *out);

/* Walk every version of every key and every record; faults are counted, the first one is the
 * error's detail. */
peri_status pe_history_check(pe_history *h, uint64_t *faults);

#endif
