/* The proof: postings, dictionary, keys, and that they agree. */
#include "text/text.h"

static void fault(uint64_t *n_faults, peri_status said)
{
    *n_faults += said != PERI_OK;
}

/* One key for each live document and one document for each key. */
peri_status pe_text_check_keys(const peri_text *ix, uint64_t *n_faults)
{
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_acquire);
    const pe_snapshot *s = pe_postings_now(&ix->postings);
    *n_faults = 0;
    if (!keys)
        return PERI_OK;
    PE_TRY(pe_keys_check(keys, n_faults));
    if (pe_keys_count(keys) != s->live)
        fault(n_faults, pe_fail(PERI_ERR_CORRUPT, "text: %zu keys for %llu documents",
                                pe_keys_count(keys), (unsigned long long)s->live));
    uint64_t id;
    uint32_t part, doc;
    peri_slice key;
    for (size_t cursor = 0; *n_faults == 0 && pe_keys_next(keys, &cursor, &id, &key);)
        if (!pe_snapshot_find(s, id, &part, &doc))
            fault(n_faults,
                  pe_fail(PERI_ERR_CORRUPT, "text: a key names id %llu, which is not here",
                          (unsigned long long)id));
    return PERI_OK;
}

/* T1, and the order of the sorted list. */
static void check_terms(const peri_text *ix, uint64_t *n_faults)
{
    const pe_snapshot *s = pe_postings_now(&ix->postings);
    const pe_sorted *sorted = atomic_load_explicit(&ix->sorted, memory_order_acquire);
    peri_slice name, before = {0};
    for (uint32_t p = 0; p < s->n_parts; p++) {
        const pe_segment *g = s->parts[p].segment;
        for (uint32_t t = 0; !g->active && t < g->n_terms[PE_SET_ALL]; t++)
            if (!pe_keys_key_of(ix->terms, pe_segment_terms(g, PE_SET_ALL)[t], &name) &&
                (*n_faults)++ == 0)
                (void)pe_fail(PERI_ERR_CORRUPT, "text: term %u has no name",
                              pe_segment_terms(g, PE_SET_ALL)[t]);
    }
    for (uint32_t i = 0; sorted && i < sorted->n; i++) {
        if (!pe_keys_key_of(ix->terms, sorted->terms[i], &name))
            continue;
        size_t n = before.size < name.size ? before.size : name.size;
        int order = before.data ? memcmp(before.data, name.data, n) : -1;
        if ((order > 0 || (order == 0 && before.size >= name.size)) && (*n_faults)++ == 0)
            (void)pe_fail(PERI_ERR_CORRUPT, "text: name %u of the sorted list is out of order", i);
        before = name;
    }
}

static peri_status check_locked(const peri_text *ix, pe_progress *progress, uint64_t *n_faults)
{
    uint64_t found = 0;
    const pe_snapshot *s = pe_postings_now(&ix->postings);
    PE_TRY(pe_postings_check(&ix->postings, progress, n_faults));
    PE_TRY(pe_keys_check(ix->terms, &found));
    *n_faults += found;
    PE_TRY(pe_text_check_keys(ix, &found));
    *n_faults += found;
    check_terms(ix, n_faults);
    for (uint32_t p = 0; p < s->n_parts; p++) {
        if (s->parts[p].segment->active)
            continue;
        peri_status status = pe_text_bounds_check(ix, s->parts[p].segment);
        if (status != PERI_ERR_CORRUPT)
            PE_TRY(status);
        fault(n_faults, status);
    }
    return PERI_OK;
}

peri_status peri_text_check(const peri_text *ix, const peri_task *task, uint64_t *n_faults)
{
    pe_progress progress;
    if (!ix || !n_faults)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "n_faults" : "index");
    *n_faults = 0;
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_text_lock(ix));
    pe_epoch_reclaim(&((peri_text *)(uintptr_t)ix)->epoch);
    peri_status status = check_locked(ix, &progress, n_faults);
    pe_text_unlock(ix);
    return status;
}
