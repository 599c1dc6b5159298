/* The handle: making, closing, entering, describing. */
#include "text/text.h"

#include <libstemmer.h>
#include <unistd.h>

#define K1_DEFAULT 1.2f
#define K1_MOST    100.0f
#define B_DEFAULT  0.75f
enum { STOP_WORDS_MOST = 65536 };

const char *peri_text_language(size_t i)
{
    const char **names = sb_stemmer_list();
    while (*names && i) {
        names++;
        i--;
    }
    return *names;
}

static peri_status check_choices(const peri_text_config *c)
{
    const char *language = c->language ? c->language : "";
    if (strnlen(language, PE_LANGUAGE_MAX + 1) > PE_LANGUAGE_MAX ||
        (language[0] && !pe_language_known(language)))
        return pe_fail(PERI_ERR_CONFIG, "language is '%.32s', which libstemmer does not know",
                       language);
    if (c->positions > 1)
        return pe_fail(PERI_ERR_CONFIG, "positions is %u, expected 0 or 1", c->positions);
    if (c->stop > PERI_STOP_LIST)
        return pe_fail(PERI_ERR_CONFIG, "stop is %u, expected 0 to 2", c->stop);
    if (c->script > PERI_SCRIPT_SINGLE)
        return pe_fail(PERI_ERR_CONFIG, "script is %u, expected 0 or 1", c->script);
    if (c->accents > PERI_ACCENTS_STRIP)
        return pe_fail(PERI_ERR_CONFIG, "accents is %u, expected 0 or 1", c->accents);
    return PERI_OK;
}

peri_status pe_text_config_check(const peri_text_config *in, peri_text_config *out)
{
    peri_text_config_init(out);
    if (in && in->struct_size < sizeof *in)
        return pe_fail(PERI_ERR_ARG, "peri_text_config.struct_size is %u, expected %zu or more",
                       in->struct_size, sizeof *in);
    if (in)
        *out = *in;
    PE_TRY(check_choices(out));
    if (!(out->k1 <= K1_MOST)) /* NaN too */
        return pe_fail(PERI_ERR_CONFIG, "k1 is %g, expected at most %g", (double)out->k1,
                       (double)K1_MOST);
    if (!(out->b <= 1))
        return pe_fail(PERI_ERR_CONFIG, "b is %g, expected at most 1", (double)out->b);
    out->k1 = out->k1 == 0 ? K1_DEFAULT : out->k1 < 0 ? 0 : out->k1;
    out->b = out->b == 0 ? B_DEFAULT : out->b < 0 ? 0 : out->b;
    if (out->stop == PERI_STOP_LIST) {
        if (out->n_stop_words > STOP_WORDS_MOST)
            return pe_fail(PERI_ERR_CONFIG, "%zu stop words, expected at most %d",
                           out->n_stop_words, STOP_WORDS_MOST);
        if (out->n_stop_words && !out->stop_words)
            return pe_fail(PERI_ERR_ARG, "stop_words is NULL");
    }
    return PERI_OK;
}

peri_status pe_text_new(peri_text **out, const peri_env *env)
{
    pe_host host;
    *out = NULL;
    PE_TRY(pe_host_init(&host, env));
    peri_text *ix = pe_calloc(&host, sizeof *ix);
    if (!ix)
        return PERI_ERR_NOMEM;
    ix->host = host;
    ix->owner = getpid();
    ix->how.host = &ix->host;
    pthread_mutex_init(&ix->write, NULL);
    pe_epoch_init(&ix->epoch, &ix->host, ix);
    *out = ix;
    return PERI_OK;
}

peri_status pe_text_setup(peri_text *ix, const peri_text_config *config)
{
    ix->k1 = config->k1;
    ix->b = config->b;
    ix->positions = (int)config->positions;
    ix->payload = (pe_payload){.counts = 1,
                               .positions = ix->positions,
                               .merge = pe_text_columns,
                               .check = pe_text_columns_check};
    return pe_postings_init(&ix->postings, &ix->host, &ix->epoch, &ix->payload);
}

peri_status peri_text_create(peri_text **out, const peri_text_config *config, const peri_env *env)
{
    if (!out)
        return pe_fail(PERI_ERR_ARG, "out is NULL");
    *out = NULL;
    peri_text_config c;
    peri_text *ix;
    PE_TRY(pe_text_config_check(config, &c));
    PE_TRY(pe_text_new(&ix, env));
    peri_status status = pe_text_setup(ix, &c);
    if (status == PERI_OK)
        status = pe_analysis_init(&ix->how, &ix->host, &c);
    if (status == PERI_OK)
        status = pe_keys_create(&ix->terms, &ix->host, &ix->epoch);
    if (status == PERI_OK)
        status = pe_segment_new_uuid(ix->uuid);
    if (status != PERI_OK) {
        peri_text_close(ix);
        return status;
    }
    *out = ix;
    return PERI_OK;
}

void pe_text_scratch_free(pe_text_scratch *s)
{
    if (!s)
        return;
    pe_host *host = s->host;
    pe_analyser_destroy(&s->analyser);
    pe_tree_free(&s->tree);
    pe_free(host, s->by_term, s->by_term_size * sizeof *s->by_term);
    pe_free(host, s->leaves, s->leaves_room * sizeof *s->leaves);
    pe_free(host, s->expanded, s->expanded_room * sizeof *s->expanded);
    pe_free(host, s->spans, s->spans_room * sizeof *s->spans);
    pe_free(host, s->accepted, s->accepted_room * sizeof *s->accepted);
    pe_free(host, s->words, s->words_room * sizeof *s->words);
    pe_free(host, s->heap, s->heap_room * sizeof *s->heap);
    pe_free(host, s->bits, s->bits_room * sizeof *s->bits);
    pe_free(host, s->order, s->order_room * sizeof *s->order);
    pe_free(host, s->known, s->known ? PE_KNOWN_DFS * sizeof *s->known : 0);
    pe_free(host, s->spots, s->spots_room * sizeof *s->spots);
    pe_free(host, s->starts, s->starts_room * sizeof *s->starts);
    pe_free(host, s, sizeof *s);
}

