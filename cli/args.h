/* Command lines by table: one list of options is what is parsed and what --help shows. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stddef.h>
#include <stdint.h>

typedef enum arg_type {
    ARG_FLAG,   /* int: set to 1 */
    ARG_COUNT,  /* uint64_t: low to high */
    ARG_REAL,   /* double: low to high */
    ARG_TEXT,   /* const char * */
    ARG_CHOICE, /* int: the index in words */
    ARG_COUNTS  /* arg_counts: numbers separated by commas */
} arg_type;

enum { ARG_COUNTS_ROOM = 64 };

typedef struct arg_counts {
    size_t n;
    uint64_t value[ARG_COUNTS_ROOM];
} arg_counts;

typedef struct arg_option {
    char letter; /* 0 = none */
    const char *name;
    const char *value; /* what --help calls the value; NULL for flags */
    const char *help;
    arg_type type;
    void *out; /* left as it is where the option is not given */
    double low, high;
    const char *const *words; /* ARG_CHOICE; ends in NULL */
} arg_option;

typedef struct arg_command {
    const char *name, *operands, *summary;
    const arg_option *options;
    size_t n_options;
    int min_operands, max_operands;
} arg_command;

/* Parse argv[1..]; operands gets what is no option (room for max_operands), *n how many.
 * Returns -1 to go on, else the exit status: CLI_OK after --help, CLI_USAGE after an error. */
int args_parse(const arg_command *c, int argc, char **argv, const char **operands, int *n);

#endif
