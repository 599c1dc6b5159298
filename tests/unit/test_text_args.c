/* The text index at its border: what is refused and how, what is answered although it is odd, keys,
 * filters, reopening. */
#include "test.h"

#include "perigee/text.h"
#include "scratch.h"

#include <math.h>

static peri_text *made(uint32_t positions, const char *language)
{
    peri_text *ix;
    peri_text_config config;
    peri_text_config_init(&config);
    config.positions = positions;
    config.language = language;
    config.stop = PERI_STOP_ENGLISH;
    assert_int_equal(peri_text_create(&ix, &config, NULL), PERI_OK);
    return ix;
}

static void put(peri_text *ix, uint64_t id, const char *text)
{
    assert_int_equal(peri_text_put(ix, id, peri_slice_of(text), 0), PERI_OK);
}

/* The ids that answer, in order, as "3 1 2". */
static const char *found(const peri_text *ix, const char *query, uint32_t join)
{
    static char text[256];
    peri_scored hits[16];
    peri_text_query q;
    size_t n, size = 0;
    peri_text_query_init(&q, 16);
    q.join = join;
    text[0] = 0;
    if (peri_text_search(ix, peri_slice_of(query), &q, hits, &n) != PERI_OK)
        return peri_error_detail();
    for (size_t i = 0; i < n; i++)
        size += (size_t)snprintf(text + size, sizeof text - size, "%s%llu", i ? " " : "",
                                 (unsigned long long)hits[i].id);
    return text;
}

static peri_text *zoo(void)
{
    peri_text *ix = made(1, "english");
    put(ix, 1, "The quick brown fox jumps over the lazy dog");
    put(ix, 2, "A dog is a dog is a dog");
    put(ix, 3, "Foxes and dogs running, quickly!");
    put(ix, 4, "Brown bears; the brown fox ran from the bear");
    put(ix, 5, "Of the and");
    put(ix, 6, "");
    return ix;
}

static void queries_mean_what_the_header_says(void **state)
{
    (void)state;
    peri_text *ix = zoo();
    assert_string_equal(found(ix, "dog", 0), "2 3 1");
    assert_string_equal(found(ix, "DOGS", 0), "2 3 1");
    assert_string_equal(found(ix, "fox dog", PERI_JOIN_AND), "3 1");
    assert_string_equal(found(ix, "fox AND dog NOT lazy", 0), "3");
    assert_string_equal(found(ix, "\"brown fox\"", 0), "4 1");
    assert_string_equal(found(ix, "\"brown bear\"", 0), "4");
    assert_string_equal(found(ix, "\"fox brown\"", 0), "");
    /* Stop words keep their place: over (the) lazy. */
    assert_string_equal(found(ix, "\"over the lazy\"", 0), "1");
    assert_string_equal(found(ix, "\"over lazy\"", 0), "");
    assert_string_equal(found(ix, "\"dog is a dog\"", 0), "2");
    assert_string_equal(found(ix, "ju* OR ran", 0), "1 4");
    assert_string_equal(found(ix, "zebra", 0), "");
    assert_string_equal(found(ix, "fox zebra", PERI_JOIN_AND), "");
    assert_string_equal(found(ix, "the of", 0), "");
    assert_string_equal(found(ix, "", 0), "");
    assert_string_equal(found(ix, "(lazy OR bear) AND fox", 0), "4 1");
    assert_non_null(strstr(found(ix, "(lazy", 0), "parenthesis at byte 0"));
    peri_text_close(ix);
}

static void what_a_user_may_paste_is_answered_or_refused(void **state)
{
    (void)state;
    peri_text *ix = zoo();
    peri_text_query q;
    peri_scored hits[4];
    size_t n;
    static const char *const odd[] = {
        "'; DROP TABLE t; --", "%_%",           "* ** ***",     "\"\"",    "a:b^2~3",
        "{dog} [fox] \\",      "NEAR(dog fox)", "\xff\xfe\xfd", "dog\xff", "\xf0\x9f\x90\xb6"};
    peri_text_query_init(&q, 4);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        peri_status status = peri_text_search(ix, peri_slice_of(odd[i]), &q, hits, &n);
        assert_true(status == PERI_OK || status == PERI_ERR_ARG);
    }
    assert_int_equal(peri_text_search(ix, (peri_slice){"dog\0fox", 7}, &q, hits, &n), PERI_OK);
    assert_int_equal(n, 4);
    /* As words nothing is malformed. */
    q.syntax = PERI_SYNTAX_WORDS;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_int_equal(peri_text_search(ix, peri_slice_of(odd[i]), &q, hits, &n), PERI_OK);
    assert_int_equal(peri_text_search(ix, peri_slice_of("\"dog AND ((fox"), &q, hits, &n), PERI_OK);
    assert_int_equal(n, 4);
    peri_text_close(ix);
}

