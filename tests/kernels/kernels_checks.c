/* Every kernel of a level against a reference in double or in exact integers.
 *
 * Rows and queries lie packed against the end of their pages, before one that may not be read, so
 * that a kernel that reads past a row dies; with odd dimensions this makes them misaligned too. The
 * same again against the front. Inputs come in kinds that have broken kernels elsewhere. */
#include "kernels_checks.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ROWS = 11 };

static int failures;

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
    if (failures++ >= 8)
        return;
    va_list args;
    va_start(args, format);
    fputs("  ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int kernels_check_run(const kernels_check *check, const pe_kernels *k)
{
    failures = 0;
    check->run(k);
    if (failures)
        fprintf(stderr, "%s at level %s: %d failures\n", check->name, k->level, failures);
    return failures;
}

/* Memory between two pages that may not be touched. */

typedef struct arena {
    unsigned char *map, *begin, *end;
    size_t map_bytes;
} arena;

static arena arena_new(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    arena a;
    bytes = (bytes + page - 1) / page * page;
    a.map_bytes = bytes + 2 * page;
    a.map = mmap(NULL, a.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a.map == MAP_FAILED || mprotect(a.map, page, PROT_NONE) != 0 ||
        mprotect(a.map + page + bytes, page, PROT_NONE) != 0) {
        perror("arena");
        exit(1);
    }
    a.begin = a.map + page;
    a.end = a.begin + bytes;
    return a;
}

static void arena_free(arena *a)
{
    munmap(a->map, a->map_bytes);
}

/* Inputs. */

static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = random_state;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double uniform(void)
{
    return (double)(next_random() >> 11) * 0x1p-53 * 2 - 1;
}

typedef enum {
    UNIFORM,
    HEAVY_TAILED, /* a few values hold nearly all of the sum */
    DENORMAL,     /* of f32, f16 and bf16 alike, zeros of both signs between */
    HUGE_VALUES,  /* their squares fit f32, just */
    ZERO,
    KIND_COUNT
} kind;
static const char *const KIND_NAMES[] = {"uniform", "heavy-tailed", "denormal", "huge", "zero"};

static float value_of(kind k, pe_elem e)
{
    const double u = uniform();
    switch (k) {
    case UNIFORM:
        return (float)u;
    case HEAVY_TAILED:
        return (float)(u * exp(6 * uniform()) * exp(3 * uniform()));
    case DENORMAL:
        if (next_random() % 4 == 0)
            return u < 0 ? -0.0f : 0.0f;
        return (float)(u * (e == PE_ELEM_F16 ? 0x1p-14 : 0x1p-126));
    case HUGE_VALUES:
        return (float)(u * (e == PE_ELEM_F16 ? 65504.0 : 0x1p54));
    default:
        return u < 0 ? -0.0f : 0.0f;
    }
}

static size_t bytes_of(pe_elem e, uint32_t dim)
{
    static const size_t bits[] = {32, 16, 16, 8, 1};
    return (size_t)dim * bits[e] / 8;
}

/* An independent reading of one element; the tests of the conversions are below. */
static double half_value(uint16_t h)
{
    const int exponent = h >> 10 & 31;
    const double mantissa = h & 1023, sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return mantissa != 0 ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25));
}

