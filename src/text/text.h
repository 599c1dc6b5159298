/* The handle of a text index and what its files share.
 *
 *   text.c          the handle: making, closing, entering, describing
 *   text_write.c    documents in and out, maintenance
 *   text_terms.c    the dictionary: strings of terms, prefixes
 *   text_weight.c   BM25 in integers; lengths in a byte; bounds of runs
 *   text_search.c   a search from query to hits
 *   text_scan.c     windows of flat queries: pruning, intersection
 *   text_match.c    windows of any query: trees, phrases
 *   text_file.c     saving and opening
 *   text_check.c    the proof
 *
 * Terms have 32-bit numbers, given in order of appearance and never again; `terms` names them.
 * postings/ keeps the lists: counts, positions, lengths; nothing that depends on other documents is
 * stored, so nothing has to be corrected when documents go.
 *
 * Invariants:
 *  T1. Every term of a list has a name; a name may have no list (left until maintain).
 *  T2. OWN_0 holds pe_length_class of each document's length, OWN_1 for each run a bound of what
 *      its postings can weigh when the average length is that of OWN_2; see text_weight.c.
 *  T3. A score is a sum of integers: it does not depend on the order in which terms are added.
 *
 * One writer (`write`); readers take a place in the epoch, and one snapshot for all of a search. */
#ifndef PE_TEXT_INTERNAL_H
#define PE_TEXT_INTERNAL_H

#include "keys/keys.h"
#include "postings/postings.h"
#include "text/text_query.h"

#include <pthread.h>
#include <sys/types.h>

enum {
    PE_LENGTH_CLASSES = 256,
    PE_COUNTS = 16,            /* counts below this have their weights in a table */
    PE_SCORE_BITS = 30,        /* no document scores as much as 1 << this */
    PE_COUNT_MAX = UINT16_MAX, /* of a term in a document; more count as this */
};

#define PE_COL_CLASSES PE_COL_OWN_0
#define PE_COL_BOUNDS  PE_COL_OWN_1
#define PE_COL_AVERAGE PE_COL_OWN_2 /* one float */

/* Numbers of terms in order of their names: those below `upto`. */
typedef struct pe_sorted {
    uint32_t n, upto;
    uint32_t terms[];
} pe_sorted;

struct peri_text {
    pe_host host;
    pthread_mutex_t write;
    pid_t owner;
    int readonly;
    pe_epoch epoch; /* scratch: pe_text_scratch */
    float k1, b;
    int positions;
    pe_analysis how;
    pe_payload payload;
    pe_postings postings;
    pe_keys *terms;
    _Atomic uint32_t next_term;
    _Atomic(pe_sorted *) sorted;
    _Atomic(pe_keys *) keys; /* of documents; NULL: by id */
    _Atomic uint64_t next_id;
    struct pe_text_writer *writer; /* made by the first put */
    pe_segr *file;                 /* what is mapped */
    uint8_t uuid[16];
    _Atomic uint64_t generation;
};

/* ---- text.c ---- */

/* Check and copy a config's numbers; defaults filled in. */
peri_status pe_text_config_check(const peri_text_config *in, peri_text_config *out);
/* A handle without analysis, postings and dictionary: setup makes these. */
peri_status pe_text_new(peri_text **out, const peri_env *env);
peri_status pe_text_setup(peri_text *ix, const peri_text_config *config);
peri_status pe_text_begin_write(peri_text *ix);
void pe_text_end_write(peri_text *ix);
/* The writer's lock for what only reads: save and check. In a child of fork it does not wait. */
peri_status pe_text_lock(const peri_text *ix);
void pe_text_unlock(const peri_text *ix);

/* ---- text_write.c ---- */

void pe_text_writer_free(peri_text *ix);

/* ---- text_terms.c ---- */

/* The number of a term, a new one if need be. */
peri_status pe_text_number(peri_text *ix, const char *text, size_t size, uint32_t *term);
void pe_sorted_free(pe_host *host, pe_sorted *s);
peri_status pe_sorted_alloc(pe_host *host, size_t n, pe_sorted **out);
/* Put all names in order, once those that came since last time are many, or now. */
peri_status pe_text_sort_terms(peri_text *ix, int now);
/* Forget the terms that no segment has; after a merge of all. */
peri_status pe_text_forget_terms(peri_text *ix);
/* Give fn the number of every term that begins so; inside the epoch. */
typedef peri_status (*pe_term_fn)(void *ctx, uint32_t term);
peri_status pe_text_with_prefix(const peri_text *ix, const char *text, size_t size, pe_term_fn fn,
                                void *ctx);

/* ---- text_weight.c ---- */

uint8_t pe_length_class(uint32_t length);
uint32_t pe_class_length(unsigned length_class);

/* What weighs a posting, for one snapshot. */
typedef struct pe_weights {
    float k1, b, average;
    float norm[PE_LENGTH_CLASSES];              /* k1 (1 - b + b length / average) */
    float table[PE_COUNTS * PE_LENGTH_CLASSES]; /* count / (count + norm) */
} pe_weights;

void pe_weights_make(pe_weights *w, float k1, float b, const pe_snapshot *s);
void pe_weights_set(pe_weights *w, float k1, float b, float average);

static inline float pe_weight(const pe_weights *w, uint32_t count, unsigned length_class)
{
    if (count < PE_COUNTS)
        return w->table[count * PE_LENGTH_CLASSES + length_class];
    return (float)count / ((float)count + w->norm[length_class]);
}

