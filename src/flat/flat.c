#include "flat/flat.h"

/* Nothing but rows: insertion, removal, saving and opening are the handle's own. */
const pe_kind pe_flat_kind = {
    .name = "flat",
    .tag = PE_FOURCC('F', 'L', 'A', 'T'),
    .caps = PERI_CAP_EXACT,
    .search = pe_exact_search,
    .search_many = pe_flat_search_many,
};

peri_status peri_flat_create(peri_index **out, const peri_space *space, const peri_env *env)
{
    return pe_index_create(out, &pe_flat_kind, space, NULL, env);
}
