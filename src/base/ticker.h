/* A thread that calls a function now and then until it is stopped: background fsync, first of
 * all. One thread per ticker, joined by pe_ticker_stop. In a child of fork it does not exist; stop
 * there only forgets it. */
#ifndef PE_TICKER_H
#define PE_TICKER_H

#include "base/status.h"

#include <pthread.h>

typedef struct pe_ticker {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    int running, stopping;
    uint32_t interval_ms;
    void (*fn)(void *ctx);
    void *ctx;
} pe_ticker;

/* Errors: ERR_NOMEM (no thread). */
peri_status pe_ticker_start(pe_ticker *t, uint32_t interval_ms, void (*fn)(void *ctx), void *ctx);
/* Returns when fn is not running and will not be called again. forked: the caller is a child of
 * the process that started it. A ticker of all zeros is fine. */
void pe_ticker_stop(pe_ticker *t, int forked);

#endif