void peri_text_close(peri_text *ix)
{
    if (!ix)
        return;
    /* In a child of fork the memory of a write that was under way may be in any state: then only
     * the mapping is given back. The same goes for readers that were inside. */
    int forked = getpid() != ix->owner;
    if (forked && pthread_mutex_trylock(&ix->write) != 0) {
        pe_segr_close(ix->file);
        return;
    }
    if (forked)
        pthread_mutex_unlock(&ix->write);
    for (unsigned i = 0; i < PE_READERS; i++)
        if (!(forked && ix->epoch.readers[i].taken))
            pe_text_scratch_free(ix->epoch.readers[i].scratch);
    pe_epoch_destroy(&ix->epoch);
    pe_text_writer_free(ix);
    pe_postings_destroy(&ix->postings);
    pe_keys_destroy(ix->terms);
    pe_keys_destroy(atomic_load_explicit(&ix->keys, memory_order_relaxed));
    pe_sorted_free(&ix->host, atomic_load_explicit(&ix->sorted, memory_order_relaxed));
    pe_analysis_destroy(&ix->how);
    pe_segr_close(ix->file);
    pthread_mutex_destroy(&ix->write);
    pe_host host = ix->host;
    pe_free(&host, ix, sizeof *ix);
}

peri_status pe_text_begin_write(peri_text *ix)
{
    if (!ix)
        return pe_fail(PERI_ERR_ARG, "index is NULL");
    /* Before the lock: another thread of the parent may have held it when the process forked. */
    if (getpid() != ix->owner)
        return pe_fail(PERI_ERR_FORKED, "index made by process %d, written to by process %d",
                       (int)ix->owner, (int)getpid());
    if (ix->readonly)
        return pe_fail(PERI_ERR_STATE, "index was opened read-only");
    pthread_mutex_lock(&ix->write);
    pe_epoch_reclaim(&ix->epoch);
    return PERI_OK;
}

void pe_text_end_write(peri_text *ix)
{
    pe_epoch_reclaim(&ix->epoch);
    pe_host_unlimit(&ix->host);
    pthread_mutex_unlock(&ix->write);
}

peri_status pe_text_lock(const peri_text *ix)
{
    pthread_mutex_t *write = &((peri_text *)(uintptr_t)ix)->write;
    if (getpid() == ix->owner)
        pthread_mutex_lock(write);
    else if (pthread_mutex_trylock(write) != 0)
        return pe_fail(PERI_ERR_FORKED, "a write was under way when process %d forked",
                       (int)ix->owner);
    return PERI_OK;
}

void pe_text_unlock(const peri_text *ix)
{
    pthread_mutex_unlock(&((peri_text *)(uintptr_t)ix)->write);
}

peri_status peri_text_get_info(const peri_text *ix, peri_text_info *info)
{
    if (!ix || !info)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "info" : "index");
    if (info->struct_size < sizeof *info)
        return pe_fail(PERI_ERR_ARG, "peri_text_info.struct_size is %u, expected %zu or more",
                       info->struct_size, sizeof *info);
    uint32_t size = info->struct_size;
    pe_postings_info lists;
    memset(info, 0, sizeof *info);
    info->struct_size = size;
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    const pe_snapshot *s = pe_postings_now(&ix->postings);
    pe_snapshot_describe(s, &lists);
    info->length = s->length;
    info->terms = pe_keys_count(ix->terms);
    info->keyed = atomic_load_explicit(&ix->keys, memory_order_acquire) != NULL;
    pe_epoch_exit(place);
    info->documents = lists.live;
    info->deleted = lists.deleted;
    info->segments = lists.segments;
    info->postings = lists.postings;
    info->positions = (uint32_t)ix->positions;
    info->bytes_heap = atomic_load_explicit(&ix->host.heap, memory_order_relaxed);
    info->bytes_mapped = atomic_load_explicit(&ix->host.mapped, memory_order_relaxed);
    info->next_id = atomic_load_explicit(&ix->next_id, memory_order_relaxed);
    info->k1 = ix->k1;
    info->b = ix->b;
    info->stop = ix->how.stop;
    info->script = ix->how.script;
    info->accents = ix->how.accents;
    memcpy(info->language, ix->how.language, sizeof info->language);
    return PERI_OK;
}

peri_status peri_text_ids(const peri_text *ix, uint64_t *ids, size_t capacity, size_t *n)
{
    if (!ix || !n || (capacity && !ids))
        return pe_fail(PERI_ERR_ARG, "%s is NULL", !ix ? "index" : !n ? "n" : "ids");
    pe_reader *place = pe_epoch_enter(&ix->epoch);
    const pe_snapshot *s = pe_postings_now(&ix->postings);
    *n = 0;
    for (uint32_t i = 0; i < s->n_parts; i++)
        for (uint32_t doc = 0; doc < s->parts[i].docs; doc++)
            if (pe_part_alive(&s->parts[i], doc)) {
                if (*n < capacity)
                    ids[*n] = pe_part_id(&s->parts[i], doc);
                ++*n;
            }
    pe_epoch_exit(place);
    return PERI_OK;
}
