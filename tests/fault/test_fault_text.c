/* Every allocation and every call on files fails, once and from then on, in each verb of a text
 * index. After a failure the index holds the same documents, proves clean and answers the same; the
 * verb works when it is tried again; nothing leaks; a file that was to be replaced is whole. */
#include "faulty.h"
#include "perigee/text.h"
#include "scratch.h"

enum { DOCS = 60, MORE = 20, K = 5 };

typedef struct bench {
    faulty f;
    peri_text *ix;
    int keyed;
    uint64_t n_docs; /* before the verb */
} bench;

typedef struct verb {
    const char *name;
    peri_status (*run)(bench *b);
    int adds; /* documents that success adds */
    int part; /* a failure may leave the first documents of a batch in */
    int keyed;
} verb;

static const char *former, *target;

static peri_slice text_of(unsigned i, char text[96])
{
    int size = snprintf(text, 96, "word%u shared text number %u of w%u w%u w%u", i, i, i % 7,
                        i % 11, i * 31 % 64);
    return (peri_slice){text, (size_t)size};
}

static peri_slice key_of(unsigned i, char text[40])
{
    return (peri_slice){text, (size_t)snprintf(text, 40, "the key of document %u", i)};
}

static peri_status create(peri_text **ix, const peri_env *env)
{
    peri_text_config c;
    peri_slice stop[] = {peri_slice_of("of"), peri_slice_of("number")};
    peri_text_config_init(&c);
    c.positions = 1;
    c.language = "english";
    c.stop = PERI_STOP_LIST;
    c.stop_words = stop;
    c.n_stop_words = 2;
    return peri_text_create(ix, &c, env);
}

static peri_status put(peri_text *ix, int keyed, unsigned i, uint32_t flags)
{
    char text[96], key[40];
    return keyed ? peri_text_put_keyed(ix, key_of(i, key), text_of(i, text), flags)
                 : peri_text_put(ix, i, text_of(i, text), flags);
}

static void fill(bench *b)
{
    char key[40];
    assert_int_equal(create(&b->ix, &b->f.env), PERI_OK);
    for (unsigned i = 0; i < DOCS; i++) {
        assert_int_equal(put(b->ix, b->keyed, i, 0), PERI_OK);
        if (i == DOCS / 2) /* part of it sealed */
            assert_int_equal(peri_text_maintain(b->ix, 1, NULL), PERI_OK);
    }
    for (unsigned i = 4; i < DOCS; i += 9)
        assert_int_equal(b->keyed ? peri_text_remove_keyed(b->ix, key_of(i, key))
                                  : peri_text_remove(b->ix, i),
                         PERI_OK);
    peri_text_info info;
    peri_text_info_init(&info);
    assert_int_equal(peri_text_get_info(b->ix, &info), PERI_OK);
    b->n_docs = info.documents;
}

/* ---- the verbs ---- */

static peri_status put_new(bench *b)
{
    return put(b->ix, b->keyed, 1001, PERI_PUT_NEW);
}

static peri_status put_again(bench *b)
{
    return put(b->ix, b->keyed, 10, 0);
}

static peri_status put_many(bench *b)
{
    char text[MORE][96], key[MORE][40];
    peri_slice texts[MORE], keys[MORE];
    uint64_t ids[MORE];
    for (unsigned i = 0; i < MORE; i++) {
        texts[i] = text_of(5000 + i, text[i]);
        keys[i] = key_of(5000 + i, key[i]);
        ids[i] = 5000 + i;
    }
    return b->keyed ? peri_text_put_many_keyed(b->ix, MORE, keys, texts, 0, NULL, NULL)
                    : peri_text_put_many(b->ix, MORE, ids, texts, 0, NULL, NULL);
}

static peri_status remove_one(bench *b)
{
    char key[40];
    return b->keyed ? peri_text_remove_keyed(b->ix, key_of(11, key)) : peri_text_remove(b->ix, 20);
}

static peri_status ask(const peri_text *ix, const char *query, const peri_idset *allow)
{
    peri_text_query q;
    peri_scored hits[K];
    size_t n;
    peri_text_query_init(&q, K);
    q.allow = allow;
    return peri_text_search(ix, peri_slice_of(query), &q, hits, &n);
}

static peri_status search_any(bench *b)
{
    return ask(b->ix, "shared text w1 w3", NULL);
}

static peri_status search_tree(bench *b)
{
    return ask(b->ix, "(\"shared text\" OR word1*) AND text NOT w4", NULL);
}

static peri_status search_filtered(bench *b)
{
    peri_idset *set;
    uint64_t ids[] = {0, 2, 5, 6, 30};
    peri_status status = peri_idset_create(&set, &b->f.env);
    if (status == PERI_OK)
        status = peri_idset_add(set, 5, ids);
    if (status == PERI_OK)
        status = ask(b->ix, "shared AND text", set);
    peri_idset_close(set);
    return status;
}

static peri_status search_many(bench *b)
{
    peri_slice queries[] = {peri_slice_of("shared"), peri_slice_of("w1 w2"), peri_slice_of("w*")};
    peri_text_query q;
    peri_scored hits[3 * K];
    size_t n[3];
    peri_text_query_init(&q, K);
    return peri_text_search_many(b->ix, 3, queries, &q, NULL, hits, n);
}

static peri_status score(bench *b)
{
    uint64_t ids[] = {1, 2, 3000};
    float scores[3];
    peri_text_query q;
    peri_text_query_init(&q, 1);
    return peri_text_score(b->ix, peri_slice_of("shared w1"), &q, 3, ids, scores);
}

