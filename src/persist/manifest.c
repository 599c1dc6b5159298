#include "persist/manifest.h"
#include "persist/bytes.h"
#include "persist/segment.h"

enum { HEAD_SIZE = 64, FILE_SIZE = 40 };
#define KIND  PE_FOURCC('P', 'M', 'A', 'N')
#define HEAD  PE_FOURCC('H', 'E', 'A', 'D')
#define FILES PE_FOURCC('F', 'I', 'L', 'E')
#define GONE  PE_FOURCC('G', 'O', 'N', 'E')

void pe_manifest_free(pe_manifest *m, pe_host *host)
{
    pe_free(host, m->files, m->files_room * sizeof *m->files);
    pe_free(host, m->gone, m->gone_room * sizeof *m->gone);
    memset(m, 0, sizeof *m);
}

peri_status pe_manifest_copy(pe_manifest *to, pe_host *host, const pe_manifest *from)
{
    *to = *from;
    to->files = NULL;
    to->gone = NULL;
    to->files_room = to->gone_room = 0;
    peri_status status =
        pe_grow(host, &to->files, &to->files_room, from->n_files + 1, sizeof *to->files);
    if (status == PERI_OK)
        status = pe_grow(host, &to->gone, &to->gone_room, from->n_gone + 1, sizeof *to->gone);
    if (status != PERI_OK) {
        pe_manifest_free(to, host);
        return status;
    }
    if (from->n_files)
        memcpy(to->files, from->files, from->n_files * sizeof *to->files);
    if (from->n_gone)
        memcpy(to->gone, from->gone, from->n_gone * sizeof *to->gone);
    return PERI_OK;
}

/* ---- loading ---- */

static peri_status check_files(pe_segr *r, const pe_section *s, const pe_manifest *m)
{
    uint64_t number = 0, next = 1;
    for (size_t i = 0; i < m->n_files; i++) {
        const pe_manifest_file *f = &m->files[i];
        int sealed = (f->flags & PE_MANIFEST_SEALED) != 0;
        if (f->number <= number || f->number >= m->next_number)
            return pe_segr_fault(r, s, i * FILE_SIZE, "file number %llu is out of order",
                                 (unsigned long long)f->number);
        if (f->first == 0 || (i > 0 && f->first != next) || f->last + 1 < f->first ||
            f->last == UINT64_MAX || f->flags & ~3u)
            return pe_segr_fault(r, s, i * FILE_SIZE, "sequences %llu to %llu do not follow",
                                 (unsigned long long)f->first, (unsigned long long)f->last);
        if (sealed == (i + 1 == m->n_files))
            return pe_segr_fault(r, s, i * FILE_SIZE, "the last file alone is open to appends");
        number = f->number;
        next = f->last + 1;
    }
    return PERI_OK;
}

static peri_status read_files(pe_manifest *m, pe_host *host, pe_segr *r)
{
    const pe_section *s = pe_segr_find(r, FILES);
    if (!s || s->size % FILE_SIZE)
        return pe_fail(PERI_ERR_CORRUPT, "%s: no list of files", pe_segr_path(r));
    m->n_files = (size_t)s->size / FILE_SIZE;
    PE_TRY(pe_grow(host, &m->files, &m->files_room, m->n_files + 1, sizeof *m->files));
    for (size_t i = 0; i < m->n_files; i++) {
        unsigned char b[FILE_SIZE];
        PE_TRY(pe_segr_read(r, s, i * FILE_SIZE, b, FILE_SIZE));
        m->files[i] = (pe_manifest_file){pe_get_le64(b), pe_get_le64(b + 8), pe_get_le64(b + 16),
                                         pe_get_le64(b + 24), pe_get_le32(b + 32)};
    }
    PE_TRY(check_files(r, s, m));
    const pe_section *g = pe_segr_find(r, GONE);
    if (!g || g->size % 8)
        return pe_fail(PERI_ERR_CORRUPT, "%s: no list of removed files", pe_segr_path(r));
    m->n_gone = (size_t)g->size / 8;
    PE_TRY(pe_grow(host, &m->gone, &m->gone_room, m->n_gone + 1, sizeof *m->gone));
    for (size_t i = 0; i < m->n_gone; i++) {
        unsigned char b[8];
        PE_TRY(pe_segr_read(r, g, i * 8, b, 8));
        m->gone[i] = pe_get_le64(b);
        for (size_t j = 0; j < m->n_files; j++)
            if (m->gone[i] == m->files[j].number)
                return pe_segr_fault(r, g, i * 8, "file %llu is live and removed",
                                     (unsigned long long)m->gone[i]);
    }
    return PERI_OK;
}

