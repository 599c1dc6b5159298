/* Changing: a batch works on a draft, the next snapshot, and publishes it whole.
 *
 * What the draft replaces (pages of dead bits, their tables, segments) is noted in `gone` and
 * retired after the draft was published: readers may be looking at it until then and after. Room
 * for the notes and for the epoch's own is reserved before anything is changed. */
#include "postings/postings_parts.h"

/* OTHERS: retirements that the engine's keys may make between reserve and commit. */
enum { SPARE_PARTS = 4, GONE_OF_ONE = 8, OTHERS = 64 };

pe_snapshot *pe_snapshot_new(pe_host *host, uint32_t room)
{
    pe_snapshot *s = pe_calloc(host, pe_snapshot_bytes(room));
    if (s)
        s->room = room;
    return s;
}

peri_status pe_postings_init(pe_postings *p, pe_host *host, pe_epoch *epoch,
                             const pe_payload *payload)
{
    memset(p, 0, sizeof *p);
    p->host = host;
    p->epoch = epoch;
    p->payload = payload;
    pe_snapshot *empty = pe_snapshot_new(host, SPARE_PARTS);
    if (!empty)
        return PERI_ERR_NOMEM;
    empty->version = 1;
    atomic_store_explicit(&p->now, empty, memory_order_release);
    return PERI_OK;
}

static void free_dead(pe_host *host, pe_pages *pages)
{
    if (!pages)
        return;
    for (uint32_t w = 0; w < pages->n; w++)
        pe_free(host, pages->page[w], sizeof(pe_page));
    pe_free(host, pages, pe_pages_bytes(pages->n));
}

void pe_postings_destroy(pe_postings *p)
{
    pe_snapshot *s = atomic_load_explicit(&p->now, memory_order_relaxed);
    for (uint32_t i = 0; s && i < s->n_parts; i++) {
        free_dead(p->host, s->parts[i].dead);
        pe_segment_destroy(s->parts[i].segment);
    }
    if (s)
        pe_free(p->host, s, pe_snapshot_bytes(s->room));
    if (p->found)
        pe_free(p->host, p->found, p->found_room * sizeof(pe_term *));
    memset(p, 0, sizeof *p);
}

/* ---- begin and commit ---- */

peri_status pe_edit_begin(pe_edit *e, pe_postings *p)
{
    const pe_snapshot *now = pe_postings_now(p);
    memset(e, 0, sizeof *e);
    e->p = p;
    PE_TRY(pe_epoch_reserve(p->epoch, OTHERS));
    e->draft = pe_snapshot_new(p->host, now->n_parts + SPARE_PARTS);
    if (!e->draft)
        return PERI_ERR_NOMEM;
    uint32_t room = e->draft->room;
    memcpy(e->draft, now, pe_snapshot_bytes(now->n_parts));
    e->draft->room = room;
    e->draft->version = now->version + 1;
    e->number = ++p->edits;
    return PERI_OK;
}

static peri_status reserve_gone(pe_edit *e, size_t n)
{
    PE_TRY(pe_grow(e->p->host, &e->gone, &e->gone_room, e->n_gone + n, sizeof *e->gone));
    return pe_epoch_reserve(e->p->epoch, e->n_gone + n + OTHERS);
}

static void note_gone(pe_edit *e, pe_retire_fn fn, void *ptr, uint64_t arg)
{
    e->gone[e->n_gone++] = (struct pe_gone){fn, ptr, arg};
}

/* Room for this is reserved by number of windows. */
static void note_part_gone(pe_edit *e, const pe_part *part)
{
    if (part->dead) {
        for (uint32_t w = 0; w < part->dead->n; w++)
            if (part->dead->page[w])
                note_gone(e, NULL, part->dead->page[w], sizeof(pe_page));
        note_gone(e, NULL, part->dead, pe_pages_bytes(part->dead->n));
    }
    note_gone(e, pe_segment_retire, part->segment, 0);
}

