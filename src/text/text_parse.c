/* The query language, by recursive descent; its depth is bounded, so the stack is.
 *
 *      either  = both { OR both }
 *      both    = list { AND list }
 *      list    = item { item }              joined as the query says
 *      item    = [ NOT ] ( "(" either ")" | phrase | word | word "*" )
 *
 * NOT takes out of its list, or out of all that AND joins with it. A word that the analyser drops
 * (a stop word, a lone hyphen) leaves no trace: `the cat` asks for cat, whatever joins them. */
#include "text/text_query.h"
#include "base/rng.h"

typedef struct parser {
    pe_tree *t;
    const pe_analyser *a;
    const char *s;
    size_t n, at;
    unsigned depth;
    unsigned muted; /* inside so many NOT */
    uint32_t join;
    uint32_t phrase; /* the node that words go to, PE_NO_NODE: the list */
    uint32_t list;   /* the list under way */
    int prefix;
} parser;

/* ---- the tree ---- */

static peri_status new_node(pe_tree *t, pe_node_kind kind, uint32_t *out)
{
    PE_TRY(pe_grow(t->host, &t->nodes, &t->nodes_room, t->n_nodes + 1, sizeof *t->nodes));
    t->nodes[t->n_nodes] =
        (pe_node){.kind = kind, .child = PE_NO_NODE, .last = PE_NO_NODE, .next = PE_NO_NODE};
    *out = (uint32_t)t->n_nodes++;
    return PERI_OK;
}

static void append(pe_tree *t, uint32_t parent, uint32_t child)
{
    pe_node *p = &t->nodes[parent], *c = &t->nodes[child];
    /* OR of OR is one OR, and the same with AND: what is flat is searched faster. */
    int splice = c->kind == p->kind && (c->kind == PE_NODE_AND || c->kind == PE_NODE_OR);
    uint32_t first = splice ? c->child : child, last = splice ? c->last : child;
    if (p->child == PE_NO_NODE)
        p->child = first;
    else
        t->nodes[p->last].next = first;
    p->last = last;
}

/* A group of one is its member, a group of none is nothing. */
static uint32_t settle(const pe_tree *t, uint32_t group)
{
    uint32_t child = t->nodes[group].child;
    if (child == PE_NO_NODE || t->nodes[child].next != PE_NO_NODE)
        return child == PE_NO_NODE ? PE_NO_NODE : group;
    return child;
}

