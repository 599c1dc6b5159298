/* Documents in and out.
 *
 * A document is analysed into (term, position) pairs, sorted by term, and handed to postings/ as
 * counts and position gaps. A put publishes by batches of documents: readers see a batch whole.
 * Names of terms that a failed document brought along stay in the dictionary until maintain;
 * nothing leads to them. */
#include "text/text.h"

#include <stdlib.h>

enum {
    BATCH = 256,         /* documents that readers come to see together */
    TEXT_MOST = 1 << 30, /* bytes */
    TERM_SHIFT = 32,
    RADIX_BITS = 8,
    RADIX = 1 << RADIX_BITS,
    RETIRES_BY_KEYS = 64,
};

/* The writer's room, kept from put to put. */
typedef struct pe_text_writer {
    pe_analyser analyser;
    peri_text *ix;
    uint64_t *tokens, *sorting; /* term << 32 | position */
    size_t n, tokens_room, sorting_room;
    /* one document's entries */
    uint32_t *terms, *counts, *sizes;
    const unsigned char **positions;
    size_t terms_room, counts_room, sizes_room, positions_room;
    unsigned char *bytes;
    size_t bytes_room;
} pe_text_writer;

static peri_status make_writer(peri_text *ix)
{
    if (ix->writer)
        return PERI_OK;
    pe_text_writer *w = pe_calloc(&ix->host, sizeof *w);
    if (!w)
        return PERI_ERR_NOMEM;
    w->ix = ix;
    peri_status status = pe_analyser_init(&w->analyser, &ix->how);
    if (status != PERI_OK)
        pe_free(&ix->host, w, sizeof *w);
    else
        ix->writer = w;
    return status;
}

void pe_text_writer_free(peri_text *ix)
{
    pe_text_writer *w = ix->writer;
    if (!w)
        return;
    pe_analyser_destroy(&w->analyser);
    pe_free(&ix->host, w->tokens, w->tokens_room * sizeof *w->tokens);
    pe_free(&ix->host, w->sorting, w->sorting_room * sizeof *w->sorting);
    pe_free(&ix->host, w->terms, w->terms_room * sizeof *w->terms);
    pe_free(&ix->host, w->counts, w->counts_room * sizeof *w->counts);
    pe_free(&ix->host, w->sizes, w->sizes_room * sizeof *w->sizes);
    pe_free(&ix->host, w->positions, w->positions_room * sizeof *w->positions);
    pe_free(&ix->host, w->bytes, w->bytes_room);
    pe_free(&ix->host, w, sizeof *w);
    ix->writer = NULL;
}

/* ---- a document ---- */

static peri_status take_token(void *ctx, const pe_token *token)
{
    pe_text_writer *w = ctx;
    uint32_t term = 0;
    PE_TRY(pe_text_number(w->ix, token->text, token->size, &term));
    PE_TRY(pe_grow(&w->ix->host, &w->tokens, &w->tokens_room, w->n + 1, sizeof *w->tokens));
    w->tokens[w->n++] = (uint64_t)term << TERM_SHIFT | token->position;
    return PERI_OK;
}

/* By term; positions ascend already, and the sort keeps that. */
static peri_status sort_tokens(pe_text_writer *w)
{
    enum { FEW = 48 };
    if (w->n <= FEW) {
        for (size_t i = 1; i < w->n; i++) {
            uint64_t t = w->tokens[i];
            size_t j = i;
            for (; j > 0 && w->tokens[j - 1] > t; j--)
                w->tokens[j] = w->tokens[j - 1];
            w->tokens[j] = t;
        }
        return PERI_OK;
    }
    PE_TRY(pe_grow(&w->ix->host, &w->sorting, &w->sorting_room, w->n, sizeof *w->sorting));
    uint64_t *from = w->tokens, *to = w->sorting;
    uint32_t terms = w->ix->next_term;
    int odd = 0;
    for (unsigned shift = 0; shift < 32 && terms >> shift; shift += RADIX_BITS) {
        size_t place[RADIX] = {0}, sum = 0;
        for (size_t i = 0; i < w->n; i++)
            place[from[i] >> (TERM_SHIFT + shift) & (RADIX - 1)]++;
        for (unsigned d = 0; d < RADIX; d++) {
            size_t count = place[d];
            place[d] = sum;
            sum += count;
        }
        for (size_t i = 0; i < w->n; i++)
            to[place[from[i] >> (TERM_SHIFT + shift) & (RADIX - 1)]++] = from[i];
        uint64_t *other = from;
        from = to;
        to = other;
        odd = !odd;
    }
    if (odd)
        memcpy(w->tokens, w->sorting, w->n * sizeof *w->tokens);
    return PERI_OK;
}

