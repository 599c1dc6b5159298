#define _GNU_SOURCE
#include "source.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, CPU_LIMIT = 20, MEMORY_LIMIT = 1 << 30 };

/* What stands before each block of rows. A message without rows ends the stream; so does one
 * with a status, which detail_size bytes of text follow. */
typedef struct message {
    int32_t status;
    uint32_t detail_size;
    uint64_t rows;
} message;

/* ---- the child ---- */

static void send_bytes(int fd, const void *data, size_t n)
{
    for (const char *p = data; n;) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            _exit(CLI_ERROR); /* nobody listens any more */
        p += put;
        n -= (size_t)put;
    }
}

static void send_status(int fd, peri_status status)
{
    const char *detail = status == PERI_OK ? "" : peri_error_detail();
    message end = {status, (uint32_t)strlen(detail), 0};
    send_bytes(fd, &end, sizeof end);
    send_bytes(fd, detail, end.detail_size);
}

/* CPU time, not wall time: a slow disk is no reason to give up. */
static void renew_cpu_limit(void)
{
    struct rusage used;
    struct rlimit limit;
    if (getrusage(RUSAGE_SELF, &used) || getrlimit(RLIMIT_CPU, &limit))
        return;
    rlim_t want = (rlim_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + CPU_LIMIT;
    if (limit.rlim_max == RLIM_INFINITY || want < limit.rlim_max) {
        limit.rlim_cur = want;
        setrlimit(RLIMIT_CPU, &limit);
    }
}

/* A few wrong bytes in an HDF5 file can ask for gigabytes. Counted from what the process has: a
 * sanitiser maps far more than it uses. Systems without /proc do without the limit. */
static void limit_memory(const char *path)
{
    unsigned long long data;
    struct rlimit limit;
    FILE *f = fopen("/proc/self/statm", "r");
    int got = f ? fscanf(f, "%*u %*u %*u %*u %*u %llu", &data) : 0;
    if (f)
        fclose(f);
    if (got != 1 || getrlimit(RLIMIT_DATA, &limit))
        return;
    rlim_t want = (rlim_t)data * (rlim_t)sysconf(_SC_PAGESIZE) + MEMORY_LIMIT +
                  4 * (rlim_t)cli_file_size(path);
    if (limit.rlim_cur == RLIM_INFINITY || want < limit.rlim_cur) {
        limit.rlim_cur = want;
        setrlimit(RLIMIT_DATA, &limit);
    }
}

static peri_status send_rows(int fd, peri_matrix *m, uint64_t rows, uint32_t dim, int ids)
{
    size_t row_bytes = dim * (ids ? sizeof(uint64_t) : sizeof(float));
    size_t step = BLOCK / row_bytes ? BLOCK / row_bytes : 1;
    void *block = malloc(step * row_bytes);
    peri_status status = block ? PERI_OK : PERI_ERR_NOMEM;
    for (uint64_t at = 0; status == PERI_OK && at < rows;) {
        size_t n = rows - at < step ? (size_t)(rows - at) : step;
        renew_cpu_limit();
        status = ids ? peri_matrix_read_ids(m, at, n, block) : peri_matrix_read(m, at, n, block);
        if (status == PERI_OK) {
            message head = {0, 0, n};
            send_bytes(fd, &head, sizeof head);
            send_bytes(fd, block, n * row_bytes);
        }
        at += n;
    }
    free(block);
    return status;
}

static int wants_ids(source_kind kind, const peri_matrix_info *info)
{
    return kind == SOURCE_IDS || (kind == SOURCE_EITHER && info->element >= PERI_ELEMENT_I32);
}

/* A child that hangs must not outlive a parent that was killed. */
static void die_with_parent(pid_t parent)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    if (getppid() != parent)
        _exit(CLI_ERROR);
}

/* No core file: the crash of a child is expected, and the parent reports it. */
static void run_child(int fd, pid_t parent, const char *path, source_kind kind, uint64_t limit)
{
    peri_matrix *m;
    peri_matrix_info info;
    die_with_parent(parent);
    cli_signals_default();
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    limit_memory(path);
    renew_cpu_limit();
    peri_status status = peri_matrix_open(&m, path, NULL);
    if (status == PERI_OK) {
        peri_matrix_info_init(&info);
        status = peri_matrix_get_info(m, &info);
    }
    if (status == PERI_OK && kind == SOURCE_IDS)
        status = peri_matrix_read_ids(m, 0, 0, NULL); /* refuses what holds no integers */
    send_status(fd, status);
    if (status == PERI_OK) {
        send_bytes(fd, &info, sizeof info);
        uint64_t rows = kind == SOURCE_SHAPE ? 0 : info.rows;
        rows = limit && limit < rows ? limit : rows;
        send_status(fd, send_rows(fd, m, rows, info.dim, wants_ids(kind, &info)));
    }
    _exit(CLI_OK); /* not exit: the parent's buffers must not be written twice */
}

/* ---- the parent ---- */

