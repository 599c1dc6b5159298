/* Posting lists by windows of documents, and the life of the segments that hold them: what sparse
 * vectors and text have in common.
 *
 * A document has an id, a length (whatever the engine counts), and entries (term, value); terms are
 * 32-bit numbers of the engine's own. A posting is a document's number inside its window of 8,192,
 * 16 bits, and a value. Postings of a term lie in order of documents, so a query adds one window's
 * scores in an array that stays in the first-level cache (SINDI, Li et al., ICDE 2026,
 * arXiv 2509.08395, with windows of 50,000 and more; with these the exact skip by window maxima
 * begins to fire, and 8,192 was the best of 2,048 to 65,536 measured on data like SPLADE's).
 *
 * A segment is sealed (its arrays never change; they may lie in a mapped file) or active (one
 * window, lists that grow). When the active one is full it is sealed; sealed ones are merged by
 * tiers. Deleted documents are bits beside a segment, left behind by the next merge.
 *
 * Invariants:
 *  P1. Readers see snapshots: an immutable list of parts, each a segment, how many of its documents
 *      count, and pages of dead bits. One atomic store publishes the next; whatever it replaced is
 *      retired by epoch. So a batch of changes is seen whole or not at all.
 *  P2. In a snapshot an id is live in one place at most.
 *  P3. In the active segment documents, postings and table entries at or above the published count
 *      may be there already: a reader cuts lists at the count of its snapshot (pe_list_open does).
 *  P4. Within one sealed segment ids are unique: sealing and merging leave out the dead.
 *  P5. Postings of a list ascend by document; no term stands twice in a document.
 *
 * One writer at a time (the engine's lock); readers inside the epoch that was handed to init. */
#ifndef PE_POSTINGS_H
#define PE_POSTINGS_H

#include "base/epoch.h"
#include "base/idset.h"
#include "base/team.h"
#include "persist/segment.h"

enum {
    PE_WINDOW_SHIFT = 13,
    PE_WINDOW = 1 << PE_WINDOW_SHIFT, /* documents */
    PE_PAGE_WORDS = PE_WINDOW / 64,
    /* Inclusive: run.window has 16 bits. */
    PE_SEGMENT_DOCS_MAX = PE_WINDOW * 65536,
    /* A put seals and merges up to this many documents by itself; larger merges are tidy's. */
    PE_MERGE_BOUNDED = 8 * PE_WINDOW,
    /* Lists of a segment: those of all entries; those of the entries that the engine marked. */
    PE_SET_ALL = 0,
    PE_SET_MARKED = 1,
    PE_SETS = 2,
};

/* ---- lists ---- */

/* How the values of a list are kept. Active lists hold what was put; sealing takes REAL to I16 and
 * COUNT to U4, U8 or U16, list by list (U4: two to a byte, the first in the low half; few
 * lists of real text have a count above 15). I16: value = code * 2^exponent, at most
 * 2^exponent off after any number of merges, and 2^exponent <= the list's largest value / 2^14 at
 * the time it was set.
 */
typedef enum pe_encoding {
    PE_ENC_F32,
    PE_ENC_I16,
    PE_ENC_U32,
    PE_ENC_U8,
    PE_ENC_U16,
    PE_ENC_U4,
} pe_encoding;

/* One term's postings in one window. max and min bound the values: the upper half of a float,
 * rounded outwards; max >= 0 >= min. */
typedef struct pe_run {
    uint16_t window;
    uint16_t last; /* postings less one */
    uint16_t max, min;
} pe_run;

static inline float pe_bound_value(uint16_t half)
{
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)half << 16};
    return x.f;
}

/* A term's postings in one part of a snapshot. */
typedef struct pe_list {
    uint32_t n;         /* postings, those of dead documents among them */
    uint32_t n_runs;    /* windows that have any */
    const pe_run *runs; /* NULL: one run, `one` (so that the struct can be copied) */
    pe_run one;
    pe_encoding encoding;
    int exponent;        /* I16 */
    const uint16_t *ids; /* numbers within the window, run after run */
    const void *values;  /* of n, as encoded */
    /* Positions of sealed lists: run r's begin at positions + run_positions[r]; a posting's are as
     * many numbers as its value says, each the gap to the one before in LEB128. */
    const unsigned char *positions;
    const uint32_t *run_positions;
    const unsigned char *const *each; /* of active lists: by posting */
} pe_list;

