/* The checks of every level this CPU has, as a plain program: for qemu, and where cmocka is not. */
#include <stdio.h>

#include "kernels_checks.h"

int main(void)
{
    int failed = 0;
    const char *level;
    for (size_t i = 0; (level = pe_kernels_level_name(i)) != NULL; i++) {
        const pe_kernels *k = pe_kernels_level(level);
        if (!k) {
            printf("%s: not on this CPU\n", level);
            continue;
        }
        for (const kernels_check *c = KERNELS_CHECKS; c->name; c++) {
            const int n = kernels_check_run(c, k);
            printf("%s: %s: %s\n", level, c->name, n ? "FAILED" : "ok");
            failed |= n != 0;
        }
    }
    return failed;
}
