#define _GNU_SOURCE
#include "base/ticker.h"

#include <time.h>

static void *ticker_main(void *arg)
{
    pe_ticker *t = arg;
    pthread_mutex_lock(&t->lock);
    while (!t->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += t->interval_ms / 1000;
        until.tv_nsec += (long)(t->interval_ms % 1000) * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        while (!t->stopping && pthread_cond_timedwait(&t->wake, &t->lock, &until) == 0)
            ; /* woken for nothing, or to stop */
        if (t->stopping)
            break;
        pthread_mutex_unlock(&t->lock);
        t->fn(t->ctx);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

peri_status pe_ticker_start(pe_ticker *t, uint32_t interval_ms, void (*fn)(void *ctx), void *ctx)
{
    memset(t, 0, sizeof *t);
    t->interval_ms = interval_ms;
    t->fn = fn;
    t->ctx = ctx;
    pthread_condattr_t attr;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&t->thread, NULL, ticker_main, t);
    if (rc != 0) {
        pthread_cond_destroy(&t->wake);
        pthread_mutex_destroy(&t->lock);
        return pe_fail(PERI_ERR_NOMEM, "no thread for background work (errno %d)", rc);
    }
    t->running = 1;
    return PERI_OK;
}

void pe_ticker_stop(pe_ticker *t, int forked)
{
    if (!t->running)
        return;
    t->running = 0;
    if (forked)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopping = 1;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
}
