#define _GNU_SOURCE
#include "cli.h"

#include <errno.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int cli_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("perigee: ", stderr);
    vfprintf(stderr, format, args);
    putc('\n', stderr);
    va_end(args);
    return CLI_ERROR;
}

int cli_usage(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "perigee%s%s: ", *command ? " " : "", command);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry 'perigee%s%s --help'.\n", *command ? " " : "", command);
    va_end(args);
    return CLI_USAGE;
}

int cli_failed(const char *what, peri_status status, const char *detail)
{
    if (!detail)
        detail = peri_error_detail();
    if (status == PERI_ERR_CANCELLED && cli_stopped())
        return cli_error("%s: stopped", what);
    return cli_error("%s: %s%s%s", what, peri_strerror(status), *detail ? ": " : "", detail);
}

double cli_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- words ---- */

const char *const cli_metric_words[] = {"l2", "ip", "cosine", NULL};
const char *const cli_scalar_words[] = {"f32", "f16", "bf16", "i8", NULL};
const char *const cli_codes_words[] = {"auto", "none", "8bit", NULL};

const char *cli_metric_name(unsigned metric)
{
    return metric >= PERI_METRIC_L2 && metric <= PERI_METRIC_COSINE ? cli_metric_words[metric - 1]
                                                                    : "unknown";
}

const char *cli_scalar_name(unsigned scalar)
{
    return scalar >= PERI_SCALAR_F32 && scalar <= PERI_SCALAR_I8 ? cli_scalar_words[scalar - 1]
                                                                 : "unknown";
}

const char *cli_codes_name(unsigned codes)
{
    return codes <= PERI_CODES_8BIT ? cli_codes_words[codes] : "unknown";
}

static const struct {
    const char *distance;
    unsigned metric;
} distances[] = {
    {"euclidean", PERI_METRIC_L2},  {"l2", PERI_METRIC_L2},  {"angular", PERI_METRIC_COSINE},
    {"cosine", PERI_METRIC_COSINE}, {"dot", PERI_METRIC_IP}, {"ip", PERI_METRIC_IP},
};

unsigned cli_metric_of_distance(const char *distance)
{
    for (size_t i = 0; i < sizeof distances / sizeof *distances; i++)
        if (strcasecmp(distance, distances[i].distance) == 0)
            return distances[i].metric;
    return 0;
}

const char *cli_distance_of_metric(unsigned metric)
{
    for (size_t i = 0; i < sizeof distances / sizeof *distances; i++)
        if (distances[i].metric == metric)
            return distances[i].distance;
    return "";
}

/* ---- files ---- */

static int ends_in(const char *path, size_t n, const char *extension)
{
    size_t len = strlen(extension);
    return n > len && strncasecmp(path + n - len, extension, len) == 0;
}

static int ends_in_hdf5(const char *path, size_t n)
{
    return ends_in(path, n, ".hdf5") || ends_in(path, n, ".h5") || ends_in(path, n, ".hdf");
}

/* The length of the file's name in "a.hdf5:b", or of the whole path. */
static size_t file_part(const char *path)
{
    const char *colon = strrchr(path, ':');
    return colon && ends_in_hdf5(path, (size_t)(colon - path)) ? (size_t)(colon - path)
                                                               : strlen(path);
}

int cli_is_hdf5(const char *path)
{
    return ends_in_hdf5(path, file_part(path));
}

int cli_is_ivecs(const char *path)
{
    return ends_in(path, strlen(path), ".ivecs");
}

int cli_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int cli_is_matrix(const char *path)
{
    size_t n = strlen(path);
    unsigned char head[8] = {0};
    if (cli_is_hdf5(path) || ends_in(path, n, ".npy") || ends_in(path, n, ".fvecs") ||
        ends_in(path, n, ".bvecs") || ends_in(path, n, ".ivecs"))
        return 1;
    FILE *f = cli_is_file(path) ? fopen(path, "rb") : NULL;
    if (!f)
        return 0;
    size_t got = fread(head, 1, sizeof head, f);
    fclose(f);
    return got == sizeof head &&
           (memcmp(head, "\x89HDF\r\n\x1a\n", 8) == 0 || memcmp(head, "\x93NUMPY", 6) == 0);
}

void cli_sibling_of(const char *path, const char *dataset, char out[4608])
{
    if (cli_is_hdf5(path))
        snprintf(out, 4608, "%.*s:%s", (int)file_part(path), path, dataset);
    else
        snprintf(out, 4608, "%s", path);
}

void cli_dataset_of(const char *path, const char *dataset, char out[4608])
{
    if (file_part(path) == strlen(path))
        cli_sibling_of(path, dataset, out);
    else
        snprintf(out, 4608, "%s", path);
}

/* Asked before the work, so that an hour of building is not lost to a typing error. */
int cli_check_output(const char *path)
{
    char copy[4608];
    struct stat st;
    size_t n = file_part(path);
    if (n >= sizeof copy)
        return cli_error("output path of %zu bytes, expected fewer than %zu", n, sizeof copy);
    memcpy(copy, path, n);
    copy[n] = 0;
    if (stat(copy, &st) == 0 && !S_ISREG(st.st_mode))
        return cli_error("%s: exists and is not a regular file", copy);
    const char *folder = dirname(copy);
    if (access(folder, W_OK | X_OK) < 0)
        return cli_error("%s: cannot create files there: %s", folder, strerror(errno));
    return CLI_OK;
}

uint64_t cli_file_size(const char *path)
{
    char copy[4608];
    struct stat st;
    snprintf(copy, sizeof copy, "%.*s", (int)file_part(path), path);
    return stat(copy, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

/* ---- numbers for people ---- */

void cli_print_bytes(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes / 1024;
    int unit = 0;
    if (bytes < 1024) {
        snprintf(out, 32, "%u bytes", (unsigned)bytes);
        return;
    }
    for (; v >= 1024 && unit < 5; unit++)
        v /= 1024;
    snprintf(out, 32, "%.1f %s", v, units[unit]);
}

void cli_print_count(uint64_t n, char out[32])
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), at = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
}
