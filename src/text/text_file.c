/* Saving and opening: docs/formats/text.md.
 *
 *   TEXT  what the index is: see read_head, 96 bytes
 *   STOP  stop words: a byte of size and the word, one after another; absent without
 *   DICT  the names of terms in ascending order, as keys (keys/keys.h)
 *   KEYS  keys of documents, where they have keys
 *   and the sections of postings/
 *
 * What lies in a mapping is never written to, so an index that is open for writing needs no private
 * copy of the pages: changes go to segments and bits beside it. */
#include "text/text.h"
#include "persist/bytes.h"

#define TAG_KIND PE_FOURCC('T', 'X', 'T', '1')
#define TAG_TEXT PE_FOURCC('T', 'E', 'X', 'T')
#define TAG_STOP PE_FOURCC('S', 'T', 'O', 'P')
#define TAG_DICT PE_FOURCC('D', 'I', 'C', 'T')
enum {
    VERSION_MAJOR = 1,
    VERSION_MINOR = 0,
    HEAD_SIZE = 96,
    LANGUAGE_AT = 48,
    FLAG_POSITIONS = 1u << 0,
    FLAG_KEYED = 1u << 1,
    STOP_BYTES_MOST = 65536 * (PE_TERM_MAX + 1),
};

/* ---- saving ---- */

static void save_head(const peri_text *ix, pe_segw *w)
{
    uint8_t b[HEAD_SIZE] = {0};
    int keyed = atomic_load_explicit(&ix->keys, memory_order_relaxed) != NULL;
    pe_put_le32(b, (ix->positions ? FLAG_POSITIONS : 0) | (keyed ? FLAG_KEYED : 0));
    pe_put_le32(b + 4, ix->how.stop);
    pe_put_le32(b + 8, ix->how.script);
    pe_put_le32(b + 12, ix->how.accents);
    memcpy(b + 16, &ix->k1, sizeof ix->k1);
    memcpy(b + 20, &ix->b, sizeof ix->b);
    pe_put_le64(b + 24, ix->next_id);
    pe_put_le32(b + 32, ix->next_term);
    memcpy(b + LANGUAGE_AT, ix->how.language, sizeof ix->how.language);
    pe_segw_begin(w, TAG_TEXT, 0);
    pe_segw_put(w, b, sizeof b);
    pe_segw_end(w);
    if (ix->how.stop_bytes) {
        pe_segw_begin(w, TAG_STOP, 0);
        pe_segw_put(w, ix->how.stop_words, ix->how.stop_bytes);
        pe_segw_end(w);
    }
}

/* Errors of the writer stick: commit reports them. */
static peri_status save_sections(peri_text *ix, pe_segw *w, pe_progress *progress)
{
    const pe_sorted *s = atomic_load_explicit(&ix->sorted, memory_order_relaxed);
    const pe_keys *keys = atomic_load_explicit(&ix->keys, memory_order_relaxed);
    save_head(ix, w);
    PE_TRY(pe_keys_save_as(ix->terms, w, TAG_DICT, s->n, s->terms));
    if (keys)
        PE_TRY(pe_keys_save(keys, w));
    PE_TRY(pe_postings_save(&ix->postings, w));
    return pe_progress_end(progress);
}

static peri_status save_locked(peri_text *ix, const char *path, pe_progress *progress)
{
    pe_segw *w;
    pe_segment_id id = {.kind = TAG_KIND,
                        .version_major = VERSION_MAJOR,
                        .version_minor = VERSION_MINOR,
                        .generation = atomic_fetch_add(&ix->generation, 1) + 1};
    memcpy(id.uuid, ix->uuid, sizeof id.uuid);
    pe_progress_phase(progress, "save", pe_postings_now(&ix->postings)->live);
    PE_TRY(pe_text_sort_terms(ix, 1));
    PE_TRY(pe_segw_open(&w, &ix->host, path, &id));
    peri_status status = save_sections(ix, w, progress);
    if (status == PERI_OK)
        return pe_segw_commit(w);
    pe_segw_abort(w);
    return status;
}

