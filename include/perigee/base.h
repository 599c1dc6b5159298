/** @file base.h
 *  Statuses, versions, the environment a handle borrows, and long-call control.
 *
 *  Conventions of every perigee header:
 *   1. Names are `peri_<noun>_<verb>`; handles are opaque structs.
 *   2. A fallible function returns peri_status: 0 is success, negatives are errors. Nothing else
 *      ever means failure. peri_error_detail() adds what the failing call knew.
 *   3. After an error the object is as it was before, unless the function says which prefix of a
 *      bulk call is in (`n_done`).
 *   4. Structs begin with `struct_size`, set by their inline `_init`; 0 in any other field means
 *      the default. Out-parameters come first in constructors, last elsewhere.
 *   5. `close` accepts NULL and cannot fail.
 *   6. A pointer handed in is lent for the call only, unless its comment says otherwise.
 *   7. After fork, in the child: reads work, writes return PERI_ERR_FORKED, close only releases
 *      the child's memory.
 */
#ifndef PERI_BASE_H
#define PERI_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef PERI_API
#if defined(__GNUC__)
#define PERI_API __attribute__((visibility("default")))
#else
#define PERI_API
#endif
#endif

#define PERI_VERSION_MAJOR 0
#define PERI_VERSION_MINOR 1
#define PERI_VERSION_PATCH 0

/* One list: enum, name and text come from it. Values are pinned for ever;
 * tens group the codes by whose problem it is: caller, data, machine, stored bytes, foreign
 * system, us. */
#define PERI_STATUS_MAP(X)                                                                         \
    X(OK, 0, "success")                                                                            \
    X(ERR_ARG, -10, "invalid argument")                                                            \
    X(ERR_CONFIG, -11, "configuration value out of range")                                         \
    X(ERR_UNSUPPORTED, -12, "operation not supported by this kind")                                \
    X(ERR_STATE, -13, "operation not allowed in this state")                                       \
    X(ERR_DIMENSION, -14, "wrong dimension")                                                       \
    X(ERR_NONFINITE, -15, "NaN, infinity or zero norm in a vector")                                \
    X(ERR_CANCELLED, -16, "stopped by the progress callback")                                      \
    X(ERR_NOT_FOUND, -20, "no such id, key or file")                                               \
    X(ERR_EXISTS, -21, "id, key or file already present")                                          \
    X(ERR_FULL, -22, "size limit reached")                                                         \
    X(ERR_QUOTA, -23, "tenant quota reached")                                                      \
    X(ERR_NOMEM, -30, "out of memory")                                                             \
    X(ERR_IO, -31, "input/output error")                                                           \
    X(ERR_BUSY, -32, "locked by another writer")                                                   \
    X(ERR_POISONED, -33, "an earlier write failed; reopen to recover")                             \
    X(ERR_FORKED, -34, "handle written to after fork")                                             \
    X(ERR_FORMAT, -40, "not a file of the expected format")                                        \
    X(ERR_VERSION, -41, "file is newer than this library")                                         \
    X(ERR_CORRUPT, -42, "checksum or structure check failed")                                      \
    X(ERR_BACKEND, -50, "the storage backend reported an error")                                   \
    X(ERR_INTERNAL, -90, "internal error")

typedef enum peri_status {
#define PERI_X(name, value, text) PERI_##name = (value),
    PERI_STATUS_MAP(PERI_X)
#undef PERI_X
        PERI_STATUS_FORCE_INT = INT32_MAX
} peri_status;

/** Static text for a status code, "unknown status" for any other number. Never NULL, never freed.
 *  Any thread. Since 0.1. */
PERI_API const char *peri_strerror(int status);

/** The name of a status code, "PERI_ERR_ARG" say; "" for any other number. Since 0.1. */
PERI_API const char *peri_status_name(int status);

/** What the last failing peri_ call on THIS thread knew beyond its code: the path, the offset, the
 *  expected and the actual value. "" if nothing. Valid until the next peri_ call on this thread;
 *  never freed. Successful calls leave it alone. Since 0.1. */
PERI_API const char *peri_error_detail(void);

/** Library version at run time, 0x00MMmmpp. Since 0.1. */
PERI_API uint32_t peri_version(void);

/** Name of the kernel level in use ("c", "avx2", "avx512", ...). The environment variable PERI_CPU
 *  caps it; it is read once. Since 0.1. */
PERI_API const char *peri_cpu_level(void);

/** Every system call that the library makes on files, in one table, so that a host can redirect
 *  them and a test can fail the n-th. Functions return 0 or a non-negative result, or -errno.
 *  `map` yields an address through *out. All are called with the table's ctx. Since 0.1. */
