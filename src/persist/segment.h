/* Segment files: the one container of everything that Perigee keeps on disk as a whole (indexes
 * first). A segment is written once, under a temporary name, and never changed afterwards; a new
 * state is a new file that takes the old one's name.
 *
 * The layout is in docs/formats/segment.md, the constants of it in segment_format.h.
 *
 * Invariants:
 *  S1. Every byte of a file is covered: the header and the tail (section table and block sums) by
 *      a checksum each, sections by one for each 64 KiB block, and the bytes between them are zero
 *      and checked to be. A flipped bit is an error, wherever it is.
 *  S2. Nothing that a file says is used before the header's checksum has passed; no section's
 *      bytes are handed out by pe_segr_read before their blocks have passed.
 *  S3. A block's checksum is seeded with the file's uuid and generation, the section's tag and the
 *      block's number: a block in the wrong place fails like a damaged one.
 *  S4. Until pe_segw_commit has renamed it, a new file is invisible at its path; what stood there
 *      stays whole.
 *
 * What checksums do not do: they do not stop whoever writes a file on purpose. Numbers read from a
 * section are bounded by its size and by each other before use, whatever the checksum says
 * (pe_segr_fault reports what does not hold).
 *
 * A mapped file that another process cuts short kills the reader (SIGBUS) when it touches the pages
 * that are gone. Nothing here guards against it: never truncate a segment, replace it. */
#ifndef PE_SEGMENT_H
#define PE_SEGMENT_H

#include "base/host.h"

#define PE_FOURCC(a, b, c, d)                                                                      \
    ((uint32_t)(unsigned char)(a) | (uint32_t)(unsigned char)(b) << 8 |                            \
     (uint32_t)(unsigned char)(c) << 16 | (uint32_t)(unsigned char)(d) << 24)

enum {
    PE_SEGMENT_BLOCK_SHIFT = 16,                    /* checksums go by blocks of 64 KiB */
    PE_SEGMENT_BLOCK = 1 << PE_SEGMENT_BLOCK_SHIFT, /* also the alignment of mapped sections */
    PE_SEGMENT_ALIGN = 64,                          /* of every other section */
    PE_SEGMENT_SECTIONS = 256,                      /* at most, inclusive */
};

/* What a file is. The feature words are the kind's own (the container has its own beside them); a
 * reader that does not know a bit of `incompat` refuses the file, of `ro_compat` must not write
 * it anew from what it understood, of `compat` need not care. */
typedef struct pe_segment_id {
    uint32_t kind; /* PE_FOURCC */
    uint16_t version_major, version_minor;
    uint8_t uuid[16];
    uint64_t generation;
    uint32_t compat, ro_compat, incompat;
} pe_segment_id;

/* A random uuid (version 4) for a new file. Errors: ERR_IO. */
peri_status pe_segment_new_uuid(uint8_t uuid[16]);

/* ---- writing ----
 * One thread. An error sticks: every later call returns it, so that only commit's result need be
 * looked at. */
typedef struct pe_segw pe_segw;

/* Create a temporary file beside `path`. The host outlives the writer; path and id are copied.
 * A process killed before commit leaves that file, named .<name>.<pid>-<n>.tmp, behind. */
peri_status pe_segw_open(pe_segw **out, pe_host *host, const char *path, const pe_segment_id *id);

/* Start a section; its tag is unique in the file. mapped: aligned to 64 KiB, so that it can be
 * mapped by itself with any page size; else to 64 bytes. */
peri_status pe_segw_begin(pe_segw *w, uint32_t tag, int mapped);

/* Append to the open section, any number of times. Bytes that come from a mapped segment must have
 * been verified (pe_segr_verify): they get a new checksum here, damage and all. */
peri_status pe_segw_put(pe_segw *w, const void *data, size_t size);

peri_status pe_segw_end(pe_segw *w);

/* Finish the file, fsync, rename it to its path, fsync the directory. Frees w on success and on
 * failure; on failure the temporary file is gone and what stood at the path is untouched, with
 * one exception: when only the directory's fsync failed, the new file stands there, whole, and it
 * is open whether it would survive a power cut. */
peri_status pe_segw_commit(pe_segw *w);

