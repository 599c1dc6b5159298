/* From text to terms: what is a word, in which form, at which position. */
#include "test.h"

#include "text/analyse.h"

#include <stdio.h>
#include <stdlib.h>

static pe_host host;

typedef struct list {
    char text[4096];
    size_t size, n;
} list;

static peri_status add(void *ctx, const pe_token *t)
{
    list *l = ctx;
    l->size += (size_t)snprintf(l->text + l->size, sizeof l->text - l->size, "%s%.*s@%u",
                                l->n ? " " : "", (int)t->size, t->text, t->position);
    l->n++;
    return PERI_OK;
}

static void expect_as(const peri_text_config *config, int mode, const char *text, size_t size,
                      const char *expected)
{
    pe_analysis how;
    pe_analyser a;
    list l = {.size = 0};
    uint32_t position = 0;
    assert_int_equal(pe_analysis_init(&how, &host, config), PERI_OK);
    assert_int_equal(pe_analyser_init(&a, &how), PERI_OK);
    assert_int_equal(pe_analyse(&a, (peri_slice){text, size}, mode, &position, add, &l), PERI_OK);
    if (strcmp(l.text, expected) != 0)
        fail_msg("'%s' became '%s', expected '%s'", text, l.text, expected);
    pe_analyser_destroy(&a);
    pe_analysis_destroy(&how);
}

static void expect(const char *text, const char *expected)
{
    peri_text_config config;
    peri_text_config_init(&config);
    expect_as(&config, PE_ANALYSE_TERMS, text, strlen(text), expected);
}

static void words_are_runs_of_letters_and_digits(void **state)
{
    (void)state;
    expect("", "");
    expect("  ,.- ", "");
    expect("Hello, World!", "hello@0 world@1");
    expect("well-known IL-6 (p53)", "well@0 known@1 il@2 6@3 p53@4");
    expect("3.14 1,000 a.b 7. .5 1..2", "3.14@0 1,000@1 a@2 b@3 7@4 5@5 1@6 2@7");
    expect("don't films' film's 'quoted' o''clock", "don't@0 films@1 film@2 quoted@3 o@4 clock@5");
    expect("don\xe2\x80\x99t Satie\xe2\x80\x99s", "don't@0 satie@1");
    expect("snake_case", "snake@0 case@1");
}

static void words_are_folded(void **state)
{
    (void)state;
    expect("\xc3\x84rger STRASSE stra\xc3\x9f"
           "e",
           "\xc3\xa4rger@0 strasse@1 strasse@2");
    /* a + combining ring = a with ring; the ligature fi; full-width letters; Greek final sigma */
    expect("A\xcc\x8angstro\xcc\x88m", "\xc3\xa5ngstr\xc3\xb6m@0");
    expect("\xef\xac\x81ne \xef\xbc\xa1\xef\xbc\xa2\xef\xbc\x91", "fine@0 ab1@1");
    expect("\xce\xa3\xce\x99\xce\xa3 \xcf\x83\xce\xb9\xcf\x82",
           "\xcf\x83\xce\xb9\xcf\x83@0 \xcf\x83\xce\xb9\xcf\x83@1");
    /* A soft hyphen is no character at all; two marks in either order are the same. */
    expect("co\xc2\xadoperate", "cooperate@0");
    expect("a\xcc\x87\xcc\xa3 a\xcc\xa3\xcc\x87", "\xe1\xba\xa1\xcc\x87@0 \xe1\xba\xa1\xcc\x87@1");
}

static void accents_go_only_where_asked(void **state)
{
    (void)state;
    peri_text_config config;
    peri_text_config_init(&config);
    config.accents = PERI_ACCENTS_STRIP;
    const char *text = "Caf\xc3\xa9 \xe3\x82\xac\xe3\x83\x83";
    expect_as(&config, PE_ANALYSE_TERMS, text, strlen(text), "cafe@0 \xe3\x82\xac\xe3\x83\x83@1");
}

static void scripts_without_spaces_become_pairs(void **state)
{
    (void)state;
    /* Tokyo-to; one character by itself; Latin beside Han; half-width kana with a voice mark. */
    expect("\xe6\x9d\xb1\xe4\xba\xac\xe9\x83\xbd",
           "\xe6\x9d\xb1\xe4\xba\xac@0 \xe4\xba\xac\xe9\x83\xbd@1");
    expect("\xe6\x9d\xb1 x", "\xe6\x9d\xb1@0 x@1");
    expect("iPhone\xe6\x89\x8b\xe6\x9c\xba"
           "5",
           "iphone@0 \xe6\x89\x8b\xe6\x9c\xba@1 5@2");
    expect("\xef\xbd\xb6\xef\xbe\x9e\xef\xbd\xaf", "\xe3\x82\xac\xe3\x83\x83@0");
    expect("\xe6\x9d\xb1\xe3\x80\x82\xe4\xba\xac", "\xe6\x9d\xb1@0 \xe4\xba\xac@1");
    expect("\xed\x95\x9c\xea\xb5\xad\xec\x96\xb4",
           "\xed\x95\x9c\xea\xb5\xad@0 \xea\xb5\xad\xec\x96\xb4@1");
    peri_text_config config;
    peri_text_config_init(&config);
    config.script = PERI_SCRIPT_SINGLE;
    expect_as(&config, PE_ANALYSE_TERMS, "\xe6\x9d\xb1\xe4\xba\xac", 6,
              "\xe6\x9d\xb1@0 \xe4\xba\xac@1");
}

