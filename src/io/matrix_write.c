/* Writing matrices: a file of its own name until commit, then the name in one step. */
#define _GNU_SOURCE
#include "io/element.h"
#include "io/matrix.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* The element type that a format wants, or a reason why it cannot be what was asked for. */
static peri_status choose_element(const peri_matrix *m, uint32_t asked, uint32_t *element)
{
    static const uint16_t fixed[] = {[PERI_FORMAT_FVECS] = PERI_ELEMENT_F32,
                                     [PERI_FORMAT_BVECS] = PERI_ELEMENT_U8,
                                     [PERI_FORMAT_IVECS] = PERI_ELEMENT_I32};
    if (asked && !pe_element_size(asked))
        return pe_fail(PERI_ERR_CONFIG, "element is %u, expected a PERI_ELEMENT_*", asked);
    uint32_t only = m->info.format >= PERI_FORMAT_FVECS ? fixed[m->info.format] : 0;
    if (only && asked && asked != only)
        return pe_fail(PERI_ERR_CONFIG, "%s: %s files hold %s, asked for %s", m->path,
                       peri_matrix_format_name(m->info.format), peri_matrix_element_name(only),
                       peri_matrix_element_name(asked));
    *element = only ? only : asked ? asked : PERI_ELEMENT_F32;
    return PERI_OK;
}

static peri_status check_config(const peri_matrix_config *c)
{
    if (!c)
        return pe_fail(PERI_ERR_ARG, "config is NULL");
    if (c->struct_size < sizeof *c)
        return pe_fail(PERI_ERR_ARG, "peri_matrix_config.struct_size is %u, expected %zu or more",
                       c->struct_size, sizeof *c);
    if (c->dim < 1 || c->dim > PERI_MATRIX_MAX_DIM)
        return pe_fail(PERI_ERR_DIMENSION, "dim is %u, expected 1 to %d", c->dim,
                       PERI_MATRIX_MAX_DIM);
    if (c->format > PERI_FORMAT_IVECS)
        return pe_fail(PERI_ERR_CONFIG, "format is %u, expected a PERI_FORMAT_*", c->format);
    if (c->deflate > 9)
        return pe_fail(PERI_ERR_CONFIG, "deflate is %u, expected 0 to 9", c->deflate);
    if (c->n_attributes && !c->attributes)
        return pe_fail(PERI_ERR_ARG, "attributes is NULL, n_attributes is %zu", c->n_attributes);
    return PERI_OK;
}

/* A rename would put a file in the place of a device or fail on a directory after all the work:
 * say so at once. */
static peri_status check_target(const peri_matrix *m)
{
    pe_file there;
    uint64_t size;
    peri_status status = pe_file_open(&there, m->host.files, m->path, O_RDONLY | O_NONBLOCK);
    if (status == PERI_ERR_NOT_FOUND)
        return PERI_OK;
    PE_TRY(status);
    status = pe_file_size(&there, &size);
    peri_status closed = pe_file_close(&there);
    return status == PERI_OK ? closed : status;
}

/* Hidden, in the same directory, its base cut off at 200 bytes so that a name at the file system's
 * limit can be written; O_EXCL and the counter keep writers apart. */
static peri_status open_temp(peri_matrix *m)
{
    const char *slash = strrchr(m->path, '/');
    const char *base = slash ? slash + 1 : m->path;
    peri_status status = PERI_OK;
    for (int i = 0; i < 1000; i++) {
        snprintf(m->temp, sizeof m->temp, "%.*s.%.200s.%ld-%d.tmp", (int)(base - m->path), m->path,
                 base, (long)getpid(), i);
        status = pe_file_open(&m->file, m->host.files, m->temp, O_RDWR | O_CREAT | O_EXCL);
        if (status != PERI_ERR_EXISTS)
            break;
    }
    if (status != PERI_OK)
        *m->temp = 0; /* not ours to remove */
    return status;
}

