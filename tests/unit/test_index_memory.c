/* What an index says of its memory is what it takes: heap and mapped apart, nothing beyond a limit,
 * nothing big after reserve; and progress is reported as the header promises. */
#include "faulty.h"
#include "indexes.h"
#include "scratch.h"

#include <pthread.h>

enum { DIM = 24, ROWS = 3000 };

static peri_index *counted(int kind, faulty *f, uint16_t metric, uint16_t scalar)
{
    faulty_init(f, FAULTY_NOTHING, 0, 0);
    return make_index(kind, DIM, metric, scalar, NULL, &f->env);
}

static void end(peri_index *ix, faulty *f)
{
    peri_index_close(ix);
    assert_true(faulty_clean(f));
}

static void the_heap_bytes_of_info_are_those_of_the_allocator(void **state)
{
    (void)state;
    float *rows = new_rows(1, ROWS, DIM);
    peri_hit hits[5];
    size_t n;
    peri_query q = query_of(5);
    for (int kind = 0; kind < KINDS; kind++)
        for (uint16_t scalar = 1; scalar <= 4; scalar++) {
            faulty f;
            peri_index *ix = counted(kind, &f, (uint16_t)(1 + scalar % 3), scalar);
            assert_true(info_of(ix).bytes_heap == (uint64_t)f.bytes);
            assert_ok(peri_index_put_many(ix, ROWS / 2, NULL, rows, 0, NULL, NULL));
            assert_true(info_of(ix).bytes_heap == (uint64_t)f.bytes);
            for (uint64_t id = ROWS / 2; id < ROWS; id++)
                assert_ok(peri_index_put(ix, id, rows + id * DIM, 0));
            assert_ok(peri_index_search(ix, rows, &q, hits, &n));
            for (uint64_t id = 0; id < ROWS; id += 2)
                assert_ok(peri_index_remove(ix, id));
            assert_ok(peri_index_maintain(ix, NULL));
            assert_true(info_of(ix).bytes_heap == (uint64_t)f.bytes);
            assert_ok(peri_index_save(ix, scratch("memory"), NULL));
            assert_true(info_of(ix).bytes_heap == (uint64_t)f.bytes);
            end(ix, &f);
        }
    free(rows);
}

static void rows_cost_what_they_are_and_mapped_ones_no_heap(void **state)
{
    (void)state;
    float *rows = new_rows(1, ROWS, DIM);
    static const double row_bytes[] = {0, 4 * DIM, 2 * DIM, 2 * DIM, DIM + 16};
    for (int kind = 0; kind < KINDS; kind++)
        for (uint16_t scalar = 1; scalar <= 4; scalar++) {
            faulty f;
            peri_index *ix = counted(kind, &f, PERI_METRIC_L2, scalar), *mapped;
            double empty = (double)info_of(ix).bytes_heap;
            assert_ok(peri_index_put_many(ix, ROWS, NULL, rows, 0, NULL, NULL));
            double each = ((double)info_of(ix).bytes_heap - empty) / ROWS;
            /* m_max links, m links above for one row in m, codes of 64 bytes, a byte of count. */
            double links = kind == KIND_FLAT ? 0 : 4 * 32 + 4 * 18 / 15.0 + 1;
            double codes = kind == KIND_FLAT || scalar == PERI_SCALAR_I8 ? 0 : 64;
            if (kind == KIND_Q) /* 32 neighbours' codes of 64 bits, their factors, a byte */
                codes = 32 * 8 + 100 + 1;
            double most = 1.06 * (row_bytes[scalar] + links + codes) + 24;
            if (each > most)
                print_error("%s %s: %.1f bytes a row, at most %.1f\n", info_of(ix).kind,
                            scalar_names[scalar], each, most);
            assert_true(each <= most);
            assert_ok(peri_index_save(ix, scratch("memory"), NULL));
            end(ix, &f);
            faulty_init(&f, FAULTY_NOTHING, 0, 0);
            assert_ok(peri_index_open(&mapped, scratch("memory"),
                                      PERI_OPEN_MAP | PERI_OPEN_READONLY, &f.env, NULL));
            peri_index_info info = info_of(mapped);
            assert_true(info.bytes_heap == (uint64_t)f.bytes);
            assert_true(info.bytes_mapped >= ROWS * (uint64_t)row_bytes[scalar]);
            assert_true((double)info.bytes_heap < empty + ROWS * (links ? 20.0 : 8.0));
            end(mapped, &f);
        }
    free(rows);
}

