/* An environment that fails on order: the n-th allocation or the n-th call on files, once or from
 * then on. It counts what is held (blocks, descriptors, mappings), so that a test can say that a
 * failure leaked nothing, and checks that blocks are freed with the size they were made with.
 *
 *      for (uint64_t n = 1; fired; n++) {
 *          faulty f;
 *          faulty_init(&f, FAULTY_FILES, n, 1);
 *          peri_status status = work(&f.env);
 *          fired = f.fired != NULL;          // n is past the last call: all points were tried
 *          assert_true(fired ? status != PERI_OK : status == PERI_OK);
 *          assert_true(faulty_clean(&f));
 *      }
 *
 * One thread at a time. */
#ifndef PE_FAULTY_H
#define PE_FAULTY_H

#include "perigee/base.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

typedef enum faulty_what { FAULTY_NOTHING, FAULTY_ALLOC, FAULTY_FILES } faulty_what;

typedef struct faulty {
    peri_env env;
    peri_files files;
    faulty_what what;
    uint64_t n;      /* which call fails, from 1 */
    int sticky;      /* and all of its sort that follow */
    int error;       /* what a failing call on files says; 0 = EIO */
    size_t short_io; /* transfers are cut to this many bytes; 0 = not */
    int interrupts;  /* every second transfer and open says EINTR first */
    uint64_t calls;  /* of the sort that fails */
    uint64_t toggle;
    const char *fired; /* name of the first call that failed, or NULL */
    /* what is held */
    int64_t blocks, bytes, fds, maps;
    uint64_t wrong_sizes; /* blocks freed with another size than they were made with */
    /* what was done */
    uint64_t syncs, renames, dir_syncs, unlinks, writes_after_sync;
} faulty;

/* ---- allocation: the size lies in front of the block ---- */

typedef struct faulty_block {
    size_t size, offset; /* of the block from what libc gave */
} faulty_block;

static inline int faulty_strike(faulty *f, faulty_what what, const char *name)
{
    if (f->what != what)
        return 0;
    uint64_t call = ++f->calls;
    if (call != f->n && !(f->sticky && call > f->n))
        return 0;
    if (!f->fired)
        f->fired = name;
    return 1;
}

static inline void *faulty_alloc(void *ctx, size_t size, size_t align)
{
    faulty *f = ctx;
    if (faulty_strike(f, FAULTY_ALLOC, "alloc"))
        return NULL;
    size_t offset = align > sizeof(faulty_block) ? align : sizeof(faulty_block);
    void *raw = NULL;
    if (posix_memalign(&raw, offset, offset + size) != 0)
        return NULL;
    unsigned char *p = (unsigned char *)raw + offset;
    faulty_block head = {size, offset};
    memcpy(p - sizeof head, &head, sizeof head);
    memset(p, 0xa5, size); /* nobody may count on zeros */
    f->blocks++;
    f->bytes += (int64_t)size;
    return p;
}

static inline void faulty_free(void *ctx, void *ptr, size_t size)
{
    faulty *f = ctx;
    if (!ptr)
        return;
    faulty_block head;
    memcpy(&head, (unsigned char *)ptr - sizeof head, sizeof head);
    f->wrong_sizes += head.size != size;
    f->blocks--;
    f->bytes -= (int64_t)head.size;
    free((unsigned char *)ptr - head.offset);
}

/* ---- files: the system's table with a toll before it ---- */

static inline int faulty_toll(faulty *f, const char *name)
{
    if (faulty_strike(f, FAULTY_FILES, name))
        return f->error ? -f->error : -EIO;
    return 0;
}

static inline int faulty_interrupted(faulty *f)
{
    return f->interrupts && f->toggle++ % 2 == 0;
}

static inline int faulty_open(void *ctx, const char *path, int flags, int mode)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "open");
    if (rc == 0 && faulty_interrupted(f))
        rc = -EINTR;
    if (rc == 0)
        rc = peri_files_posix()->open(NULL, path, flags, mode);
    f->fds += rc >= 0;
    return rc;
}

/* A close that fails has closed all the same. */
static inline int faulty_close(void *ctx, int fd)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "close"), real = peri_files_posix()->close(NULL, fd);
    f->fds--;
    return rc ? rc : real;
}

static inline int64_t faulty_pread(void *ctx, int fd, void *buf, size_t n, uint64_t offset)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "pread");
    if (rc == 0 && faulty_interrupted(f))
        rc = -EINTR;
    if (f->short_io && n > f->short_io)
        n = f->short_io;
    return rc ? rc : peri_files_posix()->pread(NULL, fd, buf, n, offset);
}

