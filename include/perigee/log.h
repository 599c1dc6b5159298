/** @file log.h
 *  An append-only log of typed values by key: every put is a new version, nothing is overwritten.
 *  The latest value of a key is one read however long its history is; the history is there by
 *  sequence, by time, and as one array of doubles.
 *
 *  A log is a directory. One process writes (a second writer gets ERR_BUSY and the holder's process
 *  id); any number of others read, each seeing what it last refreshed to. Sequences count batches
 *  from 1; a put is a batch of one. Times are microseconds since 1970.
 *
 *  Threads: functions that take `const peri_log *` are reads: any number at once, without locks,
 *  also while one thread writes; ordered listings (keys) take a short lock among themselves. Writes
 *  are serialised inside, and writers that wait for durability share one fsync. close is the last
 *  use.
 *
 *  What is promised: at every level recovery yields a prefix of the accepted batches, a batch whole
 *  or not at all. Damage that is not a torn tail is refused with file, offset and first lost
 *  sequence; peri_log_repair is the caller's word to go on without. What is not: lying disks,
 *  network file systems for writers, a handle written to after fork.
 *
 *  @code
 *      peri_log *log; double v; peri_buf series = {0}; size_t n;
 *      peri_log_open(&log, "sensors.log", NULL, NULL);
 *      peri_log_put_float(log, peri_cstr("hall/temperature"), 21.5);
 *      peri_log_get_float(log, peri_cstr("hall/temperature"), &v);
 *      peri_log_series(log, peri_cstr("hall/temperature"), NULL, &series, NULL, &n);
 *      peri_buf_free(&series);
 *      peri_log_close(log);
 *  @endcode
 */
#ifndef PERI_LOG_H
#define PERI_LOG_H

#include "perigee/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peri_log peri_log;

/** When a write returns OK. */
enum {
    PERI_DURABLE_MEMORY = 1,   /* in this process: lost with it */
    PERI_DURABLE_PROCESS = 2,  /* written: survives the process, not a power cut */
    PERI_DURABLE_INTERVAL = 3, /* written, fsync in the background: a power cut costs interval_ms */
    PERI_DURABLE_COMMIT = 4,   /* after fdatasync: survives a power cut */
};

/** The six types of value, and what a delete looks like in a history. */
enum {
    PERI_ATOM_NULL = 0,
    PERI_ATOM_FLOAT = 1, /* 64 bits, any pattern */
    PERI_ATOM_INT = 2,   /* 64 bits, signed */
    PERI_ATOM_TEXT = 3,
    PERI_ATOM_BYTES = 4,
    PERI_ATOM_VECTOR = 5, /* 32-bit floats */
    PERI_ATOM_DELETED = 6,
};

/** How values from `compress_above` bytes on are kept; those that do not shrink by an eighth stay
 *  as they are. */
enum { PERI_COMPRESS_NONE = 0, PERI_COMPRESS_LZ4 = 1, PERI_COMPRESS_ZSTD = 2 };

enum {
    PERI_LOG_READONLY = 1u << 0, /* no lock, no writes */
    PERI_LOG_EXISTING = 1u << 1, /* ERR_NOT_FOUND instead of making a new log */
    PERI_LOG_SERIES = 1u << 2,   /* compaction packs numeric series (lossless for every bit) */
};

enum { PERI_LOG_KEY_MAX = 65535, PERI_LOG_VALUE_MAX = (1 << 30) - (1 << 17) };

typedef struct peri_log_config {
    uint32_t struct_size;
    uint32_t flags;          /* PERI_LOG_* */
    uint32_t durability;     /* of every write, and the most a batch may ask for; 0 = COMMIT */
    uint32_t interval_ms;    /* 0 = 1000 */
    uint32_t compression;    /* PERI_COMPRESS_* */
    uint32_t compress_above; /* bytes; 0 = 256 */
    uint64_t file_size;      /* bytes after which a new file begins; 0 = 128 MiB, 64 KiB and more */
} peri_log_config;

static inline void peri_log_config_init(peri_log_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
}

/** A value. The fields of other types are ignored in a put and zero in a read. */
typedef struct peri_atom {
    uint32_t type; /* PERI_ATOM_* */
    uint32_t reserved;
    double number;     /* FLOAT */
    int64_t integer;   /* INT */
    const void *data;  /* TEXT, BYTES, VECTOR (floats) */
    size_t size;       /* of data in bytes; a VECTOR's is a multiple of 4 */
    uint64_t sequence; /* filled by reads */
    int64_t time;      /* a put: 0 = now */
} peri_atom;

