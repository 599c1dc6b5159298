/* The layout of a vector file, version 1.0. All numbers little-endian.
 *
 *   header A    at 0, 4,096 bytes of which 256 are used
 *   header B    at 4,096, the same
 *   then, from 65,536 on, in the order they were needed: extents of rows, at multiples of 64 KiB,
 *   and frames, at multiples of 4 KiB
 *
 * Header. Size, magic and the place of the checksum are fixed for every version to come.
 *   offset size
 *   0      8   magic: 89 'P' 'R' 'V' 0D 0A 1A 0A
 *   8      4   byte order 0x01020304
 *   12     2   version, major: a newer one is refused      14  2  minor
 *   16     4   size of the header, 256                     20  4  checksums: 1 = XXH3-64
 *   24     8   compatible features      32  8  read-only-compatible      40  8  incompatible
 *   48     4   dimension                52  2  metric                    54  2  scalar
 *   56     16  uuid
 *   72     8   generation               80  8  number of the checkpoint
 *   88     8   id of slot 0             96  8  slots                    104  8  keys
 *   112    8   bytes of the file that are spoken for
 *   120    8   the last frame's offset, 0 = none                        128  8  its length
 *   136    8   its header's checksum
 *   144    16  version of the library, text, for people
 *   160    88  zero; a reader takes no notice
 *   248    8   checksum of bytes 0..247
 *
 * Frame: what one checkpoint added. Frames form a chain from the last one back.
 *   0      4   magic 'VFRM'              4   4  number of extents
 *   8      8   number of the checkpoint  16  8  slots before it
 *   24     8   slots it adds             32  8  offset of the frame before, 0 = none
 *   40     8   length of that            48  8  checksum of that one's header
 *   56     8   length of this frame      64  8  number of block sums
 *   72     8   slots below that died     80  8  bytes of keys
 *   88     8   checksum of the payload   96  24 zero
 *   120    8   checksum of bytes 0..119
 *   128    payload: per extent offset and length (8 + 8); block sums (8 each); under cosine the
 * norm of each slot (f32); the slots that died (4 each); per slot the size of its key (2) and the
 * key, size 0 for a slot that died before this checkpoint
 *
 * Seeds: file = XXH3(uuid, generation); header and frames mix(file ^ fourcc), + the offset for a
 * frame; a block of rows mix(mix(file ^ "rows") + its begin in row space).
 *
 * A checkpoint writes its frame and syncs; writes one header and syncs, and is done; then writes
 * the other header too, which the next checkpoint syncs. So at rest both say the same, damage to
 * one of them costs nothing, and at no moment are both in flight. (One sync for frame and header
 * together would do if opening verified all rows of the last checkpoint: it would cost what it
 * saves.) A durable row shares disk sectors with rows that come later: writing these writes the
 * same bytes over it, which is safe on disks that write a sector whole or leave bytes outside of
 * the write alone, as SQLite's powersafe-overwrite assumes too. */
#ifndef PE_VECTORS_FORMAT_H
#define PE_VECTORS_FORMAT_H

#include "mmap/vectors_parts.h"
#include "persist/segment_format.h"

enum {
    PE_VHEADER = 256,
    PE_VHEADER_PAGE = 4096,
    PE_VFIRST_BYTE = 65536,
    PE_VFRAME_HEAD = 128,
    PE_VFRAME_ALIGN = 4096,
};

typedef struct pe_vheader {
    uint32_t dim;
    uint16_t metric, scalar;
    uint64_t ro_compat;
    uint8_t uuid[16];
    uint64_t generation, sequence, id_base, slots, keys, end, frame_at, frame_size, frame_sum;
} pe_vheader;

typedef struct pe_vframe_head {
    uint32_t n_extents;
    uint64_t sequence, first, rows, prev_at, prev_size, prev_sum, size, n_blocks, n_fallen,
        key_bytes;
    uint64_t payload_sum, sum;
} pe_vframe_head;

void pe_vheader_encode(const pe_vheader *h, unsigned char b[PE_VHEADER]);
/* ERR_FORMAT: no magic; ERR_CORRUPT: it has, and a wrong checksum or numbers; ERR_VERSION. */
peri_status pe_vheader_decode(const char *path, const unsigned char b[PE_VHEADER], pe_vheader *h);

/* What does not change from checkpoint to checkpoint, and the keys there are. */
pe_vheader pe_vgen_header(const pe_vgen *g);

/* Of a generation, of a frame and its payload. */
uint64_t pe_vfile_seed(const uint8_t uuid[16], uint64_t generation);
uint64_t pe_vframe_seed(uint64_t file_seed, uint64_t at);

/* Sets f->sum. */
void pe_vframe_encode(pe_vframe_head *f, unsigned char b[PE_VFRAME_HEAD], uint64_t seed);
/* The head of the frame at `at`, which its follower says has this size and sum: every number is
 * bounded by the size, and that by `end`, the bytes of the file. */
peri_status pe_vframe_read(const pe_vgen *g, uint64_t at, uint64_t size, uint64_t sum, uint64_t end,
                           pe_vframe_head *f);
peri_status pe_vframe_fault(const pe_vgen *g, uint64_t at, const char *what);

#endif
