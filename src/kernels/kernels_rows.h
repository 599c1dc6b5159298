/* The frame of every one-to-many kernel: included once per (op, element) and level, it makes
 * `one`, `four`, `ids` and `run` of one inline body. No include guard: each inclusion is a kernel.
 *
 * The includer defines macros (of which only PK is undefined again at the end)
 *     PK(x)          pastes the kernel's name on x, for instance l2_f32_##x
 *     PK_W           elements (bits for B1) taken by one step
 *     PK_LONG        4 chains of accumulators from this dim on, 2 from PK_MEDIUM on, else 1: one
 *     PK_MEDIUM        chain is bound by the latency of the FMA, many cost more to join
 *     PK_PASS        rows worked on at once in a group of four: 4, or 2 where registers are few
 *     PK_EXACT       1: integer sums, which may be grouped at will, so a group of four, having
 *                    chains enough, takes one for each row
 * and types and inline functions
 *     PK(query) PK(acc) PK(once)                 a step of the query, an accumulator, what is
 *                                                worked out once per call from the query
 *     PK(bytes)(dim)                             -> bytes of a row
 *     PK(prepare)(q, dim)                        -> once
 *     PK(zero)() PK(join)(a, b)                  -> acc
 *     PK(load)(q, i) PK(load_tail)(q, i, n)      -> query: W elements, or n < W and zeros
 *     PK(step)(a, qv, row, i)                    -> acc
 *     PK(step_tail)(a, qv, row, i, n)            -> acc; reads n elements of the row, no more
 *     PK(finish)(once, a)                        -> float
 *     PK(finish4)(once, a[4], out)
 * finish and finish4 add in the same order, which with the same choice of chains gives promise 2 of
 * kernels.h: the same bits from all four calls.
 */

PE_INLINE void PK(body)(const void *q, const unsigned char *const *rows, uint32_t dim,
                        const int nrows, const int chains, PK(acc) * sums)
{
    PK(acc) a[4][4];
    PE_UNROLL
    for (int r = 0; r < nrows; r++) {
        PE_UNROLL
        for (int c = 0; c < chains; c++)
            a[r][c] = PK(zero)();
    }
    size_t i = 0, n = dim;
    const size_t block = (size_t)chains * PK_W;
    for (; i + block <= n; i += block) {
        PE_UNROLL
        for (int c = 0; c < chains; c++) {
            const size_t at = i + (size_t)c * PK_W;
            const PK(query) qv = PK(load)(q, at);
            PE_UNROLL
            for (int r = 0; r < nrows; r++)
                a[r][c] = PK(step)(a[r][c], qv, rows[r], at);
        }
    }
    /* What is left of a block goes on over the chains, so that it does not wait for itself. */
    PE_UNROLL
    for (int c = 0; c < chains - 1; c++) {
        if (i + PK_W <= n) {
            const PK(query) qv = PK(load)(q, i);
            PE_UNROLL
            for (int r = 0; r < nrows; r++)
                a[r][c] = PK(step)(a[r][c], qv, rows[r], i);
            i += PK_W;
        }
    }
    if (i < n) {
        const PK(query) qv = PK(load_tail)(q, i, n - i);
        PE_UNROLL
        for (int r = 0; r < nrows; r++)
            a[r][chains - 1] = PK(step_tail)(a[r][chains - 1], qv, rows[r], i, n - i);
    }
    PE_UNROLL
    for (int r = 0; r < nrows; r++) {
        sums[r] = chains == 4   ? PK(join)(PK(join)(a[r][0], a[r][1]), PK(join)(a[r][2], a[r][3]))
                  : chains == 2 ? PK(join)(a[r][0], a[r][1])
                                : a[r][0];
    }
}

PE_INLINE float PK(pair)(const void *q, const unsigned char *row, uint32_t dim, PK(once) once)
{
    PK(acc) s;
    if (dim >= PK_LONG)
        PK(body)(q, &row, dim, 1, 4, &s);
    else if (dim >= PK_MEDIUM)
        PK(body)(q, &row, dim, 1, 2, &s);
    else
        PK(body)(q, &row, dim, 1, 1, &s);
    return PK(finish)(once, s);
}

