#include "flat/flat.h"

typedef struct flat {
    int nothing; /* a kind has a state; this one needs none */
} flat;

static peri_status init(peri_index *ix, const void *config)
{
    (void)ix;
    (void)config;
    return PERI_OK;
}

static void destroy(peri_index *ix)
{
    (void)ix;
}

static peri_status reserve(peri_index *ix, size_t slots, size_t rows, int exact, unsigned workers)
{
    (void)ix;
    (void)slots;
    (void)rows;
    (void)exact;
    (void)workers;
    return PERI_OK;
}

static peri_status insert(peri_index *ix, const uint32_t *slots, size_t n, pe_progress *progress,
                          unsigned workers, size_t *done)
{
    (void)ix;
    (void)slots;
    (void)workers;
    pe_progress_add(progress, 0, n);
    *done = n;
    return PERI_OK;
}

/* Nothing links to a slot: it is free as soon as no reader holds it. */
static void removed(peri_index *ix, uint32_t slot)
{
    pe_slots_release(&ix->slots, slot);
}

static peri_status save(const peri_index *ix, pe_segw *w, const uint32_t *renumber, uint32_t count)
{
    (void)ix;
    (void)w;
    (void)renumber;
    (void)count;
    return PERI_OK;
}

static peri_status flat_open(peri_index *ix, pe_segr *r, int map, int writable)
{
    (void)r;
    (void)map;
    if (!writable)
        return PERI_OK;
    uint32_t count = pe_slots_count(&ix->slots);
    PE_TRY(pe_epoch_reserve(&ix->epoch, count - pe_slots_live(&ix->slots)));
    for (uint32_t slot = 0; slot < count; slot++)
        if (pe_slots_dead(&ix->slots, slot))
            pe_slots_release(&ix->slots, slot);
    return PERI_OK;
}

static uint64_t check(const peri_index *ix, pe_progress *progress)
{
    (void)ix;
    (void)progress;
    return 0;
}

static void info(const peri_index *ix, peri_index_info *out)
{
    (void)ix;
    (void)out;
}

const pe_kind flat_kind = {
    .name = "flat",
    .tag = PE_FOURCC('F', 'L', 'A', 'T'),
    .caps = PERI_CAP_EXACT,
    .self_size = sizeof(flat),
    .init = init,
    .destroy = destroy,
    .reserve = reserve,
    .insert = insert,
    .removed = removed,
    .search = pe_exact_search,
    .search_many = flat_search_many,
    .save = save,
    .open = flat_open,
    .check = check,
    .info = info,
};

peri_status peri_flat_create(peri_index **out, const peri_space *space, const peri_env *env)
{
    return pe_index_create(out, &flat_kind, space, NULL, env);
}
