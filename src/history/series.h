/* Numeric series as one block: n versions of a key whose values are 8-byte numbers, as columns of
 * sequences, times and values. Lossless for every bit pattern.
 *
 * A column of whole numbers is the differences of the first or second order (whichever packs
 * better), in groups of 128: a base, a width, the offsets from the base in `width` bits each
 * (frame of reference, Goldstein et al., ICDE 1998).
 * A column of doubles is, whichever is smallest:
 *   decimal  integers v * 10^e where v == integer / 10^e to the bit (ALP, Afroozeh et al., SIGMOD
 *            2024), as whole numbers, the values that are none listed apart. We divide where ALP
 *            multiplies: a quotient of two exact numbers is rounded correctly, so e alone suffices
 *            and every double read from a short decimal text is exact.
 *   xor      each value xor the one before, in bits (Gorilla, Pelkonen et al., VLDB 2015)
 *   raw      8 bytes each, at a multiple of 8.
 *
 * A block's size and counts are bounded by each other before use; the bytes are verified by the
 * caller. */
#ifndef PE_SERIES_H
#define PE_SERIES_H

#include "base/status.h"

enum {
    PE_SERIES_MAX = 4096, /* versions in a block, inclusive */
    PE_SERIES_ROOM = 64 + PE_SERIES_MAX * 32,
};

enum { PE_SERIES_RAW = 0, PE_SERIES_DECIMAL = 1, PE_SERIES_XOR = 2, PE_SERIES_WHOLE = 3 };

/* Pack n (1..PE_SERIES_MAX) versions, oldest first, into `out` of PE_SERIES_ROOM bytes aligned to
 * 8; returns the size. whole: the values are 64-bit integers, else doubles, by their bits. compress
 * 0: values stay raw. */
size_t pe_series_pack(unsigned char *out, size_t n, const uint64_t *sequences, const int64_t *times,
                      const uint64_t *values, int whole, int compress);

/* How many versions a block holds; 0 = it makes no sense. */
size_t pe_series_count(const unsigned char *block, size_t size);

/* The columns of a block; each may be NULL. Room for pe_series_count each. Errors: ERR_CORRUPT. */
peri_status pe_series_unpack(const unsigned char *block, size_t size, uint64_t *sequences,
                             int64_t *times, uint64_t *values);

/* The raw values within the block, when they are raw and so aligned; else NULL. */
const void *pe_series_raw(const unsigned char *block, size_t size);

#endif
