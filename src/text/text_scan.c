/* Flat queries, window by window.
 *
 * OR: MaxScore in windows (Turtle and Flood, IPM 1995, in the bulk form that Lucene 10 uses). The
 * leaves of a window are put in the order of their bounds; those at the low end that together
 * cannot lift a document to the k-th score are only looked up, for documents that the others have
 * brought near enough. The others are added up in an array of the window. Bounds are those of the
 * run: with 8,192 documents to a window most windows of a query with a rare term are skipped whole,
 * or have a single list to walk.
 *
 * Where a filter leaves few documents of a window, these are looked up one by one, from the
 * heaviest leaf down.
 *
 * AND: the shortest run of the window leads; the others are searched for its documents.
 *
 * Both are exact: what is left out has a bound below the k-th score. */
#include "text/text.h"

enum {
    PRUNED_LEAVES = 64, /* with more than this nothing is looked up: ordering would cost more */
    BLOCK = 64,         /* documents whose sums are cleared together */
    BLOCKS = PE_WINDOW / BLOCK,
    SPARSE = 1024, /* fewer postings than this: look at the blocks they fell in, else at all */
};

/* ---- sums ---- */

/* The hot loop: one byte of length, one count, one cell of a table, one sum. */
static inline void add_run(const pe_find *f, const pe_leaf *l, const uint8_t *classes, int encoding,
                           uint64_t *touched)
{
    const uint16_t *ids = l->at.list.ids;
    const uint8_t *counts = l->at.list.values;
    const pe_weights *w = &f->s->weights;
    int32_t *sums = f->s->sums;
    float scale = l->scale;
    for (uint32_t i = l->at.first, end = i + l->n; i < end; i++) {
        uint32_t doc = ids[i];
        uint32_t count = encoding == PE_ENC_U4 ? counts[i / 2] >> (i % 2 * 4) & 15 : counts[i];
        sums[doc] += pe_part_of_score(scale, pe_weight(w, count, classes[doc]));
        if (touched)
            touched[doc / BLOCK / 64] |= (uint64_t)1 << (doc / BLOCK % 64);
    }
}

static void add_any(const pe_find *f, const pe_leaf *l, uint32_t base, uint64_t *touched)
{
    const uint16_t *ids = l->at.list.ids;
    for (uint32_t i = l->at.first; i < l->at.first + l->n; i++) {
        uint32_t doc = ids[i];
        f->s->sums[doc] += pe_find_part(f, l, i, base + doc);
        if (touched)
            touched[doc / BLOCK / 64] |= (uint64_t)1 << (doc / BLOCK % 64);
    }
}

static void add(const pe_find *f, const pe_leaf *l, uint32_t window, uint64_t *touched)
{
    uint32_t base = window << PE_WINDOW_SHIFT;
    if (!f->classes || (l->at.list.encoding != PE_ENC_U4 && l->at.list.encoding != PE_ENC_U8))
        add_any(f, l, base, touched);
    else if (l->at.list.encoding == PE_ENC_U4 && touched)
        add_run(f, l, f->classes + base, PE_ENC_U4, touched);
    else if (l->at.list.encoding == PE_ENC_U4)
        add_run(f, l, f->classes + base, PE_ENC_U4, NULL);
    else if (touched)
        add_run(f, l, f->classes + base, PE_ENC_U8, touched);
    else
        add_run(f, l, f->classes + base, PE_ENC_U8, NULL);
}

void pe_scan_add(pe_find *f, const pe_leaf *l, uint32_t window)
{
    add(f, l, window, NULL);
}

/* ---- looking up ---- */

/* The posting of a document; 1 if there is one. Documents are asked for in ascending order. Local
 * numbers lie about evenly in a run: the place that this suggests is galloped from, up or down. */
