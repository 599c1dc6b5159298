/* Queries of any shape, window by window: the tree is worked out on bit sets of the window's
 * documents, one set for each level; then the terms that count are added up, and the documents that
 * match are looked at. Phrases take the documents that hold all their words and walk the positions
 * of these alone. */
#include "text/text.h"

enum { WORDS = PE_PAGE_WORDS };

/* ---- room ---- */

static peri_status measure(const pe_find *f, uint32_t node, size_t *levels, size_t *items)
{
    const pe_tree *t = &f->s->tree;
    const pe_node *n = &t->nodes[node];
    *levels = 1;
    if (n->kind == PE_NODE_PHRASE) {
        if (!f->ix->positions)
            return pe_fail(PERI_ERR_UNSUPPORTED,
                           "a phrase needs positions, which this index does not keep");
        *levels = 2;
        *items = n->n > *items ? n->n : *items;
    }
    for (uint32_t c = n->child; c != PE_NO_NODE; c = t->nodes[c].next) {
        size_t below = 0;
        PE_TRY(measure(f, c, &below, items));
        *levels = below + 1 > *levels ? below + 1 : *levels;
    }
    return PERI_OK;
}

peri_status pe_match_prepare(pe_find *f)
{
    pe_text_scratch *s = f->s;
    size_t levels = 0, items = 0;
    PE_TRY(measure(f, s->tree.root, &levels, &items));
    PE_TRY(pe_grow(s->host, &s->bits, &s->bits_room, (levels + 1) * WORDS, sizeof *s->bits));
    return pe_grow(s->host, &s->spots, &s->spots_room, items, sizeof *s->spots);
}

/* ---- phrases ---- */

/* Move to a document's posting, over the gaps of those before. */
static void move_to(const pe_leaf *l, pe_spot *spot, uint32_t local)
{
    const pe_list *list = &l->at.list;
    uint32_t skip = 0;
    while (list->ids[spot->at] != local)
        skip += pe_list_count(list, spot->at++);
    if (list->each) {
        spot->gaps = list->each[spot->at];
        return;
    }
    for (; skip; spot->gaps++) /* a number ends with a byte below 128 */
        skip -= *spot->gaps < 0x80;
}

/* Of the n starts in s->starts keep those after which this word stands where it must. */
static size_t keep_starts(pe_text_scratch *s, const pe_leaf *l, const pe_spot *spot, size_t n)
{
    const unsigned char *p = spot->gaps;
    uint32_t left = pe_list_count(&l->at.list, spot->at), position = 0;
    size_t kept = 0, i = 0;
    for (; left && i < n; left--) {
        position += pe_varint(&p);
        while (i < n && s->starts[i] + spot->position < position)
            i++;
        if (i < n && s->starts[i] + spot->position == position)
            s->starts[kept++] = s->starts[i++];
    }
    return kept;
}

/* 1 when the words stand in order somewhere in the document. */
static peri_status holds_phrase(pe_find *f, uint32_t items, uint32_t local, int *holds)
{
    pe_text_scratch *s = f->s;
    pe_spot *first = &s->spots[0];
    const pe_leaf *l = &s->leaves[first->leaf];
    move_to(l, first, local);
    uint32_t n = pe_list_count(&l->at.list, first->at), position = 0;
    size_t starts = 0;
    PE_TRY(pe_grow(s->host, &s->starts, &s->starts_room, n, sizeof *s->starts));
    const unsigned char *p = first->gaps;
    for (uint32_t i = 0; i < n; i++) {
        position += pe_varint(&p);
        if (position >= first->position)
            s->starts[starts++] = position - first->position;
    }
    for (uint32_t i = 1; i < items && starts; i++) {
        move_to(&s->leaves[s->spots[i].leaf], &s->spots[i], local);
        starts = keep_starts(s, &s->leaves[s->spots[i].leaf], &s->spots[i], starts);
    }
    *holds = starts != 0;
    return PERI_OK;
}

/* Item by item where the words' runs begin; 0 when one has none in this window. */
static int place_spots(pe_find *f, const pe_node *node)
{
    pe_text_scratch *s = f->s;
    for (uint32_t i = 0; i < node->n; i++) {
        const pe_query_item *item = &s->tree.items[node->first + i];
        if (s->spans[2 * item->term] == s->spans[2 * item->term + 1])
            return 0;
        uint32_t leaf = s->expanded[s->spans[2 * item->term]];
        const pe_leaf *l = &s->leaves[leaf];
        if (l->n == 0)
            return 0;
        s->spots[i] = (pe_spot){.leaf = leaf, .at = l->at.first, .position = item->position};
        if (l->at.list.positions)
            s->spots[i].gaps = l->at.list.positions + l->at.list.run_positions[l->at.run];
    }
    return 1;
}

