/* Walking the lists of one part: windows of scores, candidates, and when to stop adding.
 *
 * With T the k-th highest low of all candidates so far (`bar`), s what the terms not yet added
 * could add in this window at most, and e the error of what the lists say:
 *   - windows come by what they can have at most, and the walk ends at the first with s + e < T;
 *   - once the rows with score + s + e >= T are few, they are scored on their forward rows and the
 *     remaining lists of the window are left alone: on data like SPLADE's that saves a third of the
 *     postings. (Stopping only when no row can matter, as in SINDI, saves next to nothing there.)
 * All of it is exact for weights of either sign: `most` of a term is the largest product that its
 * run's bounds allow, or 0 for a row that has not got the term.
 *
 * Tried and left: rows grouped by their nearest of 2,000 centroids, so that windows differ in what
 * they are about. Bounds of 8,192 rows stayed at two to three times T all the same, no window was
 * passed over, builds took three times as long, and rows of one tenant no longer lay side by side.
 */
#include "sparse/sparse.h"

#include <math.h>
#include <stdlib.h>

/* Adding this many postings takes about as long as scoring one row (which waits for memory: 0.4
 * microseconds on Zen 4); looking through a window's scores pays when as many as LOOK_COST could be
 * saved. Rows in a run, each asked for ahead of time, cost RUN_COST. Looks stand apart by two
 * fifths of what is left. */
enum { SCORE_COST = 600, RUN_COST = 120, LOOK_COST = 1200, FINISH_MAX = 512 };

/* A score that nothing was added to: x + -0 = x for every x, so any sum, 0 too, is told from it. */
#define UNTOUCHED (-0.0f)

static inline int is_touched(float score)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits != 0x80000000u;
}

/* ---- candidates ---- */

static void heap_down(float *h, size_t n, float x)
{
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && h[child + 1] < h[child])
            child++;
        if (h[child] >= x)
            break;
        h[i] = h[child];
    }
    h[i] = x;
}

static void heap_up(float *h, size_t i, float x)
{
    for (; i && h[(i - 1) / 2] > x; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = x;
}

/* Leave out candidates that can no longer be among the best. */
static void drop_beaten(pe_sparse_search *s)
{
    pe_sparse_cand *c = s->scratch->cands;
    size_t kept = 0;
    for (size_t i = 0; i < s->n_cands; i++)
        if (c[i].high >= s->bar)
            c[kept++] = c[i];
    s->n_cands = kept;
}

peri_status pe_sparse_offer(pe_sparse_search *s, pe_sparse_cand c)
{
    pe_sparse_scratch *r = s->scratch;
    if (c.high < s->bar)
        return PERI_OK;
    if (s->n_cands >= s->limit) {
        drop_beaten(s);
        if (s->n_cands > s->limit / 2)
            s->limit *= 2;
    }
    PE_TRY(pe_grow(r->host, &r->cands, &r->cands_room, s->n_cands + 1, sizeof *r->cands));
    r->cands[s->n_cands++] = c;
    if (s->n_best < s->k) {
        PE_TRY(pe_grow(r->host, &r->best, &r->best_room, s->n_best + 1, sizeof *r->best));
        heap_up(r->best, s->n_best++, c.low);
    } else if (c.low > r->best[0]) {
        heap_down(r->best, s->k, c.low);
    }
    if (s->n_best == s->k && r->best[0] > s->bar)
        s->bar = r->best[0];
    return PERI_OK;
}

/* ---- scoring on forward rows ---- */

peri_status pe_sparse_begin_part(pe_sparse_search *s, uint32_t part, pe_forward_of *f)
{
    pe_sparse_scratch *r = s->scratch;
    pe_forward_open(s->sx, &s->snapshot->parts[part], f);
    if (f->term_size == 0)
        return PERI_OK;
    const pe_segment *g = s->snapshot->parts[part].segment;
    uint32_t n = g->n_terms[PE_SET_ALL], at = 0;
    if (n > r->dense_room) {
        float *wide = pe_calloc(r->host, n * sizeof *wide);
        if (!wide)
            return PERI_ERR_NOMEM;
        pe_free(r->host, r->dense, r->dense_room * sizeof *r->dense);
        r->dense = wide;
        r->dense_room = n;
    }
    PE_TRY(pe_grow(r->host, &r->places, &r->places_room, s->n + 1, sizeof *r->places));
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t len = n - at, low = at; /* both lists ascend */
        for (; len > 1; len -= len / 2)
            low = f->names[low + len / 2] <= s->query[i].term ? low + len / 2 : low;
        if (low < n && f->names[low] == s->query[i].term) {
            r->dense[low] = s->query[i].weight;
            r->places[r->n_places++] = low;
        }
        at = low;
    }
    return PERI_OK;
}

