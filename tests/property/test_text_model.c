/* A text index through random inserts, updates, removes, merges and reopenings, against a model
 * that keeps the documents and works every query out from the formula; and against an index that
 * was built afresh from the same documents, with which it must agree to the bit.
 *
 * PERIGEE_SEED and PERIGEE_STEPS vary it; a failure names the seed. */
#include "test.h"

#include "perigee/text.h"
#include "scratch.h"
#include "text/text.h"

#include <math.h>

enum { IDS = 400, WORDS = 60, LONGEST = 90, K = 10, TERMS = 5 };

typedef struct model {
    int live[IDS];
    unsigned n[IDS];
    unsigned char word[IDS][LONGEST];
} model;

static uint64_t seed, state_;

static unsigned below(unsigned n)
{
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((state_ >> 33) * n >> 31);
}

/* Frequent words and rare ones. */
static unsigned draw_word(void)
{
    unsigned a = below(WORDS), b = below(WORDS);
    return a * b / WORDS;
}

static const char *word_text(unsigned w)
{
    static char text[WORDS][8];
    snprintf(text[w], sizeof text[w], "%c%cx%u", 'a' + w % 5, 'a' + w / 5 % 5, w);
    return text[w];
}

static peri_slice doc_text(const model *m, unsigned id, char *room)
{
    size_t size = 0;
    for (unsigned i = 0; i < m->n[id]; i++)
        size += (size_t)sprintf(room + size, "%s%s", i ? " " : "", word_text(m->word[id][i]));
    return (peri_slice){room, size};
}

static void draw_doc(model *m, unsigned id)
{
    m->live[id] = 1;
    m->n[id] = below(8) == 0 ? below(3) : 1 + below(below(4) ? 20 : LONGEST - 1);
    for (unsigned i = 0; i < m->n[id]; i++)
        m->word[id][i] = (unsigned char)draw_word();
}

/* ---- what should come out ---- */

static unsigned count_of(const model *m, unsigned id, unsigned w)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->n[id]; i++)
        n += m->word[id][i] == w;
    return n;
}

typedef struct ask {
    enum { ANY, ALL, WITHOUT, PHRASE, PREFIX, MIXED, KINDS } kind;
    unsigned n, w[TERMS];
    char text[256];
} ask;

static void draw_ask(ask *a)
{
    a->kind = below(KINDS);
    a->n = a->kind == ANY || a->kind == ALL ? 1 + below(TERMS) : a->kind == PREFIX ? 2 : 3;
    for (unsigned i = 0; i < a->n; i++) {
        a->w[i] = draw_word();
        for (unsigned j = 0; j < i; j++)
            if (a->w[j] == a->w[i]) {
                a->w[i] = (a->w[i] + 1) % WORDS;
                j = (unsigned)-1;
            }
    }
    const char *x = word_text(a->w[0]), *y = a->n > 1 ? word_text(a->w[1]) : "",
               *z = a->n > 2 ? word_text(a->w[2]) : "";
    a->text[0] = 0;
    switch (a->kind) {
    case WITHOUT:
        sprintf(a->text, "%s %s NOT %s", x, y, z);
        break;
    case PHRASE:
        sprintf(a->text, "\"%s %s\"", x, y);
        break;
    case PREFIX:
        sprintf(a->text, "%.2s* OR %s", x, y);
        break;
    case MIXED:
        sprintf(a->text, "(%s OR \"%s %s\") AND %s", x, y, z, y);
        break;
    default:
        for (unsigned i = 0; i < a->n; i++)
            sprintf(a->text + strlen(a->text), "%s%s", i ? a->kind == ALL ? " AND " : " " : "",
                    word_text(a->w[i]));
    }
}

static int phrase_in(const model *m, unsigned id, unsigned x, unsigned y)
{
    for (unsigned i = 1; i < m->n[id]; i++)
        if (m->word[id][i - 1] == x && m->word[id][i] == y)
            return 1;
    return 0;
}

static int begins_alike(unsigned a, unsigned b)
{
    return a % 5 == b % 5 && a / 5 % 5 == b / 5 % 5;
}

