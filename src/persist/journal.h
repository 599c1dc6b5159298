/* The journal: a directory of append-only files of checksummed records, one writer, any number of
 * reader processes. One record is one batch of its owner (history/), so a batch is whole or absent;
 * a commit record after several records was considered and buys only batches above PE_JOURNAL_MAX.
 *
 * Layout: journal_format.h and docs/formats/journal.md. Files: MANIFEST, LOCK, <16 hex digits>.pej.
 *
 * Invariants:
 *  J1. Sequences are strictly +1 from record to record, over the ends of files too.
 *  J2. Files are never truncated and never written to below what is valid. A torn tail stays where
 *      it is: the manifest records the valid length, and a new file starts.
 *  J3. A record's watermark (`synced`) was durable when the record was written. Hence: a watermark
 *      beyond the end of the valid prefix proves that durable records are damaged.
 *  J4. A marker with the watermark stands after the last record once that is synced. It takes no
 *      space: the next record is written over it and carries the same watermark.
 *  J5. After a failed fsync the journal is poisoned: the kernel has marked the lost pages clean, a
 *      second fsync would succeed and mean nothing.
 *  J6. A write that fails leaves the end where it was: the next record is written over what the
 *      failed one left, and half a record never verifies.
 *
 * Locks. Appends are serialised by the owner ("the owner's lock"): open, recover, reserve, append,
 * flush, mark, replace, close. pe_journal_wait takes no part in it: any number of threads wait for
 * one fsync, which the first of them makes (group commit, no timer). Readers of records take no
 * lock, only a place in the owner's epoch. */
#ifndef PE_JOURNAL_H
#define PE_JOURNAL_H

#include "base/epoch.h"
#include "base/file.h"
#include "base/ticker.h"
#include "persist/lock.h"
#include "persist/manifest.h"

enum {
    PE_DURABLE_MEMORY = 1,   /* in a buffer of the process */
    PE_DURABLE_PROCESS = 2,  /* after write(): survives the process */
    PE_DURABLE_INTERVAL = 3, /* the same, fsync in the background */
    PE_DURABLE_COMMIT = 4,   /* after fdatasync */
};

enum {
    PE_JOURNAL_MAX = 1 << 30,    /* bytes of payload in one record, inclusive */
    PE_JOURNAL_BUFFER = 1 << 18, /* of records not yet written */
    PE_JOURNAL_UNSYNCED = 16,    /* files that may wait for an fsync at once */
};

typedef struct pe_jfile {
    uint64_t number;
    uint64_t first;           /* sequence of its first record */
    uint64_t seed;            /* of its checksums */
    _Atomic uint64_t written; /* bytes that are valid and may be read through the map */
    const unsigned char *map; /* shows later writes; map_size may lie beyond the file's end */
    size_t map_size;
    pe_file file; /* closed again once the file is sealed and durable */
    char *path;
    size_t path_room;
    uint64_t allocated;    /* writer: bytes that have blocks */
    _Atomic uint32_t pins; /* views that outlive their place in the epoch, and the list itself */
    /* One bit for each 64 KiB: the large value that begins there has been verified. */
    _Atomic uint64_t *verified;
    size_t n_verified; /* words */
    int sealed;
} pe_jfile;

/* Records that are not written yet. A reader that finds a record's offset at or beyond
 * file->written looks here; see pe_journal_bytes. */
typedef struct pe_jbuf {
    struct pe_journal *journal;
    struct pe_jbuf *next_spare;
    _Atomic(pe_jfile *) file;
    _Atomic uint64_t start; /* offset in the file of data[0]; stored after `file`, loaded before */
    unsigned char data[PE_JOURNAL_BUFFER];
} pe_jbuf;

typedef struct pe_jrecord {
    const unsigned char *payload; /* in the map of the file */
    uint32_t size;
    uint64_t sequence;
    pe_jfile *file;
    uint64_t offset; /* of the payload in the file */
} pe_jrecord;

/* Take one record in; sequences come in order. An error stops the recovery and is its result. */
typedef peri_status (*pe_journal_apply)(void *ctx, const pe_jrecord *r);

