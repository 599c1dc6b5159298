/* What tensors are made of: a list of keys in numeric order, and the piece that each key holds.
 *
 * A piece that was put as a tensor is a BYTES atom that begins with this header, 128 bytes, so that
 * the elements behind it keep the alignment of the value (64 for large ones):
 *   0      8  "PTENSOR\1"
 *   8      4  type
 *   12     4  dimensions
 *   16     64 shape of the whole tensor
 *   80     8  first row of this chunk
 *   88     8  rows of this chunk
 *   96     8  which put: the same number in all chunks
 *   104    4  number of the chunk
 *   108    4  chunks
 *   112    16 zero
 * They are never compressed, or they could not be mapped. */
#ifndef PE_LOG_TENSOR_H
#define PE_LOG_TENSOR_H

#include "log/log_parts.h"
#include "perigee/tensor.h"

enum { PE_TENSOR_HEAD = 128 };

typedef struct pe_piece {
    peri_log_view view;
    int is_tensor; /* has a header; else a plain value */
    uint32_t type, dims;
    uint64_t shape[PERI_TENSOR_DIMS]; /* of the whole */
    uint64_t first, rows, put;
    uint32_t chunk, chunks;
    const void *data;
    size_t size;
    double number;   /* data of a FLOAT... */
    int64_t integer; /* ...of an INT: data points here, so a piece is not copied about */
} pe_piece;

/* Read the piece of a key; unmap with peri_log_view_release. ERR_STATE where it is none. */
peri_status pe_piece_open(const peri_log *log, peri_slice key, uint64_t as_of, pe_piece *p);

/* Elements in a row: the product of the shape behind the first dimension. */
uint64_t pe_piece_width(const pe_piece *p);

/* Keys that match a glob, numbers in them in numeric order. */
typedef struct pe_key_list {
    pe_host *host;
    unsigned char *bytes;
    size_t used, bytes_room;
    peri_slice *keys; /* data is an offset until the list is complete */
    size_t n, room;
} pe_key_list;
peri_status pe_key_list_make(pe_key_list *l, const peri_log *log, peri_slice glob, uint64_t as_of);
void pe_key_list_free(pe_key_list *l);

void pe_tensor_convert(uint32_t to, void *out, uint32_t from, const void *in, uint64_t n);

/* Whether the chunks met so far follow one another: call per piece, then once with NULL. */
typedef struct pe_chunk_order {
    uint64_t put;
    uint32_t next, chunks;
} pe_chunk_order;
peri_status pe_chunk_follows(pe_chunk_order *o, const pe_piece *p);

#endif
