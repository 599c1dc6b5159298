/* Random batches, reads as of any sequence, ordered scans, snapshots, compactions and reopenings
 * of a history, against a list of all versions ever written. */
#include "histories.h"

enum { KEYS = 60, STEPS = 1500, VERSIONS = 40000, LONG = 9000 };

typedef struct version {
    uint64_t sequence;
    int64_t time;
    int key, live, tag, given_up;
    uint32_t size;
    uint64_t seed;
} version;

typedef struct model {
    version *v; /* in the order of writing */
    size_t n;
    uint64_t last, snapshot;
    pe_rng rng;
} model;

static size_t key_text(int k, char out[64])
{
    static const char *const roots[] = {"a/", "a/b/", "run/metrics/", "", "zz", "a"};
    return (size_t)sprintf(out, "%sk%d%.*s", roots[k % 6], k, k % 9, "xxxxxxxxx");
}

static void value_bytes(const version *v, unsigned char *out)
{
    if (v->tag == PE_TAG_F64) {
        double d = v->seed % 7 == 0 ? 0.1 * (double)(v->seed % 1000) : (double)v->seed / 3;
        memcpy(out, &d, 8);
        return;
    }
    for (uint32_t i = 0; i < v->size; i++)
        out[i] = (unsigned char)(v->seed >> (i % 8 * 8)) ^ (unsigned char)i;
}

/* The newest version of a key not after a sequence. */
static const version *newest(const model *m, int key, uint64_t as_of)
{
    for (size_t i = m->n; i-- > 0;)
        if (m->v[i].key == key && m->v[i].sequence <= as_of)
            return &m->v[i];
    return NULL;
}

static void check_read(pe_history *h, const model *m, int key, uint64_t as_of)
{
    char name[64];
    unsigned char want[LONG];
    pe_read r;
    pe_version v;
    const version *w = newest(m, key, as_of ? as_of : UINT64_MAX);
    peri_slice slice = {name, key_text(key, name)};
    peri_status status = pe_read_begin(&r, h, as_of);
    if (status == PERI_ERR_STATE) {
        pe_history_info info;
        pe_history_get_info(h, &info);
        assert_true(as_of < info.horizon);
        return;
    }
    assert_int_equal(status, PERI_OK);
    status = pe_read_get(&r, slice, &v);
    if (!w || !w->live) {
        assert_int_equal(status, PERI_ERR_NOT_FOUND);
    } else {
        assert_int_equal(status, PERI_OK);
        value_bytes(w, want);
        assert_int_equal(v.size, w->size);
        assert_memory_equal(v.value, want, w->size);
        assert_int_equal(v.sequence, w->sequence);
        assert_int_equal(v.time, w->time);
        assert_int_equal(v.tag, w->tag);
    }
    pe_read_end(&r);
}

static void write_batch(pe_history *h, model *m)
{
    enum { MOST = 9 };
    pe_write w[MOST];
    static unsigned char values[MOST][LONG];
    char names[MOST][64];
    version fresh[MOST];
    size_t n = pe_rng_below(&m->rng, 3) ? 1 : 1 + pe_rng_below(&m->rng, MOST), n_fresh = 0, done;
    uint64_t sequence;
    for (size_t i = 0; i < n; i++) {
        int key = (int)pe_rng_below(&m->rng, KEYS);
        uint32_t dice = pe_rng_below(&m->rng, 100);
        version v = {0,   1 + (int64_t)pe_rng_below(&m->rng, 1000),
                     key, dice >= 15,
                     3,   0,
                     0,   pe_rng_next(&m->rng) | 1};
        if (key % 4 == 0) {
            v.tag = PE_TAG_F64;
            v.size = 8;
        } else {
            v.size = dice > 97 ? pe_rng_below(&m->rng, LONG) : pe_rng_below(&m->rng, 40);
        }
        value_bytes(&v, values[i]);
        w[i] = (pe_write){v.live ? PE_OP_PUT : PE_OP_DELETE,
                          (uint8_t)v.tag,
                          v.time,
                          {names[i], key_text(key, names[i])},
                          {values[i], v.size}};
        const version *was = NULL;
        for (size_t k = n_fresh; k-- > 0 && !was;)
            was = fresh[k].key == key ? &fresh[k] : NULL;
        if (!was)
            was = newest(m, key, UINT64_MAX);
        if (!v.live && (!was || !was->live))
            continue; /* nothing to delete */
        fresh[n_fresh++] = v;
    }
    static const int levels[] = {PE_DURABLE_MEMORY, PE_DURABLE_MEMORY, PE_DURABLE_PROCESS};
    int level = levels[pe_rng_below(&m->rng, 3)];
    assert_int_equal(pe_history_write(h, w, n, level, &sequence, &done), PERI_OK);
    assert_int_equal(done, n_fresh);
    if (n_fresh) {
        assert_int_equal(sequence, m->last + 1);
        m->last++;
    }
    for (size_t i = 0; i < n_fresh; i++) {
        fresh[i].sequence = m->last;
        assert_true(m->n < VERSIONS);
        m->v[m->n++] = fresh[i];
    }
}

