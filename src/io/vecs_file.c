/* .fvecs, .bvecs, .ivecs: each row is its dimension as a little-endian i32, then its elements. The
 * format has no magic: what can be told is that the first dimension divides the file into whole
 * records and that each record repeats it. */
#include "io/element.h"
#include "io/matrix.h"

enum { HEAD = 4 };

static uint32_t element_of(uint32_t format)
{
    return format == PERI_FORMAT_FVECS   ? PERI_ELEMENT_F32
           : format == PERI_FORMAT_BVECS ? PERI_ELEMENT_U8
                                         : PERI_ELEMENT_I32;
}

static peri_status vecs_read(peri_matrix *m, uint64_t first_row, size_t n, void *raw)
{
    size_t record = m->row_bytes + HEAD;
    unsigned char *to = raw;
    PE_TRY(pe_file_read(&m->file, raw, n * record, first_row * record));
    for (size_t i = 0; i < n; i++) {
        int32_t dim;
        memcpy(&dim, (unsigned char *)raw + i * record, HEAD);
        if (dim < 0 || (uint32_t)dim != m->info.dim)
            return pe_fail(PERI_ERR_CORRUPT,
                           "%s: dimension %d at offset %llu (row %llu), expected %u", m->path, dim,
                           (unsigned long long)((first_row + i) * record),
                           (unsigned long long)(first_row + i), m->info.dim);
        memmove(to, (unsigned char *)raw + i * record + HEAD, m->row_bytes);
        to += m->row_bytes;
    }
    return PERI_OK;
}

/* A row goes out behind its head: the rows of a block are taken apart into a block of records,
 * last row first, for which the block has the room. */
static peri_status vecs_write(peri_matrix *m, size_t n, const void *raw)
{
    size_t record = m->row_bytes + HEAD;
    unsigned char *block = m->block;
    int32_t dim = (int32_t)m->info.dim;
    for (size_t i = n; i-- > 0;) {
        memmove(block + i * record + HEAD, (const unsigned char *)raw + i * m->row_bytes,
                m->row_bytes);
        memcpy(block + i * record, &dim, HEAD);
    }
    return pe_file_write(&m->file, block, n * record, m->info.rows * record);
}

static peri_status vecs_finish(peri_matrix *m)
{
    (void)m;
    return PERI_OK;
}

static const pe_matrix_ops vecs_ops = {vecs_read, vecs_write, vecs_finish, NULL};

peri_status pe_vecs_open(peri_matrix *m)
{
    int32_t dim;
    uint32_t element = element_of(m->info.format);
    m->ops = &vecs_ops;
    m->row_head = HEAD;
    if (m->file_size < HEAD)
        return pe_fail(PERI_ERR_CORRUPT, "%s: %llu bytes, expected at least one row", m->path,
                       (unsigned long long)m->file_size);
    PE_TRY(pe_file_read(&m->file, &dim, HEAD, 0));
    if (dim < 1)
        return pe_fail(PERI_ERR_FORMAT, "%s: dimension %d at offset 0, expected 1 to %d", m->path,
                       dim, PERI_MATRIX_MAX_DIM);
    uint64_t record = (uint64_t)dim * pe_element_size(element) + HEAD;
    if (record > m->file_size || m->file_size % record)
        return pe_fail(PERI_ERR_CORRUPT,
                       "%s: %llu bytes, expected a multiple of %llu (rows of dimension %d)",
                       m->path, (unsigned long long)m->file_size, (unsigned long long)record, dim);
    return pe_matrix_shape(m, m->file_size / record, (uint64_t)dim, element, PERI_ERR_FORMAT);
}

peri_status pe_vecs_create(peri_matrix *m)
{
    m->ops = &vecs_ops;
    return PERI_OK;
}
