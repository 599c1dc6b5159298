/* Threads on one history: writers that share fsyncs, readers without locks, ordered scans,
 * compactions, and a reader handle that refreshes. Batches write the same number under two keys: no
 * reader may ever see them differ, nor see a number go back. Meant for ThreadSanitizer. */
#include "histories.h"

#include <pthread.h>
#include <stdatomic.h>

enum { WRITERS = 4, READERS = 2, BATCHES = 1500, KEYS = 40 };

typedef struct scene {
    const char *dir;
    pe_history *h;
    _Atomic int done;
    _Atomic int wrong;
} scene;

typedef struct hand {
    scene *s;
    int id;
} hand;

static void number_key(char key[32], const char *what, int writer)
{
    snprintf(key, 32, "%s/%d", what, writer);
}

static void *write_main(void *arg)
{
    hand *me = arg;
    for (uint64_t i = 1; i <= BATCHES; i++) {
        char left[32], right[32], other[32];
        number_key(left, "left", me->id);
        number_key(right, "right", me->id);
        snprintf(other, sizeof other, "other/%d/%d", me->id, (int)(i % KEYS));
        pe_write w[3] = {{PE_OP_PUT, PE_TAG_I64, 0, text(left), {&i, 8}},
                         {i % 7 ? PE_OP_PUT : PE_OP_DELETE, 3, 0, text(other), {left, 4}},
                         {PE_OP_PUT, PE_TAG_I64, 0, text(right), {&i, 8}}};
        static const int levels[] = {PE_DURABLE_MEMORY, PE_DURABLE_PROCESS, PE_DURABLE_PROCESS,
                                     PE_DURABLE_COMMIT};
        int level = i % 50 ? levels[(int)(i + (uint64_t)me->id) % 3] : levels[3];
        if (pe_history_write(me->s->h, w, 3, level, NULL, NULL) != PERI_OK)
            me->s->wrong = 1;
    }
    return NULL;
}

static uint64_t number(pe_read *r, const char *what, int writer)
{
    char key[32];
    pe_version v;
    uint64_t n = 0;
    number_key(key, what, writer);
    if (pe_read_get(r, text(key), &v) == PERI_OK)
        memcpy(&n, v.value, 8);
    return n;
}

static int look(pe_history *h, uint64_t seen[WRITERS])
{
    pe_read r;
    int good = pe_read_begin(&r, h, 0) == PERI_OK;
    for (int w = 0; w < WRITERS && good; w++) {
        uint64_t left = number(&r, "left", w), right = number(&r, "right", w);
        good = left == right && left >= seen[w];
        seen[w] = left;
    }
    pe_read_end(&r);
    return good;
}

static void *read_main(void *arg)
{
    hand *me = arg;
    uint64_t seen[WRITERS] = {0};
    while (!me->s->done)
        if (!look(me->s->h, seen))
            me->s->wrong = 2;
    return NULL;
}

static peri_status count_one(void *ctx, const pe_version *v)
{
    (void)v;
    ++*(int *)ctx;
    return PERI_OK;
}

static void *scan_main(void *arg)
{
    hand *me = arg;
    while (!me->s->done) {
        pe_read r;
        int n = 0;
        if (pe_read_begin(&r, me->s->h, 0) != PERI_OK)
            continue;
        peri_status status =
            pe_read_scan(&r, text("left/"), (peri_slice){NULL, 0}, 0, count_one, &n);
        pe_read_end(&r);
        if (status != PERI_OK || n > WRITERS) {
            print_message("%d keys, %s: %s\n", n, peri_strerror(status), peri_error_detail());
            me->s->wrong = 3;
        }
    }
    return NULL;
}

static void *compact_main(void *arg)
{
    hand *me = arg;
    for (int i = 0; !me->s->done; i++) {
        pe_retention keep = {.keep = (uint64_t)(i % 3)};
        if (pe_history_compact(me->s->h, &keep, NULL) != PERI_OK ||
            pe_history_save_hint(me->s->h) != PERI_OK || pe_history_sync(me->s->h) != PERI_OK)
            me->s->wrong = 4;
    }
    return NULL;
}

/* Another handle on the same directory, as another process would have it. */
static void *follow_main(void *arg)
{
    hand *me = arg;
    pe_history *h = NULL;
    pe_history_config c = {.dir = me->s->dir, .readonly = 1};
    uint64_t seen[WRITERS] = {0};
    while (!me->s->done) {
        peri_status status = h ? pe_history_refresh(h) : PERI_ERR_STATE;
        if (status == PERI_ERR_STATE || status == PERI_ERR_NOT_FOUND) {
            pe_history_close(h);
            h = NULL;
            status = pe_history_open(&h, NULL, &c);
        }
        if (status == PERI_ERR_NOT_FOUND)
            continue; /* met a compaction half way */
        if (status != PERI_OK || !look(h, seen)) {
            print_message("%s\n", peri_error_detail());
            me->s->wrong = 5;
        }
    }
    pe_history_close(h);
    return NULL;
}

static void test_readers_see_whole_batches_whatever_goes_on(void **state)
{
    (void)state;
    scene s = {.dir = scratch("race")};
    pe_history_config c = {.dir = s.dir,
                           .create = 1,
                           .durability = PE_DURABLE_COMMIT,
                           .file_size = 1 << 17,
                           .hint_bytes = 10000,
                           .compress = 1};
    pthread_t writers[WRITERS], others[READERS + 3];
    hand hands[WRITERS + READERS + 3];
    dir_remove(s.dir);
    assert_int_equal(pe_history_open(&s.h, NULL, &c), PERI_OK);
    void *(*const mains[])(void *) = {read_main, read_main, scan_main, compact_main, follow_main};
    for (int i = 0; i < WRITERS; i++) {
        hands[i] = (hand){&s, i};
        pthread_create(&writers[i], NULL, write_main, &hands[i]);
    }
    for (int i = 0; i < READERS + 3; i++) {
        hands[WRITERS + i] = (hand){&s, i};
        pthread_create(&others[i], NULL, mains[i], &hands[WRITERS + i]);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    s.done = 1;
    for (int i = 0; i < READERS + 3; i++)
        pthread_join(others[i], NULL);
    assert_int_equal(s.wrong, 0);
    assert_history_sound(s.h);
    pe_history_close(s.h);
    dir_remove(s.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers_see_whole_batches_whatever_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
