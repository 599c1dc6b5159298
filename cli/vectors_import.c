/* Actions of `perigee vectors` that write: create, import, delete, index, compact. Each ends with a
 * checkpoint, so that what it reports as done stays done; what is stopped before that leaves the
 * file as it was. */
#define _GNU_SOURCE
#include "args.h"
#include "json.h"
#include "progress.h"
#include "source.h"
#include "vectors_actions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_BYTES = 16 << 20, KEY_ROOM = 24 };

/* ---- create ---- */

static int make_file(peri_vectors **v, const char *path, uint64_t dim, int metric, int scalar,
                     uint64_t expect)
{
    peri_space space;
    peri_vectors_config config;
    peri_space_init(&space, (uint32_t)dim, (uint16_t)(metric + 1));
    space.scalar = (uint16_t)(scalar + 1);
    peri_vectors_config_init(&config);
    config.expect_rows = expect;
    peri_status status = peri_vectors_create(v, path, &space, &config, NULL);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot create", status, NULL);
}

int vectors_create(int argc, char **argv)
{
    uint64_t dim = 0;
    int metric = 0, scalar = 0, n;
    const char *path;
    const arg_option options[] = {
        {0, "dim", "N", "dimension of the rows (required)", ARG_COUNT, &dim, 1, PERI_MAX_DIM, NULL},
        {0, "metric", "METRIC", "l2 (default), ip or cosine", ARG_CHOICE, &metric, 0, 0,
         cli_metric_words},
        {0, "scalar", "TYPE", "how rows are kept: f32 (default), f16, bf16 or i8", ARG_CHOICE,
         &scalar, 0, 0, cli_scalar_words},
    };
    const arg_command command = {
        "vectors create", "FILE", "Make an empty vector file.", options, 3, 1, 1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    if (!dim)
        return cli_usage("vectors create", "--dim is missing");
    peri_vectors *v;
    int code = make_file(&v, path, dim, metric, scalar, 0);
    if (code == CLI_OK)
        peri_vectors_close(v);
    return code;
}

/* ---- import ---- */

typedef struct import {
    const char *operands[2], *keys_path, *prefix;
    int metric, scalar, only_new, quiet, json, made;
    uint64_t limit;
    source rows;
    FILE *keys_file;
    char *line;
    size_t line_room;
    peri_vectors *v;
    progress bar;
    uint64_t n_rows, put;
    double seconds;
} import;

static int parse_import(import *im, int argc, char **argv)
{
    const arg_option options[] = {
        {0, "keys", "TEXT", "keys of the rows, one a line; default: the row's number", ARG_TEXT,
         &im->keys_path, 0, 0, NULL},
        {0, "prefix", "WORD", "put this before each row's number", ARG_TEXT, &im->prefix, 0, 0,
         NULL},
        {0, "metric", "METRIC", "of a new file: l2, ip or cosine; default: what DATA says, else l2",
         ARG_CHOICE, &im->metric, 0, 0, cli_metric_words},
        {0, "scalar", "TYPE", "of a new file: f32 (default), f16, bf16 or i8", ARG_CHOICE,
         &im->scalar, 0, 0, cli_scalar_words},
        {0, "new", NULL, "refuse keys that are present", ARG_FLAG, &im->only_new, 0, 0, NULL},
        {0, "limit", "N", "only the first N rows", ARG_COUNT, &im->limit, 1, 0x1p63, NULL},
        {0, "json", NULL, "print the summary as JSON", ARG_FLAG, &im->json, 0, 0, NULL},
        {'q', "quiet", NULL, "no progress bar, no summary", ARG_FLAG, &im->quiet, 0, 0, NULL},
    };
    const arg_command command = {
        "vectors import",
        "FILE DATA",
        "Put the vectors in DATA (.hdf5 .npy .fvecs .bvecs; FILE.hdf5:DATASET, default\n"
        "dataset train) into FILE, which is made where there is none. All of them or none.",
        options,
        sizeof options / sizeof *options,
        2,
        2};
    int n, done = args_parse(&command, argc, argv, im->operands, &n);
    if (done < 0 && im->keys_path && im->prefix)
        return cli_usage("vectors import", "--keys and --prefix exclude each other");
    return done;
}

/* The rows first: they say what a new file is to be, and their reader is a child process that
 * should not inherit the writer's lock. */
static int open_import(import *im)
{
    int code = source_need(&im->rows, im->operands[1], SOURCE_VECTORS, im->limit);
    if (code != CLI_OK)
        return code;
    im->n_rows = im->rows.left;
    if (im->keys_path && !(im->keys_file = fopen(im->keys_path, "r")))
        return cli_error("%s: %s", im->keys_path, strerror(errno));
    int there = cli_is_file(im->operands[0]);
    if (there) {
        code = vectors_open(&im->v, im->operands[0], 0);
        if (code == CLI_OK && (im->metric >= 0 || im->scalar))
            code = cli_usage("vectors import", "--metric and --scalar are for a new file");
    } else {
        const char *distance = im->rows.info.distance;
        int metric = im->metric;
        if (metric < 0)
            metric = *distance ? (int)cli_metric_of_distance(distance) - 1 : 0;
        if (metric < 0)
            return cli_error("%s: distance '%s' is none of l2, ip, cosine: say --metric",
                             im->operands[1], distance);
        if (im->rows.info.dim > PERI_MAX_DIM)
            return cli_error("%s: dimension %u, a vector file takes 1 to %d", im->operands[1],
                             im->rows.info.dim, PERI_MAX_DIM);
        code =
            make_file(&im->v, im->operands[0], im->rows.info.dim, metric, im->scalar, im->n_rows);
    }
    im->made = code == CLI_OK && !there;
    peri_vectors_info info;
    peri_vectors_info_init(&info);
    if (code == CLI_OK && peri_vectors_get_info(im->v, &info) == PERI_OK &&
        info.space.dim != im->rows.info.dim)
        code = cli_error("%s: vectors of %u dimensions, %s has %u", im->operands[1],
                         im->rows.info.dim, im->operands[0], info.space.dim);
    return code;
}

/* The key of row `at`, in `text` of `room` bytes that are grown for it. */
static int next_key(import *im, uint64_t at, char **text, size_t *room, size_t fill, size_t *size)
{
    ssize_t n = KEY_ROOM + (im->prefix ? (ssize_t)strlen(im->prefix) : 0);
    if (im->keys_file) {
        n = getline(&im->line, &im->line_room, im->keys_file);
        if (n > 0 && im->line[n - 1] == '\n')
            n--;
        if (n <= 0 || n > PERI_MAX_KEY_SIZE)
            return cli_error("%s: line %llu: expected a key of 1 to %d bytes", im->keys_path,
                             (unsigned long long)at + 1, PERI_MAX_KEY_SIZE);
    }
    if (fill + (size_t)n > *room) {
        size_t want = 2 * (fill + (size_t)n);
        char *grown = realloc(*text, want);
        if (!grown)
            return cli_error("no memory for the keys of a batch");
        *text = grown;
        *room = want;
    }
    if (im->keys_file)
        memcpy(*text + fill, im->line, (size_t)n);
    else
        n = snprintf(*text + fill, (size_t)n, "%s%llu", im->prefix ? im->prefix : "",
                     (unsigned long long)at);
    *size = (size_t)n;
    return CLI_OK;
}

typedef struct block {
    float *rows;
    peri_slice *keys;
    char *text;
    size_t text_room;
} block;

static int put_block(import *im, block *b, size_t n)
{
    size_t fill = 0;
    peri_status status = source_read(&im->rows, n, b->rows);
    if (status != PERI_OK)
        return source_failed(&im->rows, status);
    for (size_t i = 0; i < n; i++) {
        int code = next_key(im, im->put + i, &b->text, &b->text_room, fill, &b->keys[i].size);
        if (code != CLI_OK)
            return code;
        fill += b->keys[i].size;
    }
    for (size_t i = 0, at = 0; i < n; at += b->keys[i++].size)
        b->keys[i].data = b->text + at; /* the text has stopped moving */
    status = peri_vectors_insert_batch(im->v, n, b->keys, b->rows, im->only_new ? PERI_PUT_NEW : 0,
                                       NULL);
    if (status == PERI_OK)
        return CLI_OK;
    char what[96];
    progress_clear(&im->bar);
    snprintf(what, sizeof what, "rows %llu to %llu", (unsigned long long)im->put,
             (unsigned long long)(im->put + n - 1));
    return cli_failed(what, status, NULL);
}

static int put_all(import *im)
{
    size_t row_bytes = im->rows.info.dim * sizeof(float), step = BATCH_BYTES / row_bytes + 1;
    if (step > im->n_rows)
        step = im->n_rows ? (size_t)im->n_rows : 1;
    block b = {.rows = malloc(step * row_bytes), .keys = calloc(step, sizeof *b.keys)};
    int code = CLI_OK;
    if (!b.rows || !b.keys)
        code = cli_error("no memory for %zu rows of %zu bytes", step, row_bytes);
    progress_begin(&im->bar, "importing", im->n_rows);
    while (code == CLI_OK && im->put < im->n_rows) {
        size_t n = im->n_rows - im->put < step ? (size_t)(im->n_rows - im->put) : step;
        code = put_block(im, &b, n);
        im->put += n;
        if (code == CLI_OK && progress_update(&im->bar, "importing", im->put, im->n_rows))
            code = cli_error("stopped: nothing was imported");
    }
    progress_clear(&im->bar);
    if (code == CLI_OK && im->keys_file && getline(&im->line, &im->line_room, im->keys_file) >= 0)
        code = cli_error("%s: more keys than the %llu rows", im->keys_path,
                         (unsigned long long)im->n_rows);
    free(b.rows);
    free(b.keys);
    free(b.text);
    return code;
}

static int finish_import(import *im)
{
    peri_vectors_info info;
    peri_vectors_info_init(&info);
    peri_status status = peri_vectors_checkpoint(im->v);
    if (status == PERI_OK)
        status = peri_vectors_get_info(im->v, &info);
    if (status != PERI_OK)
        return cli_failed("cannot save", status, NULL);
    if (im->json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_text(&j, "file", im->operands[0]);
        json_count(&j, "imported", im->n_rows);
        json_count(&j, "rows", info.rows);
        json_real(&j, "seconds", im->seconds, 6);
        json_close(&j, '}');
        json_end(&j);
    } else if (!im->quiet) {
        char put[32], rows[32];
        cli_print_count(im->n_rows, put);
        cli_print_count(info.rows, rows);
        printf("%s: %s rows imported, %s in all\n", im->operands[0], put, rows);
    }
    return CLI_OK;
}

int vectors_import(int argc, char **argv)
{
import im = {.metric = - 1 };
    im.rows.fd = -1;
    int code = parse_import(&im, argc, argv);
    if (code >= 0)
        return code;
    progress_init(&im.bar, im.quiet);
    double start = cli_seconds();
    code = open_import(&im);
    if (code == CLI_OK)
        code = put_all(&im);
    im.seconds = cli_seconds() - start;
    if (code == CLI_OK)
        code = finish_import(&im);
    if (im.keys_file)
        fclose(im.keys_file);
    free(im.line);
    source_close(&im.rows);
    peri_vectors_close(im.v);
    if (im.made && code != CLI_OK)
        remove(im.operands[0]); /* it was to be made for these rows */
    return code;
}

/* ---- delete, index, compact ---- */

enum { KEYS_MAX = 1024 };

int vectors_delete(int argc, char **argv)
{
    const char *operands[KEYS_MAX + 1];
    const arg_command command = {"vectors delete",
                                 "FILE KEY...",
                                 "Take keys out of a vector file: all of them or none.",
                                 NULL,
                                 0,
                                 2,
                                 KEYS_MAX + 1};
    int n, done = args_parse(&command, argc, argv, operands, &n);
    if (done >= 0)
        return done;
    peri_vectors *v = NULL;
    int code = vectors_open(&v, operands[0], 0);
    for (int i = 1; code == CLI_OK && i < n; i++) {
        peri_slice key = {operands[i], strlen(operands[i])};
        peri_status status = peri_vectors_delete(v, key);
        if (status != PERI_OK)
            code = cli_failed(operands[i], status, NULL);
    }
    peri_status status = code == CLI_OK ? peri_vectors_checkpoint(v) : PERI_OK;
    if (status != PERI_OK)
        code = cli_failed("cannot save", status, NULL);
    peri_vectors_close(v);
    return code;
}

static const char *const kind_words[] = {"hnsw", "flat", "gwi", "cascade", NULL};
enum { KIND_HNSW, KIND_FLAT, KIND_GWI };

typedef struct index_args {
    int kind, update, quiet;
    uint64_t m, ef_construction, threads;
} index_args;

static peri_status build_index(peri_vectors *v, const index_args *a, const peri_task *task)
{
    peri_vectors_info info;
    peri_index *empty;
    peri_hnsw_config config;
    peri_vectors_info_init(&info);
    peri_status status = peri_vectors_get_info(v, &info);
    if (status != PERI_OK)
        return status;
    peri_hnsw_config_init(&config);
    config.m = (uint32_t)a->m;
    config.ef_construction = (uint32_t)a->ef_construction;
    if (a->kind == KIND_HNSW)
        status = peri_hnsw_create(&empty, &info.space, &config, NULL);
    else if (a->kind == KIND_FLAT)
        status = peri_flat_create(&empty, &info.space, NULL);
    else if (a->kind == KIND_GWI)
        status = peri_gwi_create(&empty, &info.space, NULL, NULL);
    else
        status = peri_cascade_create(&empty, &info.space, NULL, NULL);
    return status == PERI_OK ? peri_vectors_build_index(v, empty, task) : status;
}

int vectors_index(int argc, char **argv)
{
    index_args a = {0};
    const char *path;
    const arg_option options[] = {
        {0, "kind", "KIND", "hnsw (default), flat, gwi or cascade", ARG_CHOICE, &a.kind, 0, 0,
         kind_words},
        {0, "m", "N", "hnsw: links per node, 2 to 256 (16)", ARG_COUNT, &a.m, 2, 256, NULL},
        {0, "ef-construction", "N", "hnsw: candidates kept while building (200)", ARG_COUNT,
         &a.ef_construction, 8, 4096, NULL},
        {0, "update", NULL, "take new rows into the index that is there, measure its curve",
         ARG_FLAG, &a.update, 0, 0, NULL},
        {0, "threads", "N", "threads, 0 = all cores (default)", ARG_COUNT, &a.threads, 0, 256,
         NULL},
        {'q', "quiet", NULL, "no progress bar", ARG_FLAG, &a.quiet, 0, 0, NULL},
    };
    const arg_command command = {"vectors index",
                                 "FILE",
                                 "Build an index over the rows of a vector file; it is kept beside "
                                 "it, as FILE.index.",
                                 options,
                                 sizeof options / sizeof *options,
                                 1,
                                 1};
    int n, done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    if (a.update && (a.kind || a.m || a.ef_construction))
        return cli_usage("vectors index", "--update goes with no other setting");
    if (a.kind != KIND_HNSW && (a.m || a.ef_construction))
        return cli_usage("vectors index", "--m and --ef-construction are for --kind hnsw");
    peri_vectors *v = NULL;
    progress bar;
    peri_task task;
    int code = vectors_open(&v, path, 0);
    if (code != CLI_OK)
        return code;
    progress_init(&bar, a.quiet);
    progress_task(&bar, &task, (unsigned)a.threads);
    progress_begin(&bar, NULL, 0);
    peri_status status = a.update ? peri_vectors_maintain(v, &task) : build_index(v, &a, &task);
    progress_clear(&bar);
    if (status != PERI_OK)
        code = cli_failed("cannot build the index", status, NULL);
    peri_vectors_close(v);
    return code;
}

int vectors_compact(int argc, char **argv)
{
    int quiet = 0, n;
    const char *path;
    const arg_option options[] = {
        {'q', "quiet", NULL, "no progress bar, no summary", ARG_FLAG, &quiet, 0, 0, NULL},
    };
    const arg_command command = {
        "vectors compact",
        "FILE",
        "Write the rows that are left to a new file that takes FILE's place in one step. An\n"
        "index beside it goes: build it anew.",
        options,
        1,
        1,
        1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    peri_vectors *v = NULL;
    progress bar;
    peri_task task;
    uint64_t before = cli_file_size(path);
    int code = vectors_open(&v, path, 0);
    if (code != CLI_OK)
        return code;
    progress_init(&bar, quiet);
    progress_task(&bar, &task, 1);
    progress_begin(&bar, NULL, 0);
    peri_status status = peri_vectors_compact(v, &task);
    progress_clear(&bar);
    if (status != PERI_OK)
        code = cli_failed("cannot compact", status, NULL);
    peri_vectors_close(v);
    if (code == CLI_OK && !quiet) {
        char was[32], is[32];
        cli_print_bytes(before, was);
        cli_print_bytes(cli_file_size(path), is);
        printf("%s: %s, was %s\n", path, is, was);
    }
    return code;
}
