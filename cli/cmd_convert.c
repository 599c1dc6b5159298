#include "args.h"
#include "progress.h"
#include "source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4 << 20 };

/* As PERI_ELEMENT_*, from 1. */
static const char *const element_words[] = {"f16", "f32", "f64", "i8",  "u8",  "i16",
                                            "u16", "i32", "u32", "i64", "u64", NULL};

typedef struct convert {
    const char *operands[2], *dataset, *distance;
    int element, quiet;
    uint64_t deflate, limit;
    peri_matrix *out;
    progress bar;
} convert;

static int parse(convert *c, int argc, char **argv)
{
    const arg_option options[] = {
        {0, "dataset", "NAME", "HDF5: the dataset to write (train)", ARG_TEXT, &c->dataset, 0, 0,
         NULL},
        {0, "type", "TYPE", "f16 f32 f64 i8 u8 i16 u16 i32 u32 i64 u64; default: as in IN",
         ARG_CHOICE, &c->element, 0, 0, element_words},
        {0, "distance", "NAME", "HDF5: the attribute distance (as in IN)", ARG_TEXT, &c->distance,
         0, 0, NULL},
        {0, "deflate", "N", "HDF5: compress, 1 to 9", ARG_COUNT, &c->deflate, 1, 9, NULL},
        {0, "limit", "N", "only the first N rows", ARG_COUNT, &c->limit, 1, 0x1p63, NULL},
        {'q', "quiet", NULL, "no progress bar, no notes", ARG_FLAG, &c->quiet, 0, 0, NULL},
    };
    const arg_command command = {
        "convert",
        "IN OUT",
        "Copy the vectors (or ids) of IN to OUT, whose extension names the format: .hdf5 .npy\n"
        ".fvecs .bvecs .ivecs. IN is a file of vectors (FILE.hdf5:DATASET) or an index, whose\n"
        "rows come in the order of their ids; HDF5 gets the ids as dataset ids.",
        options,
        sizeof options / sizeof *options,
        2,
        2};
    int n;
    return args_parse(&command, argc, argv, c->operands, &n);
}

/* The formats that have one element type need none to be said. */
static int has_fixed_type(const char *path)
{
    size_t n = strlen(path);
    return n > 6 && strcmp(path + n - 4, "vecs") == 0;
}

static int create(convert *c, uint32_t dim, uint64_t rows, unsigned element, const char *distance)
{
    peri_matrix_config config;
    peri_matrix_config_init(&config, dim);
    config.rows = rows;
    config.deflate = (uint16_t)c->deflate;
    config.dataset = c->dataset;
    config.distance = c->distance ? c->distance : *distance ? distance : NULL;
    if (c->element >= 0)
        config.element = (uint16_t)(c->element + 1);
    else if (!has_fixed_type(c->operands[1]))
        config.element = (uint16_t)element;
    peri_status status = peri_matrix_create(&c->out, c->operands[1], &config, NULL);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot create", status, NULL);
}

/* ---- from a file of vectors ---- */

static int copy_block(convert *c, source *s, size_t n, void *rows)
{
    peri_status status = source_read(s, n, rows);
    if (status != PERI_OK)
        return source_failed(s, status);
    status = s->ids ? peri_matrix_write_ids(c->out, n, rows) : peri_matrix_write(c->out, n, rows);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot write", status, NULL);
}

static int copy_rows(convert *c, source *s)
{
    size_t row_bytes = s->info.dim * (s->ids ? sizeof(uint64_t) : sizeof(float));
    size_t step = BLOCK / row_bytes ? BLOCK / row_bytes : 1;
    uint64_t total = s->left;
    void *rows = malloc(step * row_bytes);
    int code = rows ? CLI_OK : cli_error("no memory for %zu rows of %zu bytes", step, row_bytes);
    progress_begin(&c->bar, "converting", total);
    while (code == CLI_OK && s->left) {
        code = copy_block(c, s, s->left < step ? (size_t)s->left : step, rows);
        if (code == CLI_OK && progress_update(&c->bar, "", total - s->left, total))
            code = cli_error("stopped");
    }
    progress_clear(&c->bar);
    free(rows);
    return code;
}

/* Wide integers travel as ids, which are exact, where the target can hold them. */
static int is_integer_target(const convert *c)
{
    const char *path = c->operands[1];
    size_t n = strlen(path);
    if (c->element >= 0)
        return c->element >= PERI_ELEMENT_I8 - 1;
    return n < 6 || strcmp(path + n - 6, ".fvecs") != 0;
}

