/* Vector files: what insert_batch reaches of a memcpy into a fresh mapping of a file, what a
 * checkpoint takes, how soon a file can be read from after opening.
 *
 *     mmap_bench DIRECTORY [--syna libsynadb.so] [--mib 512] [--rounds 5]
 *
 * The contestants take turns in each round; a figure is the median of the rounds. Each writes the
 * same rows, batch by batch, into a file that it makes anew in DIRECTORY; making it and taking
 * space on the disk (the mapping: posix_fallocate, SynaDB: its initial capacity) are outside of the
 * time, perigee grows as it goes. The rows come from a pool that is larger than the caches.
 * SynaDB's library, where it is given, is called through its C interface, as its Python class does.
 *
 * One line a figure: name, dimension, value, unit, tab-separated; bench/mmap.py makes tables of
 * them. */
#define _GNU_SOURCE
#include "perigee/vectors.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 1024, ROUNDS_MAX = 32, POOL = 192 << 20, OPEN_ROWS = 1000000, OPEN_DIM = 128 };

static const char *directory;
static char path[4096], index_path[4200], lock_path[4200];
static float *pool;
static size_t total;
static int rounds = 5;

typedef int32_t (*syna_new_fn)(const char *, uint16_t, int32_t, size_t);
typedef int32_t (*syna_batch_fn)(const char *, const char **, const float *, uint16_t, size_t);
typedef int32_t (*syna_close_fn)(const char *);
static syna_new_fn syna_new;
static syna_batch_fn syna_batch;
static syna_close_fn syna_close;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    fprintf(stderr, "mmap_bench: %s: %s\n", what, peri_error_detail());
    exit(1);
}

static int compare(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void print(const char *name, int dim, double value, const char *unit)
{
    printf("%s\t%d\t%.6g\t%s\n", name, dim, value, unit);
    fflush(stdout);
}

static void clean(void)
{
    unlink(path);
    unlink(index_path);
    unlink(lock_path);
}

/* The rows of a batch: the pool, round and round. */
static const float *batch_rows(size_t first, int dim)
{
    size_t in_pool = POOL / ((size_t)dim * sizeof(float)) / BATCH;
    return pool + first / BATCH % in_pool * BATCH * (size_t)dim;
}

/* ---- the contestants: seconds for n rows ---- */

typedef struct keyset {
    char (*text)[16];
    peri_slice *slices;
    const char **strings;
} keyset;

static double run_memcpy(size_t n, int dim)
{
    size_t stride = (size_t)dim * sizeof(float);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)(n * stride)) != 0)
        die("no room for the mapping");
    char *p = mmap(NULL, n * stride, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        die("mmap");
    double begin = now();
    for (size_t i = 0; i < n; i += BATCH)
        memcpy(p + i * stride, batch_rows(i, dim), BATCH * stride);
    double took = now() - begin;
    munmap(p, n * stride);
    close(fd);
    return took;
}

static peri_vectors *create(int dim)
{
    peri_vectors *v;
    peri_space space;
    peri_space_init(&space, (uint32_t)dim, PERI_METRIC_IP);
    if (peri_vectors_create(&v, path, &space, NULL, NULL) != PERI_OK)
        die("create");
    return v;
}

static double run_perigee(size_t n, int dim, const keyset *keys, double *checkpoint)
{
    peri_vectors *v = create(dim);
    double begin = now();
    for (size_t i = 0; i < n; i += BATCH)
        if (peri_vectors_insert_batch(v, BATCH, keys->slices + i, batch_rows(i, dim), 0, NULL))
            die("insert_batch");
    double took = now() - begin;
    if (checkpoint) {
        begin = now();
        if (peri_vectors_checkpoint(v) != PERI_OK)
            die("checkpoint");
        *checkpoint = now() - begin;
    }
    peri_vectors_close(v);
    return took;
}

static double run_singles(size_t n, int dim, const keyset *keys)
{
    peri_vectors *v = create(dim);
    double begin = now();
    for (size_t i = 0; i < n; i++)
        if (peri_vectors_insert(v, keys->slices[i], batch_rows(i, dim) + i % BATCH * (size_t)dim, 0,
                                NULL))
            die("insert");
    double took = now() - begin;
    peri_vectors_close(v);
    return took;
}

static double run_syna(size_t n, int dim, const keyset *keys)
{
    if (syna_new(path, (uint16_t)dim, 2, n) != 1)
        die("SynaDB does not open");
    double begin = now();
    for (size_t i = 0; i < n; i += BATCH)
        if (syna_batch(path, keys->strings + i, batch_rows(i, dim), (uint16_t)dim, BATCH) != BATCH)
            die("SynaDB does not insert");
    double took = now() - begin;
    syna_close(path);
    return took;
}

/* ---- rounds ---- */

