/* Compaction: every key's kept versions, oldest to newest, keys in order, into a new base; the
 * journal files up to then go. Numbers that follow one another become blocks of columns
 * (series.h), all but a key's newest version, which one read must find.
 *
 * The writer is stopped twice, briefly: to begin a new journal file, and to switch over. In
 * between it goes on; what it writes stays in the journal, and a former version that it names in a
 * dropped file is found in the base by key (H5). */
#define _GNU_SOURCE
#include "base/checked.h"
#include "base/team.h"
#include "history/history_parts.h"
#include "history/series.h"

/* One version of the key at hand, newest first as gathered. */
typedef struct item {
    uint64_t sequence, number; /* number: the value of one that was in a block */
    int64_t time;
    const unsigned char *value; /* NULL: `number` */
    uint32_t size;
    uint8_t kind, tag, keep;
} item;

typedef struct compaction {
    pe_history *h;
    const pe_retention *keep;
    uint64_t upto; /* the last sequence that goes in */
    uint64_t number, seed;
    pe_segw *w;
    uint64_t at; /* bytes of versions so far */
    pe_table *table;
    pe_entry *order; /* all keys, and then the kept ones with their new places */
    size_t n_order, n_kept;
    pe_table_head head;
    uint64_t snapshots[PE_SNAPSHOTS];
    size_t n_snapshots;
    item *items;
    size_t n_items, items_room;
    uint64_t *columns; /* of one block: sequences, times, values */
    unsigned char *block;
    unsigned char *op;
    size_t op_room;
} compaction;

/* ---- gathering ---- */

static peri_status add_item(compaction *c, item it)
{
    if (c->n_items == c->items_room)
        PE_TRY(pe_grow(&c->h->host, &c->items, &c->items_room, c->n_items + 1, sizeof *c->items));
    c->items[c->n_items++] = it;
    return PERI_OK;
}

static peri_status add_block(compaction *c, const pe_version *v)
{
    size_t n = pe_series_count(v->value, v->size);
    uint64_t *values = c->columns + 2 * PE_SERIES_MAX;
    PE_TRY(pe_series_unpack(v->value, v->size, c->columns, (int64_t *)(c->columns + PE_SERIES_MAX),
                            values));
    for (size_t i = n; i-- > 0;)
        PE_TRY(add_item(c, (item){c->columns[i], values[i], (int64_t)c->columns[PE_SERIES_MAX + i],
                                  NULL, 8, PE_OP_PUT, v->tag, 0}));
    return PERI_OK;
}

/* All versions of a key up to c->upto. They lie in sealed files, which only a compaction drops. */
static peri_status gather(compaction *c, pe_read *r, peri_slice key)
{
    pe_version v;
    c->n_items = 0;
    peri_status status = pe_read_head(r, key, &v);
    for (; status == PERI_OK; status = pe_read_former(r, &v)) {
        if (v.kind == PE_OP_BLOCK)
            PE_TRY(add_block(c, &v));
        else if (v.sequence <= c->upto)
            PE_TRY(add_item(c, (item){v.sequence, 0, v.time, v.value, v.size, v.kind, v.tag, 0}));
    }
    return status == PERI_ERR_NOT_FOUND ? PERI_OK : status;
}

/* ---- choosing ---- */