static int from_matrix(convert *c)
{
    source s;
    source_kind kind = is_integer_target(c) ? SOURCE_EITHER : SOURCE_VECTORS;
    int code = source_need(&s, c->operands[0], kind, c->limit);
    if (code != CLI_OK)
        return code;
    code = create(c, s.info.dim, s.left, s.info.element, s.info.distance);
    if (code == CLI_OK)
        code = copy_rows(c, &s);
    source_close(&s);
    return code;
}

/* ---- from an index ---- */

static int by_id(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static int get_rows(convert *c, const peri_index *index, const uint64_t *ids, size_t n,
                    uint32_t dim)
{
    float *row = malloc(dim * sizeof *row);
    int code = row ? CLI_OK : cli_error("no memory for a row of %u floats", dim);
    progress_begin(&c->bar, "converting", n);
    for (size_t i = 0; code == CLI_OK && i < n; i++) {
        peri_status status = peri_index_get(index, ids[i], row);
        if (status == PERI_OK)
            status = peri_matrix_write(c->out, 1, row);
        if (status != PERI_OK)
            code = cli_failed("cannot copy a row", status, NULL);
        else if (i % 1024 == 0 && progress_update(&c->bar, "", i, n))
            code = cli_error("stopped");
    }
    progress_clear(&c->bar);
    free(row);
    return code;
}

/* HDF5 has room for the ids beside the rows; the other formats have not, which matters where they
 * are more than row numbers. */
static int keep_ids(convert *c, const uint64_t *ids, size_t n)
{
    if (!cli_is_hdf5(c->operands[1])) {
        if (!c->quiet && n && ids[n - 1] != n - 1)
            fprintf(stderr, "perigee: note: the ids are not 0 to %zu; only HDF5 keeps them\n",
                    n - 1);
        return CLI_OK;
    }
    peri_matrix_config config;
    peri_matrix_config_init(&config, 1);
    config.dataset = "ids";
    config.element = PERI_ELEMENT_U64;
    config.rows = n;
    peri_status status = peri_matrix_next(c->out, &config);
    if (status == PERI_OK)
        status = peri_matrix_write_ids(c->out, n, ids);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot write the ids", status, NULL);
}

static int copy_index(convert *c, const peri_index *index)
{
    peri_index_info info;
    size_t n = 0;
    peri_index_info_init(&info);
    peri_status status = peri_index_get_info(index, &info);
    uint64_t *ids = status == PERI_OK ? malloc((size_t)(info.rows + 1) * sizeof *ids) : NULL;
    if (status == PERI_OK && !ids)
        return cli_error("no memory for %llu ids", (unsigned long long)info.rows);
    if (status == PERI_OK)
        status = peri_index_ids(index, ids, (size_t)info.rows, &n);
    int code = status == PERI_OK ? CLI_OK : cli_failed("cannot describe the index", status, NULL);
    if (code == CLI_OK) {
        qsort(ids, n, sizeof *ids, by_id);
        n = c->limit && c->limit < n ? (size_t)c->limit : n;
        code = create(c, info.space.dim, n, PERI_ELEMENT_F32,
                      cli_distance_of_metric(info.space.metric));
    }
    if (code == CLI_OK)
        code = get_rows(c, index, ids, n, info.space.dim);
    if (code == CLI_OK)
        code = keep_ids(c, ids, n);
    free(ids);
    return code;
}

static int from_index(convert *c)
{
    peri_index *index;
    peri_status status =
        peri_index_open(&index, c->operands[0], PERI_OPEN_READONLY | PERI_OPEN_MAP, NULL, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    int code = copy_index(c, index);
    peri_index_close(index);
    return code;
}

int cmd_convert(int argc, char **argv)
{
    convert c = {.element = -1};
    int code = parse(&c, argc, argv);
    if (code >= 0)
        return code;
    progress_init(&c.bar, c.quiet);
    code = cli_check_output(c.operands[1]);
    if (code == CLI_OK)
        code = cli_is_matrix(c.operands[0]) ? from_matrix(&c) : from_index(&c);
    if (code == CLI_OK) {
        peri_status status = peri_matrix_commit(c.out);
        if (status != PERI_OK)
            code = cli_failed("cannot finish the file", status, NULL);
    }
    peri_matrix_close(c.out);
    return code;
}
