/* What readers and a writer share: epochs, arrays, top-k, id sets. */
#define _GNU_SOURCE
#include "base/array.h"
#include "base/idset.h"
#include "base/rng.h"
#include "base/team.h"
#include "base/topk.h"
#include "faulty.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests_name("containers", tests, NULL, NULL);
}
