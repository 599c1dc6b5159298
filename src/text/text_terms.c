/* The dictionary. Names are in pe_keys, which answers both ways; for prefixes there is a sorted
 * list of numbers beside it, made anew when a sixteenth of all names are not in it. Those few are
 * looked at one by one. */
#include "text/text.h"

#include <stdlib.h>

enum { UNSORTED_FEW = 4096, UNSORTED_PART = 16, RETIRES_BY_KEYS = 64 };

peri_status pe_text_number(peri_text *ix, const char *text, size_t size, uint32_t *term)
{
    uint64_t id;
    peri_slice name = {text, size};
    if (!pe_keys_find(ix->terms, name, &id)) {
        if (ix->next_term == UINT32_MAX)
            return pe_fail(PERI_ERR_FULL, "%u distinct terms", ix->next_term);
        PE_TRY(pe_keys_reserve(ix->terms, 1, size));
        id = ix->next_term;
        atomic_store_explicit(&ix->next_term, ix->next_term + 1, memory_order_release);
        pe_keys_set(ix->terms, name, id);
    }
    *term = (uint32_t)id;
    return PERI_OK;
}

/* ---- order ---- */

/* A name's first eight bytes decide nearly always. */
typedef struct named {
    uint64_t head;
    uint32_t term, size;
    const unsigned char *name;
} named;

static int compare_names(const void *a, const void *b)
{
    const named *x = a, *y = b;
    if (x->head != y->head)
        return x->head < y->head ? -1 : 1;
    size_t n = x->size < y->size ? x->size : y->size;
    int order = memcmp(x->name, y->name, n);
    return order ? order : x->size < y->size ? -1 : x->size > y->size;
}

static size_t sorted_bytes(size_t n)
{
    return sizeof(pe_sorted) + n * sizeof(uint32_t);
}

void pe_sorted_free(pe_host *host, pe_sorted *s)
{
    if (s)
        pe_free(host, s, sorted_bytes(s->n));
}

peri_status pe_sorted_alloc(pe_host *host, size_t n, pe_sorted **out)
{
    *out = pe_alloc(host, sorted_bytes(n));
    if (!*out)
        return PERI_ERR_NOMEM;
    (*out)->n = (uint32_t)n;
    return PERI_OK;
}

/* All names in order. */
static void name_terms(const peri_text *ix, named *out, pe_sorted *s)
{
    size_t n = 0;
    uint64_t id;
    peri_slice name;
    for (size_t cursor = 0; pe_keys_next(ix->terms, &cursor, &id, &name); n++) {
        unsigned char head[8] = {0};
        memcpy(head, name.data, name.size < 8 ? name.size : 8);
        uint64_t number = 0;
        for (int i = 0; i < 8; i++)
            number = number << 8 | head[i];
        out[n] = (named){number, (uint32_t)id, (uint32_t)name.size, name.data};
    }
    qsort(out, n, sizeof *out, compare_names);
    for (uint32_t i = 0; i < n; i++)
        s->terms[i] = out[i].term;
    s->upto = ix->next_term;
}

static peri_status sort_anew(peri_text *ix)
{
    size_t count = pe_keys_count(ix->terms), room = count ? count : 1;
    pe_sorted *s = NULL, *old = atomic_load_explicit(&ix->sorted, memory_order_relaxed);
    PE_TRY(pe_epoch_reserve(&ix->epoch, 1));
    named *names = pe_alloc(&ix->host, room * sizeof *names);
    peri_status status = names ? pe_sorted_alloc(&ix->host, count, &s) : PERI_ERR_NOMEM;
    if (status == PERI_OK) {
        name_terms(ix, names, s);
        atomic_store_explicit(&ix->sorted, s, memory_order_release);
        if (old)
            pe_epoch_retire_memory(&ix->epoch, old, sorted_bytes(old->n));
    }
    pe_free(&ix->host, names, room * sizeof *names);
    return status;
}

