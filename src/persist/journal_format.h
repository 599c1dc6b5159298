/* Journal files on disk; docs/formats/journal.md tells the same at more length.
 *
 * File header, 64 bytes:
 *   offset size
 *   0      8  magic: 89 'P' 'R' 'J' 0D 0A 1A 0A
 *   8      4  byte order, 0x01020304
 *   12     2  format version, major: a newer one is refused
 *   14     2  format version, minor
 *   16     16 uuid of the directory
 *   32     8  number of the file
 *   40     8  sequence of its first record
 *   48     8  zero
 *   56     8  XXH3 of bytes 0 to 55, seed 0
 *
 * Records follow, each at a multiple of 8, without gaps:
 *   0      2  mark 0x4a50
 *   2      1  type: 1 = batch, 2 = synced
 *   3      1  flags, zero
 *   4      4  size of the payload
 *   8      8  sequence
 *   16     8  synced up to: the highest sequence known durable when this was written
 *   24     8  XXH3 of the payload with its padding, seed: mix(file + offset) ^ sequence
 *   32     8  XXH3 of bytes 0 to 31, seed: file's ^ offset in the file
 *   40        payload, then zeros to a multiple of 8
 *
 * The header's sum covers the payload's, so that a header is proved without reading the payload: a
 * flipped length is not taken for a long torn record. A record's seeds hold its file and its place,
 * so stale blocks, misdirected writes and payloads that are copies of a journal do not verify. */
#ifndef PE_JOURNAL_FORMAT_H
#define PE_JOURNAL_FORMAT_H

#include "persist/segment_format.h"

#define PE_JOURNAL_MAGIC "\x89PRJ\r\n\x1a\n"

enum {
    PE_JOURNAL_HEADER = 64,
    PE_JOURNAL_RECORD = 40,
    PE_JOURNAL_MARK = 0x4a50,
    PE_JOURNAL_BATCH = 1,
    PE_JOURNAL_SYNCED = 2,
    PE_JOURNAL_MAJOR = 1,
    PE_JOURNAL_MINOR = 0,
};

typedef struct pe_jheader {
    unsigned type;
    uint32_t size; /* of the payload */
    uint64_t sequence, synced, sum;
} pe_jheader;

static inline uint64_t pe_journal_extent(uint64_t payload)
{
    return PE_JOURNAL_RECORD + ((payload + 7) & ~(uint64_t)7);
}

static inline uint64_t pe_journal_file_seed(const uint8_t uuid[16], uint64_t number)
{
    unsigned char b[24];
    memcpy(b, uuid, 16);
    pe_put_le64(b + 16, number);
    return pe_segment_hash(b, sizeof b, PE_FOURCC('j', 'r', 'n', 'l'));
}

static inline uint64_t pe_journal_payload_seed(uint64_t file_seed, uint64_t offset,
                                               uint64_t sequence)
{
    return pe_mix64(file_seed + offset) ^ sequence;
}

/* The header of a record at `offset`, where the payload behind it is in place. */
static inline void pe_journal_put_header(unsigned char *b, uint64_t seed, uint64_t offset,
                                         const pe_jheader *h)
{
    pe_put_le16(b, PE_JOURNAL_MARK);
    b[2] = (unsigned char)h->type;
    b[3] = 0;
    pe_put_le32(b + 4, h->size);
    pe_put_le64(b + 8, h->sequence);
    pe_put_le64(b + 16, h->synced);
    uint64_t padded = pe_journal_extent(h->size) - PE_JOURNAL_RECORD;
    pe_put_le64(b + 24, pe_segment_hash(b + PE_JOURNAL_RECORD, (size_t)padded,
                                        pe_journal_payload_seed(seed, offset, h->sequence)));
    pe_put_le64(b + 32, pe_segment_hash(b, 32, seed ^ offset));
}

/* 1 when a record's header stands at b. */
static inline int pe_journal_get_header(const unsigned char *b, uint64_t seed, uint64_t offset,
                                        pe_jheader *h)
{
    if (pe_get_le16(b) != PE_JOURNAL_MARK || b[3] != 0 ||
        pe_segment_hash(b, 32, seed ^ offset) != pe_get_le64(b + 32))
        return 0;
    h->type = b[2];
    h->size = pe_get_le32(b + 4);
    h->sequence = pe_get_le64(b + 8);
    h->synced = pe_get_le64(b + 16);
    h->sum = pe_get_le64(b + 24);
    return h->type == PE_JOURNAL_BATCH || h->type == PE_JOURNAL_SYNCED;
}

static inline int pe_journal_payload_good(const unsigned char *b, uint64_t seed, uint64_t offset,
                                          const pe_jheader *h)
{
    uint64_t padded = pe_journal_extent(h->size) - PE_JOURNAL_RECORD;
    return pe_segment_hash(b + PE_JOURNAL_RECORD, (size_t)padded,
                           pe_journal_payload_seed(seed, offset, h->sequence)) == h->sum;
}

#endif