static peri_status entry_room(pe_text_writer *w)
{
    pe_host *host = &w->ix->host;
    PE_TRY(pe_grow(host, &w->terms, &w->terms_room, w->n, sizeof *w->terms));
    PE_TRY(pe_grow(host, &w->counts, &w->counts_room, w->n, sizeof *w->counts));
    PE_TRY(pe_grow(host, &w->sizes, &w->sizes_room, w->n, sizeof *w->sizes));
    PE_TRY(pe_grow(host, &w->positions, &w->positions_room, w->n, sizeof *w->positions));
    return pe_grow(host, &w->bytes, &w->bytes_room, w->n * PE_VARINT_MAX, 1);
}

/* Entries of the sorted tokens: each term's count, and its positions as gaps. */
static uint32_t make_entries(pe_text_writer *w)
{
    uint32_t n = 0;
    unsigned char *p = w->bytes;
    for (size_t i = 0; i < w->n; n++) {
        uint32_t term = (uint32_t)(w->tokens[i] >> TERM_SHIFT), before = 0, count = 0;
        w->terms[n] = term;
        w->positions[n] = p;
        for (; i < w->n && w->tokens[i] >> TERM_SHIFT == term; i++) {
            if (count == PE_COUNT_MAX)
                continue;
            uint32_t position = (uint32_t)w->tokens[i];
            p += pe_varint_put(p, position - before);
            before = position;
            count++;
        }
        w->counts[n] = count;
        w->sizes[n] = (uint32_t)(p - w->positions[n]);
    }
    return n;
}

static peri_status analyse(pe_text_writer *w, uint64_t id, peri_slice text, pe_doc *doc)
{
    uint32_t position = 0;
    w->n = 0;
    PE_TRY(pe_analyse(&w->analyser, text, PE_ANALYSE_TERMS, &position, take_token, w));
    PE_TRY(sort_tokens(w));
    PE_TRY(entry_room(w));
    *doc = (pe_doc){.id = id, .length = (uint32_t)w->n, .n = make_entries(w)};
    doc->terms = w->terms;
    doc->values = w->counts;
    if (w->ix->positions) {
        doc->positions = w->positions;
        doc->position_sizes = w->sizes;
    }
    return PERI_OK;
}

/* ---- putting ---- */

typedef struct put {
    peri_text *ix;
    size_t n;
    const uint64_t *ids;    /* NULL: numbered onwards */
    const peri_slice *keys; /* NULL: by id */
    const peri_slice *texts;
    uint32_t flags;
    pe_keys *key_set;
    pe_keys *fresh_set; /* key_set, when it is not the index's yet */
    pe_progress progress;
} put;

static peri_status check_key(peri_slice key)
{
    if (!key.data || key.size < 1 || key.size > PERI_MAX_KEY_SIZE)
        return pe_fail(PERI_ERR_ARG, "key has %zu bytes, expected 1 to %d", key.data ? key.size : 0,
                       PERI_MAX_KEY_SIZE);
    return PERI_OK;
}

static peri_status check_texts(const put *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->texts[i].size && !p->texts[i].data)
            return pe_fail(PERI_ERR_ARG, "text %zu is NULL", i);
        if (p->texts[i].size >= TEXT_MOST)
            return pe_fail(PERI_ERR_ARG, "text %zu has %zu bytes, expected less than %d", i,
                           p->texts[i].size, TEXT_MOST);
        if (p->keys)
            PE_TRY(check_key(p->keys[i]));
    }
    return PERI_OK;
}

