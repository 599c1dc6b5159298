/* What bench/sparse.py measures beside the library: rows like SPLADE's, and two ways to search
 * them, a linear term-at-a-time scan and document-at-a-time MaxScore (Turtle and Flood 1995).
 *
 * The rows: topics are sets of terms; a row mixes a few topics and a background, its terms drawn
 * with a popularity of V u^4.5, its weights log-normal. Queries are cut from rows that are not in
 * the set. Synthetic rows flatter an index when they are too easy, so they are held to two checks
 * (bench/sparse.py prints them): MaxScore at least ten times slower than the linear scan, as on
 * real SPLADE rows, and about 75 % of the weight in the ten heaviest entries of a query and the
 * fifty heaviest of a row. Compiled by bench/sparse.py; one thread. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    VOCABULARY = 30522,
    TOPICS = 3000,
    TOPIC_TERMS = 300,
    ROW_ENTRIES = 120,
    QUERY_ENTRIES = 45
};

/* ---- numbers ---- */

typedef struct rng {
    uint64_t state;
} rng;

static uint64_t next(rng *r)
{
    uint64_t x = r->state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static double unit(rng *r)
{
    return (double)((next(r) >> 11) + 1) * 0x1p-53;
}

static double normal(rng *r)
{
    return sqrt(-2 * log(unit(r))) * cos(6.283185307179586 * unit(r));
}

/* ---- rows ---- */

typedef struct entry {
    uint32_t term;
    float weight;
} entry;

static uint32_t *topics; /* TOPICS x TOPIC_TERMS */

static uint32_t popular(rng *r)
{
    /* The few most frequent terms of a vocabulary (punctuation, stop words) get small weights from
     * the model and are rarely kept: the curve begins a little way in. */
    double u = 0.12 + 0.88 * unit(r);
    return (uint32_t)(VOCABULARY * pow(u, 4.5)) % VOCABULARY;
}

static void make_topics(uint64_t seed)
{
    topics = malloc(sizeof *topics * TOPICS * TOPIC_TERMS);
    for (int t = 0; t < TOPICS; t++) {
        rng r = {seed * 1000003 + (uint64_t)t};
        for (int i = 0; i < TOPIC_TERMS; i++)
            topics[t * TOPIC_TERMS + i] = popular(&r);
    }
}

static int by_weight(const void *a, const void *b)
{
    float x = ((const entry *)a)->weight, y = ((const entry *)b)->weight;
    return x > y ? -1 : x < y;
}

static int by_term(const void *a, const void *b)
{
    uint32_t x = ((const entry *)a)->term, y = ((const entry *)b)->term;
    return x < y ? -1 : x > y;
}

/* A term's standing weight in its topic: the same for all rows of the topic. */
static double standing(uint32_t topic, uint32_t term, double sigma)
{
    rng r = {(uint64_t)topic << 32 | term};
    return exp(sigma * normal(&r));
}

static uint32_t make_row(uint64_t seed, entry *out)
{
    rng r = {seed};
    uint32_t n = 0, mine[3];
    int n_topics = 1 + (int)(next(&r) % 3);
    uint32_t wanted = ROW_ENTRIES / 2 + (uint32_t)(next(&r) % ROW_ENTRIES);
    for (int i = 0; i < n_topics; i++)
        mine[i] = (uint32_t)(TOPICS * pow(unit(&r), 1.5)) % TOPICS;
    static uint64_t seen[VOCABULARY]; /* the row that had the term last */
    for (uint32_t tries = 0; n < wanted && tries < 20 * wanted; tries++) {
        int i = (int)(next(&r) % (unsigned)n_topics);
        int own = unit(&r) < 0.75;
        double place = unit(&r);
        uint32_t term = own ? topics[mine[i] * TOPIC_TERMS +
                                     (uint32_t)(TOPIC_TERMS * place * place) % TOPIC_TERMS]
                            : popular(&r);
        if (seen[term] == seed)
            continue;
        seen[term] = seed;
        double w = own ? 0.45 * standing(mine[i], term, 0.6) : 0.18;
        w *= exp(0.65 * normal(&r));
        out[n++] = (entry){term, (float)(w > 3.5 ? 3.5 : w)};
    }
    qsort(out, n, sizeof *out, by_term);
    return n;
}

/* A query: the row's entries, the heavier the likelier, weights drawn further apart. */
static uint32_t make_query(uint64_t seed, entry *out)
{
    entry row[2 * ROW_ENTRIES];
    uint32_t n = make_row(seed, row);
    rng r = {~seed};
    for (uint32_t i = 0; i < n; i++)
        row[i].weight = (float)(0.25 * pow(row[i].weight, 1.5) * exp(1.5 * normal(&r)));
    qsort(row, n, sizeof *row, by_weight);
    n = n < QUERY_ENTRIES ? n : QUERY_ENTRIES;
    memcpy(out, row, n * sizeof *out);
    for (uint32_t i = 0; i < n; i++)
        out[i].weight = out[i].weight > 3.5f ? 3.5f : out[i].weight;
    qsort(out, n, sizeof *out, by_term);
    return n;
}

/* Rows [first, first + n) of a set, or queries; offsets has n + 1 places, terms and weights `room`.
 * Returns the number of entries, or 0 if they do not fit. */
uint64_t sparse_make(uint64_t seed, int queries, uint64_t first, uint64_t n, uint64_t *offsets,
                     uint32_t *terms, float *weights, uint64_t room)
{
    entry row[2 * ROW_ENTRIES];
    uint64_t at = 0;
    if (!topics)
        make_topics(seed);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t s = (seed << 40) + (queries ? (uint64_t)1 << 39 : 0) + first + i + 1;
        uint32_t m = queries ? make_query(s, row) : make_row(s, row);
        offsets[i] = at;
        if (at + m > room)
            return 0;
        for (uint32_t j = 0; j < m; j++) {
            terms[at] = row[j].term;
            weights[at++] = row[j].weight;
        }
    }
    offsets[n] = at;
    return at;
}

