/* The log against RocksDB, LMDB, SQLite and SynaDB, in one process, rounds interleaved; on the
 * public header only. Prints one JSON object a line: {"what": ..., "engine": ..., ...};
 * bench/log.py makes tables of them. Rates move with the machine from minute to minute: read the
 * ratios.
 *
 *     log_bench DIRECTORY [load|get|ycsb|durable|history|open]...
 *
 * What is compared is what each does when it is not asked to sync: RocksDB with sync=false (its
 * write-ahead log is written, not synced: our level PROCESS), LMDB with all puts in one transaction
 * and SQLite the same way (nothing is out of the process before the commit: our level MEMORY). */
#define _GNU_SOURCE
#include "perigee/log.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <lmdb.h>
#include <math.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KEY = 16, MOST = 1024 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "log_bench: %s: %s\n", what, why);
    exit(1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- engines ---- */

typedef struct engine {
    const char *name;
    uint64_t divide; /* it gets 1/divide of the keys and of the work: SynaDB is that much slower */
    void *(*open)(const char *dir);
    /* Between begin and end the engine may hold a transaction open. */
    void (*begin)(void *e);
    void (*put)(void *e, const char *key, const char *value, size_t size);
    size_t (*get)(void *e, const char *key, char *out);
    void (*end)(void *e);
    void (*close)(void *e);
} engine;

static void nothing(void *e)
{
    (void)e;
}

static void *log_open(const char *dir, uint32_t durability)
{
    peri_log *log;
    peri_log_config c;
    peri_log_config_init(&c);
    c.durability = durability;
    if (peri_log_open(&log, dir, &c, NULL) != PERI_OK)
        die("perigee", peri_error_detail());
    return log;
}

static void *log_open_process(const char *dir)
{
    return log_open(dir, PERI_DURABLE_PROCESS);
}

static void *log_open_memory(const char *dir)
{
    return log_open(dir, PERI_DURABLE_MEMORY);
}

static void log_put(void *e, const char *key, const char *value, size_t size)
{
    if (peri_log_put_data(e, (peri_slice){key, KEY}, PERI_ATOM_BYTES, value, size) != PERI_OK)
        die("perigee", peri_error_detail());
}

static size_t log_get(void *e, const char *key, char *out)
{
    peri_atom a;
    peri_buf b = {out, 0, MOST};
    if (peri_log_get(e, (peri_slice){key, KEY}, 0, &a, &b) != PERI_OK)
        die("perigee", peri_error_detail());
    return a.size;
}

static void log_close(void *e)
{
    peri_log_close(e);
}

typedef struct rocks {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *write;
    rocksdb_readoptions_t *read;
} rocks;

static void *rocks_open(const char *dir)
{
    rocks *r = calloc(1, sizeof *r);
    char *error = NULL;
    r->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(r->options, 1);
    rocksdb_options_increase_parallelism(r->options, 2);
    rocksdb_options_set_write_buffer_size(r->options, 64 << 20);
    rocksdb_options_set_compression(r->options, rocksdb_no_compression);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_filterpolicy_t *bloom = rocksdb_filterpolicy_create_bloom_full(10);
    rocksdb_block_based_options_set_filter_policy(table, bloom);
    rocksdb_cache_t *cache = rocksdb_cache_create_lru((size_t)1 << 30);
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_options_set_block_based_table_factory(r->options, table);
    r->write = rocksdb_writeoptions_create();
    r->read = rocksdb_readoptions_create();
    r->db = rocksdb_open(r->options, dir, &error);
    if (error)
        die("rocksdb", error);
    return r;
}

static void rocks_put(void *e, const char *key, const char *value, size_t size)
{
    rocks *r = e;
    char *error = NULL;
    rocksdb_put(r->db, r->write, key, KEY, value, size, &error);
    if (error)
        die("rocksdb", error);
}

static size_t rocks_get(void *e, const char *key, char *out)
{
    rocks *r = e;
    char *error = NULL;
    size_t n;
    rocksdb_pinnableslice_t *v = rocksdb_get_pinned(r->db, r->read, key, KEY, &error);
    const char *data = v ? rocksdb_pinnableslice_value(v, &n) : NULL;
    if (error || !data)
        die("rocksdb", error ? error : "not found");
    memcpy(out, data, n);
    rocksdb_pinnableslice_destroy(v);
    return n;
}

static void rocks_close(void *e)
{
    rocks *r = e;
    rocksdb_close(r->db);
    free(r);
}

typedef struct lmdb {
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *txn, *reader;
} lmdb;

static void *lmdb_open(const char *dir)
{
    lmdb *l = calloc(1, sizeof *l);
    MDB_txn *txn;
    mkdir(dir, 0777);
    mdb_env_create(&l->env);
    mdb_env_set_mapsize(l->env, (size_t)8 << 30);
    int rc = mdb_env_open(l->env, dir, MDB_NOSYNC | MDB_NOTLS, 0666);
    if (rc)
        die("lmdb", mdb_strerror(rc));
    mdb_txn_begin(l->env, NULL, 0, &txn);
    mdb_dbi_open(txn, NULL, 0, &l->dbi);
    mdb_txn_commit(txn);
    return l;
}

static void lmdb_begin(void *e)
{
    lmdb *l = e;
    mdb_txn_begin(l->env, NULL, 0, &l->txn);
}

static void lmdb_put(void *e, const char *key, const char *value, size_t size)
{
    lmdb *l = e;
    MDB_val k = {KEY, (void *)(uintptr_t)key}, v = {size, (void *)(uintptr_t)value};
    int rc = mdb_put(l->txn, l->dbi, &k, &v, 0);
    if (rc)
        die("lmdb", mdb_strerror(rc));
}

static size_t lmdb_get(void *e, const char *key, char *out)
{
    lmdb *l = e;
    MDB_val k = {KEY, (void *)(uintptr_t)key}, v;
    MDB_txn *txn = l->txn;
    if (!txn) {
        if (!l->reader)
            mdb_txn_begin(l->env, NULL, MDB_RDONLY, &l->reader);
        txn = l->reader;
    }
    if (mdb_get(txn, l->dbi, &k, &v))
        die("lmdb", "not found");
    memcpy(out, v.mv_data, v.mv_size);
    return v.mv_size;
}

static void lmdb_end(void *e)
{
    lmdb *l = e;
    if (l->txn)
        mdb_txn_commit(l->txn);
    l->txn = NULL;
}

static void lmdb_close(void *e)
{
    lmdb *l = e;
    if (l->reader)
        mdb_txn_abort(l->reader);
    mdb_env_close(l->env);
    free(l);
}

typedef struct lite {
    sqlite3 *db;
    sqlite3_stmt *put, *get;
} lite;

static void run_sql(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        die("sqlite", sqlite3_errmsg(db));
}

static void *lite_open(const char *dir)
{
    lite *l = calloc(1, sizeof *l);
    char path[4096];
    mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/db", dir);
    if (sqlite3_open(path, &l->db) != SQLITE_OK)
        die("sqlite", "open");
    run_sql(l->db, "pragma journal_mode=wal; pragma synchronous=off; pragma cache_size=-1000000;"
                   "pragma mmap_size=4000000000;"
                   "create table if not exists t(k blob primary key, v blob) without rowid");
    sqlite3_prepare_v2(l->db, "insert or replace into t values(?,?)", -1, &l->put, NULL);
    sqlite3_prepare_v2(l->db, "select v from t where k=?", -1, &l->get, NULL);
    return l;
}

static void lite_begin(void *e)
{
    run_sql(((lite *)e)->db, "begin");
}

static void lite_put(void *e, const char *key, const char *value, size_t size)
{
    lite *l = e;
    sqlite3_bind_blob(l->put, 1, key, KEY, SQLITE_STATIC);
    sqlite3_bind_blob(l->put, 2, value, (int)size, SQLITE_STATIC);
    if (sqlite3_step(l->put) != SQLITE_DONE)
        die("sqlite", sqlite3_errmsg(l->db));
    sqlite3_reset(l->put);
}

static size_t lite_get(void *e, const char *key, char *out)
{
    lite *l = e;
    sqlite3_bind_blob(l->get, 1, key, KEY, SQLITE_STATIC);
    if (sqlite3_step(l->get) != SQLITE_ROW)
        die("sqlite", "not found");
    size_t n = (size_t)sqlite3_column_bytes(l->get, 0);
    memcpy(out, sqlite3_column_blob(l->get, 0), n);
    sqlite3_reset(l->get);
    return n;
}

static void lite_end(void *e)
{
    run_sql(((lite *)e)->db, "commit");
}

static void lite_close(void *e)
{
    lite *l = e;
    sqlite3_finalize(l->put);
    sqlite3_finalize(l->get);
    sqlite3_close(l->db);
    free(l);
}

/* SynaDB's shared library, of its PyPI wheel, by its C calls; PERIGEE_SYNADB says where it lies. */
static struct {
    int32_t (*open)(const char *path, int32_t sync);
    int32_t (*close)(const char *path);
    int64_t (*put)(const char *path, const char *key, const uint8_t *data, size_t size);
    uint8_t *(*get)(const char *path, const char *key, size_t *size);
    void (*release)(uint8_t *data, size_t size);
} syna;

static int syna_load(void)
{
    const char *path = getenv("PERIGEE_SYNADB");
    void *so = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!so)
        return 0;
    *(void **)&syna.open = dlsym(so, "SYNA_open_with_config");
    *(void **)&syna.close = dlsym(so, "SYNA_close");
    *(void **)&syna.put = dlsym(so, "SYNA_put_bytes");
    *(void **)&syna.get = dlsym(so, "SYNA_get_bytes");
    *(void **)&syna.release = dlsym(so, "SYNA_free_bytes");
    return syna.open && syna.close && syna.put && syna.get && syna.release;
}

