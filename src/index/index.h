/* The dense-index contract: what every kind shares, and what a kind must supply.
 *
 * The handle owns rows, ids, keys, locking, argument checks, filters, re-ranking and the file; a
 * kind (flat, hnsw, ...) owns only its structure over slots. A kind never sees an id.
 *
 * Who locks what: `write` is held by one writer (put, remove, maintain, save, check). Readers take
 * a place in the epoch and no lock. A kind's search may run at any time beside one writer.
 */
#ifndef PE_INDEX_INTERNAL_H
#define PE_INDEX_INTERNAL_H

#include "base/idset.h"
#include "base/team.h"
#include "base/topk.h"
#include "index/slots.h"
#include "keys/keys.h"
#include "perigee/index.h"
#include "persist/segment.h"
#include "rows/rows.h"

#include <pthread.h>
#include <sys/types.h>

/* Which slots a search may return: live ones whose id the query allows. */
typedef struct pe_accept {
    const pe_slots *slots;
    const peri_idset *allow;
    peri_filter_fn filter;
    void *filter_ctx;
} pe_accept;

int pe_accept_slot(const pe_accept *a, uint32_t slot);

/* Room that a reader keeps at its place in the epoch. */
typedef struct pe_scratch {
    pe_host *host;
    void *query; /* pe_rows_scratch bytes */
    size_t query_room;
    pe_cand *cands; /* what a kind found */
    size_t cands_room;
    uint32_t *slots; /* lists of slots and their keys, for exact scans and re-ranking */
    float *keys;
    size_t slots_room;
    void *kind; /* a kind's own, made on first use */
    void (*kind_destroy)(void *kind);
} pe_scratch;

/* One search as a kind sees it. */
typedef struct pe_search {
    const peri_index *ix;
    pe_scratch *scratch;
    const pe_prepared *query;
    uint32_t limit; /* slots below are readable */
    uint32_t effort;
    size_t want;             /* candidates asked for; scratch->cands has room */
    const pe_accept *accept; /* NULL: every slot below limit is live and allowed */
    double share;            /* estimated part of the slots that accept lets through, 0..1 */
    float max_key;           /* range search, in row keys; +infinity otherwise */
    /* out */
    size_t n;    /* scratch->cands[0..n), nearest first */
    int by_code; /* their keys are those of codes: the handle re-ranks */
    int lost;    /* a writer took candidates away, or made two of them one */
} pe_search;

/* A function that is NULL has nothing to do, unless it says otherwise. */
typedef struct pe_kind {
    const char *name;
    uint32_t tag; /* fourcc of its files */
    uint32_t caps;
    size_t self_size;
    /* config is the typed one of the constructor, NULL = defaults. */
    peri_status (*init)(peri_index *ix, const void *config);
    void (*destroy)(peri_index *ix);
    /* Room for the first `slots` slots and for `rows` calls of insert, so that these cannot fail
     * for want of memory. */
    peri_status (*reserve)(peri_index *ix, size_t slots, size_t rows, int exact, unsigned workers);
    /* Called before rows are stored, with the batch about to come: the place to train. */
    peri_status (*before)(peri_index *ix, const float *rows, size_t n, pe_progress *progress);
    /* Whether insert wants a batch of n rows in one call: n, or 0 to have it by parts, so that its
     * rows are found while the rest goes in. */
    size_t (*at_once)(const peri_index *ix, size_t n);
    /* Train on a sample, checked (peri_index_train). NULL: the kind has nothing to train. */
    peri_status (*train)(peri_index *ix, const float *rows, size_t n, pe_progress *progress,
                         unsigned workers);
    /* Link the rows in these slots, which ascend but may leave gaps where rows are borrowed: a slot
     * that is passed over holds no row and is never linked to. On cancellation *done tells the
     * prefix that is in. NULL: all are in. */
    peri_status (*insert)(peri_index *ix, const uint32_t *slots, size_t n, pe_progress *progress,
                          unsigned workers, size_t *done);
    /* The rows of a batch that insert had in one call are bound and found: the place to measure. */
    peri_status (*settled)(peri_index *ix, pe_progress *progress, unsigned workers);
    /* The row of this slot was hidden. Bounded work; calls pe_slots_release once nothing links to
     * a slot. NULL: nothing ever links to one. */
    void (*removed)(peri_index *ix, uint32_t slot);
    peri_status (*search)(pe_search *s); /* never NULL */
    /* Many queries at once, where the kind does better than one by one: ERR_UNSUPPORTED hands
     * them back. */
    peri_status (*search_many)(const peri_index *ix, size_t n, const float *rows,
                               const peri_query *q, const peri_task *task, peri_hit *hits,
                               size_t *n_hits);
    peri_status (*maintain)(peri_index *ix, pe_progress *progress, unsigned workers);
    peri_status (*save)(const peri_index *ix, pe_segw *w, const uint32_t *renumber, uint32_t count);
    peri_status (*open)(peri_index *ix, pe_segr *r, int map, int writable);
    /* Counts faults into *faults; the first is named in the detail. */
    peri_status (*check)(const peri_index *ix, pe_progress *progress, uint64_t *faults);
    void (*info)(const peri_index *ix, peri_index_info *info);
    /* Effort of a query that names none, and the efforts worth calibrating (ascending). */
    uint32_t (*effort)(const peri_index *ix);
} pe_kind;