static double bfloat_value(uint16_t h)
{
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static double value_at(pe_elem e, const void *row, size_t i)
{
    const unsigned char *p = row;
    float f;
    uint16_t h;
    switch (e) {
    case PE_ELEM_F32:
        memcpy(&f, p + 4 * i, 4);
        return (double)f;
    case PE_ELEM_F16:
        memcpy(&h, p + 2 * i, 2);
        return half_value(h);
    case PE_ELEM_BF16:
        memcpy(&h, p + 2 * i, 2);
        return bfloat_value(h);
    case PE_ELEM_I8:
        return ((const int8_t *)row)[i];
    default:
        return p[i / 8] >> i % 8 & 1;
    }
}

static void fill_row(unsigned char *row, pe_elem e, uint32_t dim, kind k)
{
    for (uint32_t i = 0; e < PE_ELEM_I8 && i < dim; i++) {
        const float f = value_of(k, e);
        uint32_t bits;
        memcpy(&bits, &f, 4);
        uint16_t h = (uint16_t)(bits >> 16);
        if (e == PE_ELEM_F32) {
            memcpy(row + 4 * (size_t)i, &f, 4);
            continue;
        }
        if (e == PE_ELEM_F16) { /* any finite half of about this size */
            h = (uint16_t)(bits >> 16 & 0x8000);
            const double a = fabs((double)f);
            if (a > 0) {
                int x;
                (void)frexp(a, &x);
                if (x > 16)
                    h |= 0x7bff;
                else if (x > -14)
                    h |= (uint16_t)((x + 14) << 10 | (bits >> 13 & 1023));
                else
                    h |= (uint16_t)(next_random() & 1023);
            }
        }
        memcpy(row + 2 * (size_t)i, &h, 2);
    }
    for (size_t i = 0, n = bytes_of(e, dim); e >= PE_ELEM_I8 && i < n; i++) {
        const unsigned char extreme = next_random() & 1 ? 0x80 : 0x7f;
        row[i] = k == ZERO          ? 0
                 : k == UNIFORM     ? (unsigned char)next_random()
                 : e == PE_ELEM_I8  ? extreme
                 : k == HUGE_VALUES ? 0xff
                                    : (unsigned char)(1u << next_random() % 8);
    }
}

static pe_elem query_elem(pe_elem e)
{
    return e < PE_ELEM_I8 ? PE_ELEM_F32 : e;
}

/* The exact result and the sum of the magnitudes that its rounding errors go with. */
static double exact(pe_op op, pe_elem e, const void *q, const void *row, uint32_t dim, double *size)
{
    double sum = 0, all = 0;
    for (size_t i = 0; i < dim; i++) {
        const double a = value_at(query_elem(e), q, i), b = value_at(e, row, i);
        const double part = op == PE_OP_L2 ? (a - b) * (a - b) : -(a * b);
        sum += part;
        all += fabs(part);
    }
    *size = all;
    return sum;
}

static double lanes_of(const pe_kernels *k)
{
    return strncmp(k->level, "neon", 4) == 0 ? 4 : strncmp(k->level, "avx512", 6) == 0 ? 16 : 8;
}

static double error_bound(const pe_kernels *k, uint32_t dim, double size)
{
    return (dim / lanes_of(k) + 10) * 0x1p-24 * size + dim * 0x1p-149;
}

static int same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static void check_value(const pe_kernels *k, pe_op op, pe_elem e, kind kd, uint32_t dim,
                        const void *q, const void *row, float got)
{
    static const char *const ops[] = {"l2", "dot"};
    static const char *const elems[] = {"f32", "f16", "bf16", "i8", "b1"};
    double size;
    const double want = exact(op, e, q, row, dim, &size);
    /* Integers: exact, rounded once to f32. */
    const int good = e >= PE_ELEM_I8 ? same_bits(got, (float)want + 0.0f)
                                     : fabs((double)got - want) <= error_bound(k, dim, size);
    if (!good)
        fail("%s %s, dim %u, %s: %.9g, exactly %.17g (size %g)", ops[op], elems[e], dim,
             KIND_NAMES[kd], (double)got, want, size);
}

/* All four calls on rows that end at `rows_end`, or begin at `rows_begin`. */
static void check_calls(const pe_kernels *k, pe_op op, pe_elem e, kind kd, uint32_t dim,
                        const void *q, const unsigned char *rows)
{
    const pe_dist *d = &k->dist[op][e];
    const size_t stride = bytes_of(e, dim);
    float one[ROWS], out[ROWS + 1];
    for (size_t r = 0; r < ROWS; r++) {
        one[r] = d->one(q, rows + r * stride, dim);
        check_value(k, op, e, kd, dim, q, rows + r * stride, one[r]);
    }
    for (size_t turn = 0; turn < 4; turn++) { /* the last row in each of the four places */
        const void *four[4];
        size_t at[4];
        for (size_t i = 0; i < 4; i++) {
            at[i] = (ROWS - 4) + (i + turn) % 4;
            four[i] = rows + at[i] * stride;
        }
        d->four(q, four, dim, out);
        for (size_t i = 0; i < 4; i++)
            if (!same_bits(out[i], one[at[i]]))
                fail("op %d elem %d dim %u: four gives %.9g, one %.9g", op, e, dim, (double)out[i],
                     (double)one[at[i]]);
    }
    for (size_t n = 0; n <= ROWS; n += n < 8 ? 1 : 3) {
        const size_t first = ROWS - n;
        out[n] = 12345.0f;
        d->run(q, rows + first * stride, stride, dim, n, out);
        for (size_t i = 0; i < n; i++)
            if (!same_bits(out[i], one[first + i]))
                fail("op %d elem %d dim %u: run of %zu gives %.9g, one %.9g", op, e, dim, n,
                     (double)out[i], (double)one[first + i]);
        if (!same_bits(out[n], 12345.0f))
            fail("op %d elem %d dim %u: run of %zu writes beyond", op, e, dim, n);
    }
    /* Chunks of four rows. */
    const unsigned char *chunks[3] = {rows, rows + 4 * stride, rows + 8 * stride};
    const pe_rowview view = {chunks, 2, 3, stride, dim};
    uint32_t slots[40];
    float far[41];
    for (size_t n = 0; n <= 40; n += n < 6 ? 1 : 17) {
        for (size_t i = 0; i < n; i++)
            slots[i] = (uint32_t)(next_random() % ROWS);
        far[n] = 12345.0f;
        d->ids(q, &view, slots, n, far);
        for (size_t i = 0; i < n; i++)
            if (!same_bits(far[i], one[slots[i]]))
                fail("op %d elem %d dim %u: ids of %zu gives %.9g, one %.9g", op, e, dim, n,
                     (double)far[i], (double)one[slots[i]]);
        if (!same_bits(far[n], 12345.0f))
            fail("op %d elem %d dim %u: ids of %zu writes beyond", op, e, dim, n);
    }
}

static void check_dim(const pe_kernels *k, pe_elem e, uint32_t dim)
{
    const size_t q_bytes = bytes_of(query_elem(e), dim), row_bytes = bytes_of(e, dim);
    arena qs = arena_new(q_bytes), rows = arena_new(row_bytes * ROWS);
    unsigned char *q = qs.end - q_bytes, *r = rows.end - row_bytes * ROWS;
    for (kind kd = 0; kd < KIND_COUNT; kd++) {
        random_state = dim * 31 + kd;
        fill_row(q, query_elem(e), dim, kd);
        for (size_t i = 0; i < ROWS; i++)
            fill_row(r + i * row_bytes, e, dim, kd);
        if (e == PE_ELEM_I8 && kd == HUGE_VALUES) { /* all differences 255, all squares 2^14 */
            memset(q, 0x80, q_bytes);
            memset(r, 0x7f, row_bytes);
            memset(r + row_bytes, 0x80, row_bytes);
        }
        if (e < PE_ELEM_I8 && kd == UNIFORM && e == PE_ELEM_F32)
            memcpy(r + row_bytes, q, row_bytes); /* distance 0 */
        for (pe_op op = 0; op < PE_OP_COUNT; op++)
            check_calls(k, op, e, kd, dim, q, r);
    }
    memmove(qs.begin, q, q_bytes);
    memmove(rows.begin, r, row_bytes * ROWS);
    for (pe_op op = 0; op < PE_OP_COUNT; op++)
        check_calls(k, op, e, KIND_COUNT - 1, dim, qs.begin, rows.begin);
    arena_free(&qs);
    arena_free(&rows);
}

static const uint32_t LARGE[] = {191, 192, 200, 255, 256, 257,  300,  384,
                                 511, 512, 513, 768, 784, 1000, 1536, 4096};

static void check_elem(const pe_kernels *k, pe_elem e)
{
    for (uint32_t dim = 1; dim <= 130; dim++)
        check_dim(k, e, e == PE_ELEM_B1 ? dim * 8 : dim);
    for (size_t i = 0; i < sizeof LARGE / sizeof *LARGE; i++)
        check_dim(k, e, e == PE_ELEM_B1 ? LARGE[i] * 8 : LARGE[i]);
    check_dim(k, e, e == PE_ELEM_B1 ? 65528 : 65535);
}

static void f32_distances(const pe_kernels *k)
{
    check_elem(k, PE_ELEM_F32);
}

static void f16_distances(const pe_kernels *k)
{
    check_elem(k, PE_ELEM_F16);
}

static void bf16_distances(const pe_kernels *k)
{
    check_elem(k, PE_ELEM_BF16);
}

static void i8_distances(const pe_kernels *k)
{
    check_elem(k, PE_ELEM_I8);
}

static void b1_distances(const pe_kernels *k)
{
    check_elem(k, PE_ELEM_B1);
}

static void overflow_is_infinite(const pe_kernels *k)
{
    enum { DIM = 100 };
    float q[DIM], row[DIM];
    for (int i = 0; i < DIM; i++) {
        q[i] = FLT_MAX;
        row[i] = -FLT_MAX;
    }
    if (!isinf(k->dist[PE_OP_L2][PE_ELEM_F32].one(q, row, DIM)) ||
        !isinf(k->dist[PE_OP_DOT][PE_ELEM_F32].one(q, row, DIM)))
        fail("a sum beyond FLT_MAX is not infinite");
}

/* Cosine. */

static double exact_cosine(pe_elem e, const void *q, const void *row, uint32_t dim)
{
    long double qr = 0, qq = 0, rr = 0;
    for (size_t i = 0; i < dim; i++) {
        const long double a = value_at(query_elem(e), q, i), b = value_at(e, row, i);
        qr += a * b;
        qq += a * a;
        rr += b * b;
    }
    if (qq == 0 || rr == 0)
        return 1;
    const long double d = 1 - qr / (sqrtl(qq) * sqrtl(rr));
    return (double)(d < 0 ? 0 : d > 2 ? 2 : d);
}

static void check_cosine(const pe_kernels *k, pe_elem e, uint32_t dim)
{
    const size_t q_bytes = bytes_of(query_elem(e), dim), row_bytes = bytes_of(e, dim);
    arena qs = arena_new(q_bytes), rows = arena_new(row_bytes);
    unsigned char *q = qs.end - q_bytes, *r = rows.end - row_bytes;
    for (kind kd = 0; kd < KIND_COUNT; kd++) {
        random_state = dim * 31 + kd;
        fill_row(q, query_elem(e), dim, kd);
        fill_row(r, e, dim, kd);
        const double want = exact_cosine(e, q, r, dim);
        const float got = k->cosine[e](q, r, dim);
        /* Each of the three sums errs by its bound; by Cauchy-Schwarz the dot's is at most that. */
        const double bound = e >= PE_ELEM_I8 ? 0x1p-23 : (2 * dim / lanes_of(k) + 32) * 0x1p-24;
        if (!(fabs((double)got - want) <= bound))
            fail("cosine elem %d dim %u %s: %.9g, exactly %.17g", e, dim, KIND_NAMES[kd],
                 (double)got, want);
    }
    arena_free(&qs);
    arena_free(&rows);
}

static void cosines(const pe_kernels *k)
{
    for (pe_elem e = 0; e < PE_ELEM_COUNT; e++) {
        const uint32_t unit = e == PE_ELEM_B1 ? 8 : 1;
        for (uint32_t dim = 1; dim <= 130; dim++)
            check_cosine(k, e, dim * unit);
        for (size_t i = 0; i < sizeof LARGE / sizeof *LARGE; i++)
            check_cosine(k, e, LARGE[i] * unit);
    }
    /* Norms that overflow f32, and that vanish in it; a zero vector on one side. */
    float big[20], small[20], zero[20] = {0};
    for (int i = 0; i < 20; i++) {
        big[i] = i % 2 ? 3e38f : -2e38f;
        small[i] = i % 2 ? 3e-40f : -2e-40f;
    }
    const pe_cosine_fn cosine = k->cosine[PE_ELEM_F32];
    if (cosine(big, big, 20) > 1e-6f || cosine(small, small, 20) > 1e-6f ||
        cosine(big, small, 20) > 1e-4f)
        fail("cosine of parallel vectors out of f32's range is not 0");
    if (cosine(big, zero, 20) != 1.0f || cosine(zero, zero, 20) != 1.0f)
        fail("cosine with a zero vector is not 1");
}

/* The tile. */

static void check_tile(const pe_kernels *k, size_t nq, size_t nr, uint32_t dim, size_t gap)
{
    const size_t stride = dim + gap, ld = nr + gap;
    arena qs = arena_new((nq * stride) * 4), rows = arena_new((nr * stride) * 4);
    float *out = malloc((nq * ld + 1) * sizeof *out);
    if (!out)
        abort();
    /* Not even the gap after the last row may be read. */
    float *q = (float *)(void *)qs.end - ((nq - 1) * stride + dim);
    float *r = (float *)(void *)rows.end - ((nr - 1) * stride + dim);
    random_state = dim;
    for (size_t i = 0; i < (nq - 1) * stride + dim; i++)
        q[i] = value_of(HEAVY_TAILED, PE_ELEM_F32);
    for (size_t i = 0; i < (nr - 1) * stride + dim; i++)
        r[i] = value_of(UNIFORM, PE_ELEM_F32);
    for (size_t i = 0; i < nq * ld + 1; i++)
        out[i] = 12345.0f;
    k->tile_dot_f32(q, stride, nq, r, stride, nr, dim, out, ld);
    for (size_t i = 0; i < nq; i++) {
        for (size_t j = 0; j < ld; j++) {
            const float got = out[i * ld + j];
            if (j >= nr) {
                if (got != 12345.0f)
                    fail("tile %zu x %zu dim %u writes beyond a line", nq, nr, dim);
                continue;
            }
            double size;
            const double want =
                exact(PE_OP_DOT, PE_ELEM_F32, q + i * stride, r + j * stride, dim, &size);
            if (!(fabs((double)got - want) <= error_bound(k, dim, size)))
                fail("tile %zu x %zu dim %u at %zu, %zu: %.9g, exactly %.17g", nq, nr, dim, i, j,
                     (double)got, want);
        }
    }
    if (out[nq * ld] != 12345.0f)
        fail("tile %zu x %zu dim %u writes beyond", nq, nr, dim);
    free(out);
    arena_free(&qs);
    arena_free(&rows);
}

static void tiles(const pe_kernels *k)
{
    for (size_t nq = 1; nq <= 14; nq++)
        for (size_t nr = 1; nr <= 10; nr++)
            check_tile(k, nq, nr, 37, nq % 3);
    for (uint32_t dim = 1; dim <= 70; dim++)
        check_tile(k, 7, 5, dim, 0);
    check_tile(k, 8, 300, 784, 0); /* more than one block of rows */
    check_tile(k, 7, 9, 1500, 2);  /* more than one block of dimensions */
    check_tile(k, 3, 5, 65535, 1);
    float none = 12345.0f;
    k->tile_dot_f32(&none, 1, 0, &none, 1, 1, 1, &none, 1);
    k->tile_dot_f32(&none, 1, 1, &none, 1, 0, 1, &none, 1);
    if (none != 12345.0f)
        fail("an empty tile writes");
}

/* Conversions. */

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* To nearest, ties to even, by comparing with the two neighbours; slow and plain. */
static uint16_t nearest_half(float f)
{
    const uint32_t bits = bits_of(f);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const double a = fabs((double)f);
    if (isnan(f))
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (a >= 65520.0)
        return (uint16_t)(sign | 0x7c00);
    uint16_t low = 0, high = 0x7bff; /* the largest half not above a */
    while (low < high) {
        const uint16_t mid = (uint16_t)((low + high + 1) / 2);
        if (half_value(mid) <= a)
            low = mid;
        else
            high = (uint16_t)(mid - 1);
    }
    const double below = half_value(low), above = low == 0x7bff ? 65536.0 : half_value(low + 1);
    if (a - below > above - a || (a - below == above - a && low & 1))
        low++;
    return (uint16_t)(sign | low);
}

static uint16_t nearest_bfloat(float f)
{
    const uint32_t bits = bits_of(f), rest = bits & 0xffff, kept = bits >> 16;
    if (isnan(f))
        return (uint16_t)(kept | 0x40);
    return (uint16_t)(kept + (rest > 0x8000 || (rest == 0x8000 && kept & 1)));
}

static void check_narrow(const pe_kernels *k, const float *x, size_t n)
{
    uint16_t half[256], bfloat[256];
    k->f32_to_f16(x, half, n);
    k->f32_to_bf16(x, bfloat, n);
    for (size_t i = 0; i < n; i++) {
        if (half[i] != nearest_half(x[i]))
            fail("f32_to_f16 of %08x: %04x, not %04x", bits_of(x[i]), half[i], nearest_half(x[i]));
        if (bfloat[i] != nearest_bfloat(x[i]))
            fail("f32_to_bf16 of %08x: %04x, not %04x", bits_of(x[i]), bfloat[i],
                 nearest_bfloat(x[i]));
    }
}

static void conversions(const pe_kernels *k)
{
    static uint16_t all[65536];
    static float wide[65536];
    for (size_t i = 0; i < 65536; i++)
        all[i] = (uint16_t)i;
    k->f16_to_f32(all, wide, 65536);
    for (size_t i = 0; i < 65536; i++) {
        const double want = half_value((uint16_t)i);
        const uint32_t quiet_nan =
            (uint32_t)(i & 0x8000) << 16 | 0x7fc00000 | (uint32_t)(i & 0x3ff) << 13;
        if (isnan(want) ? bits_of(wide[i]) != quiet_nan : !same_bits(wide[i], (float)want))
            fail("f16_to_f32 of %04zx: %08x", i, bits_of(wide[i]));
    }
    k->bf16_to_f32(all, wide, 65536);
    for (size_t i = 0; i < 65536; i++)
        if (bits_of(wide[i]) != (uint32_t)i << 16)
            fail("bf16_to_f32 of %04zx: %08x", i, bits_of(wide[i]));

    /* Every half, the point between it and the next, and the floats on either side of both. */
    float x[256];
    size_t n = 0;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        const float at = (float)half_value((uint16_t)h);
        const float next = h == 0x7bff ? 65536.0f : (float)half_value((uint16_t)(h + 1));
        const uint32_t middle = bits_of((at + next) / 2);
        const uint32_t points[] = {bits_of(at), bits_of(at) + 1, middle - 1, middle, middle + 1};
        for (size_t i = 0; i < 5; i++) {
            x[n++] = float_of(points[i] | (h & 1) << 31);
            if (n == 255) { /* odd, so that tails are met */
                check_narrow(k, x, n);
                n = 0;
            }
        }
    }
    check_narrow(k, x, n);
    random_state = 5;
    for (int round = 0; round < 400; round++) {
        for (n = 0; n < 256; n++)
            x[n] = float_of((uint32_t)next_random());
        check_narrow(k, x, 256);
    }
    const uint32_t special[] = {0x7f800000, 0xff800000, 0x7f800001, 0xffc00000, 0x7fffffff,
                                0x00000001, 0x807fffff, 0x7f7fffff, 0xff7fffff, 0x477fefff,
                                0x477ff000, 0x33000000, 0x33000001, 0x80000000};
    for (n = 0; n < sizeof special / sizeof *special; n++)
        x[n] = float_of(special[n]);
    check_narrow(k, x, n);
}

