/* The full structural proof of H1 to H6 and G1. */
#include "graph/graph_index.h"

peri_status pe_graph_reach(const peri_index *ix, uint32_t count, uint64_t *reached)
{
    const pe_graph *g = pe_graph_of(ix);
    pe_host *host = (pe_host *)(uintptr_t)&ix->host;
    uint32_t links[PE_DEGREE_MAX + 1];
    uint64_t entry = pe_graph_entry(g);
    if (entry == PE_GRAPH_NO_ENTRY || count == 0)
        return PERI_OK;
    uint32_t *queue = pe_alloc(host, count * sizeof *queue);
    if (!queue)
        return PERI_ERR_NOMEM;
    uint32_t from = pe_layer_slot(&g->layer[entry >> 32], (uint32_t)entry);
    size_t head = 0, tail = 0;
    if (from < count) {
        reached[from / 64] |= (uint64_t)1 << from % 64;
        queue[tail++] = from;
    }
    while (head < tail) {
        size_t n = pe_layer_copy(&g->layer[0], queue[head++], links);
        for (size_t i = 0; i < n; i++) {
            uint32_t to = links[i];
            uint64_t bit = (uint64_t)1 << to % 64;
            if (to >= count || (reached[to / 64] & bit))
                continue;
            reached[to / 64] |= bit;
            queue[tail++] = to;
        }
    }
    pe_free(host, queue, count * sizeof *queue);
    return PERI_OK;
}

typedef struct checker {
    const peri_index *ix;
    const pe_graph *g;
    uint64_t faults;
    const uint64_t *free_bits;
} checker;

static void fault(checker *c, const char *what, unsigned layer, uint32_t node, uint32_t value)
{
    if (c->faults++ == 0)
        pe_fail(PERI_ERR_CORRUPT, "layer %u node %u: %s (%u)", layer, node, what, value);
}

static int is_free(const checker *c, uint32_t slot)
{
    return (int)(c->free_bits[slot / 64] >> slot % 64 & 1);
}

static void check_list(checker *c, unsigned l, uint32_t node, uint32_t nodes)
{
    const pe_layer *layer = &c->g->layer[l];
    const pe_link *links = pe_layer_links(layer, node);
    uint32_t seen[PE_DEGREE_MAX], n = 0, same = 0;
    for (; n < layer->degree; n++) {
        uint32_t raw = pe_link_get(&links[n]), to = raw & ~PE_SAME;
        if (raw == PE_NIL)
            break;
        seen[n] = to;
        if (to >= nodes) {
            fault(c, "link beyond the layer", l, node, to);
            continue;
        }
        if (to == node)
            fault(c, "link to itself", l, node, to);
        uint32_t slot = pe_layer_slot(layer, to);
        /* Nodes that are about to be freed together may still lead to each other. */
        if ((slot == PE_NIL || is_free(c, slot)) &&
            !pe_slots_hidden(&c->ix->slots, pe_layer_slot(layer, node)))
            fault(c, "link to a freed node", l, node, to);
        if ((raw & PE_SAME) && (l || same++))
            fault(c, "a second chain", l, node, to);
        for (uint32_t i = 0; i < n; i++)
            if (seen[i] == to)
                fault(c, "link that stands twice", l, node, to);
    }
    for (uint32_t i = n; i < layer->degree; i++)
        if (pe_link_get(&links[i]) != PE_NIL) {
            fault(c, "link behind the end of the list", l, node, i);
            return;
        }
}

static void check_upper(checker *c, unsigned l)
{
    const pe_layer *layer = &c->g->layer[l];
    uint32_t slots = pe_slots_count(&c->ix->slots);
    for (uint32_t node = 0; node < layer->count; node++) {
        uint32_t slot = pe_layer_slot(layer, node), down = pe_layer_down(layer, node);
        if (slot == PE_NIL)
            continue;
        if (slot >= slots || is_free(c, slot)) {
            fault(c, "slot that is not there", l, node, slot);
            continue;
        }
        if (l == 1 ? down != slot
                   : down >= c->g->layer[l - 1].count ||
                         pe_layer_slot(&c->g->layer[l - 1], down) != slot)
            fault(c, "no node of the same slot below", l, node, down);
        check_list(c, l, node, layer->count);
    }
}

