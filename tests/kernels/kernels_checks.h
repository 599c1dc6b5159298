/* Checks that any level of the kernels must pass, shared by the cmocka test and by the plain main
 * that runs under qemu. */
#ifndef PE_TEST_KERNELS_CHECKS_H
#define PE_TEST_KERNELS_CHECKS_H

#include "kernels/kernels.h"

typedef struct kernels_check {
    const char *name;
    void (*run)(const pe_kernels *k);
} kernels_check;

/* Ends with a NULL name. */
extern const kernels_check KERNELS_CHECKS[];

/* Runs one; the number of failures, of which the first few are told on stderr. */
int kernels_check_run(const kernels_check *check, const pe_kernels *k);

#endif
