/* The actions of `perigee vectors`; argv[0] is the action's name. */
#ifndef CLI_VECTORS_ACTIONS_H
#define CLI_VECTORS_ACTIONS_H

#include "cli.h"

int vectors_create(int argc, char **argv);
int vectors_import(int argc, char **argv);
int vectors_delete(int argc, char **argv);
int vectors_index(int argc, char **argv);
int vectors_compact(int argc, char **argv);
int vectors_get(int argc, char **argv);
int vectors_search(int argc, char **argv);
int vectors_info(int argc, char **argv);
int vectors_check(int argc, char **argv);

/* Open a file; CLI_ERROR, said, where it cannot be. */
int vectors_open(peri_vectors **v, const char *path, int readonly);

#endif
