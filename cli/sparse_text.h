/* Sparse rows from text, a line each, as svmlight and its kin write them:
 *
 *      [ID] TERM:WEIGHT TERM:WEIGHT ...   # what follows is a comment
 *
 * Either every row names its id or none does (then rows are numbered from 0). Empty lines and lines
 * of comment alone are passed over; an id alone is an empty row. */
#ifndef CLI_SPARSE_TEXT_H
#define CLI_SPARSE_TEXT_H

#include "cli.h"

#include <stdio.h>

typedef struct sparse_text {
    const char *path;
    FILE *file;
    uint64_t line;
    int with_ids; /* -1 = not known yet */
    char *text;   /* of the line */
    size_t text_room;
    /* The rows of the last call, in CSR form. */
    peri_sparse_rows rows;
    uint64_t *ids;
    uint64_t *offsets;
    uint32_t *terms;
    float *weights;
    size_t rows_room, entries_room;
} sparse_text;

/* CLI_OK, or CLI_ERROR, said. Close it in either case. "-" is standard input. */
int sparse_text_open(sparse_text *t, const char *path);
/* Read up to `most` rows into t->rows (n = 0 at the end) and t->ids. A line that is none is
 * CLI_ERROR, said with its number. */
int sparse_text_read(sparse_text *t, size_t most);
void sparse_text_close(sparse_text *t);

#endif
