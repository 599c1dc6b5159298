/* Whether this process is a child of the one that made the mark, without a system call: a page that
 * the kernel hands to children zeroed (MADV_WIPEONFORK). getpid() is the alternative and costs a
 * tenth of a put; a handler of pthread_atfork would be global and could not be taken back. */
#ifndef PE_FORKMARK_H
#define PE_FORKMARK_H

#include "base/status.h"

typedef struct pe_forkmark {
    const volatile unsigned char *page; /* NULL: the kernel cannot; pid says it then */
    long pid;
} pe_forkmark;

void pe_forkmark_make(pe_forkmark *m);
void pe_forkmark_free(pe_forkmark *m);
int pe_forkmark_slow(const pe_forkmark *m);

/* 1 in a child of the process that made the mark. */
static inline int pe_forked(const pe_forkmark *m)
{
    return m->page ? *m->page == 0 : pe_forkmark_slow(m);
}

#endif
