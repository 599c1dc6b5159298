/* Reading: segments, their lists, snapshots of them, filters. */
#include "postings/postings_parts.h"
#include "base/rng.h"

#include <math.h>

uint16_t pe_bound_up(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0x7fffffff;
    return (uint16_t)((bits + 0xffff) >> 16);
}

/* ---- segments ---- */

peri_status pe_segment_create(pe_postings *p, pe_segment **out)
{
    pe_segment *s = *out = pe_calloc(p->host, sizeof *s);
    if (!s)
        return PERI_ERR_NOMEM;
    s->host = p->host;
    s->serial = ++p->serial;
    return PERI_OK;
}

peri_status pe_column_alloc(pe_postings *p, pe_segment *s, pe_column_name name, uint64_t size)
{
    pe_column *c = &s->columns[name];
    if (size == 0)
        return PERI_OK;
    c->data = pe_alloc_aligned(p->host, (size_t)size, size >= PE_HUGE ? PE_HUGE : PE_ALIGN);
    if (!c->data)
        return PERI_ERR_NOMEM;
    c->size = size;
    return PERI_OK;
}

static size_t map_slots(uint32_t docs)
{
    size_t slots = 16;
    while (slots < (size_t)docs * 2)
        slots *= 2;
    return slots;
}

/* Ids that are numbered onwards from the first need neither a map nor a column. */
static int is_numbered(pe_segment *s)
{
    pe_column *c = &s->columns[PE_COL_IDS];
    const uint64_t *ids = c->data;
    uint32_t doc = 0;
    if (c->size == sizeof *ids)
        return ids[0] <= UINT64_MAX - (s->docs - 1);
    while (doc < s->docs && ids[doc] - ids[0] == doc)
        doc++;
    if (doc < s->docs || ids[0] > UINT64_MAX - (s->docs - 1))
        return 0;
    uint64_t *first = s->borrowed ? NULL : pe_alloc(s->host, sizeof *first);
    if (first) {
        *first = ids[0];
        pe_free(s->host, c->data, (size_t)c->size);
        *c = (pe_column){first, sizeof *first};
    }
    return 1;
}

peri_status pe_segment_index(pe_segment *s)
{
    uint32_t doc;
    if (is_numbered(s))
        return PERI_OK;
    const uint64_t *ids = s->columns[PE_COL_IDS].data;
    if (s->columns[PE_COL_IDS].size != s->docs * sizeof *ids)
        return pe_fail(PERI_ERR_CORRUPT, "%u ids from %llu on", s->docs,
                       (unsigned long long)ids[0]);
    size_t slots = map_slots(s->docs);
    s->map = pe_calloc(s->host, slots * sizeof *s->map);
    if (!s->map)
        return PERI_ERR_NOMEM;
    s->map_mask = (uint32_t)(slots - 1);
    for (doc = 0; doc < s->docs; doc++) {
        uint64_t i = pe_mix64(ids[doc]);
        for (; s->map[i & s->map_mask]; i++)
            if (ids[s->map[i & s->map_mask] - 1] == ids[doc])
                return pe_fail(PERI_ERR_CORRUPT, "id %llu stands twice in one segment",
                               (unsigned long long)ids[doc]);
        s->map[i & s->map_mask] = doc + 1;
    }
    return PERI_OK;
}

uint32_t pe_segment_find(const pe_segment *s, uint64_t id)
{
    const uint64_t *ids = s->columns[PE_COL_IDS].data;
    if (!s->map)
        return s->docs && id - ids[0] < s->docs ? (uint32_t)(id - ids[0]) : UINT32_MAX;
    for (uint64_t i = pe_mix64(id);; i++) {
        uint32_t doc = s->map[i & s->map_mask];
        if (doc == 0 || ids[doc - 1] == id)
            return doc - 1;
    }
}

void pe_segment_destroy(pe_segment *s)
{
    if (!s)
        return;
    pe_active_destroy(s->active);
    for (int c = 0; c < PE_COLUMNS && !s->borrowed; c++)
        pe_free(s->host, s->columns[c].data, (size_t)s->columns[c].size);
    pe_free(s->host, s->map, s->map ? ((size_t)s->map_mask + 1) * sizeof *s->map : 0);
    pe_free(s->host, s, sizeof *s);
}

void pe_segment_retire(void *owner, void *ptr, uint64_t arg)
{
    (void)owner, (void)arg;
    pe_segment_destroy(ptr);
}

/* ---- documents ---- */

uint64_t pe_part_id(const pe_part *p, uint32_t doc)
{
    const pe_segment *s = p->segment;
    const uint64_t *ids = s->columns[PE_COL_IDS].data;
    return s->active ? s->active->ids[doc] : s->map ? ids[doc] : ids[0] + doc;
}

uint32_t pe_part_length(const pe_part *p, uint32_t doc)
{
    const pe_segment *s = p->segment;
    return s->active ? s->active->lengths[doc]
                     : ((const uint32_t *)s->columns[PE_COL_LENGTHS].data)[doc];
}

const void *pe_part_own(const pe_part *p, uint32_t doc)
{
    return p->segment->active->own[doc];
}

