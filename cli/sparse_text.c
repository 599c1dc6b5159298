#define _GNU_SOURCE
#include "sparse_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int sparse_text_open(sparse_text *t, const char *path)
{
    memset(t, 0, sizeof *t);
    t->path = path;
    t->with_ids = -1;
    t->file = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    if (!t->file)
        return cli_error("cannot open: %s: %s", path, strerror(errno));
    return CLI_OK;
}

void sparse_text_close(sparse_text *t)
{
    if (t->file && t->file != stdin)
        fclose(t->file);
    free(t->text);
    free(t->ids);
    free(t->offsets);
    free(t->terms);
    free(t->weights);
    memset(t, 0, sizeof *t);
}

static int grow(void *ptr, size_t room, size_t size)
{
    void *old;
    memcpy(&old, ptr, sizeof old);
    void *wide = room <= SIZE_MAX / size ? realloc(old, room * size) : NULL;
    if (!wide)
        return cli_error("out of memory for %zu numbers", room);
    memcpy(ptr, &wide, sizeof wide);
    return CLI_OK;
}

static int room_for(sparse_text *t, size_t rows, size_t entries)
{
    int code = CLI_OK;
    if (rows > t->rows_room) {
        t->rows_room = rows + rows / 2 + 64;
        code = grow(&t->ids, t->rows_room, sizeof *t->ids);
        if (code == CLI_OK)
            code = grow(&t->offsets, t->rows_room + 1, sizeof *t->offsets);
    }
    if (code == CLI_OK && entries > t->entries_room) {
        t->entries_room = entries + entries / 2 + 1024;
        code = grow(&t->terms, t->entries_room, sizeof *t->terms);
        if (code == CLI_OK)
            code = grow(&t->weights, t->entries_room, sizeof *t->weights);
    }
    return code;
}

static int bad_line(const sparse_text *t, const char *word, const char *wanted)
{
    int shown = (int)strcspn(word, " \t\r\n");
    return cli_error("%s: line %llu: '%.*s' is not %s", t->path, (unsigned long long)t->line,
                     shown < 40 ? shown : 40, word, wanted);
}

/* A plain decimal number up to `most`, ended by `end` or white space; NULL if it is none. */
static char *read_count(char *at, uint64_t most, uint64_t *out)
{
    char *end;
    if (*at < '0' || *at > '9')
        return NULL;
    errno = 0;
    unsigned long long x = strtoull(at, &end, 10);
    if (errno || x > most)
        return NULL;
    *out = x;
    return end;
}

static int is_end(char c)
{
    return c == 0 || strchr(" \t\r\n", c) != NULL;
}

static int read_entry(sparse_text *t, char **at, size_t *entries)
{
    uint64_t term;
    char *colon = read_count(*at, UINT32_MAX, &term), *end;
    if (!colon || *colon != ':' || is_end(colon[1]))
        return bad_line(t, *at, "TERM:WEIGHT with a term of 0 to 4294967295");
    float weight = strtof(colon + 1, &end); /* out of range: an infinity, which is refused later */
    if (end == colon + 1 || !is_end(*end))
        return bad_line(t, *at, "TERM:WEIGHT with a number behind the colon");
    int code = room_for(t, t->rows.n + 1, *entries + 1);
    if (code != CLI_OK)
        return code;
    t->terms[*entries] = (uint32_t)term;
    t->weights[(*entries)++] = weight;
    *at = end;
    return CLI_OK;
}

/* One line; *is_row tells whether it is more than white space. */
static int read_line(sparse_text *t, size_t *entries, int *is_row)
{
    char *at = t->text, *end;
    uint64_t id = 0;
    at[strcspn(at, "#\n")] = 0;
    at += strspn(at, " \t\r");
    *is_row = *at != 0;
    if (!*is_row)
        return CLI_OK;
    end = read_count(at, UINT64_MAX, &id);
    int has_id = end && is_end(*end);
    if (!has_id && t->with_ids == 1)
        return bad_line(t, at, "an id, as the rows before have one");
    if (has_id && t->with_ids == 0)
        return bad_line(t, at, "TERM:WEIGHT, and the rows before have no id");
    t->with_ids = has_id;
    int code = room_for(t, t->rows.n + 1, *entries);
    if (has_id)
        at = end;
    for (at += strspn(at, " \t\r"); code == CLI_OK && *at; at += strspn(at, " \t\r"))
        code = read_entry(t, &at, entries);
    if (code == CLI_OK)
        t->ids[t->rows.n] = id;
    return code;
}

int sparse_text_read(sparse_text *t, size_t most)
{
    size_t entries = 0;
    t->rows.n = 0;
    int code = room_for(t, 1, 1);
    while (code == CLI_OK && t->rows.n < most) {
        int is_row;
        errno = 0;
        if (getline(&t->text, &t->text_room, t->file) < 0) {
            if (ferror(t->file))
                code = cli_error("cannot read: %s: %s", t->path, strerror(errno));
            break;
        }
        t->line++;
        size_t first = entries;
        code = read_line(t, &entries, &is_row);
        if (code == CLI_OK && is_row)
            t->offsets[t->rows.n++] = first;
    }
    if (code != CLI_OK)
        return code;
    t->offsets[t->rows.n] = entries;
    t->rows = (peri_sparse_rows){t->rows.n, t->offsets, t->terms, t->weights};
    return CLI_OK;
}
