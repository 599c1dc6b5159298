/* Walking a peri_idset, for the library's own use. */
#ifndef PE_IDSET_H
#define PE_IDSET_H

#include "base/host.h"

/* Start with *cursor = 0; 0 when all ids were given, in no set order. */
int pe_idset_next(const peri_idset *set, size_t *cursor, uint64_t *id);

#endif
