/** @file compat/synadb.h
 *  SynaDB's C calls on peri_log, so that a program written for them compiles with this line changed
 *  and links with perigee. Header only; nothing of it is in the library.
 *
 *  What differs: a database is a directory, its files are Perigee's; keys may hold any text;
 *  writes are durable when they return (open with syna_open_with_durability for less); a put
 * returns the sequence of the write where SynaDB returned an offset: positive on success in both.
 *
 *  Databases are named by path in a registry of the process. Calls on one database from several
 *  threads are fine; open and close of a path wait for nobody: let no other call on it run. */
#ifndef PERI_COMPAT_SYNADB_H
#define PERI_COMPAT_SYNADB_H

#include "perigee/log.h"

#include <pthread.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SYNA_SUCCESS            1
#define SYNA_ERR_GENERIC        0
#define SYNA_ERR_DB_NOT_FOUND   (-1)
#define SYNA_ERR_INVALID_PATH   (-2)
#define SYNA_ERR_IO             (-3)
#define SYNA_ERR_SERIALIZATION  (-4)
#define SYNA_ERR_KEY_NOT_FOUND  (-5)
#define SYNA_ERR_TYPE_MISMATCH  (-6)
#define SYNA_ERR_EMPTY_KEY      (-7)
#define SYNA_ERR_KEY_TOO_LONG   (-8)
#define SYNA_ERR_INTERNAL_PANIC (-100)

typedef struct syna_database {
    struct syna_database *next;
    peri_log *log;
    char path[1];
} syna_database;

typedef struct syna_registry {
    pthread_mutex_t lock;
    syna_database *first;
} syna_registry;

/* Weak: one for the process, however many sources include this. */
__attribute__((weak)) syna_registry syna_the_registry = {PTHREAD_MUTEX_INITIALIZER, NULL};

static inline int32_t syna_code(peri_status status)
{
    switch (status) {
    case PERI_OK:
        return SYNA_SUCCESS;
    case PERI_ERR_NOT_FOUND:
        return SYNA_ERR_KEY_NOT_FOUND;
    case PERI_ERR_STATE:
        return SYNA_ERR_TYPE_MISMATCH;
    case PERI_ERR_IO:
    case PERI_ERR_POISONED:
    case PERI_ERR_BUSY:
        return SYNA_ERR_IO;
    case PERI_ERR_CORRUPT:
    case PERI_ERR_FORMAT:
    case PERI_ERR_VERSION:
        return SYNA_ERR_SERIALIZATION;
    default:
        return SYNA_ERR_GENERIC;
    }
}

static inline peri_log *syna_find(const char *path)
{
    peri_log *log = NULL;
    if (!path)
        return NULL;
    pthread_mutex_lock(&syna_the_registry.lock);
    for (syna_database *d = syna_the_registry.first; d && !log; d = d->next)
        if (strcmp(d->path, path) == 0)
            log = d->log;
    pthread_mutex_unlock(&syna_the_registry.lock);
    return log;
}

/* The log of a path and a key that can be one; else the code to return. */
static inline int32_t syna_ready(const char *path, const char *key, peri_log **log)
{
    if (!path || !key)
        return SYNA_ERR_INVALID_PATH;
    if (!*key)
        return SYNA_ERR_EMPTY_KEY;
    if (strlen(key) > PERI_LOG_KEY_MAX)
        return SYNA_ERR_KEY_TOO_LONG;
    *log = syna_find(path);
    return *log ? SYNA_SUCCESS : SYNA_ERR_DB_NOT_FOUND;
}