static uint64_t hash_term(const char *text, size_t size, int prefix)
{
    uint64_t h = size * 2 + (unsigned)prefix;
    for (size_t i = 0; i < size; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return pe_mix64(h);
}

static peri_status grow_table(pe_tree *t)
{
    size_t size = t->table_size ? t->table_size * 2 : 64;
    uint32_t *table = pe_calloc(t->host, size * sizeof *table);
    if (!table)
        return PERI_ERR_NOMEM;
    for (size_t i = 0; i < t->n_terms; i++) {
        const pe_query_term *q = &t->terms[i];
        size_t at = (size_t)hash_term(t->bytes + q->text, q->size, (int)q->prefix) & (size - 1);
        while (table[at])
            at = (at + 1) & (size - 1);
        table[at] = (uint32_t)i + 1;
    }
    pe_free(t->host, t->table, t->table_size * sizeof *t->table);
    t->table = table;
    t->table_size = size;
    return PERI_OK;
}

static peri_status find_term(pe_tree *t, const char *text, size_t size, int prefix, uint32_t *out)
{
    if (2 * (t->n_terms + 1) > t->table_size)
        PE_TRY(grow_table(t));
    size_t at = (size_t)hash_term(text, size, prefix) & (t->table_size - 1);
    for (; t->table[at]; at = (at + 1) & (t->table_size - 1)) {
        const pe_query_term *q = &t->terms[t->table[at] - 1];
        if (q->size == size && (int)q->prefix == prefix &&
            memcmp(t->bytes + q->text, text, size) == 0) {
            *out = t->table[at] - 1;
            return PERI_OK;
        }
    }
    if (t->n_terms >= PERI_QUERY_TERMS)
        return pe_fail(PERI_ERR_ARG, "the query has more than %d distinct terms", PERI_QUERY_TERMS);
    PE_TRY(pe_grow(t->host, &t->terms, &t->terms_room, t->n_terms + 1, sizeof *t->terms));
    PE_TRY(pe_grow(t->host, &t->bytes, &t->bytes_room, t->n_bytes + size, 1));
    memcpy(t->bytes + t->n_bytes, text, size);
    t->terms[t->n_terms] =
        (pe_query_term){(uint32_t)t->n_bytes, (uint32_t)size, 0, (uint32_t)prefix};
    t->n_bytes += size;
    *out = (uint32_t)t->n_terms++;
    t->table[at] = *out + 1;
    return PERI_OK;
}

/* ---- words ---- */

/* A term from the analyser: an item of the phrase, or a node of the list. */
static peri_status take_token(void *ctx, const pe_token *token)
{
    parser *p = ctx;
    pe_tree *t = p->t;
    uint32_t term = 0, node;
    PE_TRY(find_term(t, token->text, token->size, 0, &term));
    if (p->muted == 0)
        t->terms[term].count++;
    if (p->phrase != PE_NO_NODE) {
        PE_TRY(pe_grow(t->host, &t->items, &t->items_room, t->n_items + 1, sizeof *t->items));
        t->items[t->n_items++] = (pe_query_item){term, token->position};
        t->nodes[p->phrase].n++;
        return PERI_OK;
    }
    PE_TRY(new_node(t, PE_NODE_TERM, &node));
    t->nodes[node].first = term;
    append(t, p->list, node);
    return PERI_OK;
}

/* Of a word before a star all but the last token are plain terms. */
typedef struct last_token {
    parser *p;
    char text[PE_TERM_MAX];
    size_t size;
} last_token;

static peri_status take_prefix(void *ctx, const pe_token *token)
{
    last_token *l = ctx;
    if (l->size) {
        pe_token earlier = {l->text, l->size, 0};
        PE_TRY(take_token(l->p, &earlier));
    }
    memcpy(l->text, token->text, token->size);
    l->size = token->size;
    return PERI_OK;
}

static peri_status parse_prefix(parser *p, peri_slice word, uint32_t *out)
{
    last_token l = {.p = p};
    uint32_t position = 0, term = 0, node;
    PE_TRY(new_node(p->t, PE_NODE_AND, &p->list));
    uint32_t list = p->list;
    PE_TRY(pe_analyse(p->a, word, PE_ANALYSE_PREFIX, &position, take_prefix, &l));
    if (l.size) {
        PE_TRY(find_term(p->t, l.text, l.size, 1, &term));
        if (p->muted == 0)
            p->t->terms[term].count++;
        PE_TRY(new_node(p->t, PE_NODE_PREFIX, &node));
        p->t->nodes[node].first = term;
        append(p->t, list, node);
    }
    *out = settle(p->t, list);
    return PERI_OK;
}

/* One word of the query may be several terms (well-known, or a run of Han): joined as words are. */
static peri_status parse_words(parser *p, peri_slice words, uint32_t *out)
{
    uint32_t position = 0, list;
    PE_TRY(new_node(p->t, p->join == PERI_JOIN_AND ? PE_NODE_AND : PE_NODE_OR, &list));
    p->list = list;
    p->phrase = PE_NO_NODE;
    PE_TRY(pe_analyse(p->a, words, PE_ANALYSE_TERMS, &position, take_token, p));
    *out = settle(p->t, list);
    return PERI_OK;
}

static peri_status parse_phrase(parser *p, uint32_t *out)
{
    size_t open = p->at++, end = p->at;
    uint32_t position = 0, phrase;
    pe_tree *t = p->t;
    while (end < p->n && p->s[end] != '"')
        end++;
    if (end == p->n)
        return pe_fail(PERI_ERR_ARG, "the quote at byte %zu of the query is never closed", open);
    PE_TRY(new_node(t, PE_NODE_PHRASE, &phrase));
    t->nodes[phrase].first = (uint32_t)t->n_items;
    p->phrase = phrase;
    peri_slice words = {p->s + p->at, end - p->at};
    PE_TRY(pe_analyse(p->a, words, PE_ANALYSE_TERMS, &position, take_token, p));
    p->phrase = PE_NO_NODE;
    p->at = end + 1;
    *out = t->nodes[phrase].n ? phrase : PE_NO_NODE;
    if (t->nodes[phrase].n == 1) {
        t->nodes[phrase].kind = PE_NODE_TERM;
        t->nodes[phrase].first = t->items[t->nodes[phrase].first].term;
    }
    return PERI_OK;
}

/* ---- grammar ---- */

static int is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The word at p->at, which is not consumed; 0 bytes before a bracket, a quote and the end. */
static size_t word_size(parser *p)
{
    while (p->at < p->n && is_space(p->s[p->at]))
        p->at++;
    size_t end = p->at;
    while (end < p->n && !is_space(p->s[end]) && p->s[end] != '"' && p->s[end] != '(' &&
           p->s[end] != ')')
        end++;
    return end - p->at;
}

static int at_word(parser *p, const char *operator)
{
    size_t size = word_size(p);
    return size == strlen(operator) && memcmp(p->s + p->at, operator, size) == 0;
}

static int skip_word(parser *p, const char *operator)
{
    if (!at_word(p, operator))
        return 0;
    p->at += strlen(operator);
    return 1;
}

static int at_item(parser *p)
{
    word_size(p);
    return p->at < p->n && p->s[p->at] != ')' && !at_word(p, "AND") && !at_word(p, "OR");
}

static peri_status parse_either(parser *p, uint32_t *out);

static peri_status parse_group(parser *p, uint32_t *out)
{
    size_t open = p->at++;
    if (++p->depth > PERI_QUERY_DEPTH)
        return pe_fail(PERI_ERR_ARG, "byte %zu of the query: more than %d parentheses deep", open,
                       PERI_QUERY_DEPTH);
    PE_TRY(parse_either(p, out));
    p->depth--;
    word_size(p);
    if (p->at >= p->n)
        return pe_fail(PERI_ERR_ARG, "the parenthesis at byte %zu of the query is never closed",
                       open);
    p->at++; /* nothing but ')' ends what is inside */
    return PERI_OK;
}

static peri_status parse_item(parser *p, uint32_t *out)
{
    size_t size = word_size(p);
    if (size == 0)
        return p->s[p->at] == '(' ? parse_group(p, out) : parse_phrase(p, out);
    peri_slice word = {p->s + p->at, size};
    p->at += size;
    return p->s[p->at - 1] == '*' ? parse_prefix(p, word, out) : parse_words(p, word, out);
}

/* Items side by side; those under NOT go to `without`. *asked: there was one that is not. */
static peri_status parse_list(parser *p, uint32_t without, uint32_t *out, int *asked)
{
    uint32_t list, item = PE_NO_NODE;
    if (!at_item(p))
        return pe_fail(PERI_ERR_ARG, "expected a word at byte %zu of the query%s", p->at,
                       p->at >= p->n ? ", its end" : "");
    PE_TRY(new_node(p->t, p->join == PERI_JOIN_AND ? PE_NODE_AND : PE_NODE_OR, &list));
    while (at_item(p)) {
        int negated = skip_word(p, "NOT");
        if (negated && (!at_item(p) || at_word(p, "NOT")))
            return pe_fail(PERI_ERR_ARG, "expected a word after NOT at byte %zu of the query",
                           p->at);
        p->muted += (unsigned)negated;
        PE_TRY(parse_item(p, &item));
        p->muted -= (unsigned)negated;
        *asked |= !negated;
        if (item != PE_NO_NODE)
            append(p->t, negated ? without : list, item);
    }
    *out = settle(p->t, list);
    return PERI_OK;
}

static peri_status parse_both(parser *p, uint32_t *out)
{
    uint32_t both, without, list = PE_NO_NODE, result;
    int asked = 0;
    size_t start = p->at;
    PE_TRY(new_node(p->t, PE_NODE_AND, &both));
    PE_TRY(new_node(p->t, PE_NODE_WITHOUT, &without));
    do {
        PE_TRY(parse_list(p, without, &list, &asked));
        if (list != PE_NO_NODE)
            append(p->t, both, list);
    } while (skip_word(p, "AND"));
    if (!asked)
        return pe_fail(PERI_ERR_ARG, "byte %zu of the query: NOT needs something to take out of",
                       start);
    result = settle(p->t, both);
    pe_node *w = &p->t->nodes[without];
    if (result != PE_NO_NODE && w->child != PE_NO_NODE) {
        p->t->nodes[result].next = w->child;
        w->child = result;
        result = without;
    }
    *out = result;
    return PERI_OK;
}

static peri_status parse_either(parser *p, uint32_t *out)
{
    uint32_t either, both = PE_NO_NODE;
    PE_TRY(new_node(p->t, PE_NODE_OR, &either));
    do {
        PE_TRY(parse_both(p, &both));
        if (both != PE_NO_NODE)
            append(p->t, either, both);
    } while (skip_word(p, "OR"));
    *out = settle(p->t, either);
    return PERI_OK;
}

peri_status pe_tree_parse(pe_tree *t, const pe_analyser *a, peri_slice query, uint32_t syntax,
                          uint32_t join)
{
    parser p = {.t = t,
                .a = a,
                .s = query.data,
                .n = query.size,
                .join = join,
                .phrase = PE_NO_NODE,
                .list = PE_NO_NODE};
    t->root = PE_NO_NODE;
    t->n_nodes = t->n_terms = t->n_items = t->n_bytes = 0;
    if (t->table_size)
        memset(t->table, 0, t->table_size * sizeof *t->table);
    if (syntax == PERI_SYNTAX_WORDS)
        return parse_words(&p, query, &t->root);
    word_size(&p);
    if (p.at == p.n)
        return PERI_OK;
    PE_TRY(parse_either(&p, &t->root));
    word_size(&p);
    if (p.at < p.n)
        return pe_fail(PERI_ERR_ARG, "byte %zu of the query: ')' without '('", p.at);
    return PERI_OK;
}

void pe_tree_free(pe_tree *t)
{
    pe_free(t->host, t->nodes, t->nodes_room * sizeof *t->nodes);
    pe_free(t->host, t->terms, t->terms_room * sizeof *t->terms);
    pe_free(t->host, t->items, t->items_room * sizeof *t->items);
    pe_free(t->host, t->bytes, t->bytes_room);
    pe_free(t->host, t->table, t->table_size * sizeof *t->table);
}
