#include "args.h"
#include "hits.h"
#include "idlist.h"
#include "progress.h"
#include "source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 1024 }; /* queries handed over at a time */

typedef struct search {
    const char *operands[2], *allow_path, *out;
    uint64_t k, ef, rerank, limit, threads;
    double target_recall, max_distance; /* NAN = not given */
    int quiet, json;
    source queries;
    peri_index *index;
    peri_index_info info;
    peri_idset *allow;
    hits hits;
    progress bar;
} search;

static int parse(search *s, int argc, char **argv)
{
    const arg_option options[] = {
        {'k', "k", "N", "hits wanted of each query (10)", ARG_COUNT, &s->k, 1, 1048576, NULL},
        {0, "ef", "N", "effort: ef of hnsw, wells of gwi; default: the index's own", ARG_COUNT,
         &s->ef, 1, 1048576, NULL},
        {0, "rerank", "N", "candidates re-ranked on stored rows", ARG_COUNT, &s->rerank, 1, 1048576,
         NULL},
        {0, "target-recall", "X", "let the index choose the effort, 0.5 to 0.999", ARG_REAL,
         &s->target_recall, 0.5, 0.999, NULL},
        {0, "max-distance", "X", "only hits at most this far", ARG_REAL, &s->max_distance, -3e38,
         3e38, NULL},
        {0, "allow", "FILE", "only the ids in FILE (text, .npy, .ivecs, .hdf5)", ARG_TEXT,
         &s->allow_path, 0, 0, NULL},
        {0, "limit", "N", "only the first N queries", ARG_COUNT, &s->limit, 1, 0x1p63, NULL},
        {'o', "output", "FILE", "write hits to FILE (.hdf5 .ivecs .npy); - = print", ARG_TEXT,
         &s->out, 0, 0, NULL},
        {0, "threads", "N", "threads, 0 = all cores (default)", ARG_COUNT, &s->threads, 0, 256,
         NULL},
        {0, "json", NULL, "print a line of JSON for each query", ARG_FLAG, &s->json, 0, 0, NULL},
        {'q', "quiet", NULL, "no progress bar", ARG_FLAG, &s->quiet, 0, 0, NULL},
    };
    const arg_command command = {"search",
                                 "INDEX QUERIES",
                                 "Find the rows of INDEX that are nearest to each vector in "
                                 "QUERIES\n(default dataset of HDF5: test).",
                                 options,
                                 sizeof options / sizeof *options,
                                 2,
                                 2};
    int n, done = args_parse(&command, argc, argv, s->operands, &n);
    if (done >= 0)
        return done;
    if (s->ef && s->target_recall > 0)
        return cli_usage("search", "--ef and --target-recall exclude each other");
    if (s->out && strcmp(s->out, "-") == 0)
        s->out = NULL;
    return -1;
}

static int open_all(search *s)
{
    char path[4608];
    int code = s->out ? cli_check_output(s->out) : CLI_OK;
    if (code != CLI_OK)
        return code;
    peri_status status =
        peri_index_open(&s->index, s->operands[0], PERI_OPEN_READONLY | PERI_OPEN_MAP, NULL, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    peri_index_info_init(&s->info);
    status = peri_index_get_info(s->index, &s->info);
    if (status != PERI_OK)
        return cli_failed("cannot describe the index", status, NULL);
    cli_dataset_of(s->operands[1], "test", path);
    code = source_need(&s->queries, path, SOURCE_VECTORS, s->limit);
    s->queries.path = s->operands[1];
    if (code == CLI_OK && s->queries.info.dim != s->info.space.dim)
        code = cli_error("%s: vectors of %u dimensions, the index has %u", s->operands[1],
                         s->queries.info.dim, s->info.space.dim);
    if (code == CLI_OK && s->allow_path)
        code = idlist_read(s->allow_path, &s->allow);
    return code;
}

/* Hits are kept to the end only for a file; else they are printed batch by batch. */
static int make_room(search *s)
{
    uint64_t k = s->k < s->info.rows ? s->k : s->info.rows, n = s->queries.left;
    s->k = k ? k : 1; /* an index of no rows answers with no hits */
    if (!s->out && n > STEP)
        n = STEP;
    return hits_alloc(&s->hits, (size_t)n, (size_t)s->k);
}

static int answer(search *s, float *rows, uint64_t first, size_t n, size_t at)
{
    peri_query q;
    peri_task task;
    peri_status status = source_read(&s->queries, n, rows);
    if (status != PERI_OK)
        return source_failed(&s->queries, status);
    peri_query_init(&q, (uint32_t)s->k);
    q.effort = (uint32_t)s->ef;
    q.rerank = (uint32_t)s->rerank;
    q.target_recall = (float)s->target_recall;
    q.has_max_distance = !isnan(s->max_distance);
    q.max_distance = q.has_max_distance ? (float)s->max_distance : 0;
    q.allow = s->allow;
    progress_task(&s->bar, &task, (unsigned)s->threads);
    s->bar.before = first;
    status = peri_index_search_many(s->index, n, rows, &q, &task, s->hits.hit + at * s->hits.k,
                                    s->hits.n_hits + at);
    if (status == PERI_OK)
        return CLI_OK;
    progress_clear(&s->bar);
    char what[96];
    snprintf(what, sizeof what, "queries %llu to %llu", (unsigned long long)first,
             (unsigned long long)(first + n - 1));
    return cli_failed(what, status, NULL);
}

static peri_status key_of(const void *index, uint64_t id, peri_buf *key)
{
    return peri_index_key_of(index, id, key);
}

static int answer_all(search *s)
{
    uint64_t total = s->queries.left;
    float *rows = malloc((size_t)STEP * s->queries.info.dim * sizeof *rows);
    int code = rows ? CLI_OK : cli_error("no memory for %d queries", STEP);
    progress_begin(&s->bar, "searching", total);
    for (uint64_t first = 0; code == CLI_OK && first < total;) {
        size_t n = total - first < STEP ? (size_t)(total - first) : STEP;
        code = answer(s, rows, first, n, s->out ? (size_t)first : 0);
        if (code == CLI_OK && !s->out) {
            progress_clear(&s->bar);
            code = hits_print(&s->hits, s->info.keyed ? key_of : NULL, s->index, first, n, s->json);
        }
        first += n;
    }
    progress_clear(&s->bar);
    free(rows);
    return code;
}

int cmd_search(int argc, char **argv)
{
    search s = {.k = 10, .max_distance = (double)NAN};
    s.queries.fd = -1;
    int code = parse(&s, argc, argv);
    if (code >= 0)
        return code;
    progress_init(&s.bar, s.quiet);
    code = open_all(&s);
    if (code == CLI_OK)
        code = make_room(&s);
    if (code == CLI_OK)
        code = answer_all(&s);
    if (code == CLI_OK && s.out)
        code = hits_write(&s.hits, s.out, s.info.space.metric);
    hits_free(&s.hits);
    source_close(&s.queries);
    peri_idset_close(s.allow);
    peri_index_close(s.index);
    return code;
}
