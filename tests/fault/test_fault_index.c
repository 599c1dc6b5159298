/* Every allocation and every call on files fails, once and from then on, in each verb of an index.
 * After a failure the index is as it was: the same rows, a clean proof, the same answers; the verb
 * works when it is tried again; nothing leaks; a file that was to be replaced is whole. */
#include "base/rng.h"
#include "faulty.h"
#include "perigee/index.h"
#include "scratch.h"

enum { DIM = 20, ROWS = 90, MORE = 40, K = 5 };

static float rows[ROWS + MORE][DIM];

typedef struct bench {
    faulty f;
    peri_index *ix;
    int kind, keyed;
    uint64_t n_rows; /* before the verb */
} bench;

typedef struct verb {
    const char *name;
    peri_status (*run)(bench *b);
    int adds; /* rows that success adds */
    int part; /* a failure may leave the first rows of a batch in */
    int keyed;
} verb;

static const char *const kind_names[] = {"flat", "hnsw", "gwi", "cascade", "layout Q"};
static const char *former, *target;

/* ---- the index that each verb starts from ---- */

static peri_slice key_of_row(unsigned i, char text[40])
{
    return (peri_slice){text, (size_t)snprintf(text, 40, "the key of row %u", i)};
}

static peri_status create(peri_index **ix, int kind, const peri_env *env)
{
    peri_space space;
    peri_hnsw_config config;
    peri_space_init(&space, DIM, PERI_METRIC_COSINE);
    if (kind == 0)
        return peri_flat_create(ix, &space, env);
    if (kind == 2) {
        peri_gwi_config wells;
        peri_gwi_config_init(&wells);
        wells.train_rows = 64;
        return peri_gwi_create(ix, &space, &wells, env);
    }
    peri_hnsw_config_init(&config);
    config.m = 6;
    config.ef_construction = 60;
    if (kind == 3) {
        peri_cascade_config cascade;
        peri_cascade_config_init(&cascade);
        cascade.degree = 12;
        cascade.num_hyperplanes = 6;
        cascade.bucket_capacity = 8;
        return peri_cascade_create(ix, &space, &cascade, env);
    }
    if (kind == 4) {
        config.m_max = 32;
        config.layout = PERI_LAYOUT_Q;
    }
    return peri_hnsw_create(ix, &space, &config, env);
}

static void fill(bench *b)
{
    char text[40];
    assert_int_equal(create(&b->ix, b->kind, &b->f.env), PERI_OK);
    for (unsigned i = 0; i < ROWS; i++) {
        peri_status status =
            b->keyed ? peri_index_put_keyed(b->ix, key_of_row(i, text), rows[i], 0, NULL)
                     : peri_index_put(b->ix, i * 2, rows[i], 0);
        assert_int_equal(status, PERI_OK);
    }
    for (unsigned i = 4; i < ROWS; i += 9)
        assert_int_equal(b->keyed ? peri_index_remove_keyed(b->ix, key_of_row(i, text))
                                  : peri_index_remove(b->ix, i * 2),
                         PERI_OK);
    peri_index_info info;
    peri_index_info_init(&info);
    assert_int_equal(peri_index_get_info(b->ix, &info), PERI_OK);
    b->n_rows = info.rows;
}

/* ---- the verbs ---- */

static peri_status put_new(bench *b)
{
    return peri_index_put(b->ix, 1001, rows[ROWS], PERI_PUT_NEW);
}

static peri_status put_again(bench *b)
{
    return peri_index_put(b->ix, 10, rows[ROWS + 1], 0);
}

static peri_status put_many(bench *b)
{
    uint64_t ids[MORE];
    size_t done;
    for (unsigned i = 0; i < MORE; i++)
        ids[i] = 5001 + i;
    return peri_index_put_many(b->ix, MORE, ids, rows[ROWS], 0, NULL, &done);
}

static peri_status put_keyed(bench *b)
{
    char text[40];
    return peri_index_put_keyed(b->ix, key_of_row(7777, text), rows[ROWS], 0, NULL);
}

static peri_status put_many_keyed(bench *b)
{
    char text[MORE][40];
    peri_slice keys[MORE];
    size_t done;
    for (unsigned i = 0; i < MORE; i++)
        keys[i] = key_of_row(8000 + i, text[i]);
    return peri_index_put_many_keyed(b->ix, MORE, keys, rows[ROWS], 0, NULL, &done);
}

static peri_status remove_one(bench *b)
{
    return peri_index_remove(b->ix, 20);
}

static peri_status remove_keyed(bench *b)
{
    char text[40];
    return peri_index_remove_keyed(b->ix, key_of_row(11, text));
}