typedef struct pe_journal_config {
    const char *dir; /* copied */
    int readonly, create;
    int accept_loss;      /* take damage for a torn tail; makes a new history id */
    uint32_t durability;  /* PE_DURABLE_*: what the background and the pre-allocation are for */
    uint32_t interval_ms; /* of the background fsync at PE_DURABLE_INTERVAL */
    uint64_t file_size;   /* when a file is full */
} pe_journal_config;

/* What recovery found. */
typedef struct pe_journal_report {
    uint64_t last;       /* sequence of the last record */
    uint64_t torn_bytes; /* behind it, not durable, left behind */
    uint64_t lost_from;  /* accept_loss: first sequence given up, else 0... */
    uint64_t lost_to;    /* ...and the highest known to have been durable */
} pe_journal_report;

/* Where recovery may begin: what lies before was taken in from elsewhere (a hint file). */
typedef struct pe_journal_place {
    uint64_t number, offset, sequence; /* the last record taken in, and where the next one begins */
} pe_journal_place;

typedef struct pe_journal {
    pe_host *host;
    pe_epoch *epoch;
    pe_journal_config config;
    char *dir;
    size_t dir_room;
    pe_lock lock;
    pe_manifest manifest;
    int is_new; /* no manifest yet */
    pe_jfile **files;
    size_t n_files, files_room;
    pe_jfile **dropped; /* by a commit, until they are retired */
    size_t n_dropped, dropped_room;
    uint8_t uuid[16], history[16]; /* the manifest's, which do not change under a reader */
    uint64_t files_version;        /* counts changes of the list */
    /* the writing end, under the owner's lock */
    uint64_t next_sequence;
    _Atomic(pe_jbuf *) buffer;
    size_t fill;        /* bytes in it */
    int exposed;        /* some of them have been published to readers */
    pe_jbuf *spare;     /* buffers that no reader can see */
    unsigned char *big; /* a record too large for the buffer, being built */
    size_t big_size;
    pe_journal_place end; /* reader: where its prefix ends */
    pe_journal_report report;
    /* fsync, under sync_lock */
    pthread_mutex_t sync_lock;
    pthread_cond_t sync_done;
    int syncing;
    pe_jfile *unsynced[PE_JOURNAL_UNSYNCED];
    size_t n_unsynced;
    _Atomic uint64_t written; /* highest sequence that has been written */
    _Atomic uint64_t synced;  /* highest known durable */
    _Atomic int poisoned;
    _Atomic uint64_t n_syncs; /* fsyncs of data made so far */
    pe_ticker ticker;
} pe_journal;

/* ---- life ---- */

/* Take the lock (a writer) and read the manifest; no file is looked at yet. The owner may read
 * j->manifest.owner. Errors: ERR_NOT_FOUND, ERR_BUSY, ERR_CORRUPT and what files say. On failure
 * *out is NULL. */
peri_status pe_journal_open(pe_journal **out, pe_host *host, pe_epoch *epoch,
                            const pe_journal_config *config);
/* Open the files, take in the records after `from`, end the prefix. A writer is ready to append
 * afterwards. Errors: ERR_CORRUPT (names file, offset and the first lost sequence) and those of
 * apply. */
peri_status pe_journal_recover(pe_journal *j, const pe_journal_place *from, pe_journal_apply apply,
                               void *ctx);
/* A reader: take in what was written since. ERR_STATE: files have come or gone, open anew. */
peri_status pe_journal_refresh(pe_journal *j, pe_journal_apply apply, void *ctx);
/* Before the end: write what is buffered and, from PE_DURABLE_INTERVAL on, sync; as far as that
 * goes, since nothing can be reported here. */
void pe_journal_finish(pe_journal *j);
/* Releases all; the owner's epoch is destroyed first. NULL is fine. forked: the lock and the
 * threads are the parent's. */
void pe_journal_close(pe_journal *j, int forked);

/* ---- appending ---- */

