/* A directory of its own for each test program, and whole files in memory. */
#ifndef PE_SCRATCH_H
#define PE_SCRATCH_H

#include "test.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_dir[PATH_MAX / 2];

/* A path in the scratch directory; it stays valid. A program uses few names. */
static inline const char *scratch(const char *name)
{
    static char paths[32][PATH_MAX];
    unsigned i = 0;
    if (!scratch_dir[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(scratch_dir, sizeof scratch_dir, "%s/perigee-test-XXXXXX", tmp ? tmp : P_tmpdir);
        assert_non_null(mkdtemp(scratch_dir));
    }
    size_t skip = strlen(scratch_dir) + 1;
    while (paths[i][0] && strcmp(paths[i] + skip, name) != 0)
        assert_true(++i < 32);
    snprintf(paths[i], PATH_MAX, "%s/%s", scratch_dir, name);
    return paths[i];
}

/* Names in the scratch directory. */
static inline size_t scratch_count(void)
{
    size_t n = 0;
    scratch("");
    DIR *dir = opendir(scratch_dir);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(dir);
    return n;
}

/* Remove what the program left there, and the directory. */
static inline int scratch_remove(void **state)
{
    (void)state;
    if (!scratch_dir[0])
        return 0;
    DIR *dir = opendir(scratch_dir);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            char path[PATH_MAX];
            snprintf(path, sizeof path, "%s/%s", scratch_dir, e->d_name);
            if (unlink(path) != 0)
                rmdir(path);
        }
    if (dir)
        closedir(dir);
    rmdir(scratch_dir);
    return 0;
}

typedef struct blob {
    unsigned char *data;
    size_t size;
} blob;

static inline blob blob_load(const char *path)
{
    blob b = {0};
    struct stat st;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &st), 0);
    b.size = (size_t)st.st_size;
    b.data = malloc(b.size + 1);
    assert_non_null(b.data);
    assert_int_equal(fread(b.data, 1, b.size, f), b.size);
    fclose(f);
    return b;
}

static inline void blob_save(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static inline int blob_same(blob a, blob b)
{
    return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

#endif
