/* Connectivity: every node is reached from the entry.
 *
 * Pruning is one-sided: all neighbours of a row may in time drop their link to it, which happens to
 * a few rows in ten thousand, and to more where some rows are everybody's neighbour. A walk finds
 * them; each is then linked from the nearest reached nodes that have room, or in place of the
 * nearest one's farthest link. */
#include "graph/graph_index.h"

enum { ROUNDS = 8 };

void pe_graph_link_back(peri_index *ix, uint32_t slot)
{
    pe_graph *g = pe_graph_of(ix);
    pe_graph_worker *w = &g->workers[0];
    pe_view view = pe_graph_build_view(ix);
    pe_point p = pe_view_point(&ix->rows, &view, slot, w->scratch);
    pe_graph_find(ix, w, &view, &p, slot);
    const pe_beam *b = &w->beam;
    for (int replace = 0; replace < 2; replace++)
        for (size_t i = 0; i < b->n; i++)
            if (b->node[i] != slot && !pe_graph_is_gone(g, b->node[i]) &&
                pe_link_force(&g->layer[0], &g->locks, b->node[i], slot, replace))
                return;
}

void pe_graph_link_orphans(peri_index *ix, uint32_t count)
{
    const pe_graph *g = pe_graph_of(ix);
    uint64_t entry = pe_graph_entry(g);
    if (entry == PE_GRAPH_NO_ENTRY)
        return;
    uint32_t first = pe_layer_slot(&g->layer[entry >> 32], (uint32_t)entry);
    for (uint32_t slot = 0; slot < count; slot++)
        if (pe_layer_into(&g->layer[0], slot) == 0 && slot != first && !pe_graph_is_gone(g, slot))
            pe_graph_link_back(ix, slot);
}

static size_t connect_round(peri_index *ix, uint32_t count, const uint64_t *reached)
{
    const pe_graph *g = pe_graph_of(ix);
    size_t lost = 0;
    for (uint32_t slot = 0; slot < count; slot++) {
        if ((reached[slot / 64] >> slot % 64 & 1) || pe_graph_is_gone(g, slot))
            continue;
        lost++;
        pe_graph_link_back(ix, slot);
    }
    return lost;
}

peri_status pe_graph_connect(peri_index *ix, uint32_t count)
{
    pe_graph *g = pe_graph_of(ix);
    size_t words = (size_t)count / 64 + 1, lost = 1;
    if (pe_graph_entry(g) == PE_GRAPH_NO_ENTRY)
        return PERI_OK;
    PE_TRY(pe_beam_reserve(&g->workers[0].beam, (uint32_t)g->layer[0].nodes.capacity,
                           g->ef_construction, 0));
    uint64_t *reached = pe_alloc(&ix->host, words * sizeof *reached);
    if (!reached)
        return PERI_ERR_NOMEM;
    peri_status status = PERI_OK;
    /* A forced link may cost another row its only one: look again. */
    for (int round = 0; round < ROUNDS && lost && status == PERI_OK; round++) {
        memset(reached, 0, words * sizeof *reached);
        status = pe_graph_reach(ix, count, reached);
        if (status == PERI_OK)
            lost = connect_round(ix, count, reached);
    }
    pe_free(&ix->host, reached, words * sizeof *reached);
    return status;
}
