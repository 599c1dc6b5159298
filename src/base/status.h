/* Statuses and the thread's error detail. */
#ifndef PE_STATUS_H
#define PE_STATUS_H

#include "perigee/base.h"

/* Record what the failing call knew and hand the status back, so that a check reads
 * `return pe_fail(PERI_ERR_ARG, "k is 0, expected 1 or more");`. The buffer is fixed: recording
 * an error never allocates. */
peri_status pe_fail(peri_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same for a failed system call: error is a positive errno, what names call and object. */
peri_status pe_fail_errno(int error, const char *what, const char *path);

/* Carry a detail from a worker thread to the thread that called. */
enum { PE_DETAIL_SIZE = 256 };
void pe_detail_copy(char out[PE_DETAIL_SIZE]);
void pe_detail_set(const char *detail);

#define PE_TRY(expr)                                                                               \
    do {                                                                                           \
        peri_status pe_try_status = (expr);                                                        \
        if (pe_try_status != PERI_OK)                                                              \
            return pe_try_status;                                                                  \
    } while (0)

#endif