peri_status pe_text_sort_terms(peri_text *ix, int now)
{
    const pe_sorted *s = atomic_load_explicit(&ix->sorted, memory_order_relaxed);
    uint32_t have = s ? s->upto : 0, fresh = ix->next_term - have;
    if (s && fresh == 0)
        return PERI_OK;
    if (!now && (fresh < UNSORTED_FEW || fresh < have / UNSORTED_PART))
        return PERI_OK;
    return sort_anew(ix);
}

static int has_term(const uint32_t *terms, uint32_t n, uint64_t term)
{
    uint32_t low = 0;
    for (uint32_t half; n > 1; n -= half) {
        half = n / 2;
        low = terms[low + half] <= term ? low + half : low;
    }
    return n == 1 && terms[low] == term;
}

/* The numbers of names that no list has, of one sealed segment's or of none. */
static size_t unused_terms(const peri_text *ix, const pe_snapshot *s, uint32_t *out)
{
    const pe_segment *g = s->n_parts ? s->parts[0].segment : NULL;
    size_t n = 0;
    uint64_t id;
    peri_slice name;
    for (size_t cursor = 0; pe_keys_next(ix->terms, &cursor, &id, &name);)
        if (!g || !has_term(pe_segment_terms(g, PE_SET_ALL), g->n_terms[PE_SET_ALL], id))
            out[n++] = (uint32_t)id;
    return n;
}

peri_status pe_text_forget_terms(peri_text *ix)
{
    const pe_snapshot *s = pe_postings_now(&ix->postings);
    if (s->n_parts > 1 || (s->n_parts == 1 && s->parts[0].segment->active))
        return PERI_OK; /* not merged into one: who has what is not known */
    size_t room = pe_keys_count(ix->terms) + 1;
    uint32_t *unused = pe_alloc(&ix->host, room * sizeof *unused);
    if (!unused)
        return PERI_ERR_NOMEM;
    size_t n = unused_terms(ix, s, unused);
    peri_status status = PERI_OK;
    for (size_t i = 0; i < n && status == PERI_OK; i++) {
        char copy[PE_TERM_MAX];
        peri_slice name = {copy, 0};
        if (!pe_keys_key_of(ix->terms, unused[i], &name))
            continue;
        memcpy(copy, name.data, name.size);
        status = pe_epoch_reserve(&ix->epoch, RETIRES_BY_KEYS);
        if (status == PERI_OK)
            pe_keys_remove(ix->terms, (peri_slice){copy, name.size});
    }
    pe_free(&ix->host, unused, room * sizeof *unused);
    PE_TRY(status);
    PE_TRY(pe_keys_compact(ix->terms));
    return n ? sort_anew(ix) : pe_text_sort_terms(ix, 1);
}

/* ---- prefixes ---- */

/* How a name compares with a prefix: 0 when it begins so. */
static int compare_prefix(const peri_text *ix, uint32_t term, const char *text, size_t size)
{
    peri_slice name;
    if (!pe_keys_key_of(ix->terms, term, &name))
        return 1; /* forgotten meanwhile; its place in the order does not matter to the others */
    int order = memcmp(name.data, text, name.size < size ? name.size : size);
    return order ? order : name.size < size ? -1 : 0;
}

peri_status pe_text_with_prefix(const peri_text *ix, const char *text, size_t size, pe_term_fn fn,
                                void *ctx)
{
    const pe_sorted *s = atomic_load_explicit(&ix->sorted, memory_order_acquire);
    uint32_t low = 0, high = s ? s->n : 0, term = s ? s->upto : 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (compare_prefix(ix, s->terms[middle], text, size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; s && low < s->n && compare_prefix(ix, s->terms[low], text, size) == 0; low++)
        PE_TRY(fn(ctx, s->terms[low]));
    uint32_t end = atomic_load_explicit(&ix->next_term, memory_order_acquire);
    for (; term < end; term++)
        if (compare_prefix(ix, term, text, size) == 0)
            PE_TRY(fn(ctx, term));
    return PERI_OK;
}
