/* Proving segments and snapshots: what open asks of a file before it is trusted, and check of a
 * handle. Checksums find damage; this finds what was written wrongly, by mistake or on purpose. */
#include "postings/postings_parts.h"

#include <math.h>

#define FAULT(...) return pe_fail(PERI_ERR_CORRUPT, __VA_ARGS__)

/* One set of lists of a segment, typed. */
typedef struct lists {
    const pe_postings *p;
    const pe_segment *s;
    int set;
    int deep; /* prove bounds as well: they cannot lead astray, only mislead */
    uint32_t n;
    const uint32_t *terms;
    const pe_head *heads;
    const pe_run *runs;
    const uint16_t *locals;
    const unsigned char *values;
    uint64_t n_runs, n_postings, n_values, n_positions;
    const uint64_t *pos_terms;
    const uint32_t *pos_runs;
    const unsigned char *positions;
} lists;

static peri_status open_lists(lists *l, const pe_postings *p, const pe_segment *s, int set)
{
    const pe_column *c = s->columns;
    const pe_column *heads = &c[pe_set_column(set, PE_COL_HEADS)];
    const pe_column *terms = &c[pe_set_column(set, PE_COL_TERMS)];
    const pe_column *runs = &c[pe_set_column(set, PE_COL_RUNS)];
    const pe_column *locals = &c[pe_set_column(set, PE_COL_LOCALS)];
    const pe_column *values = &c[pe_set_column(set, PE_COL_VALUES)];
    *l = (lists){.p = p, .s = s, .set = set, .n = s->n_terms[set]};
    if (terms->size != l->n * sizeof *l->terms || heads->size != (l->n + 1ull) * sizeof *l->heads ||
        runs->size % sizeof *l->runs || locals->size % sizeof *l->locals)
        FAULT("set %d: arrays of %u terms have the wrong sizes", set, l->n);
    l->terms = terms->data;
    l->heads = heads->data;
    l->runs = runs->data;
    l->locals = locals->data;
    l->values = values->data;
    l->n_runs = runs->size / sizeof *l->runs;
    l->n_postings = locals->size / sizeof *l->locals;
    l->n_values = values->size;
    const pe_head *end = &l->heads[l->n];
    if (end->posting != l->n_postings || end->run != l->n_runs || end->value != l->n_values)
        FAULT("set %d: the lists do not fill their arrays", set);
    if (set != PE_SET_ALL || !p->payload->positions)
        return PERI_OK;
    l->pos_terms = c[PE_COL_POS_TERMS].data;
    l->pos_runs = c[PE_COL_POS_RUNS].data;
    l->positions = c[PE_COL_POSITIONS].data;
    l->n_positions = c[PE_COL_POSITIONS].size;
    if (c[PE_COL_POS_TERMS].size != (l->n + 1ull) * sizeof(uint64_t) ||
        c[PE_COL_POS_RUNS].size != l->n_runs * sizeof(uint32_t) || l->pos_terms[0] != 0 ||
        l->pos_terms[l->n] != l->n_positions)
        FAULT("positions do not fill their arrays");
    return PERI_OK;
}

static int encoding_fits(const lists *l, const pe_head *h)
{
    if (l->p->payload->counts)
        return (h->encoding == PE_ENC_U4 || h->encoding == PE_ENC_U8 ||
                h->encoding == PE_ENC_U16) &&
               h->exponent == 0;
    return h->encoding == PE_ENC_I16 && h->exponent >= -90 && h->exponent <= 40;
}

static float value_of(const lists *l, const pe_head *h, uint64_t at)
{
    pe_list list = {.encoding = (pe_encoding)h->encoding, .exponent = h->exponent};
    list.values = l->values + h->value;
    return l->p->payload->counts ? (float)pe_list_count(&list, (uint32_t)at)
                                 : pe_list_real(&list, (uint32_t)at);
}

static peri_status prove_bounds(const lists *l, const pe_head *h, const pe_run *r, uint64_t at)
{
    float max = pe_bound_value(r->max), min = pe_bound_value(r->min);
    for (uint32_t i = 0; i <= r->last; i++) {
        float v = value_of(l, h, at + i);
        if (!(v <= max && v >= min))
            FAULT("value %g of a posting lies outside its bounds %g to %g", (double)v, (double)min,
                  (double)max);
    }
    return PERI_OK;
}