static int find_posting(pe_leaf *l, uint32_t local, uint32_t *posting)
{
    const uint16_t *ids = l->at.list.ids + l->at.first;
    uint32_t low = l->seen, n = l->n, step = 1, high;
    uint32_t guess = low + (local > ids[low] ? (local - ids[low]) * n >> PE_WINDOW_SHIFT : 0);
    guess = guess < n ? guess : n - 1;
    if (ids[guess] <= local) {
        low = guess;
        while (low + step < n && ids[low + step] <= local) {
            low += step;
            step *= 2;
        }
        high = low + step < n ? low + step : n;
    } else {
        high = guess;
        while (high > low + step && ids[high - step] > local) {
            high -= step;
            step *= 2;
        }
        low = high > low + step ? high - step : low;
    }
    while (high - low > 1) { /* without a branch that guesses */
        uint32_t half = (high - low) / 2;
        int right = ids[low + half] <= local;
        low = right ? low + half : low;
        high = right ? high : low + half;
    }
    l->seen = low;
    *posting = l->at.first + low;
    return ids[low] == local;
}

/* A document has `sum` of the leaves order[first...]; `rest` is the bound of those before, which
 * are looked up from the heaviest down while it can still get in. */
static void consider(pe_find *f, uint32_t window, uint32_t local, int32_t sum, uint32_t first,
                     int32_t rest)
{
    uint32_t doc = (window << PE_WINDOW_SHIFT) + local, posting;
    if (!pe_find_allowed(f, doc))
        return;
    for (uint32_t i = first; i-- > 0;) {
        if (sum + rest < f->need)
            return;
        pe_leaf *l = &f->s->leaves[f->s->order[i]];
        rest -= l->bound;
        if (find_posting(l, local, &posting))
            sum += pe_find_part(f, l, posting, doc);
    }
    if (sum >= f->need)
        pe_find_push(f, sum, doc);
}

/* ---- OR ---- */

static void order_by_bound(pe_find *f, uint32_t n)
{
    uint32_t *order = f->s->order;
    const pe_leaf *leaves = f->s->leaves;
    for (uint32_t i = 1; i < n; i++) {
        uint32_t leaf = order[i], j = i;
        for (; j > 0 && leaves[order[j - 1]].bound > leaves[leaf].bound; j--)
            order[j] = order[j - 1];
        order[j] = leaf;
    }
}

/* One list brings documents in: no sums are needed. */
static void scan_one(pe_find *f, uint32_t window, uint32_t first, int32_t rest)
{
    const pe_leaf *l = &f->s->leaves[f->s->order[first]];
    const uint16_t *ids = l->at.list.ids;
    uint32_t base = window << PE_WINDOW_SHIFT;
    for (uint32_t i = l->at.first; i < l->at.first + l->n; i++) {
        int32_t sum = pe_find_part(f, l, i, base + ids[i]);
        if (sum + rest >= f->need)
            consider(f, window, ids[i], sum, first, rest);
    }
}

/* Blocks of the window: a bit each. */
typedef struct blocks {
    uint64_t bits[BLOCKS / 64];
} blocks;

/* How many of a block's sums are `cut` or more, which is above 0: the difference is negative then,
 * which all machines can count four at a time. */
static inline uint32_t count_block(const int32_t *sums, int32_t cut)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < BLOCK; i++)
        n += (uint32_t)(cut - 1 - sums[i]) >> 31;
    return n;
}

/* The documents that may get in when `rest` is added, in blocks that have any; *hot gets these. */
static uint32_t count_near(const pe_find *f, const blocks *touched, int32_t rest, blocks *hot)
{
    uint32_t near = 0;
    memset(hot, 0, sizeof *hot);
    for (uint32_t word = 0; word < BLOCKS / 64; word++)
        for (uint64_t t = touched->bits[word]; t; t &= t - 1) {
            uint32_t block = word * 64 + (uint32_t)__builtin_ctzll(t);
            uint32_t n = count_block(f->s->sums + (size_t)block * BLOCK, f->need - rest);
            near += n;
            hot->bits[word] |= n ? t & -t : 0;
        }
    return near;
}