static void ten_thousand_terms_are_a_query(void **state)
{
    (void)state;
    peri_text *ix = made(0, NULL);
    peri_text_query q;
    peri_scored hits[10], again[10];
    size_t n, m, size = 0, room = 200000;
    char *text = malloc(room);
    assert_non_null(text);
    for (unsigned i = 0; i < 10000; i++)
        size += (size_t)snprintf(text + size, room - size, "w%u ", i);
    for (unsigned d = 0; d < 300; d++) {
        char doc[64];
        snprintf(doc, sizeof doc, "w%u w%u w%u other", d, d * 7 % 10000, d % 10);
        put(ix, d, doc);
    }
    peri_text_query_init(&q, 10);
    assert_int_equal(peri_text_search(ix, (peri_slice){text, size}, &q, hits, &n), PERI_OK);
    assert_int_equal(n, 10);
    assert_int_equal(peri_text_maintain(ix, 1, NULL), PERI_OK);
    assert_int_equal(peri_text_search(ix, (peri_slice){text, size}, &q, again, &m), PERI_OK);
    assert_memory_equal(hits, again, sizeof hits);
    q.join = PERI_JOIN_AND;
    assert_int_equal(peri_text_search(ix, (peri_slice){text, size}, &q, hits, &n), PERI_OK);
    assert_int_equal(n, 0);
    assert_string_equal(found(ix, "w123* NOT w12*", 0), "");
    free(text);
    peri_text_close(ix);
}

static void phrases_without_positions_are_refused_by_name(void **state)
{
    (void)state;
    peri_text *ix = made(0, NULL);
    peri_text_query q;
    peri_scored hit;
    size_t n;
    put(ix, 1, "one two");
    peri_text_query_init(&q, 1);
    assert_int_equal(peri_text_search(ix, peri_slice_of("\"one two\""), &q, &hit, &n),
                     PERI_ERR_UNSUPPORTED);
    assert_int_equal(peri_text_search(ix, peri_slice_of("\"one\""), &q, &hit, &n), PERI_OK);
    assert_int_equal(n, 1);
    peri_text_close(ix);
}