static int matches(const model *m, const ask *a, unsigned id)
{
    unsigned any = 0, all = 1;
    for (unsigned i = 0; i < a->n; i++) {
        unsigned has = count_of(m, id, a->w[i]) > 0;
        any |= has;
        all &= has;
    }
    int x = count_of(m, id, a->w[0]) > 0, y = a->n > 1 && count_of(m, id, a->w[1]) > 0,
        z = a->n > 2 && count_of(m, id, a->w[2]) > 0;
    switch (a->kind) {
    case ANY:
        return (int)any;
    case ALL:
        return (int)all;
    case WITHOUT:
        return (x || y) && !z;
    case PHRASE:
        return phrase_in(m, id, a->w[0], a->w[1]);
    case PREFIX:
        for (unsigned w = 0; w < WORDS; w++)
            if (begins_alike(w, a->w[0]) && count_of(m, id, w))
                return 1;
        return y;
    default:
        return y && (x || phrase_in(m, id, a->w[1], a->w[2]));
    }
}

/* How often the query names a word, NOT apart. */
static unsigned named(const ask *a, unsigned w)
{
    unsigned n = 0, upto = a->kind == WITHOUT || a->kind == PHRASE ? 2 : a->n;
    if (a->kind == PREFIX)
        return begins_alike(w, a->w[0]) + (w == a->w[1]);
    for (unsigned i = 0; i < upto; i++)
        n += a->w[i] == w;
    return n + (a->kind == MIXED && w == a->w[1]);
}

static double score_of(const model *m, const ask *a, unsigned id, float k1, float b)
{
    double n = 0, length = 0, score = 0;
    for (unsigned i = 0; i < IDS; i++)
        if (m->live[i]) {
            n++;
            length += m->n[i];
        }
    double average = length > 0 ? length / n : 1;
    for (unsigned w = 0; w < WORDS; w++) {
        unsigned times = named(a, w), tf = count_of(m, id, w);
        if (!times || !tf)
            continue;
        double df = 0;
        for (unsigned i = 0; i < IDS; i++)
            df += m->live[i] && count_of(m, i, w);
        double own = pe_class_length(pe_length_class(m->n[id]));
        score += times * log(1 + (n - df + 0.5) / (df + 0.5)) * tf /
                 (tf + (double)k1 * (1 - (double)b + (double)b * own / average));
    }
    return score;
}

/* ---- holding answers against it ---- */

static int even_only(void *ctx, uint64_t id)
{
    (void)ctx;
    return id % 2 == 0;
}

static size_t search(const peri_text *ix, const ask *a, uint32_t k, int even, peri_scored *hits)
{
    peri_text_query q;
    size_t n;
    peri_text_query_init(&q, k);
    if (even)
        q.filter = even_only;
    peri_status status = peri_text_search(ix, peri_slice_of(a->text), &q, hits, &n);
    if (status != PERI_OK)
        fail_msg("seed %llu: '%s': %s", (unsigned long long)seed, a->text, peri_error_detail());
    return n;
}

static void compare(const peri_text *ix, const model *m, const ask *a, int even, float k1, float b)
{
    peri_scored hits[K];
    size_t n = search(ix, a, K, even, hits), possible = 0;
    double worst = 1e30;
    for (size_t i = 0; i < n; i++) {
        unsigned id = (unsigned)hits[i].id;
        double expected = score_of(m, a, id, k1, b);
        if (id >= IDS || !m->live[id] || !matches(m, a, id) || (even && id % 2) ||
            fabs(expected - (double)hits[i].score) > 1e-4 * (1 + expected))
            fail_msg("seed %llu: '%s' gave id %u with %g, expected %g", (unsigned long long)seed,
                     a->text, id, (double)hits[i].score, expected);
        assert_true(i == 0 || hits[i - 1].score > hits[i].score ||
                    (hits[i - 1].score == hits[i].score && hits[i - 1].id < hits[i].id));
        worst = expected < worst ? expected : worst;
    }
    for (unsigned id = 0; id < IDS; id++) {
        if (!m->live[id] || !matches(m, a, id) || (even && id % 2))
            continue;
        possible++;
        int given = 0;
        for (size_t i = 0; i < n; i++)
            given |= hits[i].id == id;
        double score = score_of(m, a, id, k1, b);
        if (!given && (n < K || score > worst + 1e-4 * (1 + worst)))
            fail_msg("seed %llu: '%s' left out id %u with %g", (unsigned long long)seed, a->text,
                     id, score);
    }
    assert_int_equal(n, possible < K ? possible : K);
}

