/* What the tests of vector files share. */
#ifndef PE_TEST_VECTORS_H
#define PE_TEST_VECTORS_H

#include "indexes.h"
#include "perigee/vectors.h"
#include "scratch.h"

static inline void expect_vectors_valid(const peri_vectors *v, const char *file, int line)
{
    uint64_t faults = 0;
    peri_status status = peri_vectors_check(v, NULL, &faults);
    if (status == PERI_OK && faults == 0)
        return;
    print_error("check is %s with %llu faults: %s\n", peri_status_name(status),
                (unsigned long long)faults, peri_error_detail());
    _fail(file, line);
}
#define assert_vectors_valid(v) expect_vectors_valid((v), __FILE__, __LINE__)

static inline peri_slice key_of_text(const char *text)
{
    return (peri_slice){text, strlen(text)};
}

static inline peri_space space_of(uint32_t dim, uint16_t metric, uint16_t scalar)
{
    peri_space space;
    peri_space_init(&space, dim, metric);
    space.scalar = scalar;
    return space;
}

/* A fresh file; what stood there goes. */
static inline peri_vectors *make_vectors(const char *path, uint32_t dim, uint16_t metric,
                                         uint16_t scalar, const peri_env *env)
{
    peri_vectors *v = NULL;
    peri_space space = space_of(dim, metric, scalar);
    char index[PATH_MAX + 8];
    snprintf(index, sizeof index, "%s.index", path);
    unlink(index);
    unlink(path);
    assert_ok(peri_vectors_create(&v, path, &space, NULL, env));
    return v;
}

static inline peri_vectors *open_vectors(const char *path, uint32_t flags, const peri_env *env)
{
    peri_vectors *v = NULL;
    assert_ok(peri_vectors_open(&v, path, flags, NULL, env));
    return v;
}

static inline peri_vectors_info vectors_info(const peri_vectors *v)
{
    peri_vectors_info info;
    peri_vectors_info_init(&info);
    assert_ok(peri_vectors_get_info(v, &info));
    return info;
}

/* n keys "<prefix><i>", from i = first; freed with free(keys[0].data - 0), see free_keys. */
static inline peri_slice *number_keys(const char *prefix, size_t first, size_t n)
{
    peri_slice *keys = malloc((n + 1) * sizeof *keys);
    char *text = malloc(n * 32 + 1);
    assert_non_null(keys);
    assert_non_null(text);
    keys[0] = (peri_slice){text, 0};
    for (size_t i = 0; i < n; i++) {
        int size = snprintf(text + i * 32, 32, "%s%zu", prefix, first + i);
        keys[i] = (peri_slice){text + i * 32, (size_t)size};
    }
    return keys;
}

static inline void free_keys(peri_slice *keys)
{
    free((void *)(uintptr_t)keys[0].data);
    free(keys);
}

#endif