/* Eight sums at a time: most are too small. */
static void consider_block(pe_find *f, uint32_t window, uint32_t from, uint32_t first, int32_t rest)
{
    enum { GROUP = 8 };
    const int32_t *sums = f->s->sums;
    for (uint32_t doc = from; doc < from + BLOCK; doc += GROUP) {
        int32_t cut = f->need - rest, any = 0;
        for (uint32_t i = doc; i < doc + GROUP; i++)
            any |= cut - 1 - sums[i];
        for (uint32_t i = doc; any < 0 && i < doc + GROUP; i++)
            if (sums[i] && sums[i] + rest >= f->need)
                consider(f, window, i, sums[i], first, rest);
    }
}

static void consider_blocks(pe_find *f, uint32_t window, const blocks *hot, uint32_t first,
                            int32_t rest)
{
    for (uint32_t word = 0; word < BLOCKS / 64; word++)
        for (uint64_t t = hot->bits[word]; t; t &= t - 1)
            consider_block(f, window, (word * 64 + (uint32_t)__builtin_ctzll(t)) * BLOCK, first,
                           rest);
}

/* Kept apart: with a size that it can see gcc clears a block by `rep stos`, which was a fifth of
 * the time of a query. */
static __attribute__((noinline)) void clear(int32_t *sums, size_t n)
{
    memset(sums, 0, n * sizeof *sums);
}

static void clear_blocks(pe_find *f, const blocks *touched)
{
    for (uint32_t word = 0; word < BLOCKS / 64; word++) {
        int32_t *sums = f->s->sums + (size_t)word * 64 * BLOCK;
        if (touched->bits[word] == UINT64_MAX)
            clear(sums, 64 * BLOCK);
        else
            for (uint64_t t = touched->bits[word]; t; t &= t - 1)
                clear(sums + (size_t)__builtin_ctzll(t) * BLOCK, BLOCK);
    }
}

/* Add up the leaves order[first..n). Where that brings many documents near enough, adding the next
 * leaf, too, costs less than looking it up for each of them. */
static void scan_sums(pe_find *f, uint32_t window, uint32_t first, uint32_t n, int32_t rest)
{
    enum { LOOKED_UP = 12 }; /* postings added in the time of a look-up */
    const pe_leaf *leaves = f->s->leaves;
    const uint32_t *order = f->s->order;
    uint32_t postings = 0, near;
    blocks touched = {{0}}, hot;
    for (uint32_t i = first; i < n; i++)
        postings += leaves[order[i]].n;
    int sparse = postings < SPARSE;
    if (!sparse)
        memset(&touched, 0xff, sizeof touched);
    for (uint32_t i = first; i < n; i++)
        add(f, &leaves[order[i]], window, sparse ? touched.bits : NULL);
    while ((near = count_near(f, &touched, rest, &hot)) != 0) {
        if (first == 0 || near < leaves[order[first - 1]].n / LOOKED_UP) {
            consider_blocks(f, window, &hot, first, rest);
            break;
        }
        first--;
        rest -= leaves[order[first]].bound;
        add(f, &leaves[order[first]], window, touched.bits);
    }
    clear_blocks(f, &touched);
}

/* Whether the list that brings documents in is short against those that are looked up for them. */
static int lone_leaf(const pe_find *f, uint32_t first)
{
    enum { SHORTER = 4 };
    const pe_leaf *leaves = f->s->leaves;
    const uint32_t *order = f->s->order;
    return first == 0 || leaves[order[first]].n < leaves[order[first - 1]].n / SHORTER;
}

/* Whether a filter leaves so few documents of the window that looking them up is less work than
 * walking the window's postings. */
