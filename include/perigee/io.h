/** @file io.h
 *  Matrices in files, one row a vector: HDF5 in the layout of ann-benchmarks, `.npy`, `.fvecs`,
 *  `.bvecs`, `.ivecs`. Rows are streamed, so that a file may be larger than memory.
 *
 *  A path names a file; for HDF5 a dataset may follow its extension after a colon:
 *  "sift.hdf5:test". The format comes from the extension (.hdf5 .h5 .hdf .npy .fvecs .bvecs
 *  .ivecs), or from the first bytes where the extension says nothing (HDF5 and npy only).
 *
 *  Values: read gives f32, read_ids gives 64-bit ids. What a type cannot hold is refused, never
 *  bent: an integer that f32 cannot hold exactly, an f64 beyond the range of f32, an id below
 *  zero, a fraction written as an integer. Rounding f64 to f32 and f32 to f16 is what those types
 *  are for, and is done (to nearest even). NaN and infinity pass; an index refuses them.
 *
 *  Threads: one thread at a time per handle. libhdf5 is called under one lock of the process.
 *
 *  Caveats: libhdf5 allocates memory by itself, so that the allocator of peri_env sees only part
 *  of what an HDF5 file costs. libhdf5 is not proof against hostile files: it may crash on one.
 * Open files from strangers in a process of their own, as the `perigee` command does. A dataset
 * that points into other files (external links and storage, virtual datasets) is refused.
 */
#ifndef PERI_IO_H
#define PERI_IO_H

#include "perigee/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peri_matrix peri_matrix;

enum {
    PERI_FORMAT_HDF5 = 1,
    PERI_FORMAT_NPY = 2,
    PERI_FORMAT_FVECS = 3, /* rows of f32, each after its dimension as an i32 */
    PERI_FORMAT_BVECS = 4, /* the same, u8 */
    PERI_FORMAT_IVECS = 5  /* the same, i32 */
};

enum {
    PERI_ELEMENT_F16 = 1,
    PERI_ELEMENT_F32 = 2,
    PERI_ELEMENT_F64 = 3,
    PERI_ELEMENT_I8 = 4,
    PERI_ELEMENT_U8 = 5,
    PERI_ELEMENT_I16 = 6,
    PERI_ELEMENT_U16 = 7,
    PERI_ELEMENT_I32 = 8,
    PERI_ELEMENT_U32 = 9,
    PERI_ELEMENT_I64 = 10,
    PERI_ELEMENT_U64 = 11
};

enum { PERI_MATRIX_MAX_DIM = 1048576 };

/** What -1 in a file of signed integers is read as, and written from: no neighbour here. */
#define PERI_NO_ID UINT64_MAX

typedef struct peri_matrix_info {
    uint32_t struct_size;
    uint32_t dim;      /* columns; a list of one dimension is a matrix of one column */
    uint64_t rows;     /* written so far, for a matrix being written */
    uint16_t format;   /* PERI_FORMAT_* */
    uint16_t element;  /* PERI_ELEMENT_* in the file */
    uint32_t integer;  /* 1 = read_ids can be asked for */
    char distance[32]; /* HDF5: the file's attribute `distance`, else "" */
} peri_matrix_info;

static inline void peri_matrix_info_init(peri_matrix_info *i)
{
    memset(i, 0, sizeof *i);
    i->struct_size = (uint32_t)sizeof *i;
}

/** "f32" for PERI_ELEMENT_F32 and so on; "" for any other number. Since 0.1. */
PERI_API const char *peri_matrix_element_name(uint32_t element);
/** "hdf5" for PERI_FORMAT_HDF5 and so on; "" for any other number. Since 0.1. */
PERI_API const char *peri_matrix_format_name(uint32_t format);

/** Open a matrix for reading; the default dataset of HDF5 is "train". Sizes that the file states
 *  are held against the size of the file before anything is allocated.
 *  Errors: ERR_NOT_FOUND (file or dataset), ERR_FORMAT (not such a file, not a regular file),
 *  ERR_UNSUPPORTED (an element type or layout that is not read), ERR_CORRUPT (truncated, sizes
 *  that contradict), ERR_IO, ERR_NOMEM. The detail names file and offset. Since 0.1. */
