/* The sparse index: rows of (term, weight) on windowed postings.
 *
 * Two copies of each row, for two purposes. The *forward* one (sparse_row.c) is what was put, in
 * the kept type; it alone says what a score is. The *postings* are 16-bit approximations of known
 * error that find the candidates; whatever could be among the k best is scored on its forward row.
 * That is why exact search repeats bit for bit however the rows are spread over segments, and why
 * half the memory of f32 postings costs no exactness.
 *
 * Who locks what: `write` is held by one writer (put, remove, maintain, save, check); readers take
 * a place in the epoch and one snapshot. */
#ifndef PE_SPARSE_INTERNAL_H
#define PE_SPARSE_INTERNAL_H

#include "keys/keys.h"
#include "kernels/kernels.h"
#include "perigee/sparse.h"
#include "postings/postings.h"

#include <pthread.h>
#include <sys/types.h>

struct peri_sparse {
    pe_host host;
    pe_epoch epoch;
    pthread_mutex_t write;
    pid_t owner; /* writes by another process are refused */
    int readonly;
    uint32_t flags, weights;
    float keep;
    pe_payload payload;
    pe_postings postings;
    _Atomic(pe_keys *) keys; /* NULL until keyed */
    _Atomic uint64_t next_id;
    pe_segr *file; /* the mapped file, NULL when none */
    uint8_t uuid[16];
    _Atomic uint64_t generation;
    const pe_kernels *kernels;
};

/* From a payload function to the handle that its postings are part of. */
static inline const peri_sparse *pe_sparse_of(const pe_postings *p)
{
    return (const peri_sparse *)(const void *)((const char *)p - offsetof(peri_sparse, postings));
}

/* ---- the handle (sparse.c) ---- */

peri_status pe_sparse_new(peri_sparse **out, const peri_env *env);
peri_status pe_sparse_setup(peri_sparse *sx, const peri_sparse_config *config);
/* Begin and end a write: ERR_FORKED, ERR_STATE (read-only). */
peri_status pe_sparse_begin_write(peri_sparse *sx);
void pe_sparse_end_write(peri_sparse *sx);
/* Keep writers out for a read of everything; in a child of fork a write may have been under way. */
peri_status pe_sparse_lock(const peri_sparse *sx);
void pe_sparse_unlock(const peri_sparse *sx);

/* Prove the keys, and that rows and keys are one to one. */
peri_status pe_sparse_prove_keys(const peri_sparse *sx, uint64_t *n_faults);

/* ---- rows (sparse_row.c) ---- */

/* Sizes from 2^-60 to 2^40: products of two, and sums of 65,535 of those, stay normal floats. */
#define PE_WEIGHT_MIN 0x1p-60f
#define PE_WEIGHT_MAX 0x1p40f

/* A row made ready: terms ascending, weights as kept. Buffers grow and are reused. */
typedef struct pe_sparse_entry {
    uint32_t term;
    float weight;
} pe_sparse_entry;

typedef struct pe_sparse_made {
    pe_host *host;
    uint32_t n;
    pe_sparse_entry *entries;
    size_t entries_room;
    /* for put: */
    uint32_t *terms;
    float *values;
    unsigned char *mark;
    float *sizes;
    size_t terms_room, values_room, mark_room, sizes_room;
    unsigned char *own; /* the forward row as the active segment keeps it */
    size_t own_room, own_size;
} pe_sparse_made;

void pe_sparse_made_free(pe_sparse_made *m);
/* Check the entries and sort them by term: m->n, m->entries. `what` and number name the row in the
 * detail of an error. */
peri_status pe_sparse_check_row(const peri_sparse *sx, const uint32_t *terms, const float *weights,
                                size_t n, const char *what, size_t number, pe_sparse_made *m);
/* Pointers and offsets of rows in CSR form; `what` names the argument. */
peri_status pe_sparse_check_rows(const peri_sparse_rows *rows, const char *what);
/* The same, then everything that pe_edit_put wants. */
peri_status pe_sparse_make_row(const peri_sparse *sx, const uint32_t *terms, const float *weights,
                               size_t n, size_t number, pe_sparse_made *m, pe_doc *doc);

/* A stored row. */
typedef struct pe_forward {
    uint32_t n;
    unsigned term_size; /* 2 or 4: numbers in the segment's list of terms; 0: terms themselves */
    const void *terms;
    const void *values;
    const uint32_t *names; /* the segment's terms, for term_size 2 and 4 */
    float scale;           /* 8 bits */
} pe_forward;

/* The forward columns of a part, looked up once. */
typedef struct pe_forward_of {
    const pe_part *part;
    unsigned term_size, value_size;
    const uint64_t *offsets;
    const unsigned char *terms, *values;
    const float *scales;
    const uint32_t *names;
} pe_forward_of;

