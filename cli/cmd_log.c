#include "actions.h"
#include "json.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

static int as_json;
static uint64_t limit, as_of, keep;
static const char *type_word;

static const char *const types[] = {"null", "float", "int", "text", "bytes", "vector", "deleted"};

static int failed(const char *what, peri_status status)
{
    return cli_failed(what, status, NULL);
}

/* ---- values as text ---- */

static void put_value(table *t, const peri_atom *a)
{
    char text[128] = "";
    size_t at = 0;
    switch (a->type) {
    case PERI_ATOM_FLOAT:
        table_put(t, "%.17g", a->number);
        return;
    case PERI_ATOM_INT:
        table_put(t, "%lld", (long long)a->integer);
        return;
    case PERI_ATOM_TEXT:
        table_put_bytes(t, a->data, a->size);
        return;
    case PERI_ATOM_BYTES:
        table_put(t, "%zu bytes", a->size);
        return;
    case PERI_ATOM_VECTOR:
        for (size_t i = 0; i < a->size / 4 && i < 4; i++) {
            float f;
            memcpy(&f, (const char *)a->data + 4 * i, 4);
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%g", i ? " " : "", (double)f);
        }
        table_put(t, "[%s%s] %zu", text, a->size > 16 ? " ..." : "", a->size / 4);
        return;
    default:
        table_put(t, "-");
    }
}

static void json_value(json *j, const peri_atom *a)
{
    json_text(j, "type", types[a->type]);
    json_count(j, "sequence", a->sequence);
    if (a->type == PERI_ATOM_FLOAT)
        json_real(j, "value", a->number, 17);
    else if (a->type == PERI_ATOM_INT) {
        char text[32];
        snprintf(text, sizeof text, "%lld", (long long)a->integer);
        json_text(j, "value", text);
    } else if (a->type == PERI_ATOM_TEXT || a->type == PERI_ATOM_BYTES) {
        json_bytes(j, "value", "value_hex", a->data, a->size);
    } else if (a->type == PERI_ATOM_VECTOR) {
        json_open(j, "value", '[');
        for (size_t i = 0; i < a->size / 4; i++) {
            float f;
            memcpy(&f, (const char *)a->data + 4 * i, 4);
            json_real(j, NULL, (double)f, 9);
        }
        json_close(j, ']');
    }
}

/* ---- listings ---- */

typedef struct listing {
    table t;
    json j;
} listing;

static int add_version(void *ctx, const peri_atom *a)
{
    listing *l = ctx;
    char time[32];
    table_time(a->time, time);
    if (as_json) {
        json_open(&l->j, NULL, '{');
        json_text(&l->j, "time", time);
        json_value(&l->j, a);
        json_close(&l->j, '}');
        json_end(&l->j);
        return 0;
    }
    table_put(&l->t, "%llu", (unsigned long long)a->sequence);
    table_put(&l->t, "%s", time);
    table_put(&l->t, "%s", types[a->type]);
    put_value(&l->t, a);
    return 0;
}

static int add_key(void *ctx, peri_slice key, const peri_atom *a)
{
    listing *l = ctx;
    if (as_json) {
        json_open(&l->j, NULL, '{');
        json_bytes(&l->j, "key", "key_hex", key.data, key.size);
        json_value(&l->j, a);
        json_close(&l->j, '}');
        json_end(&l->j);
        return 0;
    }
    table_put_bytes(&l->t, key.data, key.size);
    table_put(&l->t, "%s", types[a->type]);
    put_value(&l->t, a);
    return 0;
}

static int run_keys(peri_log *log, const char **operands, int n)
{
    static const char *const heads[] = {"key", "type", "value"};
    peri_log_select select;
    listing l = {.j = {stdout, 0}};
    peri_log_select_init(&select);
    if (n)
        select.glob = peri_cstr(operands[0]);
    select.limit = limit;
    select.as_of = as_of;
    table_begin(&l.t, 3, heads);
    peri_status status = peri_log_keys(log, &select, add_key, &l);
    if (status != PERI_OK)
        return failed("cannot list", status);
    return as_json ? CLI_OK : table_end(&l.t);
}