static peri_text *fresh_from(const model *m, const peri_text_config *config)
{
    peri_text *ix;
    char room[LONGEST * 8];
    assert_int_equal(peri_text_create(&ix, config, NULL), PERI_OK);
    for (unsigned id = IDS; id-- > 0;) /* in another order, too */
        if (m->live[id])
            assert_int_equal(peri_text_put(ix, id, doc_text(m, id, room), 0), PERI_OK);
    return ix;
}

static void agree_to_the_bit(const peri_text *a, const peri_text *b)
{
    for (unsigned i = 0; i < 30; i++) {
        peri_scored x[IDS], y[IDS];
        ask question;
        uint32_t k = i % 3 ? K : IDS;
        draw_ask(&question);
        size_t n = search(a, &question, k, 0, x);
        assert_int_equal(search(b, &question, k, 0, y), n);
        if (memcmp(x, y, n * sizeof *x) != 0)
            fail_msg("seed %llu: '%s' differs from a fresh build", (unsigned long long)seed,
                     question.text);
    }
}

static void sound(const peri_text *ix, const model *m)
{
    uint64_t faults;
    peri_text_info info;
    unsigned live = 0;
    for (unsigned id = 0; id < IDS; id++)
        live += m->live[id] != 0;
    peri_text_info_init(&info);
    assert_int_equal(peri_text_get_info(ix, &info), PERI_OK);
    assert_int_equal(info.documents, live);
    assert_int_equal(peri_text_check(ix, NULL, &faults), PERI_OK);
    if (faults)
        fail_msg("seed %llu: %s", (unsigned long long)seed, peri_error_detail());
}

static void scores_of_given_documents(const peri_text *ix, const model *m, const ask *a, float k1,
                                      float b)
{
    uint64_t ids[8];
    float scores[8];
    peri_text_query q;
    peri_text_query_init(&q, 1);
    for (unsigned i = 0; i < 8; i++)
        ids[i] = below(IDS + 20);
    assert_int_equal(peri_text_score(ix, peri_slice_of(a->text), &q, 8, ids, scores), PERI_OK);
    for (unsigned i = 0; i < 8; i++) {
        if (ids[i] >= IDS || !m->live[ids[i]]) {
            assert_true(isnan(scores[i]));
            continue;
        }
        double expected = score_of(m, a, (unsigned)ids[i], k1, b);
        assert_true(fabs(expected - (double)scores[i]) <= 1e-4 * (1 + expected));
    }
}

/* ---- life ---- */

static void put_some(peri_text *ix, model *m, int many)
{
    static char room[64][LONGEST * 8];
    uint64_t ids[64];
    peri_slice texts[64];
    unsigned n = many ? 1 + below(64) : 1, first = below(IDS);
    for (unsigned i = 0; i < n; i++) {
        unsigned id = (first + i * 7) % IDS;
        draw_doc(m, id);
        ids[i] = id;
        texts[i] = doc_text(m, id, room[i]);
    }
    size_t done = 0;
    if (many)
        assert_int_equal(peri_text_put_many(ix, n, ids, texts, 0, NULL, &done), PERI_OK);
    else
        assert_int_equal(peri_text_put(ix, ids[0], texts[0], 0), PERI_OK);
    assert_int_equal(done, many ? n : 0);
}

static void remove_some(peri_text *ix, model *m, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned id = below(IDS);
        assert_int_equal(peri_text_remove(ix, id), m->live[id] ? PERI_OK : PERI_ERR_NOT_FOUND);
        m->live[id] = 0;
    }
}

static peri_text *reopen(peri_text *ix, unsigned how)
{
    peri_text *again;
    assert_int_equal(peri_text_save(ix, scratch("text"), NULL), PERI_OK);
    peri_text_close(ix);
    assert_int_equal(peri_text_open(&again, scratch("text"), how ? PERI_OPEN_MAP : 0, NULL, NULL),
                     PERI_OK);
    return again;
}