static void *syna_open(const char *dir)
{
    char *path = strdup(dir);
    if (syna.open(path, 0) != 1)
        die("synadb", "open");
    return path;
}

static void syna_put(void *e, const char *key, const char *value, size_t size)
{
    char name[KEY + 1] = {0};
    memcpy(name, key, KEY);
    if (syna.put(e, name, (const uint8_t *)value, size) < 0)
        die("synadb", "put");
}

static size_t syna_get(void *e, const char *key, char *out)
{
    char name[KEY + 1] = {0};
    size_t n = 0;
    memcpy(name, key, KEY);
    uint8_t *data = syna.get(e, name, &n);
    if (!data)
        die("synadb", "not found");
    memcpy(out, data, n);
    syna.release(data, n);
    return n;
}

static void syna_close(void *e)
{
    syna.close(e);
    free(e);
}

static const engine engines[] = {
    {"perigee process", 1, log_open_process, nothing, log_put, log_get, nothing, log_close},
    {"perigee memory", 1, log_open_memory, nothing, log_put, log_get, nothing, log_close},
    {"rocksdb", 1, rocks_open, nothing, rocks_put, rocks_get, nothing, rocks_close},
    {"lmdb", 1, lmdb_open, lmdb_begin, lmdb_put, lmdb_get, lmdb_end, lmdb_close},
    {"sqlite", 1, lite_open, lite_begin, lite_put, lite_get, lite_end, lite_close},
    {"synadb", 50, syna_open, nothing, syna_put, syna_get, nothing, syna_close},
};
enum { ENGINES = sizeof engines / sizeof *engines };
/* Reads: ours as LMDB and SQLite load, without a system call for each put. The kernel then keeps
 * the file in larger pages, which reads feel. */
