/* Actions of `perigee vectors` that only read: get, search, info, check. */
#include "args.h"
#include "hits.h"
#include "json.h"
#include "progress.h"
#include "source.h"
#include "vectors_actions.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- get ---- */

enum { KEYS_MAX = 1024 };

static void print_row(const char *key, const float *row, uint32_t dim, int as_json)
{
    if (as_json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_bytes(&j, "key", "key_hex", key, strlen(key));
        json_open(&j, "row", '[');
        for (uint32_t i = 0; i < dim; i++)
            json_real(&j, NULL, (double)row[i], 9);
        json_close(&j, ']');
        json_close(&j, '}');
        json_end(&j);
        return;
    }
    for (uint32_t i = 0; i < dim; i++)
        printf("%s%.9g", i ? " " : "", (double)row[i]);
    putchar('\n');
}

int vectors_get(int argc, char **argv)
{
    int as_json = 0, n;
    const char *operands[KEYS_MAX + 1];
    const arg_option options[] = {
        {0, "json", NULL, "print a line of JSON for each key", ARG_FLAG, &as_json, 0, 0, NULL},
    };
    const arg_command command = {"vectors get",
                                 "FILE KEY...",
                                 "Print the row of each key, a line of numbers each.",
                                 options,
                                 1,
                                 2,
                                 KEYS_MAX + 1};
    int done = args_parse(&command, argc, argv, operands, &n);
    if (done >= 0)
        return done;
    peri_vectors *v = NULL;
    peri_vectors_info info;
    peri_vectors_info_init(&info);
    int code = vectors_open(&v, operands[0], 1);
    peri_status status = code == CLI_OK ? peri_vectors_get_info(v, &info) : PERI_OK;
    float *row = code == CLI_OK ? malloc(info.space.dim * sizeof *row) : NULL;
    if (code == CLI_OK && !row)
        code = cli_error("no memory for a row of %u dimensions", info.space.dim);
    for (int i = 1; code == CLI_OK && i < n; i++) {
        status = peri_vectors_get(v, (peri_slice){operands[i], strlen(operands[i])}, row, NULL);
        if (status == PERI_OK)
            print_row(operands[i], row, info.space.dim, as_json);
        else
            code = cli_failed(operands[i], status, NULL);
    }
    free(row);
    peri_vectors_close(v);
    return code;
}

/* ---- search ---- */

enum { STEP = 1024 };

typedef struct ask {
    const char *operands[2];
    uint64_t k, ef, limit, threads;
    double target_recall, max_distance; /* NAN = not given */
    int quiet, json;
    source queries;
    peri_vectors *v;
    peri_vectors_info info;
    hits hits;
    progress bar;
} ask;

static int parse_search(ask *s, int argc, char **argv)
{
    const arg_option options[] = {
        {'k', "k", "N", "hits wanted of each query (10)", ARG_COUNT, &s->k, 1, 1048576, NULL},
        {0, "ef", "N", "effort of the index; default: its own", ARG_COUNT, &s->ef, 1, 1048576,
         NULL},
        {0, "target-recall", "X", "let the index choose the effort, 0.5 to 0.999", ARG_REAL,
         &s->target_recall, 0.5, 0.999, NULL},
        {0, "max-distance", "X", "only hits at most this far", ARG_REAL, &s->max_distance, -3e38,
         3e38, NULL},
        {0, "limit", "N", "only the first N queries", ARG_COUNT, &s->limit, 1, 0x1p63, NULL},
        {0, "threads", "N", "threads, 0 = all cores (default)", ARG_COUNT, &s->threads, 0, 256,
         NULL},
        {0, "json", NULL, "print a line of JSON for each query", ARG_FLAG, &s->json, 0, 0, NULL},
        {'q', "quiet", NULL, "no progress bar", ARG_FLAG, &s->quiet, 0, 0, NULL},
    };
    const arg_command command = {"vectors search",
                                 "FILE QUERIES",
                                 "Find the rows of FILE that are nearest to each vector in QUERIES "
                                 "(default dataset\nof HDF5: test). Exact where no index is there.",
                                 options,
                                 sizeof options / sizeof *options,
                                 2,
                                 2};
    int n, done = args_parse(&command, argc, argv, s->operands, &n);
    if (done < 0 && s->ef && s->target_recall > 0)
        return cli_usage("vectors search", "--ef and --target-recall exclude each other");
    return done;
}