void pe_sparse_end_part(pe_sparse_search *s)
{
    pe_sparse_scratch *r = s->scratch;
    while (r->n_places)
        r->dense[r->places[--r->n_places]] = 0;
}

/* Which entries of a row the query has: first their places, without a branch that guesses (one in
 * eight matches), then the sum. */
static uint32_t match_dense(const float *dense, const pe_forward *row, uint32_t *matches)
{
    uint32_t m = 0;
    if (row->term_size == 2) {
        const uint16_t *t = row->terms;
        for (uint32_t i = 0; i < row->n; i++) {
            matches[m] = i;
            m += dense[t[i]] != 0;
        }
    } else {
        const uint32_t *t = row->terms;
        for (uint32_t i = 0; i < row->n; i++) {
            matches[m] = i;
            m += dense[t[i]] != 0;
        }
    }
    return m;
}

static int score_active(const pe_sparse_search *s, const pe_forward *row, float *score)
{
    double sum = 0;
    int touched = 0;
    for (uint32_t i = 0, j = 0; i < row->n && j < s->n;) {
        uint32_t term = pe_forward_term(row, i), wanted = s->query[j].term;
        if (term == wanted) {
            sum += (double)s->query[j].weight * (double)pe_forward_weight(s->sx, row, i);
            touched = 1;
        }
        i += term <= wanted;
        j += wanted <= term;
    }
    *score = (float)sum;
    return touched;
}

int pe_sparse_score(pe_sparse_search *s, const pe_forward_of *f, uint32_t doc, float *score)
{
    pe_sparse_scratch *r = s->scratch;
    pe_forward row = pe_forward_at(f, doc);
    double sum = 0;
    if (row.term_size == 0)
        return score_active(s, &row, score);
    uint32_t n = match_dense(r->dense, &row, r->matches);
    for (uint32_t m = 0; m < n; m++) {
        uint32_t i = r->matches[m];
        float q = row.term_size == 2 ? r->dense[((const uint16_t *)row.terms)[i]]
                                     : r->dense[((const uint32_t *)row.terms)[i]];
        sum += (double)q * (double)pe_forward_weight(s->sx, &row, i);
    }
    *score = (float)sum;
    return n != 0;
}

/* ---- one part ---- */

typedef struct walk {
    pe_sparse_search *s;
    const pe_part *part;
    uint32_t number; /* of the part */
    int set, exact;
    uint32_t n;   /* terms that have a list here */
    int positive; /* all products are, and in 16-bit codes */
    float error;  /* of a sum of all lists against the score */
    pe_forward_of forward;
    const pe_sparse_cell *cells; /* of the window */
    const uint64_t *allowed;     /* of the window: a bit a row, or NULL */
    const uint64_t *dead;        /* of the window: a bit a row, or NULL */
    uint32_t first, rows;        /* of the window */
} walk;

static float run_most(float weight, const pe_run *r)
{
    return weight > 0 ? weight * pe_bound_value(r->max) : weight * pe_bound_value(r->min);
}