peri_status peri_text_save(const peri_text *ix, const char *path, const peri_task *task)
{
    pe_progress progress;
    if (!ix || !path)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", ix ? "path" : "index");
    PE_TRY(pe_progress_init(&progress, task));
    PE_TRY(pe_text_lock(ix));
    peri_status status = save_locked((peri_text *)(uintptr_t)ix, path, &progress);
    pe_text_unlock(ix);
    return status;
}

/* ---- opening ---- */

typedef struct head {
    peri_text_config config;
    char language[PE_LANGUAGE_MAX + 1];
    uint32_t flags, next_term;
    uint64_t next_id;
} head;

/*   offset size
 *   0      4    flags: 1 positions, 2 keyed
 *   4      4    stop words      8   4  scripts     12  4  accents   (as in peri_text_config)
 *   16     4    k1 (f32)        20  4  b (f32)
 *   24     8    next id         32  4  next number of a term
 *   48     32   language, filled up with zeros
 *   the rest    zero */
static peri_status read_head(pe_segr *r, head *h)
{
    uint8_t b[HEAD_SIZE];
    const pe_section *s = pe_segr_find(r, TAG_TEXT);
    if (!s || s->size != HEAD_SIZE)
        return pe_fail(PERI_ERR_CORRUPT, "%s: TEXT is missing or of the wrong size",
                       pe_segr_path(r));
    PE_TRY(pe_segr_read(r, s, 0, b, sizeof b));
    memset(h, 0, sizeof *h);
    peri_text_config_init(&h->config);
    h->flags = pe_get_le32(b);
    h->config.stop = pe_get_le32(b + 4);
    h->config.script = pe_get_le32(b + 8);
    h->config.accents = pe_get_le32(b + 12);
    memcpy(&h->config.k1, b + 16, sizeof(float));
    memcpy(&h->config.b, b + 20, sizeof(float));
    h->next_id = pe_get_le64(b + 24);
    h->next_term = pe_get_le32(b + 32);
    memcpy(h->language, b + LANGUAGE_AT, sizeof h->language);
    h->config.language = h->language;
    h->config.positions = h->flags & FLAG_POSITIONS ? 1 : 0;
    if (h->flags & ~(uint32_t)(FLAG_POSITIONS | FLAG_KEYED))
        return pe_segr_fault(r, s, 0, "flags 0x%x", h->flags);
    if (h->config.stop > PERI_STOP_LIST || h->config.script > PERI_SCRIPT_SINGLE ||
        h->config.accents > PERI_ACCENTS_STRIP)
        return pe_segr_fault(r, s, 4, "stop %u, script %u, accents %u", h->config.stop,
                             h->config.script, h->config.accents);
    if (!(h->config.k1 >= 0 && h->config.k1 <= 100 && h->config.b >= 0 && h->config.b <= 1))
        return pe_segr_fault(r, s, 16, "k1 %g, b %g", (double)h->config.k1, (double)h->config.b);
    if (h->language[PE_LANGUAGE_MAX] || (h->language[0] && !pe_language_known(h->language)))
        return pe_segr_fault(r, s, LANGUAGE_AT, "language '%.32s'", h->language);
    return PERI_OK;
}

static peri_status read_stop_words(peri_text *ix, pe_segr *r, const head *h)
{
    const pe_section *s = pe_segr_find(r, TAG_STOP);
    if (!s)
        return pe_analysis_load(&ix->how, &ix->host, &h->config, NULL, 0);
    if (s->size > STOP_BYTES_MOST)
        return pe_segr_fault(r, s, 0, "%llu bytes of stop words", (unsigned long long)s->size);
    size_t size = (size_t)s->size;
    unsigned char *bytes = pe_alloc(&ix->host, size);
    if (!bytes)
        return PERI_ERR_NOMEM;
    peri_status status = pe_segr_read(r, s, 0, bytes, size);
    if (status == PERI_OK)
        status = pe_analysis_load(&ix->how, &ix->host, &h->config, bytes, size);
    pe_free(&ix->host, bytes, size);
    return status;
}