/** PERI_DURABLE_*; opening one that is open is no error. */
static inline int32_t syna_open_with_durability(const char *path, uint32_t durability)
{
    peri_log_config config;
    peri_log *log;
    if (!path || !*path)
        return SYNA_ERR_INVALID_PATH;
    if (syna_find(path))
        return SYNA_SUCCESS;
    syna_database *d = (syna_database *)malloc(sizeof *d + strlen(path));
    if (!d)
        return SYNA_ERR_GENERIC;
    peri_log_config_init(&config);
    config.durability = durability;
    config.flags = PERI_LOG_SERIES;
    peri_status status = peri_log_open(&log, path, &config, NULL);
    if (status != PERI_OK) {
        free(d);
        return status == PERI_ERR_NOT_FOUND || status == PERI_ERR_ARG ? SYNA_ERR_INVALID_PATH
                                                                      : syna_code(status);
    }
    memcpy(d->path, path, strlen(path) + 1);
    d->log = log;
    pthread_mutex_lock(&syna_the_registry.lock);
    d->next = syna_the_registry.first;
    syna_the_registry.first = d;
    pthread_mutex_unlock(&syna_the_registry.lock);
    return SYNA_SUCCESS;
}

static inline int32_t syna_open(const char *path)
{
    return syna_open_with_durability(path, PERI_DURABLE_COMMIT);
}

static inline int32_t syna_close(const char *path)
{
    syna_database *found = NULL;
    if (!path)
        return SYNA_ERR_INVALID_PATH;
    pthread_mutex_lock(&syna_the_registry.lock);
    for (syna_database **d = &syna_the_registry.first; *d && !found; d = &(*d)->next)
        if (strcmp((*d)->path, path) == 0) {
            found = *d;
            *d = found->next;
            break;
        }
    pthread_mutex_unlock(&syna_the_registry.lock);
    if (!found)
        return SYNA_ERR_DB_NOT_FOUND;
    peri_log_close(found->log);
    free(found);
    return SYNA_SUCCESS;
}

/* ---- writes: the sequence of the write, or a code of 0 or less ---- */

static inline int64_t syna_put(const char *path, const char *key, const peri_atom *value)
{
    peri_log *log;
    uint64_t sequence = 0;
    int32_t code = syna_ready(path, key, &log);
    if (code != SYNA_SUCCESS)
        return code;
    peri_status status = peri_log_put(log, peri_cstr(key), value, &sequence);
    return status == PERI_OK ? (int64_t)sequence : syna_code(status);
}

static inline int64_t syna_put_float(const char *path, const char *key, double value)
{
    peri_atom a;
    memset(&a, 0, sizeof a);
    a.type = PERI_ATOM_FLOAT;
    a.number = value;
    return syna_put(path, key, &a);
}

static inline int64_t syna_put_int(const char *path, const char *key, int64_t value)
{
    peri_atom a;
    memset(&a, 0, sizeof a);
    a.type = PERI_ATOM_INT;
    a.integer = value;
    return syna_put(path, key, &a);
}

static inline int64_t syna_put_data(const char *path, const char *key, uint32_t type,
                                    const void *data, size_t size)
{
    peri_atom a;
    if (size && !data)
        return SYNA_ERR_INVALID_PATH;
    memset(&a, 0, sizeof a);
    a.type = type;
    a.data = data;
    a.size = size;
    return syna_put(path, key, &a);
}

static inline int64_t syna_put_text(const char *path, const char *key, const char *value)
{
    return value ? syna_put_data(path, key, PERI_ATOM_TEXT, value, strlen(value))
                 : SYNA_ERR_INVALID_PATH;
}

static inline int64_t syna_put_bytes(const char *path, const char *key, const uint8_t *data,
                                     size_t len)
{
    return syna_put_data(path, key, PERI_ATOM_BYTES, data, len);
}

static inline int64_t syna_put_vector(const char *path, const char *key, const float *data,
                                      uint16_t dimensions)
{
    return syna_put_data(path, key, PERI_ATOM_VECTOR, data, (size_t)dimensions * 4);
}

/** `count` values of one key, at once; returns how many. */
static inline int64_t syna_put_floats_batch(const char *path, const char *key, const double *values,
                                            size_t count)
{
    peri_log *log;
    peri_log_batch *batch;
    int32_t code = syna_ready(path, key, &log);
    if (code != SYNA_SUCCESS)
        return code;
    if (count && !values)
        return SYNA_ERR_INVALID_PATH;
    peri_status status = peri_log_batch_create(&batch, log);
    for (size_t i = 0; status == PERI_OK && i < count; i++) {
        peri_atom a;
        memset(&a, 0, sizeof a);
        a.type = PERI_ATOM_FLOAT;
        a.number = values[i];
        status = peri_log_batch_put(batch, peri_cstr(key), &a);
    }
    if (status == PERI_OK)
        status = peri_log_batch_commit(batch, 0, NULL);
    peri_log_batch_close(batch);
    return status == PERI_OK ? (int64_t)count : syna_code(status);
}

