#define _GNU_SOURCE
#include "base/host.h"
#include "base/checked.h"
#include "base/file.h"

#include <stdlib.h>
#include <sys/mman.h>

static void *libc_alloc(void *ctx, size_t size, size_t align)
{
    (void)ctx;
    void *p = NULL;
    if (align < sizeof(void *))
        align = sizeof(void *);
    return posix_memalign(&p, align, size ? size : 1) == 0 ? p : NULL;
}

static void libc_free(void *ctx, void *ptr, size_t size)
{
    (void)ctx;
    (void)size;
    free(ptr);
}

peri_status pe_host_init(pe_host *host, const peri_env *env)
{
    memset(host, 0, sizeof *host);
    host->alloc = libc_alloc;
    host->free = libc_free;
    host->files = peri_files_posix();
    if (!env)
        return PERI_OK;
    if (env->struct_size < sizeof *env)
        return pe_fail(PERI_ERR_ARG, "peri_env.struct_size is %u, expected %zu or more",
                       env->struct_size, sizeof *env);
    if (!env->alloc != !env->free)
        return pe_fail(PERI_ERR_ARG, "peri_env: alloc and free come together or not at all");
    if (env->alloc) {
        host->alloc = env->alloc;
        host->free = env->free;
        host->alloc_ctx = env->alloc_ctx;
    }
    if (env->files) {
        if (env->files->struct_size < sizeof(peri_files))
            return pe_fail(PERI_ERR_ARG, "peri_files.struct_size is %u, expected %zu or more",
                           env->files->struct_size, sizeof(peri_files));
        host->files = env->files;
    }
    return PERI_OK;
}

void *pe_alloc_aligned(pe_host *host, size_t size, size_t align)
{
    uint64_t limit = atomic_load_explicit(&host->limit, memory_order_relaxed);
    uint64_t heap = atomic_load_explicit(&host->heap, memory_order_relaxed);
    if (limit && heap + size > limit) {
        pe_fail(PERI_ERR_NOMEM, "%zu bytes more would pass the memory limit of this call", size);
        return NULL;
    }
    void *p = host->alloc(host->alloc_ctx, size, align);
    if (!p) {
        pe_fail(PERI_ERR_NOMEM, "could not allocate %zu bytes", size);
        return NULL;
    }
    if (align >= PE_HUGE && size >= PE_HUGE)
        madvise(p, size & ~(size_t)(PE_HUGE - 1), MADV_HUGEPAGE); /* a hint; refusal is fine */
    atomic_fetch_add_explicit(&host->heap, size, memory_order_relaxed);
    return p;
}

void *pe_alloc(pe_host *host, size_t size)
{
    return pe_alloc_aligned(host, size, PE_ALIGN);
}

void *pe_calloc(pe_host *host, size_t size)
{
    void *p = pe_alloc(host, size);
    if (p)
        memset(p, 0, size);
    return p;
}

void pe_free(pe_host *host, void *ptr, size_t size)
{
    if (!ptr)
        return;
    atomic_fetch_sub_explicit(&host->heap, size, memory_order_relaxed);
    host->free(host->alloc_ctx, ptr, size);
}

void pe_host_limit(pe_host *host, const peri_task *task)
{
    uint64_t heap = atomic_load_explicit(&host->heap, memory_order_relaxed);
    if (task && task->memory_limit && task->memory_limit < UINT64_MAX - heap)
        atomic_store_explicit(&host->limit, heap + task->memory_limit, memory_order_relaxed);
}

void pe_host_unlimit(pe_host *host)
{
    atomic_store_explicit(&host->limit, 0, memory_order_relaxed);
}

peri_status pe_grow(pe_host *host, void *ptr_to_ptr, size_t *count, size_t need, size_t elem)
{
    if (need <= *count)
        return PERI_OK;
    void *old;
    memcpy(&old, ptr_to_ptr, sizeof old);
    size_t want = *count + *count / 2, bytes;
    if (want < need)
        want = need;
    if (want < 8)
        want = 8;
    if (pe_mul_size(want, elem, &bytes))
        return pe_fail(PERI_ERR_NOMEM, "%zu elements of %zu bytes overflow", want, elem);
    void *fresh = pe_alloc(host, bytes);
    if (!fresh)
        return PERI_ERR_NOMEM;
    if (old) {
        memcpy(fresh, old, *count * elem);
        pe_free(host, old, *count * elem);
    }
    memcpy(ptr_to_ptr, &fresh, sizeof fresh);
    *count = want;
    return PERI_OK;
}

peri_status pe_buf_room(peri_buf *b, size_t size)
{
    if (size <= b->capacity && b->data)
        return PERI_OK;
    void *p = realloc(b->data, size ? size : 1);
    if (!p)
        return pe_fail(PERI_ERR_NOMEM, "could not allocate %zu bytes", size);
    b->data = p;
    b->capacity = size;
    return PERI_OK;
}

peri_status pe_buf_set(peri_buf *b, const void *data, size_t size)
{
    PE_TRY(pe_buf_room(b, size));
    if (size)
        memcpy(b->data, data, size);
    b->size = size;
    return PERI_OK;
}

void peri_buf_free(peri_buf *b)
{
    if (!b)
        return;
    free(b->data);
    memset(b, 0, sizeof *b);
}
