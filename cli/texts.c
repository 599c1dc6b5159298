#define _GNU_SOURCE
#include "texts.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

const char *const texts_format_words[] = {"auto", "lines", "tsv", "jsonl", NULL};

static int ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n > m && strcmp(path + n - m, end) == 0;
}

int texts_open(texts *t)
{
    if (t->format == TEXTS_AUTO)
        t->format = ends_with(t->path, ".jsonl") || ends_with(t->path, ".ndjson") ? TEXTS_JSONL
                    : ends_with(t->path, ".tsv")                                  ? TEXTS_TSV
                                                                                  : TEXTS_LINES;
    t->file = strcmp(t->path, "-") == 0 ? stdin : fopen(t->path, "rb");
    if (!t->file)
        return cli_error("cannot read %s: %s", t->path, strerror(errno));
    return CLI_OK;
}

int texts_keyed(const texts *t)
{
    return t->format != TEXTS_LINES;
}

void texts_close(texts *t)
{
    if (t->file && t->file != stdin)
        fclose(t->file);
    t->file = NULL;
    free(t->buffer);
    free(t->text);
    t->buffer = t->text = NULL;
    t->room = t->text_room = 0;
}

static int wrong(const texts *t, const char *what)
{
    cli_error("%s: line %llu: %s", t->path, (unsigned long long)t->line, what);
    return -1;
}

static int from_tsv(texts *t, size_t n, peri_slice *key, peri_slice *text)
{
    char *tab = memchr(t->buffer, '\t', n);
    if (!tab || tab == t->buffer)
        return wrong(t, "expected a key, a tab and a text");
    *key = (peri_slice){t->buffer, (size_t)(tab - t->buffer)};
    *text = (peri_slice){tab + 1, n - (size_t)(tab + 1 - t->buffer)};
    return 1;
}

/* ---- JSON ---- */

static int add_text(texts *t, size_t *size, const char *text, size_t n)
{
    if (*size + n + 1 > t->text_room) {
        size_t room = (*size + n + 1) * 2;
        char *more = realloc(t->text, room);
        if (!more)
            return wrong(t, "no memory");
        t->text = more;
        t->text_room = room;
    }
    if (*size)
        t->text[(*size)++] = '\n'; /* fields do not run into each other */
    memcpy(t->text + *size, text, n);
    *size += n;
    return 1;
}

static int take_key(texts *t, const json_t *object, peri_slice *key)
{
    const json_t *id = json_object_get(object, "_id");
    if (!id)
        id = json_object_get(object, "id");
    int size = 0;
    if (json_is_string(id))
        size = snprintf(t->key, sizeof t->key, "%s", json_string_value(id));
    else if (json_is_integer(id))
        size = snprintf(t->key, sizeof t->key, "%lld", (long long)json_integer_value(id));
    if (size <= 0 || (size_t)size >= sizeof t->key)
        return wrong(t, "expected a key of 1 to 4,095 bytes in \"_id\" or \"id\"");
    *key = (peri_slice){t->key, (size_t)size};
    return 1;
}

static int take_fields(texts *t, const json_t *object, peri_slice *text)
{
    const char *fields = t->fields ? t->fields : "title,text";
    size_t size = 0, found = 0;
    for (const char *at = fields; *at;) {
        size_t n = strcspn(at, ",");
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        const json_t *value = json_object_get(object, name);
        if (json_is_string(value)) {
            found++;
            if (add_text(t, &size, json_string_value(value), json_string_length(value)) < 0)
                return -1;
        }
        at += n + (at[n] == ',');
    }
    if (!found)
        return wrong(t, "no text in any of the fields");
    *text = (peri_slice){t->text ? t->text : "", size};
    return 1;
}

static int from_json(texts *t, size_t n, peri_slice *key, peri_slice *text)
{
    json_error_t error;
    json_t *object = json_loadb(t->buffer, n, JSON_ALLOW_NUL, &error);
    if (!object)
        return wrong(t, error.text);
    int got = json_is_object(object) ? take_key(t, object, key) : wrong(t, "expected an object");
    if (got == 1)
        got = take_fields(t, object, text);
    json_decref(object);
    return got;
}

int texts_next(texts *t, peri_slice *key, peri_slice *text)
{
    ssize_t n = getline(&t->buffer, &t->room, t->file);
    if (n < 0) {
        if (!ferror(t->file))
            return 0;
        cli_error("%s: %s", t->path, strerror(errno));
        return -1;
    }
    t->line++;
    while (n > 0 && (t->buffer[n - 1] == '\n' || t->buffer[n - 1] == '\r'))
        n--;
    *key = (peri_slice){0};
    if (t->format == TEXTS_TSV)
        return from_tsv(t, (size_t)n, key, text);
    if (t->format == TEXTS_JSONL)
        return from_json(t, (size_t)n, key, text);
    *text = (peri_slice){t->buffer, (size_t)n};
    return 1;
}

/* ---- lists ---- */

static void *copy(peri_slice s)
{
    char *p = malloc(s.size + 1);
    if (p && s.size)
        memcpy(p, s.data, s.size);
    return p;
}

int text_list_add(text_list *l, peri_slice key, peri_slice text)
{
    if (l->n == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        peri_slice *keys = realloc(l->keys, room * sizeof *keys);
        if (keys)
            l->keys = keys;
        peri_slice *more = keys ? realloc(l->texts, room * sizeof *more) : NULL;
        if (!more)
            return cli_error("no memory for %zu texts", room);
        l->texts = more;
        l->room = room;
    }
    peri_slice k = {copy(key), key.size}, t = {copy(text), text.size};
    if (!k.data || !t.data) {
        free((void *)(uintptr_t)k.data);
        free((void *)(uintptr_t)t.data);
        return cli_error("no memory for a text of %zu bytes", text.size);
    }
    l->keys[l->n] = k;
    l->texts[l->n++] = t;
    return CLI_OK;
}

int text_list_read(text_list *l, texts *t)
{
    peri_slice key, text;
    int code = texts_open(t), got = 1;
    while (code == CLI_OK && (got = texts_next(t, &key, &text)) == 1)
        code = text_list_add(l, key, text);
    texts_close(t);
    return got < 0 ? CLI_ERROR : code;
}

void text_list_clear(text_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free((void *)(uintptr_t)l->keys[i].data);
        free((void *)(uintptr_t)l->texts[i].data);
    }
    l->n = 0;
}

void text_list_free(text_list *l)
{
    text_list_clear(l);
    free(l->keys);
    free(l->texts);
}