static peri_status reserve(bench *b)
{
    return peri_index_reserve(b->ix, 5000);
}

static peri_status search(bench *b)
{
    peri_query q;
    peri_hit hits[K];
    size_t n;
    peri_query_init(&q, K);
    return peri_index_search(b->ix, rows[3], &q, hits, &n);
}

static peri_status search_filtered(bench *b)
{
    peri_query q;
    peri_hit hits[K];
    size_t n;
    peri_idset *set;
    uint64_t ids[] = {0, 2, 4, 6, 30};
    peri_query_init(&q, K);
    peri_status status = peri_idset_create(&set, &b->f.env);
    if (status == PERI_OK)
        status = peri_idset_add(set, 5, ids);
    q.allow = set;
    if (status == PERI_OK)
        status = peri_index_search(b->ix, rows[3], &q, hits, &n);
    peri_idset_close(set);
    return status;
}

static peri_status search_many(bench *b)
{
    peri_query q;
    peri_hit hits[8 * K];
    size_t n[8];
    peri_query_init(&q, K);
    return peri_index_search_many(b->ix, 8, rows[0], &q, NULL, hits, n);
}

static peri_status maintain(bench *b)
{
    return peri_index_maintain(b->ix, NULL);
}

static peri_status check(bench *b)
{
    uint64_t faults;
    return peri_index_check(b->ix, NULL, &faults);
}

static peri_status save(bench *b)
{
    return peri_index_save(b->ix, target, NULL);
}

static peri_status open_how(bench *b, uint32_t flags)
{
    peri_index *other = NULL;
    peri_query q;
    peri_hit hits[K];
    size_t n;
    peri_status status = peri_index_open(&other, former, flags, &b->f.env, NULL);
    if (status != PERI_OK)
        assert_null(other);
    peri_query_init(&q, K);
    if (status == PERI_OK)
        status = peri_index_search(other, rows[3], &q, hits, &n);
    if (status == PERI_OK && !(flags & PERI_OPEN_READONLY))
        status = peri_index_put(other, 77777, rows[ROWS], 0);
    peri_index_close(other);
    return status;
}

static peri_status open_copied(bench *b)
{
    return open_how(b, 0);
}

static peri_status open_mapped(bench *b)
{
    return open_how(b, PERI_OPEN_MAP | PERI_OPEN_READONLY);
}

static peri_status open_mapped_writable(bench *b)
{
    return open_how(b, PERI_OPEN_MAP);
}

static peri_status create_another(bench *b)
{
    peri_index *other = NULL;
    peri_status status = create(&other, b->kind, &b->f.env);
    if (status != PERI_OK)
        assert_null(other);
    peri_index_close(other);
    return status;
}

static const verb verbs[] = {
    {"put", put_new, 1, 0, 0},
    {"put again", put_again, 0, 0, 0},
    {"put_many", put_many, MORE, 1, 0},
    {"put_keyed", put_keyed, 1, 0, 1},
    {"put_many_keyed", put_many_keyed, MORE, 1, 1},
    {"remove", remove_one, -1, 0, 0},
    {"remove_keyed", remove_keyed, -1, 0, 1},
    {"reserve", reserve, 0, 0, 0},
    {"search", search, 0, 0, 0},
    {"search, filtered", search_filtered, 0, 0, 0},
    {"search_many", search_many, 0, 0, 0},
    {"maintain", maintain, 0, 0, 0},
    {"maintain, keyed", maintain, 0, 0, 1},
    {"check", check, 0, 0, 0},
    {"save", save, 0, 0, 0},
    {"save, keyed", save, 0, 0, 1},
    {"open copied", open_copied, 0, 0, 0},
    {"open mapped", open_mapped, 0, 0, 0},
    {"open mapped writable", open_mapped_writable, 0, 0, 0},
    {"create", create_another, 0, 0, 0},
};

/* ---- what must hold afterwards ---- */

static void assert_index_valid(const bench *b, const verb *v, const char *when)
{
    uint64_t faults = 0;
    peri_status status = peri_index_check(b->ix, NULL, &faults);
    if (status != PERI_OK || faults)
        fail_msg("%s %s: %llu faults: %s", v->name, when, (unsigned long long)faults,
                 peri_error_detail());
}

static void assert_rows(const bench *b, const verb *v, peri_status status)
{
    peri_index_info info;
    peri_index_info_init(&info);
    assert_int_equal(peri_index_get_info(b->ix, &info), PERI_OK);
    int64_t added = (int64_t)info.rows - (int64_t)b->n_rows;
    if (v->part && status != PERI_OK)
        assert_in_range(added, 0, v->adds);
    else
        assert_int_equal(added, status == PERI_OK ? v->adds : 0);
}