static void choose(compaction *c)
{
    const pe_retention *keep = c->keep;
    int dead = c->n_items && c->items[0].kind == PE_OP_DELETE && !keep->keep_deleted;
    uint64_t n = keep->keep == 0 ? UINT64_MAX : dead ? 0 : keep->keep;
    size_t kept = 0;
    for (size_t i = 0; i < c->n_items; i++) {
        item *it = &c->items[i];
        it->keep = i < n || (keep->keep_since && it->time >= keep->keep_since);
        /* The newest one not after a snapshot. */
        for (size_t s = 0; s < c->n_snapshots && !it->keep; s++)
            it->keep = it->sequence <= c->snapshots[s] &&
                       (i == 0 || c->items[i - 1].sequence > c->snapshots[s]);
        kept += it->keep;
    }
    if (kept && !c->items[0].keep) { /* or an older version would pass for the newest */
        c->items[0].keep = 1;
        kept++;
    }
    for (size_t i = 0; i < c->n_items; i++) {
        uint64_t right_from = i ? c->items[i - 1].sequence : c->items[0].sequence + 1;
        /* A dropped delete with nothing left below it changes no answer after it. */
        if (i == 0 && c->items[0].kind == PE_OP_DELETE)
            right_from = c->items[0].sequence;
        if (!c->items[i].keep && right_from > c->head.horizon)
            c->head.horizon = right_from;
    }
    size_t n_kept = 0;
    for (size_t i = 0; i < c->n_items; i++)
        if (c->items[i].keep)
            c->items[n_kept++] = c->items[i];
    c->n_items = n_kept;
}

/* ---- writing ---- */

static peri_status put_version(compaction *c, const pe_version *v, uint64_t *place)
{
    uint32_t value_at;
    size_t size = pe_op_size(v->key.size, v->size, c->at, &value_at);
    if (size > c->op_room) {
        pe_free(&c->h->host, c->op, c->op_room);
        c->op_room = 0;
        c->op = pe_alloc(&c->h->host, size + size / 2);
        if (!c->op)
            return PERI_ERR_NOMEM;
        c->op_room = size + size / 2;
    }
    pe_op_put(c->op, c->seed, c->at, v);
    PE_TRY(pe_segw_put(c->w, c->op, size));
    *place = pe_place(c->number, c->at);
    c->at += size;
    return PERI_OK;
}

static int is_number(const item *it)
{
    return it->kind == PE_OP_PUT && it->size == 8 &&
           (it->tag == PE_TAG_F64 || it->tag == PE_TAG_I64);
}

/* How many items from i down (towards the newest, which stays alone) go into one block. */
static size_t block_length(const compaction *c, size_t i)
{
    size_t n = 0;
    while (n < PE_SERIES_MAX && i - n > 0 && is_number(&c->items[i - n]) &&
           c->items[i - n].tag == c->items[i].tag)
        n++;
    return n >= 16 ? n : 0;
}

static size_t build_block(compaction *c, size_t i, size_t n)
{
    uint64_t *times = c->columns + PE_SERIES_MAX, *values = times + PE_SERIES_MAX;
    for (size_t k = 0; k < n; k++) {
        const item *it = &c->items[i - k];
        c->columns[k] = it->sequence;
        times[k] = (uint64_t)it->time;
        values[k] = it->value ? pe_get_le64(it->value) : it->number;
    }
    return pe_series_pack(c->block, n, c->columns, (const int64_t *)times, values,
                          c->items[i].tag == PE_TAG_I64, c->h->config.compress);
}

static peri_status put_key(compaction *c, peri_slice key)
{
    uint64_t place = 0;
    uint32_t depth = 0;
    for (size_t left = c->n_items; left > 0;) {
        const item *it = &c->items[left - 1];
        size_t n = block_length(c, left - 1);
        unsigned char number[8];
        pe_put_le64(number, it->number);
        pe_version v = {.sequence = it->sequence,
                        .time = it->time,
                        .key = key,
                        .value = it->value ? it->value : number,
                        .size = it->size,
                        .kind = it->kind,
                        .tag = it->tag,
                        .prev = place};
        if (n) {
            v.kind = PE_OP_BLOCK;
            v.sequence = c->items[left - n].sequence;
            v.time = c->items[left - n].time;
            v.size = (uint32_t)build_block(c, left - 1, n);
            v.value = c->block;
        } else {
            n = 1;
        }
        left -= n;
        depth += (uint32_t)n;
        v.depth = depth;
        PE_TRY(put_version(c, &v, &place));
    }
    c->order[c->n_kept++] = (pe_entry){pe_key_prefix(key), place};
    pe_table_insert(c->table, pe_history_hash(c->h, key), place);
    c->head.keys++;
    c->head.live += c->items[0].kind != PE_OP_DELETE;
    return PERI_OK;
}

