/* Every allocation and every call on files fails, once and from then on, in each verb of
 * peri_sparse. After a failure the index is as it was: the same rows, a clean proof, the same
 * answers; the verb works when it is tried again; nothing leaks; a file that was to be replaced is
 * whole. */
#include "base/rng.h"
#include "faulty.h"
#include "perigee/sparse.h"
#include "scratch.h"

enum { ENTRIES = 9, ROWS = 120, MORE = 30, K = 5 };

static uint32_t terms[ROWS + MORE][ENTRIES];
static float weights[ROWS + MORE][ENTRIES];

typedef struct bench {
    faulty f;
    peri_sparse *sx;
    int keyed;
    uint64_t n_rows; /* before the verb */
} bench;

typedef struct verb {
    const char *name;
    peri_status (*run)(bench *b);
    int adds; /* rows that success adds */
    int part; /* a failure may leave the first rows of a batch in */
    int keyed;
} verb;

static const char *former, *target;

static peri_slice key_of_row(unsigned i, char text[40])
{
    return (peri_slice){text, (size_t)snprintf(text, 40, "the key of row %u", i)};
}

static peri_sparse_row row_of(unsigned i)
{
    return (peri_sparse_row){ENTRIES, terms[i], weights[i]};
}

/* Two sealed parts and an active one, dead rows in each. */
static void fill(bench *b)
{
    char text[40];
    const char *path = scratch("filled");
    assert_int_equal(peri_sparse_create(&b->sx, NULL, &b->f.env), PERI_OK);
    for (unsigned i = 0; i < ROWS; i++) {
        peri_sparse_row row = row_of(i);
        assert_int_equal(b->keyed ? peri_sparse_put_keyed(b->sx, key_of_row(i, text), &row, 0, NULL)
                                  : peri_sparse_put(b->sx, i * 2, &row, 0),
                         PERI_OK);
        if (i % 50 == 49) { /* saving and opening seals */
            assert_int_equal(peri_sparse_save(b->sx, path, NULL), PERI_OK);
            peri_sparse_close(b->sx);
            assert_int_equal(peri_sparse_open(&b->sx, path, 0, &b->f.env, NULL), PERI_OK);
        }
    }
    unlink(path);
    for (unsigned i = 4; i < ROWS; i += 9)
        assert_int_equal(b->keyed ? peri_sparse_remove_keyed(b->sx, key_of_row(i, text))
                                  : peri_sparse_remove(b->sx, i * 2),
                         PERI_OK);
    peri_sparse_info info;
    peri_sparse_info_init(&info);
    assert_int_equal(peri_sparse_get_info(b->sx, &info), PERI_OK);
    assert_int_equal(info.segments, 3);
    b->n_rows = info.rows;
    b->f.syncs = b->f.dir_syncs = b->f.writes_after_sync = 0;
}

/* ---- the verbs ---- */

static peri_status put_new(bench *b)
{
    peri_sparse_row row = row_of(ROWS);
    return peri_sparse_put(b->sx, 1001, &row, PERI_PUT_NEW);
}

static peri_status put_again(bench *b)
{
    peri_sparse_row row = row_of(ROWS + 1);
    return peri_sparse_put(b->sx, 10, &row, 0);
}

static peri_status put_active_again(bench *b)
{
    peri_sparse_row row = row_of(ROWS + 1);
    return peri_sparse_put(b->sx, 2 * 110, &row, 0);
}

static peri_sparse_rows many_rows(void)
{
    static uint64_t offsets[MORE + 1];
    for (unsigned i = 0; i <= MORE; i++)
        offsets[i] = i * ENTRIES;
    return (peri_sparse_rows){MORE, offsets, terms[ROWS], weights[ROWS]};
}

static peri_status put_many(bench *b)
{
    uint64_t ids[MORE];
    size_t done;
    peri_sparse_rows rows = many_rows();
    for (unsigned i = 0; i < MORE; i++)
        ids[i] = 5001 + i;
    return peri_sparse_put_many(b->sx, ids, &rows, 0, NULL, &done);
}

static peri_status put_keyed(bench *b)
{
    char text[40];
    peri_sparse_row row = row_of(ROWS);
    return peri_sparse_put_keyed(b->sx, key_of_row(7777, text), &row, 0, NULL);
}

