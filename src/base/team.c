#define _GNU_SOURCE
#include "base/team.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

unsigned pe_team_size(uint32_t asked)
{
    if (asked == 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        asked = sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
    }
    return asked > PE_TEAM_MAX ? PE_TEAM_MAX : asked < 1 ? 1 : asked;
}

typedef struct member {
    pthread_t thread;
    pe_team_fn fn;
    void *ctx;
    unsigned worker;
} member;

static void *member_main(void *arg)
{
    member *m = arg;
    m->fn(m->ctx, m->worker);
    return NULL;
}

void pe_team_run(unsigned threads, pe_team_fn fn, void *ctx)
{
    member members[PE_TEAM_MAX];
    unsigned made = 1;
    for (; made < threads && made < PE_TEAM_MAX; made++) {
        members[made] = (member){.fn = fn, .ctx = ctx, .worker = made};
        if (pthread_create(&members[made].thread, NULL, member_main, &members[made]) != 0)
            break;
    }
    fn(ctx, 0);
    for (unsigned i = 1; i < made; i++)
        pthread_join(members[i].thread, NULL);
}

void pe_first_error_set(pe_first_error *e, peri_status status)
{
    if (status == PERI_OK || atomic_exchange(&e->taken, 1))
        return;
    e->status = status;
    pe_detail_copy(e->detail);
    atomic_store(&e->failed, 1);
}

peri_status pe_first_error_get(const pe_first_error *e)
{
    if (!e->failed)
        return PERI_OK;
    pe_detail_set(e->detail);
    return e->status;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

peri_status pe_progress_init(pe_progress *p, const peri_task *task)
{
    memset(p, 0, sizeof *p);
    if (task && task->struct_size < sizeof *task)
        return pe_fail(PERI_ERR_ARG, "peri_task.struct_size is %u, expected %zu or more",
                       task->struct_size, sizeof *task);
    p->task = task;
    p->last_ns = task && task->progress ? now_ns() : 0;
    return PERI_OK;
}

void pe_progress_phase(pe_progress *p, const char *phase, uint64_t total)
{
    p->phase = phase;
    p->total = total;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
}

static void report(pe_progress *p)
{
    uint64_t done = atomic_load_explicit(&p->done, memory_order_relaxed);
    if (done > p->total)
        done = p->total;
    if (p->task->progress(p->task->progress_ctx, p->phase, done, p->total))
        atomic_store_explicit(&p->cancelled, 1, memory_order_relaxed);
}

int pe_progress_add(pe_progress *p, unsigned worker, uint64_t n)
{
    atomic_fetch_add_explicit(&p->done, n, memory_order_relaxed);
    if (worker == 0 && p->task && p->task->progress) {
        uint64_t now = now_ns();
        if (now - p->last_ns >= 100000000u) {
            p->last_ns = now;
            report(p);
        }
    }
    return atomic_load_explicit(&p->cancelled, memory_order_relaxed);
}

peri_status pe_progress_end(pe_progress *p)
{
    if (!atomic_load_explicit(&p->cancelled, memory_order_relaxed))
        atomic_store_explicit(&p->done, p->total, memory_order_relaxed);
    if (p->task && p->task->progress)
        report(p);
    if (atomic_load_explicit(&p->cancelled, memory_order_relaxed))
        return pe_fail(PERI_ERR_CANCELLED, "stopped by the progress callback in phase '%s'",
                       p->phase);
    return PERI_OK;
}

uint32_t pe_task_threads(const peri_task *task)
{
    return task ? pe_team_size(task->threads) : 1;
}
