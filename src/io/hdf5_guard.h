/* libhdf5 behind one lock, silent, with its reasons brought over into the error detail.
 *
 * libhdf5 as distributions build it must not be entered by two threads. The lock is a word that
 * holds the process that is inside, not a mutex: a child of fork may inherit it taken by a thread
 * that it does not have, and must be told instead of waiting for ever. */
#ifndef PE_HDF5_GUARD_H
#define PE_HDF5_GUARD_H

#include "io/matrix.h"

#include <hdf5.h>

/* What a matrix holds of libhdf5; -1 = not open. */
typedef struct pe_hdf5 {
    hid_t driver, file, set, type; /* type: of elements in memory */
    peri_status failed;            /* the first call on the file that failed; see hdf5_driver.c */
    char detail[PE_DETAIL_SIZE];
    int rank;        /* 1 or 2 */
    uint64_t extent; /* rows that the dataset being written has room for */
} pe_hdf5;

/* The host program's own error handler, put aside while we are inside. */
typedef struct pe_hdf5_guard {
    H5E_auto2_t handler;
    void *handler_data;
} pe_hdf5_guard;

/* Errors: ERR_FORKED (the lock was taken when this process was forked), ERR_INTERNAL. */
peri_status pe_hdf5_enter(pe_hdf5_guard *g, const char *path);
void pe_hdf5_leave(pe_hdf5_guard *g);

/* How a stretch inside the guard ended: a call on the file that failed outweighs what libhdf5 made
 * of it. */
peri_status pe_hdf5_outcome(const pe_hdf5 *h, peri_status status);

/* Record what was tried and libhdf5's innermost reason. Inside the guard. */
peri_status pe_hdf5_fail(peri_status status, const peri_matrix *m, const char *what);

/* A property list for opening and creating m's file through m->file; all that is open within the
 * file closes with it. Registers h->driver. -1 on failure. */
hid_t pe_hdf5_file_access(peri_matrix *m);

/* The type of an element in memory: -1 on failure; to be closed. */
hid_t pe_hdf5_memory_type(uint32_t element);

/* Close what is open. Inside the guard. */
void pe_hdf5_release(pe_hdf5 *h);
/* The close of pe_matrix_ops: releases and frees m->format_state. */
void pe_hdf5_close(peri_matrix *m);
peri_status pe_hdf5_attach(peri_matrix *m); /* allocate m->format_state, all closed */

#endif
