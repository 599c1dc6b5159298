/* Saving and opening an index of any kind.
 *
 * A saved index is one segment (persist/segment.h, docs/formats/index.md) whose kind is the index
 * kind's tag. The handle writes these sections, the kind its own beside them:
 *
 *   META  what the space is, counts, the quantiser: see `meta` below, 96 bytes
 *   IDS   u64 a slot; absent when id = slot
 *   DEAD  one bit a slot, in u64 words: hidden rows that are still linked to
 *   ROWS  the rows as kept, mapped
 *   NORM  f32 a slot, mapped, under cosine
 *   CODE  codes of 64-byte multiples, mapped, when trained
 *   CURV  u32 n, then n times {u32 effort, f32 recall}: the calibration
 *   KEYS  string keys (keys/keys.h)
 *   SRC   64 bytes that say whose rows it borrows; then there is no ROWS and no NORM
 *
 * Free slots are left out, so slots are renumbered when there are any. Numbers are little-endian;
 * a big-endian build is refused below rather than left to go wrong. */
#include "index/index.h"
#include "base/checked.h"
#include "persist/bytes.h"

#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are saved as they lie");

enum {
    META_SIZE = 96,
    VERSION_MAJOR = 1,
    VERSION_MINOR = 0,
    FLAG_DIRECT = 1u << 0,
    FLAG_KEYED = 1u << 1,
    FLAG_CODES = 1u << 2,
    FLAG_BORROWED = 1u << 3,
    FEATURE_BORROWED = 1u << 0, /* incompatible: a reader must find the rows elsewhere */
    PIECE = 4 << 20,
};
#define TAG_META PE_FOURCC('M', 'E', 'T', 'A')
#define TAG_IDS  PE_FOURCC('I', 'D', 'S', ' ')
#define TAG_DEAD PE_FOURCC('D', 'E', 'A', 'D')
#define TAG_ROWS PE_FOURCC('R', 'O', 'W', 'S')
#define TAG_NORM PE_FOURCC('N', 'O', 'R', 'M')
#define TAG_CODE PE_FOURCC('C', 'O', 'D', 'E')
#define TAG_SRC  PE_FOURCC('S', 'R', 'C', ' ')
#define TAG_CURV PE_FOURCC('C', 'U', 'R', 'V')

/*   offset size
 *   0      4    dimension          4   2  metric       6   2  scalar
 *   8      4    flags              12  4  slots
 *   16     8    next id            24  4  quantiser lo (f32)   28  4  step (f32)
 *   32     8    rows clipped       40  8  rows whose code is inexact
 *   48     48   zero */
typedef struct meta {
    uint32_t dim, flags, count;
    uint16_t metric, scalar;
    uint64_t next_id, clipped, inexact;
    float lo, step;
} meta;

/* ---- saving ---- */

/* slot -> its number in the file, PE_NO_SLOT for a free one; NULL when nothing moves. */
static peri_status make_renumber(const peri_index *ix, pe_host *host, uint32_t **out,
                                 uint32_t *count)
{
    const pe_slots *s = &ix->slots;
    uint32_t all = pe_slots_count(s), next = 0;
    *out = NULL;
    *count = all;
    if (s->n_free == 0 || ix->loan.rows) /* a borrowed row's slot is its lender's */
        return PERI_OK;
    uint32_t *number = pe_calloc(host, all * sizeof *number);
    if (!number)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < s->n_free; i++)
        number[s->free[i]] = PE_NO_SLOT;
    for (uint32_t slot = 0; slot < all; slot++)
        if (number[slot] != PE_NO_SLOT)
            number[slot] = next++;
    *out = number;
    *count = next;
    return PERI_OK;
}