/* ---- an inverted index without windows ---- */

typedef struct inverted {
    uint32_t rows;
    uint64_t first[VOCABULARY + 1];
    uint32_t *ids;
    float *weights;
    float largest[VOCABULARY];
    float *scores; /* one a row: what a linear scan adds up in */
} inverted;

inverted *sparse_invert(uint64_t n, const uint64_t *offsets, const uint32_t *terms,
                        const float *weights)
{
    inverted *v = calloc(1, sizeof *v);
    uint64_t all = offsets[n];
    uint64_t *at = calloc(VOCABULARY + 1, sizeof *at);
    v->rows = (uint32_t)n;
    v->ids = malloc(all * sizeof *v->ids);
    v->weights = malloc(all * sizeof *v->weights);
    v->scores = calloc(n + 16, sizeof *v->scores);
    for (uint64_t i = 0; i < all; i++)
        v->first[terms[i] + 1]++;
    for (int t = 0; t < VOCABULARY; t++)
        v->first[t + 1] += v->first[t];
    memcpy(at, v->first, (VOCABULARY + 1) * sizeof *at);
    for (uint64_t row = 0; row < n; row++)
        for (uint64_t i = offsets[row]; i < offsets[row + 1]; i++) {
            uint32_t t = terms[i];
            v->ids[at[t]] = (uint32_t)row;
            v->weights[at[t]++] = weights[i];
            v->largest[t] = weights[i] > v->largest[t] ? weights[i] : v->largest[t];
        }
    free(at);
    return v;
}

void sparse_uninvert(inverted *v)
{
    free(v->ids);
    free(v->weights);
    free(v->scores);
    free(v);
}

typedef struct top {
    float score;
    uint32_t row;
} top;

static void push(top *heap, uint32_t k, float score, uint32_t row)
{
    uint32_t i = 0;
    for (uint32_t child; (child = 2 * i + 1) < k; i = child) {
        if (child + 1 < k && heap[child + 1].score < heap[child].score)
            child++;
        if (heap[child].score >= score)
            break;
        heap[i] = heap[child];
    }
    heap[i] = (top){score, row};
}

