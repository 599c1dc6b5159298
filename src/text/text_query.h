/* A query as a tree over its distinct terms. */
#ifndef PE_TEXT_QUERY_H
#define PE_TEXT_QUERY_H

#include "text/analyse.h"

#define PE_NO_NODE UINT32_MAX

typedef enum pe_node_kind {
    PE_NODE_TERM,   /* first: the term */
    PE_NODE_PREFIX, /* first: the term, which is the beginning of terms */
    PE_NODE_PHRASE, /* n items from `first` on */
    PE_NODE_AND,    /* children */
    PE_NODE_OR,
    PE_NODE_WITHOUT /* the first child, less what matches any other */
} pe_node_kind;

typedef struct pe_node {
    pe_node_kind kind;
    uint32_t first, n;
    uint32_t child, last, next; /* PE_NO_NODE: none */
} pe_node;

typedef struct pe_query_term {
    uint32_t text, size; /* in the tree's bytes */
    uint32_t count;      /* how often the query names it, NOT apart */
    uint32_t prefix;
} pe_query_term;

typedef struct pe_query_item { /* of a phrase */
    uint32_t term, position;
} pe_query_item;

/* Start from all zeros and a host; keeps its room from query to query. */
typedef struct pe_tree {
    pe_host *host;
    uint32_t root; /* PE_NO_NODE: nothing can match */
    pe_node *nodes;
    pe_query_term *terms;
    pe_query_item *items;
    char *bytes;
    uint32_t *table; /* term + 1 by hash of text and prefix, 0 = empty place */
    size_t n_nodes, n_terms, n_items, n_bytes;
    size_t nodes_room, terms_room, items_room, bytes_room, table_size;
} pe_tree;

/* Errors: ERR_ARG (malformed, too many terms, too deep), ERR_NOMEM. */
peri_status pe_tree_parse(pe_tree *t, const pe_analyser *a, peri_slice query, uint32_t syntax,
                          uint32_t join);
void pe_tree_free(pe_tree *t);

#endif
