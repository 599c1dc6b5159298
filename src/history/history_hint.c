/* Hints: the hash table of keys as a file, which open maps copy-on-write and goes on with. The
 * source is durable as far as a hint reaches before the hint is named in the manifest. */
#include "base/checked.h"
#include "history/history_parts.h"

static int is_listed(const pe_manifest *m, uint64_t number, uint64_t sequence)
{
    for (size_t i = 0; i < m->n_files; i++)
        if (m->files[i].number == number)
            return sequence + 1 >= m->files[i].first;
    return 0;
}

/* A hint is left aside for whatever is wrong with it: the journal tells the same. */
static peri_status try_hint(pe_history *h, const pe_base *base, pe_table **table,
                            pe_journal_place *from)
{
    const pe_manifest *m = &h->journal->manifest;
    pe_table_head head;
    char *path;
    size_t room;
    if (m->owner[PE_OWNER_HINT] == 0 || h->config.accept_loss)
        return PERI_ERR_NOT_FOUND;
    PE_TRY(pe_journal_path(h->journal, m->owner[PE_OWNER_HINT], "peh", &path, &room));
    peri_status status = pe_table_map(table, h, path, PE_HINT_KIND, &head);
    pe_free(&h->host, path, room);
    PE_TRY(status);
    if (memcmp(head.history, h->journal->history, 16) != 0 ||
        head.base != (base ? base->number : 0) || !is_listed(m, head.file, head.last)) {
        pe_table_free(*table, &h->host);
        *table = NULL;
        return PERI_ERR_NOT_FOUND;
    }
    *from = (pe_journal_place){head.file, head.offset, head.last};
    atomic_store(&h->keys, head.keys);
    atomic_store(&h->live, head.live);
    pe_order_begin(h, (*table)->hint);
    return PERI_OK;
}

peri_status pe_hint_load(pe_history *h, const pe_base *base, pe_table **table,
                         pe_journal_place *from)
{
    const pe_manifest *m = &h->journal->manifest;
    peri_status status = try_hint(h, base, table, from);
    if (status == PERI_OK || status == PERI_ERR_NOMEM)
        return status;
    if (!base) {
        h->order_begun = 1; /* every key will be a recent one */
        return pe_table_create(table, &h->host, 0);
    }
    pe_table_head head;
    PE_TRY(pe_table_map(table, h, pe_segr_path(base->segment), PE_BASE_KIND, &head));
    *from = (pe_journal_place){m->n_files ? m->files[0].number : 0, PE_JOURNAL_HEADER, base->last};
    atomic_store(&h->keys, base->keys);
    atomic_store(&h->live, base->live);
    pe_order_begin(h, (*table)->hint);
    return PERI_OK;
}

/* ---- saving ---- */

typedef struct copy {
    pe_table_head head;
    pe_slot *slots;
    pe_entry *order;
    size_t n_order;
    uint64_t number, bytes;
} copy;

/* Under `write` and inside the epoch. */
static peri_status take_copy(pe_history *h, copy *c)
{
    pe_view *v = atomic_load(&h->view);
    pe_journal *j = h->journal;
    PE_TRY(pe_journal_flush(j));
    pe_jfile *f = j->files[j->n_files - 1];
    memcpy(c->head.history, j->history, 16);
    c->head.last = j->next_sequence - 1;
    c->head.slots = v->table->mask + 1;
    c->head.keys = atomic_load(&h->keys);
    c->head.live = atomic_load(&h->live);
    c->head.base = v->base ? v->base->number : 0;
    c->head.file = f->number;
    c->head.offset = atomic_load(&f->written);
    c->bytes = h->journal_bytes;
    c->slots = pe_alloc(&h->host, c->head.slots * sizeof *c->slots);
    if (!c->slots)
        return PERI_ERR_NOMEM;
    memcpy((void *)c->slots, (const void *)v->table->slots, c->head.slots * sizeof *c->slots);
    pthread_mutex_lock(&h->order);
    peri_status status = PERI_OK;
    if (h->n_runs) { /* somebody wanted order: the next open should have it at once */
        status = pe_order_all(h, v);
        c->n_order = status == PERI_OK ? h->runs[0].n : 0;
        c->order = c->n_order ? pe_alloc(&h->host, c->n_order * sizeof *c->order) : NULL;
        if (c->order)
            memcpy(c->order, h->runs[0].entries, c->n_order * sizeof *c->order);
        else if (c->n_order)
            status = PERI_ERR_NOMEM;
    }
    pthread_mutex_unlock(&h->order);
    c->number = pe_journal_new_number(j);
    return status;
}

static peri_status write_copy(pe_history *h, const copy *c)
{
    pe_segment_id id = {.kind = PE_HINT_KIND, .version_major = 1, .generation = c->number};
    pe_segw *w;
    char *path;
    size_t room;
    memcpy(id.uuid, h->journal->uuid, 16);
    PE_TRY(pe_journal_path(h->journal, c->number, "peh", &path, &room));
    peri_status status = pe_segw_open(&w, &h->host, path, &id);
    if (status == PERI_OK) {
        status = pe_table_save(w, &c->head, c->slots, c->order, c->n_order);
        if (status == PERI_OK)
            status = pe_segw_commit(w);
        else
            pe_segw_abort(w);
    }
    pe_free(&h->host, path, room);
    return status;
}

static peri_status save_hint(pe_history *h)
{
    copy c = {0};
    int led;
    pthread_mutex_lock(&h->write);
    pe_reader *reader = pe_epoch_enter(&h->epoch);
    peri_status status = take_copy(h, &c);
    pe_epoch_exit(reader);
    pthread_mutex_unlock(&h->write);
    if (status == PERI_OK)
        status = pe_journal_wait(h->journal, c.head.last, &led);
    if (status == PERI_OK)
        status = write_copy(h, &c);
    if (status == PERI_OK) {
        pthread_mutex_lock(&h->write);
        uint64_t owner[PE_MANIFEST_OWNER], former;
        memcpy(owner, h->journal->manifest.owner, sizeof owner);
        former = owner[PE_OWNER_HINT];
        owner[PE_OWNER_HINT] = c.number;
        status = pe_journal_commit(h->journal, owner, 0, &former, former != 0);
        if (status == PERI_OK)
            h->hinted = c.bytes;
        pthread_mutex_unlock(&h->write);
    }
    pe_free(&h->host, c.slots, c.head.slots * sizeof *c.slots);
    pe_free(&h->host, c.order, c.n_order * sizeof *c.order);
    return status;
}

peri_status pe_history_save_hint(pe_history *h)
{
    PE_TRY(pe_history_writable(h));
    if (atomic_load(&h->journal->poisoned))
        return pe_fail(PERI_ERR_POISONED, "%s: an fsync failed earlier", h->journal->dir);
    pthread_mutex_lock(&h->care);
    pthread_mutex_lock(&h->write);
    int worth = h->journal_bytes - h->hinted >= h->config.hint_bytes;
    pthread_mutex_unlock(&h->write);
    peri_status status = worth ? save_hint(h) : PERI_OK;
    pthread_mutex_unlock(&h->care);
    return status;
}