static peri_status create_by_format(peri_matrix *m, const char *path,
                                    const peri_matrix_config *config)
{
    uint32_t format, element;
    PE_TRY(pe_matrix_locate(m, path, config->dataset ? config->dataset : "train", &format));
    if (config->format)
        format = config->format;
    if (!format)
        return pe_fail(PERI_ERR_CONFIG,
                       "%s: the extension names no format, expected .hdf5, .npy, .fvecs, .bvecs "
                       "or .ivecs",
                       m->path);
    m->info.format = (uint16_t)format;
    m->row_head = format >= PERI_FORMAT_FVECS ? 4 : 0;
    m->planned = config->rows;
    PE_TRY(choose_element(m, config->element, &element));
    PE_TRY(pe_matrix_shape(m, config->rows, config->dim, element, PERI_ERR_CONFIG));
    m->info.rows = 0;
    PE_TRY(check_target(m));
    PE_TRY(open_temp(m));
    switch (format) {
    case PERI_FORMAT_HDF5:
        return pe_hdf5_create(m, config);
    case PERI_FORMAT_NPY:
        return pe_npy_create(m);
    default:
        return pe_vecs_create(m);
    }
}

peri_status peri_matrix_create(peri_matrix **out, const char *path,
                               const peri_matrix_config *config, const peri_env *env)
{
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    *out = NULL;
    if (!path)
        return pe_fail(PERI_ERR_ARG, "path is NULL");
    PE_TRY(check_config(config));
    pe_host host;
    PE_TRY(pe_host_init(&host, env));
    peri_matrix *m = pe_calloc(&host, sizeof *m);
    if (!m)
        return PERI_ERR_NOMEM;
    m->host = host;
    m->file.fd = -1;
    m->pid = getpid();
    m->state = PE_MATRIX_WRITES;
    peri_matrix_info_init(&m->info);
    peri_status status = create_by_format(m, path, config);
    if (status != PERI_OK) {
        peri_matrix_close(m);
        return status;
    }
    *out = m;
    return PERI_OK;
}

static peri_status check_writable(const peri_matrix *m)
{
    if (!m)
        return pe_fail(PERI_ERR_ARG, "matrix is NULL");
    if (m->state == PE_MATRIX_POISONED)
        return pe_fail(PERI_ERR_POISONED, "%s: an earlier write failed", m->path);
    if (m->state != PE_MATRIX_WRITES)
        return pe_fail(PERI_ERR_STATE, "%s: %s", m->path,
                       m->state == PE_MATRIX_READS ? "opened for reading" : "already committed");
    if (m->pid != getpid())
        return pe_fail(PERI_ERR_FORKED, "%s: opened by process %ld", m->path, (long)m->pid);
    return PERI_OK;
}

/* Rows to be written; one of floats and ids is NULL. */
typedef struct batch {
    const float *floats;
    const uint64_t *ids;
} batch;

/* Convert rows [row, row + n) of the batch into the block. */
static peri_status fill_block(peri_matrix *m, const batch *b, size_t row, size_t n)
{
    size_t values = n * m->info.dim, at = row * m->info.dim;
    size_t done = b->floats
                      ? pe_element_from_float(m->info.element, b->floats + at, values, m->block)
                      : pe_element_from_ids(m->info.element, b->ids + at, values, m->block);
    if (done == values)
        return PERI_OK;
    char text[32];
    pe_element_print(b->floats ? PERI_ELEMENT_F32 : PERI_ELEMENT_U64,
                     b->floats ? (const void *)(b->floats + at) : b->ids + at, done, text);
    return pe_fail(PERI_ERR_ARG, "%s: row %llu, column %zu is %s, which %s cannot hold", m->path,
                   (unsigned long long)(m->info.rows + row + done / m->info.dim),
                   done % m->info.dim, text, peri_matrix_element_name(m->info.element));
}

/* A value that does not fit must be found before the first block is written: files are not cut. */
static peri_status check_values(peri_matrix *m, const batch *b, size_t n)
{
    if (n <= m->block_rows || m->info.element == PERI_ELEMENT_F32)
        return PERI_OK;
    for (size_t row = 0, part; row < n; row += part) {
        part = n - row < m->block_rows ? n - row : m->block_rows;
        PE_TRY(fill_block(m, b, row, part));
    }
    return PERI_OK;
}

