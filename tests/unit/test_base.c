/* The bottom of the house: statuses, the host seam, arrays under readers, epochs, top-k, id sets,
 * teams. */
#define _GNU_SOURCE
#include "base/array.h"
#include "base/checked.h"
#include "base/file.h"
#include "base/idset.h"
#include "base/rng.h"
#include "base/team.h"
#include "base/topk.h"
#include "faulty.h"
#include "scratch.h"

#include <fcntl.h>
#include <math.h>

/* ---- statuses ---- */

static void each_status_has_a_name_and_a_text(void **state)
{
    (void)state;
    static const int values[] = {
#define PERI_X(name, value, text) (value),
        PERI_STATUS_MAP(PERI_X)
#undef PERI_X
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_true(strncmp(peri_status_name(values[i]), "PERI_", 5) == 0);
        assert_true(strlen(peri_strerror(values[i])) > 0);
        assert_true(values[i] <= 0);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(values[i], values[j]);
    }
    assert_string_equal(peri_status_name(PERI_ERR_CORRUPT), "PERI_ERR_CORRUPT");
    assert_string_equal(peri_status_name(12345), "");
    assert_string_equal(peri_strerror(12345), "unknown status");
}

static void *other_thread(void *arg)
{
    char *out = arg;
    pe_fail(PERI_ERR_IO, "of the other thread");
    pe_detail_copy(out);
    return NULL;
}

static void the_detail_belongs_to_its_thread_and_is_cut_to_size(void **state)
{
    (void)state;
    char theirs[PE_DETAIL_SIZE], longer[2 * PE_DETAIL_SIZE];
    pthread_t thread;
    assert_int_equal(pe_fail(PERI_ERR_ARG, "k is %d", 0), PERI_ERR_ARG);
    assert_int_equal(pthread_create(&thread, NULL, other_thread, theirs), 0);
    pthread_join(thread, NULL);
    assert_string_equal(peri_error_detail(), "k is 0");
    assert_string_equal(theirs, "of the other thread");
    pe_detail_set(theirs);
    assert_string_equal(peri_error_detail(), "of the other thread");
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    pe_fail(PERI_ERR_ARG, "%s", longer);
    assert_int_equal(strlen(peri_error_detail()), PE_DETAIL_SIZE - 1);
}

static void system_errors_become_statuses(void **state)
{
    (void)state;
    assert_int_equal(pe_fail_errno(ENOENT, "open", "x"), PERI_ERR_NOT_FOUND);
    assert_int_equal(pe_fail_errno(EEXIST, "open", "x"), PERI_ERR_EXISTS);
    assert_int_equal(pe_fail_errno(ENOMEM, "mmap", "x"), PERI_ERR_NOMEM);
    assert_int_equal(pe_fail_errno(ENOSPC, "write", "some path"), PERI_ERR_IO);
    assert_non_null(strstr(peri_error_detail(), "some path: write: No space left on device"));
}

/* ---- sizes ---- */

static void sizes_that_overflow_are_told(void **state)
{
    (void)state;
    size_t n;
    assert_int_equal(pe_mul_size(SIZE_MAX / 2, 2, &n), 0);
    assert_int_equal(pe_mul_size(SIZE_MAX / 2 + 1, 2, &n), 1);
    assert_int_equal(pe_add_size(SIZE_MAX, 0, &n), 0);
    assert_int_equal(pe_add_size(SIZE_MAX, 1, &n), 1);
    assert_int_equal(pe_round_up(0, 64), 0);
    assert_int_equal(pe_round_up(1, 64), 64);
    assert_int_equal(pe_round_up(64, 64), 64);
}

/* ---- host ---- */