/* G4: the counts are right, and something leads to every live row but the entry. A ring of rows
 * that only lead to each other passes here; maintain finds and links it. */
static peri_status check_into(checker *c)
{
    const peri_index *ix = c->ix;
    const pe_layer *layer = &c->g->layer[0];
    pe_host *host = (pe_host *)(uintptr_t)&ix->host;
    uint32_t count = pe_slots_count(&ix->slots), links[PE_DEGREE_MAX + 1];
    uint64_t entry = pe_graph_entry(c->g);
    uint32_t entry_slot = entry == PE_GRAPH_NO_ENTRY
                              ? PE_NIL
                              : pe_layer_slot(&c->g->layer[entry >> 32], (uint32_t)entry);
    uint32_t *into = pe_calloc(host, ((size_t)count + 1) * sizeof *into);
    if (!into)
        return PERI_ERR_NOMEM;
    for (uint32_t slot = 0; slot < count; slot++) {
        size_t n = pe_layer_copy(layer, slot, links);
        for (size_t i = 0; i < n; i++)
            if (links[i] < count)
                into[links[i]]++;
    }
    for (uint32_t slot = 0; slot < count; slot++) {
        if (pe_slots_hidden(&ix->slots, slot) || slot == entry_slot)
            continue;
        if (into[slot] == 0)
            fault(c, "live row that no list leads to", 0, slot, slot);
        else if (!ix->readonly && pe_layer_into(layer, slot) < 255 &&
                 pe_layer_into(layer, slot) != into[slot])
            fault(c, "count of lists that lead here is wrong", 0, slot, into[slot]);
    }
    pe_free(host, into, ((size_t)count + 1) * sizeof *into);
    return PERI_OK;
}

static void check_entry(checker *c)
{
    uint64_t entry = pe_graph_entry(c->g);
    uint32_t level = (uint32_t)(entry >> 32), node = (uint32_t)entry;
    if (entry == PE_GRAPH_NO_ENTRY) {
        if (pe_slots_live(&c->ix->slots))
            fault(c, "no entry though there are rows", 0, 0, 0);
        return;
    }
    uint32_t nodes = level ? level < PE_GRAPH_LEVELS ? c->g->layer[level].count : 0
                           : pe_slots_count(&c->ix->slots);
    if (node >= nodes || pe_layer_slot(&c->g->layer[level], node) == PE_NIL)
        fault(c, "entry that is not there", level, node, nodes);
}

peri_status pe_graph_check(const peri_index *ix, pe_progress *progress, uint64_t *faults)
{
    const pe_graph *g = pe_graph_of(ix);
    pe_host *host = (pe_host *)(uintptr_t)&ix->host;
    uint32_t count = pe_slots_count(&ix->slots);
    size_t bytes = ((size_t)count / 64 + 1) * sizeof(uint64_t);
    uint64_t *free_bits = pe_calloc(host, bytes);
    if (!free_bits)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < ix->slots.n_free; i++)
        free_bits[ix->slots.free[i] / 64] |= (uint64_t)1 << ix->slots.free[i] % 64;
    checker c = {ix, g, 0, free_bits};
    for (unsigned l = 1; l < PE_GRAPH_LEVELS; l++)
        check_upper(&c, l);
    for (uint32_t slot = 0; slot < count; slot++) {
        if (!is_free(&c, slot))
            check_list(&c, 0, slot, count);
        if (slot % 4096 == 0 && pe_progress_add(progress, 0, 4096))
            break;
    }
    check_entry(&c);
    peri_status status = check_into(&c);
    pe_free(host, free_bits, bytes);
    *faults += c.faults;
    return status;
}
