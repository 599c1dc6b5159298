#include "args.h"
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_help(const arg_command *c)
{
    printf("usage: perigee %s [options] %s\n\n%s\n\n", c->name, c->operands, c->summary);
    for (size_t i = 0; i < c->n_options; i++) {
        const arg_option *o = &c->options[i];
        char left[64];
        int n = snprintf(left, sizeof left, o->letter ? "-%c, " : "    ", o->letter);
        snprintf(left + n, sizeof left - (size_t)n, "--%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("  %-26s  %s\n", left, o->help);
    }
    printf("  %-26s  %s\n", "-h, --help", "show this");
}

/* A whole number and nothing else: strtoull takes signs and spaces. */
static int parse_count(const char *text, size_t n, uint64_t *out)
{
    uint64_t value = 0;
    if (n == 0)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)text[i]) || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return 0;
    *out = value;
    return 1;
}

static int set_count(const arg_command *c, const arg_option *o, const char *text, size_t n,
                     uint64_t *out)
{
    uint64_t value;
    if (!parse_count(text, n, &value) || (double)value < o->low || (double)value > o->high)
        return cli_usage(c->name, "--%s is '%.*s', expected a whole number from %.0f to %.0f",
                         o->name, (int)n, text, o->low, o->high);
    *out = value;
    return -1;
}

static int set_counts(const arg_command *c, const arg_option *o, const char *text)
{
    arg_counts *list = o->out;
    list->n = 0;
    for (;;) {
        size_t n = strcspn(text, ",");
        if (list->n == ARG_COUNTS_ROOM)
            return cli_usage(c->name, "--%s: more than %d numbers", o->name, ARG_COUNTS_ROOM);
        int bad = set_count(c, o, text, n, &list->value[list->n]);
        if (bad >= 0)
            return bad;
        list->n++;
        if (!text[n])
            return -1;
        text += n + 1;
    }
}

static int set_real(const arg_command *c, const arg_option *o, const char *text)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || !isfinite(value) ||
        value < o->low || value > o->high)
        return cli_usage(c->name, "--%s is '%s', expected a number from %g to %g", o->name, text,
                         o->low, o->high);
    *(double *)o->out = value;
    return -1;
}

static int set_choice(const arg_command *c, const arg_option *o, const char *text)
{
    char list[128] = "";
    for (int i = 0; o->words[i]; i++) {
        if (strcmp(o->words[i], text) == 0) {
            *(int *)o->out = i;
            return -1;
        }
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", o->words[i]);
    }
    return cli_usage(c->name, "--%s is '%s', expected one of: %s", o->name, text, list);
}

static int set_option(const arg_command *c, const arg_option *o, const char *text)
{
    switch (o->type) {
    case ARG_FLAG:
        *(int *)o->out = 1;
        return -1;
    case ARG_COUNT:
        return set_count(c, o, text, strlen(text), o->out);
    case ARG_COUNTS:
        return set_counts(c, o, text);
    case ARG_REAL:
        return set_real(c, o, text);
    case ARG_CHOICE:
        return set_choice(c, o, text);
    default:
        if (!*text)
            return cli_usage(c->name, "--%s is empty", o->name);
        *(const char **)o->out = text;
        return -1;
    }
}

/* Find what an argument names: "--name", "--name=value", "-x", "-xvalue". *value gets what stands
 * in the same argument, or NULL. */
static const arg_option *find_option(const arg_command *c, const char *arg, const char **value)
{
    int is_long = arg[1] == '-';
    const char *name = arg + 1 + is_long;
    size_t n = is_long ? strcspn(name, "=") : 1;
    *value = is_long ? name[n] ? name + n + 1 : NULL : name[1] ? name + 1 : NULL;
    for (size_t i = 0; i < c->n_options; i++) {
        const arg_option *o = &c->options[i];
        if (is_long ? strlen(o->name) == n && memcmp(o->name, name, n) == 0 : o->letter == name[0])
            return o;
    }
    return NULL;
}

static int is_help(const char *arg)
{
    return strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0;
}

/* argv[*at] is an option; *at moves past a value that stands in an argument of its own. */
static int take_option(const arg_command *c, int argc, char **argv, int *at)
{
    const char *value;
    const arg_option *o = find_option(c, argv[*at], &value);
    if (!o)
        return cli_usage(c->name, "unknown option '%s'", argv[*at]);
    if (o->type == ARG_FLAG && value)
        return cli_usage(c->name, "--%s takes no value, got '%s'", o->name, argv[*at]);
    if (o->type != ARG_FLAG && !value) {
        if (*at + 1 >= argc)
            return cli_usage(c->name, "--%s needs a value (%s)", o->name, o->value);
        value = argv[++*at];
    }
    return set_option(c, o, value);
}

int args_parse(const arg_command *c, int argc, char **argv, const char **operands, int *n)
{
    int plain = 0; /* behind "--" nothing is an option */
    *n = 0;
    for (int i = 1; i < argc; i++)
        if (is_help(argv[i])) {
            print_help(c);
            return CLI_OK;
        } else if (strcmp(argv[i], "--") == 0) {
            break;
        }
    for (int i = 1; i < argc; i++) {
        if (!plain && strcmp(argv[i], "--") == 0) {
            plain = 1;
            continue;
        }
        if (!plain && argv[i][0] == '-' && argv[i][1]) {
            int done = take_option(c, argc, argv, &i);
            if (done >= 0)
                return done;
            continue;
        }
        if (*n == c->max_operands)
            return cli_usage(c->name, "'%s' is one operand too many, expected %s", argv[i],
                             c->operands);
        if (!argv[i][0])
            return cli_usage(c->name, "an operand is empty, expected %s", c->operands);
        operands[(*n)++] = argv[i];
    }
    if (*n < c->min_operands)
        return cli_usage(c->name, "%d operands, expected %s", *n, c->operands);
    return -1;
}