static void the_host_counts_what_it_lends(void **state)
{
    (void)state;
    faulty f;
    pe_host host;
    faulty_init(&f, FAULTY_ALLOC, 4, 0);
    assert_int_equal(pe_host_init(&host, &f.env), PERI_OK);
    unsigned char *a = pe_calloc(&host, 1000);
    void *b = pe_alloc_aligned(&host, 3 * PE_HUGE, PE_HUGE), *c = pe_alloc(&host, 0);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(a[i], 0);
    assert_int_equal((uintptr_t)a % PE_ALIGN, 0);
    assert_int_equal((uintptr_t)b % PE_HUGE, 0);
    assert_int_equal(atomic_load(&host.heap), 1000 + 3 * PE_HUGE);
    assert_null(pe_alloc(&host, 77)); /* the fourth */
    assert_non_null(strstr(peri_error_detail(), "77"));
    pe_free(&host, a, 1000);
    pe_free(&host, b, 3 * PE_HUGE);
    pe_free(&host, c, 0);
    pe_free(&host, NULL, 5);
    assert_int_equal(atomic_load(&host.heap), 0);
    assert_true(faulty_clean(&f));
}

static void an_environment_that_is_half_there_is_refused(void **state)
{
    (void)state;
    faulty f;
    pe_host host;
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    f.env.free = NULL;
    assert_int_equal(pe_host_init(&host, &f.env), PERI_ERR_ARG);
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    f.env.struct_size = 4;
    assert_int_equal(pe_host_init(&host, &f.env), PERI_ERR_ARG);
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    f.files.struct_size = 0;
    assert_int_equal(pe_host_init(&host, &f.env), PERI_ERR_ARG);
}

static void growing_keeps_what_was_there_or_changes_nothing(void **state)
{
    (void)state;
    faulty f;
    pe_host host;
    uint32_t *p = NULL;
    size_t room = 0;
    faulty_init(&f, FAULTY_ALLOC, 6, 0);
    pe_host_init(&host, &f.env);
    for (uint32_t i = 0; i < 10000; i++) {
        peri_status status = pe_grow(&host, &p, &room, i + 1, sizeof *p);
        if (status != PERI_OK) {
            assert_int_equal(status, PERI_ERR_NOMEM);
            assert_int_equal(room, i); /* full, as before */
            assert_int_equal(pe_grow(&host, &p, &room, i + 1, sizeof *p), PERI_OK);
        }
        p[i] = i;
    }
    assert_non_null(f.fired);
    for (uint32_t i = 0; i < 10000; i++)
        assert_int_equal(p[i], i);
    uint32_t *before = p;
    assert_int_equal(pe_grow(&host, &p, &room, SIZE_MAX / 2, sizeof *p), PERI_ERR_NOMEM);
    assert_ptr_equal(p, before);
    pe_free(&host, p, room * sizeof *p);
    assert_true(faulty_clean(&f));
}

static void a_buffer_is_reused_and_freed(void **state)
{
    (void)state;
    peri_buf b = {0};
    assert_int_equal(pe_buf_set(&b, "", 0), PERI_OK);
    assert_int_equal(pe_buf_set(&b, "hello", 5), PERI_OK);
    assert_memory_equal(b.data, "hello", 5);
    void *data = b.data;
    assert_int_equal(pe_buf_set(&b, "hi", 2), PERI_OK);
    assert_ptr_equal(b.data, data);
    assert_int_equal(b.size, 2);
    peri_buf_free(&b);
    assert_null(b.data);
    peri_buf_free(&b);
    peri_buf_free(NULL);
}

/* ---- files ---- */

