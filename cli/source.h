/* Rows out of a vector file, read by a child process.
 *
 * A damaged or hostile HDF5 file can crash libhdf5 itself. The child opens the file and sends its
 * rows over a pipe; when it dies, that is an error to report like any other. All formats go this
 * way, so that there is one way. A child that computes for CPU_LIMIT seconds without sending
 * anything is ended; memory beyond MEMORY_LIMIT and four times the file is refused to it. */
#ifndef CLI_SOURCE_H
#define CLI_SOURCE_H

#include "cli.h"

#include <sys/types.h>

typedef enum source_kind {
    SOURCE_VECTORS,
    SOURCE_IDS,
    SOURCE_EITHER, /* ids where the elements are integers of 32 bits and more */
    SOURCE_SHAPE   /* no rows are wanted */
} source_kind;

typedef struct source {
    const char *path; /* the caller's */
    peri_matrix_info info;
    uint64_t left;    /* rows not yet read */
    int ids;          /* rows are ids, not vectors */
    pid_t child;      /* 0 = none */
    int fd;           /* of the pipe */
    uint64_t pending; /* rows that the pipe announced and that were not read yet */
    char error[512];  /* what went wrong */
} source;

/* limit: rows wanted at most, 0 = all. On an error s->error says what; nothing is open then. */
peri_status source_open(source *s, const char *path, source_kind kind, uint64_t limit);
/* The next n rows (no more than s->left): floats, or ids. */
peri_status source_read(source *s, size_t n, void *rows);
void source_close(source *s);

/* Print s->error and return CLI_ERROR. */
int source_failed(const source *s, peri_status status);

/* source_open, where failure is said at once: CLI_OK or CLI_ERROR. */
int source_need(source *s, const char *path, source_kind kind, uint64_t limit);
/* All of a file's rows in memory, for files that are known small: *rows to be freed. */
int source_all(source *s, void **rows);

#endif