/* The gaps of a run's postings end where the next run's begin. */
static peri_status prove_positions(const lists *l, const pe_head *h, uint32_t term, uint64_t run,
                                   uint64_t at, uint64_t *place)
{
    const pe_run *r = &l->runs[run];
    const unsigned char *bytes = l->positions + l->pos_terms[term];
    uint64_t end = l->pos_terms[term + 1] - l->pos_terms[term];
    if (l->pos_runs[run] != *place)
        FAULT("positions of run %llu do not begin where those before end", (unsigned long long)run);
    for (uint32_t i = 0; i <= r->last; i++) {
        uint64_t count = (uint64_t)value_of(l, h, at + i);
        for (; count; count--) {
            uint64_t first = *place;
            while (*place < end && bytes[*place] >= 0x80)
                ++*place;
            if (*place >= end || *place - first >= PE_VARINT_MAX)
                FAULT("positions of term %u leave their list", l->terms[term]);
            ++*place;
        }
    }
    return PERI_OK;
}

static peri_status prove_run(const lists *l, const pe_head *h, uint64_t run, uint64_t at)
{
    const pe_run *r = &l->runs[run];
    uint64_t first = (uint64_t)r->window << PE_WINDOW_SHIFT;
    uint64_t docs = first < l->s->docs ? l->s->docs - first : 0;
    int32_t before = -1;
    if (docs > PE_WINDOW)
        docs = PE_WINDOW;
    for (uint32_t i = 0; i <= r->last; i++) {
        uint16_t local = l->locals[h->posting + at + i];
        if (local >= docs || (int32_t)local <= before)
            FAULT("posting %u of window %u names document %u after %d, expected ascending below "
                  "%llu",
                  i, r->window, local, (int)before, (unsigned long long)docs);
        before = local;
    }
    return l->deep ? prove_bounds(l, h, r, at) : PERI_OK;
}

static peri_status prove_list(const lists *l, uint32_t t)
{
    const pe_head *h = &l->heads[t];
    uint64_t n, at = 0, place = 0;
    if (t && l->terms[t] <= l->terms[t - 1])
        FAULT("term %u stands after term %u", l->terms[t], l->terms[t - 1]);
    if (h[1].posting <= h->posting || h[1].posting > l->n_postings || h[1].run <= h->run ||
        h[1].run > l->n_runs || h[1].value < h->value || h[1].value > l->n_values || h->value % 2 ||
        h->reserved || !encoding_fits(l, h))
        FAULT("the head of term %u makes no sense", l->terms[t]);
    n = h[1].posting - h->posting;
    if (h[1].value - h->value != pe_value_bytes(h->encoding, n))
        FAULT("term %u has %llu postings and %llu bytes of values", l->terms[t],
              (unsigned long long)n, (unsigned long long)(h[1].value - h->value));
    if (l->pos_terms &&
        (l->pos_terms[t + 1] < l->pos_terms[t] || l->pos_terms[t + 1] > l->n_positions))
        FAULT("positions of term %u make no sense", l->terms[t]);
    for (uint64_t run = h->run; run < h[1].run; run++) {
        const pe_run *r = &l->runs[run];
        if ((run > h->run && r->window <= r[-1].window) || r->last + 1ull > n - at)
            FAULT("run %llu of term %u makes no sense", (unsigned long long)(run - h->run),
                  l->terms[t]);
        PE_TRY(prove_run(l, h, run, at));
        if (l->pos_terms)
            PE_TRY(prove_positions(l, h, t, run, at, &place));
        at += r->last + 1u;
    }
    if (at != n || (l->pos_terms && place != l->pos_terms[t + 1] - l->pos_terms[t]))
        FAULT("the runs of term %u do not come to its list", l->terms[t]);
    return PERI_OK;
}

static peri_status prove_set(const pe_postings *p, const pe_segment *s, int set, int deep)
{
    lists l;
    PE_TRY(open_lists(&l, p, s, set));
    l.deep = deep;
    const pe_head *first = &l.heads[0];
    if (first->posting || first->value || first->run)
        FAULT("the first list does not begin at 0");
    for (uint32_t t = 0; t < l.n; t++)
        PE_TRY(prove_list(&l, t));
    return PERI_OK;
}

