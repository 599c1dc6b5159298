/* What a handle borrowed from its host: the allocator, counted, and the file table. Every
 * allocation of the library goes through here, so that a test can fail the n-th. */
#ifndef PE_HOST_H
#define PE_HOST_H

#include "base/status.h"
#include <stdatomic.h>

typedef struct pe_host {
    void *(*alloc)(void *ctx, size_t size, size_t align);
    void (*free)(void *ctx, void *ptr, size_t size);
    void *alloc_ctx;
    const peri_files *files;
    _Atomic uint64_t heap;   /* bytes allocated and not freed */
    _Atomic uint64_t mapped; /* bytes of files mapped */
    _Atomic uint64_t limit;  /* heap may not pass this; 0 = no limit */
} pe_host;

enum { PE_ALIGN = 64, PE_HUGE = 2 << 20 };

/* env may be NULL. Errors: ERR_ARG when it is of no known size or half of a pair is missing. */
peri_status pe_host_init(pe_host *host, const peri_env *env);

/* NULL on failure, with the detail set; the caller returns PERI_ERR_NOMEM. size 0 is allowed and
 * yields a pointer that must be freed with size 0. */
void *pe_alloc_aligned(pe_host *host, size_t size, size_t align);
void *pe_alloc(pe_host *host, size_t size);  /* aligned to PE_ALIGN */
void *pe_calloc(pe_host *host, size_t size); /* zeroed */
void pe_free(pe_host *host, void *ptr, size_t size);

/* Until pe_host_unlimit: allocations that would add more than task->memory_limit to what there is
 * now fail. task may be NULL. */
void pe_host_limit(pe_host *host, const peri_task *task);
void pe_host_unlimit(pe_host *host);

/* Grow *ptr from old_count to at least new_count elements, by doubling; *count gets the new
 * capacity. On failure nothing changes. */
peri_status pe_grow(pe_host *host, void *ptr_to_ptr, size_t *count, size_t need, size_t elem);

/* Fill a caller's buffer, growing it with libc's realloc (peri_buf_free frees it). */
/* Room for `size` bytes in a caller's buffer; what it held is lost when it had to grow. */
peri_status pe_buf_room(peri_buf *b, size_t size);
peri_status pe_buf_set(peri_buf *b, const void *data, size_t size);

#endif
