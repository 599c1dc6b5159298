/* Sets of ids from files: one column of integers in any vector format, or text, one id a line. */
#ifndef CLI_IDLIST_H
#define CLI_IDLIST_H

#include "cli.h"

/* CLI_OK and *set (to be closed), or CLI_ERROR, said. */
int idlist_read(const char *path, peri_idset **set);

#endif
