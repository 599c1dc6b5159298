/* Rows: what a caller's entries become, and what is kept of them beside the postings.
 *
 * Forward rows of a sealed segment, in the columns that postings/ leaves to the engine:
 *   OWN_0  u64 a document and one more: where its entries begin
 *   OWN_1  entries: the term's number in the segment's list of terms, u16 when there are at most
 *          65,536 of them, else u32; ascending
 *   OWN_2  entries: the weight, f32, f16 or i8
 *   OWN_3  f32 a document: what an i8 weight is multiplied by
 * and of the active segment, one record a document (pe_part_own): u32 entries, f32 scale, u32
 * terms, weights. */
#include "sparse/sparse.h"
#include "base/checked.h"

#include <math.h>
#include <stdlib.h>

enum { OWN_HEAD = 8 };

void pe_sparse_made_free(pe_sparse_made *m)
{
    if (!m->host)
        return;
    pe_free(m->host, m->entries, m->entries_room * sizeof *m->entries);
    pe_free(m->host, m->terms, m->terms_room * sizeof *m->terms);
    pe_free(m->host, m->values, m->values_room * sizeof *m->values);
    pe_free(m->host, m->mark, m->mark_room);
    pe_free(m->host, m->sizes, m->sizes_room * sizeof *m->sizes);
    pe_free(m->host, m->own, m->own_room);
    *m = (pe_sparse_made){.host = m->host};
}

/* ---- checking ---- */

static int by_term(const void *a, const void *b)
{
    const pe_sparse_entry *x = a, *y = b;
    return x->term < y->term ? -1 : x->term > y->term;
}

static float weight_max(const peri_sparse *sx, int is_query)
{
    return !is_query && sx->weights == PERI_SCALAR_F16 ? 65504.0f : PE_WEIGHT_MAX;
}

peri_status pe_sparse_check_row(const peri_sparse *sx, const uint32_t *terms, const float *weights,
                                size_t n, const char *what, size_t number, pe_sparse_made *m)
{
    float max = weight_max(sx, what[0] == 'q');
    int sorted = 1;
    m->n = 0;
    if (n > PERI_SPARSE_MAX_ENTRIES)
        return pe_fail(PERI_ERR_ARG, "%s %zu has %zu entries, at most %d are possible", what,
                       number, n, PERI_SPARSE_MAX_ENTRIES);
    if (n && (!terms || !weights))
        return pe_fail(PERI_ERR_ARG, "%s of %s %zu is NULL", terms ? "weights" : "terms", what,
                       number);
    PE_TRY(pe_grow(m->host, &m->entries, &m->entries_room, n + 1, sizeof *m->entries));
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &weights[i], sizeof bits);
        if ((bits & 0x7f800000) == 0x7f800000 || fabsf(weights[i]) > max)
            return pe_fail(PERI_ERR_NONFINITE,
                           "weight of term %u in %s %zu is %g, expected a number of at most %g",
                           terms[i], what, number, (double)weights[i], (double)max);
        m->entries[i] = (pe_sparse_entry){terms[i], weights[i]};
        sorted &= i == 0 || terms[i - 1] < terms[i];
    }
    if (!sorted)
        qsort(m->entries, n, sizeof *m->entries, by_term);
    for (size_t i = 0; i < n; i++) {
        if (i && m->entries[i].term == m->entries[i - 1].term)
            return pe_fail(PERI_ERR_ARG, "term %u stands twice in %s %zu", m->entries[i].term, what,
                           number);
    }
    for (size_t i = 0; i < n; i++)
        if (fabsf(m->entries[i].weight) >= PE_WEIGHT_MIN)
            m->entries[m->n++] = m->entries[i];
    return PERI_OK;
}

/* ---- keeping ---- */

static size_t value_size(const peri_sparse *sx)
{
    return sx->weights == PERI_SCALAR_F32 ? 4 : sx->weights == PERI_SCALAR_F16 ? 2 : 1;
}

/* Encode the weights to `out` and leave in m->values what they are then worth. */
static float encode(const peri_sparse *sx, pe_sparse_made *m, unsigned char *out)
{
    float largest = 0, scale = 1;
    if (sx->weights == PERI_SCALAR_F32) {
        memcpy(out, m->values, m->n * sizeof *m->values);
    } else if (sx->weights == PERI_SCALAR_F16) {
        sx->kernels->f32_to_f16(m->values, (uint16_t *)(void *)out, m->n);
        sx->kernels->f16_to_f32((const uint16_t *)(const void *)out, m->values, m->n);
    } else {
        for (uint32_t i = 0; i < m->n; i++)
            largest = fabsf(m->values[i]) > largest ? fabsf(m->values[i]) : largest;
        scale = largest / 127;
        for (uint32_t i = 0; i < m->n; i++) {
            int8_t code = (int8_t)lrintf(m->values[i] / scale);
            out[i] = (unsigned char)code;
            m->values[i] = scale * (float)code;
        }
    }
    return scale;
}

