/* perigee vectors: the actions on a vector file. */
#include "vectors_actions.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} actions[] = {
    {"create", "make an empty file", vectors_create},
    {"import", "put rows of a file of vectors under keys", vectors_import},
    {"get", "print the rows of keys", vectors_get},
    {"search", "answer queries", vectors_search},
    {"delete", "take keys out", vectors_delete},
    {"index", "build an index over the rows, or bring it up to date", vectors_index},
    {"compact", "give the space of deleted rows back", vectors_compact},
    {"info", "describe a file", vectors_info},
    {"check", "prove that a file is whole", vectors_check},
};
enum { N_ACTIONS = sizeof actions / sizeof *actions };

static void print_help(FILE *to)
{
    fputs("usage: perigee vectors ACTION FILE [options] ...\n\n"
          "Rows under string keys in a memory-mapped file: written at memory speed, durable at\n"
          "the end of each action, searched exactly or by an index beside the file.\n\n",
          to);
    for (int i = 0; i < N_ACTIONS; i++)
        fprintf(to, "  %-10s %s\n", actions[i].name, actions[i].what);
    fputs("\nperigee vectors ACTION --help tells the options of each.\n", to);
}

int vectors_open(peri_vectors **v, const char *path, int readonly)
{
    peri_status status = peri_vectors_open(v, path, readonly ? PERI_OPEN_READONLY : 0, NULL, NULL);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot open", status, NULL);
}

int cmd_vectors(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    for (int i = 0; i < N_ACTIONS; i++)
        if (strcmp(name, actions[i].name) == 0)
            return actions[i].run(argc - 1, argv + 1);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_help(stdout);
        return CLI_OK;
    }
    if (!*name)
        return cli_usage("vectors", "which action?");
    return cli_usage("vectors", "unknown action '%s'", name);
}