static void set_leaf(const pe_leaf *l, uint64_t *bits)
{
    const uint16_t *ids = l->at.list.ids + l->at.first;
    for (uint32_t i = 0; i < l->n; i++)
        bits[ids[i] / 64] |= (uint64_t)1 << (ids[i] % 64);
}

static peri_status match_phrase(pe_find *f, const pe_node *node, uint64_t *bits)
{
    pe_text_scratch *s = f->s;
    uint64_t *word = bits + WORDS;
    memset(bits, 0, WORDS * sizeof *bits);
    if (!place_spots(f, node))
        return PERI_OK;
    set_leaf(&s->leaves[s->spots[0].leaf], bits);
    for (uint32_t i = 1; i < node->n; i++) {
        memset(word, 0, WORDS * sizeof *word);
        set_leaf(&s->leaves[s->spots[i].leaf], word);
        for (unsigned w = 0; w < WORDS; w++)
            bits[w] &= word[w];
    }
    for (unsigned w = 0; w < WORDS; w++)
        for (uint64_t rest = bits[w]; rest; rest &= rest - 1) {
            int holds = 0;
            PE_TRY(holds_phrase(f, node->n, w * 64 + (uint32_t)__builtin_ctzll(rest), &holds));
            if (!holds)
                bits[w] &= ~(rest & -rest);
        }
    return PERI_OK;
}

/* ---- the tree ---- */

static int is_empty(const uint64_t *bits)
{
    uint64_t any = 0;
    for (unsigned w = 0; w < WORDS; w++)
        any |= bits[w];
    return any == 0;
}

static void combine(pe_node_kind kind, uint64_t *bits, const uint64_t *other)
{
    for (unsigned w = 0; w < WORDS; w++)
        bits[w] = kind == PE_NODE_AND  ? bits[w] & other[w]
                  : kind == PE_NODE_OR ? bits[w] | other[w]
                                       : bits[w] & ~other[w];
}

static peri_status match(pe_find *f, uint32_t at, uint64_t *bits)
{
    const pe_text_scratch *s = f->s;
    const pe_node *node = &s->tree.nodes[at];
    if (node->kind == PE_NODE_PHRASE)
        return match_phrase(f, node, bits);
    if (node->kind <= PE_NODE_PREFIX) {
        memset(bits, 0, WORDS * sizeof *bits);
        for (uint32_t i = s->spans[2 * node->first]; i < s->spans[2 * node->first + 1]; i++)
            if (s->leaves[s->expanded[i]].n)
                set_leaf(&s->leaves[s->expanded[i]], bits);
        return PERI_OK;
    }
    PE_TRY(match(f, node->child, bits));
    for (uint32_t c = s->tree.nodes[node->child].next; c != PE_NO_NODE; c = s->tree.nodes[c].next) {
        if (node->kind != PE_NODE_OR && is_empty(bits))
            return PERI_OK;
        PE_TRY(match(f, c, bits + WORDS));
        combine(node->kind, bits, bits + WORDS);
    }
    return PERI_OK;
}

peri_status pe_match_part(pe_find *f)
{
    pe_text_scratch *s = f->s;
    uint32_t windows = pe_part_windows(f->part);
    for (uint32_t window = 0; window < windows; window++) {
        int64_t bound;
        if (pe_find_barred(f, window))
            continue;
        uint32_t n = pe_find_window(f, window, &bound), base = window << PE_WINDOW_SHIFT;
        if (bound < f->need)
            continue;
        PE_TRY(match(f, s->tree.root, s->bits));
        if (f->accepted)
            combine(PE_NODE_AND, s->bits, f->accepted + (size_t)window * WORDS);
        if (is_empty(s->bits))
            continue;
        for (uint32_t i = 0; i < n; i++)
            if (s->leaves[s->order[i]].count)
                pe_scan_add(f, &s->leaves[s->order[i]], window);
        for (unsigned w = 0; w < WORDS; w++)
            for (uint64_t rest = s->bits[w]; rest; rest &= rest - 1) {
                uint32_t local = w * 64 + (uint32_t)__builtin_ctzll(rest);
                if (s->sums[local] >= f->need)
                    pe_find_push(f, s->sums[local], base + local);
            }
        memset(s->sums, 0, sizeof s->sums);
    }
    return PERI_OK;
}
