#define _GNU_SOURCE
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the operating system's calls ---- */

static int posix_open(void *ctx, const char *path, int flags, int mode)
{
    (void)ctx;
    int fd = open(path, flags, mode);
    return fd < 0 ? -errno : fd;
}

static int posix_close(void *ctx, int fd)
{
    (void)ctx;
    /* On Linux the descriptor is gone even after EINTR: never retry. */
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static int64_t posix_pread(void *ctx, int fd, void *buf, size_t n, uint64_t offset)
{
    (void)ctx;
    ssize_t got = pread(fd, buf, n, (off_t)offset);
    return got < 0 ? -errno : got;
}

static int64_t posix_pwrite(void *ctx, int fd, const void *buf, size_t n, uint64_t offset)
{
    (void)ctx;
    ssize_t put = pwrite(fd, buf, n, (off_t)offset);
    return put < 0 ? -errno : put;
}

static int posix_sync(void *ctx, int fd)
{
    (void)ctx;
    return fsync(fd) < 0 ? -errno : 0;
}

static int64_t posix_size(void *ctx, int fd)
{
    (void)ctx;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) ? (int64_t)st.st_size : -EINVAL;
}

static int posix_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to) < 0 ? -errno : 0;
}

static int posix_unlink(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path) < 0 ? -errno : 0;
}

