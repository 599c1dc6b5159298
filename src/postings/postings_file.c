/* Saving and opening: docs/formats/postings.md.
 *
 *   PART  16 bytes: u32 parts, u32 features (bit 0 counts, 1 positions, 2 marked), u64 0; then for
 *         each part u32 documents, u32 terms, u32 marked terms, u32 1 when any is dead, and for
 *         each column in turn u64 bytes
 *   DEAD  for each part that says so: a bit a document, whole windows
 *   one section a column (its tag below): those of all parts, one after another, each filled up
 *   with zeros to 64 bytes
 *
 * The active segment is sealed on its way out. */
#include "postings/postings_parts.h"
#include "base/checked.h"
#include "persist/bytes.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are saved as they lie");

#define TAG(a, b, c, d) PE_FOURCC(a, b, c, d)
static const uint32_t column_tags[PE_COLUMNS] = {
    [PE_COL_IDS] = TAG('P', 'I', 'D', 'S'),      [PE_COL_LENGTHS] = TAG('P', 'L', 'E', 'N'),
    [PE_COL_TERMS] = TAG('T', 'E', 'R', 'M'),    [PE_COL_HEADS] = TAG('H', 'E', 'A', 'D'),
    [PE_COL_RUNS] = TAG('R', 'U', 'N', 'S'),     [PE_COL_LOCALS] = TAG('L', 'O', 'C', 'A'),
    [PE_COL_VALUES] = TAG('V', 'A', 'L', 'U'),   [PE_COL_POS_TERMS] = TAG('P', 'O', 'S', 'T'),
    [PE_COL_POS_RUNS] = TAG('P', 'O', 'S', 'R'), [PE_COL_POSITIONS] = TAG('P', 'O', 'S', 'I'),
    [PE_COL_M_TERMS] = TAG('M', 'T', 'E', 'R'),  [PE_COL_M_HEADS] = TAG('M', 'H', 'E', 'A'),
    [PE_COL_M_RUNS] = TAG('M', 'R', 'U', 'N'),   [PE_COL_M_LOCALS] = TAG('M', 'L', 'O', 'C'),
    [PE_COL_M_VALUES] = TAG('M', 'V', 'A', 'L'), [PE_COL_OWN_0] = TAG('O', 'W', 'N', '0'),
    [PE_COL_OWN_1] = TAG('O', 'W', 'N', '1'),    [PE_COL_OWN_2] = TAG('O', 'W', 'N', '2'),
    [PE_COL_OWN_3] = TAG('O', 'W', 'N', '3'),
};
#define TAG_PART TAG('P', 'A', 'R', 'T')
#define TAG_DEAD TAG('D', 'E', 'A', 'D')
enum { HEAD_SIZE = 16, PART_SIZE = 16 + PE_COLUMNS * 8 };

static uint32_t features(const pe_postings *p)
{
    return (p->payload->counts ? 1u : 0) | (p->payload->positions ? 2u : 0) |
           (p->payload->marked ? 4u : 0);
}

/* ---- saving ---- */

static void save_parts(const pe_postings *p, const pe_part *parts, uint32_t n, pe_segw *w)
{
    unsigned char b[PART_SIZE] = {0};
    pe_segw_begin(w, TAG_PART, 0);
    pe_put_le32(b, n);
    pe_put_le32(b + 4, features(p));
    pe_segw_put(w, b, HEAD_SIZE);
    for (uint32_t i = 0; i < n; i++) {
        const pe_segment *s = parts[i].segment;
        pe_put_le32(b, s->docs);
        pe_put_le32(b + 4, s->n_terms[PE_SET_ALL]);
        pe_put_le32(b + 8, s->n_terms[PE_SET_MARKED]);
        pe_put_le32(b + 12, parts[i].dead != NULL);
        for (int c = 0; c < PE_COLUMNS; c++)
            pe_put_le64(b + 16 + 8 * c, s->columns[c].size);
        pe_segw_put(w, b, PART_SIZE);
    }
    pe_segw_end(w);
}

static void save_dead(const pe_part *parts, uint32_t n, pe_segw *w)
{
    static const uint64_t none[PE_PAGE_WORDS];
    int any = 0;
    for (uint32_t i = 0; i < n; i++)
        any |= parts[i].dead != NULL;
    if (!any)
        return;
    pe_segw_begin(w, TAG_DEAD, 0);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t at = 0; parts[i].dead && at < pe_part_windows(&parts[i]); at++) {
            const uint64_t *dead = pe_part_dead(&parts[i], at);
            pe_segw_put(w, dead ? dead : none, sizeof none);
        }
    pe_segw_end(w);
}