static void live(float k1, float b, unsigned steps)
{
    static model m;
    peri_text_config config;
    peri_text *ix;
    memset(&m, 0, sizeof m);
    peri_text_config_init(&config);
    config.positions = 1;
    config.k1 = k1;
    config.b = b;
    assert_int_equal(peri_text_create(&ix, &config, NULL), PERI_OK);
    k1 = k1 == 0 ? 1.2f : k1 < 0 ? 0 : k1;
    b = b == 0 ? 0.75f : b < 0 ? 0 : b;
    for (unsigned step = 0; step < steps; step++) {
        unsigned what = below(100);
        if (what < 40)
            put_some(ix, &m, what < 20);
        else if (what < 55)
            remove_some(ix, &m, 1 + below(20));
        else if (what < 62)
            assert_int_equal(peri_text_maintain(ix, what & 1, NULL), PERI_OK);
        else if (what < 68)
            ix = reopen(ix, what & 1);
        ask a;
        draw_ask(&a);
        compare(ix, &m, &a, what % 4 == 0, k1, b);
        scores_of_given_documents(ix, &m, &a, k1, b);
        if (step % 40 == 39) {
            sound(ix, &m);
            peri_text *fresh = fresh_from(&m, &config);
            agree_to_the_bit(ix, fresh);
            peri_text_maintain(ix, 1, NULL);
            agree_to_the_bit(ix, fresh);
            sound(ix, &m);
            peri_text_close(fresh);
        }
    }
    peri_text_close(ix);
}

static unsigned number(const char *name, unsigned otherwise)
{
    const char *value = getenv(name);
    return value ? (unsigned)strtoul(value, NULL, 10) : otherwise;
}

static void answers_are_those_of_the_formula_through_a_whole_life(void **state)
{
    (void)state;
    static const float k1s[] = {0, 0.9f, 2, -1}, bs[] = {0, 0.4f, 1, -1};
    for (unsigned i = 0; i < 4; i++) {
        seed = number("PERIGEE_SEED", 1) * 100 + i;
        state_ = seed;
        live(k1s[i], bs[i], number("PERIGEE_STEPS", 240));
    }
}

/* Windows, sealed segments, merges: many short documents, then half of them go. */
static void large_indexes_agree_with_a_fresh_build_to_the_bit(void **state)
{
    (void)state;
    enum { MANY = 30000 };
    static char text[MANY][64];
    static peri_slice texts[MANY];
    static uint64_t ids[MANY];
    peri_text *ix, *fresh;
    uint64_t faults;
    seed = state_ = 77;
    for (unsigned i = 0; i < MANY; i++) {
        size_t size = 0;
        for (unsigned w = 1 + below(6); w-- > 0;)
            size += (size_t)sprintf(text[i] + size, "%s ", word_text(draw_word()));
        texts[i] = (peri_slice){text[i], size};
        ids[i] = i * 3;
    }
    assert_int_equal(peri_text_create(&ix, NULL, NULL), PERI_OK);
    assert_int_equal(peri_text_put_many(ix, MANY, ids, texts, 0, NULL, NULL), PERI_OK);
    for (unsigned i = 0; i < MANY; i += 2)
        assert_int_equal(peri_text_remove(ix, ids[i]), PERI_OK);
    assert_int_equal(peri_text_create(&fresh, NULL, NULL), PERI_OK);
    for (unsigned i = 1; i < MANY; i += 2)
        assert_int_equal(peri_text_put(fresh, ids[i], texts[i], 0), PERI_OK);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 200; i++) {
            peri_scored x[K], y[K];
            ask a;
            do
                draw_ask(&a);
            while (a.kind == PHRASE || a.kind == MIXED);
            size_t n = search(ix, &a, K, 0, x);
            assert_int_equal(search(fresh, &a, K, 0, y), n);
            assert_memory_equal(x, y, n * sizeof *x);
        }
        assert_int_equal(peri_text_check(ix, NULL, &faults), PERI_OK);
        assert_int_equal(faults, 0);
        if (round == 0)
            assert_int_equal(peri_text_maintain(ix, 0, NULL), PERI_OK);
        else if (round == 1)
            assert_int_equal(peri_text_maintain(ix, 1, NULL), PERI_OK);
    }
    peri_text_close(ix);
    peri_text_close(fresh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_the_formula_through_a_whole_life),
        cmocka_unit_test(large_indexes_agree_with_a_fresh_build_to_the_bit),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
