/* Sealing and merging: one sealed segment of the live documents of some parts.
 *
 * Term by term, twice. The first pass counts what each term's list will hold, so that every list
 * has its place in arrays of the right size; the second writes it there. Terms are independent in
 * both, which is how threads share the work. The documents keep their order, so lists are appended
 * one to the other without sorting. */
#include "postings/postings_parts.h"
#include "base/checked.h"

#include <math.h>
#include <stdlib.h>

enum { TERMS_AT_ONCE = 64 };

/* What a term's list will be. */
typedef struct plan {
    uint64_t posting, value, position; /* counts after pass one, then places */
    uint32_t run;
    int8_t exponent;
    uint8_t encoding;
} plan;

typedef struct merge {
    pe_postings *p;
    const pe_part *in;
    uint32_t n_in;
    uint32_t **map;
    pe_segment *out;
    int set;
    int fill; /* second pass */
    uint32_t *terms;
    uint32_t n_terms;
    plan *plans; /* n_terms + 1 */
    pe_progress *progress;
    _Atomic uint32_t next;
} merge;

/* ---- one list ---- */

/* The list being made: where the next run, posting, value and position go. */
typedef struct maker {
    const merge *m;
    plan *plan;
    int32_t window;
    uint32_t run; /* made so far */
    uint64_t posting, position;
    float max, min, largest; /* of this run; of the list */
    int exponent;            /* of the lists that are joined */
    float step, steps;       /* fill: 2^exponent and its inverse */
    /* fill */
    pe_run *runs;
    uint16_t *locals;
    void *values;
    uint32_t *run_positions;
    unsigned char *positions;
} maker;

static void close_run(maker *k)
{
    if (!k->m->fill || k->run == 0)
        return;
    pe_run *r = &k->runs[k->run - 1];
    r->max = pe_bound_up(k->max);
    r->min = pe_bound_down(k->min);
}

static void open_run(maker *k, uint32_t window)
{
    close_run(k);
    if (k->m->fill) {
        k->runs[k->run] = (pe_run){.window = (uint16_t)window, .last = UINT16_MAX};
        if (k->run_positions)
            k->run_positions[k->run] = (uint32_t)k->position;
    }
    k->run++;
    k->window = (int32_t)window;
    k->max = k->min = 0;
}

static void put_value(maker *k, float real, uint32_t count)
{
    switch (k->plan->encoding) {
    case PE_ENC_I16:
        ((int16_t *)k->values)[k->posting] = (int16_t)lrintf(real * k->steps);
        real = k->step * ((int16_t *)k->values)[k->posting];
        break;
    case PE_ENC_U4:
        if (k->posting % 2)
            ((uint8_t *)k->values)[k->posting / 2] |= (uint8_t)(count << 4);
        else
            ((uint8_t *)k->values)[k->posting / 2] = (uint8_t)count;
        break;
    case PE_ENC_U8:
        ((uint8_t *)k->values)[k->posting] = (uint8_t)count;
        break;
    default:
        ((uint16_t *)k->values)[k->posting] = (uint16_t)count;
    }
    k->max = real > k->max ? real : k->max;
    k->min = real < k->min ? real : k->min;
}

static void make_posting(maker *k, uint32_t doc, float real, uint32_t count)
{
    uint32_t window = doc >> PE_WINDOW_SHIFT;
    if ((int32_t)window != k->window)
        open_run(k, window);
    if (k->m->fill) {
        k->runs[k->run - 1].last++;
        k->locals[k->posting] = (uint16_t)(doc & (PE_WINDOW - 1));
        put_value(k, real, count);
    } else {
        k->largest = fabsf(real) > k->largest ? fabsf(real) : k->largest;
    }
    k->posting++;
}

static size_t varints_size(const unsigned char *p, uint32_t n)
{
    const unsigned char *end = p;
    for (; n; end++)
        n -= *end < 0x80;
    return (size_t)(end - p);
}

