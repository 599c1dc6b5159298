/* The inside of peri_vectors. The file's layout is in vectors_format.h and docs/formats/vectors.md.
 *
 * Words. A slot is a row's number in the file, counted from 0; its id is the file's id base + slot.
 * Row space is the bytes of all rows one after the other, slot s at s * stride; it is cut into
 * extents of the file, which are mapped side by side, so that in memory it is contiguous. A frame
 * is what a checkpoint adds to the file beside rows. A generation is one file: compaction makes the
 * next.
 *
 * Invariants:
 *  V1. A slot is written once, before anyone can find it, and never again. No slot is used twice.
 *  V2. Slots below `count` are readable. A batch is published by one store to count.
 *  V3. died[slot] is 0 while the row is its key's, else the count at which it ceased to be: to a
 *      reader who saw count C it is there as long as died > C. So a search that took its C at the
 *      start sees each key once, however many batches come meanwhile, and no part of a batch.
 *  V4. The header names only what is durable: rows and frame are synced before it is written, and
 *      one of its two copies is whole and durable at every moment.
 *  V5. Row space below `trusted` came from the disk: it is read only after its block has passed.
 *      What lies above was written by this process.
 *
 * Who locks what: `write` is held by one writer (insert, update, delete, checkpoint, compact,
 * refresh); `building` by one who makes, changes, saves or drops the index, taken before `write`.
 * Readers take a place in the epoch. A view counts on the mapping, not on the epoch. */
#ifndef PE_VECTORS_PARTS_H
#define PE_VECTORS_PARTS_H

#include "base/file.h"
#include "base/idset.h"
#include "base/team.h"
#include "base/topk.h"
#include "index/index.h"
#include "perigee/vectors.h"
#include "persist/lock.h"
#include "rows/rows.h"

#include <pthread.h>
#include <sys/types.h>

enum {
    PE_VBLOCK_SHIFT = 16, /* checksums of rows, and the alignment of extents */
    PE_VBLOCK = 1 << PE_VBLOCK_SHIFT,
    PE_VKEY_HEAD = 2,    /* a key in memory and in a frame: its size, its bytes */
    PE_VPIECE = 1 << 20, /* rows go to the file by so many bytes: see vectors_write.c */
    PE_VZEROS = 1 << 18,
};

/* ---- address space: vectors_map.c ---- */

typedef struct pe_vmap {
    _Atomic uint32_t refs; /* its generation and each view */
    pe_host host;          /* of its own: views outlive the handle's */
    unsigned char *base;
    size_t reserved, mapped;
    int writable;
} pe_vmap;

typedef struct pe_vextent {
    uint64_t offset, bytes;
} pe_vextent;

void pe_vmap_ref(pe_vmap *m);
void pe_vmap_unref(pe_vmap *m);

/* ---- keys: vectors_keys.c ---- */

typedef struct pe_vtable {
    size_t mask;
    _Atomic uint64_t entry[]; /* 32 bits of the key's hash above slot + 2; 0 empty, 1 given up */
} pe_vtable;

typedef struct pe_vchunk {
    struct pe_vchunk *next;
    size_t size;
    unsigned char bytes[];
} pe_vchunk;

typedef struct pe_vkeys {
    pe_host *host;
    pe_epoch *epoch;
    uint64_t seed; /* of this process; which keys collide is not known beforehand */
    _Atomic(pe_vtable *) table;
    size_t taken;      /* entries that are not empty */
    pe_array of_slot;  /* const unsigned char *, NULL = died before it was saved */
    pe_vchunk *chunks; /* keys, the newest chunk first */
    size_t used;       /* bytes of it */
    _Atomic uint64_t live;
} pe_vkeys;

/* ---- one generation: vectors_file.c ---- */

typedef struct pe_vframe {
    uint64_t sequence, sum; /* of its header: tells apart two histories of one file */
} pe_vframe;

typedef struct pe_vgen {
    pe_host *host;
    pe_epoch *epoch;
    pe_file file;
    int writable;
    uint8_t uuid[16];
    uint64_t generation, id_base, seed;
    uint64_t address_space;
    size_t stride;
    pe_rows rows;  /* f32 norms under cosine; the rows themselves lent by the map */
    pe_array died; /* u32 a slot */
    pe_vkeys keys;
    _Atomic uint32_t count;
    _Atomic(pe_vmap *) map;
    pe_vmap *former[64]; /* smaller maps of the same file: an index may point into them */
    unsigned n_former;
    pe_vextent *extents;
    size_t n_extents, extents_room, extents_saved;
    uint64_t room;               /* bytes of row space there are extents for */
    uint64_t end;                /* bytes of the file that are spoken for */
    _Atomic uint64_t file_bytes; /* the same, for info */
    uint64_t prepared;           /* bytes of row space that are ready to be stored to */
    unsigned char *zeros;        /* PE_VZEROS of them, NULL until needed */
    uint32_t taking; /* the count that an index takes rows in by; guarded by `building` */
    /* the last checkpoint */
    _Atomic uint64_t sequence;
    uint64_t frame_at, frame_size, frame_sum;
    uint32_t saved;               /* slots in it */
    _Atomic uint32_t saved_count; /* the same, for info */
    uint32_t *fallen;             /* slots below `saved` that died since */
    size_t n_fallen, fallen_room;
    pe_vframe *frames;
    size_t n_frames, frames_room;
    /* blocks read from the disk */
    _Atomic uint64_t trusted; /* bytes of row space */
    pe_array blocks;          /* pe_vblock */
    _Atomic size_t n_blocks;
    pe_array passed;              /* u64 words, one bit for each whole 64 KiB of row space */
    _Atomic uint64_t tail_passed; /* the part of the last 64 KiB that has passed ends here */
} pe_vgen;