static void reading_past_the_end_names_the_offset(void **state)
{
    (void)state;
    pe_file f;
    char buf[100];
    uint64_t size;
    const char *path = scratch("short");
    blob_save(path, "0123456789", 10);
    assert_int_equal(pe_file_open(&f, peri_files_posix(), path, O_RDONLY), PERI_OK);
    assert_int_equal(pe_file_size(&f, &size), PERI_OK);
    assert_int_equal(size, 10);
    assert_int_equal(pe_file_read(&f, buf, 4, 6), PERI_OK);
    assert_memory_equal(buf, "6789", 4);
    assert_int_equal(pe_file_read(&f, buf, 5, 6), PERI_ERR_CORRUPT);
    assert_non_null(strstr(peri_error_detail(), "offset 10"));
    assert_int_equal(fcntl(f.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(pe_file_close(&f), PERI_OK);
    assert_int_equal(pe_file_close(&f), PERI_OK); /* again is nothing */
    unlink(path);
    assert_int_equal(pe_file_open(&f, peri_files_posix(), path, O_RDONLY), PERI_ERR_NOT_FOUND);
    assert_int_equal(f.fd, -1);
}

static void transfers_go_on_where_the_system_stopped(void **state)
{
    (void)state;
    faulty fault;
    pe_file f;
    char out[1000], in[1000];
    const char *path = scratch("pieces");
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (char)i;
    faulty_init(&fault, FAULTY_NOTHING, 0, 0);
    fault.short_io = 7;
    fault.interrupts = 1;
    assert_int_equal(pe_file_open(&f, &fault.files, path, O_RDWR | O_CREAT), PERI_OK);
    assert_int_equal(pe_file_write(&f, out, sizeof out, 3), PERI_OK);
    assert_int_equal(pe_file_read(&f, in, sizeof in, 3), PERI_OK);
    assert_memory_equal(out, in, sizeof in);
    assert_int_equal(pe_file_close(&f), PERI_OK);
    assert_true(faulty_clean(&fault));
    unlink(path);
}

/* ---- epochs ---- */

static void count_give_back(void *owner, void *ptr, uint64_t arg)
{
    (void)ptr;
    *(uint64_t *)owner += arg;
}

static void what_a_reader_may_see_is_kept_until_it_leaves(void **state)
{
    (void)state;
    pe_host host;
    static pe_epoch e;
    uint64_t given = 0;
    pe_host_init(&host, NULL);
    pe_epoch_init(&e, &host, &given);
    assert_int_equal(pe_epoch_reserve(&e, 10), PERI_OK);
    pe_epoch_retire(&e, count_give_back, NULL, 1);
    pe_epoch_reclaim(&e);
    assert_int_equal(given, 1); /* nobody is inside */
    pe_reader *early = pe_epoch_enter(&e);
    pe_epoch_retire(&e, count_give_back, NULL, 10);
    pe_reader *late = pe_epoch_enter(&e);
    pe_epoch_retire(&e, count_give_back, NULL, 100);
    assert_ptr_not_equal(early, late);
    pe_epoch_reclaim(&e);
    assert_int_equal(given, 1);
    pe_epoch_exit(early);
    pe_epoch_reclaim(&e);
    assert_int_equal(given, 11);
    pe_epoch_exit(late);
    pe_epoch_reclaim(&e);
    assert_int_equal(given, 111);
    pe_epoch_retire(&e, count_give_back, NULL, 1000);
    pe_epoch_retire_memory(&e, NULL, 5); /* nothing to keep */
    pe_epoch_destroy(&e);
    assert_int_equal(given, 1111);
    assert_int_equal(atomic_load(&host.heap), 0);
}

/* A chain of boxes, each replacing the last: a reader must never see a box that was given back. */
enum { ALIVE = 0x11f3, GONE = 0xdead, BOXES = 100000 };

typedef struct box {
    _Atomic int life;
} box;

typedef struct boxes {
    pe_host host;
    pe_epoch epoch;
    _Atomic(box *) current;
    _Atomic int stop, bad;
    box all[64];
    int next;
} boxes;

static void box_dies(void *owner, void *ptr, uint64_t arg)
{
    (void)owner;
    (void)arg;
    atomic_store_explicit(&((box *)ptr)->life, GONE, memory_order_relaxed);
}

static box *fresh_box(boxes *b)
{
    for (;;) { /* a dead one can be used again */
        box *x = &b->all[b->next++ % 64];
        if (atomic_load(&x->life) != ALIVE)
            return x;
        pe_epoch_reclaim(&b->epoch);
    }
}

static void turn_over_boxes(void *ctx, unsigned worker)
{
    boxes *b = ctx;
    if (worker == 0) {
        for (int i = 0; i < BOXES; i++) {
            box *fresh = fresh_box(b), *old = atomic_load(&b->current);
            if (pe_epoch_reserve(&b->epoch, 1) != PERI_OK)
                break;
            atomic_store_explicit(&fresh->life, ALIVE, memory_order_relaxed);
            atomic_store(&b->current, fresh);
            pe_epoch_retire(&b->epoch, box_dies, old, 0);
        }
        atomic_store(&b->stop, 1);
    }
    while (!atomic_load(&b->stop)) {
        pe_reader *r = pe_epoch_enter(&b->epoch);
        box *x = atomic_load_explicit(&b->current, memory_order_acquire);
        for (int i = 0; i < 20; i++)
            if (atomic_load_explicit(&x->life, memory_order_relaxed) != ALIVE)
                atomic_store(&b->bad, 1);
        pe_epoch_exit(r);
    }
}

static void readers_never_hold_what_was_given_back(void **state)
{
    (void)state;
    boxes *b = calloc(1, sizeof *b);
    pe_host_init(&b->host, NULL);
    pe_epoch_init(&b->epoch, &b->host, NULL);
    atomic_store(&b->all[63].life, ALIVE);
    atomic_store(&b->current, &b->all[63]);
    pe_team_run(4, turn_over_boxes, b);
    assert_int_equal(atomic_load(&b->bad), 0);
    pe_epoch_destroy(&b->epoch);
    free(b);
}

static void more_readers_than_places_wait_their_turn(void **state)
{
    (void)state;
    pe_host host;
    static pe_epoch e;
    pe_reader *places[PE_READERS];
    pe_host_init(&host, NULL);
    pe_epoch_init(&e, &host, NULL);
    for (int i = 0; i < PE_READERS; i++) {
        places[i] = pe_epoch_enter(&e);
        for (int j = 0; j < i; j++)
            assert_ptr_not_equal(places[i], places[j]);
    }
    pe_epoch_exit(places[77]);
    assert_ptr_equal(pe_epoch_enter(&e), places[77]);
    for (int i = 0; i < PE_READERS; i++)
        pe_epoch_exit(places[i]);
    pe_epoch_destroy(&e);
}

/* ---- arrays ---- */

static void fill_record(unsigned char *p, size_t stride, size_t r)
{
    for (size_t i = 0; i < stride; i++)
        p[i] = (unsigned char)(r * 7 + i);
}

static int record_is(const unsigned char *p, size_t stride, size_t r)
{
    for (size_t i = 0; i < stride; i++)
        if (p[i] != (unsigned char)(r * 7 + i))
            return 0;
    return 1;
}

static void an_array_of_any_stride_keeps_its_records(void **state)
{
    (void)state;
    static const size_t strides[] = {1, 3, 64, 3072, 262140, 1 << 21};
    pe_host host;
    static pe_epoch e;
    pe_host_init(&host, NULL);
    pe_epoch_init(&e, &host, NULL);
    for (size_t s = 0; s < sizeof strides / sizeof *strides; s++) {
        pe_array a;
        size_t n = 0, most = (3 << 20) / strides[s] + 37;
        pe_array_init(&a, &host, strides[s]);
        for (size_t step = 1; n < most; step = step * 2 + 1) {
            size_t to = n + step < most ? n + step : most;
            assert_int_equal(pe_array_reserve(&a, &e, to, step % 3 == 0), PERI_OK);
            assert_true(a.capacity >= to);
            for (; n < to; n++) {
                unsigned char *p = pe_array_at(&a, n);
                assert_int_equal(p[0] | p[strides[s] - 1], 0); /* new room is zero */
                fill_record(p, strides[s], n);
            }
        }
        for (size_t r = 0; r < n; r++)
            assert_true(record_is(pe_array_at(&a, r), strides[s], r));
        assert_int_equal(pe_array_bytes(&a), a.capacity * strides[s]);
        pe_array_destroy(&a);
        pe_epoch_reclaim(&e);
    }
    pe_epoch_destroy(&e);
    assert_int_equal(atomic_load(&host.heap), 0);
}

static void serve_borrowed(pe_epoch *e, pe_host *host, size_t n, int grow)
{
    enum { STRIDE = 3000 };
    pe_array a;
    unsigned char *data = malloc((size_t)STRIDE * n);
    size_t whole, all = n;
    for (size_t r = 0; r < n; r++)
        fill_record(data + r * STRIDE, STRIDE, r);
    pe_array_init(&a, host, STRIDE);
    whole = n >> a.shift << a.shift; /* in full chunks: never copied */
    assert_int_equal(pe_array_borrow(&a, data, n, grow), PERI_OK);
    if (grow) {
        all += 3000;
        assert_int_equal(pe_array_reserve(&a, e, all, 0), PERI_OK);
        for (size_t r = n; r < all; r++)
            fill_record(pe_array_at(&a, r), STRIDE, r);
    }
    for (size_t r = 0; r < all; r++)
        assert_true(record_is(pe_array_at(&a, r), STRIDE, r));
    for (size_t r = 0; r < (grow ? whole : n); r += 100)
        assert_ptr_equal(pe_array_at(&a, r), data + r * STRIDE);
    pe_array_destroy(&a);
    for (size_t r = 0; r < n; r++)
        assert_true(record_is(data + r * STRIDE, STRIDE, r));
    free(data);
}

static void an_array_serves_borrowed_records_and_grows_past_them(void **state)
{
    (void)state;
    pe_host host;
    static pe_epoch e;
    pe_array a;
    pe_host_init(&host, NULL);
    pe_epoch_init(&e, &host, NULL);
    pe_array_init(&a, &host, 3000);
    size_t chunk = (size_t)a.mask + 1, sizes[] = {1, 5, chunk - 1, chunk, chunk + 1, chunk + 77};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int grow = 0; grow < 2; grow++)
            serve_borrowed(&e, &host, sizes[i], grow);
    pe_epoch_destroy(&e);
    assert_int_equal(atomic_load(&host.heap), 0);
}

static void an_array_that_cannot_grow_is_as_it_was(void **state)
{
    (void)state;
    for (uint64_t n = 1, fired = 1; fired; n++) {
        faulty f;
        pe_host host;
        static pe_epoch e;
        pe_array a;
        faulty_init(&f, FAULTY_ALLOC, n, 0);
        pe_host_init(&host, &f.env);
        pe_epoch_init(&e, &host, NULL);
        pe_array_init(&a, &host, 10000);
        size_t have = 0;
        peri_status last = PERI_OK;
        for (size_t want = 10; want <= 1000 && last == PERI_OK; want += 90) {
            last = pe_array_reserve(&a, &e, want, 0);
            for (; last == PERI_OK && have < want; have++)
                fill_record(pe_array_at(&a, have), 10000, have);
            for (size_t r = 0; r < have; r++)
                assert_true(record_is(pe_array_at(&a, r), 10000, r));
        }
        fired = f.fired != NULL;
        assert_int_equal(last, fired ? PERI_ERR_NOMEM : PERI_OK);
        assert_int_equal(pe_array_reserve(&a, &e, SIZE_MAX / 2, 0), PERI_ERR_NOMEM);
        pe_array_destroy(&a);
        pe_epoch_destroy(&e);
        assert_true(faulty_clean(&f));
    }
}

enum { WIDE = 120, GROWN = 60000 };

typedef struct growing {
    pe_host host;
    pe_epoch epoch;
    pe_array a;
    _Atomic size_t published;
    _Atomic int bad;
} growing;

static void grow_or_read(void *ctx, unsigned worker)
{
    growing *g = ctx;
    pe_rng rng = {worker};
    if (worker == 0)
        for (size_t n = 0; n < GROWN; n++) {
            if (pe_array_reserve(&g->a, &g->epoch, n + 1, 0) != PERI_OK)
                atomic_store(&g->bad, 2);
            fill_record(pe_array_at(&g->a, n), WIDE, n);
            atomic_store_explicit(&g->published, n + 1, memory_order_release);
            pe_epoch_reclaim(&g->epoch);
        }
    for (size_t n = 0; n < GROWN;) {
        pe_reader *r = pe_epoch_enter(&g->epoch);
        n = atomic_load_explicit(&g->published, memory_order_acquire);
        if (n) {
            size_t at = n < 40 ? n - 1 : n - 1 - pe_rng_below(&rng, 40);
            if (!record_is(pe_array_at(&g->a, at), WIDE, at))
                atomic_store(&g->bad, 1);
        }
        pe_epoch_exit(r);
    }
}

static void readers_of_a_growing_array_see_whole_records(void **state)
{
    (void)state;
    growing *g = calloc(1, sizeof *g);
    pe_host_init(&g->host, NULL);
    pe_epoch_init(&g->epoch, &g->host, NULL);
    pe_array_init(&g->a, &g->host, WIDE);
    pe_team_run(3, grow_or_read, g);
    assert_int_equal(atomic_load(&g->bad), 0);
    pe_array_destroy(&g->a);
    pe_epoch_destroy(&g->epoch);
    assert_int_equal(atomic_load(&g->host.heap), 0);
    free(g);
}

/* ---- top-k ---- */

static int by_distance(const void *a, const void *b)
{
    const pe_cand *x = a, *y = b;
    if (x->d != y->d)
        return x->d < y->d ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static void random_cands(pe_cand *c, size_t n, uint64_t seed)
{
    pe_rng rng = {seed};
    for (size_t i = 0; i < n; i++)
        c[i] = (pe_cand){(float)pe_rng_below(&rng, 50), (uint32_t)i}; /* many ties */
    for (size_t i = n; i > 1; i--) {
        size_t j = pe_rng_below(&rng, (uint32_t)i);
        pe_cand t = c[i - 1];
        c[i - 1] = c[j];
        c[j] = t;
    }
}

static void top_k_is_what_sorting_all_gives(void **state)
{
    (void)state;
    enum { N = 500 };
    pe_cand all[N], room[N + 5], sorted[N];
    for (size_t k = 0; k <= N + 5; k += k < 20 ? 1 : 97) {
        pe_topk t;
        random_cands(all, N, k);
        memcpy(sorted, all, sizeof all);
        qsort(sorted, N, sizeof *sorted, by_distance);
        pe_topk_init(&t, room, k);
        for (size_t i = 0; i < N; i++) {
            float bound = pe_topk_bound(&t);
            if (k && t.n == k)
                assert_true(bound == t.heap[0].d);
            else if (k)
                assert_true(isinf(bound) && bound > 0);
            pe_topk_push(&t, all[i]);
        }
        pe_topk_sort(&t);
        assert_int_equal(t.n, k < N ? k : N);
        assert_memory_equal(room, sorted, t.n * sizeof *room);
    }
    random_cands(all, N, 1);
    memcpy(sorted, all, sizeof all);
    qsort(sorted, N, sizeof *sorted, by_distance);
    pe_cand_sort(all, N);
    assert_memory_equal(all, sorted, sizeof all);
}

enum { STREAM = 40000, STREAMS = 4, KEPT = 100 };

typedef struct merging {
    pe_topk_shared shared;
    pe_cand room[KEPT];
    pe_cand *all; /* STREAM * STREAMS */
    _Atomic int bad;
} merging;

static void merge_stream(void *ctx, unsigned worker)
{
    merging *m = ctx;
    pe_cand own[KEPT];
    pe_topk t;
    float last = INFINITY;
    pe_topk_init(&t, own, KEPT);
    for (size_t i = 0; i < STREAM; i++) {
        pe_cand c = m->all[worker * STREAM + i];
        float bound = pe_topk_shared_bound(&m->shared);
        if (bound > last)
            atomic_store(&m->bad, 1); /* it only ever tightens */
        last = bound;
        if (c.d <= bound)
            pe_topk_push(&t, c);
        if (i % 5000 == 4999) {
            pe_topk_shared_merge(&m->shared, own, t.n);
            t.n = 0;
        }
    }
}

static void threads_that_share_a_top_k_lose_nothing(void **state)
{
    (void)state;
    merging *m = calloc(1, sizeof *m);
    size_t n = (size_t)STREAM * STREAMS;
    m->all = malloc(n * sizeof *m->all);
    random_cands(m->all, n, 9);
    pe_topk_shared_init(&m->shared, m->room, KEPT);
    pe_team_run(STREAMS, merge_stream, m);
    pe_topk_sort(&m->shared.top);
    qsort(m->all, n, sizeof *m->all, by_distance);
    assert_int_equal(m->shared.top.n, KEPT);
    assert_memory_equal(m->room, m->all, sizeof m->room);
    assert_int_equal(atomic_load(&m->bad), 0);
    pe_topk_shared_destroy(&m->shared);
    free(m->all);
    free(m);
}

/* ---- id sets ---- */

static uint64_t some_id(pe_rng *rng)
{
    switch (pe_rng_below(rng, 4)) {
    case 0:
        return pe_rng_below(rng, 1000);
    case 1:
        return UINT64_MAX - pe_rng_below(rng, 1000);
    default: /* a multiple of a power of two: the kind that weak hashes trip over */
        return (uint64_t)pe_rng_below(rng, 1000) << pe_rng_below(rng, 50);
    }
}

static void an_id_set_matches_a_list(void **state)
{
    (void)state;
    enum { N = 3000 };
    peri_idset *set;
    static uint64_t list[N];
    pe_rng rng = {4};
    size_t distinct = 0;
    assert_int_equal(peri_idset_create(&set, NULL), PERI_OK);
    assert_int_equal(peri_idset_contains(set, 0), 0);
    for (size_t i = 0; i < N; i++)
        list[i] = some_id(&rng);
    for (size_t i = 0; i < N; i += 100)
        assert_int_equal(peri_idset_add(set, 100, list + i), PERI_OK);
    for (size_t i = 0; i < N; i++) {
        size_t j = 0;
        while (list[j] != list[i])
            j++;
        distinct += j == i;
        assert_int_equal(peri_idset_contains(set, list[i]), 1);
    }
    assert_int_equal(peri_idset_count(set), distinct);
    for (int i = 0; i < 3000; i++) {
        uint64_t id = some_id(&rng);
        int in = 0;
        for (size_t j = 0; j < N && !in; j++)
            in = list[j] == id;
        assert_int_equal(peri_idset_contains(set, id), in);
    }
    size_t cursor = 0, walked = 0;
    for (uint64_t id; pe_idset_next(set, &cursor, &id); walked++)
        assert_int_equal(peri_idset_contains(set, id), 1);
    assert_int_equal(walked, distinct);
    peri_idset_close(set);
}

static void an_id_set_is_whole_after_it_could_not_grow(void **state)
{
    (void)state;
    static uint64_t ids[1000];
    for (size_t i = 0; i < 1000; i++)
        ids[i] = i * i;
    for (uint64_t n = 1, fired = 1; fired; n++) {
        faulty f;
        peri_idset *set;
        faulty_init(&f, FAULTY_ALLOC, n, 0);
        peri_status status = peri_idset_create(&set, &f.env);
        size_t in = 0;
        while (status == PERI_OK && in < 1000) {
            status = peri_idset_add(set, 50, ids + in);
            in += status == PERI_OK ? 50 : 0;
        }
        if (set) {
            assert_int_equal(peri_idset_count(set), in);
            for (size_t i = 0; i < 1000; i++)
                assert_int_equal(peri_idset_contains(set, ids[i]), i < in);
        }
        fired = f.fired != NULL;
        assert_int_equal(status, fired ? PERI_ERR_NOMEM : PERI_OK);
        peri_idset_close(set);
        assert_true(faulty_clean(&f));
    }
    assert_int_equal(peri_idset_add(NULL, 1, ids), PERI_ERR_ARG);
    assert_int_equal(peri_idset_create(NULL, NULL), PERI_ERR_ARG);
    assert_int_equal(peri_idset_count(NULL), 0);
    peri_idset_close(NULL);
}

/* ---- teams ---- */

static void count_worker(void *ctx, unsigned worker)
{
    atomic_fetch_add((_Atomic uint64_t *)ctx, (uint64_t)1 << (8 * (worker < 8 ? worker : 7)));
}

static void each_worker_runs_once(void **state)
{
    (void)state;
    _Atomic uint64_t ran = 0;
    pe_team_run(1, count_worker, &ran);
    assert_int_equal(atomic_load(&ran), 1);
    atomic_store(&ran, 0);
    pe_team_run(4, count_worker, &ran);
    assert_int_equal(atomic_load(&ran), 0x01010101);
    assert_true(pe_team_size(0) >= 1);
    assert_int_equal(pe_team_size(3), 3);
    assert_int_equal(pe_team_size(1000000), PE_TEAM_MAX);
    assert_int_equal(pe_task_threads(NULL), 1);
}

typedef struct watched {
    pe_progress progress;
    _Atomic uint64_t worked;
} watched;

static int stop_at_once(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    assert_string_equal(phase, "work");
    ++*(int *)ctx;
    return 1;
}

static void work_until_cancelled(void *ctx, unsigned worker)
{
    watched *w = ctx;
    while (!pe_progress_add(&w->progress, worker, 1))
        if (atomic_fetch_add(&w->worked, 1) > 2000000000u)
            return; /* nobody said stop */
}

static void a_cancelled_call_stops_all_its_workers(void **state)
{
    (void)state;
    watched w = {0};
    peri_task task;
    int asked = 0;
    peri_task_init(&task);
    task.progress = stop_at_once;
    task.progress_ctx = &asked;
    assert_int_equal(pe_progress_init(&w.progress, &task), PERI_OK);
    pe_progress_phase(&w.progress, "work", 100);
    pe_team_run(3, work_until_cancelled, &w);
    assert_int_equal(pe_progress_end(&w.progress), PERI_ERR_CANCELLED);
    assert_true(asked >= 1);
    assert_int_equal(pe_progress_init(&w.progress, NULL), PERI_OK);
    assert_int_equal(pe_progress_add(&w.progress, 0, 1), 0);
    assert_int_equal(pe_progress_end(&w.progress), PERI_OK);
    task.struct_size = 3;
    assert_int_equal(pe_progress_init(&w.progress, &task), PERI_ERR_ARG);
}

static void random_numbers_repeat_and_stay_in_range(void **state)
{
    (void)state;
    pe_rng a = {1}, b = {1};
    uint32_t seen = 0;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(pe_rng_next(&a), pe_rng_next(&b));
        uint32_t x = pe_rng_below(&a, 7);
        assert_int_equal(x, pe_rng_below(&b, 7));
        assert_true(x < 7);
        seen |= 1u << x;
        double u = pe_rng_unit(&a);
        assert_true(u > 0 && u <= 1);
        pe_rng_unit(&b);
    }
    assert_int_equal(seen, 0x7f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_status_has_a_name_and_a_text),
        cmocka_unit_test(the_detail_belongs_to_its_thread_and_is_cut_to_size),
        cmocka_unit_test(system_errors_become_statuses),
        cmocka_unit_test(sizes_that_overflow_are_told),
        cmocka_unit_test(the_host_counts_what_it_lends),
        cmocka_unit_test(an_environment_that_is_half_there_is_refused),
        cmocka_unit_test(growing_keeps_what_was_there_or_changes_nothing),
        cmocka_unit_test(a_buffer_is_reused_and_freed),
        cmocka_unit_test(reading_past_the_end_names_the_offset),
        cmocka_unit_test(transfers_go_on_where_the_system_stopped),
        cmocka_unit_test(what_a_reader_may_see_is_kept_until_it_leaves),
        cmocka_unit_test(readers_never_hold_what_was_given_back),
        cmocka_unit_test(more_readers_than_places_wait_their_turn),
        cmocka_unit_test(an_array_of_any_stride_keeps_its_records),
        cmocka_unit_test(an_array_serves_borrowed_records_and_grows_past_them),
        cmocka_unit_test(an_array_that_cannot_grow_is_as_it_was),
        cmocka_unit_test(readers_of_a_growing_array_see_whole_records),
        cmocka_unit_test(top_k_is_what_sorting_all_gives),
        cmocka_unit_test(threads_that_share_a_top_k_lose_nothing),
        cmocka_unit_test(an_id_set_matches_a_list),
        cmocka_unit_test(an_id_set_is_whole_after_it_could_not_grow),
        cmocka_unit_test(each_worker_runs_once),
        cmocka_unit_test(a_cancelled_call_stops_all_its_workers),
        cmocka_unit_test(random_numbers_repeat_and_stay_in_range),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, scratch_remove);
}