/* The quantiser and the scan. */

static void check_encode(const pe_kernels *k, const float *x, size_t n, float lo, float step)
{
    int8_t code[300];
    float back[300];
    uint32_t clipped = 77, inexact = 77, want_clipped = 0, want_inexact = 0;
    memset(code, 99, sizeof code);
    k->encode_i8(x, n, lo, step, code, &clipped, &inexact);
    for (size_t i = 0; i < n; i++) {
        volatile float inverse = 1.0f / step, shifted = x[i] - lo, level = shifted * inverse;
        double rounded = nearbyint((double)level);
        rounded = rounded < 0 ? 0 : rounded > 255 ? 255 : rounded;
        volatile float scaled = step * (float)rounded, decoded = lo + scaled;
        want_clipped += level < -0.5f || level > 255.5f;
        want_inexact += !same_bits(decoded, x[i]);
        if (code[i] != (int)rounded - 128)
            fail("encode_i8 of %.9g (lo %g, step %g): %d, not %d", (double)x[i], (double)lo,
                 (double)step, code[i], (int)rounded - 128);
        back[i] = decoded;
    }
    if (clipped != want_clipped || inexact != want_inexact)
        fail("encode_i8 of %zu counts %u clipped, %u inexact, not %u and %u", n, clipped, inexact,
             want_clipped, want_inexact);
    if (code[n] != 99)
        fail("encode_i8 of %zu writes beyond", n);
    float decoded[300];
    decoded[n] = 12345.0f;
    k->decode_i8(code, n, lo, step, decoded);
    for (size_t i = 0; i < n; i++)
        if (!same_bits(decoded[i], back[i]))
            fail("decode_i8 of %d: %.9g, not %.9g", code[i], (double)decoded[i], (double)back[i]);
    if (decoded[n] != 12345.0f)
        fail("decode_i8 of %zu writes beyond", n);
}