static peri_status put_many_keyed(bench *b)
{
    char text[MORE][40];
    peri_slice keys[MORE];
    size_t done;
    peri_sparse_rows rows = many_rows();
    for (unsigned i = 0; i < MORE; i++)
        keys[i] = key_of_row(8000 + i, text[i]);
    return peri_sparse_put_many_keyed(b->sx, keys, &rows, 0, NULL, &done);
}

static peri_status remove_one(bench *b)
{
    return peri_sparse_remove(b->sx, 20);
}

static peri_status remove_keyed(bench *b)
{
    char text[40];
    return peri_sparse_remove_keyed(b->sx, key_of_row(11, text));
}

static peri_status ask(const bench *b, unsigned i, uint32_t effort, peri_hit *hits, size_t *n)
{
    peri_query q;
    peri_sparse_row row = row_of(i);
    peri_query_init(&q, K);
    q.effort = effort;
    return peri_sparse_search(b->sx, &row, &q, hits, n);
}

static peri_status search(bench *b)
{
    peri_hit hits[K];
    size_t n;
    return ask(b, 3, 0, hits, &n);
}

static peri_status search_approximate(bench *b)
{
    peri_hit hits[K];
    size_t n;
    return ask(b, 3, 4, hits, &n);
}

static peri_status search_filtered(bench *b)
{
    peri_query q;
    peri_hit hits[K];
    size_t n;
    peri_idset *set;
    uint64_t ids[] = {0, 2, 4, 6, 30};
    peri_sparse_row row = row_of(3);
    peri_query_init(&q, K);
    peri_status status = peri_idset_create(&set, &b->f.env);
    if (status == PERI_OK)
        status = peri_idset_add(set, 5, ids);
    q.allow = set;
    if (status == PERI_OK)
        status = peri_sparse_search(b->sx, &row, &q, hits, &n);
    peri_idset_close(set);
    return status;
}

static peri_status search_many(bench *b)
{
    peri_query q;
    peri_hit hits[MORE * K];
    size_t n[MORE];
    peri_sparse_rows rows = many_rows();
    peri_query_init(&q, K);
    return peri_sparse_search_many(b->sx, &rows, &q, NULL, hits, n);
}

static peri_status maintain(bench *b)
{
    return peri_sparse_maintain(b->sx, NULL);
}

static peri_status compact(bench *b)
{
    return peri_sparse_compact(b->sx, NULL);
}

static peri_status check(bench *b)
{
    uint64_t faults;
    return peri_sparse_check(b->sx, NULL, &faults);
}

static peri_status save(bench *b)
{
    return peri_sparse_save(b->sx, target, NULL);
}

static peri_status open_how(bench *b, uint32_t flags)
{
    bench other = *b;
    peri_hit hits[K];
    size_t n;
    peri_sparse_row row = row_of(ROWS);
    other.sx = NULL;
    peri_status status = peri_sparse_open(&other.sx, former, flags, &b->f.env, NULL);
    if (status != PERI_OK)
        assert_null(other.sx);
    if (status == PERI_OK)
        status = ask(&other, 3, 0, hits, &n);
    if (status == PERI_OK && !(flags & PERI_OPEN_READONLY))
        status = peri_sparse_put(other.sx, 77777, &row, 0);
    peri_sparse_close(other.sx);
    return status;
}

static peri_status open_copied(bench *b)
{
    return open_how(b, 0);
}

static peri_status open_mapped(bench *b)
{
    return open_how(b, PERI_OPEN_MAP);
}

static peri_status create_another(bench *b)
{
    peri_sparse *other = NULL;
    peri_status status = peri_sparse_create(&other, NULL, &b->f.env);
    if (status != PERI_OK)
        assert_null(other);
    peri_sparse_close(other);
    return status;
}

