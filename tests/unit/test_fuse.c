/* Fusion: each method against its formula, what must not change the answer, and bad input. */
#include "test.h"

#include "perigee/fuse.h"
#include "perigee/index.h"
#include "faulty.h"

#include <math.h>

_Static_assert(sizeof(peri_scored) == sizeof(peri_hit), "a leg may hold either");
_Static_assert(offsetof(peri_scored, score) == offsetof(peri_hit, distance), "so it may");

static const peri_scored text_hits[] = {{7, 9.0f, 0}, {3, 6.0f, 0}, {1, 3.0f, 0}};
static const peri_hit near_hits[] = {{3, 0.5f, 0}, {9, 1.0f, 0}};

static void two_legs(peri_fuse_leg legs[2])
{
    peri_fuse_leg_init(&legs[0], text_hits, 3);
    peri_fuse_leg_init(&legs[1], near_hits, 2);
    legs[1].smaller_is_better = 1;
    legs[1].worst = 2;
}

static size_t fuse(uint32_t method, uint32_t k, size_t n, const peri_fuse_leg *legs,
                   peri_fused *hits)
{
    peri_fusion f;
    size_t n_hits = 99;
    peri_fusion_init(&f, method, k);
    assert_int_equal(peri_fuse_legs(&f, n, legs, NULL, hits, &n_hits), PERI_OK);
    return n_hits;
}

static void reciprocal_ranks_follow_the_paper(void **state)
{
    (void)state;
    peri_fuse_leg legs[2];
    peri_fused hits[10];
    two_legs(legs);
    assert_int_equal(fuse(PERI_FUSE_RRF, 10, 2, legs, hits), 4);
    assert_int_equal(hits[0].id, 3);
    assert_true(hits[0].score == 1.0 / 62 + 1.0 / 61);
    assert_int_equal(hits[1].id, 7);
    assert_true(hits[1].score == 1.0 / 61);
    assert_int_equal(hits[2].id, 9);
    assert_true(hits[2].score == 1.0 / 62);
    assert_int_equal(hits[3].id, 1);
    assert_true(hits[3].score == 1.0 / 63);
}

static void ranks_may_start_at_nought_and_the_constant_is_the_callers(void **state)
{
    (void)state;
    peri_fuse_leg legs[2];
    peri_fused hits[10];
    peri_fusion f;
    size_t n;
    two_legs(legs);
    legs[1].weight = 3;
    peri_fusion_init(&f, PERI_FUSE_RRF, 2);
    f.rank_origin = PERI_RANK_FROM_0;
    f.rank_constant = 2;
    assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, hits, &n), PERI_OK);
    assert_int_equal(n, 2);
    assert_int_equal(hits[0].id, 3);
    assert_true(hits[0].score == 1.0 / 3 + 3.0 / 2);
    assert_int_equal(hits[1].id, 9);
    assert_true(hits[1].score == 3.0 * (1.0 / 3));
    /* A constant below 1 is a constant, too. */
    f.rank_constant = 0.25;
    assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, hits, &n), PERI_OK);
    assert_true(hits[0].score == 1.0 / 1.25 + 3.0 / 0.25);
}

static void convex_combination_counts_from_the_theoretical_minimum(void **state)
{
    (void)state;
    peri_fuse_leg legs[2];
    peri_fused hits[10];
    two_legs(legs);
    assert_int_equal(fuse(PERI_FUSE_CONVEX, 10, 2, legs, hits), 4);
    /* text: score / 9; vectors: (2 - distance) / 1.5 */
    assert_int_equal(hits[0].id, 3);
    assert_float_equal(hits[0].score, 6.0 / 9 + 1, 1e-12);
    assert_int_equal(hits[1].id, 7);
    assert_float_equal(hits[1].score, 1, 1e-12);
    assert_int_equal(hits[2].id, 9);
    assert_float_equal(hits[2].score, 1.0 / 1.5, 1e-12);
    assert_int_equal(hits[3].id, 1);
    assert_float_equal(hits[3].score, 3.0 / 9, 1e-12);
}

static void scores_below_the_minimum_and_equal_scores_are_no_trouble(void **state)
{
    (void)state;
    peri_scored low[] = {{1, -5.0f, 0}, {2, -6.0f, 0}}, same[] = {{5, 2.0f, 0}, {4, 2.0f, 0}};
    peri_fuse_leg leg;
    peri_fused hits[2];
    peri_fuse_leg_init(&leg, low, 2);
    fuse(PERI_FUSE_CONVEX, 2, 1, &leg, hits);
    assert_true(hits[0].score == 0 && hits[1].score == 0);
    peri_fuse_leg_init(&leg, same, 2);
    fuse(PERI_FUSE_DBSF, 2, 1, &leg, hits);
    assert_true(hits[0].score == 0.5 && hits[1].score == 0.5);
    assert_int_equal(hits[0].id, 4); /* ties by smaller id */
}