void pe_index_save_array(pe_segw *w, uint32_t tag, const pe_array *a, uint32_t count,
                         const uint32_t *renumber)
{
    pe_segw_begin(w, tag, 1);
    size_t run_max = PIECE / a->stride + 1;
    for (uint32_t first = 0; first < count;) {
        if (renumber && renumber[first] == PE_NO_SLOT) {
            first++;
            continue;
        }
        uint32_t n = 1;
        while (first + n < count && n < run_max && ((first + n) & a->mask) != 0 &&
               !(renumber && renumber[first + n] == PE_NO_SLOT))
            n++;
        pe_segw_put(w, pe_array_at(a, first), n * a->stride);
        first += n;
    }
    pe_segw_end(w);
}

static void save_meta(const peri_index *ix, pe_segw *w, uint32_t kept, int direct)
{
    uint8_t b[META_SIZE] = {0};
    const pe_codes *codes = pe_rows_codes(&ix->rows);
    uint32_t flags = (direct ? FLAG_DIRECT : 0) | (codes ? FLAG_CODES : 0);
    if (atomic_load_explicit(&ix->keys, memory_order_relaxed))
        flags |= FLAG_KEYED;
    if (ix->loan.rows)
        flags |= FLAG_BORROWED;
    pe_put_le32(b + 0, ix->space.dim);
    pe_put_le16(b + 4, ix->space.metric);
    pe_put_le16(b + 6, ix->space.scalar);
    pe_put_le32(b + 8, flags);
    pe_put_le32(b + 12, kept);
    pe_put_le64(b + 16, ix->slots.next_id);
    if (codes) {
        memcpy(b + 24, &codes->q.lo, sizeof(float));
        memcpy(b + 28, &codes->q.step, sizeof(float));
        pe_put_le64(b + 32, codes->clipped);
        pe_put_le64(b + 40, codes->inexact);
    }
    pe_segw_begin(w, TAG_META, 0);
    pe_segw_put(w, b, sizeof b);
    pe_segw_end(w);
}

static void save_ids(const peri_index *ix, pe_segw *w, uint32_t count, const uint32_t *renumber)
{
    pe_segw_begin(w, TAG_IDS, 0);
    for (uint32_t slot = 0; slot < count; slot++)
        if (!renumber || renumber[slot] != PE_NO_SLOT) {
            uint64_t id = pe_slots_id(&ix->slots, slot);
            pe_segw_put(w, &id, sizeof id);
        }
    pe_segw_end(w);
}

static void save_dead(const peri_index *ix, pe_segw *w, uint32_t count, const uint32_t *renumber)
{
    uint64_t word = 0;
    uint32_t n = 0;
    pe_segw_begin(w, TAG_DEAD, 0);
    for (uint32_t slot = 0; slot < count; slot++) {
        if (renumber && renumber[slot] == PE_NO_SLOT)
            continue;
        word |= (uint64_t)pe_slots_hidden(&ix->slots, slot) << (n % 64);
        if (++n % 64 == 0) {
            pe_segw_put(w, &word, sizeof word);
            word = 0;
        }
    }
    if (n % 64)
        pe_segw_put(w, &word, sizeof word);
    pe_segw_end(w);
}

static void save_curve(const peri_index *ix, pe_segw *w)
{
    const pe_curve *c = atomic_load_explicit(&ix->curve, memory_order_acquire);
    if (!c)
        return;
    pe_segw_begin(w, TAG_CURV, 0);
    pe_segw_put(w, &c->n, sizeof c->n);
    for (uint32_t i = 0; i < c->n; i++) {
        pe_segw_put(w, &c->effort[i], sizeof c->effort[i]);
        pe_segw_put(w, &c->recall[i], sizeof c->recall[i]);
    }
    pe_segw_end(w);
}