static const int readers[] = {1, 2, 3, 4, 5};
enum { READERS = sizeof readers / sizeof *readers };
static int n_engines, n_readers; /* without SynaDB where it is not to be had */

/* ---- workloads ---- */

static const char *root;

static void path_of(const char *what, const char *name, char out[4096])
{
    snprintf(out, 4096, "%s/%s %s", root, what, name);
}

/* 16 bytes in no order. */
static void key_of(uint64_t i, char key[KEY])
{
    uint64_t a = mix(i), b = mix(a);
    static const char hex[] = "0123456789abcdef";
    for (int k = 0; k < 8; k++) {
        key[k] = hex[a >> (8 * k) & 15];
        key[8 + k] = hex[b >> (8 * k) & 15];
    }
}

static char filler[1 << 16];

static void load(void *e, const engine *g, uint64_t n, size_t size)
{
    g->begin(e);
    for (uint64_t i = 0; i < n / g->divide; i++) {
        char key[KEY];
        key_of(i, key);
        g->put(e, key, filler + (i & 4095), size);
    }
    g->end(e);
}

static void bench_load(void)
{
    enum { N = 400000, ROUNDS = 3 };
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < n_engines; i++) {
            char dir[4096];
            path_of("load", engines[i].name, dir);
            remove_tree(dir);
            void *e = engines[i].open(dir);
            double t = now();
            load(e, &engines[i], N, 150);
            t = now() - t;
            engines[i].close(e);
            remove_tree(dir);
            printf("{\"what\": \"load\", \"engine\": \"%s\", \"round\": %d, \"ops\": %.0f}\n",
                   engines[i].name, round, (double)(N / engines[i].divide) / t);
            fflush(stdout);
        }
}