peri_status pe_segment_prove(const pe_postings *p, const pe_segment *s, int deep)
{
    const pe_column *c = s->columns;
    if (s->docs == 0 || s->docs > PE_SEGMENT_DOCS_MAX)
        FAULT("a segment of %u documents", s->docs);
    if ((c[PE_COL_IDS].size != s->docs * sizeof(uint64_t) &&
         c[PE_COL_IDS].size != sizeof(uint64_t)) ||
        c[PE_COL_LENGTHS].size != s->docs * sizeof(uint32_t))
        FAULT("ids or lengths are not those of %u documents", s->docs);
    PE_TRY(prove_set(p, s, PE_SET_ALL, deep));
    if (p->payload->marked)
        PE_TRY(prove_set(p, s, PE_SET_MARKED, deep));
    return p->payload->check ? p->payload->check(p, s) : PERI_OK;
}

/* ---- a snapshot ---- */

static uint32_t count_dead(const pe_part *p, peri_status *status)
{
    uint32_t n = 0;
    for (uint32_t w = 0; w < pe_part_windows(p); w++) {
        const uint64_t *dead = pe_part_dead(p, w);
        for (uint32_t i = 0; dead && i < PE_WINDOW; i++) {
            if (!(dead[i / 64] >> (i % 64) & 1))
                continue;
            n++;
            if (w * (uint64_t)PE_WINDOW + i >= p->docs)
                *status = pe_fail(PERI_ERR_CORRUPT, "document %u of %u is dead", i, p->docs);
        }
    }
    return n;
}

/* Live ids of a part that are live in an earlier one as well. */
static peri_status prove_once(const pe_snapshot *s, uint32_t part)
{
    const pe_part *p = &s->parts[part];
    for (uint32_t doc = 0; doc < p->docs; doc++) {
        uint32_t other, at;
        uint64_t id = pe_part_id(p, doc);
        if (!pe_part_alive(p, doc))
            continue;
        if (!pe_snapshot_find(s, id, &other, &at) || other != part || at != doc)
            FAULT("id %llu is live in two places", (unsigned long long)id);
    }
    return PERI_OK;
}

peri_status pe_snapshot_prove(const pe_snapshot *s)
{
    uint64_t live = 0, length = 0;
    peri_status status = PERI_OK;
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const pe_part *p = &s->parts[i];
        uint32_t dead = count_dead(p, &status);
        PE_TRY(status);
        if (p->docs - dead != p->live || (p->live == 0 && !p->segment->active))
            FAULT("a part of %u documents, %u of them dead, counts %u as live", p->docs, dead,
                  p->live);
        live += p->live;
        for (uint32_t doc = 0; doc < p->docs; doc++)
            length += pe_part_alive(p, doc) ? pe_part_length(p, doc) : 0;
        PE_TRY(prove_once(s, i));
    }
    if (live != s->live || length != s->length)
        FAULT("%llu documents of length %llu are live, %llu of %llu were counted",
              (unsigned long long)live, (unsigned long long)length, (unsigned long long)s->live,
              (unsigned long long)s->length);
    return PERI_OK;
}

/* The lists of the active segment: P5, below the published count. */
static peri_status prove_active(const pe_postings *p, const pe_part *part)
{
    for (int set = 0; set < PE_SETS; set++) {
        uint32_t n = pe_active_terms(part->segment->active, set, NULL, 0), bad = 0;
        uint32_t *terms = pe_alloc(p->host, n * sizeof *terms);
        if (!terms)
            return PERI_ERR_NOMEM;
        pe_active_terms(part->segment->active, set, terms, n);
        for (uint32_t t = 0; t < n; t++) {
            pe_list l;
            if (!pe_list_open(part, set, terms[t], &l))
                continue;
            for (uint32_t i = 0; i < l.n; i++)
                bad += l.ids[i] >= part->docs || (i && l.ids[i] <= l.ids[i - 1]);
        }
        pe_free(p->host, terms, n * sizeof *terms);
        if (bad)
            FAULT("%u postings of the active segment are out of order", bad);
    }
    return PERI_OK;
}

peri_status pe_postings_check(const pe_postings *p, pe_progress *progress, uint64_t *n_faults)
{
    const pe_snapshot *s = pe_postings_now(p);
    peri_status status = pe_snapshot_prove(s);
    *n_faults = 0;
    if (status != PERI_OK)
        ++*n_faults;
    if (progress)
        pe_progress_phase(progress, "check", s->n_parts);
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const pe_part *part = &s->parts[i];
        status =
            part->segment->active ? prove_active(p, part) : pe_segment_prove(p, part->segment, 1);
        if (status != PERI_OK && status != PERI_ERR_CORRUPT)
            return status;
        *n_faults += status != PERI_OK;
        if (progress && pe_progress_add(progress, 0, 1))
            return pe_progress_end(progress);
    }
    return progress ? pe_progress_end(progress) : PERI_OK;
}
