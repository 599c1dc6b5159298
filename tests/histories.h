/* What the tests of history/ share: directories, short calls, and a model to hold it against. */
#ifndef PE_HISTORIES_H
#define PE_HISTORIES_H

#include "base/rng.h"
#include "history/history.h"
#include "scratch.h"

/* Remove a directory of files, and it. */
static inline void dir_remove(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            char file[PATH_MAX];
            snprintf(file, sizeof file, "%s/%s", path, e->d_name);
            unlink(file);
        }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static inline peri_slice text(const char *s)
{
    return (peri_slice){s, strlen(s)};
}

static inline peri_status put_text(pe_history *h, const char *key, const char *value, int level)
{
    pe_write w = {.kind = PE_OP_PUT, .tag = 3, .time = 1, .key = text(key), .value = text(value)};
    return pe_history_write(h, &w, 1, level, NULL, NULL);
}

static inline peri_status delete_text(pe_history *h, const char *key, int level)
{
    pe_write w = {.kind = PE_OP_DELETE, .time = 1, .key = text(key)};
    return pe_history_write(h, &w, 1, level, NULL, NULL);
}

/* 1 when the key's value as of a sequence (0 = now) is that text; NULL: when there is none. */
static inline int text_is(pe_history *h, const char *key, const char *value, uint64_t as_of)
{
    pe_read r;
    pe_version v;
    if (pe_read_begin(&r, h, as_of) != PERI_OK)
        return 0;
    peri_status status = pe_read_get(&r, text(key), &v);
    int same =
        value ? status == PERI_OK && v.size == strlen(value) && memcmp(v.value, value, v.size) == 0
              : status == PERI_ERR_NOT_FOUND;
    pe_read_end(&r);
    return same;
}

static inline void assert_history_sound(pe_history *h)
{
    uint64_t faults;
    assert_int_equal(pe_history_check(h, &faults), PERI_OK);
    if (faults)
        print_message("%s\n", peri_error_detail());
    assert_int_equal(faults, 0);
}

#endif