/* ---- reads ---- */

static inline int32_t syna_get_float(const char *path, const char *key, double *out)
{
    peri_log *log;
    int32_t code = syna_ready(path, key, &log);
    return code != SYNA_SUCCESS ? code
           : out                ? syna_code(peri_log_get_float(log, peri_cstr(key), out))
                                : SYNA_ERR_INVALID_PATH;
}

static inline int32_t syna_get_int(const char *path, const char *key, int64_t *out)
{
    peri_log *log;
    int32_t code = syna_ready(path, key, &log);
    return code != SYNA_SUCCESS ? code
           : out                ? syna_code(peri_log_get_int(log, peri_cstr(key), out))
                                : SYNA_ERR_INVALID_PATH;
}

/* A copy of a value of one type with a NUL behind it, from malloc; NULL where there is none. */
static inline void *syna_get_data(const char *path, const char *key, uint32_t type, size_t *size)
{
    peri_log *log;
    peri_atom a;
    peri_buf buf;
    char *copy = NULL;
    if (size)
        *size = 0;
    if (!size || syna_ready(path, key, &log) != SYNA_SUCCESS)
        return NULL;
    memset(&buf, 0, sizeof buf);
    if (peri_log_get(log, peri_cstr(key), 0, &a, &buf) == PERI_OK && a.type == type)
        copy = (char *)malloc(a.size + 1);
    if (copy) {
        if (a.size)
            memcpy(copy, a.data, a.size);
        copy[a.size] = 0;
        *size = a.size;
    }
    peri_buf_free(&buf);
    return copy;
}

static inline char *syna_get_text(const char *path, const char *key, size_t *out_len)
{
    return (char *)syna_get_data(path, key, PERI_ATOM_TEXT, out_len);
}

static inline void syna_free_text(char *text, size_t len)
{
    (void)len;
    free(text);
}

static inline uint8_t *syna_get_bytes(const char *path, const char *key, size_t *out_len)
{
    return (uint8_t *)syna_get_data(path, key, PERI_ATOM_BYTES, out_len);
}

static inline void syna_free_bytes(uint8_t *bytes, size_t len)
{
    (void)len;
    free(bytes);
}

static inline int32_t syna_get_vector(const char *path, const char *key, float **out_data,
                                      uint16_t *out_dimensions)
{
    peri_log *log;
    size_t size;
    int32_t code = syna_ready(path, key, &log);
    if (code != SYNA_SUCCESS)
        return code;
    if (!out_data || !out_dimensions)
        return SYNA_ERR_INVALID_PATH;
    *out_data = (float *)syna_get_data(path, key, PERI_ATOM_VECTOR, &size);
    if (!*out_data) {
        int exists = 0;
        peri_status status = peri_log_exists(log, peri_cstr(key), 0, &exists);
        return status != PERI_OK ? syna_code(status)
               : exists          ? SYNA_ERR_TYPE_MISMATCH
                                 : SYNA_ERR_KEY_NOT_FOUND;
    }
    *out_dimensions = (uint16_t)(size / 4);
    return SYNA_SUCCESS;
}

static inline void syna_free_vector(float *data, uint16_t dimensions)
{
    (void)dimensions;
    free(data);
}

/** All numbers in a key's history, oldest first. */
static inline double *syna_get_history_tensor(const char *path, const char *key, size_t *out_len)
{
    peri_log *log;
    peri_buf values;
    size_t n;
    if (out_len)
        *out_len = 0;
    if (!out_len || syna_ready(path, key, &log) != SYNA_SUCCESS)
        return NULL;
    memset(&values, 0, sizeof values);
    if (peri_log_series(log, peri_cstr(key), NULL, &values, NULL, &n) != PERI_OK || n == 0) {
        peri_buf_free(&values);
        return NULL;
    }
    double *copy = (double *)malloc(n * sizeof *copy);
    if (copy) {
        memcpy(copy, values.data, n * sizeof *copy);
        *out_len = n;
    }
    peri_buf_free(&values);
    return copy;
}

