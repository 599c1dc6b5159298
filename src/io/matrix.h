/* One open matrix: what the formats share, and the table that each format fills.
 *
 * Invariants:
 *  M1. Nothing that a file states is used before it was held against the file's size.
 *  M2. row_bytes * rows fits a size_t.
 *  M3. A writer's file stands under a temporary name until commit; close removes it. */
#ifndef PE_MATRIX_H
#define PE_MATRIX_H

#include "base/file.h"
#include "perigee/io.h"

#include <sys/types.h>

enum {
    PE_MATRIX_PATH = 4096,    /* with its final zero */
    PE_MATRIX_NAME = 256,     /* of a dataset, with its final zero */
    PE_MATRIX_BLOCK = 1 << 20 /* bytes converted at a time, or one row if that is more */
};

typedef struct pe_matrix_ops {
    /* Rows within the matrix, packed, in the machine's byte order. `raw` has room for
     * n * (row_bytes + row_head) bytes. */
    peri_status (*read)(peri_matrix *m, uint64_t first_row, size_t n, void *raw);
    /* Rows that follow the info.rows there are. */
    peri_status (*write)(peri_matrix *m, size_t n, const void *raw);
    /* Write what is known only at the end. The file is synced and renamed after that. */
    peri_status (*finish)(peri_matrix *m);
    void (*close)(peri_matrix *m); /* may be NULL */
} pe_matrix_ops;

typedef enum pe_matrix_state {
    PE_MATRIX_READS,
    PE_MATRIX_WRITES,
    PE_MATRIX_POISONED,
    PE_MATRIX_DONE
} pe_matrix_state;

struct peri_matrix {
    pe_host host;
    const pe_matrix_ops *ops;
    peri_matrix_info info;
    pe_file file; /* of HDF5 too: libhdf5 works through it */
    uint64_t file_size;
    pe_matrix_state state;
    pid_t pid;         /* who opened it */
    uint64_t planned;  /* rows that must be written; 0 = any number */
    uint64_t data_at;  /* npy: offset of the first row */
    int swap;          /* npy: elements are big-endian */
    unsigned row_head; /* vecs: bytes before each row */
    size_t row_bytes;
    unsigned char *block; /* block_rows rows with their heads */
    size_t block_rows, block_bytes;
    void *format_state; /* HDF5 */
    char dataset[PE_MATRIX_NAME];
    char path[PE_MATRIX_PATH];
    char temp[PE_MATRIX_PATH]; /* "" when there is none */
};

/* Split "file.hdf5:dataset" into m->path and m->dataset (default_dataset if none is said) and tell
 * the format by the extension: 0 when it says nothing. */
peri_status pe_matrix_locate(peri_matrix *m, const char *path, const char *default_dataset,
                             uint32_t *format);

/* Check and take the shape that a file states (status: whose fault a bad one is), set row_bytes
 * and allocate the block. row_head is set before. */
peri_status pe_matrix_shape(peri_matrix *m, uint64_t rows, uint64_t dim, uint32_t element,
                            peri_status status);

/* Each opens m->file further: the descriptor is open and file_size known. */
peri_status pe_npy_open(peri_matrix *m);
peri_status pe_vecs_open(peri_matrix *m);
peri_status pe_hdf5_open(peri_matrix *m);

/* Each starts a new file in m->file; the shape is taken. */
peri_status pe_npy_create(peri_matrix *m);
peri_status pe_vecs_create(peri_matrix *m);
peri_status pe_hdf5_create(peri_matrix *m, const peri_matrix_config *config);
peri_status pe_hdf5_next(peri_matrix *m, const peri_matrix_config *config, uint32_t element);

#endif