static inline const pe_run *pe_list_run(const pe_list *l, uint32_t run)
{
    return l->runs ? l->runs + run : &l->one;
}

/* The value of a posting (0..n-1) of REAL lists, and of COUNT lists. */
float pe_list_real(const pe_list *l, uint32_t at);
static inline uint32_t pe_list_count(const pe_list *l, uint32_t at)
{
    return l->encoding == PE_ENC_U4    ? ((const uint8_t *)l->values)[at / 2] >> (at % 2 * 4) & 15
           : l->encoding == PE_ENC_U8  ? ((const uint8_t *)l->values)[at]
           : l->encoding == PE_ENC_U16 ? ((const uint16_t *)l->values)[at]
                                       : ((const uint32_t *)l->values)[at];
}

/* Walks a list window by window. */
typedef struct pe_cursor {
    pe_list list;
    uint32_t run;   /* the next one */
    uint32_t first; /* its first posting */
} pe_cursor;

/* Postings in this window, 0 if none; they begin at c->first. Windows are asked for in ascending
 * order. */
static inline uint32_t pe_cursor_seek(pe_cursor *c, uint32_t window)
{
    while (c->run < c->list.n_runs) {
        const pe_run *r = pe_list_run(&c->list, c->run);
        if (r->window >= window)
            return r->window == window ? r->last + 1u : 0;
        c->first += r->last + 1u;
        c->run++;
    }
    return 0;
}

/* The position gaps of posting `at` of a run whose first posting is `first`: its value says how
 * many there are. */
const unsigned char *pe_list_positions(const pe_list *l, uint32_t run, uint32_t first, uint32_t at);
/* One number; moves *p on. What a list holds has been checked to end within it. */
static inline uint32_t pe_varint(const unsigned char **p)
{
    uint32_t x = *(*p)++;
    if (x < 0x80)
        return x;
    x &= 0x7f;
    for (unsigned shift = 7;; shift += 7) {
        uint32_t byte = *(*p)++;
        x |= (byte & 0x7f) << (shift & 31);
        if (byte < 0x80)
            return x;
    }
}
enum { PE_VARINT_MAX = 5 }; /* bytes */
static inline size_t pe_varint_put(unsigned char *p, uint32_t x)
{
    size_t n = 0;
    for (; x >= 0x80; x >>= 7)
        p[n++] = (unsigned char)(x | 0x80);
    p[n++] = (unsigned char)x;
    return n;
}

/* ---- segments and snapshots ---- */

/* The arrays of a sealed segment, in the order in which they are saved. */
typedef enum pe_column_name {
    PE_COL_IDS,     /* u64 a document; the first alone where ids are numbered onwards from it */
    PE_COL_LENGTHS, /* u32 a document */
    PE_COL_TERMS,   /* u32, ascending */
    PE_COL_HEADS,   /* pe_head a term, and one more that marks the end */
    PE_COL_RUNS,    /* pe_run */
    PE_COL_LOCALS,  /* u16 a posting */
    PE_COL_VALUES,
    PE_COL_POS_TERMS, /* u64 a term: where its positions begin in PE_COL_POSITIONS; one more */
    PE_COL_POS_RUNS,  /* u32 a run: where its positions begin, from its term's */
    PE_COL_POSITIONS,
    PE_COL_M_TERMS, /* the marked entries' lists */
    PE_COL_M_HEADS,
    PE_COL_M_RUNS,
    PE_COL_M_LOCALS,
    PE_COL_M_VALUES,
    PE_COL_OWN_0, /* the engine's */
    PE_COL_OWN_1,
    PE_COL_OWN_2,
    PE_COL_OWN_3,
    PE_COLUMNS,
} pe_column_name;

typedef struct pe_column {
    void *data;
    uint64_t size; /* bytes */
} pe_column;

typedef struct pe_head {
    uint64_t posting; /* the first one */
    uint64_t value;   /* its value's byte */
    uint32_t run;
    uint8_t encoding;
    int8_t exponent;
    uint16_t reserved; /* 0 */
} pe_head;

typedef struct pe_active pe_active;

typedef struct pe_segment {
    pe_host *host;
    uint64_t serial; /* of all segments of a handle, ascending as they were made */
    uint32_t docs;   /* sealed: all there are */
    uint32_t n_terms[PE_SETS];
    pe_column columns[PE_COLUMNS];
    int borrowed;  /* columns lie in a mapped file */
    uint32_t *map; /* id -> document + 1; NULL: document = id - ids[0] */
    uint32_t map_mask;
    pe_active *active; /* NULL once sealed */
} pe_segment;

