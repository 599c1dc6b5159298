/* What a power cut may leave of files that are written through a table of calls.
 *
 * The table passes every call on to the system and keeps, for each file, what was in it at its last
 * sync: that is durable. Anything since may be on the disk or not, sector by sector, in any order:
 * it does not matter whether it came by a write or by a store to a mapping, so the present content
 * is simply read, and each 512 bytes that differ from the durable ones are taken old, new, or torn
 * in the middle. A file may have its durable length, its present one, or one between. Names behave
 * as in a journalling file system: those since the directory's last sync are there up to some point
 * in their order.
 *
 * `cut` is called before every call that changes something on the disk; powercut_rebuild then makes
 * one of the possible states beside the real files. Planted bugs: `forget` names calls that are
 * answered as done and are not, and the harness is to notice. */
#ifndef PE_POWERCUT_H
#define PE_POWERCUT_H

#include "base/rng.h"
#include "perigee/base.h"
#include "scratch.h"

#include <fcntl.h>

enum { POWERCUT_FILES = 64, POWERCUT_NAMES = 512, SECTOR = 512 };
enum { FORGET_FIRST_SYNC = 1, FORGET_OTHER_SYNC = 2, FORGET_DIR_SYNC = 4 };

typedef struct cut_file {
    int real; /* to read what is in it now, whatever its name */
    unsigned char *durable;
    size_t size;
} cut_file;

/* A change of a name, in order: the name leads to the file, -1 = to none. */
typedef struct cut_name {
    char path[PATH_MAX];
    int file;
} cut_name;

typedef struct powercut {
    peri_files files;
    cut_file file[POWERCUT_FILES];
    int n_files;
    int of_fd[1024]; /* file of an open descriptor, + 1 */
    cut_name *name;  /* all changes so far */
    int n_names, durable_names;
    int forget;
    unsigned syncs; /* set to 0 by the test where its counting begins */
    void (*cut)(struct powercut *p, const char *call);
    void *ctx;
} powercut;

static inline int cut_lookup(const powercut *p, const char *path, int upto)
{
    for (int i = upto; i-- > 0;)
        if (strcmp(p->name[i].path, path) == 0)
            return p->name[i].file;
    return -1;
}

static inline void cut_rename_to(powercut *p, const char *path, int file)
{
    assert_true(p->n_names < POWERCUT_NAMES);
    cut_name *n = &p->name[p->n_names++];
    snprintf(n->path, sizeof n->path, "%s", path);
    n->file = file;
}

static inline unsigned char *cut_read(int fd, size_t *size)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    *size = (size_t)st.st_size;
    unsigned char *p = malloc(*size + SECTOR);
    assert_non_null(p);
    assert_int_equal(pread(fd, p, *size, 0), (ssize_t)*size);
    memset(p + *size, 0, SECTOR);
    return p;
}

static inline int cut_open(void *ctx, const char *path, int flags, int mode)
{
    powercut *p = ctx;
    int known = cut_lookup(p, path, p->n_names);
    if (flags & O_CREAT && p->cut)
        p->cut(p, "open");
    int fd = peri_files_posix()->open(NULL, path, flags, mode);
    if (fd < 0)
        return fd;
    assert_true(fd < 1024);
    if (known < 0 && flags & O_CREAT) {
        assert_true(p->n_files < POWERCUT_FILES);
        known = p->n_files++;
        p->file[known] = (cut_file){.real = open(path, O_RDONLY), .durable = malloc(1)};
        assert_true(p->file[known].real >= 0);
        cut_rename_to(p, path, known);
    }
    p->of_fd[fd] = known + 1;
    return fd;
}

static inline int cut_close(void *ctx, int fd)
{
    powercut *p = ctx;
    p->of_fd[fd] = 0;
    return peri_files_posix()->close(NULL, fd);
}

static inline int64_t cut_pread(void *ctx, int fd, void *buf, size_t n, uint64_t offset)
{
    (void)ctx;
    return peri_files_posix()->pread(NULL, fd, buf, n, offset);
}

static inline int64_t cut_pwrite(void *ctx, int fd, const void *buf, size_t n, uint64_t offset)
{
    powercut *p = ctx;
    if (p->cut)
        p->cut(p, "pwrite");
    return peri_files_posix()->pwrite(NULL, fd, buf, n, offset);
}

/* No real sync: nobody pulls a plug here. */
static inline int cut_sync(void *ctx, int fd)
{
    powercut *p = ctx;
    if (p->cut)
        p->cut(p, "sync");
    unsigned number = p->syncs++;
    if (p->forget & (number % 2 ? FORGET_OTHER_SYNC : FORGET_FIRST_SYNC))
        return 0;
    cut_file *f = &p->file[p->of_fd[fd] - 1];
    free(f->durable);
    f->durable = cut_read(fd, &f->size);
    return 0;
}

static inline int64_t cut_size(void *ctx, int fd)
{
    (void)ctx;
    return peri_files_posix()->size(NULL, fd);
}

