/* Power cuts without pulling a plug: a table of file calls that does the work and notes every
 * change to one directory, and from the notes the states that a cut could leave.
 *
 * What is assumed of the machine, and no more: fsync and fdatasync make a file's bytes durable,
 * fsync of a directory its names; what was not made durable may be there or not, in any order,
 * writes torn at sectors of 512 bytes; names that were not made durable may be the former ones,
 * change by change. */
#ifndef PE_POWER_H
#define PE_POWER_H

#include "base/rng.h"
#include "perigee/base.h"

enum { POWER_INODES = 512, POWER_FDS = 1024, POWER_SECTOR = 512 };

typedef enum power_kind {
    POWER_CREATE,
    POWER_WRITE,
    POWER_GROW, /* allocation */
    POWER_SYNC, /* of a file's bytes */
    POWER_RENAME,
    POWER_UNLINK,
    POWER_SYNC_DIR,
    POWER_ACK, /* the test's own: `offset` was promised durable */
} power_kind;

typedef struct power_event {
    power_kind kind;
    int inode;
    uint64_t offset, size;
    unsigned char *data;
    char name[48], to[48];
} power_event;

/* A planted bug: calls of that sort report success and do nothing. */
typedef enum power_bug {
    POWER_SOUND,
    POWER_NO_DATASYNC,
    POWER_NO_SYNC,
    POWER_NO_SYNC_DIR
} power_bug;

typedef struct power {
    peri_env env;
    peri_files files;
    const char *dir;
    power_bug bug;
    power_event *events;
    size_t n, room;
    int inode_of_fd[POWER_FDS];
    struct {
        char name[48];
        int inode;
    } names[POWER_INODES]; /* as they are now */
    size_t n_names;
    int n_inodes;
} power;

void power_start(power *p, const char *dir, power_bug bug);
/* Note that everything up to `sequence` was promised durable. */
void power_ack(power *p, uint64_t sequence);
void power_free(power *p);

/* Build in `dir` (emptied first) a state that a cut right after event number `at` could leave.
 * Returns the highest sequence promised durable by then. */
uint64_t power_cut(const power *p, size_t at, pe_rng *rng, const char *dir);

#endif
