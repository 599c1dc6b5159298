#include "args.h"
#include "cmd_text.h"
#include "idlist.h"
#include "json.h"
#include "texts.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct search {
    const char *operands[2], *queries_path, *allow_path;
    uint64_t k;
    int all, words, json;
    text_list queries;
    peri_text *index;
    peri_text_info info;
    peri_idset *allow;
    peri_scored *hits;
} search;

static int parse(search *s, int argc, char **argv)
{
    const arg_option options[] = {
        {'k', "k", "N", "hits wanted of each query (10)", ARG_COUNT, &s->k, 1, 1048576, NULL},
        {'a', "all", NULL, "words side by side are joined by AND, not OR", ARG_FLAG, &s->all, 0, 0,
         NULL},
        {'w', "words", NULL, "nothing but words: no operators, no errors", ARG_FLAG, &s->words, 0,
         0, NULL},
        {0, "queries", "FILE", "queries from a file (lines, .tsv, .jsonl)", ARG_TEXT,
         &s->queries_path, 0, 0, NULL},
        {0, "allow", "FILE", "only the ids in FILE (text, .npy, .ivecs, .hdf5)", ARG_TEXT,
         &s->allow_path, 0, 0, NULL},
        {0, "json", NULL, "print a line of JSON for each query", ARG_FLAG, &s->json, 0, 0, NULL},
    };
    const arg_command command = {"text search",
                                 "INDEX [QUERY]",
                                 "Find documents by their words, best first. In a query: \"a "
                                 "phrase\", begin*, AND, OR, NOT\n"
                                 "and parentheses.",
                                 options,
                                 sizeof options / sizeof *options,
                                 1,
                                 2};
    int n, done = args_parse(&command, argc, argv, s->operands, &n);
    if (done >= 0)
        return done;
    if ((n == 2) == (s->queries_path != NULL))
        return cli_usage("text search", "expected a query, or --queries FILE");
    return -1;
}

static int read_queries(search *s)
{
    if (s->queries_path) {
        texts file = {.path = s->queries_path};
        return text_list_read(&s->queries, &file);
    }
    return text_list_add(&s->queries, (peri_slice){0}, peri_slice_of(s->operands[1]));
}

static int print_hits(search *s, size_t query, size_t n)
{
    json j = {stdout, 0};
    peri_buf key = {0};
    peri_status status = PERI_OK;
    if (s->json) {
        json_open(&j, NULL, '{');
        json_count(&j, "query", query);
        if (s->queries.keys[query].size)
            json_bytes(&j, "query_key", "query_key_hex", s->queries.keys[query].data,
                       s->queries.keys[query].size);
        json_open(&j, "hits", '[');
    } else if (s->queries.n > 1) {
        printf("%squery %zu\n", query ? "\n" : "", query);
    }
    for (size_t i = 0; i < n && status == PERI_OK; i++) {
        if (s->info.keyed)
            status = peri_text_key_of(s->index, s->hits[i].id, &key);
        if (s->json) {
            json_open(&j, NULL, '{');
            json_count(&j, "id", s->hits[i].id);
            if (s->info.keyed)
                json_bytes(&j, "key", "key_hex", key.data, key.size);
            json_real(&j, "score", (double)s->hits[i].score, 9);
            json_close(&j, '}');
        } else if (s->info.keyed) {
            printf("%3zu  %9.4f  %.*s\n", i + 1, (double)s->hits[i].score, (int)key.size,
                   (const char *)key.data);
        } else {
            printf("%3zu  %9.4f  %llu\n", i + 1, (double)s->hits[i].score,
                   (unsigned long long)s->hits[i].id);
        }
    }
    if (s->json) {
        json_close(&j, ']');
        json_close(&j, '}');
        json_end(&j);
    }
    peri_buf_free(&key);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot name a hit", status, NULL);
}

static int answer_all(search *s)
{
    peri_text_query q;
    uint64_t k = s->k < s->info.documents ? s->k : s->info.documents;
    peri_text_query_init(&q, (uint32_t)(k ? k : 1)); /* an empty index answers with no hits */
    q.join = s->all ? PERI_JOIN_AND : PERI_JOIN_OR;
    q.syntax = s->words ? PERI_SYNTAX_WORDS : PERI_SYNTAX_OPERATORS;
    q.allow = s->allow;
    s->hits = malloc(q.k * sizeof *s->hits);
    if (!s->hits)
        return cli_error("no memory for %u hits", q.k);
    int code = CLI_OK;
    for (size_t i = 0; i < s->queries.n && code == CLI_OK && !cli_stopped(); i++) {
        size_t n;
        char what[64];
        peri_status status = peri_text_search(s->index, s->queries.texts[i], &q, s->hits, &n);
        snprintf(what, sizeof what, "query %zu", i);
        code = status == PERI_OK ? print_hits(s, i, n) : cli_failed(what, status, NULL);
    }
    return code;
}

int text_search(int argc, char **argv)
{
    search s = {.k = 10};
    int code = parse(&s, argc, argv);
    if (code >= 0)
        return code;
    code = text_open(s.operands[0], &s.index, &s.info);
    if (code == CLI_OK && s.allow_path)
        code = idlist_read(s.allow_path, &s.allow);
    if (code == CLI_OK)
        code = read_queries(&s);
    if (code == CLI_OK)
        code = answer_all(&s);
    free(s.hits);
    text_list_free(&s.queries);
    peri_idset_close(s.allow);
    peri_text_close(s.index);
    return code;
}
