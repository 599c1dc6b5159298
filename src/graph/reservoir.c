#include "graph/reservoir.h"
#include "base/checked.h"
#include "base/topk.h"

#include <string.h>

/* A row's block: its head, then room ids, room distances, room hashes. */
typedef struct head {
    uint16_t n;
    uint16_t far;      /* position of the farthest, once full */
    uint16_t farthest; /* its distance */
    uint16_t unused;
} head;

peri_status pe_reservoirs_init(pe_reservoirs *r, pe_host *host, size_t n, uint32_t room)
{
    size_t bytes;
    memset(r, 0, sizeof *r);
    r->host = host;
    r->n = n;
    r->room = room;
    r->stride = sizeof(head) + (size_t)room * 8;
    if (pe_mul_size(n, r->stride, &bytes))
        return pe_fail(PERI_ERR_NOMEM, "reservoirs of %zu rows exceed the address space", n);
    r->data = pe_calloc(host, bytes);
    return r->data ? PERI_OK : PERI_ERR_NOMEM;
}

void pe_reservoirs_destroy(pe_reservoirs *r)
{
    pe_free(r->host, r->data, r->n * r->stride);
    r->data = NULL;
}

/* Upper half of a non-negative float: ordered as the float is. */
static uint16_t cut(float distance)
{
    uint32_t bits;
    memcpy(&bits, &distance, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static void find_farthest(head *h, const uint32_t *ids, const uint16_t *far)
{
    size_t at = 0;
    for (size_t i = 1; i < h->n; i++)
        if (far[i] > far[at] || (far[i] == far[at] && ids[i] > ids[at]))
            at = i;
    h->far = (uint16_t)at;
    h->farthest = far[at];
}

void pe_reservoir_offer(pe_reservoirs *r, size_t row, uint32_t id, uint16_t hash, float distance)
{
    unsigned char *block = r->data + row * r->stride;
    head *h = (head *)(void *)block;
    uint32_t *ids = (uint32_t *)(void *)(block + sizeof *h);
    uint16_t *far = (uint16_t *)(void *)(ids + r->room), *hashes = far + r->room;
    uint16_t d = cut(distance);
    uint16_t found = 0;
    if (h->n == r->room && d > h->farthest)
        return;
    for (size_t i = 0; i < h->n; i++) /* no way out of the middle: this runs as vectors */
        found = (uint16_t)(found | (hashes[i] == hash ? i + 1 : 0));
    size_t at = (size_t)found - 1;
    if (found) {
        if (d > far[at] || (d == far[at] && id >= ids[at]))
            return;
    } else if (h->n < r->room) {
        at = h->n++;
    } else {
        if (d == h->farthest && id >= ids[h->far])
            return;
        at = h->far;
    }
    ids[at] = id;
    far[at] = d;
    hashes[at] = hash;
    if (h->n == r->room)
        find_farthest(h, ids, far);
}

size_t pe_reservoir_ids(const pe_reservoirs *r, size_t row, uint32_t *out)
{
    const unsigned char *block = r->data + row * r->stride;
    const head *h = (const head *)(const void *)block;
    memcpy(out, block + sizeof *h, h->n * sizeof *out);
    return h->n;
}

size_t pe_reservoir_sorted(const pe_reservoirs *r, size_t row, uint32_t *out)
{
    const unsigned char *block = r->data + row * r->stride;
    const head *h = (const head *)(const void *)block;
    const uint32_t *ids = (const uint32_t *)(const void *)(block + sizeof *h);
    const uint16_t *far = (const uint16_t *)(const void *)(ids + r->room);
    pe_cand c[PE_RESERVOIR_ROOM];
    for (size_t i = 0; i < h->n; i++)
        c[i] = (pe_cand){far[i], ids[i]};
    pe_cand_sort(c, h->n);
    for (size_t i = 0; i < h->n; i++)
        out[i] = c[i].slot;
    return h->n;
}
