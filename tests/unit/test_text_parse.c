/* Queries as trees: what binds how, what is an error and where. */
#include "test.h"

#include "text/text_query.h"

#include <stdio.h>
#include <stdlib.h>

static pe_host host;
static pe_analysis how;
static pe_analyser analyser;
static pe_tree tree;

static size_t show(char *out, uint32_t n)
{
    const pe_node *node = &tree.nodes[n];
    static const char *const names[] = {"", "", "", "AND", "OR", "WITHOUT"};
    size_t size = 0;
    if (node->kind <= PE_NODE_PREFIX) {
        const pe_query_term *t = &tree.terms[node->first];
        assert_int_equal(t->prefix, node->kind == PE_NODE_PREFIX);
        return (size_t)sprintf(out, "%.*s%s", (int)t->size, tree.bytes + t->text,
                               t->prefix ? "*" : "");
    }
    if (node->kind == PE_NODE_PHRASE) {
        size += (size_t)sprintf(out, "\"");
        for (uint32_t i = 0; i < node->n; i++) {
            const pe_query_item *item = &tree.items[node->first + i];
            const pe_query_term *t = &tree.terms[item->term];
            size += (size_t)sprintf(out + size, "%s%.*s@%u", i ? " " : "", (int)t->size,
                                    tree.bytes + t->text, item->position);
        }
        return size + (size_t)sprintf(out + size, "\"");
    }
    size += (size_t)sprintf(out, "%s(", names[node->kind]);
    uint32_t last = PE_NO_NODE;
    for (uint32_t c = node->child; c != PE_NO_NODE; c = tree.nodes[c].next) {
        size += (size_t)sprintf(out + size, "%s", c == node->child ? "" : " ");
        size += show(out + size, c);
        last = c;
    }
    assert_int_not_equal(last, node->child); /* no group of one */
    return size + (size_t)sprintf(out + size, ")");
}

static void expect_as(uint32_t syntax, uint32_t join, const char *query, const char *expected)
{
    char out[4096] = "";
    assert_int_equal(pe_tree_parse(&tree, &analyser, peri_slice_of(query), syntax, join), PERI_OK);
    if (tree.root != PE_NO_NODE)
        show(out, tree.root);
    if (strcmp(out, expected) != 0)
        fail_msg("'%s' became '%s', expected '%s'", query, out, expected);
}

static void expect(const char *query, const char *expected)
{
    expect_as(PERI_SYNTAX_OPERATORS, PERI_JOIN_OR, query, expected);
}

static void expect_error(const char *query, const char *detail)
{
    assert_int_equal(
        pe_tree_parse(&tree, &analyser, peri_slice_of(query), PERI_SYNTAX_OPERATORS, PERI_JOIN_OR),
        PERI_ERR_ARG);
    if (!strstr(peri_error_detail(), detail))
        fail_msg("'%s': '%s' does not say '%s'", query, peri_error_detail(), detail);
}

static void bare_words_are_joined_as_asked(void **state)
{
    (void)state;
    expect("", "");
    expect(" \t\n", "");
    expect("cat", "cat");
    expect("Cat  DOG", "OR(cat dog)");
    expect_as(PERI_SYNTAX_OPERATORS, PERI_JOIN_AND, "cat dog", "AND(cat dog)");
    expect("well-known cat", "OR(well known cat)");
    expect_as(PERI_SYNTAX_OPERATORS, PERI_JOIN_AND, "well-known cat", "AND(well known cat)");
    expect_as(PERI_SYNTAX_WORDS, PERI_JOIN_OR, "cat AND (\"dog", "OR(cat dog)");
    expect_as(PERI_SYNTAX_WORDS, PERI_JOIN_AND, "a cat* NOT dog)", "AND(cat dog)");
}

static void operators_bind_side_by_side_then_and_then_or(void **state)
{
    (void)state;
    expect("ape OR bee AND cow", "OR(ape AND(bee cow))");
    expect("ape bee AND cow dog", "AND(OR(ape bee) OR(cow dog))");
    expect("(ape OR bee) OR (cow dog)", "OR(ape bee cow dog)");
    expect("ape AND (bee AND cow)", "AND(ape bee cow)");
    expect("((((ape))))", "ape");
    expect("and or not", "");
    expect("ANDROID ORder NOTe", "OR(android order note)");
}

static void not_takes_out_of_what_it_stands_beside(void **state)
{
    (void)state;
    expect("ape NOT bee", "WITHOUT(ape bee)");
    expect("NOT bee ape cow", "WITHOUT(OR(ape cow) bee)");
    expect("ape AND NOT bee", "WITHOUT(ape bee)");
    expect("ape AND NOT (bee OR cow) AND dog", "WITHOUT(AND(ape dog) OR(bee cow))");
    expect("ape OR bee NOT cow", "OR(ape WITHOUT(bee cow))");
    expect("ape NOT (bee NOT cow)", "WITHOUT(ape WITHOUT(bee cow))");
    expect("ape NOT the", "ape");
    expect("the NOT ape", "");
}

