/* What the files of log/ share: the handle, how atoms lie in the history's values, short calls for
 * the layers on top (tensors, models, runs).
 *
 * A value's tag: the type in the low four bits (PE_TAG_F64 and PE_TAG_I64 are the history's own),
 * in the high four how the value is kept: 0 as it is, 1 LZ4, 2 zstd; then its size as a 32-bit
 * number stands before it. docs/formats/log.md. */
#ifndef PE_LOG_PARTS_H
#define PE_LOG_PARTS_H

#include "history/history.h"
#include "perigee/log.h"

enum {
    PE_ATOM_NULL = 6, /* tags; 1 and 2 are PE_TAG_F64 and PE_TAG_I64 */
    PE_ATOM_TEXT = 3,
    PE_ATOM_BYTES = 4,
    PE_ATOM_VECTOR = 5,
};

/* What a reader's refresh replaces whole. */
typedef struct pe_log_state {
    pe_history *history;
    _Atomic uint32_t pins; /* views that are out */
} pe_log_state;

struct peri_log {
    pe_host host;
    peri_env env;
    int has_env;
    peri_log_config config;
    char *path;
    size_t path_room;
    pe_epoch epoch; /* of the states; only read-only handles have more than one in their life */
    _Atomic(pe_log_state *) state;
    pthread_mutex_t refresh;
};

typedef struct pe_log_read {
    pe_read read;
    pe_reader *reader;
    pe_log_state *state;
} pe_log_read;

peri_status pe_log_read_begin(pe_log_read *r, const peri_log *log, uint64_t as_of);
void pe_log_read_end(pe_log_read *r);
pe_history *pe_log_history(const peri_log *log); /* a writer's */

/* ---- atoms (atom.c) ---- */

/* A put's value as bytes; *room (freed by the caller when not NULL) holds what had to be built. */
typedef struct pe_packed {
    peri_slice value;
    uint8_t tag;
    unsigned char number[8];
    void *room;
    size_t room_size;
} pe_packed;
peri_status pe_atom_pack(peri_log *log, const peri_atom *a, pe_packed *out);
void pe_atom_unpack_free(peri_log *log, pe_packed *p);
/* The atom of a version; data points into the version, or into *buf where it was compressed or
 * copy is asked for. */
peri_status pe_atom_of(const pe_version *v, peri_atom *out, peri_buf *buf, int copy);

/* ---- globs (glob.c) ---- */
int pe_glob_match(peri_slice glob, peri_slice text);
/* The bytes before the first special one. */
size_t pe_glob_prefix(peri_slice glob);

#endif
