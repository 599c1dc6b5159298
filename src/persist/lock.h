/* The lock of one writer on a directory of files: an open-file-description lock on a file of its
 * own, which is never renamed and never removed. (POSIX record locks vanish as soon as any code of
 * the process closes the file; a lock on a data file would move with a rename.)
 *
 * The file also holds a line of text for people and one mark for us: whether a manifest has ever
 * been made durable here. A directory whose manifest is gone is thereby told from a new one. */
#ifndef PE_LOCK_H
#define PE_LOCK_H

#include "base/file.h"

typedef struct pe_lock {
    pe_host *host;
    pe_file file;
    char *path;
    size_t path_room;
    int marked; /* a manifest was made durable here, now or earlier */
} pe_lock;

/* Take the lock, making the file where there is none. Errors: ERR_BUSY (the detail names the
 * process that holds it), ERR_IO, ERR_NOMEM, ERR_NOT_FOUND (no such directory). */
peri_status pe_lock_take(pe_lock *l, pe_host *host, const char *path);
/* Note that there is a manifest now. A failure costs only the mark. */
void pe_lock_mark(pe_lock *l);
/* All zeros is fine. forked: the lock is the parent's, only memory is released. */
void pe_lock_release(pe_lock *l, int forked);

#endif
