/* BM25 in integers, lengths in a byte, bounds.
 *
 * A posting weighs count / (count + norm), norm = k1 (1 - b + b length / average): between 0 and 1.
 * Its part of a score is the whole part of scale x that, where scale = idf x count in the query x
 * 2^shift, and shift is the largest that keeps the best thinkable score below 2^30. Sums of
 * integers do not depend on their order, so pruning may add terms as it likes, and an index that
 * was merged answers to the bit like one that was not.
 *
 * Lengths are kept in a byte: exact below 64, then sixteen steps to an octave. One window's bytes
 * and the table of weights stay in the first-level cache, and no posting costs a division.
 *
 * Bounds. For every run a byte says how much its heaviest posting weighs, in 255ths, rounded up,
 * when the average length is that of the segment's making. Later the average may have changed. The
 * norm is linear in the length, its part without length is fixed, so no norm shrinks by more than
 * the average grew, and no weight grows by more than that factor: the bound times it still holds.
 */
#include "text/text.h"

#include <math.h>

enum { EXACT = 64, STEPS = 16, BOUND_UNIT = 255 };
/* Floats were rounded on the way to a bound. */
#define SLACK 1.00001f
/* The length of a class is never less than this part of a length in it. */
#define SHORTEST 0.96f

uint8_t pe_length_class(uint32_t length)
{
    if (length < EXACT)
        return (uint8_t)length;
    unsigned octave = 31u - (unsigned)__builtin_clz(length); /* 6 and up */
    unsigned step = length >> (octave - 4) & (STEPS - 1);
    unsigned c = EXACT + (octave - 6) * STEPS + step;
    return (uint8_t)(c < PE_LENGTH_CLASSES - 1 ? c : PE_LENGTH_CLASSES - 1);
}

/* The middle of those that share the class. */
uint32_t pe_class_length(unsigned c)
{
    if (c < EXACT)
        return c;
    unsigned octave = 6 + (c - EXACT) / STEPS, step = (c - EXACT) % STEPS;
    return ((STEPS + step) << (octave - 4)) + (1u << (octave - 4)) / 2;
}

void pe_weights_make(pe_weights *w, float k1, float b, const pe_snapshot *s)
{
    pe_weights_set(w, k1, b, s->length ? (float)((double)s->length / (double)s->live) : 1);
}

void pe_weights_set(pe_weights *w, float k1, float b, float average)
{
    if (w->average == average && w->k1 == k1 && w->b == b)
        return; /* made for an earlier search; a fresh one is all zeros */
    w->k1 = k1;
    w->b = b;
    w->average = average;
    for (unsigned c = 0; c < PE_LENGTH_CLASSES; c++)
        w->norm[c] = k1 * (1 - b + b * ((float)pe_class_length(c) / average));
    for (unsigned count = 0; count < PE_COUNTS; count++)
        for (unsigned c = 0; c < PE_LENGTH_CLASSES; c++)
            w->table[count * PE_LENGTH_CLASSES + c] =
                count ? (float)count / ((float)count + w->norm[c]) : 0;
}

float pe_run_bound(const pe_weights *w, const pe_part *p, const pe_list *l, uint32_t run)
{
    const pe_segment *s = p->segment;
    if (s->active) { /* the largest count there, in as short a document as can hold it */
        float most = pe_bound_value(pe_list_run(l, run)->max);
        float norm = w->k1 * (1 - w->b + w->b * (SHORTEST * most / w->average));
        return most > 0 ? most / (most + norm) * SLACK : 0;
    }
    const uint8_t *bounds = s->columns[PE_COL_BOUNDS].data;
    const pe_run *first = s->columns[PE_COL_RUNS].data;
    float then;
    memcpy(&then, s->columns[PE_COL_AVERAGE].data, sizeof then);
    float grown = w->average > then ? w->average / then : 1;
    float bound = (float)bounds[l->runs - first + run] * grown * (SLACK / BOUND_UNIT);
    return bound < 1 ? bound : 1;
}

/* ---- columns ---- */

static uint8_t bound_of(const pe_weights *w, const pe_list *l, uint32_t first, uint32_t n,
                        const uint8_t *classes)
{
    float most = 0;
    for (uint32_t i = first; i < first + n; i++) {
        float weight = pe_weight(w, pe_list_count(l, i), classes[l->ids[i]]);
        most = weight > most ? weight : most;
    }
    float bound = ceilf(most * BOUND_UNIT);
    return (uint8_t)(bound < BOUND_UNIT ? bound : BOUND_UNIT);
}

static void fill_bounds(const pe_weights *w, const pe_segment *s, uint8_t *bounds)
{
    const uint8_t *classes = s->columns[PE_COL_CLASSES].data;
    const uint32_t *terms = pe_segment_terms(s, PE_SET_ALL);
    pe_part all = {.segment = (pe_segment *)(uintptr_t)s, .docs = s->docs, .live = s->docs};
    for (uint32_t t = 0; t < s->n_terms[PE_SET_ALL]; t++) {
        pe_list l;
        if (!pe_list_open(&all, PE_SET_ALL, terms[t], &l))
            continue;
        for (uint32_t r = 0, first = 0; r < l.n_runs; r++) {
            const pe_run *run = pe_list_run(&l, r);
            uint32_t n = run->last + 1u;
            *bounds++ =
                bound_of(w, &l, first, n, classes + ((uint32_t)run->window << PE_WINDOW_SHIFT));
            first += n;
        }
    }
}