PE_INLINE void PK(group)(const void *q, const unsigned char *const rows[4], uint32_t dim,
                         PK(once) once, float *out)
{
    PK(acc) s[4];
    PE_UNROLL
    for (int r = 0; r < 4; r += PK_PASS) {
        if (!PK_EXACT && dim >= PK_LONG)
            PK(body)(q, rows + r, dim, PK_PASS, 4, s + r);
        else if (!PK_EXACT && dim >= PK_MEDIUM)
            PK(body)(q, rows + r, dim, PK_PASS, 2, s + r);
        else
            PK(body)(q, rows + r, dim, PK_PASS, 1, s + r);
    }
    PK(finish4)(once, s, out);
}

static float PK(one)(const void *q, const void *row, uint32_t dim)
{
    return PK(pair)(q, row, dim, PK(prepare)(q, dim));
}

static void PK(four)(const void *q, const void *const rows[4], uint32_t dim, float out[4])
{
    const unsigned char *const r[4] = {rows[0], rows[1], rows[2], rows[3]};
    PK(group)(q, r, dim, PK(prepare)(q, dim), out);
}

static void PK(ids)(const void *q, const pe_rowview *v, const uint32_t *slots, size_t n, float *out)
{
    const uint32_t dim = v->dim;
    const pe_ahead ahead = pe_ahead_for(v, PK(bytes)(dim));
    for (size_t i = 0; i < n && i < ahead.rows; i++)
        pe_prefetch_row(pe_rowview_at(v, slots[i]), ahead.lines);

    const PK(once) once = PK(prepare)(q, dim);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (size_t j = i + ahead.rows; j < i + ahead.rows + 4 && j < n; j++)
            pe_prefetch_row(pe_rowview_at(v, slots[j]), ahead.lines);
        const unsigned char *const r[4] = {
            pe_rowview_at(v, slots[i]), pe_rowview_at(v, slots[i + 1]),
            pe_rowview_at(v, slots[i + 2]), pe_rowview_at(v, slots[i + 3])};
        PK(group)(q, r, dim, once, out + i);
    }
    for (; i < n; i++)
        out[i] = PK(pair)(q, pe_rowview_at(v, slots[i]), dim, once);
}

/* Two streams, the halves of the run: the hardware prefetcher goes by the address of the load and
 * follows streams that go on from row to row through the same instructions, where four rows in
 * sequence break off and begin again at each group. Zen 5, 768-d f32: 101 % against 82 % of the
 * bandwidth that a plain read loop has of memory, 93 % against 78 % of the second cache's; one row
 * at a time, 99 % and 88 %. Short rows, bound by the adding up, go by in fours, two from each
 * stream. Software prefetch gave short rows 10 % more from memory and took as much in the caches.
 */
static void PK(run)(const void *q, const void *rows, size_t stride, uint32_t dim, size_t n,
                    float *out)
{
    const PK(once) once = PK(prepare)(q, dim);
    const size_t half = PK(bytes)(dim) < 8 * PE_LINE ? n / 4 * 2 : n / 2;
    const unsigned char *a = rows, *b = a + half * stride;
    size_t i = 0;
    if (PK(bytes)(dim) < 8 * PE_LINE) {
        for (; i < half; i += 2, a += 2 * stride, b += 2 * stride) {
            const unsigned char *const r[4] = {a, b, a + stride, b + stride};
            float o[4];
            PK(group)(q, r, dim, once, o);
            out[i] = o[0];
            out[half + i] = o[1];
            out[i + 1] = o[2];
            out[half + i + 1] = o[3];
        }
    }
    for (; i < half; i++, a += stride, b += stride) {
        const unsigned char *const r[2] = {a, b};
        PK(acc) s[2];
        if (dim >= PK_LONG)
            PK(body)(q, r, dim, 2, 4, s);
        else if (dim >= PK_MEDIUM)
            PK(body)(q, r, dim, 2, 2, s);
        else
            PK(body)(q, r, dim, 2, 1, s);
        out[i] = PK(finish)(once, s[0]);
        out[half + i] = PK(finish)(once, s[1]);
    }
    for (i = 2 * half; i < n; i++, b += stride)
        out[i] = PK(pair)(q, b, dim, once);
}

#undef PK