typedef struct peri_files {
    uint32_t struct_size;
    uint32_t reserved;
    void *ctx;
    int (*open)(void *ctx, const char *path, int flags, int mode);
    int (*close)(void *ctx, int fd);
    int64_t (*pread)(void *ctx, int fd, void *buf, size_t n, uint64_t offset);
    int64_t (*pwrite)(void *ctx, int fd, const void *buf, size_t n, uint64_t offset);
    int (*sync)(void *ctx, int fd);
    /** Size of a regular file; -EINVAL for anything else. */
    int64_t (*size)(void *ctx, int fd);
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*unlink)(void *ctx, const char *path);
    /** Make renames and unlinks in the directory that holds `path` durable. */
    int (*sync_dir)(void *ctx, const char *path);
    /** A private mapping of [0, n): copy-on-write when writable, else read-only. */
    int (*map)(void *ctx, int fd, size_t n, int writable, void **out);
    int (*unmap)(void *ctx, void *addr, size_t n);
    /** Make written data durable, and of the metadata only what reading it back needs. */
    int (*datasync)(void *ctx, int fd);
    /** Give [offset, offset + n) blocks on the disk, so that a later write there cannot find it
     *  full; the file grows to offset + n where it was shorter. */
    int (*allocate)(void *ctx, int fd, uint64_t offset, uint64_t n);
    /** A read-only mapping of [0, n) that shows what is written later; n may lie beyond the end of
     *  the file, as long as nobody touches what is not there yet. */
    int (*map_shared)(void *ctx, int fd, size_t n, void **out);
    /** Take (1) or give back (0) the exclusive lock of an open file description; -EAGAIN when
     *  another holds it, in this process or elsewhere. */
    int (*lock)(void *ctx, int fd, int take);
    int (*make_dir)(void *ctx, const char *path);
    /** n bytes of address space that nothing may touch yet; given back by unmap. */
    int (*reserve)(void *ctx, size_t n, void **out);
    /** A shared mapping of [offset, offset + n) over reserved address space: stores reach the file
     *  when writable. */
    int (*map_at)(void *ctx, void *addr, int fd, size_t n, uint64_t offset, int writable);
} peri_files;

/** The table of the operating system's own calls. Since 0.1. */
PERI_API const peri_files *peri_files_posix(void);

/** What a handle borrows from its host for life. Copied at open; what it points to must outlive
 *  the handle. */
typedef struct peri_env {
    uint32_t struct_size;
    uint32_t reserved;
    /** NULL = libc. align is a power of two; the size handed to free is that of the alloc. */
    void *(*alloc)(void *ctx, size_t size, size_t align);
    void (*free)(void *ctx, void *ptr, size_t size);
    void *alloc_ctx;
    const peri_files *files; /* NULL = peri_files_posix() */
} peri_env;

/* Inline on purpose: sizeof must be the CALLER's, or a newer library would write past the struct
 * that an older program allocated. */
static inline void peri_env_init(peri_env *e)
{
    memset(e, 0, sizeof *e);
    e->struct_size = (uint32_t)sizeof *e;
}

/** How a long call runs and reports. NULL = one thread, no limit, silent. */
typedef struct peri_task {
    uint32_t struct_size;
    uint32_t threads;      /* 0 = all cores this process may use, 1 = the calling thread only */
    uint64_t memory_limit; /* heap bytes that a put, maintain or open may add at its peak, else
                            * ERR_NOMEM; 0 = no limit */
    /** Called from the calling thread a few times a second and at the end of each phase; non-zero
     *  cancels: the call returns ERR_CANCELLED and what is done stays. May be NULL. */
    int (*progress)(void *ctx, const char *phase, uint64_t done, uint64_t total);
    void *progress_ctx;
} peri_task;

static inline void peri_task_init(peri_task *t)
{
    memset(t, 0, sizeof *t);
    t->struct_size = (uint32_t)sizeof *t;
}

/** Bytes lent to the library for one call. */
typedef struct peri_slice {
    const void *data;
    size_t size;
} peri_slice;

/** Bytes the caller owns and the library fills; grown by the library, reused across calls, freed
 *  by peri_buf_free. Start from all zeros. */
typedef struct peri_buf {
    void *data;
    size_t size;
    size_t capacity;
} peri_buf;

/** Free what the library put there and zero it. NULL and all zeros are fine. Since 0.1. */
PERI_API void peri_buf_free(peri_buf *b);

/** A set of 64-bit ids: built by one thread, immutable while a query uses it, then shared by any
 *  number of queries and threads. */
typedef struct peri_idset peri_idset;

/** An empty set. env may be NULL. Errors: ERR_NOMEM. Since 0.1. */
PERI_API peri_status peri_idset_create(peri_idset **out, const peri_env *env);
/** Add n ids; those already there are no error. All or nothing. Errors: ERR_ARG, ERR_NOMEM. */
PERI_API peri_status peri_idset_add(peri_idset *set, size_t n, const uint64_t *ids);
/** How many ids are in the set. */
PERI_API uint64_t peri_idset_count(const peri_idset *set);
/** 1 if the id is in the set, else 0. */
PERI_API int peri_idset_contains(const peri_idset *set, uint64_t id);
/** NULL is fine. No query may still be using it. */
PERI_API void peri_idset_close(peri_idset *set);

#ifdef __cplusplus
}
#endif
#endif