/* One document into the batch. A key is bound together with it. */
static peri_status put_one(put *p, pe_edit *e, size_t i)
{
    peri_text *ix = p->ix;
    pe_doc doc;
    uint32_t part, at;
    uint64_t next = ix->next_id, id = p->ids ? p->ids[i] : next;
    int had = p->keys && pe_keys_find(p->key_set, p->keys[i], &id);
    if (!p->ids && !had && next == UINT64_MAX)
        return pe_fail(PERI_ERR_FULL, "no id left to number documents with");
    if ((p->flags & PERI_PUT_NEW) &&
        (had || (p->ids && pe_snapshot_find(e->draft, id, &part, &at))))
        return pe_fail(PERI_ERR_EXISTS, "%s %zu is present", had ? "key" : "id of document", i);
    PE_TRY(analyse(ix->writer, id, p->texts[i], &doc));
    if (p->keys && !had)
        PE_TRY(pe_keys_reserve(p->key_set, 1, p->keys[i].size));
    PE_TRY(pe_edit_put(e, &doc));
    if (p->keys && !had)
        pe_keys_set(p->key_set, p->keys[i], id);
    if (id >= next && id != UINT64_MAX)
        atomic_store_explicit(&ix->next_id, id + 1, memory_order_relaxed);
    return PERI_OK;
}

static void publish(put *p, pe_edit *e)
{
    if (p->fresh_set && pe_keys_count(p->fresh_set)) {
        atomic_store_explicit(&p->ix->keys, p->fresh_set, memory_order_release);
        p->fresh_set = NULL;
    }
    pe_edit_commit(e);
}

static peri_status put_batch(put *p, size_t first, size_t n, size_t *done)
{
    pe_edit e;
    PE_TRY(pe_edit_begin(&e, &p->ix->postings));
    peri_status status = PERI_OK;
    for (size_t i = first; i < first + n && status == PERI_OK; i++) {
        status = put_one(p, &e, i);
        *done += status == PERI_OK;
    }
    publish(p, &e);
    return status;
}

static peri_status put_all(put *p, size_t *done)
{
    peri_text *ix = p->ix;
    PE_TRY(make_writer(ix));
    p->key_set = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    if (p->keys && !p->key_set) {
        if (pe_postings_now(&ix->postings)->n_parts)
            return pe_fail(PERI_ERR_STATE, "the index holds documents by id: it takes no keys");
        PE_TRY(pe_keys_create(&p->fresh_set, &ix->host, &ix->epoch));
        p->key_set = p->fresh_set;
    } else if (!p->keys && p->key_set) {
        return pe_fail(PERI_ERR_STATE, "the index is keyed: put by key");
    }
    pe_progress_phase(&p->progress, "insert", p->n);
    for (size_t first = 0; first < p->n; first += BATCH) {
        size_t n = p->n - first < BATCH ? p->n - first : BATCH;
        PE_TRY(put_batch(p, first, n, done));
        /* The documents are in; merging and sorting that fails now is tried again later. */
        (void)pe_postings_tidy(&ix->postings, PE_MERGE_BOUNDED, 0, NULL, 1);
        (void)pe_text_sort_terms(ix, 0);
        pe_epoch_reclaim(&ix->epoch);
        if (pe_progress_add(&p->progress, 0, n))
            break;
    }
    return pe_progress_end(&p->progress);
}

static peri_status run_put(put *p, const peri_task *task, size_t *n_done)
{
    size_t done = 0;
    if (n_done)
        *n_done = 0;
    if (!p->ix || (p->n && !p->texts))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", p->ix ? "texts" : "index");
    if (p->flags & ~(uint32_t)PERI_PUT_NEW)
        return pe_fail(PERI_ERR_ARG, "unknown put flags 0x%x", p->flags);
    PE_TRY(pe_progress_init(&p->progress, task));
    PE_TRY(check_texts(p));
    PE_TRY(pe_text_begin_write(p->ix));
    pe_host_limit(&p->ix->host, task);
    peri_status status = p->n ? put_all(p, &done) : PERI_OK;
    pe_keys_destroy(p->fresh_set);
    pe_text_end_write(p->ix);
    if (n_done)
        *n_done = done;
    return status;
}

peri_status peri_text_put(peri_text *ix, uint64_t id, peri_slice text, uint32_t flags)
{
    put p = {.ix = ix, .n = 1, .ids = &id, .texts = &text, .flags = flags};
    return run_put(&p, NULL, NULL);
}