/* Errors of the writer stick: the last call reports them. */
static peri_status save_sections(const peri_index *ix, pe_segw *w, pe_progress *progress,
                                 const uint32_t *renumber, uint32_t kept)
{
    uint32_t count = pe_slots_count(&ix->slots);
    const pe_codes *codes = pe_rows_codes(&ix->rows);
    int direct = atomic_load_explicit(&ix->slots.direct, memory_order_relaxed) && !renumber;
    save_meta(ix, w, kept, direct);
    if (!direct)
        save_ids(ix, w, count, renumber);
    save_dead(ix, w, count, renumber);
    if (ix->loan.rows) {
        pe_segw_begin(w, TAG_SRC, 0);
        pe_segw_put(w, ix->loan.source, sizeof ix->loan.source);
        pe_segw_end(w);
    } else {
        pe_index_save_array(w, TAG_ROWS, &ix->rows.rows, count, renumber);
    }
    if (pe_progress_add(progress, 0, kept))
        return pe_progress_end(progress);
    if (ix->space.metric == PERI_METRIC_COSINE && !ix->loan.rows)
        pe_index_save_array(w, TAG_NORM, &ix->rows.norms, count, renumber);
    if (codes)
        pe_index_save_array(w, TAG_CODE, &codes->array, count, renumber);
    save_curve(ix, w);
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    if (keys)
        PE_TRY(pe_keys_save(keys, w));
    if (ix->kind->save)
        PE_TRY(ix->kind->save(ix, w, renumber, kept));
    return pe_progress_end(progress);
}

static peri_status save_locked(peri_index *ix, const char *path, pe_progress *progress)
{
    uint32_t *renumber, kept;
    pe_segw *w;
    if (ix->file && ix->mapped_rows) /* damage must not get a fresh checksum */
        PE_TRY(pe_segr_verify(ix->file, ix->mapped_rows));
    PE_TRY(make_renumber(ix, &ix->host, &renumber, &kept));
    pe_segment_id id = {.kind = ix->kind->tag,
                        .version_major = VERSION_MAJOR,
                        .version_minor = VERSION_MINOR,
                        .generation = atomic_fetch_add(&ix->generation, 1) + 1,
                        .incompat = ix->loan.rows ? FEATURE_BORROWED : 0};
    memcpy(id.uuid, ix->uuid, sizeof id.uuid);
    uint32_t count = pe_slots_count(&ix->slots);
    pe_progress_phase(progress, "save", kept);
    peri_status status = pe_segw_open(&w, &ix->host, path, &id);
    if (status == PERI_OK) {
        status = save_sections(ix, w, progress, renumber, kept);
        if (status == PERI_OK)
            status = pe_segw_commit(w);
        else
            pe_segw_abort(w);
    }
    pe_free(&ix->host, renumber, renumber ? count * sizeof *renumber : 0);
    return status;
}

peri_status peri_index_save(const peri_index *ix, const char *path, const peri_task *task)
{
    pe_progress progress;
    if (!ix || !path)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "path" : "index");
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_index_lock(ix));
    peri_status status = save_locked((peri_index *)(uintptr_t)ix, path, &progress);
    pe_index_unlock(ix);
    return status;
}

/* ---- opening ---- */

static peri_status read_meta(pe_segr *r, meta *m)
{
    uint8_t b[META_SIZE];
    const pe_section *s = pe_segr_find(r, TAG_META);
    if (!s || s->size != META_SIZE)
        return pe_fail(PERI_ERR_CORRUPT, "%s: META is missing or of the wrong size",
                       pe_segr_path(r));
    PE_TRY(pe_segr_read(r, s, 0, b, sizeof b));
    m->dim = pe_get_le32(b + 0);
    m->metric = pe_get_le16(b + 4);
    m->scalar = pe_get_le16(b + 6);
    m->flags = pe_get_le32(b + 8);
    m->count = pe_get_le32(b + 12);
    m->next_id = pe_get_le64(b + 16);
    memcpy(&m->lo, b + 24, sizeof m->lo);
    memcpy(&m->step, b + 28, sizeof m->step);
    m->clipped = pe_get_le64(b + 32);
    m->inexact = pe_get_le64(b + 40);
    if (m->dim < 1 || m->dim > PERI_MAX_DIM)
        return pe_segr_fault(r, s, 0, "dimension %u", m->dim);
    if (m->metric < PERI_METRIC_L2 || m->metric > PERI_METRIC_COSINE)
        return pe_segr_fault(r, s, 4, "metric %u", m->metric);
    if (m->scalar < PERI_SCALAR_F32 || m->scalar > PERI_SCALAR_I8)
        return pe_segr_fault(r, s, 6, "scalar %u", m->scalar);
    if (m->flags & ~(uint32_t)(FLAG_DIRECT | FLAG_KEYED | FLAG_CODES | FLAG_BORROWED))
        return pe_segr_fault(r, s, 8, "flags 0x%x", m->flags);
    if (m->count > PE_MAX_SLOTS)
        return pe_segr_fault(r, s, 12, "%u slots", m->count);
    float size = m->step > 0 ? m->step : -1;
    if ((m->flags & FLAG_CODES) &&
        !(size > 1e-35f && size < 1e35f && m->lo > -1e37f && m->lo < 1e37f))
        return pe_segr_fault(r, s, 24, "quantiser %g + %g x", (double)m->lo, (double)m->step);
    return PERI_OK;
}

