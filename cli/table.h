/* A table for people: columns as wide as what stands in them, numbers to the right. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stddef.h>

enum { TABLE_COLUMNS = 16, TABLE_WIDTH = 48 };

typedef struct table {
    size_t columns, rows, room;
    const char *head[TABLE_COLUMNS];
    int right[TABLE_COLUMNS];
    char **cells;
    int failed; /* memory ran out */
} table;

/* Heads that begin with '>' stand to the right. */
void table_begin(table *t, size_t columns, const char *const *heads);
/* Add a cell, row by row. What cannot be printed is shown as '?', what is too long cut with dots.
 */
void table_put(table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_put_bytes(table *t, const void *data, size_t size);
/* Print it and free it. CLI_OK, or CLI_ERROR, said. */
int table_end(table *t);

/* Microseconds since 1970 as "2026-11-20 13:05:09". */
void table_time(long long us, char out[32]);

#endif