typedef struct scan {
    const model *m;
    char last[80];
    size_t n;
} scan;

static peri_status scan_one(void *ctx, const pe_version *v)
{
    scan *s = ctx;
    char key[80] = {0};
    memcpy(key, v->key.data, v->key.size);
    assert_true(s->n == 0 || strcmp(s->last, key) < 0);
    strcpy(s->last, key);
    s->n++;
    return PERI_OK;
}

static void check_scan(pe_history *h, const model *m, uint64_t as_of)
{
    static const char *const prefixes[] = {"", "a", "a/", "run/", "run/metrics/k", "nothing", "z"};
    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        scan s = {.m = m};
        pe_read r;
        size_t want = 0;
        for (int k = 0; k < KEYS; k++) {
            char name[64];
            key_text(k, name);
            const version *v = newest(m, k, as_of ? as_of : UINT64_MAX);
            want += v && v->live && strncmp(name, prefixes[p], strlen(prefixes[p])) == 0;
        }
        if (pe_read_begin(&r, h, as_of) != PERI_OK)
            return;
        assert_int_equal(
            pe_read_scan(&r, text(prefixes[p]), (peri_slice){NULL, 0}, 0, scan_one, &s), PERI_OK);
        pe_read_end(&r);
        assert_int_equal(s.n, want);
    }
}

static void check_counts(pe_history *h, const model *m)
{
    pe_history_info info;
    uint64_t live = 0;
    for (int k = 0; k < KEYS; k++) {
        const version *v = newest(m, k, UINT64_MAX);
        live += v && v->live;
    }
    pe_history_get_info(h, &info);
    assert_int_equal(info.live, live);
    assert_int_equal(info.sequence, m->last);
}

static pe_history *reopen(pe_history *h, const char *dir, int compress)
{
    pe_history_config c = {.dir = dir,
                           .create = 1,
                           .durability = PE_DURABLE_PROCESS,
                           .file_size = 1 << 16,
                           .compress = compress};
    pe_history *fresh;
    pe_history_close(h);
    assert_int_equal(pe_history_open(&fresh, NULL, &c), PERI_OK);
    return fresh;
}

static void compact(pe_history *h, model *m)
{
    pe_retention keep = {0};
    switch (pe_rng_below(&m->rng, 5)) {
    case 0:
        keep.keep = 1;
        break;
    case 1:
        keep.keep = 3;
        keep.keep_deleted = 1;
        break;
    case 2:
        keep.keep = 1;
        keep.keep_since = 500;
        break;
    default:
        break; /* all */
    }
    assert_int_equal(pe_history_compact(h, &keep, NULL), PERI_OK);
}

static void run(uint64_t seed)
{
    char name[32];
    sprintf(name, "model-%u", (unsigned)seed);
    const char *dir = scratch(name);
    model m = {.v = malloc(VERSIONS * sizeof(version)), .rng = {seed}};
    pe_history *h = reopen(NULL, dir, seed % 2 == 0);
    for (int step = 0; step < STEPS; step++) {
        uint32_t dice = pe_rng_below(&m.rng, 1000);
        if (dice < 700)
            write_batch(h, &m);
        else if (dice < 960)
            check_read(h, &m, (int)pe_rng_below(&m.rng, KEYS),
                       pe_rng_below(&m.rng, 2) ? 0 : 1 + pe_rng_next(&m.rng) % (m.last + 1));
        else if (dice < 975)
            check_scan(h, &m, pe_rng_below(&m.rng, 2) ? 0 : m.last / 2 + 1);
        else if (dice < 985)
            h = reopen(h, dir, (int)(seed % 2 == 0)), m.snapshot = 0;
        else if (dice < 990)
            compact(h, &m);
        else if (dice < 993 && m.snapshot == 0)
            assert_int_equal(pe_history_snapshot(h, &m.snapshot), PERI_OK);
        if (m.snapshot && dice % 10 == 0)
            check_read(h, &m, (int)pe_rng_below(&m.rng, KEYS), m.snapshot);
        if (step % 100 == 0) {
            check_counts(h, &m);
            assert_history_sound(h);
        }
    }
    for (int k = 0; k < KEYS; k++)
        check_read(h, &m, k, 0);
    if (m.snapshot)
        assert_int_equal(pe_history_release(h, m.snapshot), PERI_OK);
    pe_history_close(h);
    dir_remove(dir);
    free(m.v);
}

static void test_a_history_answers_as_a_list_of_versions_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_history_answers_as_a_list_of_versions_does),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