/** A key or text that ends in NUL, as a slice. */
static inline peri_slice peri_cstr(const char *s)
{
    peri_slice slice;
    slice.data = s;
    slice.size = s ? strlen(s) : 0;
    return slice;
}

/* ---- life ---- */

/** Open the log in directory `path`, making it unless EXISTING or READONLY. config and env may be
 *  NULL. A torn tail (writes that were never durable) is left behind and reported in the info.
 *  Errors: ERR_ARG, ERR_CONFIG, ERR_NOT_FOUND, ERR_BUSY (another writer; the detail names its
 *  process), ERR_CORRUPT (names file, offset, first lost sequence), ERR_VERSION, ERR_FORMAT,
 *  ERR_IO, ERR_NOMEM. A failed open changes nothing. Since 0.1. */
PERI_API peri_status peri_log_open(peri_log **out, const char *path, const peri_log_config *config,
                                   const peri_env *env);

/** NULL is fine. Writes out what is in memory; from INTERVAL on syncs. Views must be released. */
PERI_API void peri_log_close(peri_log *log);

/** Everything accepted so far becomes durable, whatever the level.
 *  Errors: ERR_IO (the log is poisoned then: reads go on, writes are refused), ERR_POISONED. */
PERI_API peri_status peri_log_sync(peri_log *log);

/** READONLY: see what the writer has written since open or the last refresh. A no-op for the
 *  writer. Reads that are under way keep what they see. Errors: as open. */
PERI_API peri_status peri_log_refresh(peri_log *log);

typedef struct peri_log_info {
    uint32_t struct_size;
    uint32_t durability;
    uint64_t sequence; /* of the last batch */
    uint64_t synced;   /* known durable; 0 in a reader */
    uint64_t keys;     /* live ones */
    uint64_t all_keys; /* those with a history, deleted ones included */
    uint64_t oldest;   /* reads as of earlier sequences are refused; 0 = none given up */
    uint64_t files, file_bytes;
    uint64_t syncs;              /* fsyncs of data by this handle */
    uint64_t torn_bytes;         /* open left so many bytes behind that had not become durable */
    uint64_t lost_from, lost_to; /* after a repair: the sequences given up */
    uint64_t scanned;            /* records that open had to read */
    uint64_t heap;
    uint8_t uuid[16], history[16]; /* of the log; of its history, new after a repair with loss */
} peri_log_info;

static inline void peri_log_info_init(peri_log_info *i)
{
    memset(i, 0, sizeof *i);
    i->struct_size = (uint32_t)sizeof *i;
}

PERI_API peri_status peri_log_get_info(const peri_log *log, peri_log_info *out);

/** Verify every record, version, chain and count. *faults: how many things are wrong; the detail
 *  tells the first. Blocks writers. Errors: ERR_NOMEM, ERR_STATE. */
PERI_API peri_status peri_log_check(peri_log *log, uint64_t *faults);

/** Accept the loss that open refuses: keep the records before the damage, drop those behind it,
 *  begin a new history id. No handle may be open. *lost_from and *lost_to (may be NULL) tell the
 *  sequences that are gone, 0 when there was nothing to repair. Errors: as open. */
PERI_API peri_status peri_log_repair(const char *path, const peri_env *env, uint64_t *lost_from,
                                     uint64_t *lost_to);

/* ---- writing ---- */

/** Append a version. The key has 1 to PERI_LOG_KEY_MAX bytes, any bytes. *sequence may be NULL.
 *  Errors: ERR_ARG, ERR_FULL (too large a value), ERR_NOMEM, ERR_IO (disk full: nothing was
 *  written; failed fsync: poisoned), ERR_POISONED, ERR_FORKED, ERR_STATE (read-only). */
PERI_API peri_status peri_log_put(peri_log *log, peri_slice key, const peri_atom *value,
                                  uint64_t *sequence);
/** Append a delete: the key is gone from now on, its history stays.
 *  Errors: ERR_NOT_FOUND (no live version), else as put. */
PERI_API peri_status peri_log_delete(peri_log *log, peri_slice key);