static void distribution_based_scores_lie_between_three_deviations(void **state)
{
    (void)state;
    peri_fuse_leg leg;
    peri_fused hits[3];
    peri_fuse_leg_init(&leg, text_hits, 3); /* mean 6, deviation 3 */
    assert_int_equal(fuse(PERI_FUSE_DBSF, 3, 1, &leg, hits), 3);
    assert_float_equal(hits[0].score, (9.0 + 3) / 18, 1e-12);
    assert_float_equal(hits[1].score, 0.5, 1e-12);
    assert_float_equal(hits[2].score, (3.0 + 3) / 18, 1e-12);
}

/* Leg 0 knows all texts: id / 2; leg 1 knows only even ids. */
static peri_status score(void *ctx, size_t leg, size_t n, const uint64_t *ids, float *scores)
{
    *(size_t *)ctx += n;
    for (size_t i = 0; i < n; i++)
        scores[i] = leg == 0 ? (float)ids[i] / 2 : ids[i] % 2 ? NAN : 1.25f;
    return PERI_OK;
}

static void absent_ids_are_scored_where_the_caller_can(void **state)
{
    (void)state;
    peri_fuse_leg legs[2];
    peri_fused hits[4];
    peri_fusion f;
    size_t n, asked = 0;
    two_legs(legs);
    peri_fusion_init(&f, PERI_FUSE_CONVEX, 4);
    f.score = score;
    f.score_ctx = &asked;
    assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, hits, &n), PERI_OK);
    assert_int_equal(asked, 1 + 2); /* 9 for the texts, 7 and 1 for the vectors */
    assert_int_equal(hits[1].id, 9);
    assert_float_equal(hits[1].score, 4.5 / 9 + 1 / 1.5, 1e-12);
    f.method = PERI_FUSE_RRF;
    assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, hits, &n), PERI_OK);
    assert_int_equal(hits[0].id, 3); /* texts 7 3 9 1, vectors 3 9 */
    assert_true(hits[0].score == 1.0 / 62 + 1.0 / 61);
    assert_int_equal(hits[1].id, 9);
    assert_true(hits[1].score == 1.0 / 63 + 1.0 / 62);
}

static peri_status refuse(void *ctx, size_t leg, size_t n, const uint64_t *ids, float *scores)
{
    (void)ctx, (void)leg, (void)n, (void)ids;
    scores[0] = INFINITY;
    return leg == 0 ? PERI_ERR_CANCELLED : PERI_OK;
}

static void what_the_callback_says_is_passed_on(void **state)
{
    (void)state;
    peri_fuse_leg legs[2], swapped[2];
    peri_fused hits[4];
    peri_fusion f;
    size_t n;
    two_legs(legs);
    peri_fusion_init(&f, PERI_FUSE_DBSF, 4);
    f.score = refuse;
    assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, hits, &n), PERI_ERR_CANCELLED);
    swapped[0] = legs[0];
    swapped[1] = legs[1];
    swapped[0].n = 0; /* asked for 3 and 9, which fails; with only leg 1 to ask, infinity is seen */
    swapped[0] = legs[1];
    swapped[1] = legs[0];
    swapped[0].hits = text_hits;
    swapped[0].n = 3;
    peri_scored more[] = {{7, 1, 0}, {3, 1, 0}};
    swapped[1].hits = more;
    swapped[1].n = 2;
    assert_int_equal(peri_fuse_legs(&f, 2, swapped, NULL, hits, &n), PERI_ERR_NONFINITE);
}

static void the_order_of_the_legs_does_not_matter(void **state)
{
    (void)state;
    enum { LEGS = 5, N = 40 };
    peri_scored rows[LEGS][N];
    peri_fuse_leg legs[LEGS], turned[LEGS];
    peri_fused a[LEGS * N], b[LEGS * N];
    uint32_t x = 1;
    for (size_t l = 0; l < LEGS; l++) {
        for (size_t i = 0; i < N; i++) {
            x = x * 1664525 + 1013904223;
            rows[l][i] = (peri_scored){i * 7 + (x >> 20) % 7, (float)(x >> 8) / 3e6f, 0};
        }
        peri_fuse_leg_init(&legs[l], rows[l], N);
        legs[l].weight = 0.1 + (double)l / 3;
    }
    for (uint32_t method = PERI_FUSE_RRF; method <= PERI_FUSE_DBSF; method++)
        for (size_t turn = 1; turn < LEGS; turn++) {
            for (size_t l = 0; l < LEGS; l++)
                turned[l] = legs[(l + turn) % LEGS];
            size_t n = fuse(method, LEGS * N, LEGS, legs, a);
            assert_int_equal(fuse(method, LEGS * N, LEGS, turned, b), n);
            assert_memory_equal(a, b, n * sizeof *a);
            for (size_t i = 1; i < n; i++)
                assert_true(a[i - 1].score > a[i].score ||
                            (a[i - 1].score == a[i].score && a[i - 1].id < a[i].id));
            /* The best few of all are the best few. */
            assert_int_equal(fuse(method, 7, LEGS, legs, b), 7);
            assert_memory_equal(a, b, 7 * sizeof *a);
        }
}

