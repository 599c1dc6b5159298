/* What the subcommands of `perigee` share. They use the public headers only: what they cannot do,
 * the library lacks. */
#ifndef CLI_H
#define CLI_H

#include "perigee/perigee.h"

/* What the command says by its exit status. */
enum {
    CLI_OK = 0,
    CLI_NO = 1,    /* the answer of check or eval is a negative one */
    CLI_USAGE = 2, /* the command line makes no sense */
    CLI_ERROR = 3
};

/* One per subcommand; argv[0] is its name. */
int cmd_build(int argc, char **argv);
int cmd_search(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_text(int argc, char **argv);
int cmd_vectors(int argc, char **argv);
int cmd_log(int argc, char **argv);
int cmd_tensor(int argc, char **argv);
int cmd_model(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_sparse(int argc, char **argv);

/* Print "perigee: ..." to stderr and return CLI_ERROR, or CLI_USAGE. */
int cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
int cli_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a failed peri_ call: what was tried, the status in words, the detail. `detail` NULL
 * = peri_error_detail(). */
int cli_failed(const char *what, peri_status status, const char *detail);

/* Non-zero once the user asked to stop (SIGINT, SIGTERM, SIGHUP). */
int cli_stopped(void);
/* Signals as a program has them at its start: for child processes. */
void cli_signals_default(void);

double cli_seconds(void); /* of a clock that only goes forward */

/* The words of the command line for the library's numbers, and back. */
const char *cli_metric_name(unsigned metric);
const char *cli_scalar_name(unsigned scalar);
const char *cli_codes_name(unsigned codes);
extern const char *const cli_metric_words[]; /* at 0: l2, ...; NULL at the end */
extern const char *const cli_scalar_words[];
extern const char *const cli_codes_words[];

/* The metric that an ann-benchmarks file means by its attribute, 0 if it is none of ours. */
unsigned cli_metric_of_distance(const char *distance);
const char *cli_distance_of_metric(unsigned metric);

/* Files. */
int cli_is_file(const char *path);   /* a regular one */
int cli_is_matrix(const char *path); /* by extension, else by the first bytes */
int cli_is_hdf5(const char *path);   /* by extension; "a.hdf5:b" is, too */
int cli_is_ivecs(const char *path);
/* "a.hdf5" and "test" make "a.hdf5:test"; a path that names its dataset, or none at all, stays. */
void cli_dataset_of(const char *path, const char *dataset, char out[4608]);
/* The same, in place of a dataset that the path names. */
void cli_sibling_of(const char *path, const char *dataset, char out[4608]);
int cli_check_output(const char *path);   /* CLI_ERROR, said, where no file can be put there */
uint64_t cli_file_size(const char *path); /* 0 where there is none; "a.hdf5:b" is a.hdf5 */

/* "12.3 MiB" */
void cli_print_bytes(uint64_t bytes, char out[32]);
/* 1234567 as "1,234,567" */
void cli_print_count(uint64_t n, char out[32]);

#endif
