/* Commands with actions: `perigee log get DIR KEY`. */
#ifndef CLI_ACTIONS_H
#define CLI_ACTIONS_H

#include "args.h"
#include "cli.h"

typedef struct action {
    const char *name, *operands, *summary;
    int min_operands, max_operands; /* without the action itself */
    int writes;                     /* the log is opened for writing */
    int makes;                      /* and made where there is none */
    int (*run)(peri_log *log, const char **operands, int n);
} action;

/* Parse `perigee COMMAND ACTION DIR ...`, open the log, run the action. */
int actions_run(const char *command, const char *summary, const action *actions, size_t n_actions,
                const arg_option *options, size_t n_options, int argc, char **argv);

/* A whole file, to be freed; CLI_OK or CLI_ERROR, said. "-" is standard input. */
int actions_read_file(const char *path, void **data, size_t *size);
int actions_write_file(const char *path, const void *data, size_t size);

#endif