/* Entries that round to nothing leave: they would be postings that add nothing. */
static void drop_vanished(const peri_sparse *sx, pe_sparse_made *m)
{
    float largest = 0, least;
    if (sx->weights == PERI_SCALAR_F32)
        return;
    for (uint32_t i = 0; i < m->n; i++)
        largest = fabsf(m->entries[i].weight) > largest ? fabsf(m->entries[i].weight) : largest;
    least = sx->weights == PERI_SCALAR_F16 ? 0x1p-24f : largest / 127 * 0.501f;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < m->n; i++)
        if (fabsf(m->entries[i].weight) >= least)
            m->entries[kept++] = m->entries[i];
    m->n = kept;
}

static int larger_first(const void *a, const void *b)
{
    float x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x > y ? -1 : x < y;
}

/* Mark the heaviest entries that come to `keep` of the row's weight; of equal ones those of the
 * smaller terms. */
static void mark_heavy(const peri_sparse *sx, pe_sparse_made *m)
{
    double sum = 0, have = 0;
    for (uint32_t i = 0; i < m->n; i++)
        sum += m->sizes[i] = fabsf(m->values[i]);
    qsort(m->sizes, m->n, sizeof *m->sizes, larger_first);
    uint32_t n = 0, more = 0;
    while (n < m->n && have < sx->keep * sum)
        have += m->sizes[n++];
    float last = n ? m->sizes[n - 1] : 0;
    for (uint32_t i = 0; i < n; i++)
        more += m->sizes[i] == last;
    for (uint32_t i = 0; i < m->n; i++) {
        float size = fabsf(m->values[i]);
        m->mark[i] = n && (size > last || (size == last && more));
        more -= size == last && more;
    }
}

peri_status pe_sparse_make_row(const peri_sparse *sx, const uint32_t *terms, const float *weights,
                               size_t n, size_t number, pe_sparse_made *m, pe_doc *doc)
{
    PE_TRY(pe_sparse_check_row(sx, terms, weights, n, "row", number, m));
    drop_vanished(sx, m);
    size_t room = m->n + 1u, bytes = OWN_HEAD + m->n * (sizeof(uint32_t) + value_size(sx));
    PE_TRY(pe_grow(m->host, &m->terms, &m->terms_room, room, sizeof *m->terms));
    PE_TRY(pe_grow(m->host, &m->values, &m->values_room, room, sizeof *m->values));
    PE_TRY(pe_grow(m->host, &m->mark, &m->mark_room, room, 1));
    PE_TRY(pe_grow(m->host, &m->sizes, &m->sizes_room, room, sizeof *m->sizes));
    PE_TRY(pe_grow(m->host, &m->own, &m->own_room, bytes, 1));
    for (uint32_t i = 0; i < m->n; i++) {
        m->terms[i] = m->entries[i].term;
        m->values[i] = m->entries[i].weight;
    }
    float scale = encode(sx, m, m->own + OWN_HEAD + m->n * sizeof *m->terms);
    memcpy(m->own, &m->n, sizeof m->n);
    memcpy(m->own + sizeof m->n, &scale, sizeof scale);
    memcpy(m->own + OWN_HEAD, m->terms, m->n * sizeof *m->terms);
    if (sx->payload.marked)
        mark_heavy(sx, m);
    *doc = (pe_doc){.length = m->n, .n = m->n, .terms = m->terms, .values = m->values};
    doc->mark = sx->payload.marked ? m->mark : NULL;
    doc->own = m->own;
    doc->own_size = bytes;
    return PERI_OK;
}

/* ---- reading ---- */

void pe_forward_open(const peri_sparse *sx, const pe_part *part, pe_forward_of *f)
{
    const pe_segment *s = part->segment;
    *f = (pe_forward_of){.part = part, .value_size = (unsigned)value_size(sx)};
    if (s->active)
        return;
    f->term_size = s->n_terms[PE_SET_ALL] <= 65536 ? 2 : 4;
    f->offsets = s->columns[PE_COL_OWN_0].data;
    f->terms = s->columns[PE_COL_OWN_1].data;
    f->values = s->columns[PE_COL_OWN_2].data;
    f->scales = s->columns[PE_COL_OWN_3].data;
    f->names = pe_segment_terms(s, PE_SET_ALL);
}

