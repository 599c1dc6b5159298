/* Make the checksums of a vector file right again: headers, the chain of frames and their payloads.
 * Written from docs/formats/vectors.md, not from the library. */
#ifndef PE_RESEAL_VECTORS_H
#define PE_RESEAL_VECTORS_H

#include "corrupt/reseal.h"

enum { RESEAL_FRAMES = 64, FRAME_HEAD = 128 };

static inline uint64_t reseal_frame_seed(uint64_t file_seed, uint64_t at)
{
    return reseal_mix(reseal_mix(file_seed ^ 0x4d524656u) + at); /* "VFRM" */
}

static inline void reseal_vectors(unsigned char *file, size_t size)
{
    uint64_t chain[RESEAL_FRAMES];
    size_t n = 0;
    if (size < 2 * 4096)
        return;
    uint64_t seed = XXH3_64bits(file + 56, 24), end = size;
    uint64_t at = reseal_get(file + 120, 8);
    while (at >= 65536 && at <= end - FRAME_HEAD && n < RESEAL_FRAMES) {
        chain[n++] = at;
        uint64_t prev = reseal_get(file + at + 32, 8);
        if (prev >= at)
            break;
        at = prev;
    }
    uint64_t sum = 0;
    for (size_t i = n; i-- > 0;) {
        unsigned char *f = file + chain[i];
        uint64_t frame_seed = reseal_frame_seed(seed, chain[i]), length = reseal_get(f + 56, 8);
        if (i + 1 < n)
            reseal_put(f + 48, sum, 8);
        if (length >= FRAME_HEAD && length <= end - chain[i])
            reseal_put(f + 88,
                       XXH3_64bits_withSeed(f + FRAME_HEAD, length - FRAME_HEAD, frame_seed), 8);
        sum = XXH3_64bits_withSeed(f, 120, frame_seed);
        reseal_put(f + 120, sum, 8);
    }
    for (int side = 0; side < 2; side++) {
        unsigned char *h = file + side * 4096;
        if (n && reseal_get(h + 120, 8) == chain[0])
            reseal_put(h + 136, sum, 8);
        reseal_put(h + 248, XXH3_64bits_withSeed(h, 248, 0x52444856u), 8); /* "VHDR" */
    }
}

#endif