static void drop_part(pe_snapshot *s, uint32_t at)
{
    memmove(&s->parts[at], &s->parts[at + 1], (s->n_parts - at - 1) * sizeof *s->parts);
    s->n_parts--;
}

void pe_edit_commit(pe_edit *e)
{
    pe_postings *p = e->p;
    pe_snapshot *old = atomic_load_explicit(&p->now, memory_order_relaxed);
    if (!e->changed) { /* nothing replaced anything either */
        pe_free(p->host, e->draft, pe_snapshot_bytes(e->draft->room));
        pe_free(p->host, e->gone, e->gone_room * sizeof *e->gone);
        return;
    }
    atomic_store_explicit(&p->now, e->draft, memory_order_release);
    pe_epoch_retire_memory(p->epoch, old, pe_snapshot_bytes(old->room));
    for (size_t i = 0; i < e->n_gone; i++)
        pe_epoch_retire(p->epoch, e->gone[i].fn, e->gone[i].ptr, e->gone[i].arg);
    pe_free(p->host, e->gone, e->gone_room * sizeof *e->gone);
}

/* ---- parts of a draft ---- */

static peri_status widen_draft(pe_edit *e)
{
    pe_snapshot *old = e->draft;
    if (old->n_parts < old->room)
        return PERI_OK;
    pe_snapshot *wide = pe_snapshot_new(e->p->host, old->room * 2);
    if (!wide)
        return PERI_ERR_NOMEM;
    uint32_t room = wide->room;
    memcpy(wide, old, pe_snapshot_bytes(old->n_parts));
    wide->room = room;
    e->draft = wide;
    pe_free(e->p->host, old, pe_snapshot_bytes(old->room));
    return PERI_OK;
}

static pe_part *last_part(pe_snapshot *s)
{
    return s->n_parts ? &s->parts[s->n_parts - 1] : NULL;
}

/* The full active segment gives way to a sealed one of its live documents. */
static peri_status seal(pe_edit *e)
{
    pe_part *last = last_part(e->draft);
    pe_segment *sealed;
    PE_TRY(reserve_gone(e, GONE_OF_ONE));
    PE_TRY(pe_merge(e->p, last, 1, &sealed, NULL, 1));
    note_part_gone(e, last);
    e->changed = 1;
    if (sealed)
        *last = (pe_part){sealed, sealed->docs, sealed->docs, NULL};
    else
        e->draft->n_parts--;
    return PERI_OK;
}

/* The draft's last part is an active segment with room for a document. */
static peri_status make_active(pe_edit *e)
{
    pe_part *last = last_part(e->draft);
    if (last && last->segment->active) {
        if (last->docs < PE_WINDOW)
            return PERI_OK;
        PE_TRY(seal(e));
    }
    PE_TRY(widen_draft(e));
    pe_segment *s;
    PE_TRY(pe_segment_create(e->p, &s));
    peri_status status = pe_active_create(&s->active, e->p->host, e->p->payload->counts);
    if (status != PERI_OK) {
        pe_segment_destroy(s);
        return status;
    }
    e->draft->parts[e->draft->n_parts++] = (pe_part){.segment = s};
    e->changed = 1;
    return PERI_OK;
}

/* ---- adding ---- */

static peri_status reserve_add(pe_edit *e, const pe_doc *doc)
{
    pe_postings *p = e->p;
    PE_TRY(make_active(e));
    PE_TRY(pe_grow(p->host, &p->found, &p->found_room, (size_t)doc->n * 2, sizeof(pe_term *)));
    return pe_active_reserve(last_part(e->draft)->segment->active, doc, p->found);
}

static void append(pe_edit *e, const pe_doc *doc)
{
    pe_part *part = last_part(e->draft);
    pe_active_append(part->segment->active, doc, e->p->found);
    part->docs++;
    part->live++;
    e->draft->live++;
    e->draft->length += doc->length;
    e->changed = 1;
}

peri_status pe_edit_add(pe_edit *e, const pe_doc *doc)
{
    PE_TRY(reserve_add(e, doc));
    append(e, doc);
    return PERI_OK;
}