/* The read is short, so that buffers and tables are not held for the length of the compaction;
 * what it leads to lies in files that only we drop. */
static peri_status do_key(compaction *c, uint64_t place)
{
    pe_read r;
    peri_slice key;
    PE_TRY(pe_read_begin(&r, c->h, 0));
    peri_status status = pe_view_key(c->h, r.view, place, 1, &key);
    if (status == PERI_OK)
        status = gather(c, &r, key);
    /* The key itself may lie in a buffer: only then it is younger than upto, and dropped here. */
    if (status == PERI_OK && c->n_items) {
        choose(c);
        if (c->n_items)
            status = put_key(c, key);
    }
    pe_read_end(&r);
    return status;
}

static peri_status write_base(compaction *c, pe_progress *progress)
{
    pe_segment_id id = {.kind = PE_BASE_KIND, .version_major = 1, .generation = c->number};
    char *path;
    size_t room;
    memcpy(id.uuid, c->h->journal->uuid, 16);
    PE_TRY(pe_journal_path(c->h->journal, c->number, "peb", &path, &room));
    peri_status status = pe_segw_open(&c->w, &c->h->host, path, &id);
    pe_free(&c->h->host, path, room);
    if (status == PERI_OK)
        status = pe_segw_begin(c->w, PE_TAG_DATA, 1);
    for (size_t i = 0; i < c->n_order && status == PERI_OK; i++) {
        status = do_key(c, c->order[i].place);
        if (status == PERI_OK && i % 1024 == 0 && pe_progress_add(progress, 0, 1024))
            status = pe_fail(PERI_ERR_CANCELLED, "stopped by the progress callback");
    }
    if (status == PERI_OK)
        status = pe_segw_end(c->w);
    c->head.slots = c->table->mask + 1;
    if (status == PERI_OK)
        status = pe_table_save(c->w, &c->head, c->table->slots, c->order, c->n_kept);
    if (status == PERI_OK) {
        status = pe_segw_commit(c->w);
        c->w = NULL;
    }
    return status;
}

/* ---- beginning ---- */

static peri_status begin_locked(compaction *c)
{
    pe_history *h = c->h;
    pe_journal *j = h->journal;
    PE_TRY(pe_history_writable(h));
    if (atomic_load(&j->poisoned))
        return pe_journal_reserve(j, 0, NULL, NULL, NULL);
    if (j->files[j->n_files - 1]->first < j->next_sequence)
        PE_TRY(pe_journal_rotate(j, 0));
    if (h->files_version != j->files_version)
        PE_TRY(pe_files_extend(h));
    c->upto = j->next_sequence - 1;
    c->number = pe_journal_new_number(j);
    c->seed = pe_journal_file_seed(j->uuid, c->number);
    memcpy(c->head.history, j->history, 16);
    c->head.last = c->upto;
    c->head.horizon = atomic_load(&h->horizon);
    pthread_mutex_lock(&h->snapshots_lock);
    c->n_snapshots = h->n_snapshots;
    memcpy(c->snapshots, h->snapshots, sizeof c->snapshots);
    pthread_mutex_unlock(&h->snapshots_lock);
    return PERI_OK;
}

static peri_status copy_order(compaction *c)
{
    pe_history *h = c->h;
    pe_reader *reader = pe_epoch_enter(&h->epoch);
    pthread_mutex_lock(&h->order);
    peri_status status = pe_order_all(h, atomic_load(&h->view));
    if (status == PERI_OK && h->n_runs) {
        c->n_order = h->runs[0].n;
        c->order = pe_alloc(&h->host, c->n_order * sizeof *c->order);
        if (c->order)
            memcpy(c->order, h->runs[0].entries, c->n_order * sizeof *c->order);
        else
            status = PERI_ERR_NOMEM;
    }
    pthread_mutex_unlock(&h->order);
    pe_epoch_exit(reader);
    return status;
}

