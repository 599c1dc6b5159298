#include "actions.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPERANDS = 64, SUMMARY = 4096 };

/* The list of actions is part of the summary that --help shows. */
static void describe(char out[SUMMARY], const char *summary, const action *a, size_t n)
{
    size_t at = (size_t)snprintf(out, SUMMARY, "%s\n", summary);
    for (size_t i = 0; i < n && at < SUMMARY; i++)
        at += (size_t)snprintf(out + at, SUMMARY - at, "\n  %-10s %-24s %s", a[i].name,
                               a[i].operands, a[i].summary);
}

static int open_and_run(const action *a, const char **operands, int n)
{
    peri_log *log;
    peri_log_config config;
    peri_log_config_init(&config);
    config.flags =
        a->writes ? PERI_LOG_SERIES | (a->makes ? 0 : PERI_LOG_EXISTING) : PERI_LOG_READONLY;
    peri_status status = peri_log_open(&log, operands[0], &config, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    int code = a->run(log, operands + 1, n - 1);
    peri_log_close(log);
    return code;
}

int actions_run(const char *command, const char *summary, const action *actions, size_t n_actions,
                const arg_option *options, size_t n_options, int argc, char **argv)
{
    char about[SUMMARY];
    const char *operands[OPERANDS];
    int n;
    describe(about, summary, actions, n_actions);
    const arg_command c = {command, "ACTION DIRECTORY ...", about, options, n_options, 2, OPERANDS};
    int done = args_parse(&c, argc, argv, operands, &n);
    if (done >= 0)
        return done;
    for (size_t i = 0; i < n_actions; i++) {
        const action *a = &actions[i];
        if (strcmp(operands[0], a->name) != 0)
            continue;
        if (n - 1 < a->min_operands || n - 1 > a->max_operands)
            return cli_usage(command, "%s takes: %s", a->name, a->operands);
        return open_and_run(a, operands + 1, n - 1);
    }
    return cli_usage(command, "unknown action '%s'", operands[0]);
}

int actions_read_file(const char *path, void **data, size_t *size)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    size_t room = 1 << 16;
    char *b = malloc(room);
    *size = 0;
    if (!f) {
        free(b);
        return cli_error("%s: %s", path, strerror(errno));
    }
    while (b) {
        *size += fread(b + *size, 1, room - *size, f);
        if (*size < room)
            break;
        char *more = realloc(b, room *= 2);
        if (!more)
            free(b);
        b = more;
    }
    int bad = ferror(f);
    if (f != stdin)
        fclose(f);
    if (!b || bad) {
        free(b);
        return bad ? cli_error("%s: cannot be read", path) : cli_error("out of memory");
    }
    *data = b;
    return CLI_OK;
}

int actions_write_file(const char *path, const void *data, size_t size)
{
    FILE *f = strcmp(path, "-") == 0 ? stdout : fopen(path, "wb");
    if (!f)
        return cli_error("%s: %s", path, strerror(errno));
    int bad = fwrite(data, 1, size, f) != size;
    bad |= f != stdout ? fclose(f) != 0 : fflush(f) != 0;
    return bad ? cli_error("%s: write failed", path) : CLI_OK;
}