static inline int cut_rename(void *ctx, const char *from, const char *to)
{
    powercut *p = ctx;
    if (p->cut)
        p->cut(p, "rename");
    int rc = peri_files_posix()->rename(NULL, from, to);
    if (rc == 0) { /* one change, not two */
        cut_rename_to(p, to, cut_lookup(p, from, p->n_names));
        cut_rename_to(p, from, -1);
    }
    return rc;
}

static inline int cut_unlink(void *ctx, const char *path)
{
    powercut *p = ctx;
    if (p->cut)
        p->cut(p, "unlink");
    cut_rename_to(p, path, -1);
    return peri_files_posix()->unlink(NULL, path);
}

static inline int cut_sync_dir(void *ctx, const char *path)
{
    powercut *p = ctx;
    (void)path;
    if (p->cut)
        p->cut(p, "sync_dir");
    if (!(p->forget & FORGET_DIR_SYNC))
        p->durable_names = p->n_names;
    return 0;
}

static inline int cut_map(void *ctx, int fd, size_t n, int writable, void **out)
{
    (void)ctx;
    return peri_files_posix()->map(NULL, fd, n, writable, out);
}

static inline int cut_unmap(void *ctx, void *addr, size_t n)
{
    (void)ctx;
    return peri_files_posix()->unmap(NULL, addr, n);
}

static inline int cut_allocate(void *ctx, int fd, uint64_t offset, uint64_t n)
{
    powercut *p = ctx;
    if (p->cut)
        p->cut(p, "allocate");
    return peri_files_posix()->allocate(NULL, fd, offset, n);
}

static inline int cut_lock(void *ctx, int fd, int on)
{
    (void)ctx;
    return peri_files_posix()->lock(NULL, fd, on);
}

static inline int cut_reserve(void *ctx, size_t n, void **out)
{
    (void)ctx;
    return peri_files_posix()->reserve(NULL, n, out);
}

static inline int cut_map_at(void *ctx, void *addr, int fd, size_t n, uint64_t offset, int writable)
{
    (void)ctx;
    return peri_files_posix()->map_at(NULL, addr, fd, n, offset, writable);
}

static inline void powercut_init(powercut *p)
{
    memset(p, 0, sizeof *p);
    p->name = calloc(POWERCUT_NAMES, sizeof *p->name);
    assert_non_null(p->name);
    p->files = (peri_files){.struct_size = sizeof p->files,
                            .ctx = p,
                            .open = cut_open,
                            .close = cut_close,
                            .pread = cut_pread,
                            .pwrite = cut_pwrite,
                            .sync = cut_sync,
                            .size = cut_size,
                            .rename = cut_rename,
                            .unlink = cut_unlink,
                            .sync_dir = cut_sync_dir,
                            .map = cut_map,
                            .unmap = cut_unmap,
                            .allocate = cut_allocate,
                            .lock = cut_lock,
                            .reserve = cut_reserve,
                            .map_at = cut_map_at};
}

static inline void powercut_free(powercut *p)
{
    for (int i = 0; i < p->n_files; i++) {
        close(p->file[i].real);
        free(p->file[i].durable);
    }
    free(p->name);
}

/* How far the names have come in one state. */
static inline int powercut_names(const powercut *p, pe_rng *rng)
{
    int more = p->n_names - p->durable_names;
    return p->durable_names + (more ? (int)pe_rng_below(rng, (uint32_t)more + 1) : 0);
}

/* The content that the path's file may have after a cut, 0 if it may be missing and is. Each call
 * draws anew. mood 0: nothing since the sync is there, 1: everything, else a mix. */
static inline int powercut_rebuild(const powercut *p, const char *path, int names, unsigned mood,
                                   pe_rng *rng, unsigned char **out, size_t *size)
{
    int at = cut_lookup(p, path, names);
    if (at < 0)
        return 0;
    const cut_file *f = &p->file[at];
    size_t now_size, longest;
    unsigned char *now = cut_read(f->real, &now_size);
    longest = now_size > f->size ? now_size : f->size;
    *size = mood == 0 ? f->size : mood == 1 ? now_size : 0;
    if (mood > 1) {
        size_t low = now_size < f->size ? now_size : f->size;
        uint32_t steps = (uint32_t)((longest - low) / SECTOR);
        *size = pe_rng_below(rng, 2) ? now_size : low + pe_rng_below(rng, steps + 1) * SECTOR;
    }
    unsigned char *made = calloc(longest + SECTOR, 1);
    assert_non_null(made);
    memcpy(made, f->durable, f->size);
    uint32_t share = 1 + pe_rng_below(rng, 255); /* of what is new that is there, in 256ths */
    for (size_t s = 0; mood && s < now_size; s += SECTOR) {
        size_t n = now_size - s < SECTOR ? now_size - s : SECTOR;
        if (memcmp(made + s, now + s, n) == 0)
            continue;
        if (mood == 1 || pe_rng_below(rng, 256) < share)
            memcpy(made + s, now + s, n);
        else if (pe_rng_below(rng, 4) == 0)
            memcpy(made + s, now + s, pe_rng_below(rng, (uint32_t)n));
    }
    free(now);
    *out = made;
    return 1;
}

#endif