static int ascends(peri_slice a, peri_slice b)
{
    int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order < 0 || (order == 0 && a.size < b.size);
}

/* The names come in order: that is the sorted list. */
static peri_status read_terms(peri_text *ix, pe_segr *r, const head *h)
{
    PE_TRY(pe_keys_open_as(&ix->terms, &ix->host, &ix->epoch, r, TAG_DICT));
    pe_sorted *s;
    PE_TRY(pe_sorted_alloc(&ix->host, pe_keys_count(ix->terms), &s));
    atomic_store_explicit(&ix->sorted, s, memory_order_relaxed);
    atomic_store_explicit(&ix->next_term, h->next_term, memory_order_relaxed);
    s->upto = h->next_term;
    uint64_t id;
    uint32_t n = 0;
    peri_slice name, before = {0};
    for (size_t cursor = 0; pe_keys_next(ix->terms, &cursor, &id, &name); before = name) {
        if (id >= h->next_term || name.size > PE_TERM_MAX || (n && !ascends(before, name)))
            return pe_fail(PERI_ERR_CORRUPT,
                           "%s: name %u of the dictionary is out of order, too long or has number "
                           "%llu of %u",
                           pe_segr_path(r), n, (unsigned long long)id, h->next_term);
        s->terms[n++] = (uint32_t)id;
    }
    return PERI_OK;
}

static peri_status read_keys(peri_text *ix, pe_segr *r)
{
    pe_keys *keys;
    uint64_t faults;
    PE_TRY(pe_keys_open(&keys, &ix->host, &ix->epoch, r));
    atomic_store_explicit(&ix->keys, keys, memory_order_release);
    PE_TRY(pe_text_check_keys(ix, &faults));
    return faults ? PERI_ERR_CORRUPT : PERI_OK;
}

static peri_status open_file(peri_text *ix, int map)
{
    pe_segr *r = ix->file;
    head h;
    PE_TRY(pe_segr_expect(r, TAG_KIND, VERSION_MAJOR, 0));
    PE_TRY(read_head(r, &h));
    memcpy(ix->uuid, pe_segr_id(r)->uuid, sizeof ix->uuid);
    ix->generation = pe_segr_id(r)->generation;
    PE_TRY(pe_text_setup(ix, &h.config));
    PE_TRY(read_stop_words(ix, r, &h));
    PE_TRY(read_terms(ix, r, &h));
    PE_TRY(pe_postings_open(&ix->postings, r, map));
    atomic_store_explicit(&ix->next_id, h.next_id, memory_order_relaxed);
    if (h.flags & FLAG_KEYED)
        PE_TRY(read_keys(ix, r));
    return PERI_OK;
}

peri_status peri_text_open(peri_text **out, const char *path, uint32_t flags, const peri_env *env,
                           const peri_task *task)
{
    pe_progress progress;
    peri_text *ix;
    if (!out || !path)
        return pe_fail(PERI_ERR_ARG, "%s is NULL", out ? "path" : "out");
    *out = NULL;
    if (flags & ~(uint32_t)(PERI_OPEN_READONLY | PERI_OPEN_MAP))
        return pe_fail(PERI_ERR_ARG, "unknown open flags 0x%x", flags);
    PE_TRY(pe_progress_init(&progress, task));
    int map = (flags & PERI_OPEN_MAP) != 0;
    PE_TRY(pe_text_new(&ix, env));
    pe_host_limit(&ix->host, task);
    peri_status status =
        pe_segr_open(&ix->file, &ix->host, path, map ? PE_SEGMENT_MAP : PE_SEGMENT_COPY);
    if (status == PERI_OK)
        status = open_file(ix, map);
    if (status != PERI_OK) {
        peri_text_close(ix);
        return status;
    }
    pe_host_unlimit(&ix->host);
    ix->readonly = (flags & PERI_OPEN_READONLY) != 0;
    if (!map) {
        pe_segr_close(ix->file);
        ix->file = NULL;
    }
    *out = ix;
    return PERI_OK;
}
