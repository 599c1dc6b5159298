/* Walking the lists of one part: windows of scores, candidates, and when to stop adding.
 *
 * With T the k-th highest low of all candidates so far (`bar`), s what the terms not yet added
 * could add in this window at most, and e the error of what the lists say:
 *   - a window where s + e < T from the start is passed over;
 *   - once only rows with score + s + e >= T can matter and they are few, they are scored on their
 *     forward rows and the remaining lists of the window are left alone. With terms in order of
 * what they can add this ends most windows early: the last terms of a SPLADE query have the longest
 *     lists and the least to say. (Adding everything, as in SINDI, and stopping only when no row
 * can matter, took twice as long on data like SPLADE's; see docs/benchmarks.md.) All of it is exact
 * for weights of either sign: `most` of a term is the largest product that its run's bounds allow,
 * or 0 for a row that has not got the term. */
#include "sparse/sparse.h"

#include <math.h>
#include <stdlib.h>

/* Adding this many postings takes about as long as scoring one row; looking through a window's
 * scores, as long as adding LOOK. */
enum { SCORE_COST = 150, LOOK_COST = 1200, FINISH_MAX = 512 };

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
    uint32_t n;  /* terms that have a list here */
    float error; /* of a sum of all lists against the score */
    pe_forward_of forward;
    const uint64_t *allowed; /* of the window: a bit a row, or NULL */
    const uint64_t *dead;    /* of the window: a bit a row, or NULL */
    uint32_t first, rows;    /* of the window */
} walk;

static float run_most(float weight, const pe_run *r)
{
    return weight > 0 ? weight * pe_bound_value(r->max) : weight * pe_bound_value(r->min);
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
        if (!pe_list_open(w->part, w->set, entries[i].term, &t->cursor.list))
            continue;
        const pe_list *l = &t->cursor.list;
        float size = 0;
        for (uint32_t run = 0; run < l->n_runs; run++) {
            const pe_run *at = pe_list_run(l, run);
            float most = run_most(t->weight, at), max = pe_bound_value(at->max);
            float min = -pe_bound_value(at->min);
            t->bound = most > t->bound ? most : t->bound;
            size = max > size ? max : size;
            size = min > size ? min : size;
        }
        if (l->encoding == PE_ENC_I16)
            steps += fabsf(t->weight) * ldexpf(1, l->exponent);
        largest += (double)(fabsf(t->weight) * size);
        w->n++;
    }
    qsort(r->terms, w->n, sizeof *r->terms, larger_bound);
    w->error = (float)((steps + largest * (w->n + 4) * 0x1p-24) * 1.001);
    return PERI_OK;
}

static inline int may_hit(const walk *w, uint32_t local)
{
    const uint64_t *bits = w->allowed ? w->allowed : w->dead;
    if (!bits)
        return 1;
    return (int)(bits[local / 64] >> (local % 64) & 1) == (w->allowed != NULL);
}

/* The window's bounds: terms present, what those from i on can add. Returns postings in all. */
static uint32_t begin_window(walk *w, uint32_t window)
{
    pe_sparse_scratch *r = w->s->scratch;
    uint32_t all = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        pe_sparse_term *t = &r->terms[i];
        t->n = pe_cursor_seek(&t->cursor, window);
        t->most = t->n ? run_most(t->weight, pe_list_run(&t->cursor.list, t->cursor.run)) : 0;
        all += t->n;
    }
    r->rest[w->n] = 0;
    for (uint32_t i = w->n; i-- > 0;)
        r->rest[i] = r->rest[i + 1] + r->terms[i].most;
    return all;
}

static void add_list(float *scores, const pe_sparse_term *t)
{
    const uint16_t *ids = t->cursor.list.ids + t->cursor.first;
    uint32_t n = t->n, i = 0;
    if (t->cursor.list.encoding == PE_ENC_I16) {
        const int16_t *v = (const int16_t *)t->cursor.list.values + t->cursor.first;
        float w = ldexpf(t->weight, t->cursor.list.exponent);
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
    const float *v = (const float *)t->cursor.list.values + t->cursor.first;
    for (; i < n; i++)
        scores[ids[i]] += t->weight * v[i];
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

/* Score these rows of the window and offer them. */
static peri_status finish_rows(walk *w, const uint32_t *locals, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float score;
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

static peri_status walk_window(walk *w, uint32_t postings)
{
    pe_sparse_search *s = w->s;
    pe_sparse_scratch *r = s->scratch;
    uint32_t left = postings, look_at = postings / 4 * 3, few[FINISH_MAX];
    uint32_t filled = (w->rows + 63) / 64 * 64;
    for (uint32_t i = 0; i < filled; i++)
        r->scores[i] = UNTOUCHED;
    for (uint32_t i = 0; i < w->n; i++) {
        if (r->terms[i].n == 0)
            continue;
        add_list(r->scores, &r->terms[i]);
        left -= r->terms[i].n;
        float x = s->bar - r->rest[i + 1] - w->error;
        if (!w->exact || left > look_at || left < 2 * LOOK_COST || !(x > 0))
            continue;
        uint32_t most = (left - LOOK_COST) / SCORE_COST;
        uint32_t n = rows_reaching(w, x, most < FINISH_MAX ? most : FINISH_MAX, few);
        if (n != UINT32_MAX)
            return finish_rows(w, few, n);
        look_at = left / 4 * 3;
    }
    return scan_window(w);
}

/* Fewer allowed rows than the lists would cost: score just those. */
static peri_status score_allowed(walk *w, const uint64_t *bits)
{
    uint32_t words = pe_part_windows(w->part) * PE_PAGE_WORDS;
    for (uint32_t i = 0; i < words; i++)
        for (uint64_t rest = bits[i]; rest; rest &= rest - 1) {
            uint32_t local = (uint32_t)__builtin_ctzll(rest);
            w->first = i * 64;
            PE_TRY(finish_rows(w, &local, 1));
        }
    return PERI_OK;
}

static int any_bit(const uint64_t *bits)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < PE_PAGE_WORDS; i++)
        any |= bits[i];
    return any != 0;
}

static peri_status walk_lists(walk *w, const uint64_t *bits)
{
    for (uint32_t window = 0; window < pe_part_windows(w->part); window++) {
        w->allowed = bits ? bits + (size_t)window * PE_PAGE_WORDS : NULL;
        w->dead = pe_part_dead(w->part, window);
        w->first = window << PE_WINDOW_SHIFT;
        w->rows = w->part->docs - w->first < PE_WINDOW ? w->part->docs - w->first : PE_WINDOW;
        if (w->allowed && !any_bit(w->allowed))
            continue;
        uint32_t postings = begin_window(w, window);
        if (postings && w->s->scratch->rest[0] + w->error >= w->s->bar)
            PE_TRY(walk_window(w, postings));
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
        all += s->scratch->terms[i].cursor.list.n;
    if (all == 0)
        return PERI_OK;
    PE_TRY(pe_sparse_begin_part(s, part, &w.forward));
    peri_status status;
    if (exact && accepted && accepted->bits && accepted->count * SCORE_COST < all)
        status = score_allowed(&w, accepted->bits);
    else
        status = walk_lists(&w, accepted ? accepted->bits : NULL);
    pe_sparse_end_part(s);
    return status;
}
