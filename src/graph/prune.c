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

size_t pe_prune(const pe_pruner *p, const pe_cand *sorted, size_t n, size_t degree, size_t chosen,
                uint32_t *out)
{
    for (size_t i = 0; i < chosen; i++)
        p->chosen_slots[i] = pe_layer_slot(p->layer, out[i]);
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

/* The list is full: choose again among its links and the new one. What only this list leads to
 * stays, and so does a chain, as the last link. */
static void prune_list(const pe_pruner *p, uint32_t node, uint32_t *list, size_t n, uint32_t to,
                       float key)
{
    uint32_t slots[PE_DEGREE_MAX], kept[PE_DEGREE_MAX + 1], same = PE_NIL;
    float keys[PE_DEGREE_MAX];
    pe_cand c[PE_DEGREE_MAX + 1];
    size_t m = 0, degree = p->layer->degree, chosen = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i] & PE_SAME) {
            same = list[i];
            degree--;
            continue;
        }
        slots[m] = pe_layer_slot(p->layer, list[i]);
        list[m++] = list[i];
    }
    pe_point from = pe_view_point(p->rows, p->view, pe_layer_slot(p->layer, node), p->scratch);
    pe_view_keys(p->view, &from, slots, m, keys);
    n = 0;
    for (size_t i = 0; i < m; i++) {
        if (pe_layer_into(p->layer, list[i]) <= 1)
            kept[chosen++] = list[i];
        else
            c[n++] = (pe_cand){keys[i], list[i]};
    }
    c[n++] = (pe_cand){key, to};
    sort_small(c, n);
    chosen = pe_prune(p, c, n, degree, chosen, kept);
    if (same != PE_NIL)
        kept[chosen++] = same;
    pe_list_write(p->layer, node, kept, chosen);
}

void pe_link_add(const pe_pruner *p, pe_locks *locks, uint32_t node, uint32_t to, float key)
{
    uint32_t list[PE_DEGREE_MAX + 1];
    pe_lock(locks, node);
    size_t n = pe_list_read(p->layer, node, list), i = 0;
    while (i < n && (list[i] & ~PE_SAME) != to)
        i++;
    if (i == n && n == p->layer->degree) {
        prune_list(p, node, list, n, to, key);
    } else if (i == n) {
        list[n++] = to;
        pe_list_write(p->layer, node, list, n);
    }
    pe_unlock(locks, node);
}

/* The farthest link of a list, of those that others lead to as well when `shared`; n when none. */
static size_t farthest(const pe_layer *l, const uint32_t *list, size_t n, int shared)
{
    for (size_t i = n; i-- > 0;)
        if (!(list[i] & PE_SAME) && (!shared || pe_layer_into(l, list[i]) > 1))
            return i;
    return n;
}

/* A link may only be given up by handing its node on: `to` leads to it from then on. That may cost
 * `to` a link in turn; a few steps suffice in all but graphs of a handful of nodes. */
static int force(const pe_layer *l, pe_locks *locks, uint32_t node, uint32_t to, int replace,
                 int steps)
{
    uint32_t list[PE_DEGREE_MAX + 1], victim = PE_NIL;
    pe_lock(locks, node);
    size_t n = pe_list_read(l, node, list), i = 0, at = n;
    while (i < n && (list[i] & ~PE_SAME) != to)
        i++;
    int done = i < n;
    if (!done && n == l->degree && replace) {
        at = farthest(l, list, n, 1);
        if (at == n && (at = farthest(l, list, n, 0)) < n)
            victim = list[at];
    }
    if (!done && victim == PE_NIL && at < l->degree) {
        list[at] = to;
        pe_list_write(l, node, list, at == n ? n + 1 : n);
        done = 1;
    }
    pe_unlock(locks, node);
    if (victim == PE_NIL || victim == to || steps == 0 ||
        !force(l, locks, to, victim, 1, steps - 1))
        return done;
    return force(l, locks, node, to, 1, 0);
}

int pe_link_force(const pe_layer *l, pe_locks *locks, uint32_t node, uint32_t to, int replace)
{
    enum { STEPS = 6 };
    return force(l, locks, node, to, replace, STEPS);
}

void pe_link_same(const pe_layer *l, pe_locks *locks, uint32_t node, uint32_t to)
{
    uint32_t list[PE_DEGREE_MAX + 1], own[2] = {node, PE_NIL};
    pe_lock(locks, node);
    size_t n = pe_list_read(l, node, list), at = 0;
    while (at < n && !(list[at] & PE_SAME))
        at++;
    if (at < n) {
        own[1] = list[at];
    } else if (n < l->degree) {
        n++;
    } else if ((at = farthest(l, list, n, 1)) == n) {
        at = n - 1; /* what only this list leads to, the new member leads to instead */
        own[1] = list[at];
    }
    pe_list_write(l, to, own, own[1] == PE_NIL ? 1 : 2);
    list[at] = to | PE_SAME;
    pe_list_write(l, node, list, n);
    pe_unlock(locks, node);
}
