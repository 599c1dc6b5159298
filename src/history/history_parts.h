/* What the files of history/ share. */
#ifndef PE_HISTORY_PARTS_H
#define PE_HISTORY_PARTS_H

#include "base/forkmark.h"
#include "history/history.h"
#include "persist/journal_format.h"

/* A version as it lies in a record's payload or in a base:
 *   0      8  XXH3 of bytes 8 to value_at, seed: mix(file + offset) ^ XXH3 of the value
 *   8      8  place of the key's former version, 0 = none
 *   16     8  sequence
 *   24     8  time
 *   32     4  size of the value
 *   36     4  from the version's first byte to the value's
 *   40     4  depth
 *   44     2  size of the key
 *   46     1  kind
 *   47     1  tag
 *   48        the key, zeros, the value, zeros to a multiple of 8
 * Values of 4 KiB and more begin at a multiple of 64 in the file, all others of 8. */
enum { PE_OP_HEAD = 48, PE_OP_LARGE = 4096, PE_OP_VERIFIED_ONCE = 1 << 16 };

/* A place names a version: the file's number and the offset in units of 8 bytes. */
enum { PE_PLACE_BITS = 40 };
#define PE_PLACE_OFFSET ((((uint64_t)1) << PE_PLACE_BITS) - 1)

static inline uint64_t pe_place(uint64_t number, uint64_t offset)
{
    return number << PE_PLACE_BITS | offset / 8;
}

typedef struct pe_slot {
    _Atomic uint64_t hash; /* never 0 in a slot that is in use */
    _Atomic uint64_t place;
} pe_slot;

typedef struct pe_table {
    pe_slot *slots;
    uint64_t mask;
    size_t bytes;  /* of slots, when they are ours */
    pe_segr *hint; /* the mapped file in which they lie, or did before the table grew */
} pe_table;

typedef struct pe_base {
    pe_segr *segment;
    uint64_t number, seed, last, size;
    const unsigned char *data;
    const pe_slot *slots;
    uint64_t mask;
    uint64_t keys, live, horizon;
    _Atomic uint64_t *verified;
    size_t n_verified;
    _Atomic uint32_t pins;
} pe_base;

/* The journal's files since the base, ascending by number; it only grows. A table that is in use is
 * written to, so a reader may find places in files that came after its view: the list is shared by
 * all views up to the next compaction. */
typedef struct pe_files {
    pe_array list; /* of pe_jfile * */
    _Atomic size_t n;
} pe_files;

/* What readers hold on to, replaced whole. */
typedef struct pe_view {
    pe_table *table;
    pe_base *base; /* or NULL */
    pe_files *files;
} pe_view;

static inline pe_jfile *pe_files_at(const pe_files *f, size_t i)
{
    pe_jfile *file;
    memcpy(&file, pe_array_at(&f->list, i), sizeof file);
    return file;
}

static inline size_t pe_files_count(const pe_files *f)
{
    return atomic_load_explicit(&((pe_files *)(uintptr_t)f)->n, memory_order_acquire);
}

/* A key in order: its first 8 bytes as a big-endian number, and the place of some version. */
typedef struct pe_entry {
    uint64_t prefix, place;
} pe_entry;

typedef struct pe_run {
    pe_entry *entries; /* sorted by key, each key once */
    size_t n;
    int borrowed; /* they lie in the base or the hint */
} pe_run;

enum { PE_RUNS = 48, PE_SNAPSHOTS = 256 };

struct pe_history {
    pe_host host;
    pe_epoch epoch;
    pe_history_config config;
    pe_forkmark mark;
    pthread_mutex_t write;
    pe_journal *journal;
    _Atomic(pe_view *) view;
    _Atomic uint64_t published;
    _Atomic uint64_t horizon;
    _Atomic uint64_t keys, live;
    uint64_t files_version; /* of the journal's list, that the view's shows */
    uint64_t scanned;
    uint64_t key_seed;
    /* scratch of the writer */
    struct pe_pending *pending;
    size_t pending_room;
    uint32_t *twins; /* finds keys that stand twice in a batch */
    size_t twins_room;
    /* hints */
    uint64_t hinted; /* bytes of journal that the last hint, base or open covered */
    uint64_t journal_bytes;
    /* ordered scans */
    pthread_mutex_t order;
    pe_run runs[PE_RUNS];
    unsigned n_runs;
    int order_begun; /* the runs hold all keys but the recent ones */
    pe_array recent; /* places of keys that were new, in the order of their coming */
    _Atomic size_t n_recent;
    size_t recent_taken; /* into runs */
    /* snapshots */
    pthread_mutex_t snapshots_lock;
    uint64_t snapshots[PE_SNAPSHOTS];
    size_t n_snapshots;
    pthread_mutex_t care; /* one compaction or hint at a time */
};

/* ---- table (history_table.c) ---- */
uint64_t pe_history_hash(const pe_history *h, peri_slice key);
peri_status pe_table_create(pe_table **out, pe_host *host, uint64_t keys);
void pe_table_free(pe_table *t, pe_host *host);
/* The slot of a key, or the empty one where it would go; NULL only when a damaged table is full. */
/* verify 0: the version that is found is within bounds and of that key, its checksum is not looked
 * at; a put needs no more of it than its depth, and a value of a kilobyte is sixteen lines of cache
 * to hash. */
