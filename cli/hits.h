/* The answers to a batch of queries, and the forms in which they leave the command. */
#ifndef CLI_HITS_H
#define CLI_HITS_H

#include "cli.h"

typedef struct hits {
    size_t n, k;    /* queries; room for hits of each */
    peri_hit *hit;  /* n x k */
    size_t *n_hits; /* n */
} hits;

/* CLI_ERROR, said, where memory does not suffice. */
int hits_alloc(hits *h, size_t n, size_t k);
void hits_free(hits *h);

/* The key of an id, with whatever holds it. */
typedef peri_status (*hits_key_fn)(const void *from, uint64_t id, peri_buf *key);

/* Print the first n answers for people, or as a line of JSON each; they are those of the queries
 * from number `first` on. key NULL: there are no keys to show. */
int hits_print(const hits *h, hits_key_fn key, const void *from, uint64_t first, size_t n,
               int as_json);

/* Write all to a file. HDF5: datasets neighbors and distances and the attribute `distance`; .npy
 * and .ivecs: the ids. Where a query has fewer than k hits, the id is -1, the distance infinite. */
int hits_write(const hits *h, const char *path, unsigned metric);

#endif