/* Append the live postings of one input's list. */
static void join_list(maker *k, const pe_list *l, const uint32_t *map)
{
    int counts = k->m->p->payload->counts;
    uint32_t at = 0;
    float scale = l->encoding == PE_ENC_I16 ? ldexpf(1, l->exponent) : 1;
    if (l->encoding == PE_ENC_I16 && l->exponent > k->exponent)
        k->exponent = l->exponent;
    for (uint32_t r = 0; r < l->n_runs; r++) {
        const pe_run *run = pe_list_run(l, r);
        const unsigned char *positions = l->positions ? l->positions + l->run_positions[r] : NULL;
        uint32_t first = (uint32_t)run->window << PE_WINDOW_SHIFT;
        for (uint32_t end = at + run->last + 1u; at < end; at++) {
            uint32_t doc = map[first + l->ids[at]];
            uint32_t count = counts ? pe_list_count(l, at) : 0;
            float real = counts                      ? (float)count
                         : l->encoding == PE_ENC_I16 ? scale * ((const int16_t *)l->values)[at]
                                                     : ((const float *)l->values)[at];
            if (l->each)
                positions = l->each[at];
            size_t size = positions ? varints_size(positions, count) : 0;
            if (doc != UINT32_MAX) {
                make_posting(k, doc, real, count);
                if (size && k->m->fill)
                    memcpy(k->positions + k->position, positions, size);
                k->position += size;
            }
            positions = positions ? positions + size : NULL;
        }
    }
}

/* Postings hold codes of at most 15 bits and a sign, in steps of a power of two: rescaling is exact
 * but for what drops out below, and steps never become finer than those of a list that is joined
 * (its codes are no truer than that). */
static int exponent_for(float largest, int at_least)
{
    int e;
    if (largest == 0)
        return at_least == INT8_MIN ? 0 : at_least;
    frexpf(largest, &e);
    e -= 15;
    if (rintf(ldexpf(largest, -e)) > INT16_MAX)
        e++;
    return e > at_least ? e : at_least;
}

static void finish_plan(const merge *m, maker *k)
{
    plan *p = k->plan;
    if (!m->p->payload->counts) {
        p->encoding = PE_ENC_I16;
        p->exponent = (int8_t)exponent_for(k->largest, k->exponent);
    } else {
        p->encoding = k->largest > UINT8_MAX ? PE_ENC_U16 : k->largest > 15 ? PE_ENC_U8 : PE_ENC_U4;
    }
    p->posting = k->posting;
    p->run = k->run;
    p->position = k->position;
    p->value = pe_value_bytes(p->encoding, k->posting);
}

static void merge_term(merge *m, uint32_t t)
{
    maker k = {.m = m, .plan = &m->plans[t], .window = -1, .exponent = INT8_MIN};
    if (m->fill) {
        const plan *at = k.plan;
        pe_column *c = m->out->columns;
        uint64_t n = m->plans[t + 1].posting - at->posting;
        if (n == 0)
            return;
        k.step = ldexpf(1, at->exponent);
        k.steps = ldexpf(1, -at->exponent);
        k.runs = (pe_run *)c[pe_set_column(m->set, PE_COL_RUNS)].data + at->run;
        k.locals = (uint16_t *)c[pe_set_column(m->set, PE_COL_LOCALS)].data + at->posting;
        unsigned char *values = c[pe_set_column(m->set, PE_COL_VALUES)].data;
        k.values = values + at->value;
        values[m->plans[t + 1].value - 1] = 0; /* may be filling */
        if (m->set == PE_SET_ALL && c[PE_COL_POS_RUNS].data) {
            k.run_positions = (uint32_t *)c[PE_COL_POS_RUNS].data + at->run;
            k.positions = (unsigned char *)c[PE_COL_POSITIONS].data + at->position;
        }
    }
    for (uint32_t i = 0; i < m->n_in; i++) {
        pe_list list;
        if (pe_list_open(&m->in[i], m->set, m->terms[t], &list))
            join_list(&k, &list, m->map[i]);
    }
    close_run(&k);
    if (!m->fill)
        finish_plan(m, &k);
}

static void merge_worker(void *ctx, unsigned worker)
{
    merge *m = ctx;
    for (;;) {
        uint32_t first = atomic_fetch_add(&m->next, TERMS_AT_ONCE);
        if (first >= m->n_terms)
            return;
        uint32_t end = m->n_terms - first < TERMS_AT_ONCE ? m->n_terms : first + TERMS_AT_ONCE;
        for (uint32_t t = first; t < end; t++)
            merge_term(m, t);
        if (m->progress && pe_progress_add(m->progress, worker, end - first))
            return;
    }
}

/* ---- a set of lists ---- */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static uint32_t terms_of(const pe_part *in, int set, uint32_t *out, uint32_t room)
{
    if (in->segment->active)
        return pe_active_terms(in->segment->active, set, out, room);
    uint32_t n = in->segment->n_terms[set];
    if (out && n)
        memcpy(out, pe_segment_terms(in->segment, set), n * sizeof *out);
    return n;
}