/** Several writes that take effect at once or not at all: in memory, on disk, and for readers. */
typedef struct peri_log_batch peri_log_batch;
PERI_API peri_status peri_log_batch_create(peri_log_batch **out, peri_log *log);
/** Keys and values are copied. A key may occur more than once: each is a version. */
PERI_API peri_status peri_log_batch_put(peri_log_batch *b, peri_slice key, const peri_atom *value);
/** Deletes of keys without a live version are passed over when the batch is committed. */
PERI_API peri_status peri_log_batch_delete(peri_log_batch *b, peri_slice key);
/** Write it; the batch is empty afterwards, on success. durability 0 = the log's. An empty batch is
 *  no error. Errors: as put; ERR_FULL above 1 GiB. */
PERI_API peri_status peri_log_batch_commit(peri_log_batch *b, uint32_t durability,
                                           uint64_t *sequence);
PERI_API size_t peri_log_batch_count(const peri_log_batch *b);
PERI_API void peri_log_batch_clear(peri_log_batch *b);
/** NULL is fine. What was not committed is dropped. */
PERI_API void peri_log_batch_close(peri_log_batch *b);

/* ---- reading. as_of: a sequence, 0 = now. ---- */

/** The value of a key. Text, bytes and vectors are copied into *buf (may be NULL for the other
 *  types; then they are ERR_ARG); atom->data points there. Errors: ERR_NOT_FOUND (never put, or
 *  deleted), ERR_STATE (as_of lies where compaction gave versions up), ERR_CORRUPT, ERR_NOMEM. */
PERI_API peri_status peri_log_get(const peri_log *log, peri_slice key, uint64_t as_of,
                                  peri_atom *out, peri_buf *buf);

/** A value where it lies in the mapped file: no copy, whatever its size (values that are compressed
 *  or not yet written are copied). Values of 4 KiB and more are aligned to 64 bytes. It stays
 *  valid, and unchanged, until peri_log_view_release, across compactions. */
typedef struct peri_log_view {
    peri_atom atom;
    int copied; /* 1 = atom.data is a copy after all */
    void *pin, *state;
    size_t room;
} peri_log_view;
PERI_API peri_status peri_log_view_get(const peri_log *log, peri_slice key, uint64_t as_of,
                                       peri_log_view *out);
/** All zeros is fine. Before the log is closed. */
PERI_API void peri_log_view_release(const peri_log *log, peri_log_view *view);

/** *exists: 1 when the key has a live value. */
PERI_API peri_status peri_log_exists(const peri_log *log, peri_slice key, uint64_t as_of,
                                     int *exists);

/** Which versions: those with time_from <= time < time_to, not after as_of, the newest `limit`. */
typedef struct peri_log_range {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t as_of;    /* 0 = now */
    int64_t time_from; /* INT64_MIN = from the beginning */
    int64_t time_to;   /* exclusive; INT64_MAX = no end */
    uint64_t limit;    /* 0 = all */
} peri_log_range;

static inline void peri_log_range_init(peri_log_range *r)
{
    memset(r, 0, sizeof *r);
    r->struct_size = (uint32_t)sizeof *r;
    r->time_from = INT64_MIN;
    r->time_to = INT64_MAX;
}

/** Give each version of a key to fn, newest first, deletes as PERI_ATOM_DELETED. The atom's data
 *  lives until fn returns. fn returns 0 to go on; anything else ends the walk, which is no error.
 *  range NULL = all. Errors: ERR_NOT_FOUND (the key has no history), else as get. */
typedef int (*peri_log_version_fn)(void *ctx, const peri_atom *version);
PERI_API peri_status peri_log_history(const peri_log *log, peri_slice key,
                                      const peri_log_range *range, peri_log_version_fn fn,
                                      void *ctx);

/** The numbers in a key's history (FLOAT, and INT as double), oldest first, as one array of doubles
 *  in *values; *times (may be NULL) gets one int64 each. *n: how many. A key without numbers is no
 *  error. Errors: ERR_NOT_FOUND (no history), else as get. */
PERI_API peri_status peri_log_series(const peri_log *log, peri_slice key,
                                     const peri_log_range *range, peri_buf *values, peri_buf *times,
                                     size_t *n);

/** Which keys: live as of `as_of`, beginning with prefix, matching glob (`*` any bytes, `?` one,
 *  `[a-z]`, `[!a-z]`, `\` quotes), after the key `after`, in order of their bytes. */
