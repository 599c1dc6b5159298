/* Matrices for the tests of io/: made and opened in one line, and assertions that print the
 * detail. */
#ifndef IO_FILES_H
#define IO_FILES_H

#include "perigee/io.h"
#include "scratch.h"

/* Leave the scratch directory empty for the next test. */
static inline int io_empty(void **state)
{
    char path[PATH_MAX];
    DIR *d = scratch_dir[0] ? opendir(scratch_dir) : NULL;
    (void)state;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", scratch_dir, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove(path);
    }
    if (d)
        closedir(d);
    return 0;
}

/* A path that need not stay valid beyond the next: for "file:dataset". */
static inline const char *io_spec(const char *name)
{
    static char path[PATH_MAX];
    scratch("");
    snprintf(path, sizeof path, "%s/%s", scratch_dir, name);
    return path;
}

/* A .npy file of version 1 with the dictionary as given. */
static inline void io_put_npy(const char *path, const char *dictionary, const void *data, size_t n)
{
    size_t len = strlen(dictionary);
    unsigned char *file = malloc(10 + len + n);
    assert_non_null(file);
    memcpy(file, "\x93NUMPY\x01\x00", 8);
    file[8] = (unsigned char)len;
    file[9] = (unsigned char)(len >> 8);
    memcpy(file + 10, dictionary, len);
    if (n)
        memcpy(file + 10 + len, data, n);
    blob_save(path, file, 10 + len + n);
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
