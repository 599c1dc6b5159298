/* The manifest of a directory of journal files: which files are live, how far each is valid and
 * what was known durable when the manifest was written. It is a segment file (kind "PMAN"), written
 * anew and renamed over the former one, which stays until the new one is durable.
 *
 * Invariants:
 *  M1. A file is listed only once its header and its name are durable.
 *  M2. A file is removed only once a manifest without it is durable; until its name is gone it
 *      stands among the `gone`, so that a crash in between leaves no litter.
 *  M3. `synced` was durable when the manifest was written: a journal that ends before it has lost
 *      records, however cleanly it ends. */
#ifndef PE_MANIFEST_H
#define PE_MANIFEST_H

#include "base/host.h"

enum {
    PE_MANIFEST_SEALED = 1, /* no more appends; `length` and `last` are final */
    PE_MANIFEST_SYNCED = 2, /* the whole file is durable */
    PE_MANIFEST_OWNER = 4,  /* numbers that the journal's owner keeps here */
};

typedef struct pe_manifest_file {
    uint64_t number;
    uint64_t first;  /* sequence of its first record */
    uint64_t last;   /* of its last one when sealed; first - 1 = none */
    uint64_t length; /* valid bytes when sealed */
    uint32_t flags;
} pe_manifest_file;

typedef struct pe_manifest {
    uint8_t uuid[16];    /* of the directory, for ever; seeds every checksum */
    uint8_t history[16]; /* changes when records are given up: what was derived is foreign then */
    uint64_t generation; /* counts saves */
    uint64_t next_number;
    uint64_t synced;
    uint64_t owner[PE_MANIFEST_OWNER];
    pe_manifest_file *files; /* ascending by number */
    size_t n_files, files_room;
    uint64_t *gone; /* files to be removed, if they are still there */
    size_t n_gone, gone_room;
} pe_manifest;

/* ERR_NOT_FOUND where there is none; else what segments say, and ERR_CORRUPT. On failure *m is
 * empty. */
peri_status pe_manifest_load(pe_manifest *m, pe_host *host, const char *path);
/* Counts the generation on. On failure the generation is as before; `*renamed` tells whether the
 * new file may stand at the path all the same (only the directory's fsync failed). */
peri_status pe_manifest_save(pe_manifest *m, pe_host *host, const char *path, int *renamed);
peri_status pe_manifest_copy(pe_manifest *to, pe_host *host, const pe_manifest *from);
void pe_manifest_free(pe_manifest *m, pe_host *host);

#endif