typedef struct reader {
    void *e;
    const engine *g;
    uint64_t keys, n, seed;
} reader;

static void *read_main(void *arg)
{
    reader *r = arg;
    char out[MOST];
    for (uint64_t i = 0; i < r->n; i++) {
        char key[KEY];
        key_of(mix(r->seed + i) % r->keys, key);
        if (r->g->get(r->e, key, out) != 150)
            die(r->g->name, "wrong size");
    }
    return NULL;
}

static double rate_of_gets(void *e, const engine *g, uint64_t keys, uint64_t n, int threads,
                           uint64_t seed)
{
    pthread_t t[8];
    reader r[8];
    double start = now();
    for (int i = 0; i < threads; i++) {
        r[i] = (reader){e, g, keys / g->divide, n / g->divide, seed + (uint64_t)i * 1000003};
        pthread_create(&t[i], NULL, read_main, &r[i]);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
    return (double)(n / g->divide) * threads / (now() - start);
}

static void bench_get(void)
{
    enum { KEYS = 1000000, N = 300000, ROUNDS = 5 };
    void *e[READERS];
    char dir[4096];
    for (int i = 0; i < n_readers; i++) {
        path_of("get", engines[readers[i]].name, dir);
        remove_tree(dir);
        e[i] = engines[readers[i]].open(dir);
        load(e[i], &engines[readers[i]], KEYS, 150);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < n_readers; i++) {
            const engine *g = &engines[readers[i]];
            double one = rate_of_gets(e[i], g, KEYS, N, 1, (uint64_t)round * 77);
            double two = i == 0 ? rate_of_gets(e[i], g, KEYS, N, 2, (uint64_t)round * 78) : 0;
            printf("{\"what\": \"get\", \"engine\": \"%s\", \"round\": %d, \"ops\": %.0f, "
                   "\"two\": %.0f}\n",
                   g->name, round, one, two);
            fflush(stdout);
        }
    for (int i = 0; i < n_readers; i++) {
        engines[readers[i]].close(e[i]);
        path_of("get", engines[readers[i]].name, dir);
        remove_tree(dir);
    }
}

/* YCSB's zipfian generator (Gray et al., SIGMOD 1994), theta 0.99, scrambled by the key's hash. */
typedef struct zipf {
    double n, zeta, alpha, eta;
} zipf;

static zipf zipf_of(uint64_t n)
{
    zipf z = {.n = (double)n, .alpha = 1 / (1 - 0.99)};
    for (uint64_t i = 1; i <= n; i++)
        z.zeta += pow((double)i, -0.99);
    z.eta = (1 - pow(2 / z.n, 1 - 0.99)) / (1 - (1 + pow(2, -0.99)) / z.zeta);
    return z;
}

static uint64_t zipf_next(const zipf *z, uint64_t random)
{
    double u = (double)(random >> 11) * 0x1p-53, uz = u * z->zeta;
    if (uz < 1)
        return 0;
    if (uz < 1 + pow(0.5, 0.99))
        return 1;
    return (uint64_t)(z->n * pow(z->eta * u - z->eta + 1, z->alpha));
}

static void bench_ycsb(void)
{
    enum { KEYS = 200000, N = 200000, SIZE = 1000, ROUNDS = 3 };
    static const int updates[] = {50, 5, 0};
    zipf z = zipf_of(KEYS);
    void *e[ENGINES];
    char dir[4096], out[MOST];
    uint64_t *at = malloc(N * sizeof *at);
    for (int i = 0; i < n_engines; i++) {
        path_of("ycsb", engines[i].name, dir);
        remove_tree(dir);
        e[i] = engines[i].open(dir);
        load(e[i], &engines[i], KEYS, SIZE);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int mixed = 0; mixed < 3; mixed++)
            for (int i = 0; i < n_engines; i++) {
                const engine *g = &engines[i];
                for (uint64_t k = 0; k < N; k++)
                    at[k] = zipf_next(&z, mix(k + (uint64_t)round * N)) % (KEYS / g->divide);
                double t = now();
                if (updates[mixed])
                    g->begin(e[i]);
                for (uint64_t k = 0; k < N / g->divide; k++) {
                    char key[KEY];
                    key_of(at[k], key);
                    if ((int)(mix(k * 31) % 100) < updates[mixed])
                        g->put(e[i], key, filler + (k & 4095), SIZE);
                    else
                        g->get(e[i], key, out);
                }
                if (updates[mixed])
                    g->end(e[i]);
                t = now() - t;
                printf(
                    "{\"what\": \"ycsb %c\", \"engine\": \"%s\", \"round\": %d, \"ops\": %.0f}\n",
                    'A' + mixed, g->name, round, (double)(N / g->divide) / t);
                fflush(stdout);
            }
    for (int i = 0; i < n_engines; i++) {
        engines[i].close(e[i]);
        path_of("ycsb", engines[i].name, dir);
        remove_tree(dir);
    }
    free(at);
}

/* ---- durable ---- */

typedef struct writer {
    peri_log *log;
    int id, n;
} writer;

static void *write_main(void *arg)
{
    writer *w = arg;
    for (int i = 0; i < w->n; i++) {
        char key[KEY];
        key_of((uint64_t)w->id * 100000 + (uint64_t)i, key);
        log_put(w->log, key, filler, 150);
    }
    return NULL;
}

static uint64_t syncs_of(peri_log *log)
{
    peri_log_info info;
    peri_log_info_init(&info);
    peri_log_get_info(log, &info);
    return info.syncs;
}

/* The raw loop writes what a record of ours takes into blocks that were written before, and syncs.
 */
static void bench_durable(void)
{
    enum { CHUNK = 50, ROUNDS = 20, RECORD = 256, WRITERS = 16, EACH = 60 };
    char dir[4096], raw[4096];
    path_of("durable", "perigee", dir);
    path_of("durable", "raw", raw);
    remove_tree(dir);
    peri_log *log = log_open(dir, PERI_DURABLE_COMMIT);
    int fd = open(raw, O_RDWR | O_CREAT | O_TRUNC, 0666);
    for (int i = 0; i < 64; i++)
        if (pwrite(fd, filler, sizeof filler, (off_t)i * (off_t)sizeof filler) < 0)
            die(raw, "write");
    fsync(fd);
    uint64_t at = 0, n = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double t = now();
        for (int i = 0; i < CHUNK; i++, at += RECORD)
            if (pwrite(fd, filler, RECORD, (off_t)at) < 0 || fdatasync(fd) < 0)
                die(raw, "write");
        double loop = now() - t;
        t = now();
        for (int i = 0; i < CHUNK; i++, n++) {
            char key[KEY];
            key_of(n, key);
            log_put(log, key, filler, 150);
        }
        printf("{\"what\": \"durable\", \"round\": %d, \"raw\": %.0f, \"perigee\": %.0f}\n", round,
               CHUNK / loop, CHUNK / (now() - t));
        fflush(stdout);
    }
    pthread_t threads[WRITERS];
    writer w[WRITERS];
    uint64_t before = syncs_of(log);
    double t = now();
    for (int i = 0; i < WRITERS; i++) {
        w[i] = (writer){log, i + 1, EACH};
        pthread_create(&threads[i], NULL, write_main, &w[i]);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    printf("{\"what\": \"group\", \"writers\": %d, \"ops\": %.0f, \"syncs per commit\": %.4f}\n",
           WRITERS, WRITERS * EACH / (now() - t),
           (double)(syncs_of(log) - before) / (WRITERS * EACH));
    peri_log_close(log);
    close(fd);
    unlink(raw);
    remove_tree(dir);
}

/* ---- histories ---- */

static double get_rate(peri_log *log, const char *key)
{
    enum { N = 300000 };
    double v, t = now();
    for (int i = 0; i < N; i++)
        if (peri_log_get_float(log, peri_cstr(key), &v) != PERI_OK)
            die("get", peri_error_detail());
    return N / (now() - t);
}

static uint64_t bytes_of(peri_log *log)
{
    peri_log_info info;
    peri_log_info_init(&info);
    peri_log_get_info(log, &info);
    return info.file_bytes;
}

/* kind 0: random walk of 2 decimals; 1: any bits. */
static void series(const char *name, uint32_t flags, int kind)
{
    enum { N = 1000000, STEP = 1000 };
    char dir[4096];
    peri_log *log;
    peri_log_config c;
    peri_log_batch *b;
    peri_buf values = {0};
    size_t n;
    double walk = 20, best = 1e9, *want = malloc(N * sizeof *want);
    path_of("history", name, dir);
    remove_tree(dir);
    peri_log_config_init(&c);
    c.durability = PERI_DURABLE_MEMORY;
    c.flags = flags;
    if (peri_log_open(&log, dir, &c, NULL) != PERI_OK)
        die(dir, peri_error_detail());
    peri_log_batch_create(&b, log);
    for (uint64_t i = 0; i < N; i++) {
        uint64_t bits = mix(i), bits2 = mix(bits);
        double normal = sqrt(-2 * log1p(-(double)(bits >> 11) * 0x1p-53)) *
                        cos(6.283185307179586 * (double)(bits2 >> 11) * 0x1p-53);
        peri_atom a = {.type = PERI_ATOM_FLOAT, .time = 1700000000000000 + (int64_t)i * 1000000};
        walk += normal * 0.02;
        a.number = round(walk * 100) / 100;
        if (kind)
            memcpy(&a.number, &bits, 8);
        want[i] = a.number;
        peri_log_batch_put(b, peri_cstr("series"), &a);
        if (i % STEP == STEP - 1 && peri_log_batch_commit(b, 0, NULL) != PERI_OK)
            die("batch", peri_error_detail());
    }
    double t = now();
    if (peri_log_compact(log, NULL, NULL) != PERI_OK)
        die("compact", peri_error_detail());
    t = now() - t;
    for (int round = 0; round < 7; round++) {
        double start = now();
        if (peri_log_series(log, peri_cstr("series"), NULL, &values, NULL, &n) != PERI_OK)
            die("series", peri_error_detail());
        start = now() - start;
        best = start < best ? start : best;
    }
    printf("{\"what\": \"series\", \"data\": \"%s\", \"read GB/s\": %.2f, \"ratio\": %.2f, "
           "\"exact\": %s, \"compact s\": %.2f}\n",
           name, N * 8e-9 / best, N * 8.0 / (double)bytes_of(log),
           n == N && memcmp(values.data, want, N * 8) == 0 ? "true" : "false", t);
    fflush(stdout);
    peri_buf_free(&values);
    peri_log_batch_close(b);
    peri_log_close(log);
    remove_tree(dir);
    free(want);
}

static void bench_history(void)
{
    char dir[4096];
    path_of("history", "deep", dir);
    remove_tree(dir);
    peri_log *log = log_open(dir, PERI_DURABLE_MEMORY);
    peri_log_put_float(log, peri_cstr("shallow"), 1);
    for (int i = 0; i < 100000; i++)
        peri_log_put_float(log, peri_cstr("deep"), i);
    for (int round = 0; round < 5; round++)
        printf("{\"what\": \"latest\", \"round\": %d, \"one version\": %.0f, \"100,000\": %.0f}\n",
               round, get_rate(log, "shallow"), get_rate(log, "deep"));
    peri_log_close(log);
    remove_tree(dir);
    series("raw blocks", 0, 0);
    series("walk, compressed", PERI_LOG_SERIES, 0);
    series("any bits, compressed", PERI_LOG_SERIES, 1);
}

/* ---- opening ---- */

static void bench_open(void)
{
    enum { KEYS = 1000000, ROUNDS = 5 };
    char dir[4096], hint[4200];
    path_of("open", "perigee", dir);
    remove_tree(dir);
    peri_log *log = log_open(dir, PERI_DURABLE_MEMORY);
    load(log, &engines[1], KEYS, 150);
    peri_log_close(log);
    snprintf(hint, sizeof hint, "mkdir '%s.aside'; mv '%s'/*.peh '%s.aside'", dir, dir, dir);
    for (int round = 0; round < ROUNDS; round++) {
        double with = now(), without;
        peri_log_config c;
        peri_log_config_init(&c);
        c.flags = PERI_LOG_READONLY;
        if (peri_log_open(&log, dir, &c, NULL) != PERI_OK)
            die(dir, peri_error_detail());
        with = now() - with;
        peri_log_close(log);
        if (system(hint) != 0)
            die(dir, "no hint");
        without = now();
        if (peri_log_open(&log, dir, &c, NULL) != PERI_OK)
            die(dir, peri_error_detail());
        without = now() - without;
        peri_log_close(log);
        char back[13000];
        snprintf(back, sizeof back, "mv '%s.aside'/* '%s'; rmdir '%s.aside'", dir, dir, dir);
        if (system(back) != 0)
            die(dir, "hint lost");
        printf("{\"what\": \"open\", \"round\": %d, \"hint ms\": %.2f, \"scan ms\": %.2f}\n", round,
               with * 1e3, without * 1e3);
    }
    remove_tree(dir);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"load", bench_load},       {"get", bench_get},         {"ycsb", bench_ycsb},
               {"durable", bench_durable}, {"history", bench_history}, {"open", bench_open}};
    if (argc < 2)
        die("usage", "log_bench DIRECTORY [load|get|ycsb|durable|history|open]...");
    root = argv[1];
    n_engines = ENGINES - !syna_load();
    n_readers = READERS - (n_engines < ENGINES);
    mkdir(root, 0777);
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (char)mix(i);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int wanted = argc == 2;
        for (int k = 2; k < argc; k++)
            wanted |= strcmp(argv[k], all[i].name) == 0;
        if (wanted)
            all[i].run();
    }
    return 0;
}