/* ---- removing ---- */

/* A page of this edit for a window of a part. On failure the draft means the same as before. */
static peri_status own_page(pe_edit *e, pe_part *part, uint32_t window, pe_page **out)
{
    pe_host *host = e->p->host;
    pe_pages *pages = part->dead;
    /* When it was the last live one the part goes, with all its pages. */
    PE_TRY(reserve_gone(e, GONE_OF_ONE + (part->live == 1 && pages ? pages->n : 0)));
    if (!pages || pages->edit != e->number) {
        uint32_t n = part->segment->active ? 1 : pe_part_windows(part);
        pe_pages *fresh = pe_calloc(host, pe_pages_bytes(n));
        if (!fresh)
            return PERI_ERR_NOMEM;
        if (pages) {
            memcpy(fresh, pages, pe_pages_bytes(n));
            note_gone(e, NULL, pages, pe_pages_bytes(n));
        }
        fresh->edit = e->number;
        fresh->n = n;
        part->dead = pages = fresh;
        e->changed = 1;
    }
    pe_page *page = pages->page[window];
    if (!page || page->edit != e->number) {
        pe_page *fresh = pe_calloc(host, sizeof *fresh);
        if (!fresh)
            return PERI_ERR_NOMEM;
        if (page) {
            memcpy(fresh, page, sizeof *fresh);
            note_gone(e, NULL, page, sizeof *page);
        }
        fresh->edit = e->number;
        pages->page[window] = page = fresh;
    }
    *out = page;
    return PERI_OK;
}

static void kill(pe_edit *e, uint32_t at, uint32_t doc, pe_page *page)
{
    pe_part *part = &e->draft->parts[at];
    uint32_t local = doc & (PE_WINDOW - 1);
    page->words[local / 64] |= (uint64_t)1 << (local % 64);
    part->live--;
    e->draft->live--;
    e->draft->length -= pe_part_length(part, doc);
    e->changed = 1;
    if (part->live == 0 && !part->segment->active) {
        note_part_gone(e, part);
        drop_part(e->draft, at);
    }
}

static peri_status find_live(pe_edit *e, uint64_t id, uint32_t *part, uint32_t *doc)
{
    if (pe_snapshot_find(e->draft, id, part, doc))
        return PERI_OK;
    return pe_fail(PERI_ERR_NOT_FOUND, "no id %llu", (unsigned long long)id);
}

peri_status pe_edit_remove(pe_edit *e, uint64_t id)
{
    uint32_t part, doc;
    pe_page *page;
    PE_TRY(find_live(e, id, &part, &doc));
    PE_TRY(own_page(e, &e->draft->parts[part], doc >> PE_WINDOW_SHIFT, &page));
    kill(e, part, doc, page);
    return PERI_OK;
}

peri_status pe_edit_put(pe_edit *e, const pe_doc *doc)
{
    uint32_t part, old;
    pe_page *page;
    PE_TRY(reserve_add(e, doc)); /* may seal: look for the old one after it */
    if (pe_snapshot_find(e->draft, doc->id, &part, &old)) {
        PE_TRY(own_page(e, &e->draft->parts[part], old >> PE_WINDOW_SHIFT, &page));
        kill(e, part, old, page);
    }
    append(e, doc);
    return PERI_OK;
}

/* ---- replacing parts ---- */

peri_status pe_postings_replace(pe_postings *p, const uint32_t *group, uint32_t n,
                                pe_segment *segment)
{
    pe_edit e;
    size_t gone = GONE_OF_ONE;
    PE_TRY(pe_edit_begin(&e, p));
    for (uint32_t i = 0; i < n; i++)
        gone += 2 + (e.draft->parts[group[i]].dead ? e.draft->parts[group[i]].dead->n : 0);
    peri_status status = reserve_gone(&e, gone);
    if (status == PERI_OK) {
        pe_snapshot *s = e.draft;
        for (uint32_t i = 0; i < n; i++)
            note_part_gone(&e, &s->parts[group[i]]);
        /* The first of them makes place for the new one, the others leave. */
        s->parts[group[0]] =
            (pe_part){segment, segment ? segment->docs : 0, segment ? segment->docs : 0, NULL};
        for (uint32_t i = n; i-- > (segment ? 1 : 0);)
            drop_part(s, group[i]);
        e.changed = 1;
    }
    pe_edit_commit(&e);
    return status;
}

