/* The subcommands of `perigee text`. */
#ifndef CLI_CMD_TEXT_H
#define CLI_CMD_TEXT_H

#include "cli.h"

int text_build(int argc, char **argv);
int text_search(int argc, char **argv);
int text_eval(int argc, char **argv);

/* Open for reading, mapped; CLI_OK or CLI_ERROR, said. */
int text_open(const char *path, peri_text **index, peri_text_info *info);

#endif
