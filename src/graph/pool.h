/* The pool of a beam search: one sorted array, keys and nodes apart, and one bit a node seen. */
#ifndef PE_POOL_H
#define PE_POOL_H

#include "graph/graph.h"

static inline void pe_pool_clear_seen(pe_beam *b)
{
    for (size_t i = 0; i < b->n_touched; i++)
        b->seen[b->touched[i]] = 0;
    b->n_touched = 0;
}

/* 1 when the node was not seen before; marks it. Without a branch, which would go wrong every
 * other time; each word is touched for the first time once, so `touched` has room. */
static inline size_t pe_pool_see(pe_beam *b, uint32_t node)
{
    uint64_t word = b->seen[node / 64];
    b->touched[b->n_touched] = node / 64;
    b->n_touched += word == 0;
    b->seen[node / 64] = word | (uint64_t)1 << (node % 64);
    return (size_t)(~word >> (node % 64) & 1);
}

/* First position whose key is beyond `key`. */
static inline size_t pe_pool_position(const float *d, size_t n, float key)
{
    const float *base = d;
    while (n > 1) {
        size_t half = n / 2;
        base += (size_t)(base[half - 1] <= key) * half; /* a branch here is a coin toss */
        n -= half;
    }
    return (size_t)(base - d) + (n == 1 && *base <= key);
}

/* Insert unless too far; returns the position, or SIZE_MAX. */
static inline size_t pe_pool_insert(pe_beam *b, size_t ef, float key, uint32_t node)
{
    if (b->n == ef && !(key < b->key[ef - 1]))
        return SIZE_MAX;
    size_t at = pe_pool_position(b->key, b->n, key);
    size_t move = b->n - at - (b->n == ef);
    memmove(b->key + at + 1, b->key + at, move * sizeof *b->key);
    memmove(b->node + at + 1, b->node + at, move * sizeof *b->node);
    b->key[at] = key;
    b->node[at] = node;
    b->n += b->n < ef;
    return at;
}

#endif