/* An allocator that remembers the most that was held. */
typedef struct peak {
    faulty f;
    int64_t most;
} peak;

static void *peak_alloc(void *ctx, size_t size, size_t align)
{
    peak *p = ctx;
    void *got = faulty_alloc(&p->f, size, align);
    p->most = p->f.bytes > p->most ? p->f.bytes : p->most;
    return got;
}

static void peak_free(void *ctx, void *ptr, size_t size)
{
    peak *p = ctx;
    faulty_free(&p->f, ptr, size);
}

static void a_memory_limit_is_kept_and_forgotten_after_the_call(void **state)
{
    (void)state;
    float *rows = new_rows(1, ROWS, DIM);
    for (int kind = 0; kind < KINDS; kind++) {
        peak p = {.most = 0};
        faulty_init(&p.f, FAULTY_NOTHING, 0, 0);
        p.f.env.alloc = peak_alloc;
        p.f.env.free = peak_free;
        p.f.env.alloc_ctx = &p;
        peri_index *ix = make_index(kind, DIM, PERI_METRIC_L2, 0, NULL, &p.f.env);
        assert_ok(peri_index_put_many(ix, 100, NULL, rows, 0, NULL, NULL));
        peri_task task = threads_task(1);
        int fitted = 0;
        for (uint64_t limit = 1; !fitted; limit *= 4) {
            size_t done = 99;
            int64_t before = p.f.bytes;
            p.most = 0;
            task.memory_limit = limit;
            peri_status status =
                peri_index_put_many(ix, ROWS - 100, NULL, rows + 100 * DIM, 0, &task, &done);
            fitted = status == PERI_OK;
            if (!fitted) {
                assert_int_equal(status, PERI_ERR_NOMEM);
                assert_int_equal(done, 0);
            }
            assert_true(p.most == 0 || p.most - before <= (int64_t)limit);
            assert_int_equal(info_of(ix).rows, fitted ? ROWS : 100);
            assert_index_valid(ix);
            assert_true(limit < (uint64_t)1 << 40);
        }
        task.memory_limit = 1;
        if (kind == KIND_HNSW)
            assert_status(PERI_ERR_NOMEM, peri_index_maintain(ix, &task));
        /* The next call knows nothing of it. */
        for (uint64_t id = ROWS; id < 2 * ROWS; id++)
            assert_ok(peri_index_put(ix, id, rows + (id - ROWS) * DIM, 0));
        assert_ok(peri_index_maintain(ix, NULL));
        assert_ok(peri_index_save(ix, scratch("memory"), NULL));
        peri_index *copy;
        assert_status(PERI_ERR_NOMEM,
                      peri_index_open(&copy, scratch("memory"), 0, &p.f.env, &task));
        assert_null(copy);
        task.memory_limit = 1 << 30;
        assert_ok(peri_index_open(&copy, scratch("memory"), 0, &p.f.env, &task));
        peri_index_close(copy);
        end(ix, &p.f);
    }
    free(rows);
}