peri_status pe_table_find(const pe_history *h, const pe_view *v, const pe_table *t, uint64_t hash,
                          peri_slice key, int verify, pe_slot **slot, pe_version *newest);
/* Make room for n more keys; may replace the view. */
peri_status pe_history_reserve_keys(pe_history *h, uint64_t n);
/* Put a slot into a table that nobody sees yet. */
void pe_table_insert(pe_table *t, uint64_t hash, uint64_t place);

/* ---- versions (history_version.c) ---- */
size_t pe_op_size(size_t key, size_t value, uint64_t offset, uint32_t *value_at);
/* Build a version at b, which will lie at `offset` of a file; returns its size. */
size_t pe_op_put(unsigned char *b, uint64_t seed, uint64_t offset, const pe_version *v);
/* Read one within `room` bytes: bounds only. 0 = it makes no sense. *size: to the next one. */
int pe_op_get(const unsigned char *b, uint64_t room, pe_version *v, uint64_t *size);
int pe_op_verify(const unsigned char *b, uint64_t seed, uint64_t offset);
/* The version at a place, verified, or only within bounds. */
peri_status pe_view_peek(const pe_history *h, const pe_view *v, uint64_t place, pe_version *out);
peri_status pe_view_version(const pe_history *h, const pe_view *v, uint64_t place, pe_version *out);
/* Its key alone. verify 0: within bounds only, for a place that has just been verified. */
peri_status pe_view_key(const pe_history *h, const pe_view *v, uint64_t place, int verify,
                        peri_slice *key);
peri_status pe_view_former(const pe_history *h, const pe_view *v, pe_version *at);
pe_jfile *pe_view_file(const pe_view *v, uint64_t number);

/* ---- views (history.c) ---- */
/* The journal's files from number `from` on. */
peri_status pe_files_create(pe_history *h, uint64_t from, pe_files **out);
void pe_files_free(void *owner, void *files, uint64_t host);
/* Take in those that the journal has begun since. */
peri_status pe_files_extend(pe_history *h);
/* A view of those three; nothing is published. */
peri_status pe_view_create(pe_history *h, pe_table *table, pe_base *base, pe_files *files,
                           pe_view **out);
/* Publish it; the former one is retired (reserve 1), not what it points to. */
void pe_view_publish(pe_history *h, pe_view *v);
peri_status pe_history_writable(const pe_history *h);

/* ---- base and hint (history_base.c, history_hint.c) ---- */
peri_status pe_base_open(pe_base **out, pe_history *h, uint64_t number);
void pe_base_unpin(void *owner, void *base, uint64_t host);
peri_status pe_base_find(const pe_history *h, const pe_view *v, peri_slice key, pe_version *out);
/* Sections of a base and of a hint. */
#define PE_BASE_KIND PE_FOURCC('P', 'B', 'A', 'S')
#define PE_HINT_KIND PE_FOURCC('P', 'H', 'N', 'T')
#define PE_TAG_HEAD  PE_FOURCC('H', 'E', 'A', 'D')
#define PE_TAG_DATA  PE_FOURCC('D', 'A', 'T', 'A')
#define PE_TAG_HASH  PE_FOURCC('H', 'A', 'S', 'H')
#define PE_TAG_ORDER PE_FOURCC('O', 'R', 'D', 'R')
/* HEAD: history id (16), last sequence, slots, keys, live keys, horizon; a hint besides: base's
 * number, and where the journal goes on: file, offset. */
typedef struct pe_table_head {
    uint8_t history[16];
    uint64_t last, slots, keys, live, horizon, base, file, offset;
} pe_table_head;
enum { PE_TABLE_HEAD = 96 };
void pe_table_head_put(unsigned char b[PE_TABLE_HEAD], const pe_table_head *h);
/* Sections HEAD, HASH and (order, if any) ORDR of a table that nobody changes. */
peri_status pe_table_save(pe_segw *w, const pe_table_head *head, const pe_slot *slots,
                          const pe_entry *order, size_t n_order);
/* Those sections, verified; data of HASH. */
peri_status pe_table_load(pe_segr *r, pe_table_head *head, pe_slot **slots);
peri_status pe_hint_load(pe_history *h, const pe_base *base, pe_table **table,
                         pe_journal_place *from);
/* The table of a base or hint as a copy-on-write map. */
peri_status pe_table_map(pe_table **out, pe_history *h, const char *path, uint32_t kind,
                         pe_table_head *head);
enum { PE_OWNER_BASE = 0, PE_OWNER_HINT = 1 };

/* ---- order (history_order.c) ---- */
void pe_order_add(pe_history *h, uint64_t place); /* reserve first */
peri_status pe_order_reserve(pe_history *h, size_t n);
void pe_order_reset(pe_history *h);
/* All keys in order as one run, runs[0]; under `order` and inside the epoch. */
peri_status pe_order_all(pe_history *h, const pe_view *v);
/* Begin with the order that a base or hint holds, if it does; it lives as long as the history's
 * runs do. */
void pe_order_begin(pe_history *h, pe_segr *segment);
uint64_t pe_key_prefix(peri_slice key);

/* ---- replay (history_recover.c) ---- */
peri_status pe_history_apply(void *history, const pe_jrecord *r);
/* One version of the journal into a table; *is_new: the key was not there. */
peri_status pe_table_apply(pe_history *h, const pe_view *v, pe_table *t, const pe_version *op,
                           uint64_t *keys, uint64_t *live, int *is_new);

#endif