/* Make room for a record of at most that payload. The file may be followed by a new one
 * (files_version tells). Then *payload is where to build it, *offset where it will lie in *file; a
 * second reserve forgets the first. Errors: ERR_FULL (beyond PE_JOURNAL_MAX), ERR_IO, ERR_NOMEM,
 * ERR_POISONED. */
peri_status pe_journal_reserve(pe_journal *j, uint64_t size, unsigned char **payload,
                               uint64_t *offset, pe_jfile **file);
/* Append the record just built: written from PE_DURABLE_PROCESS on, never synced here. On failure
 * nothing was appended. */
peri_status pe_journal_append(pe_journal *j, uint64_t size, int durability, uint64_t *sequence);
/* Write what is buffered. */
peri_status pe_journal_flush(pe_journal *j);
/* Stand a marker after the last record (J4), if that is durable. Best effort. */
void pe_journal_mark(pe_journal *j);

/* Wait until `sequence` is durable; it has been written. Not under the owner's lock.
 * *led: this thread made the fsync. Errors: ERR_POISONED, or the fsync's own. */
peri_status pe_journal_wait(pe_journal *j, uint64_t sequence, int *led);

/* ---- files as a set ---- */

/* Seal the file that takes appends and begin another one. */
peri_status pe_journal_rotate(pe_journal *j, uint64_t size);
/* A number for a file of the owner's. It is spent once a manifest is saved. */
uint64_t pe_journal_new_number(pe_journal *j);
/* The path of a file by number, with an extension; pe_free with room. */
peri_status pe_journal_path(const pe_journal *j, uint64_t number, const char *extension,
                            char **path, size_t *room);
/* Save the manifest with the owner's numbers changed, without the files below `keep_from`, and with
 * `gone`, files of the owner's, to be removed. On failure nothing has changed, or the journal is
 * poisoned. */
peri_status pe_journal_commit(pe_journal *j, const uint64_t owner[PE_MANIFEST_OWNER],
                              uint64_t keep_from, const uint64_t *gone, size_t n_gone);
/* Retire what commit dropped by epoch (room reserved: a place for each file that there was), once
 * readers can no longer come upon it. */
void pe_journal_retire_dropped(pe_journal *j);
/* For pe_epoch_retire. */
void pe_journal_free_file(void *owner, void *file, uint64_t host);

/* ---- reading ---- */

/* The record's bytes at an offset, and how many of them there are at least: from the map, or from
 * the buffer while they are not written. NULL when the offset lies beyond the records, which a
 * published place never does. Inside the epoch. */
static inline const unsigned char *pe_journal_bytes(const pe_journal *journal, pe_jfile *f,
                                                    uint64_t offset, uint64_t *room)
{
    pe_journal *j = (pe_journal *)(uintptr_t)journal;
    for (;;) {
        uint64_t written = atomic_load_explicit(&f->written, memory_order_acquire);
        if (offset < written) {
            *room = written - offset;
            return f->map + offset;
        }
        pe_jbuf *b = atomic_load_explicit(&j->buffer, memory_order_acquire);
        uint64_t start = b ? atomic_load_explicit(&b->start, memory_order_acquire) : 0;
        if (b && offset >= start && offset - start < PE_JOURNAL_BUFFER &&
            atomic_load_explicit(&b->file, memory_order_relaxed) == f) {
            *room = PE_JOURNAL_BUFFER - (offset - start);
            return b->data + (offset - start);
        }
        /* Written between the two looks: then the first one sees it now. */
        if (atomic_load_explicit(&f->written, memory_order_acquire) == written)
            return NULL;
    }
}

/* Walk the records of a file from `offset` on, the first being number `sequence`, as far as they
 * are valid and not beyond `limit`. *end: where they end; *last: the last one's sequence; *marked:
 * the highest watermark met. */
peri_status pe_journal_scan(pe_jfile *f, uint64_t offset, uint64_t sequence, uint64_t limit,
                            pe_journal_apply apply, void *ctx, uint64_t *end, uint64_t *last,
                            uint64_t *marked);

#endif