static void bad_arguments_are_named(void **state)
{
    (void)state;
    peri_text *ix = made(1, NULL), *none;
    peri_text_config c;
    peri_text_query q;
    peri_scored hit;
    float score;
    uint64_t id = 1;
    size_t n;
    peri_slice bad = {NULL, 3}, good = peri_slice_of("x"), huge = {"x", (size_t)1 << 30};
    peri_text_query_init(&q, 1);
#define CONFIG(field, value, status)                                                               \
    do {                                                                                           \
        peri_text_config_init(&c);                                                                 \
        c.field = (value);                                                                         \
        none = (peri_text *)&c;                                                                    \
        assert_int_equal(peri_text_create(&none, &c, NULL), (status));                             \
        assert_null(none);                                                                         \
    } while (0)
    CONFIG(struct_size, 4, PERI_ERR_ARG);
    CONFIG(positions, 2, PERI_ERR_CONFIG);
    CONFIG(language, "klingon", PERI_ERR_CONFIG);
    CONFIG(language, "a name that is longer than any language's is", PERI_ERR_CONFIG);
    CONFIG(stop, 3, PERI_ERR_CONFIG);
    CONFIG(script, 2, PERI_ERR_CONFIG);
    CONFIG(accents, 2, PERI_ERR_CONFIG);
    CONFIG(k1, 101, PERI_ERR_CONFIG);
    CONFIG(k1, NAN, PERI_ERR_CONFIG);
    CONFIG(b, 1.5f, PERI_ERR_CONFIG);
    CONFIG(b, NAN, PERI_ERR_CONFIG);
    peri_text_config_init(&c);
    c.stop = PERI_STOP_LIST;
    c.n_stop_words = 1;
    assert_int_equal(peri_text_create(&none, &c, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_text_create(NULL, NULL, NULL), PERI_ERR_ARG);

    assert_int_equal(peri_text_put(NULL, 1, good, 0), PERI_ERR_ARG);
    assert_int_equal(peri_text_put(ix, 1, bad, 0), PERI_ERR_ARG);
    assert_int_equal(peri_text_put(ix, 1, huge, 0), PERI_ERR_ARG);
    assert_int_equal(peri_text_put(ix, 1, good, 8), PERI_ERR_ARG);
    assert_int_equal(peri_text_put_many(ix, 1, &id, NULL, 0, NULL, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_text_put_many(ix, 0, NULL, NULL, 0, NULL, &n), PERI_OK);
    assert_int_equal(peri_text_remove(ix, 9), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_text_search(ix, bad, &q, &hit, &n), PERI_ERR_ARG);
    assert_int_equal(peri_text_search(ix, huge, &q, &hit, &n), PERI_ERR_ARG);
    assert_int_equal(peri_text_search(ix, good, NULL, &hit, &n), PERI_ERR_ARG);
    assert_int_equal(peri_text_search(ix, good, &q, NULL, &n), PERI_ERR_ARG);
    assert_int_equal(peri_text_search(ix, good, &q, &hit, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_text_search(NULL, good, &q, &hit, &n), PERI_ERR_ARG);
    assert_int_equal(peri_text_score(ix, good, &q, 1, NULL, &score), PERI_ERR_ARG);
    q.k = 0;
    assert_int_equal(peri_text_search(ix, good, &q, &hit, &n), PERI_ERR_ARG);
    q.k = 1;
    q.syntax = 2;
    assert_int_equal(peri_text_search(ix, good, &q, &hit, &n), PERI_ERR_CONFIG);
    q.syntax = 0;
    q.join = 2;
    assert_int_equal(peri_text_search(ix, good, &q, &hit, &n), PERI_ERR_CONFIG);
    q.struct_size = 2;
    assert_int_equal(peri_text_search(ix, good, &q, &hit, &n), PERI_ERR_ARG);
    assert_int_equal(peri_text_open(&none, "/nowhere/at/all", 0, NULL, NULL), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_text_open(&none, "/dev/zero", 0, NULL, NULL), PERI_ERR_FORMAT);
    assert_int_equal(peri_text_open(&none, "x", 64, NULL, NULL), PERI_ERR_ARG);
    peri_text_close(NULL);
    peri_text_close(ix);
}

static void an_empty_index_answers(void **state)
{
    (void)state;
    for (int removed = 0; removed < 2; removed++) {
        peri_text *ix = made(1, NULL), *again;
        if (removed) {
            put(ix, 0, "gone");
            put(ix, UINT64_MAX, "gone too");
            assert_string_equal(found(ix, "gone", 0), "0 18446744073709551615");
            assert_int_equal(peri_text_remove(ix, 0), PERI_OK);
            assert_int_equal(peri_text_remove(ix, UINT64_MAX), PERI_OK);
        }
        assert_string_equal(found(ix, "gone", 0), "");
        assert_string_equal(found(ix, "\"gone too\" g*", 0), "");
        assert_int_equal(peri_text_maintain(ix, 1, NULL), PERI_OK);
        assert_string_equal(found(ix, "gone", 0), "");
        assert_int_equal(peri_text_save(ix, scratch("empty"), NULL), PERI_OK);
        assert_int_equal(peri_text_open(&again, scratch("empty"), PERI_OPEN_MAP, NULL, NULL),
                         PERI_OK);
        assert_string_equal(found(again, "gone", 0), "");
        put(again, 4, "back");
        assert_string_equal(found(again, "back", 0), "4");
        peri_text_close(again);
        peri_text_close(ix);
    }
}

static void k_may_be_larger_than_all_there_is(void **state)
{
    (void)state;
    peri_text *ix = zoo();
    peri_text_query q;
    peri_scored hits[6];
    size_t n;
    peri_text_query_init(&q, UINT32_MAX);
    assert_int_equal(peri_text_search(ix, peri_slice_of("dog fox"), &q, hits, &n), PERI_OK);
    assert_int_equal(n, 4);
    peri_text_close(ix);
}

static int refuse_all(void *ctx, uint64_t id)
{
    (void)ctx, (void)id;
    return 0;
}

static void filters_by_set_and_by_function(void **state)
{
    (void)state;
    peri_text *ix = zoo();
    peri_text_query q;
    peri_scored hits[6];
    peri_idset *set;
    size_t n;
    uint64_t ids[] = {1, 4, 77};
    assert_int_equal(peri_idset_create(&set, NULL), PERI_OK);
    peri_text_query_init(&q, 6);
    q.allow = set;
    assert_int_equal(peri_text_search(ix, peri_slice_of("dog fox"), &q, hits, &n), PERI_OK);
    assert_int_equal(n, 0);
    assert_int_equal(peri_idset_add(set, 3, ids), PERI_OK);
    assert_int_equal(peri_text_search(ix, peri_slice_of("dog fox"), &q, hits, &n), PERI_OK);
    assert_int_equal(n, 2);
    assert_int_equal(hits[0].id + hits[1].id, 5);
    q.filter = refuse_all;
    assert_int_equal(peri_text_search(ix, peri_slice_of("dog fox"), &q, hits, &n), PERI_OK);
    assert_int_equal(n, 0);
    peri_idset_close(set);
    peri_text_close(ix);
}

static void keys_name_documents(void **state)
{
    (void)state;
    peri_text *ix = made(1, NULL), *again;
    peri_slice key = {"a\0key", 5}, other = peri_slice_of("other"), keys[2] = {key, key};
    peri_slice texts[2] = {peri_slice_of("first words"), peri_slice_of("second words")};
    peri_buf name = {0};
    uint64_t id, had;
    size_t done;
    assert_int_equal(peri_text_put_keyed(ix, key, peri_slice_of("some words"), 0), PERI_OK);
    assert_int_equal(peri_text_id_of(ix, key, &had), PERI_OK);
    assert_int_equal(peri_text_put_keyed(ix, key, peri_slice_of("x"), PERI_PUT_NEW),
                     PERI_ERR_EXISTS);
    assert_int_equal(peri_text_put(ix, 9, peri_slice_of("x"), 0), PERI_ERR_STATE);
    assert_int_equal(peri_text_remove(ix, had), PERI_ERR_STATE);
    assert_int_equal(peri_text_put_many_keyed(ix, 2, keys, texts, 0, NULL, &done), PERI_OK);
    assert_int_equal(done, 2);
    assert_int_equal(peri_text_id_of(ix, key, &id), PERI_OK);
    assert_int_equal(id, had); /* an update keeps the id, and the last of two texts stays */
    assert_string_equal(found(ix, "first", 0), "");
    assert_int_equal(peri_text_put_keyed(ix, other, peri_slice_of("words"), 0), PERI_OK);
    assert_int_equal(peri_text_put_keyed(ix, (peri_slice){"", 0}, texts[0], 0), PERI_ERR_ARG);
    assert_int_equal(peri_text_save(ix, scratch("keyed"), NULL), PERI_OK);
    assert_int_equal(peri_text_open(&again, scratch("keyed"), 0, NULL, NULL), PERI_OK);
    assert_int_equal(peri_text_key_of(again, id, &name), PERI_OK);
    assert_int_equal(name.size, 5);
    assert_memory_equal(name.data, "a\0key", 5);
    assert_int_equal(peri_text_remove_keyed(again, key), PERI_OK);
    assert_int_equal(peri_text_remove_keyed(again, key), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_text_id_of(again, key, &id), PERI_ERR_NOT_FOUND);
    assert_int_equal(peri_text_key_of(again, had, &name), PERI_ERR_NOT_FOUND);
    peri_buf_free(&name);
    peri_text_close(again);
    peri_text_close(ix);
    ix = made(0, NULL);
    put(ix, 3, "by id");
    assert_int_equal(peri_text_put_keyed(ix, key, texts[0], 0), PERI_ERR_STATE);
    peri_text_close(ix);
}

static void the_choices_survive_saving(void **state)
{
    (void)state;
    peri_text *ix, *again;
    peri_text_config c;
    peri_text_info info;
    peri_slice stop[] = {peri_slice_of("zzz"), peri_slice_of("und")};
    peri_text_config_init(&c);
    c.language = "german";
    c.stop = PERI_STOP_LIST;
    c.stop_words = stop;
    c.n_stop_words = 2;
    c.accents = PERI_ACCENTS_STRIP;
    c.script = PERI_SCRIPT_SINGLE;
    c.k1 = 2;
    c.b = -1;
    assert_int_equal(peri_text_create(&ix, &c, NULL), PERI_OK);
    assert_int_equal(peri_text_put_many(ix, 2, NULL,
                                        (peri_slice[]){peri_slice_of("H\xc3\xa4user und zzz"),
                                                       peri_slice_of("und")},
                                        0, NULL, NULL),
                     PERI_OK);
    assert_int_equal(peri_text_save(ix, scratch("choices"), NULL), PERI_OK);
    peri_text_close(ix);
    assert_int_equal(
        peri_text_open(&again, scratch("choices"), PERI_OPEN_READONLY | PERI_OPEN_MAP, NULL, NULL),
        PERI_OK);
    peri_text_info_init(&info);
    assert_int_equal(peri_text_get_info(again, &info), PERI_OK);
    assert_string_equal(info.language, "german");
    assert_true(info.k1 == 2 && info.b == 0 && info.next_id == 2 && info.documents == 2);
    assert_int_equal(info.length, 1);
    assert_string_equal(found(again, "haus", 0), "0");
    assert_string_equal(found(again, "und zzz", 0), "");
    assert_int_equal(peri_text_put(again, 1, stop[0], 0), PERI_ERR_STATE);
    assert_int_equal(peri_text_maintain(again, 1, NULL), PERI_ERR_STATE);
    peri_text_close(again);
}

static int stop_now(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    (void)ctx, (void)phase, (void)total;
    return done > 0;
}

static void cancelling_leaves_a_prefix(void **state)
{
    (void)state;
    enum { MANY = 2000 };
    static peri_slice texts[MANY];
    peri_text *ix = made(0, NULL);
    peri_task task;
    peri_text_info info;
    size_t done = 0;
    for (size_t i = 0; i < MANY; i++)
        texts[i] = peri_slice_of("the same words again and again");
    peri_task_init(&task);
    task.threads = 1;
    task.progress = stop_now;
    assert_int_equal(peri_text_put_many(ix, MANY, NULL, texts, 0, &task, &done),
                     PERI_ERR_CANCELLED);
    assert_true(done > 0);
    peri_text_info_init(&info);
    assert_int_equal(peri_text_get_info(ix, &info), PERI_OK);
    assert_int_equal(info.documents, done);
    peri_text_close(ix);
}

static void many_queries_at_once_are_the_same_queries(void **state)
{
    (void)state;
    enum { N = 100, K = 3 };
    peri_text *ix = zoo();
    peri_slice queries[N];
    peri_scored hits[N * K], one[K];
    size_t n_hits[N], n;
    static const char *const some[] = {"dog", "fox bear", "\"brown fox\"", "ju* NOT cat", ""};
    peri_text_query q;
    peri_task task;
    peri_text_query_init(&q, K);
    peri_task_init(&task);
    task.threads = 3;
    for (size_t i = 0; i < N; i++)
        queries[i] = peri_slice_of(some[i % 5]);
    assert_int_equal(peri_text_search_many(ix, N, queries, &q, &task, hits, n_hits), PERI_OK);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(peri_text_search(ix, queries[i], &q, one, &n), PERI_OK);
        assert_int_equal(n, n_hits[i]);
        assert_memory_equal(one, hits + i * K, n * sizeof *one);
    }
    queries[57] = peri_slice_of("\"open");
    assert_int_equal(peri_text_search_many(ix, N, queries, &q, &task, hits, n_hits), PERI_ERR_ARG);
    assert_non_null(strstr(peri_error_detail(), "quote"));
    peri_text_close(ix);
}

static void languages_are_listed(void **state)
{
    (void)state;
    size_t n = 0;
    int english = 0;
    for (const char *name; (name = peri_text_language(n)) != NULL; n++)
        english |= strcmp(name, "english") == 0;
    assert_true(english && n > 10);
    assert_null(peri_text_language(n + 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries_mean_what_the_header_says),
        cmocka_unit_test(what_a_user_may_paste_is_answered_or_refused),
        cmocka_unit_test(ten_thousand_terms_are_a_query),
        cmocka_unit_test(phrases_without_positions_are_refused_by_name),
        cmocka_unit_test(bad_arguments_are_named),
        cmocka_unit_test(an_empty_index_answers),
        cmocka_unit_test(k_may_be_larger_than_all_there_is),
        cmocka_unit_test(filters_by_set_and_by_function),
        cmocka_unit_test(keys_name_documents),
        cmocka_unit_test(the_choices_survive_saving),
        cmocka_unit_test(cancelling_leaves_a_prefix),
        cmocka_unit_test(many_queries_at_once_are_the_same_queries),
        cmocka_unit_test(languages_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
