/* Every allocation and every call on files fails once, and from then on, in the work of segment
 * files and keys: each failure is reported, leaks nothing, and leaves what stood there whole. */
#include "base/rng.h"
#include "faulty.h"
#include "keys/keys.h"
#include "scratch.h"

#include <fcntl.h>

#define KIND PE_FOURCC('T', 'E', 'S', 'T')
#define ROWS PE_FOURCC('R', 'O', 'W', 'S')

enum { N_KEYS = 300, BIG = 300000 };

static unsigned char rows[2][BIG]; /* of the former file and of the new one */

/* One handle's worth: host, epoch, keys. */
typedef struct session {
    pe_host host;
    pe_epoch epoch;
    pe_keys *keys;
} session;

static peri_status session_open(session *s, const peri_env *env)
{
    memset(s, 0, sizeof *s);
    assert_int_equal(pe_host_init(&s->host, env), PERI_OK);
    pe_epoch_init(&s->epoch, &s->host, NULL);
    return pe_keys_create(&s->keys, &s->host, &s->epoch);
}

static void session_close(session *s)
{
    pe_keys_destroy(s->keys);
    pe_epoch_destroy(&s->epoch);
    assert_int_equal(atomic_load(&s->host.heap), 0);
    assert_int_equal(atomic_load(&s->host.mapped), 0);
}

static size_t key_text(unsigned i, unsigned version, char key[128])
{
    size_t n = (size_t)sprintf(key, "key %u of version %u ", i, version);
    while (n < 20 + i % 100)
        key[n++] = '-';
    return n;
}

/* Set keys one at a time; whatever happens, those before are there and the structure is whole. */
static peri_status fill(session *s, unsigned version)
{
    char key[128];
    uint64_t faults = 0;
    peri_status status = PERI_OK;
    for (unsigned i = 0; i < N_KEYS && status == PERI_OK; i++) {
        size_t n = key_text(i, version, key);
        size_t before = pe_keys_count(s->keys);
        status = pe_keys_reserve(s->keys, 1, n);
        if (status == PERI_OK)
            pe_keys_set(s->keys, (peri_slice){key, n}, version * N_KEYS + i);
        else
            assert_int_equal(pe_keys_count(s->keys), before);
        pe_epoch_reclaim(&s->epoch);
    }
    assert_int_equal(pe_keys_check(s->keys, &faults), PERI_OK);
    assert_int_equal(faults, 0);
    return status;
}

static peri_status save(session *s, const char *path, unsigned version)
{
    pe_segment_id id = {.kind = KIND, .version_major = 1, .generation = version};
    pe_segw *w;
    PE_TRY(pe_segw_open(&w, &s->host, path, &id));
    (void)pe_segw_begin(w, ROWS, 1); /* errors stick: commit says what went wrong */
    (void)pe_segw_put(w, rows[version], 1000);
    (void)pe_segw_put(w, rows[version] + 1000, BIG - 1000);
    (void)pe_segw_end(w);
    (void)pe_keys_save(s->keys, w);
    return pe_segw_commit(w);
}

typedef struct work {
    const char *path;
    int map;
    void *block; /* of the control */
} work;

static peri_status write_new(const peri_env *env, const work *w)
{
    session s;
    peri_status status = session_open(&s, env);
    if (status == PERI_OK)
        status = fill(&s, 1);
    if (status == PERI_OK)
        status = save(&s, w->path, 1);
    session_close(&s);
    return status;
}

/* Read all of it and compare; what is read without an error is right. */
static peri_status read_all(pe_segr *r, session *s, unsigned version)
{
    static unsigned char buf[BIG];
    const pe_section *section = pe_segr_find(r, ROWS);
    char key[128];
    assert_non_null(section);
    assert_int_equal(pe_segr_id(r)->generation, version);
    PE_TRY(pe_segr_verify(r, section));
    PE_TRY(pe_segr_read(r, section, 0, buf, BIG));
    assert_memory_equal(buf, rows[version], BIG);
    PE_TRY(pe_segr_read(r, section, 100, buf, 70000));
    assert_memory_equal(buf, rows[version] + 100, 70000);
    pe_keys_destroy(s->keys);
    PE_TRY(pe_keys_open(&s->keys, &s->host, &s->epoch, r));
    assert_int_equal(pe_keys_count(s->keys), N_KEYS);
    for (unsigned i = 0; i < N_KEYS; i++) {
        uint64_t id;
        size_t n = key_text(i, version, key);
        assert_true(pe_keys_find(s->keys, (peri_slice){key, n}, &id));
        assert_int_equal(id, version * N_KEYS + i);
    }
    return PERI_OK;
}

