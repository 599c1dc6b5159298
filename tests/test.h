/* cmocka, once: as a system header, with what it wants before it. */
#ifndef PE_TEST_H
#define PE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