static int open_search(ask *s)
{
    char path[4608];
    int code = vectors_open(&s->v, s->operands[0], 1);
    if (code != CLI_OK)
        return code;
    peri_vectors_info_init(&s->info);
    peri_status status = peri_vectors_get_info(s->v, &s->info);
    if (status != PERI_OK)
        return cli_failed("cannot describe the file", status, NULL);
    cli_dataset_of(s->operands[1], "test", path);
    code = source_need(&s->queries, path, SOURCE_VECTORS, s->limit);
    s->queries.path = s->operands[1];
    if (code == CLI_OK && s->queries.info.dim != s->info.space.dim)
        code = cli_error("%s: vectors of %u dimensions, the file has %u", s->operands[1],
                         s->queries.info.dim, s->info.space.dim);
    if (code != CLI_OK)
        return code;
    s->k = s->k < s->info.rows ? s->k : s->info.rows ? s->info.rows : 1;
    return hits_alloc(&s->hits, s->queries.left < STEP ? (size_t)s->queries.left : STEP,
                      (size_t)s->k);
}

static peri_status key_of(const void *v, uint64_t id, peri_buf *key)
{
    return peri_vectors_key_of(v, id, key);
}

static int answer(ask *s, float *rows, uint64_t first, size_t n)
{
    peri_query q;
    peri_task task;
    peri_status status = source_read(&s->queries, n, rows);
    if (status != PERI_OK)
        return source_failed(&s->queries, status);
    peri_query_init(&q, (uint32_t)s->k);
    q.effort = (uint32_t)s->ef;
    q.target_recall = (float)s->target_recall;
    q.has_max_distance = !isnan(s->max_distance);
    q.max_distance = q.has_max_distance ? (float)s->max_distance : 0;
    progress_task(&s->bar, &task, (unsigned)s->threads);
    s->bar.before = first;
    status = peri_vectors_search_many(s->v, n, rows, &q, &task, s->hits.hit, s->hits.n_hits);
    progress_clear(&s->bar);
    if (status == PERI_OK)
        return hits_print(&s->hits, key_of, s->v, first, n, s->json);
    char what[96];
    snprintf(what, sizeof what, "queries %llu to %llu", (unsigned long long)first,
             (unsigned long long)(first + n - 1));
    return cli_failed(what, status, NULL);
}

int vectors_search(int argc, char **argv)
{
    ask s = {.k = 10, .max_distance = (double)NAN};
    s.queries.fd = -1;
    int code = parse_search(&s, argc, argv);
    if (code >= 0)
        return code;
    progress_init(&s.bar, s.quiet);
    code = open_search(&s);
    uint64_t total = code == CLI_OK ? s.queries.left : 0;
    float *rows = code == CLI_OK ? malloc((size_t)STEP * s.queries.info.dim * sizeof *rows) : NULL;
    if (code == CLI_OK && !rows)
        code = cli_error("no memory for %d queries", STEP);
    progress_begin(&s.bar, "searching", total);
    for (uint64_t first = 0; code == CLI_OK && first < total; first += STEP)
        code = answer(&s, rows, first, total - first < STEP ? (size_t)(total - first) : STEP);
    progress_clear(&s.bar);
    free(rows);
    hits_free(&s.hits);
    source_close(&s.queries);
    peri_vectors_close(s.v);
    return code;
}

/* ---- info ---- */

static void print_info_json(const char *path, const peri_vectors_info *i)
{
    json j = {stdout, 0};
    json_open(&j, NULL, '{');
    json_text(&j, "file", path);
    json_count(&j, "file_bytes", cli_file_size(path));
    json_text(&j, "metric", cli_metric_name(i->space.metric));
    json_text(&j, "scalar", cli_scalar_name(i->space.scalar));
    json_count(&j, "dim", i->space.dim);
    json_count(&j, "rows", i->rows);
    json_count(&j, "dead", i->slots - i->rows);
    json_count(&j, "generation", i->generation);
    json_count(&j, "checkpoint", i->checkpoint);
    json_text(&j, "index", i->index_kind);
    json_count(&j, "indexed", i->indexed);
    json_flag(&j, "index_dropped", i->index_dropped != 0);
    json_count(&j, "heap_bytes", i->bytes_heap);
    json_count(&j, "mapped_bytes", i->bytes_mapped);
    json_close(&j, '}');
    json_end(&j);
}

