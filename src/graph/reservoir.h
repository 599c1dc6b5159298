/* HashPrune: for each of many rows a bounded set of candidate neighbours that lie in different
 * directions, fed in any order (the reservoirs of PiPNN, arXiv 2602.21247).
 *
 * A candidate comes with a hash of the direction in which it lies. Of one hash only the nearest
 * stays, and of those the nearest `room`. Both rules ask for a minimum, so what is left depends on
 * what was offered and not on its order: a team may feed the reservoirs and builds still repeat.
 *
 * Distances are kept as bfloat16, cut off; who needs them exactly measures again. */
#ifndef PE_RESERVOIR_H
#define PE_RESERVOIR_H

#include "base/host.h"

#include <stddef.h>
#include <stdint.h>

enum { PE_RESERVOIR_ROOM = 128 };

typedef struct pe_reservoirs {
    pe_host *host;
    size_t n;
    uint32_t room;
    size_t stride;
    unsigned char *data;
} pe_reservoirs;

/* Errors: ERR_NOMEM. room up to PE_RESERVOIR_ROOM. */
peri_status pe_reservoirs_init(pe_reservoirs *r, pe_host *host, size_t n, uint32_t room);
void pe_reservoirs_destroy(pe_reservoirs *r);
/* The caller holds the row's lock. `distance` is not negative. */
void pe_reservoir_offer(pe_reservoirs *r, size_t row, uint32_t id, uint16_t hash, float distance);
/* Copy the ids out, in no set order; returns how many. */
size_t pe_reservoir_ids(const pe_reservoirs *r, size_t row, uint32_t *out);
/* The same, nearest first. */
size_t pe_reservoir_sorted(const pe_reservoirs *r, size_t row, uint32_t *out);

#endif
