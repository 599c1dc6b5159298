/* perigee sparse build | search | info | check */
#include "args.h"
#include "idlist.h"
#include "json.h"
#include "progress.h"
#include "sparse_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PUT_ROWS = 65536, SEARCH_ROWS = 1024 };

static const char *const weights_words[] = {"f32", "f16", "i8", NULL};
static const uint32_t weights_numbers[] = {PERI_SCALAR_F32, PERI_SCALAR_F16, PERI_SCALAR_I8};

/* ---- build ---- */

typedef struct build {
    const char *data, *out;
    int weights, exact, quiet;
    double keep;
    uint64_t threads;
    peri_sparse *sx;
    sparse_text text;
    progress bar;
} build;

static int put_rows(build *b, const peri_task *task)
{
    for (;;) {
        int code = sparse_text_read(&b->text, PUT_ROWS);
        if (code != CLI_OK || b->text.rows.n == 0)
            return code;
        peri_status status = peri_sparse_put_many(b->sx, b->text.with_ids ? b->text.ids : NULL,
                                                  &b->text.rows, 0, task, NULL);
        if (status != PERI_OK) {
            progress_clear(&b->bar);
            return cli_failed(b->data, status, NULL);
        }
    }
}

static int report_build(const build *b, double seconds)
{
    char rows[32], size[32];
    peri_sparse_info info;
    peri_sparse_info_init(&info);
    peri_status status = peri_sparse_get_info(b->sx, &info);
    if (status != PERI_OK)
        return cli_failed("cannot describe the index", status, NULL);
    cli_print_count(info.rows, rows);
    cli_print_bytes(cli_file_size(b->out), size);
    printf("%s: sparse, %s rows as %s, %s\nbuilt in %.1f s\n", b->out, rows,
           weights_words[b->weights], size, seconds);
    return CLI_OK;
}

