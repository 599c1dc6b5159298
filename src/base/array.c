#include "base/array.h"
#include "base/checked.h"

enum { CHUNK_BYTES = 16 * PE_HUGE, FIRST_RECORDS = 16 };

void pe_array_init(pe_array *a, pe_host *host, size_t stride)
{
    memset(a, 0, sizeof *a);
    a->host = host;
    a->stride = stride;
    while ((stride << (a->shift + 1)) <= CHUNK_BYTES && a->shift < 20)
        a->shift++;
    if (a->shift < 4)
        a->shift = 4; /* rows of 256 KiB: sixteen a chunk keep the table short */
    a->mask = (1u << a->shift) - 1;
}

static size_t chunk_records(const pe_array *a, size_t chunk, size_t capacity)
{
    size_t full = (size_t)a->mask + 1, first = chunk << a->shift;
    return capacity - first < full ? capacity - first : full;
}

static size_t chunk_bytes(const pe_array *a, size_t records)
{
    return records * a->stride;
}

static void free_chunk(pe_array *a, unsigned char *p, size_t records)
{
    pe_free(a->host, p, chunk_bytes(a, records));
}

void pe_array_destroy(pe_array *a)
{
    unsigned char **chunks = atomic_load_explicit(&a->chunks, memory_order_relaxed);
    for (size_t c = a->n_borrowed; c < a->n_chunks; c++)
        free_chunk(a, chunks[c], chunk_records(a, c, a->capacity));
    pe_free(a->host, chunks, a->table_room * sizeof *chunks);
    atomic_store_explicit(&a->chunks, NULL, memory_order_relaxed);
    a->table_room = a->n_chunks = a->n_borrowed = a->capacity = 0;
}

/* A chunk starts on a huge page where it fills one, and is rounded to whole cache lines by the
 * allocator's alignment; strides keep records aligned inside. */
static unsigned char *new_chunk(pe_array *a, size_t records)
{
    size_t bytes = chunk_bytes(a, records);
    unsigned char *p = pe_alloc_aligned(a->host, bytes, bytes >= PE_HUGE / 2 ? PE_HUGE : PE_ALIGN);
    if (p)
        memset(p, 0, bytes);
    return p;
}

/* A copy of the table with room for `chunks` pointers. Readers of the old one go on with the old
 * pointers: entries that a reader may use are never overwritten in place. */
static unsigned char **copy_table(pe_array *a, size_t chunks, size_t *room)
{
    *room = a->table_room ? a->table_room : 4;
    while (*room < chunks)
        *room *= 2;
    unsigned char **fresh = pe_calloc(a->host, *room * sizeof *fresh);
    unsigned char **old = atomic_load_explicit(&a->chunks, memory_order_relaxed);
    if (fresh && old)
        memcpy(fresh, old, a->n_chunks * sizeof *fresh);
    return fresh;
}

static void publish_table(pe_array *a, pe_epoch *e, unsigned char **fresh, size_t room)
{
    unsigned char **old = atomic_load_explicit(&a->chunks, memory_order_relaxed);
    atomic_store_explicit(&a->chunks, fresh, memory_order_release);
    pe_epoch_retire_memory(e, old, a->table_room * sizeof *old);
    a->table_room = room;
}

/* Give the last, short chunk `want` records. */
static peri_status widen_last(pe_array *a, pe_epoch *e, size_t want)
{
    size_t c = a->n_chunks - 1, have = chunk_records(a, c, a->capacity), room;
    if (have >= want)
        return PERI_OK;
    PE_TRY(pe_epoch_reserve(e, 2));
    unsigned char *chunk = new_chunk(a, want);
    unsigned char **table = chunk ? copy_table(a, a->n_chunks, &room) : NULL;
    if (!table) {
        if (chunk)
            free_chunk(a, chunk, want);
        return PERI_ERR_NOMEM;
    }
    unsigned char *old = table[c];
    memcpy(chunk, old, chunk_bytes(a, have));
    table[c] = chunk;
    publish_table(a, e, table, room);
    pe_epoch_retire_memory(e, old, chunk_bytes(a, have));
    a->capacity = (c << a->shift) + want;
    return PERI_OK;
}

