/* A sparse index that is a plain table, and rows for it: what the tests of peri_sparse compare
 * with. Scores are the definition in perigee/sparse.h: products in double, terms ascending, rounded
 * once; so exact answers are compared bit for bit. */
#ifndef PE_SPARSE_MODEL_H
#define PE_SPARSE_MODEL_H

#include "base/rng.h"
#include "indexes.h"
#include "perigee/sparse.h"

enum { ROW_MAX = 24 };

typedef struct sparse_doc {
    int live;
    uint32_t n, terms[ROW_MAX]; /* ascending */
    float weights[ROW_MAX];     /* as kept */
} sparse_doc;

static inline void expect_sparse_valid(const peri_sparse *sx, const char *file, int line)
{
    uint64_t faults = 0;
    peri_status status = peri_sparse_check(sx, NULL, &faults);
    if (status == PERI_OK && faults == 0)
        return;
    print_error("check is %s with %llu faults: %s\n", peri_status_name(status),
                (unsigned long long)faults, peri_error_detail());
    _fail(file, line);
}
#define assert_sparse_valid(sx) expect_sparse_valid((sx), __FILE__, __LINE__)

/* A row: some of `vocabulary` terms, small ones oftener; weights of both signs when asked. Weights
 * are multiples of 1/64 at times, so that scores tie. */
static inline void random_doc(pe_rng *r, uint32_t vocabulary, int negative, sparse_doc *d)
{
    int coarse = pe_rng_below(r, 2) == 0;
    uint32_t wanted = pe_rng_below(r, ROW_MAX + 1);
    memset(d, 0, sizeof *d);
    d->live = 1;
    for (uint32_t tries = 0; tries < wanted; tries++) {
        double u = pe_rng_unit(r);
        uint32_t term = (uint32_t)((vocabulary - 1) * u * u * u), i = d->n;
        while (i > 0 && d->terms[i - 1] > term)
            i--;
        if (i > 0 && d->terms[i - 1] == term)
            continue;
        float w = coarse ? (float)(1 + pe_rng_below(r, 8)) / 8 : expf(0.8f * normal(r));
        if (negative && pe_rng_below(r, 3) == 0)
            w = -w;
        memmove(d->terms + i + 1, d->terms + i, (d->n - i) * sizeof *d->terms);
        memmove(d->weights + i + 1, d->weights + i, (d->n - i) * sizeof *d->weights);
        d->terms[i] = term;
        d->weights[i] = w;
        d->n++;
    }
}

static inline peri_sparse_row row_of_doc(const sparse_doc *d)
{
    return (peri_sparse_row){d->n, d->terms, d->weights};
}

/* What the index keeps of it. */
static inline void take_back(const peri_sparse *sx, uint64_t id, sparse_doc *d)
{
    size_t n;
    assert_ok(peri_sparse_get(sx, id, d->terms, d->weights, ROW_MAX, &n));
    assert_true(n <= ROW_MAX);
    d->n = (uint32_t)n;
}

static inline int model_score(const sparse_doc *query, const sparse_doc *d, float *score)
{
    double sum = 0;
    int shared = 0;
    for (uint32_t i = 0, j = 0; i < d->n && j < query->n;) {
        if (d->terms[i] == query->terms[j]) {
            sum += (double)query->weights[j] * (double)d->weights[i];
            shared = 1;
        }
        uint32_t a = d->terms[i], b = query->terms[j];
        i += a <= b;
        j += b <= a;
    }
    *score = (float)sum;
    return shared;
}

static inline int model_hit_order(const void *a, const void *b)
{
    const peri_hit *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The answer to a query over docs[0..n), id_of giving the id of each. allowed: NULL, or a byte
 * each. */
static inline size_t model_search(const sparse_doc *docs, size_t n, uint64_t (*id_of)(size_t),
                                  const unsigned char *allowed, const sparse_doc *query, size_t k,
                                  float max_distance, peri_hit *hits)
{
    peri_hit *all = malloc((n + 1) * sizeof *all);
    size_t found = 0;
    assert_non_null(all);
    for (size_t i = 0; i < n; i++) {
        float score;
        if (!docs[i].live || (allowed && !allowed[i]) || !model_score(query, &docs[i], &score))
            continue;
        if (0 - score <= max_distance)
            all[found++] = (peri_hit){id_of(i), 0 - score, 0};
    }
    qsort(all, found, sizeof *all, model_hit_order);
    found = found < k ? found : k;
    memcpy(hits, all, found * sizeof *all);
    free(all);
    return found;
}

static inline void assert_same_hits(const peri_hit *got, size_t n, const peri_hit *want, size_t m)
{
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++) {
        if (got[i].id == want[i].id &&
            memcmp(&got[i].distance, &want[i].distance, sizeof got[i].distance) == 0)
            continue;
        print_error("hit %zu of %zu: id %llu at %.9g, expected id %llu at %.9g\n", i, n,
                    (unsigned long long)got[i].id, (double)got[i].distance,
                    (unsigned long long)want[i].id, (double)want[i].distance);
        fail();
    }
}

#endif
