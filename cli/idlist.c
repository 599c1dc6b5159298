#define _GNU_SOURCE
#include "idlist.h"
#include "source.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int add(peri_idset *set, size_t n, const uint64_t *ids)
{
    peri_status status = peri_idset_add(set, n, ids);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot collect ids", status, NULL);
}

static int read_matrix(const char *path, peri_idset *set)
{
    source s;
    void *ids;
    int code = source_need(&s, path, SOURCE_IDS, 0);
    if (code != CLI_OK)
        return code;
    size_t n = (size_t)s.left * s.info.dim;
    code = source_all(&s, &ids);
    if (code == CLI_OK)
        code = add(set, n, ids);
    free(ids);
    source_close(&s);
    return code;
}

/* 0 where the line is no id. */
static int parse_line(const char *line, uint64_t *id)
{
    const char *p = line + strspn(line, " \t");
    if (!isdigit((unsigned char)*p))
        return 0;
    for (*id = 0; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(*id, 10, id) ||
            __builtin_add_overflow(*id, (uint64_t)(*p - '0'), id))
            return 0;
    return p[strspn(p, " \t\r\n")] == 0;
}

static int read_lines(const char *path, FILE *f, peri_idset *set)
{
    char line[256];
    int code = CLI_OK;
    for (unsigned long number = 1; code == CLI_OK && fgets(line, sizeof line, f); number++) {
        uint64_t id;
        if (line[strspn(line, " \t\r\n")] == 0 || line[0] == '#')
            continue;
        if (parse_line(line, &id))
            code = add(set, 1, &id);
        else
            code = cli_error("%s: line %lu is no id: expected a number from 0 to 2^64 - 1", path,
                             number);
    }
    if (code == CLI_OK && ferror(f))
        code = cli_error("%s: %s", path, strerror(errno));
    return code;
}

static int read_text(const char *path, peri_idset *set)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return cli_error("%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return cli_error("%s: not a regular file", path);
    FILE *f = fopen(path, "r");
    if (!f)
        return cli_error("%s: %s", path, strerror(errno));
    int code = read_lines(path, f, set);
    fclose(f);
    return code;
}

int idlist_read(const char *path, peri_idset **set)
{
    peri_status status = peri_idset_create(set, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot collect ids", status, NULL);
    int code = cli_is_matrix(path) ? read_matrix(path, *set) : read_text(path, *set);
    if (code != CLI_OK) {
        peri_idset_close(*set);
        *set = NULL;
    }
    return code;
}
