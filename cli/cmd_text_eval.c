/* Ranking against judgements, as BEIR and TREC measure it: nDCG@k with gain 2^grade - 1,
 * recall@100, mean reciprocal rank at k; means over the queries that have a relevant document. */
#include "args.h"
#include "cmd_text.h"
#include "json.h"
#include "texts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEP = 100, GRADE_MOST = 30 };

/* One judgement; query by its place in the list. */
typedef struct judgement {
    size_t query;
    uint64_t id;
    unsigned grade;
} judgement;

typedef struct eval {
    const char *operands[3];
    uint64_t k;
    int all, json;
    double min_ndcg;
    text_list queries;
    peri_text *index;
    peri_text_info info;
    judgement *judged;
    size_t n_judged, judged_room;
    /* sums over judged queries */
    size_t n;
    double ndcg, recall, rank, seconds;
} eval;

static int parse(eval *e, int argc, char **argv)
{
    const arg_option options[] = {
        {'k', "k", "N", "depth of nDCG and of the reciprocal rank (10)", ARG_COUNT, &e->k, 1, DEEP,
         NULL},
        {'a', "all", NULL, "join a query's words by AND, not OR", ARG_FLAG, &e->all, 0, 0, NULL},
        {0, "min-ndcg", "X", "exit status 1 when nDCG is lower", ARG_REAL, &e->min_ndcg, 0, 1,
         NULL},
        {0, "json", NULL, "print JSON", ARG_FLAG, &e->json, 0, 0, NULL},
    };
    const arg_command command = {
        "text eval",
        "INDEX QUERIES JUDGEMENTS",
        "Measure the ranking of INDEX: QUERIES as keys and texts (.tsv or .jsonl), JUDGEMENTS as\n"
        "lines of query key, document key (or id) and grade, by tabs; a first line without a\n"
        "number for a grade is a heading.",
        options,
        sizeof options / sizeof *options,
        3,
        3};
    int n;
    return args_parse(&command, argc, argv, e->operands, &n);
}

/* ---- judgements ---- */