/* Add up list after list in one array, then look through it. */
void sparse_linear(inverted *v, uint32_t n, const uint32_t *terms, const float *weights, uint32_t k,
                   top *out)
{
    float *scores = v->scores;
    memset(scores, 0, v->rows * sizeof *scores);
    for (uint32_t t = 0; t < n; t++) {
        float q = weights[t];
        const uint32_t *ids = v->ids + v->first[terms[t]];
        const float *w = v->weights + v->first[terms[t]];
        uint64_t m = v->first[terms[t] + 1] - v->first[terms[t]], i = 0;
        for (; i + 4 <= m; i += 4) {
            scores[ids[i]] += q * w[i];
            scores[ids[i + 1]] += q * w[i + 1];
            scores[ids[i + 2]] += q * w[i + 2];
            scores[ids[i + 3]] += q * w[i + 3];
        }
        for (; i < m; i++)
            scores[ids[i]] += q * w[i];
    }
    for (uint32_t i = 0; i < k; i++)
        out[i] = (top){0, 0};
    for (uint32_t row = 0; row < v->rows; row += 16) {
        int any = 0;
        float bar = out[0].score;
        for (int i = 0; i < 16; i++) /* the array has room for the last sixteen */
            any |= scores[row + i] > bar;
        for (uint32_t i = row; any && i < row + 16 && i < v->rows; i++)
            if (scores[i] > out[0].score)
                push(out, k, scores[i], i);
    }
}

/* ---- MaxScore ---- */

typedef struct cursor {
    const uint32_t *ids;
    const float *weights;
    uint64_t at, end;
    float q, bound;
} cursor;

static int by_bound(const void *a, const void *b)
{
    float x = ((const cursor *)a)->bound, y = ((const cursor *)b)->bound;
    return x < y ? -1 : x > y;
}

static uint64_t seek(const cursor *c, uint32_t row)
{
    uint64_t low = c->at, step = 1;
    while (low + step < c->end && c->ids[low + step] < row) {
        low += step;
        step *= 2;
    }
    uint64_t high = low + step < c->end ? low + step : c->end;
    while (low < high) {
        uint64_t mid = (low + high) / 2;
        if (c->ids[mid] < row)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

void sparse_maxscore(inverted *v, uint32_t n, const uint32_t *terms, const float *weights,
                     uint32_t k, top *out)
{
    cursor c[256];
    float sums[257] = {0};
    for (uint32_t i = 0; i < n; i++) {
        uint64_t first = v->first[terms[i]];
        c[i] = (cursor){v->ids,     v->weights,
                        first,      v->first[terms[i] + 1],
                        weights[i], weights[i] * v->largest[terms[i]]};
    }
    qsort(c, n, sizeof *c, by_bound);
    for (uint32_t i = 0; i < n; i++)
        sums[i + 1] = sums[i] + c[i].bound;
    for (uint32_t i = 0; i < k; i++)
        out[i] = (top){0, 0};
    uint32_t essential = 0;
    for (;;) {
        uint32_t row = UINT32_MAX;
        for (uint32_t i = essential; i < n; i++)
            if (c[i].at < c[i].end && c[i].ids[c[i].at] < row)
                row = c[i].ids[c[i].at];
        if (row == UINT32_MAX)
            return;
        float score = 0;
        for (uint32_t i = essential; i < n; i++)
            if (c[i].at < c[i].end && c[i].ids[c[i].at] == row)
                score += c[i].q * c[i].weights[c[i].at++];
        for (uint32_t i = essential; i-- > 0 && score + sums[i + 1] > out[0].score;) {
            c[i].at = seek(&c[i], row);
            if (c[i].at < c[i].end && c[i].ids[c[i].at] == row)
                score += c[i].q * c[i].weights[c[i].at];
        }
        if (score > out[0].score)
            push(out, k, score, row);
        while (essential < n && sums[essential + 1] <= out[0].score)
            essential++;
    }
}