/* Drop the temporary file and free w. NULL is fine. */
void pe_segw_abort(pe_segw *w);

/* ---- reading ---- */

/* COPY: sections are read through pe_segr_read, by one thread at a time. MAP: section->data is the
 * read-only mapping. MAP_COW: it may be written to; the file never sees it. */
enum { PE_SEGMENT_COPY = 0, PE_SEGMENT_MAP = 1, PE_SEGMENT_MAP_COW = 2 };

typedef struct pe_segr pe_segr;

typedef struct pe_section {
    uint32_t tag;
    uint32_t flags;      /* see segment_format.h */
    uint64_t size;       /* bytes of content */
    unsigned char *data; /* NULL in COPY mode; write only in MAP_COW, and only what is verified */
    uint64_t offset;     /* in the file */
    /* Blocks that have passed, one bit each; this section's begin at bit first_block. */
    _Atomic uint64_t *verified;
    size_t first_block;
} pe_section;

/* Open and check everything but the sections' blocks. The host outlives the reader.
 * Errors: ERR_NOT_FOUND, ERR_IO, ERR_NOMEM, ERR_FORMAT (not a segment), ERR_VERSION (newer than
 * this library: format version or an unknown incompatible feature), ERR_CORRUPT. The detail names
 * file and offset. */
peri_status pe_segr_open(pe_segr **out, pe_host *host, const char *path, int map);

/* The caller's half of the version check: ERR_FORMAT when the file is of another kind, ERR_VERSION
 * when its major version is newer or it has incompatible features that are not in `known`. */
peri_status pe_segr_expect(const pe_segr *r, uint32_t kind, uint16_t version_major, uint32_t known);

const pe_segment_id *pe_segr_id(const pe_segr *r);
const char *pe_segr_path(const pe_segr *r);
/* Bytes of the file. */
uint64_t pe_segr_size(const pe_segr *r);
/* 1 when the container has read-only-compatible features that this library does not know. */
int pe_segr_readonly(const pe_segr *r);

/* The section of a tag; NULL if absent. Lives as long as the reader. */
const pe_section *pe_segr_find(const pe_segr *r, uint32_t tag);

/* Verify all of a section. */
peri_status pe_segr_verify(pe_segr *r, const pe_section *s);

/* Report a section whose bytes make no sense: records "path: section 'ROWS' at byte <offset of the
 * file>: ..." and returns ERR_CORRUPT. */
peri_status pe_segr_fault(const pe_segr *r, const pe_section *s, uint64_t offset,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The slow path of pe_segr_verify_range. */
peri_status pe_segr_verify_more(pe_segr *r, const pe_section *s, uint64_t offset, uint64_t size);

static inline int pe_section_block_verified(const pe_section *s, uint64_t block)
{
    size_t bit = s->first_block + (size_t)block;
    uint64_t word = atomic_load_explicit(&s->verified[bit / 64], memory_order_relaxed);
    return (int)(word >> (bit % 64) & 1);
}

/* Verify the blocks that hold [offset, offset + size), those that have not passed yet; a range that
 * leaves the section is ERR_CORRUPT. When all have passed this is a load or two, so it can stand
 * before each row read. In the mapped modes any number of threads may call it. A block is looked
 * at once: afterwards its bytes in a copy-on-write mapping are the caller's to change. */
static inline peri_status pe_segr_verify_range(pe_segr *r, const pe_section *s, uint64_t offset,
                                               uint64_t size)
{
    if (offset < s->size && size <= s->size - offset && size != 0) {
        uint64_t first = offset >> PE_SEGMENT_BLOCK_SHIFT;
        uint64_t last = (offset + size - 1) >> PE_SEGMENT_BLOCK_SHIFT;
        if (last - first <= 1 && pe_section_block_verified(s, first) &&
            pe_section_block_verified(s, last))
            return PERI_OK;
    }
    return pe_segr_verify_more(r, s, offset, size);
}

/* Copy verified bytes of a section to buf. In COPY mode what is read is what is verified, each
 * time; reading in order costs no block twice. */
peri_status pe_segr_read(pe_segr *r, const pe_section *s, uint64_t offset, void *buf, size_t size);

/* NULL is fine. Pointers into sections are dead afterwards. */
void pe_segr_close(pe_segr *r);

#endif