peri_status peri_text_put_many(peri_text *ix, size_t n, const uint64_t *ids,
                               const peri_slice *texts, uint32_t flags, const peri_task *task,
                               size_t *n_done)
{
    put p = {.ix = ix, .n = n, .ids = ids, .texts = texts, .flags = flags};
    return run_put(&p, task, n_done);
}

peri_status peri_text_put_keyed(peri_text *ix, peri_slice key, peri_slice text, uint32_t flags)
{
    put p = {.ix = ix, .n = 1, .keys = &key, .texts = &text, .flags = flags};
    return run_put(&p, NULL, NULL);
}

peri_status peri_text_put_many_keyed(peri_text *ix, size_t n, const peri_slice *keys,
                                     const peri_slice *texts, uint32_t flags, const peri_task *task,
                                     size_t *n_done)
{
    if (n && !keys)
        return pe_fail(PERI_ERR_ARG, "keys is NULL");
    put p = {.ix = ix, .n = n, .keys = keys, .texts = texts, .flags = flags};
    return run_put(&p, task, n_done);
}

/* ---- removing ---- */

static peri_status remove_id(peri_text *ix, uint64_t id)
{
    pe_edit e;
    PE_TRY(pe_edit_begin(&e, &ix->postings));
    peri_status status = pe_edit_remove(&e, id);
    pe_edit_commit(&e);
    if (status == PERI_OK) /* a segment a quarter of which is dead is rewritten, if it is small */
        (void)pe_postings_tidy(&ix->postings, PE_MERGE_BOUNDED, 0, NULL, 1);
    return status;
}

peri_status peri_text_remove(peri_text *ix, uint64_t id)
{
    PE_TRY(pe_text_begin_write(ix));
    peri_status status = atomic_load_explicit(&ix->keys, memory_order_relaxed)
                             ? pe_fail(PERI_ERR_STATE, "the index is keyed: remove by key")
                             : remove_id(ix, id);
    pe_text_end_write(ix);
    return status;
}

peri_status peri_text_remove_keyed(peri_text *ix, peri_slice key)
{
    PE_TRY(check_key(key));
    PE_TRY(pe_text_begin_write(ix));
    pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    uint64_t id;
    peri_status status = PERI_OK;
    if (!keys || !pe_keys_find(keys, key, &id))
        status = pe_fail(PERI_ERR_NOT_FOUND, "no such key");
    if (status == PERI_OK)
        status = pe_epoch_reserve(&ix->epoch, RETIRES_BY_KEYS);
    if (status == PERI_OK)
        status = remove_id(ix, id);
    if (status == PERI_OK)
        pe_keys_remove(keys, key);
    pe_text_end_write(ix);
    return status;
}

peri_status peri_text_id_of(const peri_text *ix, peri_slice key, uint64_t *id)
{
    if (!ix || !id)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "id" : "index");
    PE_TRY(check_key(key));
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_acquire);
    int found = keys && pe_keys_find(keys, key, id);
    pe_epoch_exit(place);
    return found ? PERI_OK : pe_fail(PERI_ERR_NOT_FOUND, "no such key");
}

peri_status peri_text_key_of(const peri_text *ix, uint64_t id, peri_buf *key)
{
    if (!ix || !key)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "key" : "index");
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_acquire);
    peri_slice found;
    peri_status status =
        keys && pe_keys_key_of(keys, id, &found)
            ? pe_buf_set(key, found.data, found.size)
            : pe_fail(PERI_ERR_NOT_FOUND, "no key for id %llu", (unsigned long long)id);
    pe_epoch_exit(place);
    return status;
}

peri_status peri_text_maintain(peri_text *ix, int all, const peri_task *task)
{
    pe_progress progress;
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_text_begin_write(ix));
    pe_host_limit(&ix->host, task);
    peri_status status =
        pe_postings_tidy(&ix->postings, PE_SEGMENT_DOCS_MAX, all, &progress, pe_task_threads(task));
    pe_epoch_reclaim(&ix->epoch);
    if (status == PERI_OK && all)
        status = pe_text_forget_terms(ix);
    pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    if (status == PERI_OK && keys)
        status = pe_keys_compact(keys);
    pe_text_end_write(ix);
    return status;
}