static peri_status append_chunk(pe_array *a, pe_epoch *e, size_t records)
{
    if (a->n_chunks == a->table_room) {
        size_t room;
        PE_TRY(pe_epoch_reserve(e, 1));
        unsigned char **table = copy_table(a, a->n_chunks + 1, &room);
        if (!table)
            return PERI_ERR_NOMEM;
        publish_table(a, e, table, room);
    }
    unsigned char *chunk = new_chunk(a, records);
    if (!chunk)
        return PERI_ERR_NOMEM;
    atomic_load_explicit(&a->chunks, memory_order_relaxed)[a->n_chunks++] = chunk;
    a->capacity += records;
    return PERI_OK;
}

peri_status pe_array_reserve(pe_array *a, pe_epoch *e, size_t n, int exact)
{
    size_t full = (size_t)a->mask + 1, bytes;
    if (n <= a->capacity)
        return PERI_OK;
    if (pe_add_size(n, full, &bytes) || pe_mul_size(bytes, a->stride, &bytes))
        return pe_fail(PERI_ERR_NOMEM, "%zu records of %zu bytes overflow", n, a->stride);
    size_t last = (n - 1) >> a->shift;
    size_t tail = n - (last << a->shift); /* records wanted in the last chunk */
    if (!exact) { /* an eighth more than there is now: little is copied, little lies idle */
        size_t spare = a->capacity / 8 > FIRST_RECORDS ? a->capacity / 8 : FIRST_RECORDS;
        tail = tail + spare < full ? tail + spare : full;
    }
    /* What an early failure has added by then is spare room, no harm. */
    if (a->n_chunks)
        PE_TRY(widen_last(a, e, a->n_chunks - 1 == last ? tail : full));
    while (a->n_chunks <= last)
        PE_TRY(append_chunk(a, e, a->n_chunks == last ? tail : full));
    return PERI_OK;
}

peri_status pe_array_borrow(pe_array *a, unsigned char *data, size_t n, int grow)
{
    size_t full = (size_t)a->mask + 1;
    size_t whole = n >> a->shift, tail = n & a->mask;
    size_t count = whole + (tail != 0);
    if (count == 0)
        return PERI_OK;
    unsigned char **chunks = pe_calloc(a->host, count * sizeof *chunks);
    if (!chunks)
        return PERI_ERR_NOMEM;
    for (size_t c = 0; c < count; c++)
        chunks[c] = data + c * full * a->stride;
    a->n_borrowed = count;
    if (tail && grow) {
        unsigned char *copy = new_chunk(a, tail);
        if (!copy) {
            pe_free(a->host, chunks, count * sizeof *chunks);
            a->n_borrowed = 0;
            return PERI_ERR_NOMEM;
        }
        memcpy(copy, chunks[whole], chunk_bytes(a, tail));
        chunks[whole] = copy;
        a->n_borrowed = whole;
    }
    a->table_room = a->n_chunks = count;
    a->capacity = n;
    atomic_store_explicit(&a->chunks, chunks, memory_order_release);
    return PERI_OK;
}

peri_status pe_array_lend(pe_array *a, pe_epoch *e, unsigned char *data, size_t n)
{
    size_t full = (size_t)a->mask + 1, count = (n >> a->shift) + ((n & a->mask) != 0), room;
    unsigned char **table = atomic_load_explicit(&a->chunks, memory_order_relaxed);
    if (n <= a->capacity && (a->n_chunks == 0 || table[0] == data))
        return PERI_OK;
    if (count > a->table_room || (a->n_chunks && table[0] != data)) {
        PE_TRY(pe_epoch_reserve(e, 1));
        unsigned char **fresh = copy_table(a, count, &room);
        if (!fresh)
            return PERI_ERR_NOMEM;
        for (size_t c = 0; c < count; c++)
            fresh[c] = data + c * full * a->stride;
        publish_table(a, e, fresh, room);
    } else {
        for (size_t c = a->n_chunks; c < count; c++)
            table[c] = data + c * full * a->stride; /* no published record lies there yet */
    }
    a->n_chunks = a->n_borrowed = count;
    a->capacity = n;
    return PERI_OK;
}

size_t pe_array_bytes(const pe_array *a)
{
    size_t first = a->n_borrowed << a->shift;
    return a->capacity > first ? (a->capacity - first) * a->stride : 0;
}