static void quantiser(const pe_kernels *k)
{
    float x[256];
    for (size_t n = 0; n <= 130; n++) {
        arena a = arena_new(n * 4 + 1);
        float *at = (float *)(void *)a.end - n;
        random_state = n + 1;
        for (size_t i = 0; i < n; i++)
            at[i] = value_of(i % 3 ? UNIFORM : HEAVY_TAILED, PE_ELEM_F32);
        check_encode(k, at, n, -1.0f, 2.0f / 255);
        check_encode(k, at, n, -1e30f, 1e28f);
        arena_free(&a);
    }
    for (size_t i = 0; i < 256; i++) /* integers are given back bit for bit */
        x[i] = (float)i;
    check_encode(k, x, 256, 0.0f, 1.0f);
    uint32_t clipped, inexact;
    int8_t code[256];
    k->encode_i8(x, 256, 0.0f, 1.0f, code, &clipped, &inexact);
    if (clipped != 0 || inexact != 0)
        fail("encode_i8 of 0..255 is not exact");
    for (size_t i = 0; i < 256; i++) { /* so is what decode gave, unless encode rounds otherwise */
        volatile float scaled = 0.012345f * (float)i, decoded = -0.7654321f + scaled;
        x[i] = decoded;
    }
    check_encode(k, x, 256, -0.7654321f, 0.012345f);
    k->encode_i8(x, 256, -0.7654321f, 0.012345f, code, &clipped, &inexact);
    if (inexact != 0)
        fail("encode_i8 of decoded values is not exact");
    for (size_t i = 0; i < 256; i++) /* ties, and both ends of the range by half a step */
        x[i] = (float)i - 0.5f;
    check_encode(k, x, 256, 0.0f, 1.0f);
    for (size_t i = 0; i < 256; i++)
        x[i] = (float)i + 0.5f;
    check_encode(k, x, 256, 0.0f, 1.0f);
    const float odd[] = {-0.0f, 0.0f, FLT_MAX, -FLT_MAX, FLT_MIN, -0.5f, 255.5f, 0x1p-149f};
    check_encode(k, odd, 8, 0.0f, 1.0f);
}