static peri_status write_rows(peri_matrix *m, size_t n, const batch *b)
{
    PE_TRY(check_writable(m));
    if (n && !b->floats && !b->ids)
        return pe_fail(PERI_ERR_ARG, "rows is NULL");
    uint64_t room = (m->planned ? m->planned : SIZE_MAX / 32) - m->info.rows;
    if (n > room || n > SIZE_MAX / 32 / m->row_bytes)
        return pe_fail(PERI_ERR_FULL, "%s: %zu rows after %llu, there is room for %llu", m->path, n,
                       (unsigned long long)m->info.rows, (unsigned long long)room);
    PE_TRY(check_values(m, b, n));
    uint64_t start = m->info.rows;
    while (m->info.rows - start < n) {
        size_t row = (size_t)(m->info.rows - start);
        size_t part = n - row < m->block_rows ? n - row : m->block_rows;
        batch rest = {b->floats ? b->floats + row * m->info.dim : NULL,
                      b->ids ? b->ids + row * m->info.dim : NULL};
        PE_TRY(fill_block(m, &rest, 0, part)); /* fails at the first block or not at all */
        peri_status status = m->ops->write(m, part, m->block);
        if (status != PERI_OK) {
            m->state = PE_MATRIX_POISONED;
            return status;
        }
        m->info.rows += part;
    }
    return PERI_OK;
}

peri_status peri_matrix_write(peri_matrix *m, size_t n, const float *rows)
{
    return write_rows(m, n, &(batch){rows, NULL});
}

peri_status peri_matrix_write_ids(peri_matrix *m, size_t n, const uint64_t *ids)
{
    if (m && !m->info.integer)
        return pe_fail(PERI_ERR_ARG, "%s: elements are %s, expected an integer type", m->path,
                       peri_matrix_element_name(m->info.element));
    return write_rows(m, n, &(batch){NULL, ids});
}

static peri_status check_complete(const peri_matrix *m)
{
    if (m->planned && m->info.rows != m->planned)
        return pe_fail(PERI_ERR_STATE, "%s: %llu rows written, %llu announced", m->path,
                       (unsigned long long)m->info.rows, (unsigned long long)m->planned);
    if (m->row_head && m->info.rows == 0)
        return pe_fail(PERI_ERR_STATE, "%s: a %s file of no rows says nothing", m->path,
                       peri_matrix_format_name(m->info.format));
    return PERI_OK;
}

peri_status peri_matrix_next(peri_matrix *m, const peri_matrix_config *config)
{
    PE_TRY(check_writable(m));
    PE_TRY(check_config(config));
    if (m->info.format != PERI_FORMAT_HDF5)
        return pe_fail(PERI_ERR_UNSUPPORTED, "%s: a %s file holds one matrix", m->path,
                       peri_matrix_format_name(m->info.format));
    if (!config->dataset || !*config->dataset || strlen(config->dataset) >= sizeof m->dataset)
        return pe_fail(PERI_ERR_CONFIG, "%s: the next dataset needs a name of 1 to %zu bytes",
                       m->path, sizeof m->dataset - 1);
    PE_TRY(check_complete(m));
    uint32_t element;
    PE_TRY(choose_element(m, config->element, &element));
    return pe_hdf5_next(m, config, element);
}

static peri_status publish(peri_matrix *m)
{
    PE_TRY(m->ops->finish(m));
    PE_TRY(pe_file_sync(&m->file));
    PE_TRY(pe_file_close(&m->file));
    PE_TRY(pe_file_rename(m->host.files, m->temp, m->path));
    *m->temp = 0;
    return pe_file_sync_dir(m->host.files, m->path);
}

peri_status peri_matrix_commit(peri_matrix *m)
{
    PE_TRY(check_writable(m));
    PE_TRY(check_complete(m));
    peri_status status = publish(m);
    m->state = status == PERI_OK ? PE_MATRIX_DONE : PE_MATRIX_POISONED;
    return status;
}