static int few_allowed(const pe_find *f, uint32_t window, uint32_t n)
{
    enum { WALKED = 8 }; /* postings walked in the time of a look-up */
    if (!f->accepted || n > PRUNED_LEAVES)
        return 0;
    const uint64_t *bits = f->accepted + (size_t)window * PE_PAGE_WORDS;
    uint32_t allowed = 0, postings = 0;
    for (unsigned i = 0; i < PE_PAGE_WORDS; i++)
        allowed += (uint32_t)__builtin_popcountll(bits[i]);
    for (uint32_t i = 0; i < n; i++)
        postings += f->s->leaves[f->s->order[i]].n;
    return allowed < postings / WALKED;
}

static void scan_allowed(pe_find *f, uint32_t window, uint32_t n, int32_t bound)
{
    const uint64_t *bits = f->accepted + (size_t)window * PE_PAGE_WORDS;
    for (uint32_t word = 0; word < PE_PAGE_WORDS; word++)
        for (uint64_t rest = bits[word]; rest; rest &= rest - 1)
            consider(f, window, word * 64 + (uint32_t)__builtin_ctzll(rest), 0, n, bound);
}

void pe_scan_any(pe_find *f)
{
    uint32_t windows = pe_part_windows(f->part);
    for (uint32_t window = 0; window < windows; window++) {
        int64_t bound;
        if (pe_find_barred(f, window))
            continue;
        uint32_t n = pe_find_window(f, window, &bound), first = 0;
        if (n == 0 || bound < f->need)
            continue;
        int32_t rest = 0;
        if (n <= PRUNED_LEAVES) {
            order_by_bound(f, n);
            for (; rest + f->s->leaves[f->s->order[first]].bound < f->need; first++)
                rest += f->s->leaves[f->s->order[first]].bound;
        }
        if (few_allowed(f, window, n))
            scan_allowed(f, window, n, (int32_t)bound);
        else if (first + 1 == n && lone_leaf(f, first))
            scan_one(f, window, first, rest);
        else
            scan_sums(f, window, first, n, rest);
    }
}

/* ---- AND ---- */

static void order_by_postings(pe_find *f, uint32_t n)
{
    uint32_t *order = f->s->order;
    const pe_leaf *leaves = f->s->leaves;
    for (uint32_t i = 1; i < n; i++) {
        uint32_t leaf = order[i], j = i;
        for (; j > 0 && leaves[order[j - 1]].n > leaves[leaf].n; j--)
            order[j] = order[j - 1];
        order[j] = leaf;
    }
}

static void intersect(pe_find *f, uint32_t window, uint32_t n, int64_t bound)
{
    pe_text_scratch *s = f->s;
    const pe_leaf *lead = &s->leaves[s->order[0]];
    const uint16_t *ids = lead->at.list.ids;
    for (uint32_t i = lead->at.first; i < lead->at.first + lead->n; i++) {
        uint32_t doc = (window << PE_WINDOW_SHIFT) + ids[i], posting, found = 1;
        if (!pe_find_allowed(f, doc))
            continue;
        int32_t sum = pe_find_part(f, lead, i, doc);
        int64_t rest = bound - lead->bound;
        for (; found < n && sum + rest >= f->need; found++) {
            pe_leaf *l = &s->leaves[s->order[found]];
            if (!find_posting(l, ids[i], &posting))
                break;
            sum += pe_find_part(f, l, posting, doc);
            rest -= l->bound;
        }
        if (found == n && sum >= f->need)
            pe_find_push(f, sum, doc);
    }
}

void pe_scan_all(pe_find *f)
{
    uint32_t windows = pe_part_windows(f->part);
    for (uint32_t window = 0; window < windows; window++) {
        int64_t bound;
        if (pe_find_barred(f, window))
            continue;
        uint32_t n = pe_find_window(f, window, &bound);
        if (n < f->s->n_leaves || bound < f->need)
            continue;
        order_by_postings(f, n);
        intersect(f, window, n, bound);
    }
}