static peri_status child_died(source *s)
{
    int how = 0;
    while (waitpid(s->child, &how, 0) < 0 && errno == EINTR)
        ;
    s->child = 0;
    if (WIFSIGNALED(how) && WTERMSIG(how) == SIGXCPU)
        snprintf(s->error, sizeof s->error, "%s: no progress in %d s of computing, given up",
                 s->path, CPU_LIMIT);
    else if (WIFSIGNALED(how))
        snprintf(s->error, sizeof s->error,
                 "%s: the process that read it crashed (%s): the file is damaged", s->path,
                 strsignal(WTERMSIG(how)));
    else
        snprintf(s->error, sizeof s->error, "%s: the process that read it ended early (exit %d)",
                 s->path, WIFEXITED(how) ? WEXITSTATUS(how) : -1);
    return PERI_ERR_CORRUPT;
}

static peri_status receive(source *s, void *data, size_t n)
{
    for (char *p = data; n;) {
        ssize_t got = read(s->fd, p, n);
        if (cli_stopped()) {
            snprintf(s->error, sizeof s->error, "%s: stopped", s->path);
            return PERI_ERR_CANCELLED;
        }
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            snprintf(s->error, sizeof s->error, "%s: pipe: %s", s->path, strerror(errno));
            return PERI_ERR_IO;
        }
        if (got == 0)
            return child_died(s);
        p += got;
        n -= (size_t)got;
    }
    return PERI_OK;
}

/* The next message; a bad status comes back as one. */
static peri_status receive_message(source *s, message *head)
{
    peri_status status = receive(s, head, sizeof *head);
    if (status != PERI_OK || head->status == PERI_OK)
        return status;
    size_t n = head->detail_size < sizeof s->error ? head->detail_size : sizeof s->error - 1;
    status = receive(s, s->error, n);
    if (status != PERI_OK)
        return status;
    s->error[n] = 0;
    return (peri_status)head->status;
}

static peri_status start(source *s, source_kind kind, uint64_t limit)
{
    int fds[2];
    if (pipe(fds) < 0) {
        snprintf(s->error, sizeof s->error, "%s: pipe: %s", s->path, strerror(errno));
        return PERI_ERR_IO;
    }
    pid_t parent = getpid();
    s->child = fork();
    if (s->child == 0) {
        close(fds[0]);
        run_child(fds[1], parent, s->path, kind, limit);
    }
    close(fds[1]);
    s->fd = fds[0];
    if (s->child < 0) {
        snprintf(s->error, sizeof s->error, "%s: fork: %s", s->path, strerror(errno));
        s->child = 0;
        return PERI_ERR_IO;
    }
    return PERI_OK;
}

peri_status source_open(source *s, const char *path, source_kind kind, uint64_t limit)
{
    message head;
    *s = (source){.path = path, .fd = -1};
    peri_status status = start(s, kind, limit);
    if (status == PERI_OK)
        status = receive_message(s, &head);
    if (status == PERI_OK)
        status = receive(s, &s->info, sizeof s->info);
    if (status != PERI_OK) {
        source_close(s);
        return status;
    }
    s->left = limit && limit < s->info.rows ? limit : s->info.rows;
    s->ids = wants_ids(kind, &s->info);
    return PERI_OK;
}

peri_status source_read(source *s, size_t n, void *rows)
{
    size_t row_bytes = s->info.dim * (s->ids ? sizeof(uint64_t) : sizeof(float));
    char *to = rows;
    while (n) {
        if (s->pending == 0) {
            message head;
            peri_status status = receive_message(s, &head);
            if (status != PERI_OK)
                return status;
            s->pending = head.rows;
            if (head.rows == 0)
                return child_died(s);
        }
        size_t part = n < s->pending ? n : (size_t)s->pending;
        peri_status status = receive(s, to, part * row_bytes);
        if (status != PERI_OK)
            return status;
        to += part * row_bytes;
        n -= part;
        s->pending -= part;
        s->left -= part;
    }
    return PERI_OK;
}

void source_close(source *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    if (s->child > 0) {
        kill(s->child, SIGKILL); /* it may be busy with rows that nobody wants */
        while (waitpid(s->child, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    s->child = 0;
}

int source_failed(const source *s, peri_status status)
{
    return cli_failed("cannot read", status, s->error);
}

int source_need(source *s, const char *path, source_kind kind, uint64_t limit)
{
    peri_status status = source_open(s, path, kind, limit);
    return status == PERI_OK ? CLI_OK : source_failed(s, status);
}

int source_all(source *s, void **rows)
{
    size_t row_bytes = s->info.dim * (s->ids ? sizeof(uint64_t) : sizeof(float)), bytes;
    *rows = NULL;
    if (__builtin_mul_overflow((size_t)s->left, row_bytes, &bytes) ||
        !(*rows = malloc(bytes ? bytes : 1)))
        return cli_error("%s: no memory for %llu rows of %zu bytes", s->path,
                         (unsigned long long)s->left, row_bytes);
    peri_status status = source_read(s, (size_t)s->left, *rows);
    if (status == PERI_OK)
        return CLI_OK;
    free(*rows);
    *rows = NULL;
    return source_failed(s, status);
}