static peri_status read_version(const peri_env *env, const work *w, unsigned version)
{
    session s;
    pe_segr *r = NULL;
    peri_status status = session_open(&s, env);
    if (status == PERI_OK)
        status = pe_segr_open(&r, &s.host, w->path, w->map);
    if (status == PERI_OK)
        status = read_all(r, &s, version);
    pe_segr_close(r);
    session_close(&s);
    return status;
}

static peri_status read_new(const peri_env *env, const work *w)
{
    return read_version(env, w, 1);
}

/* Remove most keys; compaction may fail for want of memory and is then left for later. */
static peri_status remove_most(const peri_env *env, const work *w)
{
    session s;
    (void)w;
    uint64_t faults = 0;
    char key[128];
    peri_status status = session_open(&s, env);
    for (unsigned version = 0; version < 4 && status == PERI_OK; version++)
        status = fill(&s, version); /* 1,200 keys of up to 120 bytes: enough to be compacted */
    for (unsigned version = 0; version < 4 && status == PERI_OK; version++)
        for (unsigned i = 0; i < N_KEYS; i++) {
            size_t n = key_text(i, version, key);
            if (i % 10 && !pe_keys_remove(s.keys, (peri_slice){key, n}))
                fail_msg("a key is gone");
        }
    if (s.keys) {
        assert_int_equal(pe_keys_check(s.keys, &faults), PERI_OK);
        assert_int_equal(faults, 0);
    }
    session_close(&s);
    return status;
}

static void make_former(const work *w)
{
    session s;
    assert_int_equal(session_open(&s, NULL), PERI_OK);
    assert_int_equal(fill(&s, 0), PERI_OK);
    assert_int_equal(save(&s, w->path, 0), PERI_OK);
    session_close(&s);
}

typedef peri_status (*work_fn)(const peri_env *env, const work *w);

/* Fail each point of the work in turn. `after` looks at what is left. */
static uint64_t fail_each(work_fn fn, const work *w, faulty_what what, int sticky, int error,
                          void (*before)(const work *),
                          void (*after)(const work *, const faulty *, peri_status))
{
    for (uint64_t n = 1;; n++) {
        faulty f;
        faulty_init(&f, what, n, sticky);
        f.error = error;
        if (before)
            before(w);
        peri_status status = fn(&f.env, w);
        if (!faulty_clean(&f))
            fail_msg("%s call %llu: held %lld blocks, %lld descriptors, %lld mappings; %llu "
                     "wrong sizes",
                     f.fired, (unsigned long long)n, (long long)f.blocks, (long long)f.fds,
                     (long long)f.maps, (unsigned long long)f.wrong_sizes);
        assert_int_equal(scratch_count(), 1); /* no temporary file stays behind */
        if (after)
            after(w, &f, status);
        if (!f.fired) {
            assert_int_equal(status, PERI_OK);
            return n - 1;
        }
    }
}

static void former_or_new(const work *w, const faulty *f, peri_status status)
{
    if (status == PERI_OK) {
        if (f->fired) /* no failure of a write goes unreported */
            fail_msg("%s failed and nobody was told", f->fired);
        assert_int_equal(f->writes_after_sync, 0);
        assert_int_equal(f->syncs, 1);
        assert_int_equal(f->dir_syncs, 1);
    }
    int renamed = status == PERI_OK || (f->fired && strcmp(f->fired, "sync_dir") == 0);
    assert_int_equal(read_version(NULL, w, renamed), PERI_OK);
}

static void the_former_file_stays_whole_until_the_new_one_is(void **state)
{
    (void)state;
    work w = {.path = scratch("replace"), .map = PE_SEGMENT_MAP};
    for (int sticky = 0; sticky < 2; sticky++) {
        uint64_t a = fail_each(write_new, &w, FAULTY_ALLOC, sticky, 0, make_former, former_or_new);
        uint64_t b = fail_each(write_new, &w, FAULTY_FILES, sticky, sticky ? ENOSPC : EIO,
                               make_former, former_or_new);
        print_message("write: %llu allocations, %llu calls on files failed\n",
                      (unsigned long long)a, (unsigned long long)b);
        assert_true(a > 20 && b > 8);
    }
    unlink(w.path);
}