static void scans(const pe_kernels *k)
{
    for (size_t n = 0; n <= 130; n++) {
        arena a = arena_new(n * 4 + 1);
        float *x = (float *)(void *)a.end - n, min, max, low = INFINITY, high = -INFINITY;
        random_state = n + 1;
        for (size_t i = 0; i < n; i++) {
            x[i] = value_of(HEAVY_TAILED, PE_ELEM_F32) + (n % 2 ? 1000.0f : -1000.0f);
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
        }
        if (k->scan_f32(x, n, &min, &max) != 0 || min != low || max != high)
            fail("scan_f32 of %zu: %g to %g, not %g to %g", n, (double)min, (double)max,
                 (double)low, (double)high);
        static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7f800001, 0xffc00000, 0x7fffffff};
        for (size_t i = 0; i < n; i++) {
            const float kept = x[i];
            x[i] = float_of(bad[i % 5]);
            if (k->scan_f32(x, n, &min, &max) == 0)
                fail("scan_f32 of %zu does not see %08x at %zu", n, bad[i % 5], i);
            x[i] = kept;
        }
        arena_free(&a);
    }
    float x[40], min, max;
    for (int i = 0; i < 40; i++)
        x[i] = i % 2 ? -0.0f : 0.0f;
    if (k->scan_f32(x, 40, &min, &max) != 0 || !same_bits(min, 0.0f) || !same_bits(max, 0.0f))
        fail("scan_f32 of zeros is not +0 to +0");
    x[7] = FLT_MAX;
    x[33] = -FLT_MAX;
    x[21] = 0x1p-149f;
    if (k->scan_f32(x, 40, &min, &max) != 0 || min != -FLT_MAX || max != FLT_MAX)
        fail("scan_f32 does not take FLT_MAX");
}