static const peri_text *text_of(const pe_postings *p)
{
    return (const peri_text *)(uintptr_t)((const char *)p - offsetof(peri_text, postings));
}

peri_status pe_text_columns(pe_postings *p, pe_segment *out, const pe_part *in, uint32_t n,
                            uint32_t *const *map)
{
    (void)in, (void)n, (void)map;
    const peri_text *ix = text_of(p);
    const uint32_t *lengths = out->columns[PE_COL_LENGTHS].data;
    size_t runs = out->columns[PE_COL_RUNS].size / sizeof(pe_run);
    PE_TRY(pe_column_alloc(p, out, PE_COL_CLASSES, out->docs));
    PE_TRY(pe_column_alloc(p, out, PE_COL_BOUNDS, runs));
    PE_TRY(pe_column_alloc(p, out, PE_COL_AVERAGE, sizeof(float)));
    pe_weights *w = pe_calloc(p->host, sizeof *w);
    if (!w)
        return PERI_ERR_NOMEM;
    uint8_t *classes = out->columns[PE_COL_CLASSES].data;
    pe_snapshot own = {.live = out->docs};
    for (uint32_t doc = 0; doc < out->docs; doc++) {
        classes[doc] = pe_length_class(lengths[doc]);
        own.length += lengths[doc];
    }
    const pe_snapshot *now = pe_postings_now(p);
    pe_weights_make(w, ix->k1, ix->b, now->length ? now : &own);
    fill_bounds(w, out, out->columns[PE_COL_BOUNDS].data);
    memcpy(out->columns[PE_COL_AVERAGE].data, &w->average, sizeof w->average);
    pe_free(p->host, w, sizeof *w);
    return PERI_OK;
}

/* Sizes and classes: what search reads by. Bounds that are wrong in a file made to deceive give
 * wrong answers, not strange ones; peri_text_check looks at them. */
peri_status pe_text_columns_check(const pe_postings *p, const pe_segment *s)
{
    (void)p;
    const uint32_t *lengths = s->columns[PE_COL_LENGTHS].data;
    size_t runs = s->columns[PE_COL_RUNS].size / sizeof(pe_run);
    if (s->columns[PE_COL_CLASSES].size != s->docs || s->columns[PE_COL_BOUNDS].size != runs ||
        s->columns[PE_COL_AVERAGE].size != sizeof(float))
        return pe_fail(PERI_ERR_CORRUPT, "text: columns of %llu, %llu and %llu bytes",
                       (unsigned long long)s->columns[PE_COL_CLASSES].size,
                       (unsigned long long)s->columns[PE_COL_BOUNDS].size,
                       (unsigned long long)s->columns[PE_COL_AVERAGE].size);
    const uint8_t *classes = s->columns[PE_COL_CLASSES].data;
    for (uint32_t doc = 0; doc < s->docs; doc++)
        if (classes[doc] != pe_length_class(lengths[doc]))
            return pe_fail(PERI_ERR_CORRUPT, "text: document %u of length %u has class %u", doc,
                           lengths[doc], classes[doc]);
    float average;
    memcpy(&average, s->columns[PE_COL_AVERAGE].data, sizeof average);
    if (!(average > 0 && average < 1e10f))
        return pe_fail(PERI_ERR_CORRUPT, "text: average length %g", (double)average);
    return PERI_OK;
}

peri_status pe_text_bounds_check(const peri_text *ix, const pe_segment *s)
{
    size_t runs = s->columns[PE_COL_RUNS].size / sizeof(pe_run);
    pe_host *host = ix->postings.host;
    pe_weights *w = pe_calloc(host, sizeof *w);
    uint8_t *made = w ? pe_alloc(host, runs) : NULL;
    peri_status status = made ? PERI_OK : PERI_ERR_NOMEM;
    if (made) {
        const uint8_t *bounds = s->columns[PE_COL_BOUNDS].data;
        float average;
        memcpy(&average, s->columns[PE_COL_AVERAGE].data, sizeof average);
        pe_weights_set(w, ix->k1, ix->b, average);
        fill_bounds(w, s, made);
        /* Another machine may have rounded the other way. */
        for (size_t i = 0; i < runs && status == PERI_OK; i++)
            if (bounds[i] + 1 < made[i] || bounds[i] > made[i] + 1)
                status = pe_fail(PERI_ERR_CORRUPT, "text: bound of run %zu is %u, expected %u", i,
                                 bounds[i], made[i]);
        pe_free(host, made, runs);
    }
    pe_free(host, w, sizeof *w);
    return status;
}