/* ---- tidying ---- */

/* Segments of one tier have about as many live documents: each is eight times the one below. */
static unsigned tier_of(uint32_t live)
{
    unsigned tier = 0;
    for (uint64_t size = 4 * (uint64_t)PE_WINDOW; live >= size; size *= 8)
        tier++;
    return tier;
}

enum { TIER_FULL = 8, TIERS = 8 };

/* Sealed parts of a tier, in order, up to eight whose live documents come to `docs` at most. */
static uint32_t group_of_tier(const pe_snapshot *s, unsigned tier, uint64_t docs, uint32_t *group)
{
    uint32_t n = 0;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->n_parts && n < TIER_FULL; i++) {
        const pe_part *p = &s->parts[i];
        if (p->segment->active || tier_of(p->live) != tier || sum + p->live > docs)
            continue;
        sum += p->live;
        group[n++] = i;
    }
    return n;
}

/* What to merge next: the number of parts in `group`, 0 if nothing is due. */
static uint32_t next_group(const pe_snapshot *s, uint64_t docs, uint32_t *group)
{
    for (unsigned tier = 0; tier < TIERS; tier++)
        if (group_of_tier(s, tier, docs, group) == TIER_FULL)
            return TIER_FULL;
    for (uint32_t i = 0; i < s->n_parts; i++) {
        const pe_part *p = &s->parts[i];
        if (p->segment->active || p->live > docs || p->docs - p->live < (p->docs + 3) / 4)
            continue;
        group[0] = i;
        return 1;
    }
    return 0;
}

static peri_status merge_group(pe_postings *p, const uint32_t *group, uint32_t n,
                               pe_progress *progress, unsigned workers)
{
    const pe_snapshot *s = pe_postings_now(p);
    pe_part *in = pe_alloc(p->host, n * sizeof *in);
    pe_segment *out = NULL;
    if (!in)
        return PERI_ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++)
        in[i] = s->parts[group[i]];
    peri_status status = pe_merge(p, in, n, &out, progress, workers);
    pe_free(p->host, in, n * sizeof *in);
    if (status == PERI_OK)
        status = pe_postings_replace(p, group, n, out);
    if (status != PERI_OK)
        pe_segment_destroy(out);
    pe_epoch_reclaim(p->epoch);
    return status;
}

static peri_status compact(pe_postings *p, pe_progress *progress, unsigned workers)
{
    const pe_snapshot *s = pe_postings_now(p);
    uint32_t n = s->n_parts;
    if (n == 0 || (n == 1 && s->live == s->parts[0].docs && !s->parts[0].segment->active))
        return PERI_OK;
    uint32_t *group = pe_alloc(p->host, n * sizeof *group);
    if (!group)
        return PERI_ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++)
        group[i] = i;
    peri_status status = merge_group(p, group, n, progress, workers);
    pe_free(p->host, group, n * sizeof *group);
    return status;
}

peri_status pe_postings_tidy(pe_postings *p, uint64_t docs, int all, pe_progress *progress,
                             unsigned workers)
{
    if (docs > PE_SEGMENT_DOCS_MAX)
        docs = PE_SEGMENT_DOCS_MAX;
    if (all && pe_postings_now(p)->live <= docs)
        return compact(p, progress, workers);
    uint32_t group[TIER_FULL], n;
    while ((n = next_group(pe_postings_now(p), docs, group)) != 0)
        PE_TRY(merge_group(p, group, n, progress, workers));
    return PERI_OK;
}
