/* See corrupt.h. */
#define _GNU_SOURCE
#include "corrupt/corrupt.h"
#include "base/rng.h"
#include "corrupt/reseal.h"
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITISED 1 /* the shadow memory alone is beyond any limit */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITISED 1
#endif
#endif

enum { HEADER = 256, SECTOR = 512 };

uint64_t corrupt_scale(uint64_t count)
{
    const char *prove = getenv("PERIGEE_PROVE");
    if (!prove || strcmp(prove, "change") == 0)
        return count;
    return strcmp(prove, "release") == 0 ? count * 50 : count * strtoull(prove, NULL, 10);
}

void corrupt_answer(corrupt_use *use, peri_status status, const void *answer, size_t size)
{
    unsigned step = use->step++;
    if (use->learning) {
        assert_true(step < CORRUPT_STEPS);
        if (status != PERI_OK)
            fail_msg("step %u fails on the whole file: %s", step, peri_error_detail());
        use->right[step] = XXH3_64bits(answer, size);
        use->n_right = use->step;
    } else if (status != PERI_OK) {
        use->refused++;
    } else if (step >= use->n_right || use->right[step] != XXH3_64bits(answer, size)) {
        use->first_wrong = use->wrong++ ? use->first_wrong : step;
    }
}

void corrupt_must(corrupt_use *use, int holds)
{
    if (!holds && use->learning)
        fail_msg("does not even hold for the whole file (step %u)", use->step);
    if (!holds)
        use->first_wrong = use->wrong++ ? use->first_wrong : use->step;
}

/* ---- damages ---- */

/* Any byte of the file as likely as any other; or any section (the header and the tail among them)
 * as likely as any other, so that the short ones with the counts in them get their share. */
static uint64_t somewhere(const corrupt_plan *plan, pe_rng *rng)
{
    const unsigned char *f = plan->file;
    if (plan->parts) {
        const struct corrupt_part *p = &plan->parts[pe_rng_below(rng, (uint32_t)plan->n_parts)];
        return pe_rng_next(rng) % 2 ? p->from + pe_rng_next(rng) % p->size
                                    : pe_rng_next(rng) % plan->size;
    }
    uint64_t from = 0, size = plan->size;
    if (!plan->plain && pe_rng_next(rng) % 2) {
        uint64_t tail = reseal_get(f + 88, 8), n = reseal_get(f + 112, 4);
        uint64_t which = pe_rng_below(rng, (uint32_t)n + 2);
        const unsigned char *entry = f + tail + which * 32;
        if (which < n) {
            from = reseal_get(entry + 8, 8);
            size = reseal_get(entry + 16, 8);
        } else {
            from = which == n ? 0 : tail;
            size = which == n ? HEADER : plan->size - tail;
        }
    }
    return size ? from + pe_rng_next(rng) % size : 0;
}

static void change_bytes(const corrupt_plan *plan, pe_rng *rng, unsigned char *file, char what[128])
{
    unsigned n = pe_rng_next(rng) % 4 ? 1 : 2 + pe_rng_below(rng, 3);
    int len = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t at = somewhere(plan, rng);
        unsigned char was = file[at];
        if (pe_rng_next(rng) % 2)
            file[at] ^= (unsigned char)(1u << pe_rng_below(rng, 8));
        else
            file[at] = (unsigned char)pe_rng_next(rng);
        len += snprintf(what + len, 128 - (size_t)len, "[%llu] %02x -> %02x ",
                        (unsigned long long)at, was, file[at]);
    }
}

static void change_sector(const corrupt_plan *plan, pe_rng *rng, unsigned char *file,
                          char what[128])
{
    uint64_t to = somewhere(plan, rng) / SECTOR * SECTOR;
    uint64_t from = somewhere(plan, rng) / SECTOR * SECTOR;
    size_t n = plan->size - to < SECTOR ? (size_t)(plan->size - to) : SECTOR;
    n = plan->size - from < n ? (size_t)(plan->size - from) : n;
    if (pe_rng_next(rng) % 2) {
        memset(file + to, 0, n);
        snprintf(what, 128, "sector at %llu zeroed", (unsigned long long)to);
    } else {
        memcpy(file + to, plan->file + from, n);
        snprintf(what, 128, "sector at %llu copied from %llu", (unsigned long long)to,
                 (unsigned long long)from);
    }
}