/* In the active segment an id may have had several documents, and a snapshot may be older than the
 * latest: follow them back. */
static uint32_t find_in_part(const pe_part *p, uint64_t id)
{
    const pe_active *a = p->segment->active;
    if (!a) {
        uint32_t doc = pe_segment_find(p->segment, id);
        return doc != UINT32_MAX && pe_part_alive(p, doc) ? doc : UINT32_MAX;
    }
    for (uint32_t doc = pe_active_latest(a, id); doc != UINT32_MAX; doc = a->former[doc] - 1u)
        if (doc < p->docs)
            return pe_part_alive(p, doc) ? doc : UINT32_MAX;
    return UINT32_MAX;
}

int pe_snapshot_find(const pe_snapshot *s, uint64_t id, uint32_t *part, uint32_t *doc)
{
    for (uint32_t i = s->n_parts; i-- > 0;) {
        *doc = find_in_part(&s->parts[i], id);
        if (*doc == UINT32_MAX)
            continue;
        *part = i;
        return 1;
    }
    return 0;
}

/* ---- lists ---- */

static uint32_t find_sealed_term(const uint32_t *terms, uint32_t n, uint32_t term)
{
    uint32_t low = 0;
    while (n > 1) { /* without a branch that guesses */
        uint32_t half = n / 2;
        low = terms[low + half] <= term ? low + half : low;
        n -= half;
    }
    return n == 1 && terms[low] == term ? low : UINT32_MAX;
}

static void sealed_list(const pe_segment *s, int set, uint32_t at, pe_list *out)
{
    const pe_head *h = (const pe_head *)s->columns[pe_set_column(set, PE_COL_HEADS)].data + at;
    const pe_column *locals = &s->columns[pe_set_column(set, PE_COL_LOCALS)];
    const pe_column *values = &s->columns[pe_set_column(set, PE_COL_VALUES)];
    const pe_column *runs = &s->columns[pe_set_column(set, PE_COL_RUNS)];
    *out = (pe_list){.n = (uint32_t)(h[1].posting - h->posting), .n_runs = h[1].run - h->run};
    out->runs = (const pe_run *)runs->data + h->run;
    out->encoding = (pe_encoding)h->encoding;
    out->exponent = h->exponent;
    out->ids = (const uint16_t *)locals->data + h->posting;
    out->values = (const unsigned char *)values->data + h->value;
    if (set == PE_SET_ALL && s->columns[PE_COL_POS_RUNS].data) {
        const uint64_t *begin = s->columns[PE_COL_POS_TERMS].data;
        out->positions = (const unsigned char *)s->columns[PE_COL_POSITIONS].data + begin[at];
        out->run_positions = (const uint32_t *)s->columns[PE_COL_POS_RUNS].data + h->run;
    }
}

int pe_list_open(const pe_part *p, int set, uint32_t term, pe_list *out)
{
    const pe_segment *s = p->segment;
    if (s->active)
        return pe_active_list(s->active, p->docs, set, term, out);
    uint32_t at = find_sealed_term(pe_segment_terms(s, set), s->n_terms[set], term);
    if (at == UINT32_MAX)
        return 0;
    sealed_list(s, set, at, out);
    return 1;
}

float pe_list_real(const pe_list *l, uint32_t at)
{
    return l->encoding == PE_ENC_F32 ? ((const float *)l->values)[at]
                                     : ldexpf((float)((const int16_t *)l->values)[at], l->exponent);
}

uint32_t pe_list_live(const pe_part *p, const pe_list *l)
{
    uint32_t n = l->n, first = 0;
    if (p->live == p->docs)
        return n;
    for (uint32_t r = 0; r < l->n_runs; r++) {
        const pe_run *run = pe_list_run(l, r);
        const uint64_t *dead = pe_part_dead(p, run->window);
        uint32_t count = run->last + 1u;
        for (uint32_t i = 0; dead && i < count; i++) {
            uint16_t id = l->ids[first + i];
            n -= (uint32_t)(dead[id / 64] >> (id % 64) & 1);
        }
        first += count;
    }
    return n;
}

int pe_list_find(const pe_list *l, uint32_t doc, uint32_t *at)
{
    uint32_t window = doc >> PE_WINDOW_SHIFT, first = 0, r = 0;
    uint16_t local = (uint16_t)(doc & (PE_WINDOW - 1));
    while (r < l->n_runs && pe_list_run(l, r)->window < window)
        first += pe_list_run(l, r++)->last + 1u;
    if (r == l->n_runs || pe_list_run(l, r)->window != window)
        return 0;
    uint32_t low = first, n = pe_list_run(l, r)->last + 1u;
    while (n > 1) {
        uint32_t half = n / 2;
        low = l->ids[low + half] <= local ? low + half : low;
        n -= half;
    }
    *at = low;
    return l->ids[low] == local;
}

const unsigned char *pe_list_positions(const pe_list *l, uint32_t run, uint32_t first, uint32_t at)
{
    if (l->each)
        return l->each[at];
    uint64_t skip = 0;
    for (uint32_t i = first; i < at; i++)
        skip += pe_list_count(l, i);
    const unsigned char *p = l->positions + l->run_positions[run];
    for (; skip; p++) /* a number ends with a byte below 128 */
        skip -= *p < 0x80;
    return p;
}

