#include "actions.h"
#include "source.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t rows;

static const struct {
    const char *name, *npy;
} types[] = {{"", ""}, {"f32", "<f4"}, {"f64", "<f8"}, {"i32", "<i4"}, {"i64", "<i8"}};

static void shape_text(const peri_tensor *t, const char *between, char out[200])
{
    size_t at = 0;
    out[0] = '\0';
    for (uint32_t d = 0; d < t->dims; d++)
        at += (size_t)snprintf(out + at, 200 - at, "%s%llu", d ? between : "",
                               (unsigned long long)t->shape[d]);
}

static int run_put(peri_log *log, const char **operands, int n)
{
    source s;
    void *data = NULL;
    (void)n;
    int code = source_need(&s, operands[1], SOURCE_VECTORS, 0);
    if (code != CLI_OK)
        return code;
    peri_tensor t = {.type = PERI_TENSOR_F32, .dims = 2, .shape = {s.left, s.info.dim}};
    code = source_all(&s, &data);
    source_close(&s);
    if (code != CLI_OK)
        return code;
    t.data = data;
    t.size = (size_t)(t.shape[0] * t.shape[1]) * 4;
    peri_status status = rows ? peri_tensor_put_chunked(log, peri_cstr(operands[0]), &t, rows)
                              : peri_tensor_put(log, peri_cstr(operands[0]), &t);
    free(data);
    if (status != PERI_OK)
        return cli_failed("cannot put", status, NULL);
    printf("%s: %llu x %llu f32\n", operands[0], (unsigned long long)t.shape[0],
           (unsigned long long)t.shape[1]);
    return CLI_OK;
}

/* The header of a .npy file, version 1.0, padded to a multiple of 64. */
static int write_npy(const char *path, const peri_tensor *t)
{
    char shape[200], head[512];
    shape_text(t, ", ", shape);
    int n = snprintf(head, sizeof head,
                     "\x93NUMPY%c%c%c%c{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }",
                     1, 0, 0, 0, types[t->type].npy, shape, t->dims == 1 ? "," : "");
    size_t size = ((size_t)n + 1 + 63) / 64 * 64;
    memset(head + n, ' ', size - (size_t)n);
    head[size - 1] = '\n';
    head[8] = (char)((size - 10) & 255);
    head[9] = (char)((size - 10) >> 8);
    char *whole = malloc(size + t->size);
    if (!whole)
        return cli_error("out of memory");
    memcpy(whole, head, size);
    if (t->size)
        memcpy(whole + size, t->data, t->size);
    int code = actions_write_file(path, whole, size + t->size);
    free(whole);
    return code;
}

static int run_get(peri_log *log, const char **operands, int n)
{
    peri_tensor t;
    peri_buf buf = {0};
    char shape[200];
    peri_status status = peri_tensor_get(log, peri_cstr(operands[0]), 0, &t, &buf);
    if (status != PERI_OK)
        return cli_failed("no tensor", status, NULL);
    int code = CLI_OK;
    if (n > 1)
        code = write_npy(operands[1], &t);
    if (code == CLI_OK) {
        shape_text(&t, " x ", shape);
        printf("%s: %s%s%s\n", operands[0], shape, t.dims ? " " : "", types[t.type].name);
    }
    peri_buf_free(&buf);
    return code;
}

int cmd_tensor(int argc, char **argv)
{
    static const action actions[] = {
        {"put", "DIRECTORY PREFIX FILE", "store the rows of a vector file", 3, 3, 1, 1, run_put},
        {"get", "DIRECTORY GLOB [OUT.npy]", "join what matches, tell its shape", 2, 3, 0, 0,
         run_get},
    };
    const arg_option options[] = {
        {0, "rows", "N", "put: chunks of so many rows; default one piece", ARG_COUNT, &rows, 1,
         1e15, NULL},
    };
    return actions_run("tensor", "Tensors in a log.", actions, sizeof actions / sizeof *actions,
                       options, sizeof options / sizeof *options, argc, argv);
}