/* All terms of the inputs, ascending, each once. */
static peri_status collect_terms(merge *m, size_t *room)
{
    size_t all = 0, n = 0;
    for (uint32_t i = 0; i < m->n_in; i++)
        all += terms_of(&m->in[i], m->set, NULL, 0);
    m->terms = pe_alloc(m->p->host, all * sizeof *m->terms);
    if (!m->terms)
        return PERI_ERR_NOMEM;
    *room = all;
    for (uint32_t i = 0; i < m->n_in; i++)
        n += terms_of(&m->in[i], m->set, m->terms + n, (uint32_t)(all - n));
    if (m->n_in > 1 || m->in[0].segment->active)
        qsort(m->terms, n, sizeof *m->terms, compare_u32);
    m->n_terms = 0;
    for (size_t i = 0; i < n; i++)
        if (m->n_terms == 0 || m->terms[m->n_terms - 1] != m->terms[i])
            m->terms[m->n_terms++] = m->terms[i];
    return PERI_OK;
}

static peri_status run_pass(merge *m, int fill, unsigned workers)
{
    m->fill = fill;
    atomic_store(&m->next, 0);
    if (m->progress)
        pe_progress_phase(m->progress, fill ? "merge" : "count", m->n_terms);
    pe_team_run(workers > 1 && m->n_terms > TERMS_AT_ONCE ? workers : 1, merge_worker, m);
    return m->progress ? pe_progress_end(m->progress) : PERI_OK;
}

/* Counts become places; terms that nobody has any more leave. */
static peri_status place_lists(merge *m)
{
    plan sum = {0};
    uint64_t runs = 0;
    uint32_t kept = 0;
    for (uint32_t t = 0; t < m->n_terms; t++) {
        plan had = m->plans[t];
        if (had.posting == 0)
            continue;
        if (had.position > UINT32_MAX)
            return pe_fail(PERI_ERR_FULL, "%llu bytes of positions of one term",
                           (unsigned long long)had.position);
        m->terms[kept] = m->terms[t];
        m->plans[kept] = had;
        m->plans[kept].posting = sum.posting;
        m->plans[kept].value = sum.value;
        m->plans[kept].position = sum.position;
        m->plans[kept].run = (uint32_t)runs;
        sum.posting += had.posting;
        sum.value += had.value;
        sum.position += had.position;
        runs += had.run;
        kept++;
    }
    if (runs > UINT32_MAX)
        return pe_fail(PERI_ERR_FULL, "%llu runs of postings in one segment",
                       (unsigned long long)runs);
    sum.run = (uint32_t)runs;
    m->plans[kept] = sum;
    m->n_terms = kept;
    return PERI_OK;
}

static peri_status alloc_lists(merge *m)
{
    pe_postings *p = m->p;
    pe_segment *out = m->out;
    const plan *end = &m->plans[m->n_terms];
    const struct {
        pe_column_name name;
        uint64_t size;
    } want[] = {
        {PE_COL_TERMS, m->n_terms * sizeof(uint32_t)},
        {PE_COL_HEADS, (m->n_terms + 1ull) * sizeof(pe_head)},
        {PE_COL_RUNS, end->run * sizeof(pe_run)},
        {PE_COL_LOCALS, end->posting * sizeof(uint16_t)},
        {PE_COL_VALUES, end->value},
    };
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        PE_TRY(pe_column_alloc(p, out, pe_set_column(m->set, want[i].name), want[i].size));
    if (m->set == PE_SET_ALL && p->payload->positions) {
        PE_TRY(pe_column_alloc(p, out, PE_COL_POS_TERMS, (m->n_terms + 1ull) * sizeof(uint64_t)));
        PE_TRY(pe_column_alloc(p, out, PE_COL_POS_RUNS, end->run * sizeof(uint32_t)));
        PE_TRY(pe_column_alloc(p, out, PE_COL_POSITIONS, end->position));
    }
    out->n_terms[m->set] = m->n_terms;
    pe_head *heads = out->columns[pe_set_column(m->set, PE_COL_HEADS)].data;
    uint64_t *begin = m->set == PE_SET_ALL ? out->columns[PE_COL_POS_TERMS].data : NULL;
    for (uint32_t t = 0; t <= m->n_terms; t++) {
        const plan *at = &m->plans[t];
        heads[t] = (pe_head){at->posting, at->value, at->run, at->encoding, at->exponent, 0};
        if (begin)
            begin[t] = at->position;
    }
    if (m->n_terms)
        memcpy(out->columns[pe_set_column(m->set, PE_COL_TERMS)].data, m->terms,
               m->n_terms * sizeof *m->terms);
    return PERI_OK;
}

