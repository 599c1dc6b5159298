/* The log's calls, one behaviour a test: atoms, batches, histories, listings, snapshots, views,
 * readers in step with a writer, and what each wrong argument gets. */
#include "histories.h"
#include "perigee/log.h"

#include <math.h>
#include <sys/wait.h>

static const char *fresh_dir(void)
{
    static unsigned n;
    char name[32];
    snprintf(name, sizeof name, "log-%u", n++ % 20);
    const char *dir = scratch(name);
    dir_remove(dir);
    return dir;
}

static peri_log *open_log(const char *dir, uint32_t flags, uint32_t compression)
{
    peri_log *log;
    peri_log_config c;
    peri_log_config_init(&c);
    c.durability = PERI_DURABLE_PROCESS;
    c.flags = flags;
    c.compression = compression;
    c.file_size = 1 << 16;
    assert_int_equal(peri_log_open(&log, dir, &c, NULL), PERI_OK);
    return log;
}

static void assert_sound(peri_log *log)
{
    uint64_t faults;
    assert_int_equal(peri_log_check(log, &faults), PERI_OK);
    if (faults)
        print_message("%s\n", peri_error_detail());
    assert_int_equal(faults, 0);
}

static void put_all(peri_log *log, int round)
{
    static float vector[300];
    char bytes[5000];
    for (int i = 0; i < 300; i++)
        vector[i] = (float)(i + round) / 7;
    memset(bytes, 'x', sizeof bytes);
    bytes[17] = (char)round;
    assert_int_equal(peri_log_put_null(log, peri_cstr("null")), PERI_OK);
    assert_int_equal(peri_log_put_float(log, peri_cstr("float"), 0.1 * round), PERI_OK);
    assert_int_equal(peri_log_put_int(log, peri_cstr("int"), INT64_MIN + round), PERI_OK);
    assert_int_equal(peri_log_put_data(log, peri_cstr("text"), PERI_ATOM_TEXT, "", 0), PERI_OK);
    assert_int_equal(peri_log_put_data(log, peri_cstr("bytes"), PERI_ATOM_BYTES, bytes, 5000),
                     PERI_OK);
    assert_int_equal(peri_log_put_data(log, peri_cstr("vector"), PERI_ATOM_VECTOR, vector, 1200),
                     PERI_OK);
}

static void check_all(const peri_log *log, int round)
{
    peri_atom a;
    peri_buf b = {0};
    double d;
    int64_t i;
    assert_int_equal(peri_log_get(log, peri_cstr("null"), 0, &a, NULL), PERI_OK);
    assert_int_equal(a.type, PERI_ATOM_NULL);
    assert_int_equal(peri_log_get_float(log, peri_cstr("float"), &d), PERI_OK);
    assert_true(d == 0.1 * round);
    assert_int_equal(peri_log_get_int(log, peri_cstr("int"), &i), PERI_OK);
    assert_true(i == INT64_MIN + round);
    assert_int_equal(peri_log_get(log, peri_cstr("text"), 0, &a, &b), PERI_OK);
    assert_int_equal(a.type, PERI_ATOM_TEXT);
    assert_int_equal(a.size, 0);
    assert_int_equal(peri_log_get(log, peri_cstr("bytes"), 0, &a, &b), PERI_OK);
    assert_int_equal(a.size, 5000);
    assert_int_equal(((const char *)a.data)[17], round);
    assert_int_equal(((const char *)a.data)[4999], 'x');
    assert_int_equal(peri_log_get(log, peri_cstr("vector"), 0, &a, &b), PERI_OK);
    assert_int_equal(a.type, PERI_ATOM_VECTOR);
    assert_int_equal(a.size, 1200);
    float last;
    memcpy(&last, (const char *)a.data + 299 * 4, 4);
    assert_true(last == (float)(299 + round) / 7);
    peri_buf_free(&b);
}

static void test_each_type_comes_back_in_each_way_of_keeping_it(void **state)
{
    (void)state;
    for (uint32_t compression = 0; compression <= PERI_COMPRESS_ZSTD; compression++) {
        const char *dir = fresh_dir();
        peri_log *log = open_log(dir, 0, compression);
        for (int round = 0; round < 3; round++)
            put_all(log, round);
        check_all(log, 2);
        assert_int_equal(peri_log_compact(log, NULL, NULL), PERI_OK);
        check_all(log, 2);
        assert_sound(log);
        peri_log_close(log);
        log = open_log(dir, PERI_LOG_READONLY, 0);
        check_all(log, 2);
        peri_log_close(log);
    }
}

