#define _GNU_SOURCE
#include "table.h"
#include "cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void table_begin(table *t, size_t columns, const char *const *heads)
{
    memset(t, 0, sizeof *t);
    t->columns = columns;
    for (size_t c = 0; c < columns; c++) {
        t->right[c] = heads[c][0] == '>';
        t->head[c] = heads[c] + t->right[c];
    }
}

static void add(table *t, char *cell)
{
    if (t->rows == t->room) {
        size_t room = t->room ? t->room * 2 : 64;
        char **more = realloc(t->cells, room * sizeof *more);
        if (!more) {
            t->failed = 1;
            free(cell);
            return;
        }
        t->cells = more;
        t->room = room;
    }
    t->failed |= !cell;
    t->cells[t->rows++] = cell;
}

void table_put_bytes(table *t, const void *data, size_t size)
{
    const unsigned char *b = data;
    size_t shown = size > TABLE_WIDTH ? TABLE_WIDTH - 3 : size;
    char *cell = malloc(shown + 4);
    for (size_t i = 0; cell && i < shown; i++)
        cell[i] = b[i] < 0x20 || b[i] == 0x7f ? '?' : (char)b[i];
    if (cell)
        strcpy(cell + shown, shown < size ? "..." : "");
    add(t, cell);
}

void table_put(table *t, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    table_put_bytes(t, text, strlen(text));
}

/* Columns on the terminal: bytes that begin a character of UTF-8. */
static size_t width_of(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void print_cell(const char *s, size_t width, int right, int last)
{
    size_t gap = width - width_of(s);
    if (right)
        printf("%*s%s", (int)gap, "", s);
    else
        printf("%s%*s", s, last ? 0 : (int)gap, "");
    fputs(last ? "\n" : "  ", stdout);
}

int table_end(table *t)
{
    size_t width[TABLE_COLUMNS];
    for (size_t c = 0; c < t->columns; c++) {
        width[c] = width_of(t->head[c]);
        for (size_t i = c; i < t->rows && !t->failed; i += t->columns)
            if (width_of(t->cells[i]) > width[c])
                width[c] = width_of(t->cells[i]);
    }
    for (size_t c = 0; c < t->columns && !t->failed; c++)
        print_cell(t->head[c], width[c], t->right[c], c + 1 == t->columns);
    for (size_t i = 0; i < t->rows && !t->failed; i++)
        print_cell(t->cells[i], width[i % t->columns], t->right[i % t->columns],
                   i % t->columns + 1 == t->columns);
    for (size_t i = 0; i < t->rows; i++)
        free(t->cells[i]);
    free(t->cells);
    return t->failed ? cli_error("out of memory") : CLI_OK;
}

void table_time(long long us, char out[32])
{
    time_t seconds = (time_t)(us / 1000000);
    struct tm tm;
    if (us == 0 || !gmtime_r(&seconds, &tm) || strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        strcpy(out, "-");
}