/* recall@10 by effort, measured by maintain on rows of the index. */
enum { PE_CURVE_MAX = 16, PE_CURVE_ROWS = 1000 /* below this there is none */ };
typedef struct pe_curve {
    uint32_t n;
    uint32_t effort[PE_CURVE_MAX];
    float recall[PE_CURVE_MAX];
} pe_curve;

/* Rows that an index borrows (index_borrow.c): they lie side by side in the lender's memory, slot
 * by slot, written before they are taken in and never changed. Whoever lends them owns the handle.
 */
typedef struct pe_loan {
    void *ctx;
    const pe_rows *rows; /* the lender's; NULL = the index owns its rows */
    /* Before a row is read: damage on the disk shows here. */
    peri_status (*touch)(void *ctx, uint32_t slot);
    /* Does this slot hold a row that is to be found? */
    int (*alive)(void *ctx, uint32_t slot);
    /* At open: is the file's index, of so many slots, one of these rows? */
    peri_status (*fits)(void *ctx, const unsigned char source[64], uint32_t slots);
    unsigned char source[64]; /* who the lender is and how far it had come; kept in the file */
} pe_loan;

struct peri_index {
    const pe_kind *kind;
    void *self; /* the kind's state */
    peri_space space;
    pe_host host;
    pe_epoch epoch;
    pthread_mutex_t write;
    pid_t owner; /* writes by another process are refused */
    int readonly;
    pe_rows rows;
    pe_slots slots;
    _Atomic(pe_keys *) keys;       /* NULL until keyed */
    pe_segr *file;                 /* the mapped file, NULL when none */
    const pe_section *mapped_rows; /* re-ranked rows are verified when first read, or NULL */
    pe_loan loan;
    _Atomic(pe_curve *) curve; /* NULL until calibrated */
    uint8_t uuid[16];
    _Atomic uint64_t generation;
};

/* All kinds built in (src/registry.c), NULL-terminated. */
extern const pe_kind *const pe_kinds[];
const pe_kind *pe_kind_by_tag(uint32_t tag);

/* Make an empty handle of a kind; the typed constructors call this. */
peri_status pe_index_create(peri_index **out, const pe_kind *kind, const peri_space *space,
                            const void *config, const peri_env *env);
/* The two steps of that, for open: a handle that is nothing yet, then what it is to be. */
peri_status pe_index_new(peri_index **out, const peri_env *env);
peri_status pe_index_setup(peri_index *ix, const pe_kind *kind, const peri_space *space);

/* Count rows without a key, and keys without a row, of a keyed index; the detail names the first.
 * No writer may be at work. */
uint64_t pe_index_keys_faults(const peri_index *ix);

/* Begin and end a write: ERR_FORKED, ERR_STATE (read-only). */
peri_status pe_index_begin_write(peri_index *ix);
void pe_index_end_write(peri_index *ix);

