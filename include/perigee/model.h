/** @file model.h
 *  A registry of models in a log: versions of a named blob with metadata and a stage, their
 *  SHA-256 checked whenever one is loaded.
 *
 *  Names are 1 to 255 bytes, any bytes; versions count from 1. Threads and errors as log.h. */
#ifndef PERI_MODEL_H
#define PERI_MODEL_H

#include "perigee/log.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PERI_STAGE_DEVELOPMENT = 0,
    PERI_STAGE_STAGING = 1,
    PERI_STAGE_PRODUCTION = 2,
    PERI_STAGE_ARCHIVED = 3,
};

typedef struct peri_model_info {
    uint64_t version;
    uint64_t size;  /* bytes of the model */
    int64_t time;   /* when it was saved, microseconds since 1970 */
    uint32_t stage; /* PERI_STAGE_* */
    uint32_t reserved;
    char sha256[65]; /* hexadecimal */
} peri_model_info;

/** The name of a stage ("Development", ...), NULL for any other number. Since 0.1. */
PERI_API const char *peri_stage_name(uint32_t stage);

/** Save a new version, stage Development; metadata is the caller's text (JSON, say), may be empty.
 *  It can be seen once all of it is there. Errors: ERR_ARG, and those of peri_log_put.
 *  Since 0.1. */
PERI_API peri_status peri_model_save(peri_log *log, peri_slice name, peri_slice data,
                                     peri_slice metadata, peri_model_info *out);

/** Load a version (0 = the newest) into *data and its metadata into *metadata (may be NULL).
 *  Errors: ERR_NOT_FOUND, ERR_CORRUPT (the SHA-256 differs: *data is emptied). Since 0.1. */
PERI_API peri_status peri_model_load(const peri_log *log, peri_slice name, uint64_t version,
                                     peri_buf *data, peri_buf *metadata, peri_model_info *out);

/** What is known of a version (0 = the newest), without its data. Since 0.1. */
PERI_API peri_status peri_model_get_info(const peri_log *log, peri_slice name, uint64_t version,
                                         peri_model_info *out);

/** Put a version into a stage. Errors: ERR_NOT_FOUND, ERR_ARG. Since 0.1. */
PERI_API peri_status peri_model_set_stage(peri_log *log, peri_slice name, uint64_t version,
                                          uint32_t stage);

/** The newest version in Production. Errors: ERR_NOT_FOUND. Since 0.1. */
PERI_API peri_status peri_model_production(const peri_log *log, peri_slice name,
                                           peri_model_info *out);

/** Give each version, oldest first, or each name in order, to fn until it returns non-zero. */
typedef int (*peri_model_fn)(void *ctx, peri_slice name, const peri_model_info *info);
PERI_API peri_status peri_model_versions(const peri_log *log, peri_slice name, peri_model_fn fn,
                                         void *ctx);
/** info is that of the newest version. */
PERI_API peri_status peri_model_names(const peri_log *log, peri_model_fn fn, void *ctx);

#ifdef __cplusplus
}
#endif
#endif
