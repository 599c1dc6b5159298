/* What the files of this folder share; not for others. */
#ifndef PE_POSTINGS_PARTS_H
#define PE_POSTINGS_PARTS_H

#include "postings/postings.h"

/* ---- the active segment ---- */

/* Postings of one term, appended in place; a full block is left for one twice as large, which
 * readers then find. The old one stays in the arena: a reader of it sees a prefix, and what it
 * misses is not of its snapshot. */
typedef struct pe_block {
    uint32_t room;
    _Atomic uint32_t n;
    _Atomic uint32_t max, min;       /* of the values as floats, their bits */
    const unsigned char **positions; /* NULL without */
    uint16_t *ids;
    uint32_t values[];
} pe_block;

typedef struct pe_term {
    uint32_t term;
    _Atomic(pe_block *) block;
} pe_term;

typedef struct pe_terms {
    uint32_t mask;
    uint32_t used; /* the writer's */
    _Atomic(pe_term *) slot[];
} pe_terms;

typedef struct pe_arena_chunk {
    struct pe_arena_chunk *next;
    size_t size, used; /* of the whole chunk, this head included */
} pe_arena_chunk;

struct pe_active {
    pe_host *host;
    int counts; /* values are counts */
    pe_arena_chunk *chunk;
    _Atomic(pe_terms *) terms[PE_SETS];
    uint32_t docs; /* written so far */
    uint64_t ids[PE_WINDOW];
    uint32_t lengths[PE_WINDOW];
    const void *own[PE_WINDOW];
    uint16_t former[PE_WINDOW];          /* the document of this id before this one, + 1 */
    _Atomic uint32_t map[2 * PE_WINDOW]; /* id -> its latest document + 1 */
};

peri_status pe_active_create(pe_active **out, pe_host *host, int counts);
void pe_active_destroy(pe_active *a);
/* Room for a document, so that append cannot fail; found: the writer's, 2 * doc->n terms. */
peri_status pe_active_reserve(pe_active *a, const pe_doc *doc, pe_term **found);
void pe_active_append(pe_active *a, const pe_doc *doc, pe_term **found);
int pe_active_list(const pe_active *a, uint32_t docs, int set, uint32_t term, pe_list *out);
/* The latest document of an id, and the one before; UINT32_MAX at the end. */
uint32_t pe_active_latest(const pe_active *a, uint64_t id);
/* All terms of a set, in no order, up to n; how many there are. The writer's. */
uint32_t pe_active_terms(const pe_active *a, int set, uint32_t *terms, uint32_t n);

/* ---- segments ---- */

/* Bytes of n values of a sealed list: even, so that each list begins at an even byte. */
static inline uint64_t pe_value_bytes(unsigned encoding, uint64_t n)
{
    uint64_t bytes = encoding == PE_ENC_U4 ? (n + 1) / 2 : encoding == PE_ENC_U8 ? n : 2 * n;
    return bytes + bytes % 2;
}

/* Bounds of a value, rounded outwards. */
uint16_t pe_bound_up(float x);
static inline uint16_t pe_bound_down(float x) /* x <= 0 */
{
    return (uint16_t)(pe_bound_up(-x) | 0x8000);
}

peri_status pe_segment_create(pe_postings *p, pe_segment **out);
/* Its columns are in place: make the map of ids. ERR_CORRUPT when an id stands twice. */
peri_status pe_segment_index(pe_segment *s);
void pe_segment_destroy(pe_segment *s);
/* A retire function. */
void pe_segment_retire(void *owner, void *ptr, uint64_t arg);
/* The document of an id, live or not; UINT32_MAX if there is none. Sealed. */
uint32_t pe_segment_find(const pe_segment *s, uint64_t id);
/* Where a set keeps what the set of all entries keeps in `of_all`. */
static inline pe_column_name pe_set_column(int set, pe_column_name of_all)
{
    return set == PE_SET_ALL ? of_all : of_all - PE_COL_TERMS + PE_COL_M_TERMS;
}

/* One segment of the live documents of n parts, in their order. No live document: *out is NULL. */
peri_status pe_merge(pe_postings *p, const pe_part *in, uint32_t n, pe_segment **out,
                     pe_progress *progress, unsigned workers);

/* Prove the columns of a sealed segment; names the first fault (ERR_CORRUPT). deep: the bounds of
 * runs as well, which cannot lead astray, only mislead. */
peri_status pe_segment_prove(const pe_postings *p, const pe_segment *s, int deep);
/* The same of a snapshot's parts, live counts and ids. */
peri_status pe_snapshot_prove(const pe_snapshot *s);

/* ---- edits ---- */

/* Replace the parts whose numbers stand in group[0..n), ascending, by one of the segment (NULL: by
 * none), and publish that. On failure nothing changed, and the segment is still the caller's. */
peri_status pe_postings_replace(pe_postings *p, const uint32_t *group, uint32_t n,
                                pe_segment *segment);

pe_snapshot *pe_snapshot_new(pe_host *host, uint32_t room);
static inline size_t pe_snapshot_bytes(uint32_t room)
{
    return sizeof(pe_snapshot) + room * sizeof(pe_part);
}
static inline size_t pe_pages_bytes(uint32_t n)
{
    return sizeof(pe_pages) + n * sizeof(pe_page *);
}

#endif