PERI_API peri_status peri_matrix_open(peri_matrix **out, const char *path, const peri_env *env);

/** Fill *info; struct_size must be set (peri_matrix_info_init). */
PERI_API peri_status peri_matrix_get_info(const peri_matrix *m, peri_matrix_info *info);

/** Rows [first_row, first_row + n) as n x dim floats.
 *  Errors: ERR_ARG (beyond the last row), ERR_FORMAT (a value that f32 cannot hold), ERR_CORRUPT,
 *  ERR_IO, ERR_STATE (the handle writes). On an error the content of `out` does not count. */
PERI_API peri_status peri_matrix_read(peri_matrix *m, uint64_t first_row, size_t n, float *out);

/** The same as n x dim ids; PERI_NO_ID where the file has -1.
 *  Errors: as read; ERR_FORMAT also when the elements are no integers, or one is below -1. */
PERI_API peri_status peri_matrix_read_ids(peri_matrix *m, uint64_t first_row, size_t n,
                                          uint64_t *out);

typedef struct peri_matrix_attribute {
    const char *name;
    const char *value;
} peri_matrix_attribute;

typedef struct peri_matrix_config {
    uint32_t struct_size;
    uint32_t dim;         /* 1..PERI_MATRIX_MAX_DIM; there is no default */
    uint16_t format;      /* PERI_FORMAT_*; 0 = by the extension of the path */
    uint16_t element;     /* PERI_ELEMENT_*; 0 = what the format has, f32 for HDF5 and npy */
    uint16_t deflate;     /* HDF5: compression, 1..9; 0 = none */
    uint16_t reserved;    /* */
    uint64_t rows;        /* HDF5: exactly so many will be written; 0 = not known */
    const char *dataset;  /* HDF5; NULL = after the colon of the path, else "train" */
    const char *distance; /* HDF5: attribute `distance` of the file; NULL = none */
    /* HDF5: further attributes of the file, as text. */
    const peri_matrix_attribute *attributes;
    size_t n_attributes;
} peri_matrix_config;

static inline void peri_matrix_config_init(peri_matrix_config *c, uint32_t dim)
{
    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
    c->dim = dim;
}

/** Start a new file beside `path`; nothing stands under that name until commit.
 *  Errors: ERR_CONFIG, ERR_DIMENSION, ERR_NOT_FOUND (the directory), ERR_IO, ERR_NOMEM.
 *  Since 0.1. */
PERI_API peri_status peri_matrix_create(peri_matrix **out, const char *path,
                                        const peri_matrix_config *config, const peri_env *env);

/** Append n rows (n x dim).
 *  Errors: ERR_ARG (a value that the element type cannot hold: names row and column), ERR_FULL
 *  (more than config.rows), ERR_IO, ERR_STATE (the handle reads), ERR_FORKED. After ERR_IO the
 *  handle is poisoned: only close is left. */
PERI_API peri_status peri_matrix_write(peri_matrix *m, size_t n, const float *rows);
PERI_API peri_status peri_matrix_write_ids(peri_matrix *m, size_t n, const uint64_t *ids);

/** HDF5: end the dataset and start another in the same file; config.format, distance and
 *  attributes are of no account here.
 *  Errors: ERR_UNSUPPORTED (another format), ERR_EXISTS (that name is taken), else as create. */
PERI_API peri_status peri_matrix_next(peri_matrix *m, const peri_matrix_config *config);

/** Make the file durable and give it its name, replacing a former file: fsync, rename, fsync of the
 *  directory. Only close may follow.
 *  Errors: ERR_STATE (fewer rows than config.rows; no row at all, which fvecs, bvecs and ivecs
 *  cannot say), ERR_IO, ERR_POISONED, ERR_FORKED. */
PERI_API peri_status peri_matrix_commit(peri_matrix *m);

/** NULL is fine. A file that was not committed vanishes. */
PERI_API void peri_matrix_close(peri_matrix *m);

#ifdef __cplusplus
}
#endif
#endif