static peri_status count_pairs(void *ctx, const pe_token *t)
{
    size_t *n = ctx;
    assert_int_equal(t->size, 6);
    assert_int_equal(t->position, *n);
    ++*n;
    return PERI_OK;
}

static void a_run_longer_than_any_buffer_loses_no_pair(void **state)
{
    (void)state;
    enum { RUN = 5000 };
    peri_text_config config;
    pe_analysis how;
    pe_analyser a;
    size_t n = 0;
    uint32_t position = 0;
    char *text = malloc(RUN * 3);
    assert_non_null(text);
    for (size_t i = 0; i < RUN; i++)
        memcpy(text + 3 * i, i % 3 ? "\xe4\xba\xac" : "\xe6\x9d\xb1", 3);
    peri_text_config_init(&config);
    assert_int_equal(pe_analysis_init(&how, &host, &config), PERI_OK);
    assert_int_equal(pe_analyser_init(&a, &how), PERI_OK);
    assert_int_equal(pe_analyse(&a, (peri_slice){text, RUN * 3}, 0, &position, count_pairs, &n),
                     PERI_OK);
    assert_int_equal(n, RUN - 1);
    pe_analyser_destroy(&a);
    pe_analysis_destroy(&how);
    free(text);
}

static void bytes_that_are_no_text_separate(void **state)
{
    (void)state;
    peri_text_config config;
    peri_text_config_init(&config);
    expect("a\xff"
           "b\xc3 c\xe2\x82",
           "a@0 b@1 c@2");
    expect_as(&config, PE_ANALYSE_TERMS, "nul\0nul", 7, "nul@0 nul@1");
    expect("\xed\xa0\x80x \xf5\x80\x80\x80y", "x@0 y@1"); /* surrogate, beyond Unicode */
    expect("\xcc\x81", "");                               /* a mark on nothing */
}

static void words_are_cut_at_255_bytes(void **state)
{
    (void)state;
    char text[700], expected[300];
    memset(text, 'x', 600);
    strcpy(text + 600, " y");
    memset(expected, 'x', 255);
    strcpy(expected + 255, "@0 y@1");
    expect(text, expected);
    /* never through the middle of a character */
    for (size_t i = 0; i < 300; i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    text[300] = 0;
    for (size_t i = 0; i < 254; i += 2)
        memcpy(expected + i, "\xc3\xa9", 2);
    strcpy(expected + 254, "@0");
    expect(text, expected);
}

static void stop_words_leave_a_gap_and_stems_replace_words(void **state)
{
    (void)state;
    peri_text_config config;
    peri_text_config_init(&config);
    config.stop = PERI_STOP_ENGLISH;
    config.language = "english";
    const char *text = "The running of the Bulls";
    expect_as(&config, PE_ANALYSE_TERMS, text, strlen(text), "run@1 bull@4");
    expect_as(&config, PE_ANALYSE_PREFIX, "The running", 11, "the@0 running@1");
    peri_slice own[] = {{"B\xc3\x84R", 4}, {"run", 3}};
    config.stop = PERI_STOP_LIST;
    config.stop_words = own;
    config.n_stop_words = 2;
    text = "the b\xc3\xa4r runs run";
    expect_as(&config, PE_ANALYSE_TERMS, text, strlen(text), "the@0 run@2");
    pe_analysis how;
    own[1] = (peri_slice){"two words", 9};
    assert_int_equal(pe_analysis_init(&how, &host, &config), PERI_ERR_CONFIG);
    pe_analysis_destroy(&how);
}

static void stop_words_from_a_file_are_checked(void **state)
{
    (void)state;
    peri_text_config config;
    pe_analysis how;
    peri_text_config_init(&config);
    config.stop = PERI_STOP_LIST;
    const unsigned char good[] = {3, 't', 'h', 'e', 1, 'a'}, longer[] = {3, 't', 'h'},
                        none[] = {0, 1, 'a'};
    assert_int_equal(pe_analysis_load(&how, &host, &config, good, sizeof good), PERI_OK);
    pe_analysis_destroy(&how);
    assert_int_equal(pe_analysis_load(&how, &host, &config, longer, 3), PERI_ERR_CORRUPT);
    pe_analysis_destroy(&how);
    assert_int_equal(pe_analysis_load(&how, &host, &config, none, 3), PERI_ERR_CORRUPT);
    pe_analysis_destroy(&how);
    assert_int_equal(pe_analysis_load(&how, &host, &config, NULL, 0), PERI_OK);
    pe_analysis_destroy(&how);
}

static int setup(void **state)
{
    (void)state;
    return pe_host_init(&host, NULL);
}

static int teardown(void **state)
{
    (void)state;
    return host.heap != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_runs_of_letters_and_digits),
        cmocka_unit_test(words_are_folded),
        cmocka_unit_test(accents_go_only_where_asked),
        cmocka_unit_test(scripts_without_spaces_become_pairs),
        cmocka_unit_test(a_run_longer_than_any_buffer_loses_no_pair),
        cmocka_unit_test(bytes_that_are_no_text_separate),
        cmocka_unit_test(words_are_cut_at_255_bytes),
        cmocka_unit_test(stop_words_leave_a_gap_and_stems_replace_words),
        cmocka_unit_test(stop_words_from_a_file_are_checked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