static void after_reserve_puts_allocate_nothing_big(void **state)
{
    (void)state;
    float *rows = new_rows(1, ROWS, DIM);
    for (int kind = 0; kind < KINDS; kind++)
        for (int sparse = 0; sparse < 2; sparse++) {
            faulty f;
            peri_index *ix = counted(kind, &f, PERI_METRIC_COSINE, 0);
            assert_ok(peri_index_reserve(ix, ROWS));
            assert_ok(peri_index_put(ix, 0, rows, 0));
            int64_t before = f.bytes, most = 0;
            for (uint64_t id = 1; id < 1000; id++) {
                uint64_t as = sparse ? id * 77 : id;
                assert_ok(peri_index_put(ix, as, rows + id * DIM, 0));
                most = f.bytes > most ? f.bytes : most;
            }
            /* Ids that are not the slots' numbers need a map, which grows with the rows. */
            int64_t room = sparse ? 128 << 10 : 16 << 10;
            if (most - before > room)
                print_error("%s: %lld bytes after reserve\n", info_of(ix).kind,
                            (long long)(most - before));
            assert_true(most - before <= room);
            assert_index_valid(ix);
            end(ix, &f);
        }
    free(rows);
}

/* ---- progress ---- */

typedef struct log {
    pthread_t caller;
    int calls, wrong, ends;
    uint64_t last;
    char phase[32];
} log_of;

static int note(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    log_of *l = ctx;
    if (strcmp(phase, l->phase) != 0)
        l->last = 0;
    snprintf(l->phase, sizeof l->phase, "%s", phase);
    l->wrong += !pthread_equal(pthread_self(), l->caller) || done > total || done < l->last;
    l->last = done;
    l->ends += done == total;
    l->calls++;
    return 0;
}

static void progress_comes_from_the_calling_thread_and_ends_at_the_total(void **state)
{
    (void)state;
    float *rows = new_rows(1, ROWS, DIM);
    peri_hit *hits = malloc(ROWS * sizeof *hits);
    size_t *n_hits = malloc(ROWS * sizeof *n_hits);
    peri_query q = query_of(1);
    uint64_t faults;
    for (int kind = 0; kind < KINDS; kind++)
        for (uint32_t threads = 1; threads <= 2; threads++) {
            log_of l = {.caller = pthread_self()};
            peri_task task = threads_task(threads);
            peri_index *copy, *ix = make_index(kind, DIM, PERI_METRIC_L2, 0, NULL, NULL);
            task.progress = note;
            task.progress_ctx = &l;
#define step(call, least)                                                                          \
    do {                                                                                           \
        l.calls = l.ends = 0;                                                                      \
        l.phase[0] = 0;                                                                            \
        assert_ok(call);                                                                           \
        if (l.wrong || l.calls < (least) || l.ends < (least))                                      \
            print_error("%s, %u threads: %d reports, %d at the end, %d wrong, last phase %s\n",    \
                        #call, threads, l.calls, l.ends, l.wrong, l.phase);                        \
        assert_true(!l.wrong && l.calls >= (least) && l.ends >= (least));                          \
    } while (0)
            step(peri_index_put_many(ix, ROWS, NULL, rows, 0, &task, NULL), 1);
            step(peri_index_search_many(ix, ROWS, rows, &q, &task, hits, n_hits), 1);
            step(peri_index_check(ix, &task, &faults), 1);
            step(peri_index_save(ix, scratch("memory"), &task), 1);
            step(peri_index_maintain(ix, &task), kind == KIND_HNSW);
            step(peri_index_open(&copy, scratch("memory"), 0, NULL, &task), 0);
            peri_index_close(copy);
            peri_index_close(ix);
        }
    free(rows);
    free(hits);
    free(n_hits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_heap_bytes_of_info_are_those_of_the_allocator),
        cmocka_unit_test(rows_cost_what_they_are_and_mapped_ones_no_heap),
        cmocka_unit_test(a_memory_limit_is_kept_and_forgotten_after_the_call),
        cmocka_unit_test(after_reserve_puts_allocate_nothing_big),
        cmocka_unit_test(progress_comes_from_the_calling_thread_and_ends_at_the_total),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