/* Rows that no verb touches are found, nearest to themselves. */
static void assert_answers(const bench *b, const verb *v)
{
    peri_query q;
    peri_hit hits[K];
    size_t n;
    peri_query_init(&q, K);
    for (unsigned i = 30; i < ROWS; i += 7) {
        if (i % 9 == 4)
            continue;
        assert_int_equal(peri_index_search(b->ix, rows[i], &q, hits, &n), PERI_OK);
        if (n != K || (!b->keyed && hits[0].id != i * 2))
            fail_msg("%s: row %u is not found", v->name, i);
    }
}

static void assert_opens(const char *path)
{
    peri_index *ix;
    uint64_t faults;
    assert_int_equal(peri_index_open(&ix, path, 0, NULL, NULL), PERI_OK);
    assert_int_equal(peri_index_check(ix, NULL, &faults), PERI_OK);
    assert_int_equal(faults, 0);
    peri_index_close(ix);
}

/* One failure. Returns whether there was a call to fail. */
static int fail_one(const verb *v, int kind, faulty_what what, uint64_t n, int sticky)
{
    bench b = {.kind = kind, .keyed = v->keyed};
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
    if (v->run == save && status == PERI_OK && (fired && what == FAULTY_FILES))
        fail_msg("save: %s failed and nobody was told", b.f.fired);
    if (v->run == save && status == PERI_OK)
        assert_true(b.f.syncs == 1 && b.f.dir_syncs == 1 && b.f.writes_after_sync == 0);
    assert_index_valid(&b, v, "after a failure");
    assert_rows(&b, v, status);
    assert_answers(&b, v);
    if (status != PERI_OK) {
        peri_status again = v->run(&b);
        if (again != PERI_OK)
            fail_msg("%s, again after call %llu: %s", v->name, (unsigned long long)n,
                     peri_error_detail());
        assert_rows(&b, v, PERI_OK);
        assert_index_valid(&b, v, "tried again");
    }
    peri_index_close(b.ix);
    if (!faulty_clean(&b.f))
        fail_msg("%s, call %llu: held %lld blocks, %lld descriptors, %lld mappings", v->name,
                 (unsigned long long)n, (long long)b.f.blocks, (long long)b.f.fds,
                 (long long)b.f.maps);
    assert_opens(former);
    assert_opens(target);
    assert_int_equal(scratch_count(), 2);
    return fired;
}

static void fail_all(int kind, faulty_what what)
{
    uint64_t points = 0;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        for (int sticky = 0; sticky < 2; sticky++)
            for (uint64_t n = 1; fail_one(&verbs[i], kind, what, n, sticky); n++)
                points++;
    print_message("%s: %llu %s failed\n", kind_names[kind], (unsigned long long)points,
                  what == FAULTY_ALLOC ? "allocations" : "calls on files");
}

/* A long life in which one call fails, or all from then on: what each step said is what is there.
 */
enum { STEPS = 260, IDS = 70 };

static peri_status step(bench *b, pe_rng *rng, int present[IDS])
{
    uint32_t id = pe_rng_below(rng, IDS), row = pe_rng_below(rng, ROWS);
    peri_status status;
    if (present[id] >= 0 && pe_rng_below(rng, 3)) {
        status = peri_index_remove(b->ix, id);
        present[id] = status == PERI_OK ? -1 : present[id];
    } else {
        status = peri_index_put(b->ix, id, rows[row], 0);
        present[id] = status == PERI_OK ? (int)row : present[id];
    }
    return status;
}

static void assert_lives(const bench *b, const int present[IDS], const verb *v)
{
    float row[DIM];
    peri_query q;
    peri_hit hit;
    size_t n;
    peri_query_init(&q, 1);
    assert_index_valid(b, v, "after a life with failures");
    for (uint32_t id = 0; id < IDS; id++) {
        peri_status status = peri_index_get(b->ix, id, row);
        assert_int_equal(status, present[id] < 0 ? PERI_ERR_NOT_FOUND : PERI_OK);
        if (status != PERI_OK)
            continue;
        assert_int_equal(peri_index_search(b->ix, rows[present[id]], &q, &hit, &n), PERI_OK);
        if (n != 1 || hit.distance > 1e-4f)
            fail_msg("id %u is not found", id);
    }
}

