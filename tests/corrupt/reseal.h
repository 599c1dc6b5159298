/* Make the checksums of a damaged segment file right again, so that what is left to refuse it is
 * the structure. Written from docs/formats/segment.md, not from the library: the two must agree. */
#ifndef PE_RESEAL_H
#define PE_RESEAL_H

#include <stdint.h>
#include <string.h>
#include <xxhash.h>

static inline uint64_t reseal_get(const unsigned char *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void reseal_put(unsigned char *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static inline uint64_t reseal_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline void reseal_header(unsigned char *file, size_t size)
{
    if (size >= 256)
        reseal_put(file + 248, XXH3_64bits_withSeed(file, 248, 0), 8);
}

/* One section's block sums, as far as entry and sums lie in the file. */
static inline void reseal_section(unsigned char *file, size_t size, const unsigned char *entry,
                                  unsigned char *sums, size_t n_sums, uint64_t seed)
{
    uint64_t tag = reseal_get(entry, 4), at = reseal_get(entry + 8, 8);
    uint64_t length = reseal_get(entry + 16, 8), first = reseal_get(entry + 24, 8);
    if (at > size || length > size - at)
        return;
    for (uint64_t b = 0; b << 16 < length && first < n_sums && b < n_sums - first; b++) {
        uint64_t left = length - (b << 16);
        size_t n = left < 65536 ? (size_t)left : 65536;
        uint64_t block_seed = reseal_mix(reseal_mix(seed ^ tag) + b);
        reseal_put(sums + (first + b) * 8,
                   XXH3_64bits_withSeed(file + at + (b << 16), n, block_seed), 8);
    }
}

static inline void reseal(unsigned char *file, size_t size)
{
    if (size < 256)
        return;
    uint64_t tail = reseal_get(file + 88, 8), length = reseal_get(file + 96, 8);
    uint64_t n = reseal_get(file + 112, 4), seed;
    unsigned char who[24];
    memcpy(who, file + 56, 24); /* uuid and generation stand side by side */
    seed = XXH3_64bits_withSeed(who, sizeof who, 0);
    if (tail <= size && length <= size - tail) {
        if (n * 32 <= length)
            for (uint64_t i = 0; i < n; i++)
                reseal_section(file, size, file + tail + i * 32, file + tail + n * 32,
                               (size_t)(length - n * 32) / 8, seed);
        uint64_t tail_seed = reseal_mix(seed ^ 0x6c696174u); /* "tail" */
        reseal_put(file + 104, XXH3_64bits_withSeed(file + tail, (size_t)length, tail_seed), 8);
    }
    reseal_header(file, size);
}

#endif