static int run_history(peri_log *log, const char **operands, int n)
{
    static const char *const heads[] = {">sequence", "time (UTC)", "type", "value"};
    peri_log_range range;
    listing l = {.j = {stdout, 0}};
    (void)n;
    peri_log_range_init(&range);
    range.limit = limit;
    range.as_of = as_of;
    table_begin(&l.t, 4, heads);
    peri_status status = peri_log_history(log, peri_cstr(operands[0]), &range, add_version, &l);
    if (status != PERI_OK)
        return failed("no history", status);
    return as_json ? CLI_OK : table_end(&l.t);
}

static int run_get(peri_log *log, const char **operands, int n)
{
    peri_atom a;
    peri_buf buf = {0};
    (void)n;
    peri_status status = peri_log_get(log, peri_cstr(operands[0]), as_of, &a, &buf);
    if (status != PERI_OK)
        return failed("no value", status);
    int code = CLI_OK;
    if (as_json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_value(&j, &a);
        json_close(&j, '}');
        json_end(&j);
    } else if (a.type == PERI_ATOM_BYTES) {
        code = actions_write_file("-", a.data, a.size);
    } else if (a.type == PERI_ATOM_TEXT) {
        printf("%.*s\n", (int)a.size, (const char *)a.data);
    } else if (a.type == PERI_ATOM_FLOAT) {
        printf("%.17g\n", a.number);
    } else if (a.type == PERI_ATOM_INT) {
        printf("%lld\n", (long long)a.integer);
    } else if (a.type == PERI_ATOM_VECTOR) {
        for (size_t i = 0; i < a.size / 4; i++) {
            float f;
            memcpy(&f, (const char *)a.data + 4 * i, 4);
            printf("%s%.9g", i ? " " : "", (double)f);
        }
        putchar('\n');
    } else {
        puts("null");
    }
    peri_buf_free(&buf);
    return code;
}

/* ---- writing ---- */

/* Whole numbers are ints, other numbers floats, the rest text, unless --type says what it is. */
static int parse_value(const char *word, peri_atom *a)
{
    char *end;
    memset(a, 0, sizeof *a);
    a->data = word;
    a->size = strlen(word);
    const char *type = type_word ? type_word : "";
    if (strcmp(type, "text") == 0 || strcmp(type, "bytes") == 0) {
        a->type = *type == 't' ? PERI_ATOM_TEXT : PERI_ATOM_BYTES;
        return CLI_OK;
    }
    if (strcmp(type, "null") == 0)
        return CLI_OK;
    a->integer = strtoll(word, &end, 10);
    a->type = PERI_ATOM_INT;
    if (*word && !*end && strcmp(type, "float") != 0)
        return CLI_OK;
    a->number = strtod(word, &end);
    a->type = PERI_ATOM_FLOAT;
    if (*word && !*end && strcmp(type, "int") != 0)
        return CLI_OK;
    if (*type)
        return cli_usage("log", "'%s' is not of type %s", word, type);
    a->type = PERI_ATOM_TEXT;
    return CLI_OK;
}

static int run_put(peri_log *log, const char **operands, int n)
{
    peri_atom a;
    uint64_t sequence;
    (void)n;
    int code = parse_value(operands[1], &a);
    if (code != CLI_OK)
        return code;
    peri_status status = peri_log_put(log, peri_cstr(operands[0]), &a, &sequence);
    if (status != PERI_OK)
        return failed("cannot put", status);
    printf("%s: %s, sequence %llu\n", operands[0], types[a.type], (unsigned long long)sequence);
    return CLI_OK;
}

static int run_delete(peri_log *log, const char **operands, int n)
{
    (void)n;
    peri_status status = peri_log_delete(log, peri_cstr(operands[0]));
    return status == PERI_OK ? CLI_OK : failed("cannot delete", status);
}

/* ---- care ---- */

