#include "args.h"
#include "hits.h"
#include "json.h"
#include "source.h"
#include "truth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct eval {
    const char *operands[2], *truth_path;
    uint64_t k, rerank, threads, limit, passes;
    arg_counts ef;
    double min_recall;
    int quiet, json;
    peri_index *index;
    peri_index_info info;
    float *queries;
    size_t n;
    truth truth;
    hits hits;
    double *seconds; /* of each query in one pass */
    progress bar;
    double best;
} eval;

typedef struct figures {
    uint64_t ef;
    double recall, rate, p50, p99;
} figures;

static int parse(eval *e, int argc, char **argv)
{
    const arg_option options[] = {
        {'k', "k", "N", "neighbours counted, as in recall@k (10)", ARG_COUNT, &e->k, 1, 10000,
         NULL},
        {0, "ef", "N,N,...", "efforts to measure (10,20,40,80,160,320)", ARG_COUNTS, &e->ef, 1,
         1048576, NULL},
        {0, "rerank", "N", "candidates re-ranked on stored rows", ARG_COUNT, &e->rerank, 1, 1048576,
         NULL},
        {0, "truth", "FILE", "true neighbours (.ivecs .npy .hdf5)", ARG_TEXT, &e->truth_path, 0, 0,
         NULL},
        {0, "limit", "N", "only the first N queries", ARG_COUNT, &e->limit, 1, 0x1p63, NULL},
        {0, "passes", "N", "measure N times, show the median (3)", ARG_COUNT, &e->passes, 1, 99,
         NULL},
        {0, "min-recall", "X", "exit status 1 when no effort reaches this recall", ARG_REAL,
         &e->min_recall, 0, 1, NULL},
        {0, "threads", "N", "threads, 0 = all cores (1)", ARG_COUNT, &e->threads, 0, 256, NULL},
        {0, "json", NULL, "print JSON", ARG_FLAG, &e->json, 0, 0, NULL},
        {'q', "quiet", NULL, "no progress bar", ARG_FLAG, &e->quiet, 0, 0, NULL},
    };
    const arg_command command = {
        "eval",
        "INDEX DATA",
        "Measure recall@k and queries per second of INDEX on the queries in DATA (HDF5: dataset\n"
        "test). The truth is DATA's dataset neighbors or --truth, else it is found by an exact\n"
        "scan of the index's rows.",
        options,
        sizeof options / sizeof *options,
        2,
        2};
    int n;
    return args_parse(&command, argc, argv, e->operands, &n);
}

static int read_queries(eval *e)
{
    char path[4608];
    source s;
    void *rows = NULL;
    cli_dataset_of(e->operands[1], "test", path);
    int code = source_need(&s, path, SOURCE_VECTORS, e->limit);
    if (code != CLI_OK)
        return code;
    if (s.info.dim != e->info.space.dim)
        code = cli_error("%s: vectors of %u dimensions, the index has %u", path, s.info.dim,
                         e->info.space.dim);
    else if (s.left == 0)
        code = cli_error("%s: no queries", path);
    e->n = (size_t)s.left;
    if (code == CLI_OK)
        code = source_all(&s, &rows);
    e->queries = rows;
    source_close(&s);
    return code;
}

