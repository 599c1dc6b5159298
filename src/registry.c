/* The one file that names every index kind built in, and so sees every layer. */
#include "cascade/cascade.h"
#include "flat/flat.h"
#include "gwi/gwi.h"
#include "hnsw/hnsw.h"

const pe_kind *const pe_kinds[] = {&pe_flat_kind, &pe_hnsw_kind, &pe_gwi_kind, &pe_cascade_kind,
                                   NULL};

const pe_kind *pe_kind_by_tag(uint32_t tag)
{
    for (size_t i = 0; pe_kinds[i]; i++)
        if (pe_kinds[i]->tag == tag)
            return pe_kinds[i];
    return NULL;
}

const char *peri_cpu_level(void)
{
    return pe_kernels_get()->level;
}