static int posix_sync_dir(void *ctx, const char *path)
{
    (void)ctx;
    char copy[PATH_MAX];
    if ((size_t)snprintf(copy, sizeof copy, "%s", path) >= sizeof copy)
        return -ENAMETOOLONG;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int posix_map(void *ctx, int fd, size_t n, int writable, void **out)
{
    (void)ctx;
    void *p = mmap(NULL, n, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *out = p;
    return 0;
}

static int posix_unmap(void *ctx, void *addr, size_t n)
{
    (void)ctx;
    return munmap(addr, n) < 0 ? -errno : 0;
}

static int posix_datasync(void *ctx, int fd)
{
    (void)ctx;
    return fdatasync(fd) < 0 ? -errno : 0;
}

static int posix_allocate(void *ctx, int fd, uint64_t offset, uint64_t n)
{
    (void)ctx;
    return -posix_fallocate(fd, (off_t)offset, (off_t)n);
}

static int posix_reserve(void *ctx, size_t n, void **out)
{
    (void)ctx;
    void *p = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -errno;
    *out = p;
    return 0;
}

static int posix_map_shared(void *ctx, int fd, size_t n, void **out)
{
    (void)ctx;
    void *p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *out = p;
    return 0;
}

static int posix_map_at(void *ctx, void *addr, int fd, size_t n, uint64_t offset, int writable)
{
    (void)ctx;
    void *p = mmap(addr, n, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_FIXED,
                   fd, (off_t)offset);
    return p == MAP_FAILED ? -errno : 0;
}

/* Not fcntl's older locks: those vanish when any code of the process closes the file. */
static int posix_lock(void *ctx, int fd, int take)
{
    (void)ctx;
    struct flock range = {
        .l_type = (short)(take ? F_WRLCK : F_UNLCK), .l_whence = SEEK_SET, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &range) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

static int posix_make_dir(void *ctx, const char *path)
{
    (void)ctx;
    return mkdir(path, 0777) < 0 ? -errno : 0;
}

const peri_files *peri_files_posix(void)
{
    static const peri_files table = {
        .struct_size = sizeof(peri_files),
        .open = posix_open,
        .close = posix_close,
        .pread = posix_pread,
        .pwrite = posix_pwrite,
        .sync = posix_sync,
        .size = posix_size,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .sync_dir = posix_sync_dir,
        .map = posix_map,
        .unmap = posix_unmap,
        .datasync = posix_datasync,
        .allocate = posix_allocate,
        .map_shared = posix_map_shared,
        .lock = posix_lock,
        .make_dir = posix_make_dir,
        .reserve = posix_reserve,
        .map_at = posix_map_at,
    };
    return &table;
}

/* ---- helpers on a host's table ---- */

peri_status pe_file_open(pe_file *f, const peri_files *files, const char *path, int flags)
{
    f->files = files;
    f->path = path;
    f->fd = -1;
    int fd;
    do
        fd = files->open(files->ctx, path, flags | O_CLOEXEC, 0666);
    while (fd == -EINTR);
    if (fd < 0)
        return pe_fail_errno(-fd, "open", path);
    f->fd = fd;
    return PERI_OK;
}

peri_status pe_file_read(const pe_file *f, void *buf, size_t n, uint64_t offset)
{
    for (size_t done = 0; done < n;) {
        int64_t got =
            f->files->pread(f->files->ctx, f->fd, (char *)buf + done, n - done, offset + done);
        if (got == -EINTR)
            continue;
        if (got < 0)
            return pe_fail_errno((int)-got, "read", f->path);
        if (got == 0)
            return pe_fail(PERI_ERR_CORRUPT, "%s: ends at offset %llu, %zu more bytes expected",
                           f->path, (unsigned long long)(offset + done), n - done);
        done += (size_t)got;
    }
    return PERI_OK;
}

peri_status pe_file_write(const pe_file *f, const void *buf, size_t n, uint64_t offset)
{
    for (size_t done = 0; done < n;) {
        int64_t put = f->files->pwrite(f->files->ctx, f->fd, (const char *)buf + done, n - done,
                                       offset + done);
        if (put == -EINTR)
            continue;
        if (put <= 0)
            return pe_fail_errno(put < 0 ? (int)-put : ENOSPC, "write", f->path);
        done += (size_t)put;
    }
    return PERI_OK;
}

peri_status pe_file_size(const pe_file *f, uint64_t *size)
{
    int64_t n = f->files->size(f->files->ctx, f->fd);
    if (n == -EINVAL)
        return pe_fail(PERI_ERR_FORMAT, "%s: not a regular file", f->path);
    if (n < 0)
        return pe_fail_errno((int)-n, "stat", f->path);
    *size = (uint64_t)n;
    return PERI_OK;
}

peri_status pe_file_sync(const pe_file *f)
{
    int rc = f->files->sync(f->files->ctx, f->fd);
    return rc < 0 ? pe_fail_errno(-rc, "fsync", f->path) : PERI_OK;
}

peri_status pe_file_map(const pe_file *f, size_t n, int writable, void **out)
{
    int rc = f->files->map(f->files->ctx, f->fd, n, writable, out);
    return rc < 0 ? pe_fail_errno(-rc, "mmap", f->path) : PERI_OK;
}

void pe_file_unmap(const peri_files *files, void *addr, size_t n)
{
    files->unmap(files->ctx, addr, n);
}

peri_status pe_file_allocate(const pe_file *f, uint64_t offset, uint64_t n)
{
    int rc;
    if (offset > INT64_MAX || n > INT64_MAX - offset)
        return pe_fail(PERI_ERR_FULL, "%s: %llu bytes at offset %llu", f->path,
                       (unsigned long long)n, (unsigned long long)offset);
    do
        rc = f->files->allocate(f->files->ctx, f->fd, offset, n);
    while (rc == -EINTR);
    return rc < 0 ? pe_fail_errno(-rc, "allocate", f->path) : PERI_OK;
}

peri_status pe_file_map_at(const pe_file *f, void *addr, size_t n, uint64_t offset, int writable)
{
    int rc = f->files->map_at(f->files->ctx, addr, f->fd, n, offset, writable);
    return rc < 0 ? pe_fail_errno(-rc, "mmap", f->path) : PERI_OK;
}

peri_status pe_file_close(pe_file *f)
{
    if (f->fd < 0)
        return PERI_OK;
    int rc = f->files->close(f->files->ctx, f->fd);
    f->fd = -1;
    return rc < 0 ? pe_fail_errno(-rc, "close", f->path) : PERI_OK;
}

peri_status pe_file_rename(const peri_files *files, const char *from, const char *to)
{
    int rc = files->rename(files->ctx, from, to);
    return rc < 0 ? pe_fail_errno(-rc, "rename", to) : PERI_OK;
}

peri_status pe_file_sync_dir(const peri_files *files, const char *path)
{
    int rc = files->sync_dir(files->ctx, path);
    return rc < 0 ? pe_fail_errno(-rc, "fsync of the directory", path) : PERI_OK;
}

void pe_file_unlink(const peri_files *files, const char *path)
{
    files->unlink(files->ctx, path);
}

peri_status pe_file_datasync(const pe_file *f)
{
    int rc = f->files->datasync(f->files->ctx, f->fd);
    return rc < 0 ? pe_fail_errno(-rc, "fdatasync", f->path) : PERI_OK;
}

peri_status pe_file_map_shared(const pe_file *f, size_t n, void **out)
{
    int rc = f->files->map_shared(f->files->ctx, f->fd, n, out);
    return rc < 0 ? pe_fail_errno(-rc, "mmap", f->path) : PERI_OK;
}

peri_status pe_file_lock(const pe_file *f, int take)
{
    int rc = f->files->lock(f->files->ctx, f->fd, take);
    if (rc == -EAGAIN)
        return pe_fail(PERI_ERR_BUSY, "%s: held by another writer", f->path);
    return rc < 0 ? pe_fail_errno(-rc, "lock", f->path) : PERI_OK;
}

peri_status pe_file_make_dir(const peri_files *files, const char *path)
{
    int rc = files->make_dir(files->ctx, path);
    return rc < 0 ? pe_fail_errno(-rc, "mkdir", path) : PERI_OK;
}