static int run_build(build *b)
{
    double start = cli_seconds();
    peri_task task;
    peri_sparse_config config;
    peri_sparse_config_init(&config);
    config.weights = weights_numbers[b->weights];
    config.flags = b->exact ? PERI_SPARSE_NO_APPROXIMATE : 0;
    config.keep = (float)b->keep;
    int code = cli_check_output(b->out);
    if (code == CLI_OK)
        code = sparse_text_open(&b->text, b->data);
    if (code != CLI_OK)
        return code;
    peri_status status = peri_sparse_create(&b->sx, &config, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot build", status, NULL);
    progress_init(&b->bar, b->quiet);
    progress_task(&b->bar, &task, (unsigned)b->threads);
    progress_begin(&b->bar, NULL, 0);
    code = put_rows(b, &task);
    if (code != CLI_OK)
        return code;
    status = peri_sparse_compact(b->sx, &task);
    if (status == PERI_OK)
        status = peri_sparse_save(b->sx, b->out, &task);
    progress_clear(&b->bar);
    if (status != PERI_OK)
        return cli_failed("cannot build", status, NULL);
    return report_build(b, cli_seconds() - start);
}

static int sparse_build(int argc, char **argv)
{
    build b = {0};
    int n;
    const arg_option options[] = {
        {'o', "output", "FILE", "where the index goes", ARG_TEXT, &b.out, 0, 0, NULL},
        {0, "weights", "TYPE", "how weights are kept: f32 (default), f16, i8", ARG_CHOICE,
         &b.weights, 0, 0, weights_words},
        {0, "keep", "X", "part of a row's weight in the approximate lists (0.6)", ARG_REAL, &b.keep,
         0.1, 1, NULL},
        {0, "exact-only", NULL, "no lists for approximate search", ARG_FLAG, &b.exact, 0, 0, NULL},
        {0, "threads", "N", "threads, 0 = all cores (default)", ARG_COUNT, &b.threads, 0, 256,
         NULL},
        {'q', "quiet", NULL, "no progress bar", ARG_FLAG, &b.quiet, 0, 0, NULL},
    };
    const arg_command command = {"sparse build",
                                 "DATA",
                                 "Make a sparse index of DATA: text, a row each line, "
                                 "[ID] TERM:WEIGHT ...\n(svmlight); - = standard input.",
                                 options,
                                 sizeof options / sizeof *options,
                                 1,
                                 1};
    int done = args_parse(&command, argc, argv, &b.data, &n);
    if (done >= 0)
        return done;
    if (!b.out)
        return cli_usage("sparse build", "--output is missing");
    int code = run_build(&b);
    peri_sparse_close(b.sx);
    sparse_text_close(&b.text);
    return code;
}

/* ---- search ---- */

typedef struct search {
    const char *operands[2], *allow_path;
    uint64_t k, effort, rerank, limit, threads;
    double max_distance; /* NAN = not given */
    int json;
    peri_sparse *sx;
    peri_idset *allow;
    sparse_text text;
    peri_hit *hits;
    size_t *n_hits;
    uint64_t first; /* number of the first query of the batch */
} search;

static void print_json(const search *s, size_t i)
{
    json j = {stdout, 0};
    json_open(&j, NULL, '{');
    json_count(&j, "query", s->text.with_ids ? s->text.ids[i] : s->first + i);
    json_open(&j, "hits", '[');
    for (size_t h = 0; h < s->n_hits[i]; h++) {
        const peri_hit *hit = &s->hits[i * s->k + h];
        json_open(&j, NULL, '{');
        json_count(&j, "id", hit->id);
        json_real(&j, "score", 0.0 - (double)hit->distance, 9);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_close(&j, '}');
    json_end(&j);
}

static void print_lines(const search *s, size_t i)
{
    unsigned long long query = s->text.with_ids ? s->text.ids[i] : s->first + i;
    for (size_t h = 0; h < s->n_hits[i]; h++)
        printf("%8llu  %4zu  %20llu  %12.6g\n", query, h + 1,
               (unsigned long long)s->hits[i * s->k + h].id,
               0.0 - (double)s->hits[i * s->k + h].distance);
    if (s->n_hits[i] == 0)
        printf("%8llu     -\n", query);
}

static int answer_batch(search *s, const peri_query *q, const peri_task *task)
{
    peri_status status = peri_sparse_search_many(s->sx, &s->text.rows, q, task, s->hits, s->n_hits);
    if (status != PERI_OK)
        return cli_failed(s->operands[1], status, NULL);
    for (size_t i = 0; i < s->text.rows.n; i++)
        s->json ? print_json(s, i) : print_lines(s, i);
    s->first += s->text.rows.n;
    return CLI_OK;
}

static int run_search(search *s)
{
    peri_query q;
    peri_task task;
    progress bar;
    peri_status status =
        peri_sparse_open(&s->sx, s->operands[0], PERI_OPEN_READONLY | PERI_OPEN_MAP, NULL, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    int code = s->allow_path ? idlist_read(s->allow_path, &s->allow) : CLI_OK;
    if (code == CLI_OK)
        code = sparse_text_open(&s->text, s->operands[1]);
    s->hits = malloc(SEARCH_ROWS * s->k * sizeof *s->hits);
    s->n_hits = malloc(SEARCH_ROWS * sizeof *s->n_hits);
    if (code == CLI_OK && (!s->hits || !s->n_hits))
        code = cli_error("out of memory for the hits of %d queries", SEARCH_ROWS);
    peri_query_init(&q, (uint32_t)s->k);
    q.effort = (uint32_t)s->effort;
    q.rerank = (uint32_t)s->rerank;
    q.has_max_distance = !isnan(s->max_distance);
    q.max_distance = q.has_max_distance ? (float)s->max_distance : 0;
    q.allow = s->allow;
    progress_init(&bar, 1);
    progress_task(&bar, &task, (unsigned)s->threads);
    if (code == CLI_OK && !s->json)
        printf("%8s  %4s  %20s  %12s\n", "query", "rank", "id", "score");
    while (code == CLI_OK && s->first < s->limit) {
        uint64_t left = s->limit - s->first;
        code = sparse_text_read(&s->text, left < SEARCH_ROWS ? (size_t)left : SEARCH_ROWS);
        if (code != CLI_OK || s->text.rows.n == 0)
            break;
        code = answer_batch(s, &q, &task);
    }
    return code;
}

static int sparse_search(int argc, char **argv)
{
    search s = {.k = 10, .limit = UINT64_MAX, .max_distance = NAN};
    int n;
    const arg_option options[] = {
        {'k', "k", "N", "hits wanted of each query (10)", ARG_COUNT, &s.k, 1, 65536, NULL},
        {0, "effort", "N", "approximate: walk the N heaviest terms; default: exact", ARG_COUNT,
         &s.effort, 1, 65535, NULL},
        {0, "rerank", "N", "rows that approximate search re-ranks", ARG_COUNT, &s.rerank, 1,
         1048576, NULL},
        {0, "max-distance", "X", "only scores of -X or more", ARG_REAL, &s.max_distance, -3e38,
         3e38, NULL},
        {0, "allow", "FILE", "only the ids in FILE (text, .npy, .ivecs, .hdf5)", ARG_TEXT,
         &s.allow_path, 0, 0, NULL},
        {0, "limit", "N", "only the first N queries", ARG_COUNT, &s.limit, 1, 0x1p63, NULL},
        {0, "threads", "N", "threads, 0 = all cores (default)", ARG_COUNT, &s.threads, 0, 256,
         NULL},
        {0, "json", NULL, "print a line of JSON for each query", ARG_FLAG, &s.json, 0, 0, NULL},
    };
    const arg_command command = {"sparse search",
                                 "INDEX QUERIES",
                                 "Find the rows of INDEX with the highest inner products with "
                                 "each line of\nQUERIES ([ID] TERM:WEIGHT ...); - = standard "
                                 "input.",
                                 options,
                                 sizeof options / sizeof *options,
                                 2,
                                 2};
    int done = args_parse(&command, argc, argv, s.operands, &n);
    if (done >= 0)
        return done;
    int code = run_search(&s);
    peri_sparse_close(s.sx);
    peri_idset_close(s.allow);
    sparse_text_close(&s.text);
    free(s.hits);
    free(s.n_hits);
    return code;
}

/* ---- info and check ---- */

static const char *weights_name(uint32_t weights)
{
    return weights == PERI_SCALAR_F32 ? "f32" : weights == PERI_SCALAR_F16 ? "f16" : "i8";
}

static void print_info(const char *path, const peri_sparse_info *i)
{
    char rows[32], deleted[32], postings[32], heavy[32], size[32], mapped[32];
    cli_print_count(i->rows, rows);
    cli_print_count(i->deleted, deleted);
    cli_print_count(i->postings, postings);
    cli_print_count(i->approximate_postings, heavy);
    cli_print_bytes(cli_file_size(path), size);
    cli_print_bytes(i->bytes_mapped, mapped);
    printf("file        %s, %s\nkind        sparse\nrows        %s as %s, %s deleted\n", path, size,
           rows, weights_name(i->weights), deleted);
    printf("segments    %u\npostings    %s exact, %s approximate (keep %g)\n", i->segments,
           postings, heavy, (double)i->keep);
    printf("ids         %s, next is %llu\nmemory      %s mapped\n", i->keyed ? "of keys" : "given",
           (unsigned long long)i->next_id, mapped);
}

static void print_info_json(const char *path, const peri_sparse_info *i)
{
    json j = {stdout, 0};
    json_open(&j, NULL, '{');
    json_text(&j, "file", path);
    json_text(&j, "kind", "sparse");
    json_count(&j, "rows", i->rows);
    json_count(&j, "deleted", i->deleted);
    json_text(&j, "weights", weights_name(i->weights));
    json_count(&j, "segments", i->segments);
    json_count(&j, "postings", i->postings);
    json_count(&j, "approximate_postings", i->approximate_postings);
    json_real(&j, "keep", (double)i->keep, 3);
    json_flag(&j, "keyed", (int)i->keyed);
    json_count(&j, "next_id", i->next_id);
    json_count(&j, "bytes", i->bytes_sealed);
    json_close(&j, '}');
    json_end(&j);
}

static int sparse_info(int argc, char **argv)
{
    int as_json = 0, n;
    const char *path;
    const arg_option options[] = {
        {0, "json", NULL, "print JSON", ARG_FLAG, &as_json, 0, 0, NULL},
    };
    const arg_command command = {
        "sparse info", "INDEX", "Describe a sparse index.", options, 1, 1, 1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    peri_sparse *sx;
    peri_sparse_info info;
    peri_sparse_info_init(&info);
    peri_status status =
        peri_sparse_open(&sx, path, PERI_OPEN_READONLY | PERI_OPEN_MAP, NULL, NULL);
    if (status == PERI_OK)
        status = peri_sparse_get_info(sx, &info);
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    as_json ? print_info_json(path, &info) : print_info(path, &info);
    peri_sparse_close(sx);
    return CLI_OK;
}

static int sparse_check(int argc, char **argv)
{
    int as_json = 0, n;
    const char *path;
    const arg_option options[] = {
        {0, "json", NULL, "print JSON", ARG_FLAG, &as_json, 0, 0, NULL},
    };
    const arg_command command = {
        "sparse check",
        "INDEX",
        "Verify every checksum of a sparse index and prove its structure. Exit status 1\nand "
        "the first fault where it is damaged.",
        options,
        1,
        1,
        1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    peri_sparse *sx;
    peri_sparse_info info;
    uint64_t faults = 0;
    peri_sparse_info_init(&info);
    peri_status status = peri_sparse_open(&sx, path, PERI_OPEN_READONLY, NULL, NULL);
    if (status == PERI_ERR_CORRUPT || (status == PERI_ERR_FORMAT && cli_is_file(path)))
        return json_check(path, as_json, "rows", 0, 1, peri_error_detail());
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    status = peri_sparse_get_info(sx, &info);
    if (status == PERI_OK)
        status = peri_sparse_check(sx, NULL, &faults);
    int code = status == PERI_OK ? json_check(path, as_json, "rows", info.rows, faults,
                                              faults ? peri_error_detail() : "")
                                 : cli_failed("cannot check", status, NULL);
    peri_sparse_close(sx);
    return code;
}

/* ---- which of them ---- */

int cmd_sparse(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } actions[] = {{"build", sparse_build},
                   {"search", sparse_search},
                   {"info", sparse_info},
                   {"check", sparse_check}};
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (strcmp(name, actions[i].name) == 0)
            return actions[i].run(argc - 1, argv + 1);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        puts("usage: perigee sparse build | search | info | check ...\n\n"
             "Indexes of sparse vectors (term, weight), searched by inner product.\n"
             "'perigee sparse ACTION --help' tells the options of each.");
        return CLI_OK;
    }
    return cli_usage("sparse", *name ? "unknown action '%s'" : "an action is missing%s", name);
}