/* Fast-scan. */

static void near_rows(const pe_kernels *k)
{
    enum { MOST = 70 };
    float x[MOST], had[MOST], norms[MOST], bounds[MOST];
    uint32_t out[MOST + 16];
    random_state = 5;
    for (size_t n = 0; n <= MOST; n++)
        for (int round = 0; round < 4; round++) {
            arena a = arena_new(n * sizeof *x + 1);
            float *at = (float *)(void *)(a.end - n * sizeof *x);
            for (size_t j = 0; j < n; j++) {
                at[j] = had[j] = (float)uniform() * 2 - 1;
                norms[j] = (float)uniform();
                bounds[j] = round == 3 ? INFINITY : (float)uniform() * (float)round;
            }
            const float norm = 0.5f, bound = round == 2 ? 3.0f : 0.1f;
            size_t found = k->near_f32(at, norms, norm, bound, bounds, n, out), want = 0;
            for (size_t j = 0; j < n; j++) {
                volatile float sum = norm + norms[j], d = sum + 2 * had[j];
                x[j] = d > 0 ? d : 0;
                if (!same_bits(at[j], x[j]))
                    fail("near_f32 of %zu, %zu: %g, not %g", n, j, (double)at[j], (double)x[j]);
                if (!(x[j] < bound || x[j] < bounds[j]))
                    continue;
                if (want >= found || out[want] != j)
                    fail("near_f32 of %zu leaves out %zu", n, j);
                want++;
            }
            if (found != want)
                fail("near_f32 of %zu finds %zu, not %zu", n, found, want);
            arena_free(&a);
        }
}

static void check_scan(const pe_kernels *k, const uint8_t *codes, const uint8_t *luts,
                       size_t groups)
{
    uint32_t out[33], want[32] = {0};
    out[32] = 12345;
    for (size_t g = 0; g < groups; g++)
        for (size_t j = 0; j < 16; j++) {
            want[j] += luts[16 * g + (codes[16 * g + j] & 15)];
            want[16 + j] += luts[16 * g + (codes[16 * g + j] >> 4)];
        }
    k->scan32(codes, luts, groups, out);
    for (size_t i = 0; i < 32; i++)
        if (out[i] != want[i])
            fail("scan32 of %zu groups, row %zu: %u, not %u", groups, i, out[i], want[i]);
    if (out[32] != 12345)
        fail("scan32 writes beyond its 32 sums");

    float add[32], scale[32], error[32], key[33];
    for (size_t i = 0; i < 32; i++) {
        add[i] = (float)uniform();
        scale[i] = -(float)fabs(uniform());
        error[i] = i % 5 ? 0.25f : 0;
    }
    key[32] = 7;
    const pe_scan scan = {1.5f, -3, 0.01f, 2, 0.75f, add, scale, error, 0.5f};
    const uint32_t below = k->below32(codes, luts, groups, &scan, key);
    for (size_t i = 0; i < 32; i++) {
        volatile float scaled = scan.step * (float)want[i], dot = scan.offset + scaled;
        volatile float added = scan.base + add[i], product = scale[i] * dot;
        volatile float whole = added + product, slack = scan.slack * error[i];
        volatile float tight = whole - slack, blur = scan.blur * scale[i], lower = tight + blur;
        if (!same_bits(key[i], whole) || (below >> i & 1) != (lower < scan.bound))
            fail("below32 of %zu groups, row %zu: %g (%u), not %g", groups, i, (double)key[i],
                 below >> i & 1, (double)whole);
    }
    if (key[32] != 7)
        fail("below32 writes beyond its 32 keys");
}