/* Dead documents of one window; immutable once published. */
typedef struct pe_page {
    uint64_t edit; /* the edit that made it */
    uint64_t words[PE_PAGE_WORDS];
} pe_page;

typedef struct pe_pages {
    uint64_t edit;
    uint32_t n;      /* windows */
    pe_page *page[]; /* NULL: none is dead */
} pe_pages;

typedef struct pe_part {
    pe_segment *segment;
    uint32_t docs; /* that count in this snapshot */
    uint32_t live;
    pe_pages *dead; /* NULL: none is dead */
} pe_part;

typedef struct pe_snapshot {
    uint64_t version; /* +1 with each that is published */
    uint64_t live;
    uint64_t length; /* of all live documents */
    uint32_t n_parts, room;
    pe_part parts[]; /* oldest first; the active one, if any, last */
} pe_snapshot;

static inline uint32_t pe_part_windows(const pe_part *p)
{
    return (p->docs + PE_WINDOW - 1) >> PE_WINDOW_SHIFT;
}

/* The dead bits of a window, NULL when none is set. */
static inline const uint64_t *pe_part_dead(const pe_part *p, uint32_t window)
{
    if (!p->dead || window >= p->dead->n || !p->dead->page[window])
        return NULL;
    return p->dead->page[window]->words;
}

static inline int pe_part_alive(const pe_part *p, uint32_t doc)
{
    const uint64_t *dead = pe_part_dead(p, doc >> PE_WINDOW_SHIFT);
    uint32_t local = doc & (PE_WINDOW - 1);
    return !dead || !(dead[local / 64] >> (local % 64) & 1);
}

uint64_t pe_part_id(const pe_part *p, uint32_t doc);
uint32_t pe_part_length(const pe_part *p, uint32_t doc);
/* What pe_doc.own was, for a document of the active segment. */
const void *pe_part_own(const pe_part *p, uint32_t doc);

/* 1 and the term's list. */
int pe_list_open(const pe_part *p, int set, uint32_t term, pe_list *out);
/* Live documents of a list: n less the dead ones, which takes a walk over windows that have any. */
uint32_t pe_list_live(const pe_part *p, const pe_list *l);
/* The value of one document in a list, by binary search: 1 and its posting, or 0. */
int pe_list_find(const pe_list *l, uint32_t doc, uint32_t *at);

/* Where an id is live: 1, its part and document; 0 if nowhere. */
int pe_snapshot_find(const pe_snapshot *s, uint64_t id, uint32_t *part, uint32_t *doc);

/* ---- filters ---- */

typedef struct pe_allow {
    const peri_idset *ids;                 /* NULL = all */
    int (*filter)(void *ctx, uint64_t id); /* NULL = all */
    void *ctx;
} pe_allow;

/* Which documents of a part are live and allowed. */
typedef struct pe_accepted {
    uint64_t count;
    const uint64_t *bits; /* a bit a document, whole windows; NULL: all documents of the part */
} pe_accepted;

/* Fill one pe_accepted a part. Their bits lie in *words, the caller's, grown here and freed by it
 * with *room words; what it held is overwritten. allow may be NULL. Errors: ERR_NOMEM. */
peri_status pe_snapshot_accept(const pe_snapshot *s, const pe_allow *allow, pe_host *host,
                               pe_accepted *accepted, uint64_t **words, size_t *room);

/* ---- the postings of a handle ---- */

typedef struct pe_postings pe_postings;

/* What an engine keeps beside the lists. NULL functions: nothing. */
typedef struct pe_payload {
    int counts;    /* values are counts (COUNT), else floats (REAL) */
    int positions; /* each posting has positions: counts only */
    int marked;    /* the second set of lists is kept */
    /* A merge has filled `out` but for the engine's own columns: fill them (pe_column_alloc).
     * map[i][doc] is the document in `out` of a document of in[i], UINT32_MAX for one left out. */
    peri_status (*merge)(pe_postings *p, pe_segment *out, const pe_part *in, uint32_t n,
                         uint32_t *const *map);
    /* Prove the engine's columns of a segment just opened, or under check: nothing that search
     * reads may lead outside them. Names the fault by pe_fail(PERI_ERR_CORRUPT, ...). */
    peri_status (*check)(const pe_postings *p, const pe_segment *s);
} pe_payload;