static void measure_inserts(int dim, const keyset *keys)
{
    double copy[ROUNDS_MAX], ours[ROUNDS_MAX], single[ROUNDS_MAX], syna[ROUNDS_MAX];
    double part[ROUNDS_MAX], ahead[ROUNDS_MAX], saved = 0;
    size_t n = total / ((size_t)dim * sizeof(float)) / BATCH * BATCH;
    double gb = (double)n * dim * sizeof(float) / 1e9;
    for (int r = -1; r < rounds; r++) { /* the first is not counted */
        int at = r < 0 ? 0 : r;
        clean();
        copy[at] = run_memcpy(n, dim);
        clean();
        ours[at] = run_perigee(n, dim, keys, r == rounds - 1 ? &saved : NULL);
        clean();
        single[at] = run_singles(n, dim, keys);
        clean();
        syna[at] = syna_new ? run_syna(n, dim, keys) : 0;
        part[at] = copy[at] / ours[at];
        ahead[at] = syna[at] / ours[at];
    }
    clean();
    print("memcpy", dim, gb / median(copy, rounds), "GB/s");
    print("insert_batch", dim, gb / median(ours, rounds), "GB/s");
    print("insert_batch", dim, (double)n / median(ours, rounds), "rows/s");
    print("insert_batch / memcpy", dim, median(part, rounds), "x");
    print("insert", dim, (double)n / median(single, rounds), "rows/s");
    if (syna_new) {
        print("SynaDB insert_batch", dim, gb / median(syna, rounds), "GB/s");
        print("insert_batch / SynaDB", dim, median(ahead, rounds), "x");
    }
    print("checkpoint", dim, saved, "s");
    print("checkpoint of", dim, gb, "GB");
}

static void measure_open(const keyset *keys)
{
    double first[ROUNDS_MAX];
    float row[OPEN_DIM];
    clean();
    peri_vectors *v = create(OPEN_DIM);
    for (size_t i = 0; i + BATCH <= OPEN_ROWS; i += BATCH)
        if (peri_vectors_insert_batch(v, BATCH, keys->slices + i, batch_rows(i, OPEN_DIM), 0, NULL))
            die("insert_batch");
    if (peri_vectors_checkpoint(v) != PERI_OK)
        die("checkpoint");
    peri_vectors_close(v);
    for (int r = -1; r < rounds; r++) {
        double begin = now();
        if (peri_vectors_open(&v, path, 0, NULL, NULL) != PERI_OK ||
            peri_vectors_get(v, keys->slices[500000], row, NULL) != PERI_OK)
            die("open");
        first[r < 0 ? 0 : r] = now() - begin;
        peri_vectors_close(v);
    }
    clean();
    print("open to the first read, 1M x 128", OPEN_DIM, median(first, rounds) * 1e3, "ms");
}

static keyset make_keys(size_t n)
{
    keyset k = {malloc(n * sizeof *k.text), malloc(n * sizeof *k.slices),
                malloc(n * sizeof *k.strings)};
    if (!k.text || !k.slices || !k.strings)
        die("no memory");
    for (size_t i = 0; i < n; i++) {
        int size = snprintf(k.text[i], sizeof k.text[i], "doc%zu", i);
        k.slices[i] = (peri_slice){k.text[i], (size_t)size};
        k.strings[i] = k.text[i];
    }
    return k;
}

static void load_syna(const char *file)
{
    void *lib = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        die(dlerror());
    *(void **)&syna_new = dlsym(lib, "SYNA_mmap_vector_store_new");
    *(void **)&syna_batch = dlsym(lib, "SYNA_mmap_vector_store_insert_batch");
    *(void **)&syna_close = dlsym(lib, "SYNA_mmap_vector_store_close");
    if (!syna_new || !syna_batch || !syna_close)
        die("not SynaDB's library");
}

int main(int argc, char **argv)
{
    static const int dims[] = {384, 768, 1536};
    size_t mib = 512;
    if (argc < 2)
        die("usage: mmap_bench DIRECTORY [--syna FILE] [--mib N] [--rounds N]");
    directory = argv[1];
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--syna") == 0)
            load_syna(argv[i + 1]);
        else if (strcmp(argv[i], "--mib") == 0)
            mib = strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--rounds") == 0)
            rounds = atoi(argv[i + 1]);
    }
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    total = mib << 20;
    snprintf(path, sizeof path, "%s/mmap-bench.vectors", directory);
    snprintf(index_path, sizeof index_path, "%s.index", path);
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    pool = malloc(POOL);
    if (!pool)
        die("no memory");
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < POOL / sizeof(float); i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        pool[i] = (float)(x >> 40) * 0x1p-24f - 0.5f;
    }
    keyset keys = make_keys(total / (dims[0] * sizeof(float)) + OPEN_ROWS);
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        measure_inserts(dims[d], &keys);
    measure_open(&keys);
    return 0;
}