static void phrases_keep_places_and_prefixes_their_star(void **state)
{
    (void)state;
    expect("\"black hole\"", "\"black@0 hole@1\"");
    expect("\"edge of the hole\" x", "OR(\"edge@0 hole@3\" x)");
    expect("\"hole\" \"the\" \"\"", "hole");
    expect("hol* the*", "OR(hol* the*)");
    expect("well-kno* *", "AND(well kno*)");
    expect("a\"b c\"d(e)f", "OR(\"b@0 c@1\" d e f)");
}

static void terms_are_counted_once_each_and_not_under_not(void **state)
{
    (void)state;
    expect("cat dog cat \"cat dog\" NOT dog", "WITHOUT(OR(cat dog cat \"cat@0 dog@1\") dog)");
    assert_int_equal(tree.n_terms, 2);
    assert_int_equal(tree.terms[0].count, 3);
    assert_int_equal(tree.terms[1].count, 2);
    expect("ape NOT bee", "WITHOUT(ape bee)");
    assert_int_equal(tree.terms[1].count, 0);
}

static void errors_name_the_byte(void **state)
{
    (void)state;
    expect_error("cat \"dog", "quote at byte 4");
    expect_error("cat AND", "expected a word at byte 7 of the query, its end");
    expect_error("OR cat", "expected a word at byte 0");
    expect_error("cat AND OR dog", "expected a word at byte 8");
    expect_error("(cat", "parenthesis at byte 0");
    expect_error("cat)", "byte 3 of the query: ')' without '('");
    expect_error("()", "expected a word at byte 1");
    expect_error("NOT cat", "NOT needs something");
    expect_error("dog OR NOT cat", "byte 6");
    expect_error("dog NOT", "expected a word after NOT");
    expect_error("dog NOT NOT cat", "expected a word after NOT");
}

static void depth_and_terms_are_bounded(void **state)
{
    (void)state;
    char query[200];
    memset(query, '(', 65);
    strcpy(query + 65, "x");
    expect_error(query, "parentheses deep");
    memset(query, '(', 64);
    strcpy(query + 64, "x");
    memset(query + 65, ')', 64);
    query[129] = 0;
    expect(query, "x");

    size_t size = 0, room = 40000 * 8;
    char *many = malloc(room);
    assert_non_null(many);
    for (unsigned i = 0; i < PERI_QUERY_TERMS; i++)
        size += (size_t)snprintf(many + size, room - size, "t%u ", i);
    for (uint32_t syntax = 0; syntax < 2; syntax++) {
        assert_int_equal(pe_tree_parse(&tree, &analyser, (peri_slice){many, size}, syntax, 0),
                         PERI_OK);
        assert_int_equal(tree.n_terms, PERI_QUERY_TERMS);
        memcpy(many + size, "one", 3);
        assert_int_equal(pe_tree_parse(&tree, &analyser, (peri_slice){many, size + 3}, syntax, 0),
                         PERI_ERR_ARG);
    }
    free(many);
}

static void any_bytes_are_a_query_or_an_error(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a",    "\"",           "(",   ")",  " ",
                                         "AND",  "OR",           "NOT", "*",  "the",
                                         "\xff", "\xe6\x9d\xb1", "-",   "b c"};
    uint32_t x = 7;
    for (unsigned round = 0; round < 20000; round++) {
        char query[256];
        size_t size = 0;
        for (unsigned i = 0; i < 12; i++) {
            x = x * 1664525 + 1013904223;
            const char *piece = pieces[(x >> 16) % (sizeof pieces / sizeof *pieces)];
            memcpy(query + size, piece, strlen(piece));
            size += strlen(piece);
        }
        peri_status status =
            pe_tree_parse(&tree, &analyser, (peri_slice){query, size}, 0, round & 1);
        assert_true(status == PERI_OK || status == PERI_ERR_ARG);
    }
}

static int setup(void **state)
{
    (void)state;
    peri_text_config config;
    peri_text_config_init(&config);
    config.stop = PERI_STOP_ENGLISH;
    assert_int_equal(pe_host_init(&host, NULL), PERI_OK);
    tree.host = &host;
    assert_int_equal(pe_analysis_init(&how, &host, &config), PERI_OK);
    return pe_analyser_init(&analyser, &how);
}

static int teardown(void **state)
{
    (void)state;
    pe_tree_free(&tree);
    pe_analyser_destroy(&analyser);
    pe_analysis_destroy(&how);
    return host.heap != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bare_words_are_joined_as_asked),
        cmocka_unit_test(operators_bind_side_by_side_then_and_then_or),
        cmocka_unit_test(not_takes_out_of_what_it_stands_beside),
        cmocka_unit_test(phrases_keep_places_and_prefixes_their_star),
        cmocka_unit_test(terms_are_counted_once_each_and_not_under_not),
        cmocka_unit_test(errors_name_the_byte),
        cmocka_unit_test(depth_and_terms_are_bounded),
        cmocka_unit_test(any_bytes_are_a_query_or_an_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
