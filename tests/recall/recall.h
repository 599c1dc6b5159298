/* Real rows, exact answers and what part of them an index finds.
 *
 * The data is that of ../shared/data/vectors beside the repository, or of $PERIGEE_DATA;
 * where it is absent the tests that want it say so and are skipped, and rows made up in clusters
 * serve. */
#ifndef PE_RECALL_H
#define PE_RECALL_H

#include "indexes.h"
#include "perigee/io.h"

#include <limits.h>

enum { AT = 10 };

typedef struct dataset {
    char name[64];
    uint16_t metric;
    uint32_t dim;
    size_t n_rows, n_queries;
    float *rows, *queries;
} dataset;

static inline void dataset_free(dataset *d)
{
    free(d->rows);
    free(d->queries);
    memset(d, 0, sizeof *d);
}

static inline float *dataset_read(const char *path, const char *part, size_t n, uint32_t *dim)
{
    char name[PATH_MAX];
    peri_matrix *m;
    peri_matrix_info info;
    snprintf(name, sizeof name, "%s:%s", path, part);
    assert_ok(peri_matrix_open(&m, name, NULL));
    peri_matrix_info_init(&info);
    assert_ok(peri_matrix_get_info(m, &info));
    assert_true(n <= info.rows);
    float *rows = malloc(n * info.dim * sizeof *rows);
    assert_non_null(rows);
    assert_ok(peri_matrix_read(m, 0, n, rows));
    peri_matrix_close(m);
    *dim = info.dim;
    return rows;
}

/* The first rows and queries of a file such as "mnist-784-euclidean"; 0 when it is not there. */
static inline int dataset_load(dataset *d, const char *name, size_t n_rows, size_t n_queries)
{
    char path[PATH_MAX / 2];
    const char *data = getenv("PERIGEE_DATA");
    snprintf(path, sizeof path, "%s/%s.hdf5", data ? data : "../shared/data/vectors", name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        print_message("no %s: set PERIGEE_DATA to where the data lies; skipped\n", path);
        return 0;
    }
    fclose(f);
    memset(d, 0, sizeof *d);
    snprintf(d->name, sizeof d->name, "%s", name);
    d->metric = strstr(name, "angular") ? PERI_METRIC_COSINE : PERI_METRIC_L2;
    d->n_rows = n_rows;
    d->n_queries = n_queries;
    d->rows = dataset_read(path, "train", n_rows, &d->dim);
    d->queries = dataset_read(path, "test", n_queries, &d->dim);
    return 1;
}

static inline void dataset_make(dataset *d, uint16_t metric, uint32_t dim, size_t n_rows,
                                size_t n_queries)
{
    memset(d, 0, sizeof *d);
    snprintf(d->name, sizeof d->name, "made up %s %u", metric_names[metric], dim);
    d->metric = metric;
    d->dim = dim;
    d->n_rows = n_rows;
    d->n_queries = n_queries;
    d->rows = new_rows(17, n_rows, dim);
    d->queries = new_rows(18, n_queries, dim);
}

/* ---- which rows are in: `here` says so by row number, which is the id; NULL = all ---- */

/* The exact answers: distances of the AT nearest, from an index that is exact. */
typedef struct truth {
    size_t n;     /* queries */
    float *reach; /* of each, the distance of the AT-th */
} truth;

static inline truth truth_as_kept(const dataset *d, const unsigned char *here, uint16_t scalar)
{
    truth t = {d->n_queries, malloc(d->n_queries * sizeof(float))};
    peri_index *flat = make_index(KIND_FLAT, d->dim, d->metric, scalar, NULL, NULL);
    peri_hit *hits = malloc(d->n_queries * AT * sizeof *hits);
    size_t *n_hits = malloc(d->n_queries * sizeof *n_hits);
    peri_query q = query_of(AT);
    peri_task task = threads_task(2);
    if (!here)
        assert_ok(peri_index_put_many(flat, d->n_rows, NULL, d->rows, 0, NULL, NULL));
    for (size_t i = 0; here && i < d->n_rows; i++)
        if (here[i])
            assert_ok(peri_index_put(flat, i, d->rows + i * d->dim, 0));
    assert_ok(peri_index_search_many(flat, d->n_queries, d->queries, &q, &task, hits, n_hits));
    for (size_t i = 0; i < d->n_queries; i++) {
        assert_int_equal(n_hits[i], AT);
        t.reach[i] = hits[i * AT + AT - 1].distance;
    }
    peri_index_close(flat);
    free(hits);
    free(n_hits);
    return t;
}

static inline truth truth_of(const dataset *d, const unsigned char *here)
{
    return truth_as_kept(d, here, PERI_SCALAR_F32);
}

static inline double row_distance(const dataset *d, const float *x, const float *y)
{
    double dot = 0, d2 = 0, xx = 0, yy = 0;
    for (uint32_t i = 0; i < d->dim; i++) {
        dot += (double)x[i] * y[i];
        xx += (double)x[i] * x[i];
        yy += (double)y[i] * y[i];
        d2 += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    }
    return d->metric == PERI_METRIC_L2   ? sqrt(d2)
           : d->metric == PERI_METRIC_IP ? -dot
                                         : 1 - dot / sqrt(xx * yy);
}

/* Part of the AT nearest that searches of an effort find. A hit
 * counts when its row, as it was put, is as near as the AT-th of the truth, so that ties and the
 * rounding of what is kept do no harm. */
static inline double recall_of(const peri_index *ix, const dataset *d, const truth *t,
                               const unsigned char *here, uint32_t effort)
{
    peri_hit *hits = malloc(d->n_queries * AT * sizeof *hits);
    size_t *n_hits = malloc(d->n_queries * sizeof *n_hits), found = 0;
    peri_query q = query_of(AT);
    peri_task task = threads_task(2);
    q.effort = effort;
    assert_ok(peri_index_search_many(ix, d->n_queries, d->queries, &q, &task, hits, n_hits));
    for (size_t i = 0; i < d->n_queries; i++) {
        assert_int_equal(n_hits[i], AT);
        for (size_t j = 0; j < n_hits[i]; j++) {
            peri_hit h = hits[i * AT + j];
            assert_true(h.id < d->n_rows && (!here || here[h.id]));
            double real = row_distance(d, d->queries + i * d->dim, d->rows + (size_t)h.id * d->dim);
            found += real <= t->reach[i] + 1e-5 * fabs((double)t->reach[i]) + 1e-7;
        }
    }
    free(hits);
    free(n_hits);
    return (double)found / (double)(d->n_queries * AT);
}

#define assert_recall(what, value, least)                                                          \
    do {                                                                                           \
        double value_ = (value), least_ = (least);                                                 \
        print_message("  %-24s %-28s %.4f\n", d->name, what, value_);                              \
        if (!(value_ >= least_))                                                                   \
            print_error("recall of %s after %s is %.4f, at least %.4f is due\n", d->name, what,    \
                        value_, least_);                                                           \
        assert_true(value_ >= least_);                                                             \
    } while (0)

#endif
