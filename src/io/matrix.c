/* Opening, describing and reading matrices: the part that all formats share. */
#define _GNU_SOURCE
#include "io/matrix.h"
#include "base/checked.h"
#include "io/element.h"

#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

static const struct {
    const char *extension;
    uint32_t format;
} extensions[] = {
    {".hdf5", PERI_FORMAT_HDF5},   {".h5", PERI_FORMAT_HDF5},     {".hdf", PERI_FORMAT_HDF5},
    {".npy", PERI_FORMAT_NPY},     {".fvecs", PERI_FORMAT_FVECS}, {".bvecs", PERI_FORMAT_BVECS},
    {".ivecs", PERI_FORMAT_IVECS},
};

const char *peri_matrix_format_name(uint32_t format)
{
    static const char *const names[] = {"", "hdf5", "npy", "fvecs", "bvecs", "ivecs"};
    return format < sizeof names / sizeof *names ? names[format] : "";
}

static uint32_t format_of(const char *path, size_t n)
{
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
        size_t len = strlen(extensions[i].extension);
        if (n > len && strncasecmp(path + n - len, extensions[i].extension, len) == 0)
            return extensions[i].format;
    }
    return 0;
}

peri_status pe_matrix_locate(peri_matrix *m, const char *path, const char *default_dataset,
                             uint32_t *format)
{
    const char *colon = strrchr(path, ':'), *dataset = default_dataset;
    size_t n = strlen(path);
    if (colon && format_of(path, (size_t)(colon - path)) == PERI_FORMAT_HDF5) {
        n = (size_t)(colon - path);
        dataset = colon + 1;
    }
    if (n == 0 || n >= sizeof m->path - 32) /* 32: for the suffix of the temporary name */
        return pe_fail(PERI_ERR_ARG, "path of %zu bytes, expected 1 to %zu", n,
                       sizeof m->path - 33);
    if (!*dataset || strlen(dataset) >= sizeof m->dataset)
        return pe_fail(PERI_ERR_ARG, "%s: dataset name of %zu bytes, expected 1 to %zu", path,
                       strlen(dataset), sizeof m->dataset - 1);
    memcpy(m->path, path, n);
    m->path[n] = 0;
    memcpy(m->dataset, dataset, strlen(dataset) + 1);
    *format = format_of(m->path, n);
    return PERI_OK;
}

/* The formats that have a magic number of their own. */
static peri_status format_by_content(peri_matrix *m, uint32_t *format)
{
    char head[8] = {0};
    if (m->file_size >= sizeof head)
        PE_TRY(pe_file_read(&m->file, head, sizeof head, 0));
    if (memcmp(head, "\x89HDF\r\n\x1a\n", 8) == 0)
        *format = PERI_FORMAT_HDF5;
    else if (memcmp(head, "\x93NUMPY", 6) == 0)
        *format = PERI_FORMAT_NPY;
    else
        return pe_fail(PERI_ERR_FORMAT,
                       "%s: neither extension nor content is that of a matrix, expected .hdf5, "
                       ".npy, .fvecs, .bvecs or .ivecs",
                       m->path);
    return PERI_OK;
}

peri_status pe_matrix_shape(peri_matrix *m, uint64_t rows, uint64_t dim, uint32_t element,
                            peri_status status)
{
    size_t size = pe_element_size(element), total;
    if (dim < 1 || dim > PERI_MATRIX_MAX_DIM)
        return pe_fail(status, "%s: dimension %llu, expected 1 to %d", m->path,
                       (unsigned long long)dim, PERI_MATRIX_MAX_DIM);
    size_t record = (size_t)dim * size + m->row_head;
    if (rows > SIZE_MAX || pe_mul_size((size_t)rows, record, &total))
        return pe_fail(status, "%s: %llu rows of %zu bytes overflow", m->path,
                       (unsigned long long)rows, record);
    size_t block_rows = PE_MATRIX_BLOCK / record;
    if (block_rows < 1)
        block_rows = 1;
    unsigned char *block = pe_alloc(&m->host, block_rows * record);
    if (!block)
        return PERI_ERR_NOMEM;
    pe_free(&m->host, m->block, m->block_bytes);
    m->block = block;
    m->block_rows = block_rows;
    m->block_bytes = block_rows * record;
    m->row_bytes = (size_t)dim * size;
    m->info.rows = rows;
    m->info.dim = (uint32_t)dim;
    m->info.element = (uint16_t)element;
    m->info.integer = (uint32_t)pe_element_is_integer(element);
    return PERI_OK;
}