static const verb verbs[] = {
    {"put", put_new, 1, 0, 0},
    {"put again", put_again, 0, 0, 0},
    {"put again, active", put_active_again, 0, 0, 0},
    {"put_many", put_many, MORE, 1, 0},
    {"put_keyed", put_keyed, 1, 0, 1},
    {"put_many_keyed", put_many_keyed, MORE, 1, 1},
    {"remove", remove_one, -1, 0, 0},
    {"remove_keyed", remove_keyed, -1, 0, 1},
    {"search", search, 0, 0, 0},
    {"search, approximate", search_approximate, 0, 0, 0},
    {"search, filtered", search_filtered, 0, 0, 0},
    {"search_many", search_many, 0, 0, 0},
    {"maintain", maintain, 0, 0, 0},
    {"compact", compact, 0, 0, 0},
    {"compact, keyed", compact, 0, 0, 1},
    {"check", check, 0, 0, 0},
    {"save", save, 0, 0, 0},
    {"save, keyed", save, 0, 0, 1},
    {"open copied", open_copied, 0, 0, 0},
    {"open mapped", open_mapped, 0, 0, 0},
    {"create", create_another, 0, 0, 0},
};

/* ---- what must hold afterwards ---- */

static void assert_sparse_valid(const bench *b, const verb *v, const char *when)
{
    uint64_t faults = 0;
    peri_status status = peri_sparse_check(b->sx, NULL, &faults);
    if (status != PERI_OK || faults)
        fail_msg("%s %s: %llu faults: %s", v->name, when, (unsigned long long)faults,
                 peri_error_detail());
}

static void assert_rows(const bench *b, const verb *v, peri_status status)
{
    peri_sparse_info info;
    peri_sparse_info_init(&info);
    assert_int_equal(peri_sparse_get_info(b->sx, &info), PERI_OK);
    int64_t added = (int64_t)info.rows - (int64_t)b->n_rows;
    if (v->part && status != PERI_OK)
        assert_in_range(added, 0, v->adds);
    else
        assert_int_equal(added, status == PERI_OK ? v->adds : 0);
}

/* Rows that no verb touches have the score that they must have. */
static void assert_answers(const bench *b, const verb *v)
{
    peri_hit hits[K];
    size_t n;
    for (unsigned i = 30; i < 100; i += 7) {
        double want = 0;
        if (i % 9 == 4)
            continue;
        for (int j = 0; j < ENTRIES; j++)
            want += (double)weights[i][j] * (double)weights[i][j];
        assert_int_equal(ask(b, i, 0, hits, &n), PERI_OK);
        int found = 0;
        for (size_t h = 0; h < n && !b->keyed; h++)
            found |= hits[h].id == i * 2 && hits[h].distance == -(float)want;
        if (n != K || (!b->keyed && !found && hits[K - 1].distance > -(float)want))
            fail_msg("%s: row %u is not found", v->name, i);
    }
}

static void assert_opens(const char *path)
{
    peri_sparse *sx;
    uint64_t faults;
    assert_int_equal(peri_sparse_open(&sx, path, 0, NULL, NULL), PERI_OK);
    assert_int_equal(peri_sparse_check(sx, NULL, &faults), PERI_OK);
    assert_int_equal(faults, 0);
    peri_sparse_close(sx);
}

/* One failure. Returns whether there was a call to fail. */
static int fail_one(const verb *v, faulty_what what, uint64_t n, int sticky)
{
    bench b = {.keyed = v->keyed};
    faulty_init(&b.f, FAULTY_NOTHING, n, sticky);
    fill(&b);
    b.f.what = what;
    b.f.error = sticky ? ENOSPC : EIO;
    peri_status status = v->run(&b), want = what == FAULTY_ALLOC ? PERI_ERR_NOMEM : PERI_ERR_IO;
    b.f.what = FAULTY_NOTHING;
    int fired = b.f.fired != NULL;
    if (status != PERI_OK && (!fired || status != want))
        fail_msg("%s, call %llu (%s): %s: %s", v->name, (unsigned long long)n,
                 fired ? b.f.fired : "none", peri_status_name(status), peri_error_detail());
    if (v->run == save && status == PERI_OK) {
        assert_true(!(fired && what == FAULTY_FILES));
        assert_true(b.f.syncs == 1 && b.f.dir_syncs == 1 && b.f.writes_after_sync == 0);
    }
    assert_sparse_valid(&b, v, "after a failure");
    assert_rows(&b, v, status);
    assert_answers(&b, v);
    if (status != PERI_OK) {
        if (v->run(&b) != PERI_OK)
            fail_msg("%s, again after call %llu: %s", v->name, (unsigned long long)n,
                     peri_error_detail());
        assert_rows(&b, v, PERI_OK);
        assert_sparse_valid(&b, v, "tried again");
    }
    peri_sparse_close(b.sx);
    if (!faulty_clean(&b.f))
        fail_msg("%s, call %llu: held %lld blocks, %lld descriptors, %lld mappings", v->name,
                 (unsigned long long)n, (long long)b.f.blocks, (long long)b.f.fds,
                 (long long)b.f.maps);
    assert_opens(former);
    assert_opens(target);
    assert_int_equal(scratch_count(), 2);
    return fired;
}