static int run_info(peri_log *log, const char **operands, int n)
{
    peri_log_info i;
    char bytes[32], keys[32];
    (void)operands;
    (void)n;
    peri_log_info_init(&i);
    peri_status status = peri_log_get_info(log, &i);
    if (status != PERI_OK)
        return failed("cannot read", status);
    if (as_json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_count(&j, "keys", i.keys);
        json_count(&j, "all_keys", i.all_keys);
        json_count(&j, "sequence", i.sequence);
        json_count(&j, "oldest", i.oldest);
        json_count(&j, "files", i.files);
        json_count(&j, "file_bytes", i.file_bytes);
        json_count(&j, "torn_bytes", i.torn_bytes);
        json_close(&j, '}');
        json_end(&j);
        return CLI_OK;
    }
    cli_print_bytes(i.file_bytes, bytes);
    cli_print_count(i.keys, keys);
    printf("log, %s keys, sequence %llu, %s in %llu files", keys, (unsigned long long)i.sequence,
           bytes, (unsigned long long)i.files);
    if (i.all_keys > i.keys)
        printf(", %llu deleted keys with history", (unsigned long long)(i.all_keys - i.keys));
    if (i.oldest)
        printf(", history complete from %llu on", (unsigned long long)i.oldest);
    if (i.torn_bytes)
        printf(", %llu bytes of a torn tail", (unsigned long long)i.torn_bytes);
    putchar('\n');
    return CLI_OK;
}

static int run_check(peri_log *log, const char **operands, int n)
{
    uint64_t faults;
    (void)operands;
    (void)n;
    peri_status status = peri_log_check(log, &faults);
    if (status != PERI_OK)
        return failed("cannot check", status);
    if (faults)
        printf("%llu fault%s; the first: %s\n", (unsigned long long)faults, faults == 1 ? "" : "s",
               peri_error_detail());
    else
        puts("whole");
    return faults ? CLI_NO : CLI_OK;
}

static int run_compact(peri_log *log, const char **operands, int n)
{
    peri_log_retention retention;
    (void)operands;
    (void)n;
    peri_log_retention_init(&retention);
    retention.keep = keep;
    peri_status status = peri_log_compact(log, &retention, NULL);
    return status == PERI_OK ? run_info(log, NULL, 0) : failed("cannot compact", status);
}

static int repair(int argc, char **argv)
{
    uint64_t from, to;
    if (argc != 3)
        return cli_usage("log", "repair takes: DIRECTORY");
    peri_status status = peri_log_repair(argv[2], NULL, &from, &to);
    if (status != PERI_OK)
        return failed("cannot repair", status);
    if (from)
        printf("sequences %llu to %llu are given up\n", (unsigned long long)from,
               (unsigned long long)to);
    else
        puts("nothing to repair");
    return CLI_OK;
}

int cmd_log(int argc, char **argv)
{
    static const action actions[] = {
        {"put", "DIRECTORY KEY VALUE", "append a version", 3, 3, 1, 1, run_put},
        {"get", "DIRECTORY KEY", "print the latest value", 2, 2, 0, 0, run_get},
        {"history", "DIRECTORY KEY", "list versions, newest first", 2, 2, 0, 0, run_history},
        {"keys", "DIRECTORY [GLOB]", "list keys and their values", 1, 2, 0, 0, run_keys},
        {"delete", "DIRECTORY KEY", "delete a key, keep its history", 2, 2, 1, 0, run_delete},
        {"info", "DIRECTORY", "describe the log", 1, 1, 0, 0, run_info},
        {"check", "DIRECTORY", "verify every record and version", 1, 1, 0, 0, run_check},
        {"compact", "DIRECTORY", "rewrite the files, see --keep", 1, 1, 1, 0, run_compact},
        {"repair", "DIRECTORY", "give up what is damaged and go on", 1, 1, 1, 0, NULL},
    };
    const arg_option options[] = {
        {0, "json", NULL, "print JSON, a line for each", ARG_FLAG, &as_json, 0, 0, NULL},
        {0, "limit", "N", "so many at most", ARG_COUNT, &limit, 1, 1e15, NULL},
        {0, "as-of", "SEQUENCE", "as it was after that write", ARG_COUNT, &as_of, 1, 1e18, NULL},
        {0, "keep", "N", "compact: versions of each key; default all", ARG_COUNT, &keep, 1, 1e15,
         NULL},
        {0, "type", "TYPE", "put: int, float, text, bytes or null; default as it looks", ARG_TEXT,
         &type_word, 0, 0, NULL},
    };
    if (argc > 1 && strcmp(argv[1], "repair") == 0)
        return repair(argc, argv);
    return actions_run("log", "Look after an append-only log of typed values.", actions,
                       sizeof actions / sizeof *actions, options, sizeof options / sizeof *options,
                       argc, argv);
}
