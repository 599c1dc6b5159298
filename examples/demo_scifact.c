/* Which abstracts speak about a claim? The main job of the library, end to end, on real data.
 *
 *     demo_scifact [DATA_DIRECTORY [INDEX_FILE [TEXT_INDEX]]]
 *
 * Reads the embeddings of 5,183 scientific abstracts and 300 claims (SciFact, see
 * examples/data/scifact/ATTRIBUTION.md), builds an HNSW index on disk, opens it again from a
 * mapping, answers all the claims, and holds the answers against exact search and against human
 * judgements. Ids in the index are row numbers, which are line numbers in titles.tsv.
 *
 * TEXT_INDEX is what `perigee text build` made of corpus.jsonl, whose lines are in the same order:
 * with it the claims are answered by their words, too (BM25), and by both rankings fused, which
 * must be better than either.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "perigee/fuse.h"
#include "perigee/index.h"
#include "perigee/io.h"
#include "perigee/text.h"

enum { K = 10, DEEP = 100, SHOWN = 3, MEASURED_ROUNDS = 5 };

typedef struct vectors {
    size_t n;
    uint32_t dim;
    float *rows;
} vectors;

/* Lines `name <tab> rest`, each cut in two in place. */
typedef struct table {
    size_t n;
    char **name, **rest;
    char *text;
} table;

/* judged[q * documents + d] is the grade of document d for claim q, 0 = not relevant. */
typedef struct judgements {
    size_t documents;
    unsigned char *grade, highest;
} judgements;

static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "demo_scifact: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static void must(peri_status status, const char *what)
{
    if (status)
        fail("%s: %s (%s)", what, peri_strerror(status), peri_error_detail());
}

