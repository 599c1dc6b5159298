/* kernels_bench: GB/s and GFLOP/s of every kernel from the first-level cache, the second, and
 * memory, in sequence and at random by slot, beside what the machine itself can do.
 *
 *     build/bench/kernels_bench [--level NAME] [--dim N] [--rounds N] [--json]
 *
 * Each round measures the yardsticks and then every kernel once, place by place, so that both see
 * the same weather; a percentage is the median of the rounds' ratios, a rate the median of the
 * rates. Two flops a dimension for both operations, as a dot product has. "one" and "four" are
 * timed over 8 rows that lie in the first-level cache with the query; "run" and "ids" as an index
 * calls them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/kernels.h"
#include "kernels_machine.h"

enum { MAX_ROUNDS = 64, HOT_ROWS = 8, BATCH = 32, MAX_RESULTS = 128 };

static const size_t L2_BYTES = 512u << 10, MEMORY_BYTES = 256u << 20;

static const char *const OP_NAMES[] = {"l2", "dot"};
static const char *const ELEM_NAMES[] = {"f32", "f16", "bf16", "i8", "b1"};

typedef enum { YARD_FMA, YARD_L1, YARD_L2, YARD_MEMORY, YARD_COUNT } yard;
static const char *const YARD_NAMES[] = {"FMA peak", "L1 read", "L2 read", "memory read"};

typedef struct result {
    char name[48];
    const char *place;
    yard held_against;
    size_t rows, row_bytes;                        /* of one timed call, for GB/s */
    double flops;                                  /* of one row, 0 for those that have none */
    double seconds[MAX_ROUNDS], share[MAX_ROUNDS]; /* a row; of the yardstick */
} result;

static result results[MAX_RESULTS];
static size_t result_count;
static double yards[YARD_COUNT][MAX_ROUNDS];
static const char *yard_ways[YARD_COUNT];
static int round_now, rounds = 9;
static uint32_t dim = 768;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v)
{
    double sorted[MAX_ROUNDS];
    memcpy(sorted, v, sizeof(double) * (size_t)rounds);
    qsort(sorted, (size_t)rounds, sizeof(double), by_value);
    return sorted[rounds / 2];
}

/* The results come in the same order each round. */
static void record(size_t *next, const char *name, const char *place, yard against,
                   size_t row_bytes, double flops, double seconds)
{
    if (*next == MAX_RESULTS)
        abort();
    result *r = &results[(*next)++];
    snprintf(r->name, sizeof r->name, "%s", name);
    r->place = place;
    r->held_against = against;
    r->row_bytes = row_bytes;
    r->flops = flops;
    r->seconds[round_now] = seconds;
    const double rate = (against == YARD_FMA ? flops : (double)row_bytes) / seconds;
    r->share[round_now] = rate / yards[against][round_now];
    if (*next > result_count)
        result_count = *next;
}

static uint32_t random_state = 1;

static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static size_t row_bytes_of(pe_elem e)
{
    static const size_t bits[] = {32, 16, 16, 8, 1};
    return (size_t)dim * bits[e] / 8;
}

/* Seconds a turn of the body: twice as many turns until they take 0.3 ms; those before warm it up.
 */
#define TIMED(result_seconds, turns_per_body, ...)                                                 \
    do {                                                                                           \
        double taken = 0;                                                                          \
        for (size_t turns = 1; taken < 3e-4 || turns < 8; turns *= 2) {                            \
            const double begin = bench_now();                                                      \
            for (size_t t = 0; t < turns; t++) {                                                   \
                __VA_ARGS__;                                                                       \
            }                                                                                      \
            taken = bench_now() - begin;                                                           \
            (result_seconds) = taken / (double)(turns * (turns_per_body));                         \
        }                                                                                          \
    } while (0)

static float out[65536];
static volatile float keep;

typedef struct bench {
    const pe_kernels *k;
    unsigned char *memory;
    void *query;
    uint32_t *slots;
    size_t slot_count;
} bench;

/* Alone, so that all it needs stays in the six registers that survive a call: from the first-level
 * cache a single row is bound by loads, and three more for each call are a tenth of the time. */
__attribute__((noinline)) static void hot_ones(const pe_dist *d, const void *q,
                                               const unsigned char *row, size_t stride)
{
    float (*const one)(const void *, const void *, uint32_t) = d->one;
    const uint32_t n = dim;
    for (float *o = out; o < out + HOT_ROWS; o++, row += stride)
        *o = one(q, row, n);
}