static void fail_all(faulty_what what)
{
    uint64_t points = 0;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        for (int sticky = 0; sticky < 2; sticky++)
            for (uint64_t n = 1; fail_one(&verbs[i], what, n, sticky); n++)
                points++;
    print_message("%llu %s failed\n", (unsigned long long)points,
                  what == FAULTY_ALLOC ? "allocations" : "calls on files");
    assert_true(points > 100);
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    fail_all(FAULTY_ALLOC);
}

static void every_failed_call_on_files_is_survived(void **state)
{
    (void)state;
    fail_all(FAULTY_FILES);
}

/* A bulk that seals and merges: enough rows for two windows. */
static void a_bulk_with_a_failed_allocation_keeps_its_prefix(void **state)
{
    (void)state;
    enum { BULK = 2 * 8192 + 100 };
    uint64_t *offsets = malloc((BULK + 1) * sizeof *offsets);
    uint32_t *t = malloc(BULK * 2 * sizeof *t);
    float *w = malloc(BULK * 2 * sizeof *w);
    for (unsigned i = 0; i < BULK; i++) {
        offsets[i] = 2 * i;
        t[2 * i] = i % 7;
        t[2 * i + 1] = 10 + i % 13;
        w[2 * i] = w[2 * i + 1] = 1;
    }
    offsets[BULK] = 2 * BULK;
    int fired = 1;
    for (uint64_t n = 1; fired; n += 1 + n / 8) {
        faulty f;
        peri_sparse *sx;
        size_t done;
        uint64_t faults;
        peri_sparse_rows rows = {BULK, offsets, t, w};
        peri_sparse_info info;
        faulty_init(&f, FAULTY_NOTHING, n, 0);
        assert_int_equal(peri_sparse_create(&sx, NULL, &f.env), PERI_OK);
        f.what = FAULTY_ALLOC;
        peri_status status = peri_sparse_put_many(sx, NULL, &rows, 0, NULL, &done);
        f.what = FAULTY_NOTHING;
        fired = f.fired != NULL;
        peri_sparse_info_init(&info);
        assert_int_equal(peri_sparse_get_info(sx, &info), PERI_OK);
        assert_int_equal(info.rows, done);
        assert_true(status == PERI_OK ? done == BULK : fired && status == PERI_ERR_NOMEM);
        assert_int_equal(peri_sparse_check(sx, NULL, &faults), PERI_OK);
        assert_int_equal(faults, 0);
        peri_sparse_close(sx);
        assert_true(faulty_clean(&f));
    }
    free(offsets), free(t), free(w);
}

static int setup(void **state)
{
    (void)state;
    pe_rng rng = {3};
    for (unsigned i = 0; i < ROWS + MORE; i++) {
        uint32_t term = 0;
        for (int j = 0; j < ENTRIES; j++) {
            terms[i][j] = term += 1 + pe_rng_below(&rng, 6);
            weights[i][j] = (float)(pe_rng_unit(&rng) + 0.1);
        }
    }
    bench b = {.keyed = 0};
    faulty_init(&b.f, FAULTY_NOTHING, 0, 0);
    fill(&b);
    former = scratch("former");
    target = scratch("target");
    assert_int_equal(peri_sparse_save(b.sx, former, NULL), PERI_OK);
    assert_int_equal(peri_sparse_save(b.sx, target, NULL), PERI_OK);
    peri_sparse_close(b.sx);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(every_failed_call_on_files_is_survived),
        cmocka_unit_test(a_bulk_with_a_failed_allocation_keeps_its_prefix),
    };
    return cmocka_run_group_tests_name("fault: sparse", tests, setup, scratch_remove);
}