static void bad_input_is_named(void **state)
{
    (void)state;
    peri_fuse_leg legs[2];
    peri_fused hits[4];
    peri_fusion f;
    size_t n;
    peri_scored twice[] = {{5, 1, 0}, {5, 2, 0}}, bad[] = {{5, NAN, 0}};
    peri_fusion_init(&f, PERI_FUSE_RRF, 4);
#define EXPECT(status)                                                                             \
    do {                                                                                           \
        assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, hits, &n), (status));                   \
        peri_fusion_init(&f, PERI_FUSE_RRF, 4);                                                    \
        two_legs(legs);                                                                            \
    } while (0)
    two_legs(legs);
    EXPECT(PERI_OK);
    f.k = 0;
    EXPECT(PERI_ERR_ARG);
    f.struct_size = 3;
    EXPECT(PERI_ERR_ARG);
    f.method = 0;
    EXPECT(PERI_ERR_CONFIG);
    f.method = 4;
    EXPECT(PERI_ERR_CONFIG);
    f.rank_constant = -1;
    EXPECT(PERI_ERR_CONFIG);
    f.rank_constant = NAN;
    EXPECT(PERI_ERR_CONFIG);
    f.rank_origin = 2;
    EXPECT(PERI_ERR_CONFIG);
    legs[1].weight = -2;
    EXPECT(PERI_ERR_CONFIG);
    legs[1].weight = INFINITY;
    EXPECT(PERI_ERR_CONFIG);
    f.method = PERI_FUSE_CONVEX;
    legs[1].worst = NAN;
    EXPECT(PERI_ERR_CONFIG);
    legs[0].struct_size = 0;
    EXPECT(PERI_ERR_ARG);
    legs[0].hits = NULL;
    EXPECT(PERI_ERR_ARG);
    legs[0].hits = twice;
    legs[0].n = 2;
    EXPECT(PERI_ERR_ARG);
    f.method = PERI_FUSE_DBSF;
    legs[0].hits = bad;
    legs[0].n = 1;
    EXPECT(PERI_ERR_NONFINITE);
    legs[0].hits = bad; /* ranks do not look at scores */
    legs[0].n = 1;
    EXPECT(PERI_OK);
    assert_int_equal(peri_fuse_legs(&f, 0, legs, NULL, hits, &n), PERI_ERR_ARG);
    assert_int_equal(peri_fuse_legs(&f, 65, legs, NULL, hits, &n), PERI_ERR_ARG);
    assert_int_equal(peri_fuse_legs(NULL, 2, legs, NULL, hits, &n), PERI_ERR_ARG);
    assert_int_equal(peri_fuse_legs(&f, 2, NULL, NULL, hits, &n), PERI_ERR_ARG);
    assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, NULL, &n), PERI_ERR_ARG);
    assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, hits, NULL), PERI_ERR_ARG);
    legs[0].n = legs[1].n = 0;
    assert_int_equal(peri_fuse_legs(&f, 2, legs, NULL, hits, &n), PERI_OK);
    assert_int_equal(n, 0);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    peri_fuse_leg legs[2];
    peri_fused hits[4];
    peri_fusion f;
    size_t n, asked = 0;
    const char *fired = "";
    two_legs(legs);
    peri_fusion_init(&f, PERI_FUSE_RRF, 4);
    f.score = score;
    f.score_ctx = &asked;
    for (uint64_t i = 1; fired; i++) {
        faulty fault;
        faulty_init(&fault, FAULTY_ALLOC, i, 0);
        peri_status status = peri_fuse_legs(&f, 2, legs, &fault.env, hits, &n);
        fired = fault.fired;
        assert_int_equal(status, fired ? PERI_ERR_NOMEM : PERI_OK);
        assert_true(faulty_clean(&fault));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reciprocal_ranks_follow_the_paper),
        cmocka_unit_test(ranks_may_start_at_nought_and_the_constant_is_the_callers),
        cmocka_unit_test(convex_combination_counts_from_the_theoretical_minimum),
        cmocka_unit_test(scores_below_the_minimum_and_equal_scores_are_no_trouble),
        cmocka_unit_test(distribution_based_scores_lie_between_three_deviations),
        cmocka_unit_test(absent_ids_are_scored_where_the_caller_can),
        cmocka_unit_test(what_the_callback_says_is_passed_on),
        cmocka_unit_test(the_order_of_the_legs_does_not_matter),
        cmocka_unit_test(bad_input_is_named),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
