/* Texts from a file: documents or queries, one a line.
 *
 *   .jsonl .ndjson   an object a line: its key in "_id" or "id", its text in "title" and "text"
 *   .tsv             key, tab, text; further tabs belong to the text
 *   anything else    a text a line; no keys
 *
 * "-" is standard input. */
#ifndef CLI_TEXTS_H
#define CLI_TEXTS_H

#include "cli.h"

#include <stdio.h>

typedef enum texts_format { TEXTS_AUTO, TEXTS_LINES, TEXTS_TSV, TEXTS_JSONL } texts_format;
extern const char *const texts_format_words[];

typedef struct texts {
    const char *path;
    texts_format format;
    const char *fields; /* JSON: names of the text's fields, with commas; NULL = title,text */
    FILE *file;
    uint64_t line; /* read so far */
    char *buffer;
    size_t room;
    char *text; /* JSON: the fields put together */
    size_t text_room;
    char key[4096];
} texts;

/* path, format and fields are set. CLI_OK, or CLI_ERROR, said. */
int texts_open(texts *t);
int texts_keyed(const texts *t);
/* The next one; valid until the next call. 1, 0 at the end, -1 on an error, said. */
int texts_next(texts *t, peri_slice *key, peri_slice *text);
void texts_close(texts *t);

/* All of a file at once, for queries: owned by the list. */
typedef struct text_list {
    size_t n, room;
    peri_slice *keys, *texts;
} text_list;

int text_list_add(text_list *l, peri_slice key, peri_slice text);
int text_list_read(text_list *l, texts *t); /* opens, reads, closes */
void text_list_clear(text_list *l);         /* keeps the room */
void text_list_free(text_list *l);

#endif