static void hot_pair(const pe_dist *d, const void *q, const unsigned char *rows, pe_elem e,
                     const char *name, size_t *next)
{
    const uint32_t n = dim;
    const size_t bytes = row_bytes_of(e), stride = (bytes + 63) / 64 * 64;
    const yard against = e == PE_ELEM_F32 ? YARD_FMA : YARD_L1;
    const double flops = e == PE_ELEM_B1 ? 0 : 2.0 * n;
    void (*const four)(const void *, const void *const *, uint32_t, float *) = d->four;
    char full[48];
    double s = 0;

    TIMED(s, HOT_ROWS, hot_ones(d, q, rows, stride));
    snprintf(full, sizeof full, "%s one", name);
    record(next, full, "L1", against, bytes, flops, s);

    const void *r8[HOT_ROWS];
    for (size_t r = 0; r < HOT_ROWS; r++)
        r8[r] = rows + r * stride;
    TIMED(s, HOT_ROWS, {
        for (size_t r = 0; r < HOT_ROWS; r += 4)
            four(q, r8 + r, n, out + r);
    });
    snprintf(full, sizeof full, "%s four", name);
    record(next, full, "L1", against, bytes, flops, s);

    TIMED(s, HOT_ROWS, d->run(q, rows, stride, n, HOT_ROWS, out));
    snprintf(full, sizeof full, "%s run", name);
    record(next, full, "L1", against, bytes, flops, s);
}

static void hot_kernels(const bench *b, size_t *next)
{
    for (int op = 0; op < PE_OP_COUNT; op++) {
        for (pe_elem e = 0; e < PE_ELEM_COUNT; e++) {
            char name[32];
            snprintf(name, sizeof name, "%s %s", OP_NAMES[op], ELEM_NAMES[e]);
            hot_pair(&b->k->dist[op][e], b->query, b->memory, e, name, next);
        }
    }
}

static void hot_rest(const bench *b, size_t *next)
{
    static uint16_t half[65536];
    static int8_t codes[65536];
    const float *x = (const float *)b->memory;
    const size_t n = 8 * dim;
    double s = 0;
    uint32_t clipped, inexact;
    float low, high;

    TIMED(s, 1, keep = b->k->cosine[PE_ELEM_F32](b->query, x, dim));
    record(next, "cosine f32", "L1", YARD_FMA, (size_t)dim * 4, 2.0 * dim, s);
    TIMED(s, 8, b->k->f32_to_f16(x, half, n));
    record(next, "f32_to_f16", "L1", YARD_L1, (size_t)dim * 4, 0, s);
    TIMED(s, 8, b->k->f16_to_f32(half, out, n));
    record(next, "f16_to_f32", "L1", YARD_L1, (size_t)dim * 2, 0, s);
    TIMED(s, 8, b->k->f32_to_bf16(x, half, n));
    record(next, "f32_to_bf16", "L1", YARD_L1, (size_t)dim * 4, 0, s);
    TIMED(s, 8, b->k->bf16_to_f32(half, out, n));
    record(next, "bf16_to_f32", "L1", YARD_L1, (size_t)dim * 2, 0, s);
    TIMED(s, 8, b->k->encode_i8(x, n, -1.0f, 2.0f / 255, codes, &clipped, &inexact));
    record(next, "encode_i8", "L1", YARD_L1, (size_t)dim * 4, 0, s);
    TIMED(s, 8, b->k->decode_i8(codes, n, -1.0f, 2.0f / 255, out));
    record(next, "decode_i8", "L1", YARD_L1, (size_t)dim, 0, s);
    TIMED(s, 8, b->k->scan_f32(x, n, &low, &high));
    record(next, "scan_f32", "L1", YARD_L1, (size_t)dim * 4, 0, s);
}

/* 32 rows' codes of one bit a dimension, and what goes before: a query's tables and rotation. */
static void hot_scans(const bench *b, size_t *next)
{
    enum { BLOCK = 32, PASSES = 3 };
    static float p[65536], signs[PASSES * 65536], tmp[65536];
    static uint8_t tables[4 * 65536];
    const size_t groups = dim / 4, n = dim / 64 * 64;
    const float *factors = (const float *)b->query;
    const pe_scan scan = {1, 0, 0.01f, 1, 0, factors, factors + 32, factors + 64, 0.1f};
    unsigned stages = 6;
    uint32_t sums[BLOCK];
    float offset, step;
    double s = 0;

    while (n >> stages)
        stages++;
    for (size_t i = 0; i < PASSES * n; i++)
        signs[i] = i % 3 ? 0x1p-5f : -0x1p-5f;
    memcpy(p, b->query, dim * sizeof *p);
    TIMED(s, BLOCK, b->k->scan32(b->memory, tables, groups, sums));
    record(next, "scan32", "L1", YARD_L1, (size_t)dim / 8, 0, s);
    TIMED(s, BLOCK, b->k->below32(b->memory, tables, groups, &scan, out));
    record(next, "below32", "L1", YARD_L1, (size_t)dim / 8 + 12, 0, s);
    TIMED(s, 1, b->k->luts(p, groups, tables, &offset, &step));
    record(next, "luts", "L1", YARD_L1, (size_t)dim * 4, 0, s);
    const float *x = (const float *)b->memory;
    float key;
    TIMED(s, 1, b->k->levels(x, x + 8, n, 3, 1, tables, out));
    record(next, "levels", "L1", YARD_L1, n * 4, 0, s);
    TIMED(s, 1, keep = (float)b->k->least(x, x + 8, n, &key));
    record(next, "least", "L1", YARD_L1, n * 8, 0, s);
    TIMED(s, 1, b->k->rotate(p, n, PASSES, stages, signs, tmp));
    record(next, "rotate, 3 passes", "L1", YARD_L1, n * 4, 0, s);
}