/* ---- filters ---- */

static void all_alive(const pe_part *p, uint64_t *bits)
{
    uint32_t words = pe_part_windows(p) * PE_PAGE_WORDS;
    memset(bits, 0, words * sizeof *bits);
    memset(bits, 0xff, p->docs / 64 * sizeof *bits);
    if (p->docs % 64)
        bits[p->docs / 64] = ((uint64_t)1 << p->docs % 64) - 1;
    for (uint32_t w = 0; w < pe_part_windows(p); w++) {
        const uint64_t *dead = pe_part_dead(p, w);
        for (uint32_t i = 0; dead && i < PE_PAGE_WORDS; i++)
            bits[w * PE_PAGE_WORDS + i] &= ~dead[i];
    }
}

/* Keep the documents whose id passes. */
static void apply_filter(const pe_part *p, const pe_allow *allow, int by_id, uint64_t *bits)
{
    uint32_t words = pe_part_windows(p) * PE_PAGE_WORDS;
    for (uint32_t i = 0; i < words; i++)
        for (uint64_t rest = bits[i]; rest; rest &= rest - 1) {
            uint32_t doc = i * 64 + (uint32_t)__builtin_ctzll(rest);
            uint64_t id = pe_part_id(p, doc);
            if ((by_id && !peri_idset_contains(allow->ids, id)) ||
                (allow->filter && !allow->filter(allow->ctx, id)))
                bits[i] &= ~((uint64_t)1 << doc % 64);
        }
}

/* Fewer ids than documents: look up each instead of asking about each document. */
static void accept_ids(const pe_snapshot *s, const peri_idset *ids, uint64_t *const *bits)
{
    size_t cursor = 0;
    uint64_t id;
    uint32_t part, doc;
    for (uint32_t i = 0; i < s->n_parts; i++)
        memset(bits[i], 0, pe_part_windows(&s->parts[i]) * PE_PAGE_WORDS * sizeof **bits);
    while (pe_idset_next(ids, &cursor, &id))
        if (pe_snapshot_find(s, id, &part, &doc))
            bits[part][doc / 64] |= (uint64_t)1 << doc % 64;
}

static void accept_all(const pe_snapshot *s, const pe_allow *allow, uint64_t **bits)
{
    const peri_idset *ids = allow ? allow->ids : NULL;
    int few = ids && peri_idset_count(ids) < s->live;
    if (few)
        accept_ids(s, ids, bits);
    for (uint32_t i = 0; i < s->n_parts; i++) {
        if (!bits[i])
            continue;
        if (!few)
            all_alive(&s->parts[i], bits[i]);
        if ((ids && !few) || (allow && allow->filter))
            apply_filter(&s->parts[i], allow, ids && !few, bits[i]);
    }
}

peri_status pe_snapshot_accept(const pe_snapshot *s, const pe_allow *allow, pe_host *host,
                               pe_accepted *accepted, uint64_t **words, size_t *room)
{
    int filtered = allow && (allow->ids || allow->filter);
    size_t need = 0, used = 0;
    for (uint32_t i = 0; i < s->n_parts; i++)
        if (filtered || s->parts[i].live < s->parts[i].docs)
            need += (size_t)pe_part_windows(&s->parts[i]) * PE_PAGE_WORDS;
    /* The pointers of the parts lie behind the bits. */
    PE_TRY(pe_grow(host, words, room, need + s->n_parts, sizeof **words));
    uint64_t **bits = (uint64_t **)(void *)(*words + need);
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const pe_part *p = &s->parts[i];
        bits[i] = filtered || p->live < p->docs ? *words + used : NULL;
        used += bits[i] ? (size_t)pe_part_windows(p) * PE_PAGE_WORDS : 0;
    }
    accept_all(s, allow, bits);
    for (uint32_t i = 0; i < s->n_parts; i++) {
        uint64_t count = s->parts[i].docs;
        if (bits[i]) {
            count = 0;
            for (size_t w = 0; w < (size_t)pe_part_windows(&s->parts[i]) * PE_PAGE_WORDS; w++)
                count += (uint64_t)__builtin_popcountll(bits[i][w]);
        }
        accepted[i] = (pe_accepted){count, bits[i]};
    }
    return PERI_OK;
}

void pe_snapshot_describe(const pe_snapshot *s, pe_postings_info *info)
{
    memset(info, 0, sizeof *info);
    info->live = s->live;
    info->segments = s->n_parts;
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const pe_segment *g = s->parts[i].segment;
        info->docs += s->parts[i].docs;
        if (g->active)
            info->active = s->parts[i].docs;
        info->postings += g->columns[PE_COL_LOCALS].size / sizeof(uint16_t);
        info->marked += g->columns[PE_COL_M_LOCALS].size / sizeof(uint16_t);
        for (int c = 0; c < PE_COLUMNS; c++)
            info->bytes += g->columns[c].size;
    }
    info->deleted = info->docs - info->live;
}