static void save_column(const pe_part *parts, uint32_t n, int column, pe_segw *w)
{
    static const unsigned char zeros[PE_SEGMENT_ALIGN];
    uint64_t all = 0;
    for (uint32_t i = 0; i < n; i++)
        all += parts[i].segment->columns[column].size;
    if (!all)
        return;
    /* The alignment of mapped sections would make up most of a small file. */
    pe_segw_begin(w, column_tags[column], all >= PE_HUGE);
    for (uint32_t i = 0; i < n; i++) {
        const pe_column *c = &parts[i].segment->columns[column];
        if (c->size)
            pe_segw_put(w, c->data, (size_t)c->size);
        pe_segw_put(w, zeros, (size_t)(-c->size & (PE_SEGMENT_ALIGN - 1)));
    }
    pe_segw_end(w);
}

/* The parts of a snapshot, the active one sealed (or left out when nothing in it is live). */
static peri_status sealed_parts(pe_postings *p, const pe_snapshot *s, pe_part *parts, uint32_t *n,
                                pe_segment **own)
{
    *own = NULL;
    *n = s->n_parts;
    memcpy(parts, s->parts, *n * sizeof *parts);
    if (*n == 0 || !parts[*n - 1].segment->active)
        return PERI_OK;
    PE_TRY(pe_merge(p, &s->parts[*n - 1], 1, own, NULL, 1));
    if (*own)
        parts[*n - 1] = (pe_part){*own, (*own)->docs, (*own)->docs, NULL};
    else
        --*n;
    return PERI_OK;
}

peri_status pe_postings_save(pe_postings *p, pe_segw *w)
{
    const pe_snapshot *s = pe_postings_now(p);
    uint32_t n;
    pe_segment *own;
    pe_part *parts = pe_alloc(p->host, (s->n_parts + 1ull) * sizeof *parts);
    if (!parts)
        return PERI_ERR_NOMEM;
    peri_status status = sealed_parts(p, s, parts, &n, &own);
    if (status == PERI_OK) { /* errors of the writer stick: commit reports them */
        save_parts(p, parts, n, w);
        save_dead(parts, n, w);
        for (int c = 0; c < PE_COLUMNS; c++)
            save_column(parts, n, c, w);
    }
    pe_segment_destroy(own);
    pe_free(p->host, parts, (s->n_parts + 1ull) * sizeof *parts);
    return status;
}

/* ---- opening ---- */

/* Where the next part's columns, and its dead bits, lie in their sections. */
typedef struct places {
    uint64_t column[PE_COLUMNS], dead;
} places;

static peri_status open_column(pe_postings *p, pe_segr *r, int map, pe_segment *s, int column,
                               uint64_t size, places *at)
{
    const pe_section *sec = pe_segr_find(r, column_tags[column]);
    uint64_t here = at->column[column], have = sec ? sec->size : 0;
    if (size > have - here || (size && (-size & (PE_SEGMENT_ALIGN - 1)) > have - here - size)) {
        if (sec)
            return pe_segr_fault(r, sec, here, "%llu bytes of a part, %llu are left",
                                 (unsigned long long)size, (unsigned long long)(have - here));
        return pe_fail(PERI_ERR_CORRUPT, "%s: a column of a part has no section", pe_segr_path(r));
    }
    at->column[column] += size + (-size & (PE_SEGMENT_ALIGN - 1));
    if (size == 0)
        return PERI_OK;
    if (map) {
        s->columns[column] = (pe_column){sec->data + here, size};
        return PERI_OK;
    }
    PE_TRY(pe_column_alloc(p, s, (pe_column_name)column, size));
    return pe_segr_read(r, sec, here, s->columns[column].data, (size_t)size);
}

static peri_status open_dead(pe_postings *p, pe_segr *r, pe_part *part, places *at)
{
    const pe_section *sec = pe_segr_find(r, TAG_DEAD);
    uint32_t n = pe_part_windows(part);
    uint64_t size = (uint64_t)n * sizeof part->dead->page[0]->words;
    if (!sec || size > sec->size - at->dead)
        return pe_fail(PERI_ERR_CORRUPT, "%s: dead bits of %u windows are missing", pe_segr_path(r),
                       n);
    part->dead = pe_calloc(p->host, pe_pages_bytes(n));
    if (!part->dead)
        return PERI_ERR_NOMEM;
    part->dead->n = n;
    for (uint32_t w = 0; w < n; w++) {
        pe_page *page = part->dead->page[w] = pe_calloc(p->host, sizeof *page);
        if (!page)
            return PERI_ERR_NOMEM;
        PE_TRY(pe_segr_read(r, sec, at->dead, page->words, sizeof page->words));
        at->dead += sizeof page->words;
        uint32_t dead = 0;
        for (uint32_t i = 0; i < PE_PAGE_WORDS; i++)
            dead += (uint32_t)__builtin_popcountll(page->words[i]);
        part->live -= dead < part->live ? dead : part->live;
        if (dead == 0) {
            pe_free(p->host, page, sizeof *page);
            part->dead->page[w] = NULL;
        }
    }
    return PERI_OK;
}