static void *allocate(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        fail("out of memory");
    return p;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- reading ---- */

static vectors read_vectors(const char *folder, const char *dataset)
{
    char path[4096];
    peri_matrix *m = NULL;
    peri_matrix_info info;
    vectors v;

    snprintf(path, sizeof path, "%s/scifact-minilm-384-angular.hdf5:%s", folder, dataset);
    must(peri_matrix_open(&m, path, NULL), path);
    peri_matrix_info_init(&info);
    must(peri_matrix_get_info(m, &info), path);
    v.n = (size_t)info.rows;
    v.dim = info.dim;
    v.rows = allocate(v.n * v.dim, sizeof *v.rows);
    must(peri_matrix_read(m, 0, v.n, v.rows), path);
    peri_matrix_close(m);
    return v;
}

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st))
        fail("cannot read %s", path);
    char *text = allocate((size_t)st.st_size + 1, 1);
    if (fread(text, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        fail("cannot read %s", path);
    fclose(f);
    return text;
}

static table read_table(const char *folder, const char *name)
{
    char path[4096];
    table t = {0};
    size_t lines = 0;

    snprintf(path, sizeof path, "%s/scifact/%s", folder, name);
    t.text = read_text(path);
    for (const char *p = t.text; (p = strchr(p, '\n')); p++)
        lines++;
    t.name = allocate(lines, sizeof *t.name);
    t.rest = allocate(lines, sizeof *t.rest);
    for (char *p = t.text, *end; (end = strchr(p, '\n')); p = end + 1) {
        char *tab = memchr(p, '\t', (size_t)(end - p));
        if (!tab)
            fail("%s, line %zu: no tab", path, t.n + 1);
        *tab = *end = '\0';
        t.name[t.n] = p;
        t.rest[t.n++] = tab + 1;
    }
    return t;
}

static size_t find_name(const table *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (!strcmp(t->name[i], name))
            return i;
    fail("no entry named %s", name);
    return 0;
}

/* qrels.tsv: query-id, corpus-id, score, under one line of headings. */
static judgements read_judgements(const char *folder, const table *claims, const table *titles)
{
    judgements j = {titles->n, allocate(claims->n * titles->n, 1), 0};
    table t = read_table(folder, "qrels.tsv");

    for (size_t i = 1; i < t.n; i++) {
        char *tab = strchr(t.rest[i], '\t');
        if (!tab)
            fail("qrels.tsv, line %zu: no score", i + 1);
        *tab = '\0';
        size_t claim = find_name(claims, t.name[i]), document = find_name(titles, t.rest[i]);
        unsigned char grade = (unsigned char)atoi(tab + 1);
        j.grade[claim * j.documents + document] = grade;
        j.highest = grade > j.highest ? grade : j.highest;
    }
    free(t.name);
    free(t.rest);
    free(t.text);
    return j;
}

/* ---- judging ---- */

/* The share of the exact answers that were found. */
static double recall(const peri_hit *found, const peri_hit *exact, size_t n)
{
    size_t common = 0;
    for (size_t q = 0; q < n; q++)
        for (size_t i = q * K; i < (q + 1) * K; i++)
            for (size_t j = q * K; j < (q + 1) * K; j++)
                common += found[i].id == exact[j].id;
    return (double)common / (double)(n * K);
}

/* Normalised discounted cumulative gain of the first ten: 1 = every relevant abstract on top. */
static double ndcg(const peri_hit *hits, size_t n, const judgements *j)
{
    double sum = 0;
    for (size_t q = 0; q < n; q++) {
        const unsigned char *grade = j->grade + q * j->documents;
        double gain = 0, best = 0;
        size_t place = 0;
        for (size_t i = 0; i < K; i++)
            gain += grade[hits[q * K + i].id] / log2((double)i + 2);
        for (unsigned g = j->highest; g; g--)
            for (size_t d = 0; d < j->documents && place < K; d++)
                if (grade[d] == g)
                    best += g / log2((double)place++ + 2);
        if (best > 0)
            sum += gain / best;
    }
    return sum / (double)n;
}

/* ---- the job itself ---- */

static void build(const vectors *v, const char *path)
{
    peri_space space;
    peri_index *ix = NULL;
    peri_task all_cores;
    struct stat st = {0};
    uint64_t *ids = allocate(v->n, sizeof *ids);

    for (size_t i = 0; i < v->n; i++)
        ids[i] = i;
    peri_task_init(&all_cores);
    peri_space_init(&space, v->dim, PERI_METRIC_COSINE);
    must(peri_hnsw_create(&ix, &space, NULL, NULL), "create");
    double start = now();
    must(peri_index_put_many(ix, v->n, ids, v->rows, 0, &all_cores, NULL), "build");
    double built = now();
    must(peri_index_save(ix, path, NULL), path);
    double saved = now();
    peri_index_close(ix);
    free(ids);
    stat(path, &st);
    printf("build       %.2f s (all cores), saved in %.2f s: %s, %.1f MB\n", built - start,
           saved - built, path, (double)st.st_size / 1e6);
}

static peri_index *reopen(const char *path)
{
    peri_index *ix = NULL;
    uint64_t faults = 0;

    double start = now();
    must(peri_index_open(&ix, path, PERI_OPEN_MAP | PERI_OPEN_READONLY, NULL, NULL), path);
    double opened = now();
    must(peri_index_check(ix, NULL, &faults), "check");
    if (faults)
        fail("check: %llu faults (%s)", (unsigned long long)faults, peri_error_detail());
    printf("reopen      %.1f ms (mapped); structure checked, no faults\n", 1e3 * (opened - start));
    return ix;
}

static peri_index *exact_index(const vectors *v)
{
    peri_space space;
    peri_index *ix = NULL;

    peri_space_init(&space, v->dim, PERI_METRIC_COSINE);
    must(peri_flat_create(&ix, &space, NULL), "create");
    for (size_t i = 0; i < v->n; i++)
        must(peri_index_put(ix, i, v->rows + i * v->dim, 0), "put");
    return ix;
}

/* All claims, K hits each, on one thread; returns queries/s. */
static double answer(const peri_index *ix, const vectors *claims, peri_hit *hits)
{
    peri_query q;
    size_t *n_hits = allocate(claims->n, sizeof *n_hits);
    double best = HUGE_VAL;

    peri_query_init(&q, K);
    for (int round = 0; round < MEASURED_ROUNDS; round++) {
        double start = now();
        must(peri_index_search_many(ix, claims->n, claims->rows, &q, NULL, hits, n_hits), "search");
        double took = now() - start;
        best = took < best ? took : best;
    }
    for (size_t i = 0; i < claims->n; i++)
        if (n_hits[i] != K)
            fail("claim %zu: %zu hits of %d", i, n_hits[i], K);
    free(n_hits);
    return (double)claims->n / best;
}

/* The first claims whose best answer was judged relevant. */
static void show(const peri_hit *hits, const table *claims, const table *titles,
                 const judgements *j)
{
    for (size_t q = 0, shown = 0; q < claims->n && shown < SHOWN; q++) {
        const unsigned char *grade = j->grade + q * j->documents;
        if (!grade[hits[q * K].id])
            continue;
        shown++;
        printf("\nclaim: %s\n", claims->rest[q]);
        for (size_t i = 0; i < 3; i++) {
            const peri_hit *h = &hits[q * K + i];
            printf("  %zu. %.3f %s %s\n", i + 1, (double)h->distance,
                   grade[h->id] ? "[relevant]" : "          ", titles->rest[h->id]);
        }
    }
    printf("\n(distance = 1 - cosine; [relevant] = so judged by SciFact's annotators)\n");
}

/* ---- words, and both together ---- */

/* The two legs of a claim, each able to score any abstract. */
typedef struct both {
    const peri_text *text;
    const vectors *abstracts, *claims;
    peri_slice claim;
    size_t number;
    peri_text_query words;
} both;

static peri_status score_absent(void *ctx, size_t leg, size_t n, const uint64_t *ids, float *scores)
{
    const both *b = ctx;
    if (leg == 0)
        return peri_text_score(b->text, b->claim, &b->words, n, ids, scores);
    const float *claim = b->claims->rows + b->number * b->claims->dim;
    for (size_t i = 0; i < n; i++) {
        const float *abstract = b->abstracts->rows + ids[i] * b->abstracts->dim;
        double dot = 0, x = 0, y = 0;
        for (uint32_t d = 0; d < b->claims->dim; d++) {
            dot += (double)claim[d] * abstract[d];
            x += (double)claim[d] * claim[d];
            y += (double)abstract[d] * abstract[d];
        }
        scores[i] = (float)(1 - dot / sqrt(x * y));
    }
    return PERI_OK;
}

/* Convex combination, both legs weighing the same: BM25 is 0 at worst, a cosine distance 1 for what
 * has nothing in common. */
static void fuse_claim(both *b, const peri_index *flat, peri_hit *by_words, peri_hit *fused)
{
    peri_scored found[DEEP];
    peri_hit near[DEEP];
    peri_fused best[K];
    peri_fuse_leg legs[2];
    peri_fusion how;
    peri_query q;
    size_t n_found, n_near, n_best;

    must(peri_text_search(b->text, b->claim, &b->words, found, &n_found), "search words");
    peri_query_init(&q, DEEP);
    must(peri_index_search(flat, b->claims->rows + b->number * b->claims->dim, &q, near, &n_near),
         "search vectors");
    peri_fuse_leg_init(&legs[0], found, n_found);
    peri_fuse_leg_init(&legs[1], near, n_near);
    legs[1].smaller_is_better = 1;
    legs[1].worst = 1;
    peri_fusion_init(&how, PERI_FUSE_CONVEX, K);
    how.score = score_absent;
    how.score_ctx = b;
    must(peri_fuse_legs(&how, 2, legs, NULL, best, &n_best), "fuse");
    if (n_found < K || n_best < K)
        fail("claim %zu: %zu hits by words", b->number, n_found);
    for (size_t i = 0; i < K; i++) {
        by_words[i].id = found[i].id;
        fused[i].id = best[i].id;
    }
}

static void try_fusion(const char *path, const peri_index *flat, const vectors *abstracts,
                       const vectors *claims, const table *titles, const table *texts,
                       const judgements *j, double vectors_alone)
{
    peri_text *text = NULL;
    peri_hit *words = allocate(claims->n * K, sizeof *words);
    peri_hit *fused = allocate(claims->n * K, sizeof *fused);
    both b = {.abstracts = abstracts, .claims = claims};

    must(peri_text_open(&text, path, PERI_OPEN_MAP | PERI_OPEN_READONLY, NULL, NULL), path);
    for (size_t d = 0; d < titles->n; d++) {
        uint64_t id;
        must(peri_text_id_of(text, peri_slice_of(titles->name[d]), &id), titles->name[d]);
        if (id != d)
            fail("%s: abstract %s has id %llu, expected %zu", path, titles->name[d],
                 (unsigned long long)id, d);
    }
    b.text = text;
    peri_text_query_init(&b.words, DEEP);
    b.words.syntax = PERI_SYNTAX_WORDS;
    for (b.number = 0; b.number < claims->n; b.number++) {
        b.claim = peri_slice_of(texts->rest[b.number]);
        fuse_claim(&b, flat, words + b.number * K, fused + b.number * K);
    }
    double by_words = ndcg(words, claims->n, j), by_both = ndcg(fused, claims->n, j);
    printf("nDCG@10     words (BM25) %.4f, vectors (MiniLM) %.4f, both fused %.4f\n", by_words,
           vectors_alone, by_both);
    if (by_both <= by_words || by_both <= vectors_alone)
        fail("the fusion is no better than its legs");
    peri_text_close(text);
    free(words);
    free(fused);
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : "examples/data";
    const char *path = argc > 2 ? argv[2] : "scifact.peri";
    vectors abstracts = read_vectors(folder, "train"), claims = read_vectors(folder, "test");
    table titles = read_table(folder, "titles.tsv"), texts = read_table(folder, "claims.tsv");

    if (titles.n != abstracts.n || texts.n != claims.n)
        fail("%s: texts and vectors do not belong together", folder);
    judgements j = read_judgements(folder, &texts, &titles);
    printf("SciFact     %zu abstracts, %zu claims, %u dimensions (MiniLM); kernels: %s\n",
           abstracts.n, claims.n, abstracts.dim, peri_cpu_level());

    build(&abstracts, path);
    peri_index *graph = reopen(path), *flat = exact_index(&abstracts);
    peri_hit *hits = allocate(claims.n * K, sizeof *hits);
    peri_hit *truth = allocate(claims.n * K, sizeof *truth);
    double rate = answer(graph, &claims, hits), exact_rate = answer(flat, &claims, truth);

    printf("search      %.0f queries/s (exact search %.0f), one thread\n", rate, exact_rate);
    printf("recall@10   %.4f of what exact search finds\n", recall(hits, truth, claims.n));
    printf("nDCG@10     %.4f by human judgement (exact search %.4f)\n", ndcg(hits, claims.n, &j),
           ndcg(truth, claims.n, &j));
    if (argc > 3)
        try_fusion(argv[3], flat, &abstracts, &claims, &titles, &texts, &j,
                   ndcg(truth, claims.n, &j));
    show(hits, &texts, &titles, &j);

    peri_index_close(graph);
    peri_index_close(flat);
    free(hits);
    free(truth);
    free(j.grade);
    table *tables[] = {&titles, &texts};
    for (size_t i = 0; i < 2; i++) {
        free(tables[i]->name);
        free(tables[i]->rest);
        free(tables[i]->text);
    }
    free(abstracts.rows);
    free(claims.rows);
    return 0;
}