static uint64_t troublemaker(pe_rng *rng, uint64_t was, unsigned width)
{
    static const uint64_t numbers[] = {0,
                                       1,
                                       2,
                                       0x7f,
                                       0x80,
                                       0xff,
                                       0x7fff,
                                       0x8000,
                                       0xffff,
                                       0x10000,
                                       0x7fffffff,
                                       0x80000000,
                                       0xfffffffe,
                                       0xffffffff,
                                       0x100000000,
                                       (uint64_t)1 << 62,
                                       ((uint64_t)1 << 63) - 1,
                                       (uint64_t)1 << 63,
                                       UINT64_MAX - 1,
                                       UINT64_MAX,
                                       0x7f800000,
                                       0x7fc00000};
    uint64_t bits = width < 8 ? ((uint64_t)1 << (8 * width)) - 1 : UINT64_MAX;
    switch (pe_rng_below(rng, 8)) {
    case 0:
        return (was + 1) & bits;
    case 1:
        return (was - 1) & bits;
    case 2:
        return (was + pe_rng_below(rng, 64)) & bits;
    case 3:
        return (was * 2) & bits;
    case 4:
        return pe_rng_next(rng) & bits;
    default:
        return numbers[pe_rng_below(rng, sizeof numbers / sizeof *numbers)] & bits;
    }
}

static void change_number(const corrupt_plan *plan, pe_rng *rng, unsigned char *file,
                          char what[128])
{
    static const unsigned widths[] = {1, 2, 4, 4, 4, 8, 8, 8};
    unsigned width = widths[pe_rng_below(rng, 8)];
    uint64_t at = somewhere(plan, rng) / width * width;
    if (at + width > plan->size)
        at = 0;
    uint64_t was = reseal_get(file + at, width), now = troublemaker(rng, was, width);
    reseal_put(file + at, now, width);
    snprintf(what, 128, "[%llu] u%u %llx -> %llx", (unsigned long long)at, 8 * width,
             (unsigned long long)was, (unsigned long long)now);
}

size_t corrupt_damage(const corrupt_plan *plan, corrupt_kind kind, uint64_t count, uint64_t i,
                      unsigned char *file, char what[128])
{
    size_t size = plan->size;
    pe_rng rng = {pe_mix64(plan->seed) + pe_mix64(i)};
    switch (kind) {
    case CORRUPT_BITS:
        file[(plan->parts ? plan->parts->from : 0) + i / 8] ^= (unsigned char)(1u << i % 8);
        snprintf(what, 128, "bit %llu flipped", (unsigned long long)i);
        break;
    case CORRUPT_CUTS:
        size = (size_t)(i * count);
        snprintf(what, 128, "cut off at %zu", size);
        break;
    case CORRUPT_BYTES:
        do
            if (pe_rng_below(&rng, 16) == 0)
                change_sector(plan, &rng, file, what);
            else
                change_bytes(plan, &rng, file, what);
        while (memcmp(file, plan->file, size) == 0);
        break;
    case CORRUPT_NUMBERS:
        do
            change_number(plan, &rng, file, what);
        while (memcmp(file, plan->file, size) == 0);
        break;
    }
    if (plan->reseal && plan->reseal_with)
        plan->reseal_with(file, size);
    else if (plan->reseal)
        reseal(file, size);
    return size;
}

/* ---- children ---- */

typedef struct board {
    uint64_t next, total;
    int busy; /* a use is under way */
    corrupt_result result;
    corrupt_use use;
} board;

static void write_file(int fd, const unsigned char *file, size_t size)
{
    if (ftruncate(fd, (off_t)size) != 0 || pwrite(fd, file, size, 0) != (ssize_t)size)
        _exit(98);
}

static int file_is(int fd, const unsigned char *file, size_t size, unsigned char *buf)
{
    return lseek(fd, 0, SEEK_END) == (off_t)size && pread(fd, buf, size, 0) == (ssize_t)size &&
           memcmp(buf, file, size) == 0;
}

static void set_alarm(unsigned seconds)
{
    struct itimerval t = {.it_value = {.tv_sec = seconds}};
    setitimer(ITIMER_REAL, &t, NULL);
}

static void remember(board *b, const char *outcome, const char *what)
{
    if (!b->result.first[0])
        snprintf(b->result.first, sizeof b->result.first, "%s: damage %llu, %s (step %u: %s)",
                 outcome, (unsigned long long)b->next, what, b->use.first_wrong,
                 peri_error_detail());
}

static void count_outcome(const corrupt_plan *plan, board *b, int touched, const char *what)
{
    corrupt_result *r = &b->result;
    r->tried++;
    if (touched) {
        r->touched++;
        remember(b, "touched", what);
    }
    if (b->use.wrong) {
        r->wrong++;
        if (!plan->reseal)
            remember(b, "wrong", what);
    } else if (b->use.refused) {
        r->refused++;
    } else {
        r->same++;
    }
}