void pe_forward_open(const peri_sparse *sx, const pe_part *part, pe_forward_of *f);
pe_forward pe_forward_at(const pe_forward_of *f, uint32_t doc);
static inline void pe_forward_prefetch(const pe_forward_of *f, uint32_t doc)
{
    if (f->term_size == 0)
        return;
    uint64_t first = f->offsets[doc], n = f->offsets[doc + 1] - first;
    const unsigned char *terms = f->terms + first * f->term_size;
    const unsigned char *values = f->values + first * f->value_size;
    for (uint64_t at = 0; at < n * f->term_size; at += 64) {
        __builtin_prefetch(terms + at);
        atomic_signal_fence(memory_order_seq_cst); /* or gcc 12 folds the loop to one */
    }
    for (uint64_t at = 0; at < n * f->value_size; at += 64) {
        __builtin_prefetch(values + at);
        atomic_signal_fence(memory_order_seq_cst);
    }
}
uint32_t pe_forward_term(const pe_forward *f, uint32_t i);
float pe_forward_weight(const peri_sparse *sx, const pe_forward *f, uint32_t i);

/* The engine's half of a merge, and the proof of it (pe_payload). */
peri_status pe_sparse_merge(pe_postings *p, pe_segment *out, const pe_part *in, uint32_t n,
                            uint32_t *const *map);
peri_status pe_sparse_prove(const pe_postings *p, const pe_segment *s);

/* ---- searching (sparse_search.c, sparse_walk.c) ---- */

/* A row that may be among the best: its score lies within low..high. */
typedef struct pe_sparse_cand {
    float low, high;
    uint32_t part, doc;
    int exact; /* low is the score */
} pe_sparse_cand;

/* One query term in one part. */
typedef struct pe_sparse_term {
    float weight; /* of the query */
    float bound;  /* of what it can add to a score in this part */
    float step;   /* what a code of 1 adds */
    int positive; /* so are all products, and the list has 16-bit codes */
    pe_list list;
} pe_sparse_term;

/* A term in a window: its postings there, and the most that they can add. */
typedef struct pe_sparse_cell {
    uint32_t first;
    uint32_t n;
    float most;
} pe_sparse_cell;

typedef struct pe_sparse_window {
    float most; /* of all terms together */
    uint32_t number;
} pe_sparse_window;

/* Room that a reader keeps at its place in the epoch. */
typedef struct pe_sparse_scratch {
    pe_host *host;
    pe_sparse_made query;
    pe_sparse_entry *cut; /* the heaviest entries, by term */
    float *dense;     /* query weights by number of the term in a part; zeros between searches */
    uint32_t *places; /* where dense is not 0 */
    uint32_t n_places;
    uint32_t *matches;
    pe_sparse_term *terms;
    pe_sparse_cell *cells; /* window by window, a term each */
    pe_sparse_window *windows;
    float *rest; /* of a window: what the terms from i on can add */
    float *best; /* heap of the k highest lows */
    pe_sparse_cand *cands;
    size_t cut_room, dense_room, places_room, matches_room, terms_room, rest_room, cells_room,
        windows_room, best_room, cands_room;
    uint64_t *words; /* of a filter */
    pe_accepted *accepted;
    size_t words_room, accepted_room;
    _Alignas(64) float scores[PE_WINDOW];
    _Alignas(64) uint16_t units[PE_WINDOW];
} pe_sparse_scratch;

typedef struct pe_sparse_search {
    const peri_sparse *sx;
    const pe_snapshot *snapshot;
    const pe_accepted *accepted; /* by part; NULL: whatever is live */
    pe_sparse_scratch *scratch;
    const pe_sparse_entry *query; /* all of it, by term */
    uint32_t n;
    /* The best so far: scratch->best[0..n_best), scratch->cands[0..n_cands). */
    size_t k, n_best, n_cands, limit;
    float floor; /* scores below it are not wanted */
    float bar;   /* what the high of a candidate must reach */
} pe_sparse_search;

/* Walk the lists of a set of one part for these entries (by term) and collect candidates. exact:
 * the lists are all there is to the score; else low = high = what the lists say. */
peri_status pe_sparse_walk(pe_sparse_search *s, uint32_t part, int set,
                           const pe_sparse_entry *entries, uint32_t n, int exact);
void pe_sparse_free_scratch(void *scratch);
/* Note a candidate. */
peri_status pe_sparse_offer(pe_sparse_search *s, pe_sparse_cand c);
/* Make rows of a part scorable, and undo it. */
peri_status pe_sparse_begin_part(pe_sparse_search *s, uint32_t part, pe_forward_of *f);
void pe_sparse_end_part(pe_sparse_search *s);
/* The score of a row, by the definition in sparse.h: 1, or 0 when it shares no term. */
int pe_sparse_score(pe_sparse_search *s, const pe_forward_of *f, uint32_t doc, float *score);

#endif