static int larger_window(const void *a, const void *b)
{
    const pe_sparse_window *x = a, *y = b;
    if (x->most != y->most)
        return x->most > y->most ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

static int larger_bound(const void *a, const void *b)
{
    const pe_sparse_term *x = a, *y = b;
    if (x->bound != y->bound)
        return x->bound > y->bound ? -1 : 1;
    return 0;
}

/* The lists of the part's terms, those that can add most first, and the error of their sum: each
 * posting is at most one step off, and each of n additions rounds. */
static peri_status open_terms(walk *w, const pe_sparse_entry *entries, uint32_t n)
{
    pe_sparse_scratch *r = w->s->scratch;
    double steps = 0, largest = 0;
    PE_TRY(pe_grow(r->host, &r->terms, &r->terms_room, n + 1, sizeof *r->terms));
    PE_TRY(pe_grow(r->host, &r->rest, &r->rest_room, n + 2, sizeof *r->rest));
    for (uint32_t i = 0; i < n; i++) {
        pe_sparse_term *t = &r->terms[w->n];
        *t = (pe_sparse_term){.weight = entries[i].weight};
        if (!pe_list_open(w->part, w->set, entries[i].term, &t->list))
            continue;
        for (uint32_t run = 0; t->list.runs && run < t->list.n_runs; run += 8) {
            __builtin_prefetch(t->list.runs + run);
            atomic_signal_fence(memory_order_seq_cst);
        }
        w->n++;
    }
    for (uint32_t i = 0; i < w->n; i++) {
        pe_sparse_term *t = &r->terms[i];
        float size = 0;
        t->positive = t->list.encoding == PE_ENC_I16 && t->weight > 0;
        for (uint32_t run = 0; run < t->list.n_runs; run++) {
            const pe_run *at = pe_list_run(&t->list, run);
            float most = run_most(t->weight, at), max = pe_bound_value(at->max);
            float min = -pe_bound_value(at->min);
            t->bound = most > t->bound ? most : t->bound;
            size = max > size ? max : size;
            size = min > size ? min : size;
            t->positive &= at->min == 0x8000 || at->min == 0;
        }
        t->step = ldexpf(t->weight, t->list.encoding == PE_ENC_I16 ? t->list.exponent : 0);
        if (t->list.encoding == PE_ENC_I16)
            steps += fabsf(t->step);
        largest += (double)(fabsf(t->weight) * size);
    }
    if (w->n > 1)
        qsort(r->terms, w->n, sizeof *r->terms, larger_bound);
    w->positive = 1;
    for (uint32_t i = 0; i < w->n; i++)
        w->positive &= r->terms[i].positive;
    w->error = (float)((steps + largest * (w->n + 4) * 0x1p-24) * 1.001);
    return PERI_OK;
}

/* What each term has in each window, and the windows with the highest bounds first. */
static peri_status open_windows(walk *w)
{
    pe_sparse_scratch *r = w->s->scratch;
    uint32_t n = pe_part_windows(w->part);
    PE_TRY(pe_grow(r->host, &r->cells, &r->cells_room, (size_t)n * w->n, sizeof *r->cells));
    PE_TRY(pe_grow(r->host, &r->windows, &r->windows_room, n, sizeof *r->windows));
    memset(r->cells, 0, (size_t)n * w->n * sizeof *r->cells);
    for (uint32_t i = 0; i < n; i++)
        r->windows[i] = (pe_sparse_window){0, i};
    for (uint32_t i = 0; i < w->n; i++) {
        const pe_sparse_term *t = &r->terms[i];
        uint32_t first = 0;
        for (uint32_t run = 0; run < t->list.n_runs; run++) {
            const pe_run *at = pe_list_run(&t->list, run);
            float most = run_most(t->weight, at);
            r->cells[(size_t)at->window * w->n + i] = (pe_sparse_cell){first, at->last + 1u, most};
            r->windows[at->window].most += most;
            first += at->last + 1u;
        }
    }
    qsort(r->windows, n, sizeof *r->windows, larger_window);
    return PERI_OK;
}

static inline int may_hit(const walk *w, uint32_t local)
{
    const uint64_t *bits = w->allowed ? w->allowed : w->dead;
    if (!bits)
        return 1;
    return (int)(bits[local / 64] >> (local % 64) & 1) == (w->allowed != NULL);
}

/* The window's cells, what those from i on can add, and postings in all. */
static uint32_t begin_window(walk *w, uint32_t window)
{
    pe_sparse_scratch *r = w->s->scratch;
    uint32_t all = 0;
    w->cells = r->cells + (size_t)window * w->n;
    w->dead = pe_part_dead(w->part, window);
    w->first = window << PE_WINDOW_SHIFT;
    w->rows = w->part->docs - w->first < PE_WINDOW ? w->part->docs - w->first : PE_WINDOW;
    r->rest[w->n] = 0;
    for (uint32_t i = w->n; i-- > 0;) {
        r->rest[i] = r->rest[i + 1] + w->cells[i].most;
        all += w->cells[i].n;
    }
    return all;
}

static void add_list(float *scores, const pe_sparse_term *t, const pe_sparse_cell *c)
{
    const uint16_t *ids = t->list.ids + c->first;
    uint32_t n = c->n, i = 0;
    if (t->list.encoding == PE_ENC_I16) {
        const int16_t *v = (const int16_t *)t->list.values + c->first;
        float w = t->step;
        for (; i + 4 <= n; i += 4) { /* no row stands twice: the four do not meet */
            scores[ids[i]] += w * v[i];
            scores[ids[i + 1]] += w * v[i + 1];
            scores[ids[i + 2]] += w * v[i + 2];
            scores[ids[i + 3]] += w * v[i + 3];
        }
        for (; i < n; i++)
            scores[ids[i]] += w * v[i];
        return;
    }
    const float *v = (const float *)t->list.values + c->first;
    for (; i < n; i++)
        scores[ids[i]] += t->weight * v[i];
}

/* A run is short and lies far from the one before it: without asking for it ahead of time the walk
 * waits for memory at every run. Into the second-level cache: the first has too few places for
 * lines under way (1.01 ms a query without, 0.95 into the first, 0.87 into the second). */
static inline void prefetch_list(const walk *w, uint32_t i)
{
    enum { AHEAD = 2, BYTES = 2048 };
    if (i + AHEAD >= w->n)
        return;
    const pe_sparse_term *t = &w->s->scratch->terms[i + AHEAD];
    const pe_sparse_cell *c = &w->cells[i + AHEAD];
    size_t value = t->list.encoding == PE_ENC_I16 ? 2 : 4;
    const char *ids = (const char *)(t->list.ids + c->first);
    const char *values = (const char *)t->list.values + c->first * value;
    size_t bytes = c->n * sizeof(uint16_t) < BYTES ? c->n * sizeof(uint16_t) : BYTES;
    for (size_t at = 0; at < bytes; at += 64) {
        __builtin_prefetch(ids + at, 0, 2);
        __builtin_prefetch(values + at, 0, 2);
        /* Keeps gcc 12 from folding the loop to its first pass; emits nothing. */
        atomic_signal_fence(memory_order_seq_cst);
    }
}

/* Some of 64 scores reach x? */
static inline int any_reaches(const float *scores, float x)
{
    int any = 0;
    for (int i = 0; i < 64; i++)
        any |= scores[i] >= x;
    return any;
}

/* If no more than `most` rows reach x: their numbers and how many; else UINT32_MAX. */
static uint32_t rows_reaching(const walk *w, float x, uint32_t most, uint32_t *out)
{
    const float *scores = w->s->scratch->scores;
    uint32_t n = 0;
    for (uint32_t first = 0; first < w->rows; first += 64) {
        if (!any_reaches(scores + first, x))
            continue;
        for (uint32_t i = first; i < first + 64; i++) {
            if (scores[i] < x || !may_hit(w, i))
                continue;
            if (n == most)
                return UINT32_MAX;
            out[n++] = i;
        }
    }
    return n;
}

/* ---- a window in 16-bit units ----
 * Where all products are positive and there is a bar to reach, scores are added in whole units, of
 * which the most that any row can have is UNITS: half the array to clear, to look through and to
 * keep in the first-level cache. Each product is cut to whole units, so a sum of n lists is up to n
 * units short. */

enum { UNITS = 64000 };

static void add_list16(uint16_t *scores, const pe_sparse_term *t, const pe_sparse_cell *c,
                       float unit)
{
    const uint16_t *ids = t->list.ids + c->first;
    const uint16_t *v = (const uint16_t *)t->list.values + c->first; /* positive codes */
    /* w * v < UNITS << 16, since no product of the run is more than UNITS. */
    uint32_t w = (uint32_t)(t->step / unit * 65536), n = c->n, i = 0;
    for (; i + 4 <= n; i += 4) { /* no row stands twice: the four do not meet */
        scores[ids[i]] = (uint16_t)(scores[ids[i]] + (w * v[i] >> 16));
        scores[ids[i + 1]] = (uint16_t)(scores[ids[i + 1]] + (w * v[i + 1] >> 16));
        scores[ids[i + 2]] = (uint16_t)(scores[ids[i + 2]] + (w * v[i + 2] >> 16));
        scores[ids[i + 3]] = (uint16_t)(scores[ids[i + 3]] + (w * v[i + 3] >> 16));
    }
    for (; i < n; i++)
        scores[ids[i]] = (uint16_t)(scores[ids[i]] + (w * v[i] >> 16));
}

static inline int any_reaches16(const uint16_t *scores, uint16_t x)
{
    uint16_t any = 0;
    for (int i = 0; i < 64; i++)
        any |= (uint16_t)(scores[i] >= x ? 0xffff : 0);
    return any;
}

static uint32_t rows_reaching16(const walk *w, uint16_t x, uint32_t most, uint32_t *out)
{
    const uint16_t *scores = w->s->scratch->units;
    uint32_t n = 0;
    for (uint32_t first = 0; first < w->rows; first += 64) {
        if (!any_reaches16(scores + first, x))
            continue;
        for (uint32_t i = first; i < first + 64; i++) {
            if (scores[i] < x || !may_hit(w, i))
                continue;
            if (n == most)
                return UINT32_MAX;
            out[n++] = i;
        }
    }
    return n;
}

/* Units that a row short by `lists` must show to reach x; at least 1: who shows none has less than
 * a unit a list. */
static uint16_t units_of(float x, float unit, uint32_t lists)
{
    float units = x / unit - (float)lists - 1;
    return units < 1 ? 1 : units > UINT16_MAX ? UINT16_MAX : (uint16_t)units;
}

static peri_status scan_window16(walk *w, float unit, uint32_t lists)
{
    pe_sparse_search *s = w->s;
    const uint16_t *scores = s->scratch->units;
    float error = w->exact ? w->error : 0, above = w->exact ? (float)(lists + 1) : 0;
    uint16_t x = units_of(s->bar - error, unit, w->exact ? lists : 0);
    for (uint32_t first = 0; first < w->rows; first += 64) {
        if (!any_reaches16(scores + first, x))
            continue;
        for (uint32_t i = first; i < first + 64; i++) {
            if (scores[i] < x || !may_hit(w, i))
                continue;
            float low = (float)scores[i] * unit * (1 - 0x1p-20f) - error;
            float high = ((float)scores[i] + above) * unit * (1 + 0x1p-20f) + error;
            PE_TRY(pe_sparse_offer(
                s, (pe_sparse_cand){low, w->exact ? high : low, w->number, w->first + i, 0}));
        }
        x = units_of(s->bar - error, unit, w->exact ? lists : 0);
    }
    return PERI_OK;
}

/* Score these rows of the window and offer them. */
static peri_status finish_rows(walk *w, const uint32_t *locals, uint32_t n)
{
    enum {
        AHEAD = 6,
        FAR = 16
    }; /* rows lie far apart: a score waits for memory most of its time */
    for (uint32_t i = 0; i < n && i < AHEAD; i++)
        pe_forward_prefetch(&w->forward, w->first + locals[i]);
    for (uint32_t i = 0; i < n; i++) {
        float score;
        if (w->forward.offsets && i + FAR < n)
            __builtin_prefetch(&w->forward.offsets[w->first + locals[i + FAR]]);
        if (i + AHEAD < n)
            pe_forward_prefetch(&w->forward, w->first + locals[i + AHEAD]);
        uint32_t doc = w->first + locals[i];
        if (pe_sparse_score(w->s, &w->forward, doc, &score))
            PE_TRY(pe_sparse_offer(w->s, (pe_sparse_cand){score, score, w->number, doc, 1}));
    }
    return PERI_OK;
}

/* Offer what the lists have added up. */
static peri_status scan_window(walk *w)
{
    pe_sparse_search *s = w->s;
    const float *scores = s->scratch->scores;
    float error = w->exact ? w->error : 0;
    int all = !(s->bar - error > 0); /* then untouched rows have to be told by their bits */
    for (uint32_t first = 0; first < w->rows; first += 64) {
        float x = s->bar - error;
        if (!all && !any_reaches(scores + first, x))
            continue;
        for (uint32_t i = first; i < first + 64; i++) {
            if (scores[i] < s->bar - error || !is_touched(scores[i]) || !may_hit(w, i))
                continue;
            PE_TRY(pe_sparse_offer(s, (pe_sparse_cand){scores[i] - error, scores[i] + error,
                                                       w->number, w->first + i, 0}));
        }
    }
    return PERI_OK;
}

static peri_status walk_window16(walk *w, uint32_t postings)
{
    pe_sparse_search *s = w->s;
    pe_sparse_scratch *r = s->scratch;
    uint32_t left = postings, look_at = postings / 5 * 3, lists = 0, few[FINISH_MAX];
    float unit = r->rest[0] / UNITS;
    memset(r->units, 0, (w->rows + 63) / 64 * 64 * sizeof *r->units);
    for (uint32_t i = 0; i < w->n; i++) {
        prefetch_list(w, i);
        if (w->cells[i].n == 0)
            continue;
        add_list16(r->units, &r->terms[i], &w->cells[i], unit);
        left -= w->cells[i].n;
        lists++;
        float x = s->bar - r->rest[i + 1] - w->error;
        if (!w->exact || left > look_at || left < 2 * LOOK_COST || !(x > unit * (float)(lists + 2)))
            continue;
        uint32_t most = (left - LOOK_COST) / SCORE_COST;
        uint32_t n = rows_reaching16(w, units_of(x, unit, lists),
                                     most < FINISH_MAX ? most : FINISH_MAX, few);
        if (n != UINT32_MAX)
            return finish_rows(w, few, n);
        look_at = left / 5 * 3;
    }
    return scan_window16(w, unit, lists);
}

static peri_status walk_window(walk *w, uint32_t postings)
{
    pe_sparse_search *s = w->s;
    pe_sparse_scratch *r = s->scratch;
    uint32_t left = postings, look_at = postings / 5 * 3, few[FINISH_MAX];
    uint32_t filled = (w->rows + 63) / 64 * 64;
    for (uint32_t i = 0; i < filled; i++)
        r->scores[i] = UNTOUCHED;
    for (uint32_t i = 0; i < w->n; i++) {
        prefetch_list(w, i);
        if (w->cells[i].n == 0)
            continue;
        add_list(r->scores, &r->terms[i], &w->cells[i]);
        left -= w->cells[i].n;
        float x = s->bar - r->rest[i + 1] - w->error;
        if (!w->exact || left > look_at || left < 2 * LOOK_COST || !(x > 0))
            continue;
        uint32_t most = (left - LOOK_COST) / SCORE_COST;
        uint32_t n = rows_reaching(w, x, most < FINISH_MAX ? most : FINISH_MAX, few);
        if (n != UINT32_MAX)
            return finish_rows(w, few, n);
        look_at = left / 5 * 3;
    }
    return scan_window(w);
}

/* Fewer allowed rows than the lists would cost: score just those. */
static peri_status score_allowed(walk *w, const uint64_t *bits)
{
    uint32_t words = pe_part_windows(w->part) * PE_PAGE_WORDS, docs[FINISH_MAX], n = 0;
    w->first = 0;
    for (uint32_t i = 0; i < words; i++)
        for (uint64_t rest = bits[i]; rest; rest &= rest - 1) {
            docs[n++] = i * 64 + (uint32_t)__builtin_ctzll(rest);
            if (n == FINISH_MAX) {
                PE_TRY(finish_rows(w, docs, n));
                n = 0;
            }
        }
    return finish_rows(w, docs, n);
}

static int any_bit(const uint64_t *bits)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < PE_PAGE_WORDS; i++)
        any |= bits[i];
    return any != 0;
}