typedef struct pe_vblock {
    uint64_t begin, sum; /* ends where the next begins, the last at `trusted` */
} pe_vblock;

typedef struct pe_vindex {
    pe_host *host;
    peri_index *ix;
    const pe_vgen *gen;     /* whose rows it borrows */
    _Atomic uint32_t rows;  /* slots that it has taken in: the high-water mark */
    _Atomic uint32_t stale; /* of these, that died since */
} pe_vindex;

struct peri_vectors {
    pe_host host;
    peri_env env; /* to make an index with */
    int has_env;
    pe_epoch epoch;
    pthread_mutex_t write, building;
    pid_t owner;
    int readonly;
    _Atomic int poisoned;
    _Atomic int index_dropped;
    char *path, *index_path, *temp_path; /* the last: where a new generation is written */
    size_t path_room, index_path_room, temp_path_room;
    pe_lock lock;
    peri_space space;
    uint64_t address_space;
    _Atomic(pe_vgen *) gen;
    _Atomic(pe_vindex *) index;
};

/* ---- vectors_map.c ---- */

/* Writer: room in file and memory for row space of `bytes`. */
peri_status pe_vgen_grow(pe_vgen *g, uint64_t bytes);
/* Map extents that came from the file. */
peri_status pe_vgen_map(pe_vgen *g);
/* Write n bytes of row space at `at` to the file, within the room. */
peri_status pe_vgen_pwrite(const pe_vgen *g, const void *data, size_t n, uint64_t at);
peri_status pe_vgen_pread(const pe_vgen *g, void *data, size_t n, uint64_t at);
/* Make row space ready for stores up to `end`. */
peri_status pe_vgen_prepare(pe_vgen *g, uint64_t end);
/* The mapping as a reader inside the epoch sees it. */
static inline pe_vmap *pe_vgen_mapping(const pe_vgen *g)
{
    return atomic_load_explicit(&g->map, memory_order_acquire);
}
static inline const unsigned char *pe_vgen_row(const pe_vgen *g, uint32_t slot)
{
    return pe_vgen_mapping(g)->base + (size_t)slot * g->stride;
}

/* ---- vectors_keys.c ---- */

void pe_vkeys_init(pe_vkeys *k, pe_host *host, pe_epoch *epoch);
void pe_vkeys_destroy(pe_vkeys *k);
uint32_t pe_vkeys_hash(const pe_vkeys *k, const void *key, size_t size);
/* Room for slots below `slots`, n new keys and `bytes` bytes of them, heads included. */
peri_status pe_vkeys_reserve(pe_vkeys *k, size_t slots, size_t n, size_t bytes);
/* The key's slot, or PE_NO_SLOT. */
uint32_t pe_vkeys_find(const pe_vkeys *k, peri_slice key, uint32_t hash);
/* Fetch the entry where a key will be looked for. */
void pe_vkeys_prefetch(const pe_vkeys *k, uint32_t hash);
/* Give the key this slot; returns the one it had, or PE_NO_SLOT. Within what is reserved. */
uint32_t pe_vkeys_set(pe_vkeys *k, peri_slice key, uint32_t hash, uint32_t slot);
/* The same for a key whose bytes stay where they are, size in front; `slot`'s key from then on. The
 * caller knows that it is new: returns 0 when it is not. */
int pe_vkeys_adopt(pe_vkeys *k, const unsigned char *key, uint32_t hash, uint32_t slot);
void pe_vkeys_remove(pe_vkeys *k, peri_slice key, uint32_t hash);
/* A chunk whose bytes the caller fills in before anyone looks; NULL = ERR_NOMEM. */
unsigned char *pe_vkeys_chunk(pe_vkeys *k, size_t bytes);
/* Of a slot below count: .data is NULL when it has none. */
static inline peri_slice pe_vkeys_of(const pe_vkeys *k, uint32_t slot)
{
    const unsigned char *p;
    memcpy(&p, pe_array_at(&k->of_slot, slot), sizeof p);
    return p ? (peri_slice){p + PE_VKEY_HEAD, (size_t)(p[0] | p[1] << 8)} : (peri_slice){NULL, 0};
}

/* ---- vectors_file.c ---- */

/* An empty generation in a new file beside the path. */
peri_status pe_vgen_create(pe_vgen **out, peri_vectors *v, uint64_t generation, uint64_t id_base,
                           const uint8_t uuid[16]);