peri_status pe_manifest_load(pe_manifest *m, pe_host *host, const char *path)
{
    pe_segr *r;
    memset(m, 0, sizeof *m);
    PE_TRY(pe_segr_open(&r, host, path, PE_SEGMENT_COPY));
    peri_status status = pe_segr_expect(r, KIND, 1, 0);
    const pe_section *s = pe_segr_find(r, HEAD);
    unsigned char b[HEAD_SIZE + 8 * PE_MANIFEST_OWNER];
    if (status == PERI_OK && (!s || s->size < sizeof b))
        status = pe_fail(PERI_ERR_CORRUPT, "%s: the head is missing", path);
    if (status == PERI_OK)
        status = pe_segr_read(r, s, 0, b, sizeof b);
    if (status == PERI_OK) {
        memcpy(m->uuid, pe_segr_id(r)->uuid, 16);
        m->generation = pe_segr_id(r)->generation;
        memcpy(m->history, b, 16);
        m->next_number = pe_get_le64(b + 16);
        m->synced = pe_get_le64(b + 24);
        for (unsigned i = 0; i < PE_MANIFEST_OWNER; i++)
            m->owner[i] = pe_get_le64(b + HEAD_SIZE + 8 * i);
        status = read_files(m, host, r);
    }
    pe_segr_close(r);
    if (status != PERI_OK)
        pe_manifest_free(m, host);
    return status;
}

/* ---- saving ---- */

static peri_status write_sections(pe_segw *w, const pe_manifest *m)
{
    unsigned char b[HEAD_SIZE + 8 * PE_MANIFEST_OWNER] = {0};
    memcpy(b, m->history, 16);
    pe_put_le64(b + 16, m->next_number);
    pe_put_le64(b + 24, m->synced);
    for (unsigned i = 0; i < PE_MANIFEST_OWNER; i++)
        pe_put_le64(b + HEAD_SIZE + 8 * i, m->owner[i]);
    PE_TRY(pe_segw_begin(w, HEAD, 0));
    PE_TRY(pe_segw_put(w, b, sizeof b));
    PE_TRY(pe_segw_end(w));
    PE_TRY(pe_segw_begin(w, FILES, 0));
    for (size_t i = 0; i < m->n_files; i++) {
        const pe_manifest_file *f = &m->files[i];
        unsigned char e[FILE_SIZE] = {0};
        pe_put_le64(e, f->number);
        pe_put_le64(e + 8, f->first);
        pe_put_le64(e + 16, f->last);
        pe_put_le64(e + 24, f->length);
        pe_put_le32(e + 32, f->flags);
        PE_TRY(pe_segw_put(w, e, sizeof e));
    }
    PE_TRY(pe_segw_end(w));
    PE_TRY(pe_segw_begin(w, GONE, 0));
    for (size_t i = 0; i < m->n_gone; i++) {
        unsigned char e[8];
        pe_put_le64(e, m->gone[i]);
        PE_TRY(pe_segw_put(w, e, sizeof e));
    }
    return pe_segw_end(w);
}

/* Which manifest stands at the path after a failed save: only when that is plainly the former one
 * may the caller go on as if nothing had happened. */
static int former_stands(const pe_manifest *m, pe_host *host, const char *path)
{
    pe_manifest now;
    char detail[PE_DETAIL_SIZE];
    pe_detail_copy(detail);
    peri_status status = pe_manifest_load(&now, host, path);
    int former = status == PERI_OK ? now.generation == m->generation
                                   : status == PERI_ERR_NOT_FOUND && m->generation == 0;
    if (status == PERI_OK)
        pe_manifest_free(&now, host);
    pe_detail_set(detail);
    return former;
}

peri_status pe_manifest_save(pe_manifest *m, pe_host *host, const char *path, int *renamed)
{
    pe_segment_id id = {.kind = KIND, .version_major = 1, .generation = m->generation + 1};
    memcpy(id.uuid, m->uuid, 16);
    pe_segw *w;
    *renamed = 0;
    PE_TRY(pe_segw_open(&w, host, path, &id));
    peri_status status = write_sections(w, m);
    if (status != PERI_OK) {
        pe_segw_abort(w);
        return status;
    }
    status = pe_segw_commit(w);
    if (status == PERI_OK)
        m->generation++;
    else
        *renamed = !former_stands(m, host, path);
    return status;
}