/* A batch as flat search has it: queries and rows from the second-level cache and beyond. */
static void tile(const bench *b, size_t *next)
{
    enum { QUERIES = 60, ROWS = 1024 };
    const float *rows = (const float *)b->memory;
    double s = 0;
    TIMED(s, QUERIES * ROWS,
          b->k->tile_dot_f32(rows + (size_t)ROWS * dim, dim, QUERIES, rows, dim, ROWS, dim, out,
                             ROWS));
    record(next, "tile_dot_f32 60 x 1024", "L2+", YARD_FMA, (size_t)dim * 4, 2.0 * dim, s);
}

static void from_place(const bench *b, const char *place, yard against, size_t bytes, size_t *next)
{
    for (int op = 0; op < PE_OP_COUNT; op++) {
        for (int e = 0; e < PE_ELEM_COUNT; e++) {
            const pe_dist *d = &b->k->dist[op][e];
            const size_t size = row_bytes_of((pe_elem)e), stride = (size + 63) / 64 * 64;
            const size_t rows = bytes / stride, at_once = rows < 4096 ? rows : 4096;
            char name[48];
            double s = 0;
            if (against == YARD_MEMORY) {
                const double begin = bench_now();
                for (size_t r = 0; r + at_once <= rows; r += at_once)
                    d->run(b->query, b->memory + r * stride, stride, dim, at_once, out);
                s = (bench_now() - begin) / (double)(rows / at_once * at_once);
            } else {
                TIMED(s, at_once, d->run(b->query, b->memory, stride, dim, at_once, out));
            }
            snprintf(name, sizeof name, "%s %s run", OP_NAMES[op], ELEM_NAMES[e]);
            record(next, name, place, against, stride, e < PE_ELEM_B1 ? 2.0 * dim : 0, s);
        }
    }
}

static void at_random(const bench *b, size_t *next)
{
    for (int op = 0; op < PE_OP_COUNT; op++) {
        for (int e = 0; e < PE_ELEM_COUNT; e++) {
            const size_t size = row_bytes_of((pe_elem)e), stride = (size + 63) / 64 * 64;
            const size_t rows = MEMORY_BYTES / stride, batches = b->slot_count / BATCH;
            const unsigned char *chunk = b->memory;
            const pe_rowview view = {&chunk, 31, 0x7fffffff, stride, dim};
            char name[48];
            for (size_t i = 0; i < b->slot_count; i++)
                b->slots[i] = next_random() % (uint32_t)rows;
            const double begin = bench_now();
            for (size_t i = 0; i < batches; i++)
                b->k->dist[op][e].ids(b->query, &view, b->slots + i * BATCH, BATCH, out);
            const double s = (bench_now() - begin) / (double)(batches * BATCH);
            snprintf(name, sizeof name, "%s %s ids", OP_NAMES[op], ELEM_NAMES[e]);
            record(next, name, "memory, random", YARD_MEMORY, stride,
                   e < PE_ELEM_B1 ? 2.0 * dim : 0, s);
        }
    }
}

static void one_round(const bench *b)
{
    size_t next = 0;
    const size_t hot = HOT_ROWS * (size_t)dim * 4;
    yards[YARD_FMA][round_now] = machine_fma();
    yards[YARD_L1][round_now] = machine_read(b->memory, hot, 400, &yard_ways[YARD_L1]);
    hot_kernels(b, &next);
    hot_rest(b, &next);
    hot_scans(b, &next);
    tile(b, &next);
    yards[YARD_L2][round_now] = machine_read(b->memory, L2_BYTES, 40, &yard_ways[YARD_L2]);
    from_place(b, "L2", YARD_L2, L2_BYTES, &next);
    yards[YARD_MEMORY][round_now] =
        machine_read(b->memory, MEMORY_BYTES, 1, &yard_ways[YARD_MEMORY]);
    from_place(b, "memory", YARD_MEMORY, MEMORY_BYTES, &next);
    at_random(b, &next);
}