static void fast_scans(const pe_kernels *k)
{
    static const size_t counts[] = {0,  1,  2,   3,   4,   5,   7,   8,   31,  32,   33,
                                    64, 65, 255, 256, 257, 258, 511, 512, 513, 1024, 16384};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int full = 0; full < 2; full++) {
            const size_t n = 16 * counts[c];
            arena a = arena_new(n + 1), b = arena_new(n + 1);
            uint8_t *codes = a.end - n, *luts = b.end - n;
            random_state = c + 1;
            for (size_t i = 0; i < n; i++) {
                codes[i] = (uint8_t)next_random();
                luts[i] = full ? 255 : (uint8_t)next_random(); /* 255: sums at their largest */
            }
            check_scan(k, codes, luts, counts[c]);
            arena_free(&a);
            arena_free(&b);
        }
}

static void check_luts(const pe_kernels *k, const float *p, size_t groups)
{
    uint8_t table[16 * 64 + 1], reference[16 * 64];
    float offset = 99, step = 99, c_offset, c_step;
    table[16 * groups] = 77;
    k->luts(p, groups, table, &offset, &step);
    pe_kernels_level("c")->luts(p, groups, reference, &c_offset, &c_step);
    if (memcmp(table, reference, 16 * groups) != 0 || !same_bits(offset, c_offset) ||
        !same_bits(step, c_step))
        fail("luts of %zu groups differ from those of C", groups);
    if (table[16 * groups] != 77)
        fail("luts writes beyond");
    double reach_sum = 0;
    for (size_t g = 0; g < groups; g++) {
        double reach = 0;
        for (size_t b = 0; b < 4; b++)
            reach += fabs((double)p[4 * g + b]);
        reach_sum += reach;
        for (unsigned m = 0; m < 16; m++) {
            double want = 0, got = -reach + (double)step * table[16 * g + m];
            for (unsigned b = 0; b < 4; b++)
                want += m >> b & 1 ? (double)p[4 * g + b] : -(double)p[4 * g + b];
            if (fabs(got - want) > 0.5001 * (double)step + 1e-5 * reach)
                fail("luts of %zu groups: symbol %u of group %zu stands for %g, not %g (step %g)",
                     groups, m, g, got, want, (double)step);
        }
    }
    if (fabs(reach_sum + (double)offset) > 1e-5 * reach_sum)
        fail("luts: offset %g, not %g", (double)offset, -reach_sum);
}

static void tables(const pe_kernels *k)
{
    for (size_t groups = 1; groups <= 64; groups++) {
        arena a = arena_new(groups * 16);
        float *p = (float *)(void *)a.end - 4 * groups;
        for (int sort = UNIFORM; sort <= HEAVY_TAILED; sort++) {
            random_state = groups;
            for (size_t i = 0; i < 4 * groups; i++)
                p[i] = value_of((kind)sort, PE_ELEM_F32);
            check_luts(k, p, groups);
        }
        arena_free(&a);
    }
    const float zeros[8] = {0};
    uint8_t table[32];
    float offset = 1, step = 1;
    k->luts(zeros, 2, table, &offset, &step);
    if (offset != 0 || step != 0)
        fail("luts of zeros: offset %g, step %g", (double)offset, (double)step);
}

static void check_rotation(const pe_kernels *k, size_t n, unsigned passes, unsigned stages)
{
    arena a = arena_new(n * 4), b = arena_new(n * 4), t = arena_new(n * 4);
    float *x = (float *)(void *)a.end - n, *want = (float *)(void *)b.end - n;
    float *tmp = (float *)(void *)t.end - n;
    float *signs = malloc(n * passes * sizeof *signs);
    double norm2 = 0, rotated2 = 0;
    if (!signs)
        exit(1);
    random_state = n;
    for (size_t i = 0; i < n * passes; i++)
        signs[i] = (next_random() & 1 ? 1.0f : -1.0f) * (float)pow(2, -0.5 * stages);
    for (size_t i = 0; i < n; i++) {
        x[i] = want[i] = value_of(i == 3 ? HEAVY_TAILED : UNIFORM, PE_ELEM_F32);
        norm2 += (double)x[i] * (double)x[i];
    }
    k->rotate(x, n, passes, stages, signs, tmp);
    pe_kernels_level("c")->rotate(want, n, passes, stages, signs, tmp);
    for (size_t i = 0; i < n; i++) {
        rotated2 += (double)x[i] * (double)x[i];
        if (!same_bits(x[i], want[i]))
            fail("rotate of %zu at %zu: %g, not %g as in C", n, i, (double)x[i], (double)want[i]);
    }
    if (fabs(rotated2 - norm2) > 1e-5 * norm2)
        fail("rotate of %zu by %u x %u: norm %g becomes %g", n, passes, stages, sqrt(norm2),
             sqrt(rotated2));
    free(signs);
    arena_free(&a);
    arena_free(&b);
    arena_free(&t);
}