static inline void syna_free_tensor(double *data, size_t len)
{
    (void)len;
    free(data);
}

/* ---- keys ---- */

static inline int32_t syna_delete(const char *path, const char *key)
{
    peri_log *log;
    int32_t code = syna_ready(path, key, &log);
    return code != SYNA_SUCCESS ? code : syna_code(peri_log_delete(log, peri_cstr(key)));
}

/** 1 = it does, 0 = it does not. */
static inline int32_t syna_exists(const char *path, const char *key)
{
    peri_log *log;
    int exists = 0;
    int32_t code = syna_ready(path, key, &log);
    if (code != SYNA_SUCCESS)
        return code;
    peri_status status = peri_log_exists(log, peri_cstr(key), 0, &exists);
    return status == PERI_OK ? exists : syna_code(status);
}

typedef struct syna_key_list {
    char **keys;
    size_t n, room;
    int failed;
} syna_key_list;

static inline int syna_take_key(void *ctx, peri_slice key, const peri_atom *value)
{
    syna_key_list *l = (syna_key_list *)ctx;
    (void)value;
    if (l->n == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        char **more = (char **)realloc(l->keys, room * sizeof *more);
        l->failed = !more;
        if (!more)
            return 1;
        l->keys = more;
        l->room = room;
    }
    char *copy = (char *)malloc(key.size + 1);
    l->failed = !copy;
    if (!copy)
        return 1;
    memcpy(copy, key.data, key.size);
    copy[key.size] = 0;
    l->keys[l->n++] = copy;
    return 0;
}

static inline void syna_free_keys(char **keys, size_t len)
{
    for (size_t i = 0; keys && i < len; i++)
        free(keys[i]);
    free(keys);
}

/** All live keys in order. */
static inline char **syna_keys(const char *path, size_t *out_len)
{
    peri_log *log = syna_find(path);
    syna_key_list l;
    memset(&l, 0, sizeof l);
    if (out_len)
        *out_len = 0;
    if (!log || !out_len)
        return NULL;
    if (peri_log_keys(log, NULL, syna_take_key, &l) != PERI_OK || l.failed) {
        syna_free_keys(l.keys, l.n);
        return NULL;
    }
    *out_len = l.n;
    return l.keys;
}

/** Keeps the latest value of each key. */
static inline int32_t syna_compact(const char *path)
{
    peri_log *log = syna_find(path);
    peri_log_retention keep;
    if (!log)
        return path ? SYNA_ERR_DB_NOT_FOUND : SYNA_ERR_INVALID_PATH;
    peri_log_retention_init(&keep);
    keep.keep = 1;
    return syna_code(peri_log_compact(log, &keep, NULL));
}

/* The same names in capitals, as some of SynaDB's documents write them. */
#define SYNA_open               syna_open
#define SYNA_close              syna_close
#define SYNA_put_float          syna_put_float
#define SYNA_put_int            syna_put_int
#define SYNA_put_text           syna_put_text
#define SYNA_put_bytes          syna_put_bytes
#define SYNA_put_vector         syna_put_vector
#define SYNA_put_floats_batch   syna_put_floats_batch
#define SYNA_get_float          syna_get_float
#define SYNA_get_int            syna_get_int
#define SYNA_get_text           syna_get_text
#define SYNA_get_bytes          syna_get_bytes
#define SYNA_get_vector         syna_get_vector
#define SYNA_get_history_tensor syna_get_history_tensor
#define SYNA_free_text          syna_free_text
#define SYNA_free_bytes         syna_free_bytes
#define SYNA_free_vector        syna_free_vector
#define SYNA_free_tensor        syna_free_tensor
#define SYNA_delete             syna_delete
#define SYNA_exists             syna_exists
#define SYNA_keys               syna_keys
#define SYNA_free_keys          syna_free_keys
#define SYNA_compact            syna_compact

#ifdef __cplusplus
}
#endif
#endif