/* b: the part's entry in PART. The part is in the snapshot already, so that destroy frees it. */
static peri_status open_part(pe_postings *p, pe_segr *r, int map, const unsigned char *b,
                             pe_part *part, places *at)
{
    pe_segment *s = part->segment;
    s->docs = pe_get_le32(b);
    s->n_terms[PE_SET_ALL] = pe_get_le32(b + 4);
    s->n_terms[PE_SET_MARKED] = pe_get_le32(b + 8);
    s->borrowed = map;
    for (int c = 0; c < PE_COLUMNS; c++)
        PE_TRY(open_column(p, r, map, s, c, pe_get_le64(b + 16 + 8 * c), at));
    part->docs = part->live = s->docs;
    peri_status status = pe_segment_prove(p, s, 0);
    if (status == PERI_OK)
        status = pe_segment_index(s);
    if (status == PERI_OK && pe_get_le32(b + 12))
        status = open_dead(p, r, part, at);
    return status;
}

static peri_status check_ends(pe_segr *r, const places *at)
{
    for (int c = 0; c < PE_COLUMNS; c++) {
        const pe_section *sec = pe_segr_find(r, column_tags[c]);
        if (sec && at->column[c] != sec->size)
            return pe_segr_fault(r, sec, at->column[c], "more than its parts account for");
    }
    const pe_section *dead = pe_segr_find(r, TAG_DEAD);
    if (dead && at->dead != dead->size)
        return pe_segr_fault(r, dead, at->dead, "more than its parts account for");
    return PERI_OK;
}

static peri_status open_parts(pe_postings *p, pe_segr *r, int map, const pe_section *sec,
                              pe_snapshot *s, uint32_t n)
{
    places at = {0};
    unsigned char b[PART_SIZE];
    for (uint32_t i = 0; i < n; i++) {
        pe_segment *segment;
        PE_TRY(pe_segr_read(r, sec, HEAD_SIZE + (uint64_t)i * PART_SIZE, b, sizeof b));
        PE_TRY(pe_segment_create(p, &segment));
        s->parts[s->n_parts++] = (pe_part){.segment = segment};
        PE_TRY(open_part(p, r, map, b, &s->parts[i], &at));
        s->live += s->parts[i].live;
        for (uint32_t doc = 0; doc < s->parts[i].docs; doc++)
            if (pe_part_alive(&s->parts[i], doc))
                s->length += pe_part_length(&s->parts[i], doc);
    }
    PE_TRY(check_ends(r, &at));
    return pe_snapshot_prove(s);
}

peri_status pe_postings_open(pe_postings *p, pe_segr *r, int map)
{
    const pe_section *sec = pe_segr_find(r, TAG_PART);
    unsigned char b[HEAD_SIZE];
    if (!sec || sec->size < HEAD_SIZE)
        return pe_fail(PERI_ERR_CORRUPT, "%s: no section 'PART', or too short", pe_segr_path(r));
    for (int c = 0; map && c < PE_COLUMNS; c++) {
        const pe_section *column = pe_segr_find(r, column_tags[c]);
        if (column)
            PE_TRY(pe_segr_verify(r, column));
    }
    PE_TRY(pe_segr_read(r, sec, 0, b, sizeof b));
    uint32_t n = pe_get_le32(b);
    if ((sec->size - HEAD_SIZE) / PART_SIZE != n || (sec->size - HEAD_SIZE) % PART_SIZE)
        return pe_segr_fault(r, sec, 0, "%u parts in %llu bytes", n, (unsigned long long)sec->size);
    if (pe_get_le32(b + 4) != features(p) || pe_get_le64(b + 8) != 0)
        return pe_segr_fault(r, sec, 4, "features 0x%x, expected 0x%x", pe_get_le32(b + 4),
                             features(p));
    pe_snapshot *s = pe_snapshot_new(p->host, n + 4);
    if (!s)
        return PERI_ERR_NOMEM;
    pe_snapshot *empty = atomic_load_explicit(&p->now, memory_order_relaxed);
    s->version = empty->version + 1;
    pe_free(p->host, empty, pe_snapshot_bytes(empty->room));
    atomic_store_explicit(&p->now, s, memory_order_release); /* destroy frees it, whatever comes */
    return open_parts(p, r, map, sec, s, n);
}
