#include "graph/graph.h"

/* Is the candidate nearer to one of the chosen than to the point, by alpha? Checked in groups, so
 * that the kernel runs on several rows at once; most candidates fall in the first. */
static int covered(const pe_pruner *p, pe_cand c, size_t chosen)
{
    enum { GROUP = 8 };
    float keys[GROUP];
    pe_point from = pe_view_point(p->rows, p->view, pe_layer_slot(p->layer, c.slot), p->scratch);
    float reach = c.d + p->view->offset;
    for (size_t i = 0; i < chosen; i += GROUP) {
        size_t n = chosen - i < GROUP ? chosen - i : GROUP;
        pe_view_keys(p->view, &from, p->chosen_slots + i, n, keys);
        for (size_t j = 0; j < n; j++)
            if (p->alpha * (keys[j] + p->view->offset) < reach)
                return 1;
    }
    return 0;
}

size_t pe_prune(const pe_pruner *p, const pe_cand *sorted, size_t n, size_t degree, uint32_t *out)
{
    size_t chosen = 0;
    for (size_t i = 0; i < n && chosen < degree; i++) {
        if (chosen && covered(p, sorted[i], chosen))
            continue;
        p->chosen_slots[chosen] = pe_layer_slot(p->layer, sorted[i].slot);
        out[chosen++] = sorted[i].slot;
    }
    return chosen;
}

static void sort_small(pe_cand *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        pe_cand x = c[i];
        size_t j = i;
        for (; j > 0 && pe_cand_before(x, c[j - 1]); j--)
            c[j] = c[j - 1];
        c[j] = x;
    }
}

/* The list is full: choose again among its links and the new one. A chain mark stays where it is,
 * as the last link. */
static void prune_list(const pe_pruner *p, uint32_t node, pe_link *links, uint32_t to, float key)
{
    uint32_t old[PE_DEGREE_MAX], slots[PE_DEGREE_MAX], kept[PE_DEGREE_MAX];
    float keys[PE_DEGREE_MAX];
    pe_cand c[PE_DEGREE_MAX + 1];
    uint32_t same = PE_NIL;
    size_t n = 0, degree = p->layer->degree;
    for (uint32_t i = 0; i < p->layer->degree; i++) {
        uint32_t link = pe_link_get(&links[i]);
        if (link == PE_NIL)
            break;
        if (link & PE_SAME) {
            same = link;
            degree--;
            continue;
        }
        slots[n] = pe_layer_slot(p->layer, link);
        old[n++] = link;
    }
    pe_point from = pe_view_point(p->rows, p->view, pe_layer_slot(p->layer, node), p->scratch);
    pe_view_keys(p->view, &from, slots, n, keys);
    for (size_t i = 0; i < n; i++)
        c[i] = (pe_cand){keys[i], old[i]};
    c[n++] = (pe_cand){key, to};
    sort_small(c, n);
    size_t kept_n = pe_prune(p, c, n, degree, kept);
    for (size_t i = 0; i < kept_n; i++)
        pe_link_set(&links[i], kept[i]);
    if (same != PE_NIL)
        pe_link_set(&links[kept_n++], same);
    for (size_t i = kept_n; i < p->layer->degree; i++)
        pe_link_set(&links[i], PE_NIL);
}

void pe_link_add(const pe_pruner *p, pe_locks *locks, uint32_t node, uint32_t to, float key)
{
    pe_link *links = pe_layer_links(p->layer, node);
    pe_lock(locks, node);
    uint32_t i = 0;
    for (; i < p->layer->degree; i++) {
        uint32_t link = pe_link_get(&links[i]);
        if (link == PE_NIL || (link & ~PE_SAME) == to)
            break;
    }
    if (i == p->layer->degree)
        prune_list(p, node, links, to, key);
    else if (pe_link_get(&links[i]) == PE_NIL)
        pe_link_set(&links[i], to);
    pe_unlock(locks, node);
}

int pe_link_force(const pe_layer *l, pe_locks *locks, uint32_t node, uint32_t to, int replace)
{
    pe_link *links = pe_layer_links(l, node);
    pe_lock(locks, node);
    uint32_t i = 0, last = PE_NIL;
    for (; i < l->degree; i++) {
        uint32_t link = pe_link_get(&links[i]);
        if (link == PE_NIL || (link & ~PE_SAME) == to)
            break;
        last = link & PE_SAME ? last : i;
    }
    int done = 1;
    if (i < l->degree)
        pe_link_set(&links[i], pe_link_get(&links[i]) == PE_NIL ? to : pe_link_get(&links[i]));
    else if (replace && last != PE_NIL)
        pe_link_set(&links[last], to);
    else
        done = 0;
    pe_unlock(locks, node);
    return done;
}

void pe_link_same(const pe_layer *l, pe_locks *locks, uint32_t node, uint32_t to)
{
    pe_link *links = pe_layer_links(l, node), *own = pe_layer_links(l, to);
    pe_lock(locks, node);
    uint32_t i = 0;
    while (i < l->degree - 1) {
        uint32_t link = pe_link_get(&links[i]);
        if (link == PE_NIL || (link & PE_SAME))
            break;
        i++;
    }
    uint32_t next = pe_link_get(&links[i]);
    pe_link_set(&own[0], node);
    if (next != PE_NIL && (next & PE_SAME))
        pe_link_set(&own[1], next);
    pe_link_set(&links[i], to | PE_SAME); /* of a full list the farthest link goes */
    pe_unlock(locks, node);
}
