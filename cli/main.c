/* perigee: build, search, measure and convert vector indexes from a shell. */
#define _GNU_SOURCE
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"build", "make an index of a file of vectors", cmd_build},
    {"search", "answer queries with an index", cmd_search},
    {"eval", "measure recall and speed of an index", cmd_eval},
    {"info", "describe an index or a file of vectors", cmd_info},
    {"check", "prove that an index is whole", cmd_check},
    {"sparse", "indexes of sparse vectors: build, search, info, check", cmd_sparse},
    {"text", "full text: build, search, eval, info, check", cmd_text},
    {"convert", "turn files of vectors, or an index, into another format", cmd_convert},
    {"vectors", "keep rows under string keys in a memory-mapped file", cmd_vectors},
    {"log", "look after an append-only log of typed values", cmd_log},
    {"tensor", "tensors in a log", cmd_tensor},
    {"model", "a registry of models in a log", cmd_model},
    {"run", "experiments in a log", cmd_run},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

int cli_stopped(void)
{
    return stop != 0;
}

static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};

/* Without SA_RESTART: a read that waits must return. A signal that was ignored when we started
 * (nohup) stays ignored. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof stop_signals / sizeof *stop_signals; i++)
        if (sigaction(stop_signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(stop_signals[i], &action, NULL);
}

/* SIGINT stays caught in children: Ctrl-C reaches them too, and the parent ends them. A sanitiser's
 * handlers go as well: a crash of the child is an answer. */
void cli_signals_default(void)
{
    static const int numbers[] = {SIGTERM, SIGPIPE, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        signal(numbers[i], SIG_DFL);
}

static void print_help(FILE *to)
{
    fputs("usage: perigee COMMAND [options] ...\n\n", to);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].what);
    fputs("\n'perigee COMMAND --help' tells the options of each; 'perigee --version' the version.\n"
          "Exit status: 0 done, 1 a negative answer of check or eval, 2 wrong usage, 3 error.\n",
          to);
}

static int run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        uint32_t v = peri_version();
        printf("perigee %u.%u.%u (kernels: %s)\n", v >> 16, v >> 8 & 255, v & 255,
               peri_cpu_level());
        return CLI_OK;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        (strcmp(name, "help") == 0 && argc == 2)) {
        print_help(stdout);
        return CLI_OK;
    }
    int help = strcmp(name, "help") == 0;
    for (int i = 0; i < N_COMMANDS; i++)
        if (help && strcmp(argv[2], commands[i].name) == 0) {
            char option[] = "--help", *args[] = {argv[2], option, NULL};
            return commands[i].run(2, args);
        } else if (strcmp(name, commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    if (!*name) {
        print_help(stderr);
        return CLI_USAGE;
    }
    return cli_usage("", "unknown command '%s'", help ? argv[2] : name);
}

int main(int argc, char **argv)
{
    catch_signals();
    int code = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) /* a full disk must not pass for success */
        return code == CLI_OK || code == CLI_NO ? cli_error("standard output: write failed") : code;
    return code;
}