peri_status pe_index_section(pe_segr *r, uint32_t tag, uint64_t size, const pe_section **out)
{
    const pe_section *s = pe_segr_find(r, tag);
    *out = NULL;
    if (!s)
        return pe_fail(PERI_ERR_CORRUPT, "%s: section %.4s is missing", pe_segr_path(r),
                       (const char *)&tag);
    if (s->size != size)
        return pe_segr_fault(r, s, 0, "section has %llu bytes, expected %llu",
                             (unsigned long long)s->size, (unsigned long long)size);
    *out = s;
    return PERI_OK;
}

peri_status pe_index_load_array(peri_index *ix, pe_segr *r, uint32_t tag, pe_array *a,
                                uint32_t count, int map, int writable, int lazy)
{
    const pe_section *s = NULL;
    PE_TRY(pe_index_section(r, tag, (uint64_t)count * a->stride, &s));
    if (map) {
        if (lazy)
            ix->mapped_rows = s;
        else
            PE_TRY(pe_segr_verify(r, s));
        return pe_array_borrow(a, s->data, count, writable);
    }
    PE_TRY(pe_array_reserve(a, &ix->epoch, count, 1));
    for (uint32_t first = 0; first < count;) {
        uint32_t n = a->mask + 1 - (first & a->mask);
        n = n < count - first ? n : count - first;
        PE_TRY(
            pe_segr_read(r, s, (uint64_t)first * a->stride, pe_array_at(a, first), n * a->stride));
        first += n;
    }
    return PERI_OK;
}

/* A small section as bytes of the heap; freed by the caller. */
static peri_status load_bytes(peri_index *ix, pe_segr *r, uint32_t tag, uint64_t size, void **out)
{
    const pe_section *s = NULL;
    PE_TRY(pe_index_section(r, tag, size, &s));
    void *p = pe_alloc(&ix->host, (size_t)size);
    if (!p)
        return PERI_ERR_NOMEM;
    peri_status status = pe_segr_read(r, s, 0, p, (size_t)size);
    if (status != PERI_OK)
        pe_free(&ix->host, p, (size_t)size);
    else
        *out = p;
    return status;
}

static peri_status load_slots(peri_index *ix, pe_segr *r, const meta *m)
{
    void *ids = NULL, *dead = NULL;
    size_t ids_size = (size_t)m->count * 8, dead_size = ((size_t)m->count + 63) / 64 * 8;
    peri_status status = PERI_OK;
    if (!(m->flags & FLAG_DIRECT))
        status = load_bytes(ix, r, TAG_IDS, ids_size, &ids);
    if (status == PERI_OK)
        status = load_bytes(ix, r, TAG_DEAD, dead_size, &dead);
    if (status == PERI_OK)
        status = pe_slots_load(&ix->slots, m->count, ids, dead, m->next_id, pe_segr_path(r));
    pe_free(&ix->host, ids, ids_size);
    pe_free(&ix->host, dead, dead_size);
    return status;
}

