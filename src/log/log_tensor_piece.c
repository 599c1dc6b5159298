/* Pieces of tensors: what a key holds, in which order keys come, one type as another. */
#include "base/checked.h"
#include "log/log_tensor.h"
#include "persist/bytes.h"

/* ---- pieces ---- */

static peri_status bad(peri_slice key, const char *what)
{
    return pe_fail(PERI_ERR_CORRUPT, "'%.*s': %s", (int)(key.size < 80 ? key.size : 80),
                   (const char *)key.data, what);
}

uint64_t pe_piece_width(const pe_piece *p)
{
    uint64_t width = 1;
    for (uint32_t d = 1; d < p->dims; d++)
        width *= p->shape[d];
    return width;
}

static peri_status read_head(pe_piece *p, peri_slice key, const unsigned char *b, size_t size)
{
    p->is_tensor = 1;
    p->type = pe_get_le32(b + 8);
    p->dims = pe_get_le32(b + 12);
    p->first = pe_get_le64(b + 80);
    p->rows = pe_get_le64(b + 88);
    p->put = pe_get_le64(b + 96);
    p->chunk = pe_get_le32(b + 104);
    p->chunks = pe_get_le32(b + 108);
    p->data = b + PE_TENSOR_HEAD;
    p->size = size - PE_TENSOR_HEAD;
    size_t need = peri_tensor_element(p->type), width = 1;
    if (need == 0 || p->dims > PERI_TENSOR_DIMS || p->chunk >= p->chunks)
        return bad(key, "the head of a tensor makes no sense");
    for (uint32_t d = 0; d < p->dims; d++)
        p->shape[d] = pe_get_le64(b + 16 + 8 * d);
    for (uint32_t d = 1; d < p->dims; d++)
        if (pe_mul_size(width, (size_t)p->shape[d], &width))
            return bad(key, "the shape of a tensor overflows");
    uint64_t all = p->dims ? p->shape[0] : 1;
    if (p->rows > all || p->first > all - p->rows || pe_mul_size(need, width, &need) ||
        pe_mul_size(need, (size_t)p->rows, &need) || need != p->size)
        return bad(key, "the shape and the size of a tensor do not agree");
    return PERI_OK;
}

static peri_status read_plain(pe_piece *p, peri_slice key)
{
    const peri_atom *a = &p->view.atom;
    p->chunks = 1;
    p->rows = 1;
    p->dims = 1;
    p->shape[0] = 1;
    switch (a->type) {
    case PERI_ATOM_FLOAT:
        p->type = PERI_TENSOR_F64;
        p->number = a->number;
        p->data = &p->number;
        p->size = 8;
        return PERI_OK;
    case PERI_ATOM_INT:
        p->type = PERI_TENSOR_I64;
        p->integer = a->integer;
        p->data = &p->integer;
        p->size = 8;
        return PERI_OK;
    case PERI_ATOM_VECTOR:
        p->type = PERI_TENSOR_F32;
        p->dims = 2;
        p->shape[1] = a->size / 4;
        p->data = a->data;
        p->size = a->size;
        return PERI_OK;
    default:
        return pe_fail(PERI_ERR_STATE, "'%.*s' is no number, vector or tensor",
                       (int)(key.size < 80 ? key.size : 80), (const char *)key.data);
    }
}

peri_status pe_piece_open(const peri_log *log, peri_slice key, uint64_t as_of, pe_piece *p)
{
    memset(p, 0, sizeof *p);
    PE_TRY(peri_log_view_get(log, key, as_of, &p->view));
    const peri_atom *a = &p->view.atom;
    peri_status status = a->type == PERI_ATOM_BYTES && a->size >= PE_TENSOR_HEAD &&
                                 memcmp(a->data, "PTENSOR\1", 8) == 0
                             ? read_head(p, key, a->data, a->size)
                             : read_plain(p, key);
    if (status != PERI_OK)
        peri_log_view_release(log, &p->view);
    return status;
}

peri_status pe_chunk_follows(pe_chunk_order *o, const pe_piece *p)
{
    int begins = !p || p->chunk == 0;
    if (begins ? o->next != o->chunks
               : p->chunk != o->next || p->put != o->put || p->chunks != o->chunks)
        return pe_fail(PERI_ERR_STATE, "chunk %u of %u is missing or of another put", o->next,
                       o->chunks);
    if (!p)
        return PERI_OK;
    if (begins)
        *o = (pe_chunk_order){p->put, 1, p->chunks};
    else
        o->next++;
    return PERI_OK;
}

/* ---- keys ---- */

static int is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

/* Runs of digits compare as numbers: by length without leading zeros, then byte by byte. */
static int compare_names(peri_slice x, peri_slice y)
{
    const unsigned char *a = x.data, *b = y.data;
    size_t i = 0, j = 0;
    while (i < x.size && j < y.size) {
        if (is_digit(a[i]) && is_digit(b[j])) {
            while (i < x.size && a[i] == '0')
                i++;
            while (j < y.size && b[j] == '0')
                j++;
            size_t m = i, n = j;
            while (m < x.size && is_digit(a[m]))
                m++;
            while (n < y.size && is_digit(b[n]))
                n++;
            int c = m - i != n - j ? (m - i < n - j ? -1 : 1) : memcmp(a + i, b + j, m - i);
            if (c)
                return c;
            i = m;
            j = n;
        } else {
            if (a[i] != b[j])
                return a[i] < b[j] ? -1 : 1;
            i++;
            j++;
        }
    }
    return i < x.size ? 1 : j < y.size ? -1 : 0;
}