static void what_happened(const work *w, const faulty *f, peri_status status)
{
    (void)w;
    if (f->fired && f->what == FAULTY_ALLOC)
        assert_int_equal(status, PERI_ERR_NOMEM);
    if (f->fired && f->what == FAULTY_FILES)
        assert_int_equal(status, PERI_ERR_IO);
}

static void a_reader_reports_every_failure(void **state)
{
    (void)state;
    work w = {.path = scratch("read")};
    assert_int_equal(write_new(NULL, &w), PERI_OK);
    for (w.map = PE_SEGMENT_COPY; w.map <= PE_SEGMENT_MAP_COW; w.map++)
        for (int sticky = 0; sticky < 2; sticky++) {
            fail_each(read_new, &w, FAULTY_ALLOC, sticky, 0, NULL, what_happened);
            /* In COPY mode the descriptor is closed at the end, when nobody asks any more. */
            if (w.map != PE_SEGMENT_COPY)
                fail_each(read_new, &w, FAULTY_FILES, sticky, EIO, NULL, what_happened);
            else
                fail_each(read_new, &w, FAULTY_FILES, sticky, EIO, NULL, NULL);
        }
    unlink(w.path);
}

static void removing_keys_never_fails_for_want_of_memory(void **state)
{
    (void)state;
    work w = {.path = scratch("none")};
    blob_save(w.path, "", 0);
    for (int sticky = 0; sticky < 2; sticky++)
        fail_each(remove_most, &w, FAULTY_ALLOC, sticky, 0, NULL, NULL);
    unlink(w.path);
}

static void short_and_interrupted_calls_change_nothing(void **state)
{
    (void)state;
    work w = {.path = scratch("short")};
    static const size_t most[] = {1000, 4096, 65537};
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        faulty f;
        faulty_init(&f, FAULTY_NOTHING, 0, 0);
        f.short_io = most[i];
        f.interrupts = 1;
        assert_int_equal(write_new(&f.env, &w), PERI_OK);
        for (w.map = PE_SEGMENT_COPY; w.map <= PE_SEGMENT_MAP_COW; w.map++)
            assert_int_equal(read_new(&f.env, &w), PERI_OK);
        assert_true(faulty_clean(&f));
    }
    unlink(w.path);
}

/* The control: a writer that looks at no result and cleans up only when all went well. */
static peri_status write_carelessly(const peri_env *env, work *w)
{
    const peri_files *files = env->files;
    int fd = files->open(files->ctx, w->path, O_WRONLY | O_CREAT, 0600);
    void *block = w->block = env->alloc(env->alloc_ctx, 100, 64);
    int64_t put = files->pwrite(files->ctx, fd, "careless", 8, 0);
    files->sync(files->ctx, fd);
    if (put == 8) {
        files->close(files->ctx, fd);
        env->free(env->alloc_ctx, block, 99);
    }
    return PERI_OK;
}

static void a_careless_writer_would_be_caught(void **state)
{
    (void)state;
    work w = {.path = scratch("careless")};
    unsigned leaks = 0, unreported = 0, sizes = 0;
    for (uint64_t n = 1; n <= 5; n++) {
        faulty f;
        faulty_init(&f, FAULTY_FILES, n, 0);
        unreported += write_carelessly(&f.env, &w) == PERI_OK && f.fired;
        leaks += f.fds != 0 && f.blocks != 0;
        sizes += f.wrong_sizes != 0;
        assert_false(faulty_clean(&f));
        if (f.blocks)
            f.env.free(&f, w.block, 100);
    }
    assert_int_equal(unreported, 4); /* open, pwrite, sync, close; the fifth is past the end */
    assert_int_equal(leaks, 1);
    assert_int_equal(sizes, 3);
    unlink(w.path);
}

static int setup(void **state)
{
    (void)state;
    pe_rng rng = {5};
    for (unsigned v = 0; v < 2; v++)
        for (size_t i = 0; i < BIG; i++)
            rows[v][i] = (unsigned char)pe_rng_next(&rng);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_former_file_stays_whole_until_the_new_one_is),
        cmocka_unit_test(a_reader_reports_every_failure),
        cmocka_unit_test(removing_keys_never_fails_for_want_of_memory),
        cmocka_unit_test(short_and_interrupted_calls_change_nothing),
        cmocka_unit_test(a_careless_writer_would_be_caught),
    };
    return cmocka_run_group_tests_name("fault: persist and keys", tests, setup, scratch_remove);
}