static peri_status load_curve(peri_index *ix, pe_segr *r)
{
    const pe_section *s = pe_segr_find(r, TAG_CURV);
    if (!s)
        return PERI_OK;
    pe_curve *c = pe_calloc(&ix->host, sizeof *c);
    if (!c)
        return PERI_ERR_NOMEM;
    atomic_store_explicit(&ix->curve, c, memory_order_release);
    PE_TRY(pe_segr_read(r, s, 0, &c->n, sizeof c->n));
    if (c->n < 1 || c->n > PE_CURVE_MAX || s->size != 4 + (uint64_t)c->n * 8)
        return pe_segr_fault(r, s, 0, "curve of %u points in %llu bytes", c->n,
                             (unsigned long long)s->size);
    for (uint32_t i = 0; i < c->n; i++) {
        PE_TRY(pe_segr_read(r, s, 4 + (uint64_t)i * 8, &c->effort[i], 4));
        PE_TRY(pe_segr_read(r, s, 8 + (uint64_t)i * 8, &c->recall[i], 4));
        if (!(c->recall[i] >= 0 && c->recall[i] <= 1) || c->effort[i] < 1 ||
            (i && (c->recall[i] < c->recall[i - 1] || c->effort[i] <= c->effort[i - 1])))
            return pe_segr_fault(r, s, 4 + (uint64_t)i * 8, "curve does not rise");
    }
    return PERI_OK;
}

static peri_status load_rows(peri_index *ix, pe_segr *r, const meta *m, int map, int writable)
{
    /* Traversal reads the codes; rows are then only re-ranked, a few a query, and can wait. */
    int lazy = map && !writable && (m->flags & FLAG_CODES), own = !(m->flags & FLAG_BORROWED);
    if (own)
        PE_TRY(pe_index_load_array(ix, r, TAG_ROWS, &ix->rows.rows, m->count, map, writable, lazy));
    else
        PE_TRY(pe_index_lend(ix, m->count));
    if (m->metric == PERI_METRIC_COSINE && own)
        PE_TRY(pe_index_load_array(ix, r, TAG_NORM, &ix->rows.norms, m->count, map, writable, 0));
    if (!(m->flags & FLAG_CODES))
        return PERI_OK;
    pe_codes *c = pe_calloc(&ix->host, sizeof *c);
    if (!c)
        return PERI_ERR_NOMEM;
    pe_array_init(&c->array, &ix->host, pe_round_up(m->dim, 64));
    atomic_store_explicit(&ix->rows.codes, c, memory_order_release);
    c->q = (pe_quantiser){m->lo, m->step};
    c->clipped = m->clipped;
    c->inexact = m->inexact;
    return pe_index_load_array(ix, r, TAG_CODE, &c->array, m->count, map, writable, 0);
}

peri_status pe_index_free_dead(peri_index *ix)
{
    uint32_t count = pe_slots_count(&ix->slots);
    PE_TRY(pe_epoch_reserve(&ix->epoch, count - pe_slots_live(&ix->slots)));
    for (uint32_t slot = 0; slot < count; slot++)
        if (pe_slots_dead(&ix->slots, slot))
            pe_slots_release(&ix->slots, slot);
    return PERI_OK;
}

static peri_status load(peri_index *ix, pe_segr *r, const meta *m, int map, int writable)
{
    const pe_segment_id *id = pe_segr_id(r);
    memcpy(ix->uuid, id->uuid, sizeof ix->uuid);
    ix->generation = id->generation;
    PE_TRY(load_slots(ix, r, m));
    PE_TRY(load_rows(ix, r, m, map, writable));
    PE_TRY(load_curve(ix, r));
    if (m->flags & FLAG_KEYED) {
        pe_keys *keys = NULL;
        PE_TRY(pe_keys_open(&keys, &ix->host, &ix->epoch, r));
        atomic_store_explicit(&ix->keys, keys, memory_order_release);
        if (pe_index_keys_faults(ix))
            return pe_fail(PERI_ERR_CORRUPT, "%s: %zu keys do not name its %u rows one to one",
                           pe_segr_path(r), pe_keys_count(keys), pe_slots_live(&ix->slots));
    }
    if (ix->kind->open)
        return ix->kind->open(ix, r, map, writable);
    return writable ? pe_index_free_dead(ix) : PERI_OK;
}

