#define _GNU_SOURCE
#include "base/forkmark.h"

#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

void pe_forkmark_make(pe_forkmark *m)
{
    m->pid = (long)getpid();
    m->page = NULL;
#ifdef MADV_WIPEONFORK
    void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return;
    if (madvise(p, PAGE, MADV_WIPEONFORK) != 0) {
        munmap(p, PAGE);
        return;
    }
    *(unsigned char *)p = 1;
    m->page = p;
#endif
}

void pe_forkmark_free(pe_forkmark *m)
{
    if (m->page)
        munmap((void *)(uintptr_t)m->page, PAGE);
    m->page = NULL;
}

int pe_forkmark_slow(const pe_forkmark *m)
{
    return m->pid != (long)getpid();
}
