/* Every check of kernels_checks.c at every level, as tests of their own; then what the dispatch
 * owes: that PERI_CPU picks the level, and that each level is there for a reason. The suite runs
 * this once for each value of PERI_CPU. */
#include "test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels_checks.h"

typedef struct pairing {
    const kernels_check *check;
    const char *level;
    char name[96];
} pairing;

static void check_at_level(void **state)
{
    const pairing *p = *state;
    const pe_kernels *k = pe_kernels_level(p->level);
    if (!k)
        skip();
    assert_int_equal(kernels_check_run(p->check, k), 0);
}

static void peri_cpu_caps_the_level(void **state)
{
    (void)state;
    const char *mask = getenv("PERI_CPU"), *best = "c", *name;
    for (size_t i = 0; (name = pe_kernels_level_name(i)) != NULL && pe_kernels_level(name); i++) {
        best = name;
        if (mask && strcmp(mask, name) == 0)
            break;
    }
    assert_string_equal(pe_kernels_get()->level, best);
    assert_ptr_equal(pe_kernels_get(), pe_kernels_level(best));
}

static void an_unknown_level_is_null(void **state)
{
    (void)state;
    assert_null(pe_kernels_level("mmx"));
    assert_null(pe_kernels_level(""));
    assert_non_null(pe_kernels_level("c"));
}

static void no_entry_of_a_table_is_empty(void **state)
{
    (void)state;
    const char *name;
    for (size_t i = 0; (name = pe_kernels_level_name(i)) != NULL; i++) {
        const pe_kernels *k = pe_kernels_level(name);
        if (!k)
            continue;
        assert_string_equal(k->level, name);
        for (int op = 0; op < PE_OP_COUNT; op++) {
            for (int e = 0; e < PE_ELEM_COUNT; e++) {
                const pe_dist *d = &k->dist[op][e];
                assert_true(d->one && d->four && d->ids && d->run);
                assert_true(k->cosine[e] != NULL);
            }
        }
        assert_true(k->scan32 && k->below32 && k->luts && k->rotate);
        assert_true(k->levels && k->least);
        assert_true(k->tile_dot_f32 && k->f32_to_f16 && k->f16_to_f32 && k->f32_to_bf16);
        assert_true(k->bf16_to_f32 && k->encode_i8 && k->decode_i8 && k->scan_f32);
    }
}

static void *get_table(void *unused)
{
    (void)unused;
    return (void *)(uintptr_t)pe_kernels_get();
}

static void many_threads_get_one_table(void **state)
{
    (void)state;
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_table, NULL), 0);
    for (int i = 0; i < 8; i++) {
        void *table;
        assert_int_equal(pthread_join(threads[i], &table), 0);
        assert_ptr_equal(table, pe_kernels_get());
    }
}

int main(void)
{
    static pairing pairings[128];
    static struct CMUnitTest tests[140];
    size_t n = 0;
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(many_threads_get_one_table);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(peri_cpu_caps_the_level);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(an_unknown_level_is_null);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(no_entry_of_a_table_is_empty);
    const char *level;
    /* With a mask only the level that it picks: the suite has a run for each. */
    for (size_t i = 0, p = 0; (level = pe_kernels_level_name(i)) != NULL; i++) {
        if (getenv("PERI_CPU") && strcmp(getenv("PERI_CPU"), level) != 0)
            continue;
        for (const kernels_check *c = KERNELS_CHECKS; c->name && p < 128; c++, p++) {
            pairings[p] = (pairing){.check = c, .level = level};
            snprintf(pairings[p].name, sizeof pairings[p].name, "%s: %s", level, c->name);
            tests[n++] =
                (struct CMUnitTest){pairings[p].name, check_at_level, NULL, NULL, &pairings[p]};
        }
    }
    return _cmocka_run_group_tests("kernels", tests, n, NULL, NULL);
}
