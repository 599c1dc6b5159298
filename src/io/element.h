/* The element types that files hold: names, sizes, and the way to f32 and to ids and back.
 *
 * Everything here works on packed elements in the machine's byte order; the readers swap what
 * comes the other way round. */
#ifndef PE_ELEMENT_H
#define PE_ELEMENT_H

#include "perigee/io.h"

#include <stddef.h>

/* The library runs on little-endian machines only; files may be either. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian machines only");

/* 0 for a number that is no element type. */
size_t pe_element_size(uint32_t element);
int pe_element_is_integer(uint32_t element);

/* Each converts n elements and returns how many it could: n, or the index of the first that the
 * target cannot hold. */
size_t pe_element_to_float(uint32_t element, const void *in, size_t n, float *out);
size_t pe_element_to_ids(uint32_t element, const void *in, size_t n, uint64_t *out);
size_t pe_element_from_float(uint32_t element, const float *in, size_t n, void *out);
size_t pe_element_from_ids(uint32_t element, const uint64_t *in, size_t n, void *out);

/* Element i as text, for messages. */
void pe_element_print(uint32_t element, const void *in, size_t i, char out[32]);

/* Reverse the bytes of n elements in place. */
void pe_element_swap(size_t size, void *data, size_t n);

#endif