static void rotations(const pe_kernels *k)
{
    for (size_t n = 64; n <= 1024; n += 64)
        for (unsigned stages = 1; stages <= 10; stages += 3)
            check_rotation(k, n, 1 + (unsigned)(n / 64) % 3, stages);
    check_rotation(k, 65536, 3, 16);
    /* One stage on its own, by hand. */
    float x[64], tmp[64], signs[64];
    for (int i = 0; i < 64; i++) {
        x[i] = (float)i;
        signs[i] = 1;
    }
    k->rotate(x, 64, 1, 1, signs, tmp);
    for (int i = 0; i < 32; i++)
        if (x[2 * i] != (float)(2 * i + 32) || x[2 * i + 1] != -32)
            fail("rotate by one stage: %g, %g at %d", (double)x[2 * i], (double)x[2 * i + 1], i);
}

static void check_levels(const pe_kernels *k, size_t n, int top, float inverse)
{
    arena a = arena_new(n * 4), b = arena_new(n * 4);
    float *x = (float *)(void *)a.end - n, *centre = (float *)(void *)b.end - n;
    uint8_t level[1025], c_level[1024];
    float sums[4], c_sums[4];
    double want[4] = {0}, size[4] = {0};
    random_state = n + (size_t)top;
    for (size_t i = 0; i < n; i++) {
        x[i] = value_of(i % 7 ? UNIFORM : HEAVY_TAILED, PE_ELEM_F32);
        centre[i] = i % 11 ? value_of(UNIFORM, PE_ELEM_F32) : x[i];
    }
    level[n] = 99;
    k->levels(x, centre, n, inverse, (float)top, level, sums);
    pe_kernels_level("c")->levels(x, centre, n, inverse, (float)top, c_level, c_sums);
    for (size_t i = 0; i < n; i++) {
        volatile float v = x[i] - centre[i], steps = fabsf(v) * inverse;
        const int u = 2 * (int)(steps > (float)top ? (float)top : steps) + 1;
        const int w = v < 0 ? -u : u;
        if (level[i] != (w + 2 * top + 1) / 2)
            fail("levels of %g: %u, not %d", (double)v, level[i], (w + 2 * top + 1) / 2);
        const double part[4] = {(double)v * (double)v, (double)v * w, (double)centre[i] * w,
                                (double)w * w};
        for (int j = 0; j < 4; j++) {
            want[j] += part[j];
            size[j] += fabs(part[j]);
        }
    }
    for (int j = 0; j < 4; j++)
        if (!same_bits(sums[j], c_sums[j]) || fabs((double)sums[j] - want[j]) > 1e-5 * size[j])
            fail("levels of %zu: sum %d is %g, not %g", n, j, (double)sums[j], want[j]);
    if (level[n] != 99)
        fail("levels writes beyond");
    arena_free(&a);
    arena_free(&b);
}

static void symbols(const pe_kernels *k)
{
    for (size_t n = 64; n <= 1024; n += 192) {
        check_levels(k, n, 0, 0);
        check_levels(k, n, 1, 1.7f);
        check_levels(k, n, 7, 9.0f);
    }
}

static void smallest(const pe_kernels *k)
{
    for (size_t n = 1; n <= 100; n++) {
        arena a = arena_new(n * 4), b = arena_new(n * 4);
        float *dot = (float *)(void *)a.end - n, *norm = (float *)(void *)b.end - n, key;
        for (uint64_t round = 1; round < 9; round++) {
            uint32_t want = 0;
            random_state = n * 100 + round;
            for (size_t i = 0; i < n; i++) { /* few values, so that many tie */
                dot[i] = (float)(next_random() % (round * round));
                norm[i] = (float)(next_random() % round);
                if (norm[i] + 2 * dot[i] < norm[want] + 2 * dot[want])
                    want = (uint32_t)i;
            }
            const uint32_t at = k->least(dot, norm, n, &key);
            if (at != want || key != norm[want] + 2 * dot[want])
                fail("least of %zu is at %u, not %u", n, at, want);
        }
        arena_free(&a);
        arena_free(&b);
    }
}

const kernels_check KERNELS_CHECKS[] = {
    {"symbols are those of their definition", symbols},
    {"the least is the first of the smallest", smallest},
    {"fast-scans are exact and their bounds those of C", fast_scans},
    {"near_f32 finds what is near", near_rows},
    {"tables are within half a step", tables},
    {"rotations keep norms and are those of C", rotations},
    {"f32 distances are within their bound", f32_distances},
    {"f16 distances are within their bound", f16_distances},
    {"bf16 distances are within their bound", bf16_distances},
    {"i8 distances are exact", i8_distances},
    {"b1 distances are exact", b1_distances},
    {"a sum beyond FLT_MAX is infinite", overflow_is_infinite},
    {"cosines are within their bound", cosines},
    {"tiles are within their bound and their lines", tiles},
    {"conversions round to nearest even", conversions},
    {"the quantiser gives the same bits at every level", quantiser},
    {"scans find range, NaN and infinity", scans},
    {NULL, NULL},
};