/* A posting's part of a score: at least 1, so that who has a sum has matched. */
static inline int32_t pe_part_of_score(float scale, float weight)
{
    return (int32_t)(scale * weight) + 1;
}

/* What no posting of this run can exceed, under these weights. */
float pe_run_bound(const pe_weights *w, const pe_part *p, const pe_list *l, uint32_t run);

/* The payload's functions. */
peri_status pe_text_columns(pe_postings *p, pe_segment *out, const pe_part *in, uint32_t n,
                            uint32_t *const *map);
peri_status pe_text_columns_check(const pe_postings *p, const pe_segment *s);
/* ERR_CORRUPT when a bound is not what it should be. */
peri_status pe_text_bounds_check(const peri_text *ix, const pe_segment *s);

/* ---- text_check.c ---- */

/* Whether keys and documents stand one to one. */
peri_status pe_text_check_keys(const peri_text *ix, uint64_t *n_faults);

/* ---- searching ---- */

/* A term of the query, or one that a prefix stands for. */
typedef struct pe_leaf {
    uint32_t term;
    uint32_t count; /* how often the query names it; 0: only under NOT */
    uint32_t df;    /* live documents that have it */
    float scale;    /* of its weights: idf x count x 2^shift */
    int opened;     /* the part at hand has it */
    pe_cursor at;
    /* in the window at hand */
    uint32_t n;    /* postings */
    uint32_t seen; /* those passed by pe_leaf_find */
    int32_t bound; /* no posting's part of a score is greater */
} pe_leaf;

typedef struct pe_best {
    int32_t score;
    uint64_t id;
} pe_best;

/* How many live documents of a segment have a term, as long as the same ones are dead. */
typedef struct pe_known_df {
    uint64_t serial, edit; /* of the segment; of its dead bits */
    uint32_t term, live;
} pe_known_df;
enum { PE_KNOWN_DFS = 1024 };

/* Where a phrase's item stands in its run. */
typedef struct pe_spot {
    uint32_t leaf, at;
    uint32_t position; /* within the phrase */
    const unsigned char *gaps;
} pe_spot;

/* Kept by a reader's place in the epoch. */
typedef struct pe_text_scratch {
    pe_host *host;
    pe_analyser analyser;
    pe_tree tree;
    pe_leaf *leaves;
    size_t n_leaves, leaves_room;
    uint32_t *by_term; /* leaf + 1 by hash of its term; only where there are prefixes */
    size_t by_term_size;
    uint32_t *expanded; /* leaves of query term t: [spans[t], spans[t + 1]) */
    size_t n_expanded, expanded_room;
    uint32_t *spans;
    size_t spans_room;
    pe_accepted *accepted; /* a part */
    size_t accepted_room;
    uint64_t accepted_for; /* the version of the snapshot that they are of; 0: to be made anew */
    uint64_t *words;       /* their bits */
    size_t words_room;
    pe_best *heap;
    size_t heap_room;
    uint64_t *bits; /* documents of the window, a set for each level of the tree */
    size_t bits_room;
    uint32_t *order; /* leaves with postings in the window */
    size_t order_room;
    pe_spot *spots;
    size_t spots_room;
    uint32_t *starts; /* where a phrase may begin in a document */
    size_t starts_room;
    pe_known_df *known; /* PE_KNOWN_DFS, made when the first dead document is met */
    pe_weights weights;
    int32_t sums[PE_WINDOW]; /* zero between windows */
} pe_text_scratch;

void pe_text_scratch_free(pe_text_scratch *s);

/* A search under way. */
typedef struct pe_find {
    const peri_text *ix;
    const pe_snapshot *snapshot;
    pe_text_scratch *s;
    int shift;    /* a score is its sum / 2^shift */
    size_t k, n;  /* hits wanted, in the heap */
    int32_t need; /* sums below cannot get in */
    /* the part at hand */
    const pe_part *part;
    const uint64_t *accepted; /* NULL: all */
    const uint8_t *classes;   /* NULL: the active segment */
    int ascending; /* ids only grow from here on: one as good as the worst kept comes too late */
} pe_find;

/* Take a document that is allowed and scores f->need or more. */
void pe_find_push(pe_find *f, int32_t score, uint32_t doc);

static inline int pe_find_allowed(const pe_find *f, uint32_t doc)
{
    return !f->accepted || (f->accepted[doc / 64] >> (doc % 64) & 1);
}

/* 1 when no document of the window is allowed. */
int pe_find_barred(const pe_find *f, uint32_t window);

static inline int32_t pe_find_part(const pe_find *f, const pe_leaf *l, uint32_t posting,
                                   uint32_t doc)
{
    unsigned length = f->classes ? f->classes[doc] : pe_length_class(pe_part_length(f->part, doc));
    return pe_part_of_score(l->scale,
                            pe_weight(&f->s->weights, pe_list_count(&l->at.list, posting), length));
}

/* Bring the leaves to a window; s->order gets those that have postings there, *bound what all of
 * them can come to. Returns how many. */
uint32_t pe_find_window(pe_find *f, uint32_t window, int64_t *bound);

/* text_scan.c: all leaves joined by OR, by AND; text_match.c: by the tree. Each searches the part
 * at hand. */
void pe_scan_any(pe_find *f);
void pe_scan_all(pe_find *f);
peri_status pe_match_part(pe_find *f);
/* Room for the tree. ERR_UNSUPPORTED for a phrase without positions. */
peri_status pe_match_prepare(pe_find *f);
/* Add a leaf's postings in the window at hand to the sums. */
void pe_scan_add(pe_find *f, const pe_leaf *l, uint32_t window);

#endif