static void print_info(const char *path, const peri_vectors_info *i)
{
    char rows[32], dead[32], file[32], indexed[32];
    cli_print_count(i->rows, rows);
    cli_print_count(i->slots - i->rows, dead);
    cli_print_count(i->indexed, indexed);
    cli_print_bytes(cli_file_size(path), file);
    printf("file        %s, %s\n", path, file);
    printf("metric      %s\n", cli_metric_name(i->space.metric));
    printf("dimension   %u\n", i->space.dim);
    printf("rows        %s as %s, %s dead (compact gives their space back)\n", rows,
           cli_scalar_name(i->space.scalar), dead);
    printf("history     generation %llu, checkpoint %llu\n", (unsigned long long)i->generation,
           (unsigned long long)i->checkpoint);
    if (*i->index_kind)
        printf("index       %s over %s rows, the rest is scanned\n", i->index_kind, indexed);
    else
        printf("index       none%s\n",
               i->index_dropped ? ": the one beside the file does not fit it" : "");
}

int vectors_info(int argc, char **argv)
{
    int as_json = 0, n;
    const char *path;
    const arg_option options[] = {
        {0, "json", NULL, "print JSON", ARG_FLAG, &as_json, 0, 0, NULL},
    };
    const arg_command command = {
        "vectors info", "FILE", "Describe a vector file.", options, 1, 1, 1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    peri_vectors *v = NULL;
    peri_vectors_info info;
    peri_vectors_info_init(&info);
    int code = vectors_open(&v, path, 1);
    if (code != CLI_OK)
        return code;
    peri_status status = peri_vectors_get_info(v, &info);
    if (status != PERI_OK)
        code = cli_failed("cannot describe the file", status, NULL);
    else if (as_json)
        print_info_json(path, &info);
    else
        print_info(path, &info);
    peri_vectors_close(v);
    return code;
}

/* ---- check ---- */

/* Damage that opening finds is an answer, like faults that the proof finds. */
static int is_answer(const char *path, peri_status status)
{
    return status == PERI_ERR_CORRUPT || (status == PERI_ERR_FORMAT && cli_is_file(path));
}

static void print_check(const char *path, int as_json, uint64_t rows, uint64_t faults,
                        const char *first)
{
    char n[32];
    cli_print_count(faults ? faults : rows, n);
    if (as_json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_text(&j, "file", path);
        json_flag(&j, "ok", faults == 0);
        json_count(&j, "rows", rows);
        json_count(&j, "faults", faults);
        if (faults)
            json_text(&j, "first", first);
        json_close(&j, '}');
        json_end(&j);
    } else if (faults) {
        printf("%s: %s fault%s; the first: %s\n", path, n, faults == 1 ? "" : "s", first);
    } else {
        printf("%s: whole, %s rows\n", path, n);
    }
}

int vectors_check(int argc, char **argv)
{
    int as_json = 0, quiet = 0, n;
    const char *path;
    const arg_option options[] = {
        {0, "json", NULL, "print JSON", ARG_FLAG, &as_json, 0, 0, NULL},
        {'q', "quiet", NULL, "no progress bar", ARG_FLAG, &quiet, 0, 0, NULL},
    };
    const arg_command command = {
        "vectors check",
        "FILE",
        "Verify every checksum of a vector file and its index. Exit status 1 and the first\n"
        "fault where it is damaged.",
        options,
        2,
        1,
        1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    progress bar;
    peri_task task;
    peri_vectors *v;
    uint64_t faults = 0, rows = 0;
    peri_status status = peri_vectors_open(&v, path, PERI_OPEN_READONLY, NULL, NULL);
    if (status != PERI_OK && !is_answer(path, status))
        return cli_failed("cannot open", status, NULL);
    if (status != PERI_OK) {
        print_check(path, as_json, 0, 1, peri_error_detail());
        return CLI_NO;
    }
    progress_init(&bar, quiet);
    progress_task(&bar, &task, 1);
    progress_begin(&bar, NULL, 0);
    status = peri_vectors_len(v, &rows);
    if (status == PERI_OK)
        status = peri_vectors_check(v, &task, &faults);
    progress_clear(&bar);
    if (status != PERI_OK)
        cli_failed("cannot check", status, NULL);
    else
        print_check(path, as_json, rows, faults, faults ? peri_error_detail() : "");
    peri_vectors_close(v);
    return status != PERI_OK ? CLI_ERROR : faults ? CLI_NO : CLI_OK;
}