static int live_one(int kind, uint64_t n, int sticky)
{
    static const verb life = {.name = "life"};
    bench b = {.kind = kind};
    int present[IDS];
    pe_rng rng = {n};
    memset(present, 0xff, sizeof present);
    faulty_init(&b.f, FAULTY_NOTHING, n, sticky);
    assert_int_equal(create(&b.ix, kind, &b.f.env), PERI_OK);
    for (int i = 0; i < STEPS; i++) {
        /* A third of the life is whole, a third fails, and a third must put up with the result. */
        b.f.what = i >= STEPS / 3 && i < STEPS * 2 / 3 ? FAULTY_ALLOC : FAULTY_NOTHING;
        peri_status status = step(&b, &rng, present);
        if (status != PERI_OK && !(status == PERI_ERR_NOMEM && b.f.fired))
            fail_msg("step %d: %s", i, peri_error_detail());
    }
    b.f.what = FAULTY_NOTHING;
    int fired = b.f.fired != NULL;
    assert_lives(&b, present, &life);
    assert_int_equal(peri_index_maintain(b.ix, NULL), PERI_OK);
    assert_lives(&b, present, &life);
    peri_index_close(b.ix);
    assert_true(faulty_clean(&b.f));
    return fired;
}

static void a_life_with_failed_allocations_stays_right(void **state)
{
    (void)state;
    uint64_t points = 0;
    for (int kind = 0; kind < 3; kind++)
        for (int sticky = 0; sticky < 2; sticky++)
            for (uint64_t n = 1; live_one(kind, n, sticky); n++)
                points++;
    print_message("%llu allocations failed\n", (unsigned long long)points);
    assert_true(points > 30);
}

static void make_files(int kind)
{
    bench b = {.kind = kind};
    faulty_init(&b.f, FAULTY_NOTHING, 0, 0);
    former = scratch("former");
    target = scratch("target");
    fill(&b);
    assert_int_equal(peri_index_save(b.ix, former, NULL), PERI_OK);
    assert_int_equal(peri_index_save(b.ix, target, NULL), PERI_OK);
    peri_index_close(b.ix);
}

static void a_flat_index_survives_every_failed_allocation(void **state)
{
    (void)state;
    make_files(0);
    fail_all(0, FAULTY_ALLOC);
}

static void a_flat_index_survives_every_failed_call_on_files(void **state)
{
    (void)state;
    make_files(0);
    fail_all(0, FAULTY_FILES);
}

static void an_hnsw_index_survives_every_failed_allocation(void **state)
{
    (void)state;
    make_files(1);
    fail_all(1, FAULTY_ALLOC);
}

static void an_hnsw_index_survives_every_failed_call_on_files(void **state)
{
    (void)state;
    make_files(1);
    fail_all(1, FAULTY_FILES);
}

static void gravity_wells_survive_every_failed_allocation(void **state)
{
    (void)state;
    make_files(2);
    fail_all(2, FAULTY_ALLOC);
}

static void gravity_wells_survive_every_failed_call_on_files(void **state)
{
    (void)state;
    make_files(2);
    fail_all(2, FAULTY_FILES);
}

static void a_cascade_survives_every_failed_allocation(void **state)
{
    (void)state;
    make_files(3);
    fail_all(3, FAULTY_ALLOC);
}

static void a_cascade_survives_every_failed_call_on_files(void **state)
{
    (void)state;
    make_files(3);
    fail_all(3, FAULTY_FILES);
}

static void layout_q_survives_every_failed_allocation(void **state)
{
    (void)state;
    make_files(4);
    fail_all(4, FAULTY_ALLOC);
}

static void layout_q_survives_every_failed_call_on_files(void **state)
{
    (void)state;
    make_files(4);
    fail_all(4, FAULTY_FILES);
}

static int setup(void **state)
{
    (void)state;
    pe_rng rng = {3};
    for (size_t i = 0; i < (ROWS + MORE) * (size_t)DIM; i++)
        rows[i / DIM][i % DIM] = (float)(pe_rng_unit(&rng) - 0.5);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flat_index_survives_every_failed_allocation),
        cmocka_unit_test(a_flat_index_survives_every_failed_call_on_files),
        cmocka_unit_test(an_hnsw_index_survives_every_failed_allocation),
        cmocka_unit_test(an_hnsw_index_survives_every_failed_call_on_files),
        cmocka_unit_test(gravity_wells_survive_every_failed_allocation),
        cmocka_unit_test(gravity_wells_survive_every_failed_call_on_files),
        cmocka_unit_test(a_cascade_survives_every_failed_allocation),
        cmocka_unit_test(a_cascade_survives_every_failed_call_on_files),
        cmocka_unit_test(layout_q_survives_every_failed_allocation),
        cmocka_unit_test(layout_q_survives_every_failed_call_on_files),
        cmocka_unit_test(a_life_with_failed_allocations_stays_right),
    };
    return cmocka_run_group_tests_name("fault: index", tests, setup, scratch_remove);
}