static peri_status begin(compaction *c)
{
    pe_host *host = &c->h->host;
    pthread_mutex_lock(&c->h->write);
    peri_status status = begin_locked(c);
    pthread_mutex_unlock(&c->h->write);
    PE_TRY(status);
    PE_TRY(copy_order(c));
    PE_TRY(pe_table_create(&c->table, host, c->n_order));
    c->columns = pe_alloc(host, PE_SERIES_MAX * 3 * sizeof *c->columns);
    c->block = c->columns ? pe_alloc(host, PE_SERIES_ROOM) : NULL;
    return c->block ? PERI_OK : PERI_ERR_NOMEM;
}

static void finish(compaction *c)
{
    pe_host *host = &c->h->host;
    pe_segw_abort(c->w);
    pe_table_free(c->table, host);
    pe_free(host, c->order, c->n_order * sizeof *c->order);
    pe_free(host, c->items, c->items_room * sizeof *c->items);
    pe_free(host, c->columns, PE_SERIES_MAX * 3 * sizeof *c->columns);
    pe_free(host, c->block, PE_SERIES_ROOM);
    pe_free(host, c->op, c->op_room);
}

/* ---- switching over ---- */

typedef struct switching {
    pe_history *h;
    pe_base *base;
    pe_table *table;
    pe_files *files;
    pe_view *view;
    uint64_t keys, live;
    uint64_t *fresh; /* places of keys that the base has not */
    size_t n_fresh, fresh_room;
} switching;

static peri_status take_change(void *ctx, const pe_version *v)
{
    switching *s = ctx;
    int is_new;
    PE_TRY(pe_table_apply(s->h, s->view, s->table, v, &s->keys, &s->live, &is_new));
    if (!is_new)
        return PERI_OK;
    PE_TRY(pe_grow(&s->h->host, &s->fresh, &s->fresh_room, s->n_fresh + 1, sizeof *s->fresh));
    s->fresh[s->n_fresh++] = v->place;
    return PERI_OK;
}

static peri_status count_change(void *ctx, const pe_version *v)
{
    (void)v;
    ++*(uint64_t *)ctx;
    return PERI_OK;
}

/* A table that holds the base's keys and room for what came since. */
static peri_status new_table(switching *s, uint64_t since)
{
    pe_table_head head;
    uint64_t changes = 0;
    pe_read r;
    PE_TRY(pe_read_begin(&r, s->h, 0));
    peri_status status = pe_read_changes(&r, since, count_change, &changes);
    pe_read_end(&r);
    PE_TRY(status);
    PE_TRY(pe_table_map(&s->table, s->h, pe_segr_path(s->base->segment), PE_BASE_KIND, &head));
    if (head.keys + changes <= head.slots / 3 * 2)
        return PERI_OK;
    pe_table *t;
    PE_TRY(pe_table_create(&t, &s->h->host, head.keys + changes));
    for (uint64_t i = 0; i <= s->table->mask; i++) {
        uint64_t place = atomic_load_explicit(&s->table->slots[i].place, memory_order_relaxed);
        if (place)
            pe_table_insert(t, atomic_load(&s->table->slots[i].hash), place);
    }
    t->hint = s->table->hint; /* runs will lie in it */
    s->table->hint = NULL;
    pe_table_free(s->table, &s->h->host);
    s->table = t;
    return PERI_OK;
}

static void retire_table(void *owner, void *table, uint64_t host)
{
    (void)owner;
    pe_table_free(table, (pe_host *)(uintptr_t)host);
}