static peri_status maintain(bench *b)
{
    return peri_text_maintain(b->ix, 0, NULL);
}

static peri_status maintain_all(bench *b)
{
    return peri_text_maintain(b->ix, 1, NULL);
}

static peri_status check(bench *b)
{
    uint64_t faults;
    return peri_text_check(b->ix, NULL, &faults);
}

static peri_status save(bench *b)
{
    return peri_text_save(b->ix, target, NULL);
}

static peri_status open_how(bench *b, uint32_t flags)
{
    peri_text *other = NULL;
    peri_status status = peri_text_open(&other, former, flags, &b->f.env, NULL);
    if (status != PERI_OK)
        assert_null(other);
    if (status == PERI_OK)
        status = ask(other, "shared w2", NULL);
    if (status == PERI_OK && !(flags & PERI_OPEN_READONLY))
        status = put(other, b->keyed, 7777, 0);
    peri_text_close(other);
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
    peri_text *other = NULL;
    peri_status status = create(&other, &b->f.env);
    if (status != PERI_OK)
        assert_null(other);
    peri_text_close(other);
    return status;
}

static const verb verbs[] = {
    {"put", put_new, 1, 0, 0},
    {"put again", put_again, 0, 0, 0},
    {"put_many", put_many, MORE, 1, 0},
    {"put_keyed", put_new, 1, 0, 1},
    {"put_keyed again", put_again, 0, 0, 1},
    {"put_many_keyed", put_many, MORE, 1, 1},
    {"remove", remove_one, -1, 0, 0},
    {"remove_keyed", remove_one, -1, 0, 1},
    {"search, or", search_any, 0, 0, 0},
    {"search, tree", search_tree, 0, 0, 0},
    {"search, filtered", search_filtered, 0, 0, 0},
    {"search_many", search_many, 0, 0, 0},
    {"score", score, 0, 0, 0},
    {"maintain", maintain, 0, 0, 0},
    {"maintain all", maintain_all, 0, 0, 0},
    {"maintain all, keyed", maintain_all, 0, 0, 1},
    {"check", check, 0, 0, 0},
    {"save", save, 0, 0, 0},
    {"save, keyed", save, 0, 0, 1},
    {"open copied", open_copied, 0, 0, 1},
    {"open mapped", open_mapped, 0, 0, 1},
    {"open mapped writable", open_mapped_writable, 0, 0, 1},
    {"create", create_another, 0, 0, 0},
};

/* ---- what must hold afterwards ---- */

static void assert_index_valid(const peri_text *ix, const char *name)
{
    uint64_t faults = 0;
    peri_status status = peri_text_check(ix, NULL, &faults);
    if (status != PERI_OK || faults)
        fail_msg("%s: %llu faults: %s", name, (unsigned long long)faults, peri_error_detail());
}

static void assert_documents(const bench *b, const verb *v, peri_status status)
{
    peri_text_info info;
    peri_text_info_init(&info);
    assert_int_equal(peri_text_get_info(b->ix, &info), PERI_OK);
    int64_t added = (int64_t)info.documents - (int64_t)b->n_docs;
    if (v->part && status != PERI_OK)
        assert_in_range(added, 0, v->adds);
    else
        assert_int_equal(added, status == PERI_OK ? v->adds : 0);
}

/* Documents that no verb touches are found by a word of their own. */
static void assert_answers(const bench *b, const verb *v)
{
    peri_text_query q;
    peri_scored hits[K];
    size_t n;
    char text[32];
    peri_text_query_init(&q, K);
    for (unsigned i = 30; i < DOCS; i += 7) {
        if (i % 9 == 4)
            continue;
        snprintf(text, sizeof text, "word%u", i);
        assert_int_equal(peri_text_search(b->ix, peri_slice_of(text), &q, hits, &n), PERI_OK);
        if (n != 1 || (!b->keyed && hits[0].id != i))
            fail_msg("%s: document %u is not found", v->name, i);
    }
}

static void assert_opens(const char *path)
{
    peri_text *ix;
    assert_int_equal(peri_text_open(&ix, path, 0, NULL, NULL), PERI_OK);
    assert_index_valid(ix, path);
    peri_text_close(ix);
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
    if (v->run == save && status == PERI_OK && fired && what == FAULTY_FILES)
        fail_msg("save: %s failed and nobody was told", b.f.fired);
    assert_index_valid(b.ix, v->name);
    assert_documents(&b, v, status);
    assert_answers(&b, v);
    if (status != PERI_OK) {
        if (v->run(&b) != PERI_OK)
            fail_msg("%s, again after call %llu: %s", v->name, (unsigned long long)n,
                     peri_error_detail());
        assert_documents(&b, v, PERI_OK);
        assert_index_valid(b.ix, v->name);
    }
    peri_text_close(b.ix);
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
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        for (int sticky = 0; sticky < 2; sticky++)
            for (uint64_t n = 1; fail_one(&verbs[i], what, n, sticky); n++)
                ;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    fail_all(FAULTY_ALLOC);
}

static void every_call_on_files_may_fail(void **state)
{
    (void)state;
    fail_all(FAULTY_FILES);
}

static int setup(void **state)
{
    (void)state;
    former = scratch("former");
    target = scratch("target");
    for (int i = 0; i < 2; i++) {
        bench b = {.keyed = 1};
        faulty_init(&b.f, FAULTY_NOTHING, 0, 0);
        fill(&b);
        if (peri_text_save(b.ix, i ? target : former, NULL) != PERI_OK)
            return 1;
        peri_text_close(b.ix);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(every_call_on_files_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, scratch_remove);
}