static int open_all(eval *e)
{
    peri_status status = peri_index_open(&e->index, e->operands[0], PERI_OPEN_READONLY, NULL, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    peri_index_info_init(&e->info);
    status = peri_index_get_info(e->index, &e->info);
    if (status != PERI_OK)
        return cli_failed("cannot describe the index", status, NULL);
    int code = read_queries(e);
    if (code == CLI_OK)
        code = truth_find(&e->truth, e->truth_path, e->operands[1], e->index, e->queries, e->n,
                          (size_t)e->k, &e->bar);
    if (code == CLI_OK)
        code = hits_alloc(&e->hits, e->n, (size_t)e->k);
    e->seconds = code == CLI_OK ? malloc(e->n * sizeof *e->seconds) : NULL;
    if (code == CLI_OK && !e->seconds)
        code = cli_error("no memory for %zu timings", e->n);
    return code;
}

static int by_size(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* All queries once; *seconds gets the time of the pass, e->seconds that of each query where one
 * thread asks one after the other. */
static peri_status one_pass(eval *e, const peri_query *q, double *seconds)
{
    peri_status status = PERI_OK;
    double start = cli_seconds(), before = start;
    if (e->threads != 1) {
        peri_task task;
        progress_task(&e->bar, &task, (unsigned)e->threads);
        status = peri_index_search_many(e->index, e->n, e->queries, q, &task, e->hits.hit,
                                        e->hits.n_hits);
        *seconds = cli_seconds() - start;
        return status;
    }
    for (size_t i = 0; status == PERI_OK && i < e->n; i++) {
        status = peri_index_search(e->index, e->queries + i * e->info.space.dim, q,
                                   e->hits.hit + i * e->hits.k, &e->hits.n_hits[i]);
        double now = cli_seconds();
        e->seconds[i] = now - before;
        before = now;
        if (i % 256 == 0 && cli_stopped())
            status = PERI_ERR_CANCELLED;
    }
    *seconds = cli_seconds() - start;
    return status;
}

static int measure(eval *e, uint64_t ef, figures *f)
{
    peri_query q;
    double pass[99], sum = 0;
    peri_query_init(&q, (uint32_t)e->k);
    q.effort = (uint32_t)ef;
    q.rerank = (uint32_t)e->rerank;
    for (size_t i = 0; i < e->passes; i++) {
        peri_status status = one_pass(e, &q, &pass[i]);
        if (status != PERI_OK)
            return cli_failed("search", status, NULL);
    }
    for (size_t i = 0; i < e->n; i++)
        sum += truth_recall(&e->truth, i, (size_t)e->k, e->hits.hit + i * e->hits.k,
                            e->hits.n_hits[i]);
    qsort(pass, (size_t)e->passes, sizeof *pass, by_size);
    qsort(e->seconds, e->threads == 1 ? e->n : 0, sizeof *e->seconds, by_size);
    double median = pass[e->passes / 2];
    *f = (figures){.ef = ef, .recall = sum / (double)e->n, .rate = (double)e->n / median};
    if (e->threads == 1) {
        f->p50 = e->seconds[e->n / 2] * 1e6;
        f->p99 = e->seconds[e->n - 1 - e->n / 100] * 1e6;
    }
    if (f->recall > e->best)
        e->best = f->recall;
    return CLI_OK;
}

static void print_row(const eval *e, const figures *f, json *j)
{
    if (e->json) {
        json_open(j, NULL, '{');
        if (f->ef)
            json_count(j, "ef", f->ef);
        json_real(j, "recall", f->recall, 6);
        json_real(j, "queries_per_second", f->rate, 6);
        if (e->threads == 1) {
            json_real(j, "p50_us", f->p50, 5);
            json_real(j, "p99_us", f->p99, 5);
        }
        json_close(j, '}');
        return;
    }
    char rate[32], ef[24] = "-";
    cli_print_count((uint64_t)f->rate, rate);
    if (f->ef)
        snprintf(ef, sizeof ef, "%llu", (unsigned long long)f->ef);
    printf("%8s  %9.4f  %12s", ef, f->recall, rate);
    if (e->threads == 1)
        printf("  %10.1f  %10.1f", f->p50, f->p99);
    putchar('\n');
    fflush(stdout); /* a row at a time: the next may take a while */
}

static void print_head(const eval *e, json *j)
{
    if (e->json) {
        json_open(j, NULL, '{');
        json_text(j, "index", e->operands[0]);
        json_text(j, "kind", e->info.kind);
        json_count(j, "rows", e->info.rows);
        json_count(j, "dim", e->info.space.dim);
        json_count(j, "queries", e->n);
        json_count(j, "k", e->k);
        json_count(j, "threads", e->threads);
        json_count(j, "passes", e->passes);
        json_text(j, "kernels", peri_cpu_level());
        json_text(j, "truth", e->truth.from);
        json_open(j, "results", '[');
        return;
    }
    char rows[32], n[32], head[32];
    cli_print_count(e->info.rows, rows);
    cli_print_count(e->n, n);
    snprintf(head, sizeof head, "recall@%llu", (unsigned long long)e->k);
    printf("%s: %s, %s rows of %u dimensions, %s queries, kernels %s, truth: %s\n", e->operands[0],
           e->info.kind, rows, e->info.space.dim, n, peri_cpu_level(), e->truth.from);
    printf("%8s  %9s  %12s", "ef", head, "queries/s");
    if (e->threads == 1)
        printf("  %10s  %10s", "p50 us", "p99 us");
    putchar('\n');
}

static int run(eval *e)
{
    static const uint64_t usual[] = {10, 20, 40, 80, 160, 320};
    json j = {stdout, 0};
    figures f = {0};
    int code = CLI_OK;
    if (!(e->info.caps & PERI_CAP_EFFORT)) {
        e->ef = (arg_counts){1, {0}};
    } else if (e->ef.n == 0) {
        e->ef.n = sizeof usual / sizeof *usual;
        memcpy(e->ef.value, usual, sizeof usual);
    }
    print_head(e, &j);
    for (size_t i = 0; code == CLI_OK && i < e->ef.n; i++) {
        progress_begin(&e->bar, "measuring", e->ef.n);
        progress_update(&e->bar, "", i, e->ef.n);
        code = measure(e, e->ef.value[i], &f);
        progress_clear(&e->bar);
        if (code == CLI_OK)
            print_row(e, &f, &j);
    }
    if (e->json && code == CLI_OK) {
        json_close(&j, ']');
        json_close(&j, '}');
        json_end(&j);
    }
    if (code == CLI_OK && e->best < e->min_recall)
        return CLI_NO;
    return code;
}

int cmd_eval(int argc, char **argv)
{
    eval e = {.k = 10, .threads = 1, .passes = 3};
    int code = parse(&e, argc, argv);
    if (code >= 0)
        return code;
    progress_init(&e.bar, e.quiet);
    code = open_all(&e);
    if (code == CLI_OK)
        code = run(&e);
    free(e.seconds);
    hits_free(&e.hits);
    truth_free(&e.truth);
    free(e.queries);
    peri_index_close(e.index);
    return code;
}