static void test_a_key_of_another_type_or_none_is_an_error(void **state)
{
    (void)state;
    peri_log *log = open_log(fresh_dir(), 0, 0);
    double d;
    int64_t i;
    int exists;
    peri_atom a;
    assert_int_equal(peri_log_get_float(log, peri_cstr("x"), &d), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_log_put_data(log, peri_cstr("x"), PERI_ATOM_TEXT, "abc", 3), PERI_OK);
    assert_int_equal(peri_log_get_float(log, peri_cstr("x"), &d), PERI_ERR_STATE);
    assert_int_equal(peri_log_get_int(log, peri_cstr("x"), &i), PERI_ERR_STATE);
    assert_int_equal(peri_log_get(log, peri_cstr("x"), 0, &a, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_log_delete(log, peri_cstr("x")), PERI_OK);
    assert_int_equal(peri_log_delete(log, peri_cstr("x")), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_log_exists(log, peri_cstr("x"), 0, &exists), PERI_OK);
    assert_int_equal(exists, 0);
    assert_int_equal(peri_log_exists(log, peri_cstr("x"), 1, &exists), PERI_OK);
    assert_int_equal(exists, 1);
    peri_log_close(log);
}

static void test_wrong_arguments_are_refused_and_change_nothing(void **state)
{
    (void)state;
    const char *dir = fresh_dir();
    peri_log *log = open_log(dir, 0, 0), *other = log;
    peri_atom a = {0};
    peri_log_config c;
    static char big[70000];
    memset(big, 'k', sizeof big);
    assert_int_equal(peri_log_put(log, (peri_slice){"", 0}, &a, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_log_put(log, (peri_slice){NULL, 3}, &a, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_log_put(log, (peri_slice){big, 65536}, &a, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_log_put(log, (peri_slice){big, 65535}, &a, NULL), PERI_OK);
    a.type = PERI_ATOM_DELETED;
    assert_int_equal(peri_log_put(log, peri_cstr("x"), &a, NULL), PERI_ERR_ARG);
    a = (peri_atom){.type = PERI_ATOM_VECTOR, .data = big, .size = 5};
    assert_int_equal(peri_log_put(log, peri_cstr("x"), &a, NULL), PERI_ERR_ARG);
    a = (peri_atom){.type = PERI_ATOM_TEXT, .data = NULL, .size = 5};
    assert_int_equal(peri_log_put(log, peri_cstr("x"), &a, NULL), PERI_ERR_ARG);
    a = (peri_atom){.type = PERI_ATOM_TEXT, .data = big, .size = (size_t)PERI_LOG_VALUE_MAX + 1};
    assert_int_equal(peri_log_put(log, peri_cstr("x"), &a, NULL), PERI_ERR_FULL);
    assert_int_equal(peri_log_put(log, peri_cstr("x"), NULL, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_log_put(NULL, peri_cstr("x"), &a, NULL), PERI_ERR_ARG);
    /* keys with NUL, bytes that are no UTF-8 */
    assert_int_equal(peri_log_put_int(log, (peri_slice){"a\0b", 3}, 7), PERI_OK);
    assert_int_equal(peri_log_put_int(log, (peri_slice){"\xff\xfe", 2}, 8), PERI_OK);
    int64_t i;
    assert_int_equal(peri_log_get_int(log, (peri_slice){"a\0b", 3}, &i), PERI_OK);
    assert_int_equal(i, 7);
    assert_int_equal(peri_log_get_int(log, (peri_slice){"a", 1}, &i), PERI_ERR_NOT_FOUND);

    assert_int_equal(peri_log_open(&other, dir, NULL, NULL), PERI_ERR_BUSY);
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(peri_error_detail(), pid));
    assert_null(other);
    assert_int_equal(peri_log_open(NULL, dir, NULL, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_log_open(&other, NULL, NULL, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_log_open(&other, "", NULL, NULL), PERI_ERR_ARG);
    peri_log_config_init(&c);
    c.durability = 5;
    assert_int_equal(peri_log_open(&other, dir, &c, NULL), PERI_ERR_CONFIG);
    peri_log_config_init(&c);
    c.flags = 1u << 9;
    assert_int_equal(peri_log_open(&other, dir, &c, NULL), PERI_ERR_CONFIG);
    peri_log_config_init(&c);
    c.file_size = 1000;
    assert_int_equal(peri_log_open(&other, dir, &c, NULL), PERI_ERR_CONFIG);
    c.struct_size = 4;
    assert_int_equal(peri_log_open(&other, dir, &c, NULL), PERI_ERR_ARG);
    peri_log_config_init(&c);
    c.flags = PERI_LOG_EXISTING;
    const char *none = scratch("none");
    assert_int_equal(peri_log_open(&other, none, &c, NULL), PERI_ERR_NOT_FOUND);
    c.flags = PERI_LOG_READONLY;
    assert_int_equal(peri_log_open(&other, none, &c, NULL), PERI_ERR_NOT_FOUND);
    assert_int_not_equal(access(none, F_OK), 0);
    blob_save(none, "text", 4);
    assert_int_not_equal(peri_log_open(&other, none, NULL, NULL), PERI_OK);
    unlink(none);
    peri_log_close(log);
    peri_log_close(NULL);
}

static void test_a_reader_refuses_writes_and_refreshes_over_a_compaction(void **state)
{
    (void)state;
    const char *dir = fresh_dir();
    peri_log *log = open_log(dir, 0, 0);
    peri_log_view view;
    peri_atom a = {0};
    put_all(log, 1);
    peri_log *reader = open_log(dir, PERI_LOG_READONLY, 0);
    check_all(reader, 1);
    assert_int_equal(peri_log_put(reader, peri_cstr("x"), &a, NULL), PERI_ERR_STATE);
    assert_int_equal(peri_log_compact(reader, NULL, NULL), PERI_ERR_STATE);
    put_all(log, 2);
    check_all(reader, 1);
    assert_int_equal(peri_log_refresh(reader), PERI_OK);
    check_all(reader, 2);
    assert_int_equal(peri_log_view_get(reader, peri_cstr("bytes"), 0, &view), PERI_OK);
    assert_int_equal(view.copied, 0);
    peri_log_retention keep;
    peri_log_retention_init(&keep);
    keep.keep = 1;
    for (int round = 3; round < 6; round++) {
        put_all(log, round);
        assert_int_equal(peri_log_compact(log, &keep, NULL), PERI_OK);
        check_all(reader, round - 1);
        assert_int_equal(peri_log_refresh(reader), PERI_OK);
        check_all(reader, round);
    }
    assert_int_equal(((const char *)view.atom.data)[17], 2);
    peri_log_view_release(reader, &view);
    peri_log_close(reader);
    peri_log_close(log);
}

static void test_a_batch_is_seen_whole_or_not_at_all(void **state)
{
    (void)state;
    peri_log *log = open_log(fresh_dir(), 0, 0);
    peri_log_batch *b;
    peri_atom one = {.type = PERI_ATOM_INT, .integer = 1},
              two = {.type = PERI_ATOM_INT, .integer = 2};
    uint64_t first, second;
    int64_t i;
    assert_int_equal(peri_log_batch_create(&b, log), PERI_OK);
    assert_int_equal(peri_log_batch_commit(b, 0, &first), PERI_OK);
    assert_int_equal(first, 0);
    assert_int_equal(peri_log_batch_put(b, peri_cstr("k"), &one), PERI_OK);
    assert_int_equal(peri_log_batch_put(b, peri_cstr("k"), &two), PERI_OK);
    assert_int_equal(peri_log_batch_delete(b, peri_cstr("nothing")), PERI_OK);
    assert_int_equal(peri_log_batch_put(b, (peri_slice){"", 0}, &two), PERI_ERR_ARG);
    assert_int_equal(peri_log_batch_count(b), 3);
    assert_int_equal(peri_log_get_int(log, peri_cstr("k"), &i), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_log_batch_commit(b, PERI_DURABLE_COMMIT, &first), PERI_OK);
    assert_int_equal(peri_log_get_int(log, peri_cstr("k"), &i), PERI_OK);
    assert_int_equal(i, 2);
    peri_buf series = {0};
    size_t n;
    assert_int_equal(peri_log_series(log, peri_cstr("k"), NULL, &series, NULL, &n), PERI_OK);
    assert_int_equal(n, 2);
    peri_buf_free(&series);
    assert_int_equal(peri_log_batch_put(b, peri_cstr("k"), &one), PERI_OK);
    peri_log_batch_clear(b);
    assert_int_equal(peri_log_batch_delete(b, peri_cstr("k")), PERI_OK);
    assert_int_equal(peri_log_batch_commit(b, 0, &second), PERI_OK);
    assert_int_equal(second, first + 1);
    peri_log_batch_close(b);
    assert_sound(log);
    peri_log_close(log);
}

typedef struct seen {
    peri_atom atoms[64];
    char keys[64][40];
    size_t n, stop_at;
} seen;

static int see_version(void *ctx, const peri_atom *a)
{
    seen *s = ctx;
    s->atoms[s->n++] = *a;
    return s->n == s->stop_at;
}

static int see_key(void *ctx, peri_slice key, const peri_atom *a)
{
    seen *s = ctx;
    snprintf(s->keys[s->n], 40, "%.*s", (int)key.size, (const char *)key.data);
    s->atoms[s->n++] = *a;
    return s->n == s->stop_at;
}

static void put_at(peri_log *log, const char *key, double v, int64_t time)
{
    peri_atom a = {.type = PERI_ATOM_FLOAT, .number = v, .time = time};
    assert_int_equal(peri_log_put(log, peri_cstr(key), &a, NULL), PERI_OK);
}

static void test_a_history_keeps_deletes_and_is_cut_by_time_and_number(void **state)
{
    (void)state;
    for (int compacted = 0; compacted < 2; compacted++) {
        peri_log *log = open_log(fresh_dir(), PERI_LOG_SERIES, 0);
        peri_buf values = {0}, times = {0};
        size_t n;
        for (int i = 0; i < 40; i++)
            put_at(log, "k", i, 1000 + i);
        assert_int_equal(peri_log_delete(log, peri_cstr("k")), PERI_OK);
        put_at(log, "k", 100, 2000);
        assert_int_equal(peri_log_put_data(log, peri_cstr("k"), PERI_ATOM_TEXT, "t", 1), PERI_OK);
        assert_int_equal(peri_log_put_int(log, peri_cstr("k"), 7), PERI_OK);
        if (compacted)
            assert_int_equal(peri_log_compact(log, NULL, NULL), PERI_OK);
        seen s = {0};
        assert_int_equal(peri_log_history(log, peri_cstr("k"), NULL, see_version, &s), PERI_OK);
        assert_int_equal(s.n, 44);
        assert_int_equal(s.atoms[0].type, PERI_ATOM_INT);
        assert_int_equal(s.atoms[1].type, PERI_ATOM_TEXT);
        assert_int_equal(s.atoms[3].type, PERI_ATOM_DELETED);
        assert_true(s.atoms[43].number == 0 && s.atoms[43].time == 1000);
        for (size_t i = 1; i < s.n; i++)
            assert_true(s.atoms[i].sequence < s.atoms[i - 1].sequence);
        peri_log_range range;
        peri_log_range_init(&range);
        range.time_from = 1010;
        range.time_to = 1020;
        assert_int_equal(peri_log_series(log, peri_cstr("k"), &range, &values, &times, &n),
                         PERI_OK);
        assert_int_equal(n, 10);
        assert_true(((double *)values.data)[0] == 10 && ((int64_t *)times.data)[9] == 1019);
        peri_log_range_init(&range);
        range.limit = 5;
        assert_int_equal(peri_log_series(log, peri_cstr("k"), &range, &values, NULL, &n), PERI_OK);
        assert_int_equal(n, 5);
        assert_true(((double *)values.data)[0] == 37 && ((double *)values.data)[4] == 7);
        range.as_of = 30;
        assert_int_equal(peri_log_series(log, peri_cstr("k"), &range, &values, NULL, &n), PERI_OK);
        assert_int_equal(n, 5);
        assert_true(((double *)values.data)[4] == 29);
        s = (seen){.stop_at = 3};
        assert_int_equal(peri_log_history(log, peri_cstr("k"), NULL, see_version, &s), PERI_OK);
        assert_int_equal(s.n, 3);
        assert_int_equal(peri_log_history(log, peri_cstr("no"), NULL, see_version, &s),
                         PERI_ERR_NOT_FOUND);
        peri_buf_free(&values);
        peri_buf_free(&times);
        assert_sound(log);
        peri_log_close(log);
    }
}

/* Doubles of every sort, in runs of each, so that blocks are packed in every way. */
static double any_double(pe_rng *r, int sort, double *walk)
{
    uint64_t bits = pe_rng_next(r);
    double d;
    static const double odd[] = {0.0, -0.0, INFINITY, -INFINITY, 5e-324, 1.7976931348623157e308,
                                 0.1};
    switch (sort) {
    case 0:
        *walk += (double)((int)(bits % 9) - 4) * 0.01;
        return round(*walk * 100) / 100;
    case 1:
        memcpy(&d, &bits, 8);
        return d; /* NaNs with payloads among them */
    case 2:
        return odd[bits % 7];
    case 3:
        return *walk += 1.0 / 3;
    default:
        return bits % 50 ? (double)(bits % 1000) : NAN;
    }
}

static void test_a_series_comes_back_to_the_bit_however_it_is_packed(void **state)
{
    (void)state;
    enum { N = 20000 };
    double *want = malloc(N * sizeof *want), walk = 20;
    pe_rng r = {3};
    const char *dir = fresh_dir();
    peri_log *log = open_log(dir, PERI_LOG_SERIES, 0);
    peri_log_batch *b;
    peri_buf values = {0};
    size_t n;
    assert_int_equal(peri_log_batch_create(&b, log), PERI_OK);
    for (int i = 0; i < N; i++) {
        peri_atom a = {.type = PERI_ATOM_FLOAT,
                       .number = any_double(&r, i / 2000 % 5, &walk),
                       .time = (int64_t)(i * (pe_rng_next(&r) >> 40)) + 1};
        want[i] = a.number;
        assert_int_equal(peri_log_batch_put(b, peri_cstr("s"), &a), PERI_OK);
        if (i % 100 == 99)
            assert_int_equal(peri_log_batch_commit(b, PERI_DURABLE_MEMORY, NULL), PERI_OK);
    }
    peri_log_batch_close(b);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(peri_log_series(log, peri_cstr("s"), NULL, &values, NULL, &n), PERI_OK);
        assert_int_equal(n, N);
        assert_memory_equal(values.data, want, N * sizeof *want);
        assert_int_equal(peri_log_compact(log, NULL, NULL), PERI_OK);
        assert_sound(log);
    }
    peri_log_close(log);
    peri_buf_free(&values);
    free(want);
}

static void test_keys_are_listed_by_prefix_glob_and_place(void **state)
{
    (void)state;
    peri_log *log = open_log(fresh_dir(), 0, 0);
    static const char *const keys[] = {"a", "a/1", "a/10", "a/2", "b[1]", "b1", "b\\", "c*"};
    static const struct {
        const char *prefix, *glob, *after, *want;
        uint64_t limit;
    } rows[] = {
        {NULL, NULL, NULL, "a a/1 a/10 a/2 b1 b[1] b\\ c*", 0},
        {"a/", NULL, NULL, "a/1 a/10 a/2", 0},
        {"a/", NULL, "a/1", "a/10 a/2", 0},
        {"a/", NULL, "a/1", "a/10", 1},
        {NULL, "a/*", NULL, "a/1 a/10 a/2", 0},
        {NULL, "a/1*", NULL, "a/1 a/10", 0},
        {NULL, "a/?", NULL, "a/1 a/2", 0},
        {NULL, "[ab]*", NULL, "a a/1 a/10 a/2 b1 b[1] b\\", 0},
        {NULL, "[!ab]*", NULL, "c*", 0},
        {NULL, "b\\[*", NULL, "b[1]", 0},
        {NULL, "*\\*", NULL, "c*", 0},
        {NULL, "*1*", NULL, "a/1 a/10 b1 b[1]", 0},
        {"a/1", "a/*0", NULL, "a/10", 0},
        {"b", "a*", NULL, "", 0},
        {NULL, "", NULL, "", 0},
        {"", "*", "b1", "b[1] b\\ c*", 0},
    };
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(peri_log_put_int(log, peri_cstr(keys[7 - i]), (int64_t)i), PERI_OK);
    assert_int_equal(peri_log_put_int(log, peri_cstr("gone"), 1), PERI_OK);
    assert_int_equal(peri_log_delete(log, peri_cstr("gone")), PERI_OK);
    for (int compacted = 0; compacted < 2; compacted++) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            peri_log_select select;
            peri_log_select_init(&select);
            select.prefix = peri_cstr(rows[i].prefix);
            select.glob = peri_cstr(rows[i].glob);
            select.after = peri_cstr(rows[i].after);
            select.limit = rows[i].limit;
            seen s = {0};
            char got[400] = "";
            assert_int_equal(peri_log_keys(log, &select, see_key, &s), PERI_OK);
            for (size_t k = 0; k < s.n; k++) {
                strcat(got, k ? " " : "");
                strcat(got, s.keys[k]);
            }
            assert_string_equal(got, rows[i].want);
        }
        assert_int_equal(peri_log_compact(log, NULL, NULL), PERI_OK);
    }
    peri_log_select select;
    peri_log_select_init(&select);
    select.prefix = peri_cstr("g");
    select.deleted = 1;
    seen s = {0};
    assert_int_equal(peri_log_keys(log, &select, see_key, &s), PERI_OK);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.atoms[0].type, PERI_ATOM_DELETED);
    peri_log_close(log);
}

static void test_a_snapshot_outlives_a_compaction_and_older_reads_are_refused(void **state)
{
    (void)state;
    const char *dir = fresh_dir();
    peri_log *log = open_log(dir, 0, 0);
    peri_log_retention keep;
    uint64_t snapshot, before;
    peri_atom a;
    for (int i = 1; i <= 10; i++)
        assert_int_equal(peri_log_put_int(log, peri_cstr("k"), i), PERI_OK);
    assert_int_equal(peri_log_snapshot(log, &snapshot), PERI_OK);
    before = snapshot - 3;
    for (int i = 11; i <= 20; i++)
        assert_int_equal(peri_log_put_int(log, peri_cstr("k"), i), PERI_OK);
    peri_log_retention_init(&keep);
    keep.keep = 1;
    assert_int_equal(peri_log_compact(log, &keep, NULL), PERI_OK);
    assert_int_equal(peri_log_get(log, peri_cstr("k"), snapshot, &a, NULL), PERI_OK);
    assert_int_equal(a.integer, 10);
    assert_int_equal(peri_log_get(log, peri_cstr("k"), before, &a, NULL), PERI_ERR_STATE);
    assert_int_equal(peri_log_release(log, snapshot), PERI_OK);
    assert_int_equal(peri_log_release(log, snapshot), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_log_get(log, peri_cstr("k"), snapshot, &a, NULL), PERI_ERR_STATE);
    assert_int_equal(peri_log_delete(log, peri_cstr("k")), PERI_OK);
    assert_int_equal(peri_log_compact(log, &keep, NULL), PERI_OK);
    peri_log_info info;
    peri_log_info_init(&info);
    assert_int_equal(peri_log_get_info(log, &info), PERI_OK);
    assert_int_equal(info.all_keys, 0);
    assert_sound(log);
    peri_log_close(log);
}

static void test_changes_are_given_in_order_since_a_sequence(void **state)
{
    (void)state;
    peri_log *log = open_log(fresh_dir(), 0, 0);
    seen s = {0};
    for (int i = 0; i < 30; i++)
        assert_int_equal(peri_log_put_int(log, peri_cstr(i % 2 ? "odd" : "even"), i), PERI_OK);
    assert_int_equal(peri_log_changes(log, 20, see_key, &s), PERI_OK);
    assert_int_equal(s.n, 10);
    for (size_t i = 0; i < s.n; i++) {
        assert_int_equal(s.atoms[i].sequence, 21 + i);
        assert_int_equal(s.atoms[i].integer, 20 + i);
    }
    assert_int_equal(peri_log_compact(log, NULL, NULL), PERI_OK);
    assert_int_equal(peri_log_changes(log, 20, see_key, &s), PERI_ERR_STATE);
    s = (seen){0};
    assert_int_equal(peri_log_changes(log, 30, see_key, &s), PERI_OK);
    assert_int_equal(s.n, 0);
    peri_log_close(log);
}

static void test_a_large_value_is_viewed_where_it_lies(void **state)
{
    (void)state;
    enum { N = 3 << 20 };
    const char *dir = fresh_dir();
    unsigned char *bytes = malloc(N);
    for (size_t i = 0; i < N; i++)
        bytes[i] = (unsigned char)(i * 7 >> 3);
    peri_log *log = open_log(dir, 0, 0);
    peri_log_view v;
    assert_int_equal(peri_log_put_data(log, peri_cstr("big"), PERI_ATOM_BYTES, bytes, N), PERI_OK);
    for (int round = 0; round < 2; round++) {
        peri_log_info before, after;
        peri_log_info_init(&before);
        peri_log_info_init(&after);
        peri_log_get_info(log, &before);
        assert_int_equal(peri_log_view_get(log, peri_cstr("big"), 0, &v), PERI_OK);
        peri_log_get_info(log, &after);
        assert_int_equal(after.heap, before.heap); /* nothing was allocated for it */
        assert_int_equal(v.copied, 0);
        assert_int_equal((uintptr_t)v.atom.data % 64, 0);
        assert_int_equal(peri_log_compact(log, NULL, NULL), PERI_OK);
        assert_memory_equal(v.atom.data, bytes, N);
        peri_log_view_release(log, &v);
    }
    peri_log_close(log);
    free(bytes);
}

static void test_after_fork_reads_work_and_writes_say_so(void **state)
{
    (void)state;
    const char *dir = fresh_dir();
    peri_log *log = open_log(dir, 0, 0);
    put_all(log, 1);
    pid_t child = fork();
    if (child == 0) {
        double d;
        int good = peri_log_get_float(log, peri_cstr("float"), &d) == PERI_OK &&
                   peri_log_put_float(log, peri_cstr("float"), 1) == PERI_ERR_FORKED &&
                   peri_log_sync(log) == PERI_ERR_FORKED;
        peri_log_close(log);
        _exit(good ? 0 : 1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    put_all(log, 2); /* the lock is still ours */
    peri_log *other;
    assert_int_equal(peri_log_open(&other, dir, NULL, NULL), PERI_ERR_BUSY);
    peri_log_close(log);
}

static void test_hints_open_what_scanning_would(void **state)
{
    (void)state;
    const char *dir = fresh_dir();
    peri_log *log;
    peri_log_config c;
    peri_log_info info;
    static char value[1000];
    peri_log_config_init(&c);
    c.durability = PERI_DURABLE_PROCESS;
    assert_int_equal(peri_log_open(&log, dir, &c, NULL), PERI_OK);
    for (int i = 0; i < 6000; i++) {
        char key[32];
        snprintf(key, sizeof key, "key %d", i);
        memset(value, i, sizeof value);
        assert_int_equal(
            peri_log_put_data(log, peri_cstr(key), PERI_ATOM_BYTES, value, sizeof value), PERI_OK);
    }
    peri_log_close(log);
    assert_int_equal(peri_log_open(&log, dir, &c, NULL), PERI_OK);
    peri_log_info_init(&info);
    peri_log_get_info(log, &info);
    assert_int_equal(info.keys, 6000);
    assert_int_equal(info.scanned, 0);
    assert_sound(log);
    assert_int_equal(peri_log_put_int(log, peri_cstr("key 5"), 5), PERI_OK);
    peri_log_close(log);
    /* a damaged hint is left aside */
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strstr(e->d_name, ".peh")) {
            char path[PATH_MAX];
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            blob b = blob_load(path);
            b.data[b.size / 2] ^= 4;
            blob_save(path, b.data, b.size);
            free(b.data);
        }
    closedir(d);
    assert_int_equal(peri_log_open(&log, dir, &c, NULL), PERI_OK);
    peri_log_get_info(log, &info);
    assert_int_equal(info.keys, 6000);
    assert_int_equal(info.scanned, 6001);
    assert_sound(log);
    peri_log_close(log);
}

static int remove_dirs(void **state)
{
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "log-%d", i);
        dir_remove(scratch(name));
    }
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_type_comes_back_in_each_way_of_keeping_it),
        cmocka_unit_test(test_a_key_of_another_type_or_none_is_an_error),
        cmocka_unit_test(test_wrong_arguments_are_refused_and_change_nothing),
        cmocka_unit_test(test_a_reader_refuses_writes_and_refreshes_over_a_compaction),
        cmocka_unit_test(test_a_batch_is_seen_whole_or_not_at_all),
        cmocka_unit_test(test_a_history_keeps_deletes_and_is_cut_by_time_and_number),
        cmocka_unit_test(test_a_series_comes_back_to_the_bit_however_it_is_packed),
        cmocka_unit_test(test_keys_are_listed_by_prefix_glob_and_place),
        cmocka_unit_test(test_a_snapshot_outlives_a_compaction_and_older_reads_are_refused),
        cmocka_unit_test(test_changes_are_given_in_order_since_a_sequence),
        cmocka_unit_test(test_a_large_value_is_viewed_where_it_lies),
        cmocka_unit_test(test_after_fork_reads_work_and_writes_say_so),
        cmocka_unit_test(test_hints_open_what_scanning_would),
    };
    return cmocka_run_group_tests(tests, NULL, remove_dirs);
}
