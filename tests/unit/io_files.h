/* Files that tests of io/ make and look at, in a folder of their own that goes at the end. */
#ifndef IO_FILES_H
#define IO_FILES_H

#include "perigee/io.h"
#include "test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char io_folder[64];

static inline int io_make_folder(void **state)
{
    (void)state;
    snprintf(io_folder, sizeof io_folder, "/tmp/perigee-io-XXXXXX");
    return mkdtemp(io_folder) ? 0 : -1;
}

/* A path in the folder; the last four asked for stay valid. */
static inline const char *io_path(const char *name)
{
    static char paths[4][512];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", io_folder, name);
    return paths[next];
}

static inline int io_count_files(void)
{
    int n = 0;
    DIR *d = opendir(io_folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static inline void io_empty_folder(void)
{
    char path[512];
    DIR *d = opendir(io_folder);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", io_folder, e->d_name);
        remove(path);
    }
    closedir(d);
}

static inline int io_drop_folder(void **state)
{
    (void)state;
    io_empty_folder();
    return rmdir(io_folder);
}

static inline void io_put_bytes(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline size_t io_get_bytes(const char *path, unsigned char *data, size_t room)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(data, 1, room, f);
    fclose(f);
    return n;
}

/* A .npy file of version 1 with the dictionary as given. */
static inline void io_put_npy(const char *path, const char *dictionary, const void *data, size_t n)
{
    unsigned char *file = malloc(10 + strlen(dictionary) + n);
    size_t len = strlen(dictionary);
    assert_non_null(file);
    memcpy(file, "\x93NUMPY\x01\x00", 8);
    file[8] = (unsigned char)len;
    file[9] = (unsigned char)(len >> 8);
    memcpy(file + 10, dictionary, len);
    if (n)
        memcpy(file + 10 + len, data, n);
    io_put_bytes(path, file, 10 + len + n);
    free(file);
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        peri_status io_status = (call);                                                            \
        if (io_status != PERI_OK)                                                                  \
            fail_msg("%s: %s: %s", #call, peri_status_name(io_status), peri_error_detail());       \
    } while (0)

#define assert_status(call, expected)                                                              \
    do {                                                                                           \
        peri_status io_status = (call);                                                            \
        if (io_status != (expected))                                                               \
            fail_msg("%s: %s (%s), expected %s", #call, peri_status_name(io_status),               \
                     peri_error_detail(), peri_status_name(expected));                             \
    } while (0)

static inline peri_matrix *io_create(const char *path, uint32_t dim, uint16_t element)
{
    peri_matrix *m;
    peri_matrix_config config;
    peri_matrix_config_init(&config, dim);
    config.element = element;
    assert_ok(peri_matrix_create(&m, path, &config, NULL));
    return m;
}

static inline peri_matrix *io_open(const char *path, peri_matrix_info *info)
{
    peri_matrix *m;
    assert_ok(peri_matrix_open(&m, path, NULL));
    peri_matrix_info_init(info);
    assert_ok(peri_matrix_get_info(m, info));
    return m;
}

#endif