pe_forward pe_forward_at(const pe_forward_of *f, uint32_t doc)
{
    pe_forward r = {.names = f->names, .term_size = f->term_size, .scale = 1};
    if (f->term_size == 0) {
        const unsigned char *own = pe_part_own(f->part, doc);
        memcpy(&r.n, own, sizeof r.n);
        memcpy(&r.scale, own + sizeof r.n, sizeof r.scale);
        r.terms = own + OWN_HEAD;
        r.values = own + OWN_HEAD + r.n * sizeof(uint32_t);
        return r;
    }
    uint64_t first = f->offsets[doc];
    r.n = (uint32_t)(f->offsets[doc + 1] - first);
    r.terms = f->terms + first * f->term_size;
    r.values = f->values + first * f->value_size;
    if (f->scales)
        r.scale = f->scales[doc];
    return r;
}

uint32_t pe_forward_term(const pe_forward *f, uint32_t i)
{
    return f->term_size == 0   ? ((const uint32_t *)f->terms)[i]
           : f->term_size == 2 ? f->names[((const uint16_t *)f->terms)[i]]
                               : f->names[((const uint32_t *)f->terms)[i]];
}

/* IEEE half to float: the bits moved up, the exponent's offset put right by a product, which is
 * exact for denormals too. What is kept is finite. */
static float half_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    float x;
    memcpy(&x, &bits, sizeof x);
    x *= 0x1p112f;
    return h & 0x8000 ? -x : x;
}

float pe_forward_weight(const peri_sparse *sx, const pe_forward *f, uint32_t i)
{
    if (sx->weights == PERI_SCALAR_F32) {
        float x;
        memcpy(&x, (const unsigned char *)f->values + i * sizeof x, sizeof x);
        return x;
    }
    if (sx->weights == PERI_SCALAR_F16)
        return half_to_float(((const uint16_t *)f->values)[i]);
    return f->scale * (float)((const int8_t *)f->values)[i];
}

/* ---- merging ---- */

/* The number of each term of an input in the merged segment; both lists ascend. */
static void renumber(const uint32_t *from, uint32_t n, const uint32_t *to, uint32_t n_to,
                     uint32_t *number)
{
    for (uint32_t i = 0, j = 0; i < n; i++) {
        while (j < n_to && to[j] < from[i])
            j++;
        number[i] = j; /* a term of dead rows only may be gone: nobody will ask for it */
    }
}

static uint32_t number_of(const uint32_t *terms, uint32_t n, uint32_t term)
{
    uint32_t low = 0;
    while (n > 1) {
        uint32_t half = n / 2;
        low = terms[low + half] <= term ? low + half : low;
        n -= half;
    }
    return low;
}

typedef struct forward_out {
    const peri_sparse *sx;
    const uint32_t *terms;
    uint32_t n_terms, term_size, value_size;
    uint64_t *offsets;
    unsigned char *numbers, *values;
    float *scales;
} forward_out;

static void copy_row(forward_out *o, const pe_forward *f, const uint32_t *number, uint32_t doc)
{
    uint64_t at = o->offsets[doc];
    for (uint32_t i = 0; i < f->n; i++) {
        uint32_t t = f->term_size == 0
                         ? number_of(o->terms, o->n_terms, ((const uint32_t *)f->terms)[i])
                     : f->term_size == 2 ? number[((const uint16_t *)f->terms)[i]]
                                         : number[((const uint32_t *)f->terms)[i]];
        if (o->term_size == 2)
            ((uint16_t *)(void *)o->numbers)[at + i] = (uint16_t)t;
        else
            ((uint32_t *)(void *)o->numbers)[at + i] = t;
    }
    if (f->n)
        memcpy(o->values + at * o->value_size, f->values, (size_t)f->n * o->value_size);
    if (o->scales)
        o->scales[doc] = f->scale;
}

static peri_status copy_part(forward_out *o, pe_postings *p, const pe_part *in, const uint32_t *map)
{
    pe_forward_of f;
    const pe_segment *s = in->segment;
    uint32_t *number = NULL, n = s->n_terms[PE_SET_ALL];
    pe_forward_open(o->sx, in, &f);
    if (!s->active) {
        number = pe_alloc(p->host, n * sizeof *number);
        if (!number)
            return PERI_ERR_NOMEM;
        renumber(f.names, n, o->terms, o->n_terms, number);
    }
    for (uint32_t doc = 0; doc < in->docs; doc++)
        if (map[doc] != UINT32_MAX) {
            pe_forward row = pe_forward_at(&f, doc);
            copy_row(o, &row, number, map[doc]);
        }
    if (number)
        pe_free(p->host, number, n * sizeof *number);
    return PERI_OK;
}