/* Give it the path's name, in one step and durably. *renamed: it stands there, though it may be
 * open whether that would survive a power cut. */
peri_status pe_vgen_name(const pe_vgen *g, const peri_vectors *v, int *renamed);
peri_status pe_vgen_open(pe_vgen **out, peri_vectors *v, int writable);
/* A retire function: owner unused. */
void pe_vgen_destroy(void *owner, void *gen, uint64_t arg);
static inline void pe_vgen_set_end(pe_vgen *g, uint64_t end)
{
    g->end = end;
    atomic_store_explicit(&g->file_bytes, end, memory_order_relaxed);
}
/* See what the header names by now. changed: 1, or 2 when another file has taken the path. */
peri_status pe_vgen_refresh(pe_vgen *g, const char *path, int *changed);
/* Returns ERR_IO after a failed fsync with *poisoned set. */
peri_status pe_vgen_checkpoint(pe_vgen *g, int *poisoned);
static inline uint32_t pe_vgen_count(const pe_vgen *g)
{
    return atomic_load_explicit(&g->count, memory_order_acquire);
}
static inline _Atomic uint32_t *pe_vgen_died(const pe_vgen *g, uint32_t slot)
{
    return (_Atomic uint32_t *)(void *)pe_array_at(&g->died, slot);
}
static inline int pe_vgen_visible(const pe_vgen *g, uint32_t slot, uint32_t count)
{
    uint32_t died = atomic_load_explicit(pe_vgen_died(g, slot), memory_order_acquire);
    return died == 0 || died > count;
}
/* What a frame is known by, 0 if there is none of that sequence. */
uint64_t pe_vgen_frame_sum(const pe_vgen *g, uint64_t sequence);

/* ---- vectors_verify.c ---- */

/* Sums of row space [begin, end) from a frame: room for them first, then they cannot fail. */
peri_status pe_vgen_reserve_blocks(pe_vgen *g, uint64_t begin, uint64_t end);
void pe_vgen_add_blocks(pe_vgen *g, uint64_t begin, uint64_t end, const unsigned char *sums);
peri_status pe_vgen_verify_more(const pe_vgen *g, uint64_t at, uint64_t n);
/* Before bytes of row space are read. */
static inline peri_status pe_vgen_verify(const pe_vgen *g, uint64_t at, uint64_t n)
{
    if (at >= atomic_load_explicit(&g->trusted, memory_order_acquire))
        return PERI_OK;
    uint64_t block = at >> PE_VBLOCK_SHIFT, last = (at + n - 1) >> PE_VBLOCK_SHIFT;
    for (; block <= last; block++) {
        const _Atomic uint64_t *word =
            (const _Atomic uint64_t *)(void *)pe_array_at(&g->passed, (size_t)(block / 64));
        if (!(atomic_load_explicit(word, memory_order_relaxed) >> block % 64 & 1))
            break;
    }
    if (block > last)
        return PERI_OK;
    return pe_vgen_verify_more(g, at, n);
}
static inline peri_status pe_vgen_touch(const pe_vgen *g, uint32_t slot)
{
    return pe_vgen_verify(g, (uint64_t)slot * g->stride, g->stride);
}
/* The sums of row space [begin, end) as it lies in the file, 8 bytes a block. */
size_t pe_vgen_blocks(uint64_t begin, uint64_t end);
peri_status pe_vgen_sum_blocks(const pe_vgen *g, uint64_t begin, uint64_t end, unsigned char *sums);

/* ---- vectors_write.c ---- */

/* ERR_FORKED, ERR_STATE, ERR_POISONED. */
peri_status pe_vectors_begin_write(peri_vectors *v);
void pe_vectors_end_write(peri_vectors *v);
/* A slot stops being its key's row, to readers of `count` and more. Room in `fallen` is reserved.
 */
void pe_vectors_kill(peri_vectors *v, pe_vgen *g, uint32_t slot, uint32_t count);
peri_status pe_vectors_check_key(peri_slice key, size_t at);

/* ---- vectors_search.c ---- */

void pe_vscratch_destroy(void *scratch); /* NULL is fine */

/* ---- vectors_index.c ---- */

/* Open what lies beside the file, or note that it did not fit. */
peri_status pe_vectors_open_index(peri_vectors *v);
/* Take the index away from readers; retired. */
void pe_vectors_put_index(peri_vectors *v, pe_vindex *fresh);
void pe_vindex_destroy(void *owner, void *index, uint64_t arg);

/* ---- readers ---- */

typedef struct pe_vreader {
    pe_reader *place;
    const pe_vgen *gen;
    uint32_t count;
} pe_vreader;

static inline pe_vreader pe_vectors_enter(const peri_vectors *v)
{
    pe_vreader r = {.place = pe_epoch_enter(&v->epoch)};
    r.gen = atomic_load_explicit(&v->gen, memory_order_acquire);
    r.count = pe_vgen_count(r.gen);
    return r;
}

static inline void pe_vectors_leave(const pe_vreader *r)
{
    pe_epoch_exit(r->place);
}

#endif