/* Whose rows? Asked before any is looked for. */
static peri_status check_loan(peri_index *ix, pe_segr *r, const meta *m, const pe_loan *loan)
{
    if (!loan && (m->flags & FLAG_BORROWED))
        return pe_fail(PERI_ERR_STATE, "%s: its rows lie in a vector file: open that",
                       pe_segr_path(r));
    if (!loan)
        return PERI_OK;
    const pe_section *s = NULL;
    if (!(m->flags & FLAG_BORROWED) || (m->flags & FLAG_KEYED) || !(m->flags & FLAG_DIRECT))
        return pe_fail(PERI_ERR_FORMAT, "%s: an index with rows of its own", pe_segr_path(r));
    ix->loan = *loan;
    PE_TRY(pe_index_section(r, TAG_SRC, sizeof loan->source, &s));
    PE_TRY(pe_segr_read(r, s, 0, ix->loan.source, sizeof loan->source));
    const peri_space *space = &loan->rows->space;
    if (m->dim != space->dim || m->metric != space->metric || m->scalar != space->scalar)
        return pe_fail(PERI_ERR_CONFIG, "%s: an index of another space", pe_segr_path(r));
    return loan->fits(loan->ctx, ix->loan.source, m->count);
}

/* What the file is decides what the handle is: set it up, then load it. */
static peri_status open_file(peri_index *ix, int map, int writable, const pe_loan *loan)
{
    meta m = {0};
    pe_segr *r = ix->file;
    const pe_kind *kind = pe_kind_by_tag(pe_segr_id(r)->kind);
    if (!kind)
        return pe_fail(PERI_ERR_FORMAT, "%s: not an index of a kind that is built in",
                       pe_segr_path(r));
    PE_TRY(pe_segr_expect(r, kind->tag, VERSION_MAJOR, FEATURE_BORROWED));
    PE_TRY(read_meta(r, &m));
    PE_TRY(check_loan(ix, r, &m, loan));
    peri_space space;
    peri_space_init(&space, m.dim, m.metric);
    space.scalar = m.scalar;
    PE_TRY(pe_index_setup(ix, kind, &space));
    return load(ix, r, &m, map, writable);
}

static peri_status open_index(peri_index **out, const char *path, int map, int writable,
                              const peri_env *env, const peri_task *task, const pe_loan *loan)
{
    peri_index *ix;
    int mode = !map ? PE_SEGMENT_COPY : writable ? PE_SEGMENT_MAP_COW : PE_SEGMENT_MAP;
    PE_TRY(pe_index_new(&ix, env));
    pe_host_limit(&ix->host, task);
    peri_status status = pe_segr_open(&ix->file, &ix->host, path, mode);
    if (status == PERI_OK)
        status = open_file(ix, map, writable, loan);
    if (status != PERI_OK) {
        peri_index_close(ix);
        return status;
    }
    pe_host_unlimit(&ix->host);
    ix->readonly = !writable;
    if (!map) {
        pe_segr_close(ix->file);
        ix->file = NULL;
    }
    *out = ix;
    return PERI_OK;
}

peri_status peri_index_open(peri_index **out, const char *path, uint32_t flags, const peri_env *env,
                            const peri_task *task)
{
    pe_progress progress;
    if (!out || !path)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", out ? "path" : "out");
    *out = NULL;
    if (flags & ~(uint32_t)(PERI_OPEN_READONLY | PERI_OPEN_MAP))
        return pe_fail(PERI_ERR_ARG, "unknown open flags 0x%x", flags);
    PE_TRY(pe_progress_init(&progress, task));
    return open_index(out, path, (flags & PERI_OPEN_MAP) != 0, !(flags & PERI_OPEN_READONLY), env,
                      task, NULL);
}

peri_status pe_index_open_borrowed(peri_index **out, const char *path, int readonly,
                                   const peri_env *env, const pe_loan *loan)
{
    *out = NULL;
    return open_index(out, path, 1, !readonly, env, NULL, loan);
}
