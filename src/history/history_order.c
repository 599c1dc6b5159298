/* Keys in order, when somebody asks: sorted runs, merged as they grow alike. A put of a new key
 * only notes its place; the next ordered scan sorts what came since the last one into a run, and
 * runs that are not at least twice as long as the next are merged, so that each key is merged
 * about log n times in all. (A skip list kept at every put was the alternative: it costs the load
 * of a million keys about as much as all else together.) */
#include "history/history_parts.h"

typedef struct sorter {
    const pe_history *h;
    const pe_view *v;
    peri_status status; /* of the first key that could not be read */
    int verified;       /* the keys at hand have just been: do not hash them at each comparison */
} sorter;

uint64_t pe_key_prefix(peri_slice key)
{
    unsigned char b[8] = {0};
    memcpy(b, key.data, key.size < 8 ? key.size : 8);
    uint64_t p = 0;
    for (unsigned i = 0; i < 8; i++)
        p = p << 8 | b[i];
    return p;
}

static int compare_keys(peri_slice a, peri_slice b)
{
    int c = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

static peri_slice key_of(sorter *s, uint64_t place)
{
    peri_slice key = {"", 0};
    peri_status status = pe_view_key(s->h, s->v, place, !s->verified, &key);
    if (status != PERI_OK && s->status == PERI_OK)
        s->status = status;
    return key;
}

/* Short keys end in zeros in the prefix, so an equal prefix decides nothing. */
static int compare(sorter *s, pe_entry a, pe_entry b)
{
    if (a.prefix != b.prefix)
        return a.prefix < b.prefix ? -1 : 1;
    return a.place == b.place ? 0 : compare_keys(key_of(s, a.place), key_of(s, b.place));
}

/* Merge two sorted stretches; of equal keys the one of `a` stays. Returns the length. */
static size_t merge(sorter *s, const pe_entry *a, size_t n_a, const pe_entry *b, size_t n_b,
                    pe_entry *out)
{
    size_t n = 0;
    while (n_a && n_b) {
        int c = compare(s, *a, *b);
        if (c <= 0) {
            out[n++] = *a++;
            n_a--;
            if (c == 0) {
                b++;
                n_b--;
            }
        } else {
            out[n++] = *b++;
            n_b--;
        }
    }
    memcpy(out + n, a, n_a * sizeof *a);
    memmove(out + n + n_a, b, n_b * sizeof *b); /* sort() merges into the array that b is in */
    return n + n_a + n_b;
}

static size_t sort(sorter *s, pe_entry *e, size_t n, pe_entry *room)
{
    if (n <= 8) {
        for (size_t i = 1; i < n; i++) {
            pe_entry x = e[i];
            size_t k = i;
            for (; k > 0 && compare(s, x, e[k - 1]) < 0; k--)
                e[k] = e[k - 1];
            e[k] = x;
        }
        return n;
    }
    size_t half = n / 2;
    size_t a = sort(s, e, half, room), b = sort(s, e + half, n - half, room);
    memcpy(room, e, a * sizeof *e);
    return merge(s, room, a, e + half, b, e); /* never passes what is still to be read of b */
}

static void drop_run(pe_history *h, pe_run *r)
{
    if (!r->borrowed)
        pe_free(&h->host, r->entries, r->n * sizeof *r->entries);
    memset(r, 0, sizeof *r);
}

void pe_order_reset(pe_history *h)
{
    while (h->n_runs)
        drop_run(h, &h->runs[--h->n_runs]);
    h->order_begun = 0;
    h->recent_taken = 0;
    atomic_store(&h->n_recent, 0);
}

void pe_order_begin(pe_history *h, pe_segr *segment)
{
    const pe_section *s = pe_segr_find(segment, PE_TAG_ORDER);
    pe_order_reset(h);
    if (!s || s->size % sizeof(pe_entry) || s->size / sizeof(pe_entry) != atomic_load(&h->keys) ||
        pe_segr_verify(segment, s) != PERI_OK)
        return; /* it will be sorted out of the table */
    h->runs[h->n_runs++] =
        (pe_run){(pe_entry *)(void *)s->data, (size_t)(s->size / sizeof(pe_entry)), 1};
    h->order_begun = 1;
}

peri_status pe_order_reserve(pe_history *h, size_t n)
{
    return pe_array_reserve(&h->recent, &h->epoch, atomic_load(&h->n_recent) + n, 0);
}

void pe_order_add(pe_history *h, uint64_t place)
{
    size_t n = atomic_load_explicit(&h->n_recent, memory_order_relaxed);
    memcpy(pe_array_at(&h->recent, n), &place, sizeof place);
    atomic_store_explicit(&h->n_recent, n + 1, memory_order_release);
}

/* ---- runs, under `order` ---- */

/* Entries made of places; exact memory, since a run is freed by its length. */
static peri_status make_run(pe_history *h, sorter *s, pe_entry *e, size_t n)
{
    pe_entry *room = pe_alloc(&h->host, (n + 1) * sizeof *room);
    if (!room)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        e[i].prefix = pe_key_prefix(key_of(s, e[i].place));
    s->verified = s->status == PERI_OK;
    size_t kept = sort(s, e, n, room);
    s->verified = 0;
    pe_free(&h->host, room, (n + 1) * sizeof *room);
    PE_TRY(s->status);
    pe_entry *exact = pe_alloc(&h->host, kept * sizeof *exact);
    if (!exact)
        return PERI_ERR_NOMEM;
    memcpy(exact, e, kept * sizeof *exact);
    h->runs[h->n_runs++] = (pe_run){exact, kept, 0};
    return PERI_OK;
}

static peri_status merge_last_two(pe_history *h, sorter *s)
{
    pe_run *a = &h->runs[h->n_runs - 2], *b = a + 1;
    size_t room = a->n + b->n;
    pe_entry *e = pe_alloc(&h->host, room * sizeof *e);
    if (!e)
        return PERI_ERR_NOMEM;
    size_t n = merge(s, a->entries, a->n, b->entries, b->n, e);
    if (s->status == PERI_OK && n != room) {
        pe_entry *exact = pe_alloc(&h->host, n * sizeof *exact);
        if (exact)
            memcpy(exact, e, n * sizeof *exact);
        else
            s->status = PERI_ERR_NOMEM;
        pe_free(&h->host, e, room * sizeof *e);
        e = exact;
    }
    if (s->status != PERI_OK) {
        pe_free(&h->host, e, e ? n * sizeof *e : 0);
        return s->status;
    }
    drop_run(h, b);
    drop_run(h, a);
    h->n_runs--;
    *a = (pe_run){e, n, 0};
    return PERI_OK;
}

/* All keys of the table, those that came while we looked included or not: they are recent too. */
static peri_status begin(pe_history *h, sorter *s)
{
    size_t n = 0, room = (size_t)atomic_load(&h->keys) + 1024;
    const pe_table *t = s->v->table;
    size_t recent = atomic_load_explicit(&h->n_recent, memory_order_acquire);
    pe_entry *e = pe_alloc(&h->host, room * sizeof *e);
    if (!e)
        return PERI_ERR_NOMEM;
    for (uint64_t i = 0; i <= t->mask && n < room; i++) {
        uint64_t place = atomic_load_explicit(&t->slots[i].place, memory_order_acquire);
        if (place)
            e[n++].place = place;
    }
    peri_status status = n < room ? PERI_OK : PERI_ERR_BUSY; /* a thousand keys came meanwhile */
    if (status == PERI_OK && n)
        status = make_run(h, s, e, n);
    pe_free(&h->host, e, room * sizeof *e);
    if (status == PERI_OK) {
        h->order_begun = 1;
        h->recent_taken = recent;
    }
    return status;
}

static peri_status take_recent(pe_history *h, sorter *s)
{
    size_t all = atomic_load_explicit(&h->n_recent, memory_order_acquire);
    size_t n = all - h->recent_taken;
    if (n == 0)
        return PERI_OK;
    pe_entry *e = pe_alloc(&h->host, n * sizeof *e);
    if (!e)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        memcpy(&e[i].place, pe_array_at(&h->recent, h->recent_taken + i), 8);
    peri_status status = make_run(h, s, e, n);
    pe_free(&h->host, e, n * sizeof *e);
    if (status == PERI_OK)
        h->recent_taken = all;
    return status;
}

static peri_status bring_up(pe_history *h, sorter *s)
{
    peri_status status = PERI_ERR_BUSY;
    while (!h->order_begun && status == PERI_ERR_BUSY)
        status = begin(h, s);
    if (!h->order_begun)
        return status;
    PE_TRY(take_recent(h, s));
    while (h->n_runs > 1 &&
           (h->runs[h->n_runs - 2].n < 2 * h->runs[h->n_runs - 1].n || h->n_runs == PE_RUNS))
        PE_TRY(merge_last_two(h, s));
    return PERI_OK;
}

peri_status pe_order_all(pe_history *h, const pe_view *v)
{
    sorter s = {h, v, PERI_OK, 0};
    PE_TRY(bring_up(h, &s));
    while (h->n_runs > 1)
        PE_TRY(merge_last_two(h, &s));
    return PERI_OK;
}

/* ---- scans ---- */

enum { CHUNK = 512 };

static int begins_with(peri_slice key, peri_slice prefix)
{
    return key.size >= prefix.size && memcmp(key.data, prefix.data, prefix.size) == 0;
}

/* The first entry at or behind a key. */
static size_t lower_bound(sorter *s, const pe_run *r, peri_slice key, int after)
{
    size_t low = 0, high = r->n;
    uint64_t prefix = pe_key_prefix(key);
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = r->entries[mid].prefix < prefix ? -1
                : r->entries[mid].prefix > prefix
                    ? 1
                    : compare_keys(key_of(s, r->entries[mid].place), key);
        if (c < 0 || (c == 0 && after))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Up to CHUNK keys from a point on, out of all runs. */
static peri_status gather(pe_history *h, const pe_view *v, peri_slice prefix, peri_slice from,
                          int after, uint64_t out[CHUNK], size_t *n, int *more)
{
    sorter s = {h, v, PERI_OK, 0};
    size_t at[PE_RUNS];
    *n = 0;
    *more = 0;
    PE_TRY(bring_up(h, &s));
    for (unsigned r = 0; r < h->n_runs; r++)
        at[r] = from.size ? lower_bound(&s, &h->runs[r], from, after) : 0;
    for (;;) {
        int best = -1;
        for (unsigned r = 0; r < h->n_runs; r++) {
            if (at[r] == h->runs[r].n)
                continue;
            int c = best < 0
                        ? -1
                        : compare(&s, h->runs[r].entries[at[r]], h->runs[best].entries[at[best]]);
            if (c < 0)
                best = (int)r;
            else if (c == 0)
                at[r]++;
        }
        if (best < 0 || s.status != PERI_OK)
            return s.status;
        uint64_t place = h->runs[best].entries[at[best]++].place;
        if (prefix.size && !begins_with(key_of(&s, place), prefix))
            return s.status;
        if (*n == CHUNK) {
            *more = 1;
            return PERI_OK;
        }
        out[(*n)++] = place;
    }
}

static peri_status give(pe_read *r, uint64_t place, int deleted, pe_scan_fn fn, void *ctx,
                        peri_slice *key)
{
    pe_version v;
    PE_TRY(pe_view_key(r->history, r->view, place, 1, key));
    peri_status status = pe_read_version(r, *key, &v);
    if (status == PERI_ERR_NOT_FOUND)
        return PERI_OK; /* came later than this read */
    PE_TRY(status);
    return v.kind == PE_OP_DELETE && !deleted ? PERI_OK : fn(ctx, &v);
}

peri_status pe_read_scan(pe_read *r, peri_slice prefix, peri_slice after, int deleted,
                         pe_scan_fn fn, void *ctx)
{
    pe_history *h = (pe_history *)(uintptr_t)r->history;
    uint64_t places[CHUNK];
    size_t n = 0;
    int more = 1, behind = after.data != NULL;
    peri_slice from = prefix;
    if (behind && (prefix.size == 0 || compare_keys(after, prefix) >= 0))
        from = after;
    else
        behind = 0;
    while (more) {
        if (!pe_forked(&h->mark))
            pthread_mutex_lock(&h->order);
        else if (pthread_mutex_trylock(&h->order) != 0)
            return pe_fail(PERI_ERR_FORKED, "%s: keys were being sorted when the process forked",
                           h->journal->dir);
        /* Places are resolved under the view that the runs belong to; compaction changes both
         * under this lock. */
        r->view = atomic_load_explicit(&h->view, memory_order_acquire);
        /* A compaction that came between may have given up what this read began with. */
        if (r->as_of < atomic_load(&h->horizon))
            r->as_of = atomic_load_explicit(&h->published, memory_order_acquire);
        peri_status status = gather(h, r->view, prefix, from, behind, places, &n, &more);
        pthread_mutex_unlock(&h->order);
        PE_TRY(status);
        for (size_t i = 0; i < n; i++)
            PE_TRY(give(r, places[i], deleted, fn, ctx, &from));
        behind = 1;
    }
    return PERI_OK;
}