static void sort_keys(peri_slice *k, size_t n, peri_slice *room)
{
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, out = 0;
    sort_keys(k, half, room);
    sort_keys(k + half, n - half, room);
    memcpy(room, k, half * sizeof *k);
    while (i < half && j < n)
        k[out++] = compare_names(room[i], k[j]) <= 0 ? room[i++] : k[j++];
    memcpy(k + out, room + i, (half - i) * sizeof *k);
}

typedef struct listing {
    pe_key_list *list;
    peri_status status;
} listing;

static int take_key(void *ctx, peri_slice key, const peri_atom *value)
{
    listing *l = ctx;
    pe_key_list *k = l->list;
    (void)value;
    l->status = pe_grow(k->host, &k->keys, &k->room, k->n + 1, sizeof *k->keys);
    if (l->status == PERI_OK)
        l->status = pe_grow(k->host, &k->bytes, &k->bytes_room, k->used + key.size, 1);
    if (l->status != PERI_OK)
        return 1;
    memcpy(k->bytes + k->used, key.data, key.size);
    k->keys[k->n++] = (peri_slice){(void *)(uintptr_t)k->used, key.size};
    k->used += key.size;
    return 0;
}

peri_status pe_key_list_make(pe_key_list *l, const peri_log *log, peri_slice glob, uint64_t as_of)
{
    peri_log_select select;
    listing taken = {l, PERI_OK};
    memset(l, 0, sizeof *l);
    l->host = &((peri_log *)(uintptr_t)log)->host;
    peri_log_select_init(&select);
    select.glob = glob;
    select.as_of = as_of;
    peri_status status = peri_log_keys(log, &select, take_key, &taken);
    if (status == PERI_OK)
        status = taken.status;
    size_t room = (l->n + 1) * sizeof *l->keys;
    peri_slice *half = status == PERI_OK ? pe_alloc(l->host, room) : NULL;
    if (!half) {
        pe_key_list_free(l);
        return status != PERI_OK ? status : PERI_ERR_NOMEM;
    }
    for (size_t i = 0; i < l->n; i++)
        l->keys[i].data = l->bytes + (uintptr_t)l->keys[i].data;
    sort_keys(l->keys, l->n, half);
    pe_free(l->host, half, room);
    return PERI_OK;
}

void pe_key_list_free(pe_key_list *l)
{
    if (!l->host)
        return;
    pe_free(l->host, l->keys, l->room * sizeof *l->keys);
    pe_free(l->host, l->bytes, l->bytes_room);
    memset(l, 0, sizeof *l);
}

/* ---- types ---- */

/* A float that no integer can hold is undefined to convert in C: it becomes the nearest end, NaN
 * zero. */
static int64_t whole(double d, double low, double high)
{
    return d != d ? 0 : d <= low ? (int64_t)low : d >= high ? INT64_MAX : (int64_t)d;
}

static int32_t whole32(double d)
{
    return d != d ? 0 : d <= INT32_MIN ? INT32_MIN : d >= INT32_MAX ? INT32_MAX : (int32_t)d;
}

#define EACH(T, expression)                                                                        \
    for (uint64_t i = 0; i < n; i++) {                                                             \
        T x;                                                                                       \
        memcpy(&x, (const char *)in + i * sizeof x, sizeof x);                                     \
        expression;                                                                                \
    }                                                                                              \
    break

#define TO(T, from_float, from_int)                                                                \
    switch (from) {                                                                                \
    case PERI_TENSOR_F32:                                                                          \
        EACH(float, ((T *)out)[i] = (T)(from_float));                                              \
    case PERI_TENSOR_F64:                                                                          \
        EACH(double, ((T *)out)[i] = (T)(from_float));                                             \
    case PERI_TENSOR_I32:                                                                          \
        EACH(int32_t, ((T *)out)[i] = (T)(from_int));                                              \
    default:                                                                                       \
        EACH(int64_t, ((T *)out)[i] = (T)(from_int));                                              \
    }                                                                                              \
    break

void pe_tensor_convert(uint32_t to, void *out, uint32_t from, const void *in, uint64_t n)
{
    if (to == from) {
        if (n)
            memcpy(out, in, (size_t)n * peri_tensor_element(to));
        return;
    }
    switch (to) {
    case PERI_TENSOR_F32:
        TO(float, x, x);
    case PERI_TENSOR_F64:
        TO(double, x, x);
    case PERI_TENSOR_I32:
        TO(int32_t, whole32((double)x), x < INT32_MIN ? INT32_MIN : x > INT32_MAX ? INT32_MAX : x);
    default:
        TO(int64_t, whole((double)x, -0x1p63, 0x1p63), x);
    }
}