typedef struct peri_log_select {
    uint32_t struct_size;
    uint32_t deleted; /* 1 = deleted keys too */
    uint64_t as_of;
    peri_slice prefix, glob, after; /* data NULL = no such condition */
    uint64_t limit;                 /* 0 = all */
} peri_log_select;

static inline void peri_log_select_init(peri_log_select *s)
{
    memset(s, 0, sizeof *s);
    s->struct_size = (uint32_t)sizeof *s;
}

/** Give each such key to fn in order; value is its version. fn as above. A glob reads only the keys
 *  that begin with what stands before its first special character. The first listing sorts the
 *  keys; later ones sort what is new. select NULL = all. */
typedef int (*peri_log_key_fn)(void *ctx, peri_slice key, const peri_atom *value);
PERI_API peri_status peri_log_keys(const peri_log *log, const peri_log_select *select,
                                   peri_log_key_fn fn, void *ctx);

/** Give each write after sequence `since` to fn in order of writing.
 *  Errors: ERR_STATE (they have been compacted: take the keys anew), else as get. */
PERI_API peri_status peri_log_changes(const peri_log *log, uint64_t since, peri_log_key_fn fn,
                                      void *ctx);

/* ---- care ---- */

/** Hold the versions as of now against compaction. Errors: ERR_FULL (256 are held). */
PERI_API peri_status peri_log_snapshot(peri_log *log, uint64_t *sequence);
/** Errors: ERR_NOT_FOUND. */
PERI_API peri_status peri_log_release(peri_log *log, uint64_t sequence);

/** What compaction keeps, for each key: its newest `keep` versions, those since `keep_since`, and
 *  what snapshots hold. */
typedef struct peri_log_retention {
    uint32_t struct_size;
    uint32_t keep_deleted; /* 1 = keys that are deleted keep their versions, too */
    uint64_t keep;         /* 0 = all: nothing is given up; 1 = latest only */
    int64_t keep_since;    /* 0 = no such rule */
} peri_log_retention;

static inline void peri_log_retention_init(peri_log_retention *r)
{
    memset(r, 0, sizeof *r);
    r->struct_size = (uint32_t)sizeof *r;
}

/** Rewrite the log's files: what is not kept goes, space comes back, histories lie together,
 * numeric ones in columns. Writers are stopped only at its beginning and end; readers never.
 * retention NULL = keep all. Errors: ERR_CANCELLED, ERR_IO, ERR_NOMEM, ERR_CORRUPT (nothing has
 * changed). */
PERI_API peri_status peri_log_compact(peri_log *log, const peri_log_retention *retention,
                                      const peri_task *task);

/** Save the table of keys, so that the next open reads it instead of the records. close does so by
 *  itself when there is something to gain. */
PERI_API peri_status peri_log_save_hint(peri_log *log);

/* ---- typed calls ---- */

static inline peri_status peri_log_put_null(peri_log *log, peri_slice key)
{
    peri_atom a;
    memset(&a, 0, sizeof a);
    return peri_log_put(log, key, &a, NULL);
}

static inline peri_status peri_log_put_float(peri_log *log, peri_slice key, double value)
{
    peri_atom a;
    memset(&a, 0, sizeof a);
    a.type = PERI_ATOM_FLOAT;
    a.number = value;
    return peri_log_put(log, key, &a, NULL);
}

static inline peri_status peri_log_put_int(peri_log *log, peri_slice key, int64_t value)
{
    peri_atom a;
    memset(&a, 0, sizeof a);
    a.type = PERI_ATOM_INT;
    a.integer = value;
    return peri_log_put(log, key, &a, NULL);
}

/** type: PERI_ATOM_TEXT, BYTES or VECTOR; size in bytes. */
static inline peri_status peri_log_put_data(peri_log *log, peri_slice key, uint32_t type,
                                            const void *data, size_t size)
{
    peri_atom a;
    memset(&a, 0, sizeof a);
    a.type = type;
    a.data = data;
    a.size = size;
    return peri_log_put(log, key, &a, NULL);
}

/** Errors: as get; ERR_STATE when the value is of another type. */
PERI_API peri_status peri_log_get_float(const peri_log *log, peri_slice key, double *out);
PERI_API peri_status peri_log_get_int(const peri_log *log, peri_slice key, int64_t *out);

#ifdef __cplusplus
}
#endif
#endif