struct pe_postings {
    pe_host *host;
    pe_epoch *epoch;
    const pe_payload *payload;
    _Atomic(pe_snapshot *) now;
    uint64_t serial, edits;
    /* The writer's scratch. */
    void *found;
    size_t found_room;
};

/* Host, epoch and payload outlive it. Errors: ERR_NOMEM. */
peri_status pe_postings_init(pe_postings *p, pe_host *host, pe_epoch *epoch,
                             const pe_payload *payload);
/* No reader may be inside; all zeros are fine. */
void pe_postings_destroy(pe_postings *p);

static inline const pe_snapshot *pe_postings_now(const pe_postings *p)
{
    return atomic_load_explicit(&p->now, memory_order_acquire);
}

/* ---- writing ---- */

typedef struct pe_doc {
    uint64_t id;
    uint32_t length;
    uint32_t n; /* entries */
    const uint32_t *terms;
    const void *values; /* float, or uint32_t counts of 1 to 65,535 */
    const unsigned char
        *mark; /* an entry's byte is not 0: it is in the marked lists too. NULL: none */
    /* positions[i]: values[i] gaps in LEB128 (pe_varint_put), position_sizes[i] bytes */
    const unsigned char *const *positions;
    const uint32_t *position_sizes;
    const void *own; /* copied; aligned to 8 where pe_part_own gives it back */
    size_t own_size;
} pe_doc;

/* A batch of changes. begin may fail; after it, whatever happens, commit publishes what has been
 * done so far, and cannot fail. */
typedef struct pe_edit {
    pe_postings *p;
    pe_snapshot *draft;
    uint64_t number;
    struct pe_gone {
        pe_retire_fn fn;
        void *ptr;
        uint64_t arg;
    } * gone;
    size_t n_gone, gone_room;
    int changed;
} pe_edit;

peri_status pe_edit_begin(pe_edit *e, pe_postings *p);
/* Add a document whose id is not live. On failure nothing changed. Errors: ERR_NOMEM, ERR_FULL. */
peri_status pe_edit_add(pe_edit *e, const pe_doc *doc);
/* Add a document in place of the live one of that id, if there is one: both or neither. */
peri_status pe_edit_put(pe_edit *e, const pe_doc *doc);
/* Errors: ERR_NOT_FOUND, ERR_NOMEM. */
peri_status pe_edit_remove(pe_edit *e, uint64_t id);
void pe_edit_commit(pe_edit *e);

/* Seal the active segment, merge tiers that are full and rewrite segments a quarter of whose
 * documents are dead, as long as a merge's result is no larger than `docs`. Each merge is published
 * by itself. all: make one segment of everything (compact). */
peri_status pe_postings_tidy(pe_postings *p, uint64_t docs, int all, pe_progress *progress,
                             unsigned workers);

/* ---- for the engine's merge ---- */

peri_status pe_column_alloc(pe_postings *p, pe_segment *s, pe_column_name name, uint64_t size);
/* Terms of a set of a segment, ascending, for sealed ones. */
static inline const uint32_t *pe_segment_terms(const pe_segment *s, int set)
{
    return s->columns[set == PE_SET_ALL ? PE_COL_TERMS : PE_COL_M_TERMS].data;
}

/* ---- files ---- */

/* Sections that pe_postings_save writes: PART and one of each kind of column that is not empty;
 * docs/formats/postings.md. */
peri_status pe_postings_save(pe_postings *p, pe_segw *w);
/* Into postings just made by init. map: columns stay in the mapping, which outlives the postings.
 * All that is opened has been verified and proved. */
peri_status pe_postings_open(pe_postings *p, pe_segr *r, int map);
/* Full proof of P1 to P5 and of all numbers. The detail names the first fault. No writer. */
peri_status pe_postings_check(const pe_postings *p, pe_progress *progress, uint64_t *n_faults);

typedef struct pe_postings_info {
    uint64_t docs, live, deleted;
    uint64_t postings, marked; /* of sealed segments */
    uint64_t bytes;            /* of sealed segments, in heap or mapped */
    uint32_t segments, active; /* active: its documents */
} pe_postings_info;
void pe_snapshot_describe(const pe_snapshot *s, pe_postings_info *info);

#endif
