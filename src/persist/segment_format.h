/* The layout of a segment file, version 1. All numbers little-endian.
 *
 *   header    256 bytes at 0
 *   zeros     to the first section
 *   sections  in the order of the table, each at the first aligned byte after the former one
 *   zeros     to a multiple of 64
 *   tail      section table, then the block sums of all sections in the same order; ends the file
 *
 * Header. Its size, its magic and the place of its checksum are fixed for every version to come, so
 * that a damaged file is told from a newer one.
 *   offset size
 *   0      8  magic: 89 'P' 'R' 'I' 0D 0A 1A 0A
 *   8      4  byte order: 0x01020304
 *   12     2  format version, major: a newer one is refused
 *   14     2  format version, minor
 *   16     4  size of the header, 256
 *   20     4  checksum algorithm, 1 = XXH3-64
 *   24     8  compatible features    \ low half: the container's, high half: the kind's
 *   32     8  read-only-compatible    |
 *   40     8  incompatible           /
 *   48     4  kind, a fourcc
 *   52     2  kind's version, major
 *   54     2  kind's version, minor
 *   56     16 uuid
 *   72     8  generation
 *   80     8  length of the file
 *   88     8  offset of the tail
 *   96     8  length of the tail
 *   104    8  checksum of the tail
 *   112    4  number of sections
 *   116    4  block size, 65,536
 *   120    16 version of the library that wrote the file, text, for people
 *   136    112 zero; a reader takes no notice
 *   248    8  checksum of bytes 0..247
 *
 * Table entry, 32 bytes:
 *   0      4  tag, a fourcc, unique in the file
 *   4      4  flags: 1 = aligned to 64 KiB (else 64 bytes); other bits must be zero
 *   8      8  offset in the file
 *   16     8  size of the content
 *   24     8  number of block sums before this section's first one
 *
 * Seeds. file = XXH3(uuid, generation); header: 0; tail: mix(file ^ "tail"); block b of section t:
 * mix(mix(file ^ t) + b). mix is the SplitMix64 finaliser. */
#ifndef PE_SEGMENT_FORMAT_H
#define PE_SEGMENT_FORMAT_H

#include "base/rng.h"
#include "persist/bytes.h"
#include "persist/segment.h"

#include <xxhash.h>
#if defined(PE_XXH_DISPATCH)
/* Debian builds XXH3 for SSE2; the library also exports a version that picks AVX2 or AVX-512 when
 * it runs. Measured on blocks of 64 KiB from memory: 4.5 GB/s against 20 to 35. */
#include <xxh_x86dispatch.h>
#endif

#define PE_SEGMENT_MAGIC "\x89PRI\r\n\x1a\n"

enum {
    PE_SEGMENT_MAGIC_SIZE = 8,
    PE_SEGMENT_HEADER = 256,
    PE_SEGMENT_HEADER_SUM = 248, /* where the header's checksum lies */
    PE_SEGMENT_ENTRY = 32,
    PE_SEGMENT_MAJOR = 1,
    PE_SEGMENT_MINOR = 0,
    PE_SEGMENT_XXH3 = 1,
    PE_SECTION_MAPPED = 1, /* flag of a table entry */
};

#define PE_SEGMENT_ORDER 0x01020304u

static inline uint64_t pe_segment_hash(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

static inline uint64_t pe_segment_file_seed(const pe_segment_id *id)
{
    unsigned char bytes[24];
    memcpy(bytes, id->uuid, 16);
    pe_put_le64(bytes + 16, id->generation);
    return pe_segment_hash(bytes, sizeof bytes, 0);
}

static inline uint64_t pe_segment_tail_seed(uint64_t file_seed)
{
    return pe_mix64(file_seed ^ PE_FOURCC('t', 'a', 'i', 'l'));
}

static inline uint64_t pe_segment_block_seed(uint64_t file_seed, uint32_t tag, uint64_t block)
{
    return pe_mix64(pe_mix64(file_seed ^ tag) + block);
}

static inline uint64_t pe_segment_blocks(uint64_t size)
{
    return (size >> PE_SEGMENT_BLOCK_SHIFT) + ((size & (PE_SEGMENT_BLOCK - 1)) != 0);
}

static inline size_t pe_segment_alignment(uint32_t flags)
{
    return flags & PE_SECTION_MAPPED ? PE_SEGMENT_BLOCK : PE_SEGMENT_ALIGN;
}

/* A fourcc for a message. */
typedef struct pe_tag_text {
    char text[5];
} pe_tag_text;

static inline pe_tag_text pe_tag_name(uint32_t tag)
{
    pe_tag_text t = {{0}};
    for (unsigned i = 0; i < 4; i++) {
        unsigned c = tag >> (8 * i) & 0xff;
        t.text[i] = (char)(c >= 0x20 && c < 0x7f ? c : '?');
    }
    return t;
}

#endif