/* Of the postings, those in windows that have an allowed row, if they lie evenly. */
static uint64_t postings_allowed(const walk *w, const uint64_t *bits, uint64_t all)
{
    uint32_t n = pe_part_windows(w->part), with = 0;
    for (uint32_t i = 0; i < n; i++)
        with += (uint32_t)any_bit(bits + (size_t)i * PE_PAGE_WORDS);
    return all * with / n;
}

static peri_status walk_lists(walk *w, const uint64_t *bits)
{
    pe_sparse_scratch *r = w->s->scratch;
    PE_TRY(open_windows(w));
    for (uint32_t i = 0; i < pe_part_windows(w->part); i++) {
        uint32_t window = r->windows[i].number;
        if (r->windows[i].most + w->error < w->s->bar)
            return PERI_OK; /* and all that follow have lower bounds */
        w->allowed = bits ? bits + (size_t)window * PE_PAGE_WORDS : NULL;
        if (w->allowed && !any_bit(w->allowed))
            continue;
        uint32_t postings = begin_window(w, window);
        if (postings == 0)
            continue;
        int units = w->positive && r->rest[0] > 0 && w->s->bar - w->error > 0;
        PE_TRY(units ? walk_window16(w, postings) : walk_window(w, postings));
    }
    return PERI_OK;
}

peri_status pe_sparse_walk(pe_sparse_search *s, uint32_t part, int set,
                           const pe_sparse_entry *entries, uint32_t n, int exact)
{
    walk w = {.s = s, .part = &s->snapshot->parts[part], .number = part, .set = set};
    const pe_accepted *accepted = s->accepted ? &s->accepted[part] : NULL;
    uint64_t all = 0;
    w.exact = exact;
    if (w.part->live == 0 || (accepted && accepted->count == 0))
        return PERI_OK;
    PE_TRY(open_terms(&w, entries, n));
    for (uint32_t i = 0; i < w.n; i++)
        all += s->scratch->terms[i].list.n;
    if (all == 0)
        return PERI_OK;
    PE_TRY(pe_sparse_begin_part(s, part, &w.forward));
    peri_status status;
    if (exact && accepted && accepted->bits &&
        accepted->count * RUN_COST < postings_allowed(&w, accepted->bits, all))
        status = score_allowed(&w, accepted->bits);
    else
        status = walk_lists(&w, accepted ? accepted->bits : NULL);
    pe_sparse_end_part(s);
    return status;
}