peri_status pe_sparse_merge(pe_postings *p, pe_segment *out, const pe_part *in, uint32_t n,
                            uint32_t *const *map)
{
    const peri_sparse *sx = pe_sparse_of(p);
    forward_out o = {.sx = sx, .terms = pe_segment_terms(out, PE_SET_ALL)};
    const uint32_t *lengths = out->columns[PE_COL_LENGTHS].data; /* entries of each */
    uint64_t entries = 0;
    for (uint32_t doc = 0; doc < out->docs; doc++)
        entries += lengths[doc];
    o.n_terms = out->n_terms[PE_SET_ALL];
    o.term_size = o.n_terms <= 65536 ? 2 : 4;
    o.value_size = (uint32_t)value_size(sx);
    PE_TRY(pe_column_alloc(p, out, PE_COL_OWN_0, (out->docs + 1ull) * sizeof *o.offsets));
    PE_TRY(pe_column_alloc(p, out, PE_COL_OWN_1, entries * o.term_size));
    PE_TRY(pe_column_alloc(p, out, PE_COL_OWN_2, entries * o.value_size));
    if (sx->weights == PERI_SCALAR_I8)
        PE_TRY(pe_column_alloc(p, out, PE_COL_OWN_3, out->docs * sizeof *o.scales));
    o.offsets = out->columns[PE_COL_OWN_0].data;
    o.numbers = out->columns[PE_COL_OWN_1].data;
    o.values = out->columns[PE_COL_OWN_2].data;
    o.scales = out->columns[PE_COL_OWN_3].data;
    o.offsets[0] = 0;
    for (uint32_t doc = 0; doc < out->docs; doc++)
        o.offsets[doc + 1] = o.offsets[doc] + lengths[doc];
    for (uint32_t i = 0; i < n; i++)
        PE_TRY(copy_part(&o, p, &in[i], map[i]));
    return PERI_OK;
}

/* ---- proof ---- */

static peri_status prove_row(const peri_sparse *sx, const pe_segment *s, const pe_forward *f,
                             uint32_t doc)
{
    int64_t before = -1;
    if (f->n != ((const uint32_t *)s->columns[PE_COL_LENGTHS].data)[doc])
        return pe_fail(PERI_ERR_CORRUPT, "row %u has %u entries, not as many as its length says",
                       doc, f->n);
    if (!(f->scale >= 0 && f->scale <= PE_WEIGHT_MAX))
        return pe_fail(PERI_ERR_CORRUPT, "row %u has scale %g", doc, (double)f->scale);
    for (uint32_t i = 0; i < f->n; i++) {
        int64_t t =
            f->term_size == 2 ? ((const uint16_t *)f->terms)[i] : ((const uint32_t *)f->terms)[i];
        float w = pe_forward_weight(sx, f, i);
        if (t <= before || t >= s->n_terms[PE_SET_ALL] || !(fabsf(w) <= PE_WEIGHT_MAX))
            return pe_fail(PERI_ERR_CORRUPT, "entry %u of row %u: term number %lld, weight %g", i,
                           doc, (long long)t, (double)w);
        before = t;
    }
    return PERI_OK;
}

peri_status pe_sparse_prove(const pe_postings *p, const pe_segment *s)
{
    const peri_sparse *sx = pe_sparse_of(p);
    const pe_part part = {.segment = (pe_segment *)(uintptr_t)s, .docs = s->docs};
    pe_forward_of f;
    const pe_column *c = s->columns;
    uint64_t scales = sx->weights == PERI_SCALAR_I8 ? s->docs * sizeof(float) : 0;
    pe_forward_open(sx, &part, &f);
    if (c[PE_COL_OWN_0].size != (s->docs + 1ull) * sizeof *f.offsets ||
        c[PE_COL_OWN_1].size % f.term_size || c[PE_COL_OWN_3].size != scales)
        return pe_fail(PERI_ERR_CORRUPT, "the rows of %u documents have the wrong sizes", s->docs);
    uint64_t entries = c[PE_COL_OWN_1].size / f.term_size;
    if (c[PE_COL_OWN_2].size != entries * f.value_size || f.offsets[0] != 0 ||
        f.offsets[s->docs] != entries)
        return pe_fail(PERI_ERR_CORRUPT, "the rows do not fill their %llu entries",
                       (unsigned long long)entries);
    for (uint32_t doc = 0; doc < s->docs; doc++) {
        if (f.offsets[doc + 1] < f.offsets[doc] ||
            f.offsets[doc + 1] - f.offsets[doc] > PERI_SPARSE_MAX_ENTRIES ||
            f.offsets[doc + 1] > entries)
            return pe_fail(PERI_ERR_CORRUPT, "row %u ends before it begins, or too late", doc);
        pe_forward row = pe_forward_at(&f, doc);
        PE_TRY(prove_row(sx, s, &row, doc));
    }
    return PERI_OK;
}