static int compare_slices(peri_slice a, peri_slice b)
{
    int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static const text_list *sorting; /* qsort has no argument in C11 */

static int by_key(const void *a, const void *b)
{
    size_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return compare_slices(sorting->keys[x], sorting->keys[y]);
}

/* The place of a query of this key in the list, by the order of keys; SIZE_MAX if none. */
static size_t find_query(const text_list *l, const size_t *order, peri_slice key)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int c = compare_slices(l->keys[order[middle]], key);
        if (c == 0)
            return order[middle];
        if (c < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return SIZE_MAX;
}

/* A document that is not in the index counts as relevant and never found. */
static uint64_t id_of(const eval *e, const char *name)
{
    uint64_t id = UINT64_MAX;
    if (e->info.keyed)
        return peri_text_id_of(e->index, peri_slice_of(name), &id) == PERI_OK ? id : UINT64_MAX;
    char *end;
    id = strtoull(name, &end, 10);
    return *end || !*name ? UINT64_MAX : id;
}

static int take_judgement(eval *e, const size_t *order, uint64_t line, char *query, char *rest)
{
    char *tab = strchr(rest, '\t'), *end;
    long grade = tab ? strtol(tab + 1, &end, 10) : 0;
    if (!tab || end == tab + 1 || *end) {
        if (line == 1)
            return CLI_OK;
        return cli_error("%s: line %llu: expected query, document and grade by tabs",
                         e->operands[2], (unsigned long long)line);
    }
    *tab = 0;
    size_t at = find_query(&e->queries, order, peri_slice_of(query));
    if (at == SIZE_MAX || grade <= 0)
        return CLI_OK;
    if (e->n_judged == e->judged_room) {
        size_t room = e->judged_room ? e->judged_room * 2 : 256;
        judgement *more = realloc(e->judged, room * sizeof *more);
        if (!more)
            return cli_error("no memory for %zu judgements", room);
        e->judged = more;
        e->judged_room = room;
    }
    e->judged[e->n_judged++] =
        (judgement){at, id_of(e, rest), (unsigned)(grade < GRADE_MOST ? grade : GRADE_MOST)};
    return CLI_OK;
}

static int by_query(const void *a, const void *b)
{
    const judgement *x = a, *y = b;
    if (x->query != y->query)
        return x->query < y->query ? -1 : 1;
    return (x->grade < y->grade) - (x->grade > y->grade); /* best first: the ideal ranking */
}

static int read_judgements(eval *e)
{
    texts file = {.path = e->operands[2], .format = TEXTS_LINES};
    peri_slice none, line;
    size_t *order = malloc((e->queries.n + 1) * sizeof *order);
    int code = order ? texts_open(&file) : cli_error("no memory for %zu queries", e->queries.n);
    int got = 1;
    for (size_t i = 0; order && i < e->queries.n; i++)
        order[i] = i;
    sorting = &e->queries;
    if (order)
        qsort(order, e->queries.n, sizeof *order, by_key);
    while (code == CLI_OK && (got = texts_next(&file, &none, &line)) == 1) {
        char *query = (char *)(uintptr_t)line.data, *tab;
        query[line.size] = 0;
        tab = strchr(query, '\t');
        if (tab)
            *tab = 0;
        code = take_judgement(e, order, file.line, query, tab ? tab + 1 : query + strlen(query));
    }
    texts_close(&file);
    free(order);
    if (e->n_judged)
        qsort(e->judged, e->n_judged, sizeof *e->judged, by_query);
    return got < 0 ? CLI_ERROR : code;
}

/* ---- measuring ---- */

static double gain(unsigned grade, size_t rank)
{
    return (ldexp(1, (int)grade) - 1) / log2((double)rank + 2);
}

static void measure(eval *e, const judgement *judged, size_t n_judged, const peri_scored *hits,
                    size_t n_hits)
{
    double dcg = 0, ideal = 0, first = 0;
    size_t found = 0;
    for (size_t i = 0; i < n_judged && i < e->k; i++)
        ideal += gain(judged[i].grade, i);
    for (size_t i = 0; i < n_hits; i++)
        for (size_t j = 0; j < n_judged; j++)
            if (judged[j].id == hits[i].id) {
                found++;
                if (i < e->k)
                    dcg += gain(judged[j].grade, i);
                if (i < e->k && first == 0)
                    first = 1 / (double)(i + 1);
            }
    e->n++;
    e->ndcg += dcg / ideal;
    e->rank += first;
    e->recall += (double)found / (double)n_judged;
}

static int ask_all(eval *e)
{
    peri_text_query q;
    peri_text_query_init(&q, DEEP);
    q.syntax = PERI_SYNTAX_WORDS;
    q.join = e->all ? PERI_JOIN_AND : PERI_JOIN_OR;
    for (size_t first = 0, end; first < e->n_judged && !cli_stopped(); first = end) {
        peri_scored hits[DEEP];
        size_t n_hits, query = e->judged[first].query;
        for (end = first; end < e->n_judged && e->judged[end].query == query;)
            end++;
        double start = cli_seconds();
        peri_status status = peri_text_search(e->index, e->queries.texts[query], &q, hits, &n_hits);
        e->seconds += cli_seconds() - start;
        if (status != PERI_OK)
            return cli_failed("cannot search", status, NULL);
        measure(e, e->judged + first, end - first, hits, n_hits);
    }
    return e->n ? CLI_OK
                : cli_error("%s: no query of %s has a relevant document", e->operands[2],
                            e->operands[1]);
}

static int report(const eval *e)
{
    double n = (double)e->n, rate = e->seconds > 0 ? n / e->seconds : 0;
    if (e->json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_count(&j, "queries", e->n);
        json_count(&j, "k", e->k);
        json_real(&j, "ndcg", e->ndcg / n, 6);
        json_real(&j, "recall_100", e->recall / n, 6);
        json_real(&j, "reciprocal_rank", e->rank / n, 6);
        json_real(&j, "queries_per_second", rate, 6);
        json_close(&j, '}');
        json_end(&j);
    } else {
        char rates[32];
        cli_print_count((uint64_t)rate, rates);
        printf("%zu queries: nDCG@%llu %.4f, recall@100 %.4f, MRR@%llu %.4f, %s queries/s\n", e->n,
               (unsigned long long)e->k, e->ndcg / n, e->recall / n, (unsigned long long)e->k,
               e->rank / n, rates);
    }
    return e->ndcg / n < e->min_ndcg ? CLI_NO : CLI_OK;
}

int text_eval(int argc, char **argv)
{
    eval e = {.k = 10};
    int code = parse(&e, argc, argv);
    if (code >= 0)
        return code;
    texts queries = {.path = e.operands[1]};
    code = text_open(e.operands[0], &e.index, &e.info);
    if (code == CLI_OK)
        code = text_list_read(&e.queries, &queries);
    if (code == CLI_OK)
        code = read_judgements(&e);
    if (code == CLI_OK)
        code = ask_all(&e);
    if (code == CLI_OK)
        code = report(&e);
    free(e.judged);
    text_list_free(&e.queries);
    peri_text_close(e.index);
    return code;
}
