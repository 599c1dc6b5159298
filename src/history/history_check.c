/* A full proof of what a history holds: each file's records follow one another and verify, each
 * version verifies, each key's chain falls in sequence and ends, and the counts agree. */
#include "history/history_parts.h"
#include "history/series.h"

typedef struct checking {
    pe_read r;
    uint64_t faults, keys, live;
    char first[PE_DETAIL_SIZE];
} checking;

static void fault(checking *c, peri_status status)
{
    if (status == PERI_OK)
        return;
    if (c->faults++ == 0)
        pe_detail_copy(c->first);
}

static peri_status check_version(void *ctx, const pe_version *v)
{
    checking *c = ctx;
    pe_version again;
    fault(c, pe_view_version(c->r.history, c->r.view, v->place, &again));
    return PERI_OK;
}

static void check_chain(checking *c, uint64_t place)
{
    pe_version v;
    peri_status status = pe_view_version(c->r.history, c->r.view, place, &v);
    c->keys++;
    if (status == PERI_OK)
        c->live += v.kind != PE_OP_DELETE;
    for (; status == PERI_OK; status = pe_read_former(&c->r, &v))
        if (v.kind == PE_OP_BLOCK)
            fault(c, pe_series_unpack(v.value, v.size, NULL, NULL, NULL));
    fault(c, status == PERI_ERR_NOT_FOUND ? PERI_OK : status);
}

peri_status pe_history_check(pe_history *h, uint64_t *faults)
{
    checking c = {0};
    pthread_mutex_lock(&h->write); /* the counts are those of the table */
    peri_status status = pe_read_begin(&c.r, h, 0);
    if (status == PERI_OK) {
        const pe_view *v = c.r.view;
        uint64_t since = pe_files_count(v->files) ? pe_files_at(v->files, 0)->first - 1 : 0;
        fault(&c, pe_read_changes(&c.r, since, check_version, &c));
        for (uint64_t i = 0; i <= v->table->mask; i++) {
            uint64_t place = atomic_load(&v->table->slots[i].place);
            if (place)
                check_chain(&c, place);
        }
        if (c.keys != atomic_load(&h->keys) || (c.faults == 0 && c.live != atomic_load(&h->live)))
            fault(&c, pe_fail(PERI_ERR_CORRUPT, "%s: %llu keys, %llu live; counted %llu and %llu",
                              h->journal->dir, (unsigned long long)atomic_load(&h->keys),
                              (unsigned long long)atomic_load(&h->live), (unsigned long long)c.keys,
                              (unsigned long long)c.live));
        if (v->base) {
            const pe_section *data = pe_segr_find(v->base->segment, PE_TAG_DATA);
            fault(&c, pe_segr_verify(v->base->segment, data));
        }
        pe_read_end(&c.r);
    }
    pthread_mutex_unlock(&h->write);
    *faults = c.faults;
    if (c.faults)
        pe_detail_set(c.first);
    return status;
}