static peri_status merge_set(merge *m, int set, unsigned workers)
{
    size_t room = 0, plans = 0;
    m->set = set;
    peri_status status = collect_terms(m, &room);
    if (status == PERI_OK) {
        plans = m->n_terms + 1ull;
        m->plans = pe_calloc(m->p->host, plans * sizeof *m->plans);
        status = m->plans ? run_pass(m, 0, workers) : PERI_ERR_NOMEM;
    }
    if (status == PERI_OK)
        status = place_lists(m);
    if (status == PERI_OK)
        status = alloc_lists(m);
    if (status == PERI_OK)
        status = run_pass(m, 1, workers);
    if (m->terms)
        pe_free(m->p->host, m->terms, room * sizeof *m->terms);
    if (m->plans)
        pe_free(m->p->host, m->plans, plans * sizeof *m->plans);
    m->terms = NULL;
    m->plans = NULL;
    return status;
}

/* ---- documents ---- */

static void number_docs(merge *m, uint64_t *ids, uint32_t *lengths)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < m->n_in; i++) {
        const pe_part *in = &m->in[i];
        for (uint32_t doc = 0; doc < in->docs; doc++) {
            if (!pe_part_alive(in, doc)) {
                m->map[i][doc] = UINT32_MAX;
                continue;
            }
            ids[next] = pe_part_id(in, doc);
            lengths[next] = pe_part_length(in, doc);
            m->map[i][doc] = next++;
        }
        /* Lists of the active segment may hold documents newer than the part: none of those. */
        for (uint32_t doc = in->docs; in->segment->active && doc < PE_WINDOW; doc++)
            m->map[i][doc] = UINT32_MAX;
    }
}

static size_t map_room(const pe_part *in)
{
    return in->segment->active ? PE_WINDOW : in->docs;
}

static void free_maps(merge *m)
{
    for (uint32_t i = 0; i < m->n_in && m->map; i++)
        if (m->map[i])
            pe_free(m->p->host, m->map[i], map_room(&m->in[i]) * sizeof **m->map);
    if (m->map)
        pe_free(m->p->host, m->map, m->n_in * sizeof *m->map);
}

static peri_status merge_docs(merge *m, uint64_t live)
{
    pe_postings *p = m->p;
    pe_column *c = m->out->columns;
    PE_TRY(pe_column_alloc(p, m->out, PE_COL_IDS, live * sizeof(uint64_t)));
    PE_TRY(pe_column_alloc(p, m->out, PE_COL_LENGTHS, live * sizeof(uint32_t)));
    m->map = pe_calloc(p->host, m->n_in * sizeof *m->map);
    if (!m->map)
        return PERI_ERR_NOMEM;
    for (uint32_t i = 0; i < m->n_in; i++) {
        m->map[i] = pe_alloc(p->host, map_room(&m->in[i]) * sizeof **m->map);
        if (!m->map[i])
            return PERI_ERR_NOMEM;
    }
    number_docs(m, c[PE_COL_IDS].data, c[PE_COL_LENGTHS].data);
    m->out->docs = (uint32_t)live;
    return pe_segment_index(m->out);
}

peri_status pe_merge(pe_postings *p, const pe_part *in, uint32_t n, pe_segment **out,
                     pe_progress *progress, unsigned workers)
{
    merge m = {.p = p, .in = in, .n_in = n, .progress = progress};
    uint64_t live = 0;
    *out = NULL;
    for (uint32_t i = 0; i < n; i++)
        live += in[i].live;
    if (live == 0)
        return PERI_OK;
    if (live > PE_SEGMENT_DOCS_MAX)
        return pe_fail(PERI_ERR_FULL, "%llu documents in one segment, at most %d",
                       (unsigned long long)live, PE_SEGMENT_DOCS_MAX);
    PE_TRY(pe_segment_create(p, &m.out));
    peri_status status = merge_docs(&m, live);
    if (status == PERI_OK)
        status = merge_set(&m, PE_SET_ALL, workers);
    if (status == PERI_OK && p->payload->marked)
        status = merge_set(&m, PE_SET_MARKED, workers);
    if (status == PERI_OK && p->payload->merge)
        status = p->payload->merge(p, m.out, in, n, (uint32_t *const *)m.map);
    free_maps(&m);
    if (status == PERI_OK)
        *out = m.out;
    else
        pe_segment_destroy(m.out);
    return status;
}