static void print_table(const char *level, const char *vectors)
{
    printf("level %s, %u dimensions, %d rounds, medians; yardsticks by %s vectors\n\n", level, dim,
           rounds, vectors);
    printf("%-24s %8.1f GFLOP/s\n", YARD_NAMES[YARD_FMA], median(yards[YARD_FMA]) / 1e9);
    for (int y = YARD_L1; y < YARD_COUNT; y++)
        printf("%-24s %8.1f GB/s     (%s)\n", YARD_NAMES[y], median(yards[y]) / 1e9, yard_ways[y]);
    printf("\n%-24s %-15s %9s %9s %9s  %s\n", "kernel", "from", "ns/row", "GB/s", "GFLOP/s", "of");
    for (size_t i = 0; i < result_count; i++) {
        const result *r = &results[i];
        const double s = median(r->seconds);
        printf("%-24s %-15s %9.2f %9.1f ", r->name, r->place, s * 1e9,
               (double)r->row_bytes / s / 1e9);
        if (r->flops > 0)
            printf("%9.1f", r->flops / s / 1e9);
        else
            printf("%9s", "");
        printf("  %5.1f %% of %s\n", 100 * median(r->share), YARD_NAMES[r->held_against]);
    }
}

static void print_json(const char *level, const char *vectors)
{
    printf("{\"level\": \"%s\", \"dim\": %u, \"rounds\": %d, \"vectors\": \"%s\",\n \"machine\": {",
           level, dim, rounds, vectors);
    for (int y = 0; y < YARD_COUNT; y++)
        printf("%s\"%s\": %.4g", y ? ", " : "", YARD_NAMES[y], median(yards[y]));
    printf("},\n \"kernels\": [\n");
    for (size_t i = 0; i < result_count; i++) {
        const result *r = &results[i];
        const double s = median(r->seconds);
        printf(
            "  {\"kernel\": \"%s\", \"from\": \"%s\", \"ns_per_row\": %.4g, \"bytes_per_s\": %.4g, "
            "\"flops_per_s\": %.4g, \"of\": \"%s\", \"share\": %.4f}%s\n",
            r->name, r->place, s * 1e9, (double)r->row_bytes / s, r->flops / s,
            YARD_NAMES[r->held_against], median(r->share), i + 1 < result_count ? "," : "");
    }
    printf(" ]}\n");
}

static void *pages(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("kernels_bench");
        exit(1);
    }
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static int usage(void)
{
    fprintf(stderr, "usage: kernels_bench [--level NAME] [--dim N] [--rounds N] [--json]\n"
                    "  --dim a multiple of 8 from 64 to 4096 (768), --rounds 1 to 64 (9)\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *level = NULL;
    int json = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--json") == 0) {
            json = 1;
            continue;
        }
        if (strcmp(argv[i], "--level") == 0)
            level = value;
        else if (strcmp(argv[i], "--dim") == 0)
            dim = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--rounds") == 0)
            rounds = (int)strtol(value, NULL, 10);
        else
            return usage();
        i++;
    }
    if (dim < 64 || dim > 4096 || dim % 8 != 0 || rounds < 1 || rounds > MAX_ROUNDS)
        return usage();
    bench b = {.k = level ? pe_kernels_level(level) : pe_kernels_get()};
    if (!b.k) {
        fprintf(stderr, "kernels_bench: no level %s here\n", level);
        return 1;
    }
    const char *vectors = machine_use(b.k->level);
    b.memory = pages(MEMORY_BYTES + (1 << 20));
    b.query = b.memory + MEMORY_BYTES + 65536;
    b.slot_count = 1u << 17;
    b.slots = pages(b.slot_count * sizeof *b.slots);

    /* Finite in every reading: small floats, whose halves are small as f16 and bf16 too. */
    for (size_t i = 0; i < MEMORY_BYTES / 4; i++)
        ((float *)b.memory)[i] = (float)(next_random() % 2048) / 1024.0f - 1.0f;
    for (size_t i = 0; i < 65536 / 4; i++)
        ((float *)b.query)[i] = (float)(next_random() % 2048) / 1024.0f - 1.0f;

    for (round_now = 0; round_now < rounds; round_now++)
        one_round(&b);
    if (json)
        print_json(b.k->level, vectors);
    else
        print_table(b.k->level, vectors);
    return 0;
}