static peri_status prepare(switching *s, const compaction *c, uint64_t first)
{
    pe_history *h = s->h;
    pe_read r;
    PE_TRY(pe_journal_flush(h->journal));
    PE_TRY(pe_base_open(&s->base, h, c->number));
    PE_TRY(new_table(s, c->upto));
    PE_TRY(pe_files_create(h, first, &s->files));
    PE_TRY(pe_view_create(h, s->table, s->base, s->files, &s->view));
    s->keys = s->base->keys;
    s->live = s->base->live;
    PE_TRY(pe_read_begin(&r, h, 0));
    peri_status status = pe_read_changes(&r, c->upto, take_change, s);
    pe_read_end(&r);
    PE_TRY(status);
    PE_TRY(pe_array_reserve(&h->recent, &h->epoch, s->n_fresh, 0));
    return pe_epoch_reserve(&h->epoch, h->journal->n_files + 5);
}

static peri_status switch_over(compaction *c)
{
    pe_history *h = c->h;
    pe_journal *j = h->journal;
    switching s = {.h = h};
    uint64_t first = 0, owner[PE_MANIFEST_OWNER], gone[2], n_gone = 0;
    for (size_t i = 0; i < j->n_files && !first; i++)
        if (j->files[i]->first > c->upto)
            first = j->files[i]->number;
    peri_status status = prepare(&s, c, first);
    memcpy(owner, j->manifest.owner, sizeof owner);
    for (unsigned i = PE_OWNER_BASE; i <= PE_OWNER_HINT; i++)
        if (owner[i])
            gone[n_gone++] = owner[i];
    owner[PE_OWNER_BASE] = c->number;
    owner[PE_OWNER_HINT] = 0;
    if (status == PERI_OK)
        status = pe_journal_commit(j, owner, first, gone, n_gone);
    uint64_t host = (uint64_t)(uintptr_t)&h->host;
    if (status == PERI_OK) {
        pe_view *old = atomic_load(&h->view);
        pthread_mutex_lock(&h->order);
        atomic_store(&h->horizon, s.base->horizon);
        atomic_store(&h->keys, s.base->keys);
        pe_order_reset(h);
        pe_order_begin(h, s.table->hint);
        h->order_begun = 1;
        for (size_t i = 0; i < s.n_fresh; i++)
            pe_order_add(h, s.fresh[i]);
        atomic_store(&h->keys, s.keys);
        atomic_store(&h->live, s.live);
        pe_table *table = old->table;
        pe_base *base = old->base;
        pe_files *files = old->files;
        pe_view_publish(h, s.view);
        pthread_mutex_unlock(&h->order);
        pe_journal_retire_dropped(j);
        pe_epoch_retire(&h->epoch, retire_table, table, host);
        pe_epoch_retire(&h->epoch, pe_files_free, files, host);
        if (base)
            pe_epoch_retire(&h->epoch, pe_base_unpin, base, host);
        h->hinted = h->journal_bytes = 0;
        pe_epoch_reclaim(&h->epoch);
    } else {
        if (s.view)
            pe_free(&h->host, s.view, sizeof *s.view);
        pe_files_free(NULL, s.files, host);
        pe_table_free(s.table, &h->host);
        if (s.base)
            pe_base_unpin(NULL, s.base, host);
    }
    pe_free(&h->host, s.fresh, s.fresh_room * sizeof *s.fresh);
    return status;
}

peri_status pe_history_compact(pe_history *h, const pe_retention *keep, const peri_task *task)
{
    compaction c = {.h = h, .keep = keep};
    pe_progress progress;
    PE_TRY(pe_history_writable(h));
    PE_TRY(pe_progress_init(&progress, task));
    pthread_mutex_lock(&h->care);
    peri_status status = begin(&c);
    if (status == PERI_OK) {
        pe_progress_phase(&progress, "compact", c.n_order);
        status = write_base(&c, &progress);
    }
    if (status == PERI_OK) {
        pthread_mutex_lock(&h->write);
        status = switch_over(&c);
        pthread_mutex_unlock(&h->write);
    }
    finish(&c);
    pthread_mutex_unlock(&h->care);
    return status == PERI_OK ? pe_progress_end(&progress) : status;
}
