#include "graph/graph_index.h"

static void destroy_beam(void *kind)
{
    pe_beam *b = kind;
    pe_host *host = b->host;
    pe_beam_destroy(b);
    pe_free(host, b, sizeof *b);
}

static int accept_slot(const void *ctx, uint32_t slot)
{
    return pe_accept_slot(ctx, slot);
}

static pe_beam *beam_of(pe_scratch *s)
{
    if (!s->kind) {
        pe_beam *b = pe_calloc(s->host, sizeof *b);
        if (!b)
            return NULL;
        pe_beam_init(b, s->host);
        s->kind = b;
        s->kind_destroy = destroy_beam;
    }
    return s->kind;
}

/* With a filter the pool must be wide enough to meet `effort` allowed rows; beyond this many the
 * handle's exact scan is cheaper. */
enum { WIDEST = 16384 };

static size_t pool_size(const pe_search *s)
{
    size_t ef = s->effort > s->want ? s->effort : s->want;
    if (s->accept && s->share < 1) {
        double wide = (double)ef / (s->share > 1e-6 ? s->share : 1e-6);
        ef = wide > WIDEST ? WIDEST : (size_t)wide;
    }
    return ef > s->limit ? s->limit : ef;
}

peri_status pe_graph_search(pe_search *s)
{
    const peri_index *ix = s->ix;
    const pe_graph *g = pe_graph_of(ix);
    s->n = 0;
    uint64_t entry = pe_graph_entry(g);
    if (entry == PE_GRAPH_NO_ENTRY || s->limit == 0)
        return PERI_OK;
    s->by_code = s->query->codes != NULL;
    pe_view view =
        s->by_code ? pe_rows_code_view(&ix->rows, s->query->codes) : pe_rows_view(&ix->rows);
    const pe_point *point = s->by_code ? &s->query->code : &s->query->row;
    pe_beam *b = beam_of(s->scratch);
    if (!b)
        return PERI_ERR_NOMEM;
    uint32_t from[1 + PE_GRAPH_SEEDS];
    size_t n_from = 1;
    float key;
    from[0] = pe_graph_descend(g, b, &view, point, s->limit, entry, 0, &key);
    if (g->seeds)
        n_from += g->seeds(ix, s->query->x, s->limit, from + 1);
    pe_beam_query q = {.layer = &g->layer[0],
                       .limit = s->limit,
                       .view = &view,
                       .point = point,
                       .ef = pool_size(s),
                       .accept = s->accept ? accept_slot : NULL,
                       .accept_ctx = s->accept,
                       .want = s->want,
                       .entries = from,
                       .n_entries = n_from};
    if (g->layout == PERI_LAYOUT_Q)
        PE_TRY(pe_quantised_search(b, &g->quantised, &q, s->query->x));
    else
        PE_TRY(pe_beam_search(b, &q));
    if (s->accept || g->layout == PERI_LAYOUT_Q) {
        s->n = b->n_found;
        memcpy(s->scratch->cands, b->found, s->n * sizeof *b->found);
        return PERI_OK;
    }
    s->n = b->n < s->want ? b->n : s->want;
    for (size_t i = 0; i < s->n; i++)
        s->scratch->cands[i] = (pe_cand){b->key[i], b->node[i]};
    return PERI_OK;
}