static peri_status open_by_format(peri_matrix *m, uint32_t format)
{
    /* O_NONBLOCK: a FIFO must be refused, not waited for. */
    PE_TRY(pe_file_open(&m->file, m->host.files, m->path, O_RDONLY | O_NONBLOCK));
    PE_TRY(pe_file_size(&m->file, &m->file_size));
    if (!format)
        PE_TRY(format_by_content(m, &format));
    m->info.format = (uint16_t)format;
    switch (format) {
    case PERI_FORMAT_HDF5:
        return pe_hdf5_open(m);
    case PERI_FORMAT_NPY:
        return pe_npy_open(m);
    default:
        return pe_vecs_open(m);
    }
}

peri_status peri_matrix_open(peri_matrix **out, const char *path, const peri_env *env)
{
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    *out = NULL;
    if (!path)
        return pe_fail(PERI_ERR_ARG, "path is NULL");
    pe_host host;
    PE_TRY(pe_host_init(&host, env));
    peri_matrix *m = pe_calloc(&host, sizeof *m);
    if (!m)
        return PERI_ERR_NOMEM;
    m->host = host;
    m->file.fd = -1;
    m->pid = getpid();
    m->state = PE_MATRIX_READS;
    peri_matrix_info_init(&m->info);
    uint32_t format;
    peri_status status = pe_matrix_locate(m, path, "train", &format);
    if (status == PERI_OK)
        status = open_by_format(m, format);
    if (status != PERI_OK) {
        peri_matrix_close(m);
        return status;
    }
    *out = m;
    return PERI_OK;
}

peri_status peri_matrix_get_info(const peri_matrix *m, peri_matrix_info *info)
{
    if (!m || !info)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", m ? "info" : "matrix");
    if (info->struct_size < sizeof *info)
        return pe_fail(PERI_ERR_ARG, "peri_matrix_info.struct_size is %u, expected %zu or more",
                       info->struct_size, sizeof *info);
    uint32_t size = info->struct_size;
    *info = m->info;
    info->struct_size = size;
    return PERI_OK;
}

static peri_status bad_value(peri_matrix *m, uint64_t row, size_t at, int ids)
{
    char text[32];
    pe_element_print(m->info.element, m->block, at, text);
    return pe_fail(PERI_ERR_FORMAT, "%s: row %llu, column %zu is %s, which %s", m->path,
                   (unsigned long long)(row + at / m->info.dim), at % m->info.dim, text,
                   ids ? "is no id" : "f32 cannot hold");
}

/* One of floats and ids is NULL. */
static peri_status read_rows(peri_matrix *m, uint64_t first, size_t n, float *floats, uint64_t *ids)
{
    if (!m || (n && !floats && !ids))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", m ? "out" : "matrix");
    if (m->state != PE_MATRIX_READS)
        return pe_fail(PERI_ERR_STATE, "%s: opened for writing, expected reading", m->path);
    if (first > m->info.rows || n > m->info.rows - first)
        return pe_fail(PERI_ERR_ARG, "%s: rows %llu to %llu asked for, there are %llu", m->path,
                       (unsigned long long)first, (unsigned long long)(first + n),
                       (unsigned long long)m->info.rows);
    while (n) {
        size_t rows = n < m->block_rows ? n : m->block_rows, values = rows * m->info.dim, done;
        PE_TRY(m->ops->read(m, first, rows, m->block));
        if (floats) {
            done = pe_element_to_float(m->info.element, m->block, values, floats);
            floats += values;
        } else {
            done = pe_element_to_ids(m->info.element, m->block, values, ids);
            ids += values;
        }
        if (done != values)
            return bad_value(m, first, done, ids != NULL);
        first += rows;
        n -= rows;
    }
    return PERI_OK;
}

peri_status peri_matrix_read(peri_matrix *m, uint64_t first_row, size_t n, float *out)
{
    return read_rows(m, first_row, n, out, NULL);
}

peri_status peri_matrix_read_ids(peri_matrix *m, uint64_t first_row, size_t n, uint64_t *out)
{
    if (m && !m->info.integer)
        return pe_fail(PERI_ERR_FORMAT, "%s: elements are %s, expected integers", m->path,
                       peri_matrix_element_name(m->info.element));
    return read_rows(m, first_row, n, NULL, out);
}

void peri_matrix_close(peri_matrix *m)
{
    if (!m)
        return;
    int owner = m->pid == getpid();
    if (m->ops && m->ops->close && (owner || m->state == PE_MATRIX_READS))
        m->ops->close(m);
    if (m->file.fd >= 0) /* no detail: what was committed is synced, and an error may be on show */
        m->host.files->close(m->host.files->ctx, m->file.fd);
    if (*m->temp && owner)
        pe_file_unlink(m->host.files, m->temp);
    pe_free(&m->host, m->block, m->block_bytes);
    pe_host host = m->host;
    pe_free(&host, m, sizeof *m);
}