/* Keep writers out for a read of everything (save, check). In a child of fork there are none, but
 * one may have been at work: what it left half done is ERR_FORKED. */
peri_status pe_index_lock(const peri_index *ix);
void pe_index_unlock(const peri_index *ix);

/* A reader's place and its scratch. */
peri_status pe_index_enter(const peri_index *ix, pe_reader **place, pe_scratch **scratch);
peri_status pe_scratch_cands(pe_scratch *s, size_t n);
peri_status pe_scratch_slots(pe_scratch *s, size_t n);

/* Check a query struct: sizes and ranges. */
peri_status pe_query_check(const peri_index *ix, const peri_query *q);
peri_status pe_query_check_fields(const peri_query *q);
/* One search by a reader that is inside; the rest is checked. */
peri_status pe_index_search_inside(const peri_index *ix, pe_scratch *scratch, const float *row,
                                   const peri_query *q, uint32_t effort, peri_hit *hits,
                                   size_t *n_hits);
/* Effort for a query, from its fields or the curve. */
peri_status pe_index_effort(const peri_index *ix, const peri_query *q, uint32_t *effort);

/* The exact answer: every accepted slot measured on the rows into scratch->cands. */
peri_status pe_exact_search(pe_search *s);
/* The same over a list of slots. */
peri_status pe_exact_list(pe_search *s, const uint32_t *slots, size_t n);

/* Measure recall by effort on up to `samples` rows of the index (PE_SAMPLES at most) and publish
 * the curve; with fewer rows than PE_CURVE_ROWS there is none. */
enum { PE_SAMPLES = 200 };
peri_status pe_index_calibrate(peri_index *ix, size_t samples, pe_progress *progress,
                               unsigned workers);
/* The effort that a recall takes; twice the largest measured where that does not reach it. */
uint32_t pe_curve_effort(const pe_curve *c, float recall);

/* Make an empty index one over borrowed rows. Errors: ERR_ARG, ERR_DIMENSION, ERR_CONFIG. */
peri_status pe_index_borrow(peri_index *ix, const pe_loan *loan);
/* Take in the lender's slots from the index's count to `end`; the caller has verified them. On
 * cancellation those before pe_slots_count are in. */
peri_status pe_index_take(peri_index *ix, uint32_t end, const peri_task *task);
/* The norms of the lender's first slots; its rows in place. */
peri_status pe_index_lend(peri_index *ix, uint32_t end);
/* As peri_index_save, with loan.source in the file. */
peri_status pe_index_open_borrowed(peri_index **out, const char *path, int readonly,
                                   const peri_env *env, const pe_loan *loan);

/* For a kind's save and open. Save one record a slot in the file's order (errors stick to w). Load
 * an array saved so: borrowed from a mapping, verified, or with `lazy` left for pe_index_touch. */
void pe_index_save_array(pe_segw *w, uint32_t tag, const pe_array *a, uint32_t count,
                         const uint32_t *renumber);
peri_status pe_index_load_array(peri_index *ix, pe_segr *r, uint32_t tag, pe_array *a,
                                uint32_t count, int map, int writable, int lazy);
/* The section of a tag, which must have this size. */
peri_status pe_index_section(pe_segr *r, uint32_t tag, uint64_t size, const pe_section **out);

/* For the open of a kind that never links to hidden rows: those of the file are free. */
peri_status pe_index_free_dead(peri_index *ix);

/* Are rows verified when they are first read? */
static inline int pe_index_lazy(const peri_index *ix)
{
    return ix->mapped_rows || ix->loan.rows;
}

/* A verified row of a mapped file, before it is read. */
static inline peri_status pe_index_touch(const peri_index *ix, uint32_t slot)
{
    if (ix->loan.rows)
        return ix->loan.touch(ix->loan.ctx, slot);
    if (!ix->mapped_rows)
        return PERI_OK;
    size_t stride = ix->rows.rows.stride;
    uint64_t at = (uint64_t)slot * stride;
    if (at >= ix->mapped_rows->size)
        return PERI_OK; /* put since the file was opened */
    return pe_segr_verify_range(ix->file, ix->mapped_rows, at, stride);
}

#endif
