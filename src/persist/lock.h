/* The lock that keeps writers apart: an open-file-description lock on a small file of its own,
 * which stays. (POSIX locks vanish when any code of the process closes the file; a lock on the data
 * file itself would be lost when a new generation takes its name.) The file holds the writer's
 * process number, because the system does not tell who holds such a lock.
 *
 * A child of fork inherits the description, and with it the lock: the owner's give-back unlocks for
 * both, but when the owner is killed the lock lives as long as the child. */
#ifndef PE_LOCK_H
#define PE_LOCK_H

#include "base/file.h"

typedef struct pe_lock {
    pe_host *host;
    pe_file file;
    char *path; /* <what it guards>.lock */
    size_t path_room;
} pe_lock;

/* Errors: ERR_BUSY (names the holder), ERR_NOT_FOUND (the directory), ERR_IO, ERR_NOMEM. */
peri_status pe_lock_take(pe_lock *l, pe_host *host, const char *guarded);

/* owner: not in a child of fork, which only closes its copy of the descriptor. A lock that was not
 * taken, all zeros, is fine. */
void pe_lock_give(pe_lock *l, int owner);

#endif
