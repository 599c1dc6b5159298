#include "truth.h"
#include "source.h"

#include <stdlib.h>
#include <string.h>

void truth_free(truth *t)
{
    free(t->ids);
    free(t->distances);
    *t = (truth){0};
}

/* ---- from a file ---- */

static int check_shape(const source *s, const truth *t, size_t k)
{
    if (s->info.rows < t->n || s->info.dim < k)
        return cli_error("%s: neighbours of %llu queries, %u each; expected at least %zu, %zu each",
                         s->path, (unsigned long long)s->info.rows, s->info.dim, t->n, k);
    return CLI_OK;
}

static int read_ids(truth *t, const char *path, size_t k, int *found)
{
    source s;
    void *ids = NULL;
    peri_status status = source_open(&s, path, SOURCE_IDS, t->n);
    *found = status != PERI_ERR_NOT_FOUND;
    if (!*found)
        return CLI_OK;
    if (status != PERI_OK)
        return source_failed(&s, status);
    int code = check_shape(&s, t, k);
    if (code == CLI_OK)
        code = source_all(&s, &ids);
    t->ids = ids;
    t->width = s.info.dim;
    source_close(&s);
    return code;
}

/* Distances only serve ties: a file that has none, or others, is none the worse. */
static int read_distances(truth *t, const char *path)
{
    source s;
    void *distances = NULL;
    peri_status status = source_open(&s, path, SOURCE_VECTORS, t->n);
    if (status == PERI_ERR_NOT_FOUND)
        return CLI_OK;
    if (status != PERI_OK)
        return source_failed(&s, status);
    int code = CLI_OK;
    if (s.info.dim == t->width && s.left == t->n)
        code = source_all(&s, &distances);
    t->distances = distances;
    source_close(&s);
    return code;
}

/* ---- by an exact scan of the index's own rows ---- */

static int copy_rows(const peri_index *index, peri_index *flat, const uint64_t *ids, size_t n,
                     uint32_t dim, progress *bar)
{
    float *row = malloc(dim * sizeof *row);
    peri_status status = row ? PERI_OK : PERI_ERR_NOMEM;
    progress_begin(bar, "copying rows", n);
    for (size_t i = 0; status == PERI_OK && i < n; i++) {
        status = peri_index_get(index, ids[i], row);
        if (status == PERI_OK)
            status = peri_index_put(flat, ids[i], row, 0);
        if (i % 1024 == 0 && progress_update(bar, "", i, n))
            status = PERI_ERR_CANCELLED;
    }
    progress_clear(bar);
    free(row);
    return status == PERI_OK ? CLI_OK
                             : cli_failed("cannot copy rows for exact search", status, NULL);
}

/* The index as a flat one, rows as they are kept. */
static int make_flat(const peri_index *index, const peri_index_info *info, peri_index **flat,
                     progress *bar)
{
    peri_space space;
    size_t n = 0, rows = (size_t)info->rows;
    peri_space_init(&space, info->space.dim, info->space.metric);
    uint64_t *ids = malloc((rows ? rows : 1) * sizeof *ids);
    if (!ids)
        return cli_error("no memory for %zu ids", rows);
    peri_status status = peri_index_ids(index, ids, rows, &n);
    if (status == PERI_OK)
        status = peri_flat_create(flat, &space, NULL);
    if (status == PERI_OK)
        status = peri_index_reserve(*flat, rows);
    int code = status == PERI_OK ? copy_rows(index, *flat, ids, rows, info->space.dim, bar)
                                 : cli_failed("cannot prepare exact search", status, NULL);
    free(ids);
    return code;
}

static int scan(truth *t, const peri_index *flat, const float *queries, progress *bar)
{
    peri_query q;
    peri_task task;
    peri_hit *hits = malloc(t->n * t->width * sizeof *hits);
    size_t *n_hits = malloc(t->n * sizeof *n_hits);
    t->ids = malloc(t->n * t->width * sizeof *t->ids);
    t->distances = malloc(t->n * t->width * sizeof *t->distances);
    int code = CLI_OK;
    if (!hits || !n_hits || !t->ids || !t->distances)
        code = cli_error("no memory for the neighbours of %zu queries", t->n);
    if (code == CLI_OK) {
        peri_query_init(&q, (uint32_t)t->width);
        progress_begin(bar, "exact search", 0);
        progress_task(bar, &task, 0);
        peri_status status = peri_index_search_many(flat, t->n, queries, &q, &task, hits, n_hits);
        progress_clear(bar);
        if (status != PERI_OK)
            code = cli_failed("exact search", status, NULL);
    }
    for (size_t i = 0; code == CLI_OK && i < t->n; i++)
        for (size_t a = 0; a < t->width; a++) {
            size_t at = i * t->width + a;
            t->ids[at] = a < n_hits[i] ? hits[at].id : PERI_NO_ID;
            t->distances[at] = a < n_hits[i] ? hits[at].distance : 0;
        }
    free(n_hits);
    free(hits);
    return code;
}

static int compute(truth *t, const peri_index *index, const float *queries, size_t k, progress *bar)
{
    enum { TIES = 16 }; /* further neighbours, to see ties at the k-th */
    peri_index *flat = NULL;
    peri_index_info info;
    peri_index_info_init(&info);
    peri_status status = peri_index_get_info(index, &info);
    if (status != PERI_OK)
        return cli_failed("cannot describe the index", status, NULL);
    t->from = "exact search in the index's rows";
    t->width = k + TIES;
    int code = make_flat(index, &info, &flat, bar);
    if (code == CLI_OK)
        code = scan(t, flat, queries, bar);
    peri_index_close(flat);
    return code;
}

int truth_find(truth *t, const char *path, const char *data, const peri_index *index,
               const float *queries, size_t n, size_t k, progress *bar)
{
    char sibling[4608];
    int found = 0, code = CLI_OK;
    *t = (truth){.n = n, .from = path};
    if (path) {
        cli_dataset_of(path, "neighbors", sibling);
        code = read_ids(t, sibling, k, &found);
        return code == CLI_OK && !found ? cli_error("%s: no such file or dataset", sibling) : code;
    }
    if (cli_is_hdf5(data)) {
        cli_sibling_of(data, "neighbors", sibling);
        code = read_ids(t, sibling, k, &found);
        t->from = "dataset neighbors";
        if (code == CLI_OK && found) {
            cli_sibling_of(data, "distances", sibling);
            code = read_distances(t, sibling);
        }
    }
    if (code == CLI_OK && !found)
        code = compute(t, index, queries, k, bar);
    return code;
}

double truth_recall(const truth *t, size_t i, size_t k, const peri_hit *hits, size_t n_hits)
{
    const uint64_t *ids = t->ids + i * t->width;
    const float *distances = t->distances ? t->distances + i * t->width : NULL;
    size_t wanted = 0, found = 0;
    while (wanted < k && ids[wanted] != PERI_NO_ID)
        wanted++;
    size_t edge = wanted;
    while (distances && wanted == k && edge < t->width && ids[edge] != PERI_NO_ID &&
           distances[edge] == distances[k - 1])
        edge++;
    if (wanted == 0)
        return 1;
    for (size_t a = 0; a < n_hits; a++)
        for (size_t b = 0; b < edge; b++)
            if (hits[a].id == ids[b]) {
                found++;
                break;
            }
    return (double)(found < wanted ? found : wanted) / (double)wanted;
}
