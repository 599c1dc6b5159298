/** @file tensor.h
 *  Tensors in a log: arrays of 32- and 64-bit floats and integers, whole or in chunks of rows,
 *  found by glob, read back mapped without a copy or streamed in batches.
 *
 *  A tensor put under the prefix "train/" is the key "train/0000"; in chunks it is
 *  "train/chunk_0000", "train/chunk_0001", ... What is read by glob ("train" and a star) is
 *  everything that matches, numbers within names in numeric order (chunk_9999 before chunk_10000),
 *  rows one behind the other. Plain values of the log count too: a FLOAT or INT is one element, a
 *  VECTOR a row of 32-bit floats, so that a log of sensor values reads as a tensor.
 *
 *  Threads and errors as log.h. Elements lie in the log little-endian, row-major. */
#ifndef PERI_TENSOR_H
#define PERI_TENSOR_H

#include "perigee/log.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PERI_TENSOR_F32 = 1,
    PERI_TENSOR_F64 = 2,
    PERI_TENSOR_I32 = 3,
    PERI_TENSOR_I64 = 4,
};

enum { PERI_TENSOR_DIMS = 8 }; /* dimensions at most, inclusive */

typedef struct peri_tensor {
    uint32_t type; /* PERI_TENSOR_* */
    uint32_t dims; /* 0 (one element) to PERI_TENSOR_DIMS */
    uint64_t shape[PERI_TENSOR_DIMS];
    const void *data;
    size_t size; /* bytes of data: the product of the shape times the element's size */
} peri_tensor;

/** Bytes of an element; 0 for a type that is none. Since 0.1. */
PERI_API size_t peri_tensor_element(uint32_t type);

/** Store a tensor under a prefix (1 to 60,000 bytes) in place of what was there, atomically.
 *  Errors: ERR_ARG (shape and size do not agree), ERR_FULL (above PERI_LOG_VALUE_MAX less a
 *  kilobyte: put it in chunks), and those of peri_log_put. Since 0.1. */
PERI_API peri_status peri_tensor_put(peri_log *log, peri_slice prefix, const peri_tensor *tensor);

/** Store it in chunks of `rows` rows (the first dimension), of any size in all. Readers see the
 *  former tensor or, once all chunks are there, the new one; in between ERR_STATE. Since 0.1. */
PERI_API peri_status peri_tensor_put_chunked(peri_log *log, peri_slice prefix,
                                             const peri_tensor *tensor, uint64_t rows);

/** Everything that matches a glob as one tensor in *buf, converted to `type` (0 = as stored; FLOAT
 *  values give F64, INT I64, VECTOR F32). One tensor keeps its shape; several are joined along the
 *  first dimension and must agree in the others.
 *  Errors: ERR_NOT_FOUND (nothing matches), ERR_STATE (types or shapes do not agree, chunks are
 *  missing), and those of peri_log_get. Since 0.1. */
PERI_API peri_status peri_tensor_get(const peri_log *log, peri_slice glob, uint32_t type,
                                     peri_tensor *out, peri_buf *buf);

/** One whole tensor (not in chunks, not compressed) where it lies in the mapped file: no copy.
 *  tensor.data is aligned to 64 bytes for tensors of 4 KiB and more. */
typedef struct peri_tensor_view {
    peri_tensor tensor;
    peri_log_view view;
} peri_tensor_view;
/** prefix as it was put. Errors: ERR_NOT_FOUND, ERR_STATE (no whole tensor). Since 0.1. */
PERI_API peri_status peri_tensor_map(const peri_log *log, peri_slice prefix, peri_tensor_view *out);
PERI_API void peri_tensor_unmap(const peri_log *log, peri_tensor_view *view);

/** Rows of everything that matches, in batches, holding one chunk in memory at a time. The list of
 *  keys is that of the beginning. */
typedef struct peri_tensor_stream peri_tensor_stream;
PERI_API peri_status peri_tensor_stream_open(peri_tensor_stream **out, const peri_log *log,
                                             peri_slice glob, uint64_t batch_rows, uint32_t type);
/** The next batch: up to batch_rows rows, valid until the next call. At the end out->shape[0] is 0
 *  and out->data NULL. Errors: as get. Since 0.1. */
PERI_API peri_status peri_tensor_stream_next(peri_tensor_stream *s, peri_tensor *out);
PERI_API void peri_tensor_stream_close(peri_tensor_stream *s);

#ifdef __cplusplus
}
#endif
#endif
