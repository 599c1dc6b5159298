#include "progress.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR = 28 };

void progress_init(progress *p, int quiet)
{
    *p = (progress){.show = !quiet && isatty(STDERR_FILENO)};
}

void progress_task(progress *p, peri_task *task, unsigned threads)
{
    peri_task_init(task);
    task->threads = threads;
    task->progress = progress_update;
    task->progress_ctx = p;
}

void progress_begin(progress *p, const char *label, uint64_t total)
{
    progress_clear(p);
    p->label = label;
    p->before = 0;
    p->total = total;
    p->start = cli_seconds();
    p->last = 0;
}

static void draw(const char *phase, uint64_t done, uint64_t total, double seconds)
{
    char n_done[32], n_total[32], bar[BAR + 1];
    if (total == 0) { /* a phase that does not know how long it is */
        fprintf(stderr, "\r\033[K%s, %.0f s", phase, seconds);
        fflush(stderr);
        return;
    }
    int full = (int)((double)done / (double)total * BAR);
    for (int i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = 0;
    cli_print_count(done, n_done);
    cli_print_count(total, n_total);
    fprintf(stderr, "\r\033[K%s [%s] %s of %s, %.0f s", phase, bar, n_done, n_total, seconds);
    fflush(stderr);
}

int progress_update(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    progress *p = ctx;
    double now = cli_seconds();
    if (cli_stopped())
        return 1;
    if (p->show && now - p->last >= 0.1) {
        p->last = now;
        if (p->total) {
            done += p->before;
            total = p->total;
        }
        draw(p->label ? p->label : phase, done < total ? done : total, total, now - p->start);
    }
    return 0;
}

void progress_clear(progress *p)
{
    if (p->show && p->last > 0)
        fputs("\r\033[K", stderr);
    p->last = 0;
}