static inline int64_t faulty_pwrite(void *ctx, int fd, const void *buf, size_t n, uint64_t offset)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "pwrite");
    if (rc == 0 && faulty_interrupted(f))
        rc = -EINTR;
    if (f->short_io && n > f->short_io)
        n = f->short_io;
    f->writes_after_sync += f->syncs != 0;
    return rc ? rc : peri_files_posix()->pwrite(NULL, fd, buf, n, offset);
}

static inline int faulty_sync(void *ctx, int fd)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "sync");
    f->syncs++;
    (void)fd; /* the tests do not pull plugs: a real fsync would only cost time */
    return rc;
}

static inline int64_t faulty_size(void *ctx, int fd)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "size");
    return rc ? rc : peri_files_posix()->size(NULL, fd);
}

static inline int faulty_rename(void *ctx, const char *from, const char *to)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "rename");
    f->renames++;
    return rc ? rc : peri_files_posix()->rename(NULL, from, to);
}

/* unlink is how things are cleaned up: it is counted, it does not fail. */
static inline int faulty_unlink(void *ctx, const char *path)
{
    faulty *f = ctx;
    f->unlinks++;
    return peri_files_posix()->unlink(NULL, path);
}

static inline int faulty_sync_dir(void *ctx, const char *path)
{
    faulty *f = ctx;
    (void)path;
    f->dir_syncs++;
    return faulty_toll(f, "sync_dir");
}

static inline int faulty_map(void *ctx, int fd, size_t n, int writable, void **out)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "map");
    if (rc == 0)
        rc = peri_files_posix()->map(NULL, fd, n, writable, out);
    f->maps += rc == 0;
    return rc;
}

static inline int faulty_unmap(void *ctx, void *addr, size_t n)
{
    faulty *f = ctx;
    f->maps--;
    return peri_files_posix()->unmap(NULL, addr, n);
}

static inline int faulty_datasync(void *ctx, int fd)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "datasync");
    f->syncs++;
    (void)fd;
    return rc;
}

static inline int faulty_allocate(void *ctx, int fd, uint64_t offset, uint64_t n)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "allocate");
    if (rc == 0 && faulty_interrupted(f))
        rc = -EINTR;
    return rc ? rc : peri_files_posix()->allocate(NULL, fd, offset, n);
}

static inline int faulty_lock(void *ctx, int fd, int on)
{
    faulty *f = ctx;
    int rc = on ? faulty_toll(f, "lock") : 0;
    return rc ? rc : peri_files_posix()->lock(NULL, fd, on);
}

static inline int faulty_reserve(void *ctx, size_t n, void **out)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "reserve");
    if (rc == 0)
        rc = peri_files_posix()->reserve(NULL, n, out);
    f->maps += rc == 0;
    return rc;
}

static inline int faulty_map_shared(void *ctx, int fd, size_t n, void **out)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "map_shared");
    if (rc == 0)
        rc = peri_files_posix()->map_shared(NULL, fd, n, out);
    f->maps += rc == 0;
    return rc;
}

/* Within what was reserved: no mapping of its own. */
static inline int faulty_map_at(void *ctx, void *addr, int fd, size_t n, uint64_t offset,
                                int writable)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "map_at");
    return rc ? rc : peri_files_posix()->map_at(NULL, addr, fd, n, offset, writable);
}

static inline int faulty_make_dir(void *ctx, const char *path)
{
    faulty *f = ctx;
    int rc = faulty_toll(f, "make_dir");
    return rc ? rc : peri_files_posix()->make_dir(NULL, path);
}

/* ---- use ---- */

static inline void faulty_init(faulty *f, faulty_what what, uint64_t n, int sticky)
{
    memset(f, 0, sizeof *f);
    f->what = what;
    f->n = n;
    f->sticky = sticky;
    peri_env_init(&f->env);
    f->env.alloc = faulty_alloc;
    f->env.free = faulty_free;
    f->env.alloc_ctx = f;
    f->env.files = &f->files;
    f->files = (peri_files){.struct_size = sizeof f->files,
                            .ctx = f,
                            .open = faulty_open,
                            .close = faulty_close,
                            .pread = faulty_pread,
                            .pwrite = faulty_pwrite,
                            .sync = faulty_sync,
                            .size = faulty_size,
                            .rename = faulty_rename,
                            .unlink = faulty_unlink,
                            .sync_dir = faulty_sync_dir,
                            .map = faulty_map,
                            .unmap = faulty_unmap,
                            .allocate = faulty_allocate,
                            .lock = faulty_lock,
                            .reserve = faulty_reserve,
                            .map_at = faulty_map_at,
                            .datasync = faulty_datasync,
                            .map_shared = faulty_map_shared,
                            .make_dir = faulty_make_dir};
}

/* Nothing held, nothing freed wrongly. */
static inline int faulty_clean(const faulty *f)
{
    return f->blocks == 0 && f->bytes == 0 && f->fds == 0 && f->maps == 0 && f->wrong_sizes == 0;
}

#endif
