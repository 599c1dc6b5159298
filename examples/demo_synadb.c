/* A program in SynaDB's calls on a Perigee log: every one of them, and what each says when there is
 * nothing to say. Run as a test with a path to use. */
#include "perigee/compat/synadb.h"

#include <stdio.h>

static int failures;

static void expect(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "demo_synadb: not so: %s\n", what);
        failures++;
    }
}

static void values(const char *db)
{
    double temperature = 0;
    int64_t count = 0;
    size_t size = 0;
    uint16_t dimensions = 0;
    float vector[] = {0.5f, -1, 2}, *back = NULL;
    const uint8_t raw[] = {1, 0, 255};
    expect(SYNA_put_float(db, "temperature", 23.5) > 0, "put_float");
    expect(SYNA_put_int(db, "count", -42) > 0, "put_int");
    expect(SYNA_put_text(db, "name", "sensor 1") > 0, "put_text");
    expect(SYNA_put_bytes(db, "raw", raw, 3) > 0, "put_bytes");
    expect(SYNA_put_vector(db, "embedding", vector, 3) > 0, "put_vector");
    expect(SYNA_get_float(db, "temperature", &temperature) == SYNA_SUCCESS && temperature == 23.5,
           "get_float");
    expect(SYNA_get_int(db, "count", &count) == SYNA_SUCCESS && count == -42, "get_int");
    char *text = SYNA_get_text(db, "name", &size);
    expect(text && size == 8 && strcmp(text, "sensor 1") == 0, "get_text");
    SYNA_free_text(text, size);
    uint8_t *bytes = SYNA_get_bytes(db, "raw", &size);
    expect(bytes && size == 3 && memcmp(bytes, raw, 3) == 0, "get_bytes");
    SYNA_free_bytes(bytes, size);
    expect(SYNA_get_vector(db, "embedding", &back, &dimensions) == SYNA_SUCCESS &&
               dimensions == 3 && memcmp(back, vector, sizeof vector) == 0,
           "get_vector");
    SYNA_free_vector(back, dimensions);
    expect(SYNA_get_int(db, "temperature", &count) == SYNA_ERR_TYPE_MISMATCH, "a wrong type");
    expect(SYNA_get_vector(db, "name", &back, &dimensions) == SYNA_ERR_TYPE_MISMATCH,
           "a text is no vector");
    expect(SYNA_get_text(db, "count", &size) == NULL, "an int is no text");
}

static void history(const char *db)
{
    const double more[] = {24.5, 25, 25.5};
    size_t n = 0;
    expect(SYNA_put_float(db, "temperature", 24) > 0, "put_float");
    expect(SYNA_put_floats_batch(db, "temperature", more, 3) == 3, "put_floats_batch");
    double *tensor = SYNA_get_history_tensor(db, "temperature", &n);
    expect(tensor && n == 5 && tensor[0] == 23.5 && tensor[4] == 25.5, "get_history_tensor");
    SYNA_free_tensor(tensor, n);
    expect(SYNA_get_history_tensor(db, "nothing", &n) == NULL && n == 0, "no history");
}

static void keys(const char *db)
{
    size_t n = 0;
    char **all = SYNA_keys(db, &n);
    expect(all && n == 5 && strcmp(all[0], "count") == 0, "keys");
    SYNA_free_keys(all, n);
    expect(SYNA_exists(db, "count") == 1, "exists");
    expect(SYNA_delete(db, "count") == SYNA_SUCCESS, "delete");
    expect(SYNA_exists(db, "count") == 0, "exists no more");
    expect(SYNA_delete(db, "count") == SYNA_ERR_KEY_NOT_FOUND, "delete again");
    expect(SYNA_compact(db) == SYNA_SUCCESS, "compact");
    double *tensor = SYNA_get_history_tensor(db, "temperature", &n);
    expect(tensor && n == 1 && tensor[0] == 25.5, "what compaction keeps");
    SYNA_free_tensor(tensor, n);
}

int main(int argc, char **argv)
{
    const char *db = argc > 1 ? argv[1] : "synadb-demo.db";
    double v;
    expect(syna_get_float(db, "x", &v) == SYNA_ERR_DB_NOT_FOUND, "not open");
    expect(syna_open(NULL) == SYNA_ERR_INVALID_PATH, "no path");
    if (syna_open(db) != SYNA_SUCCESS) {
        fprintf(stderr, "demo_synadb: %s: %s\n", db, peri_error_detail());
        return 1;
    }
    expect(syna_open(db) == SYNA_SUCCESS, "open twice");
    expect(syna_put_float(db, "", 1) == SYNA_ERR_EMPTY_KEY, "an empty key");
    expect(syna_get_float(db, "never put", &v) == SYNA_ERR_KEY_NOT_FOUND, "a key never put");
    values(db);
    history(db);
    keys(db);
    expect(syna_close(db) == SYNA_SUCCESS, "close");
    expect(syna_close(db) == SYNA_ERR_DB_NOT_FOUND, "close again");
    expect(syna_open(db) == SYNA_SUCCESS && syna_get_float(db, "temperature", &v) == SYNA_SUCCESS &&
               v == 25.5,
           "what was written is there");
    syna_close(db);
    printf("SynaDB's calls: %s\n", failures ? "some do not hold" : "all hold");
    return failures != 0;
}