static void child(const corrupt_plan *plan, corrupt_kind kind, uint64_t count, board *b)
{
    unsigned char *file = malloc(plan->size), *buf = malloc(plan->size);
    int fd = open(plan->path, O_RDWR | O_CREAT, 0600);
    char what[128] = "";
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    if (!file || !buf || fd < 0)
        _exit(97);
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        signal(deadly[i], SIG_DFL); /* cmocka would turn them into a failed test in the child */
#ifndef SANITISED
    struct rlimit limit = {(rlim_t)2 << 30, (rlim_t)2 << 30};
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_AS, &limit);
    setrlimit(RLIMIT_CORE, &no_core);
#endif
    for (; b->next < b->total; b->next++) {
        memcpy(file, plan->file, plan->size);
        size_t size = corrupt_damage(plan, kind, count, b->next, file, what);
        write_file(fd, file, size);
        b->use.step = b->use.refused = b->use.wrong = b->use.first_wrong = 0;
        b->busy = 1;
        set_alarm(plan->seconds ? plan->seconds : 20);
        plan->use(plan->path, &b->use, plan->arg);
        set_alarm(0);
        b->busy = 0;
        int look = b->next % 16 == 0 || b->next + 1 == b->total;
        count_outcome(plan, b, look && !file_is(fd, file, size, buf), what);
    }
    _exit(0);
}

/* With PERIGEE_KEEP naming a directory, what killed a child is kept there for the debugger. */
static void keep(const corrupt_plan *plan, uint64_t i, const unsigned char *file, size_t size)
{
    const char *dir = getenv("PERIGEE_KEEP");
    char path[1024];
    if (!dir)
        return;
    snprintf(path, sizeof path, "%s/%s %llu.peri", dir, plan->name, (unsigned long long)i);
    FILE *f = fopen(path, "wb");
    if (f) {
        fwrite(file, 1, size, f);
        fclose(f);
    }
}

/* The parent: put down why the child died, and go on behind the damage that killed it. */
static void bury(const corrupt_plan *plan, corrupt_kind kind, uint64_t count, board *b, int status)
{
    char what[128] = "", how[64];
    unsigned char *file = malloc(plan->size);
    int hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    if (!file || !b->busy)
        fail_msg("%s: the harness itself died, status %x", plan->name, status);
    memcpy(file, plan->file, plan->size);
    size_t size = corrupt_damage(plan, kind, count, b->next, file, what);
    snprintf(how, sizeof how, "%s, %s %d", hung ? "hung" : "crashed",
             WIFSIGNALED(status) ? "signal" : "exit",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    remember(b, how, what);
    keep(plan, b->next, file, size);
    free(file);
    b->result.tried++;
    b->result.hung += (uint64_t)hung;
    b->result.crashed += (uint64_t)!hung;
    b->busy = 0;
    b->next++;
}

static uint64_t total_of(const corrupt_plan *plan, corrupt_kind kind, uint64_t count)
{
    if (kind == CORRUPT_BITS)
        return (plan->parts ? plan->parts->size : HEADER) * 8;
    return kind == CORRUPT_CUTS ? (plan->size + count - 1) / count : count;
}

/* What the whole file answers is found here, in this process. */
static void learn(const corrupt_plan *plan, board *b)
{
    int fd = open(plan->path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    write_file(fd, plan->file, plan->size);
    close(fd);
    b->use.learning = 1;
    plan->use(plan->path, &b->use, plan->arg);
    b->use.learning = 0;
    assert_true(b->use.n_right > 0);
}

static void print_result(const corrupt_plan *plan, corrupt_kind kind, const corrupt_result *r)
{
    static const char *const kinds[] = {"header bits", "bytes", "cuts", "numbers"};
    print_message("%s, %s%s: %llu tried: %llu refused, %llu same, %llu %s, %llu crashed, "
                  "%llu hung, %llu touched%s%s\n",
                  plan->name, kinds[kind], plan->reseal ? " resealed" : "",
                  (unsigned long long)r->tried, (unsigned long long)r->refused,
                  (unsigned long long)r->same, (unsigned long long)r->wrong,
                  plan->reseal ? "other" : "wrong", (unsigned long long)r->crashed,
                  (unsigned long long)r->hung, (unsigned long long)r->touched,
                  r->first[0] ? "; first " : "", r->first);
}

corrupt_result corrupt_run(const corrupt_plan *plan, corrupt_kind kind, uint64_t count)
{
    board *b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(b != MAP_FAILED);
    learn(plan, b);
    b->total = total_of(plan, kind, count);
    unsigned stop_after = plan->stop_after ? plan->stop_after : 20;
    while (b->next < b->total && b->result.crashed + b->result.hung < stop_after) {
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            child(plan, kind, count, b);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0)
            bury(plan, kind, count, b, status);
    }
    corrupt_result result = b->result;
    munmap(b, sizeof *b);
    unlink(plan->path);
    print_result(plan, kind, &result);
    return result;
}
