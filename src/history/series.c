#include "history/series.h"
#include "base/checked.h"
#include "persist/bytes.h"

/* Block: u32 n, u8 mode of values, u8 exponent, u16 zero, u32 size of the sequences' column, u32 of
 * the times', u32 of the values', u32 number of exceptions; then the values (raw ones therefore lie
 * at 24), the sequences, the times, the exceptions (u16 index each, then their 8 bytes each). */
enum { HEAD = 24, GROUP = 128, EXPONENTS = 16 };

static const double powers[EXPONENTS] = {1,   1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                         1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

/* ---- whole numbers ---- */

static unsigned width_of(uint64_t v)
{
    return v ? 64 - (unsigned)__builtin_clzll(v) : 0;
}

static size_t put_varint(unsigned char *out, uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        out[n++] = (unsigned char)(v | 0x80);
    out[n++] = (unsigned char)v;
    return n;
}

static int get_varint(const unsigned char *b, size_t size, size_t *at, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (*at >= size)
            return 0;
        unsigned char c = b[(*at)++];
        *v |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80))
            return 1;
    }
    return 0;
}

static uint64_t zigzag(uint64_t v)
{
    return v << 1 ^ (v >> 63 ? UINT64_MAX : 0);
}

static uint64_t unzigzag(uint64_t v)
{
    return v >> 1 ^ (v & 1 ? UINT64_MAX : 0);
}

/* n numbers of `width` bits from bit 0 of out on; out has 8 bytes to spare. Two loads where a
 * number may lie across nine bytes. */
static void put_bits(unsigned char *out, const uint64_t *v, size_t n, uint64_t base, unsigned width)
{
    memset(out, 0, (n * width + 7) / 8 + 8);
    for (size_t i = 0, bit = 0; i < n; i++, bit += width) {
        uint64_t x = v[i] - base;
        unsigned char *p = out + bit / 8;
        unsigned shift = bit % 8;
        pe_put_le64(p, pe_get_le64(p) | x << shift);
        if (shift + width > 64)
            p[8] = (unsigned char)(x >> (64 - shift));
    }
}

static void get_bits(const unsigned char *b, uint64_t *v, size_t n, uint64_t base, unsigned width)
{
    uint64_t mask = width == 64 ? UINT64_MAX : ((uint64_t)1 << width) - 1;
    if (width <= 56) {
        for (size_t i = 0, bit = 0; i < n; i++, bit += width)
            v[i] = base + (pe_get_le64(b + bit / 8) >> bit % 8 & mask);
        return;
    }
    for (size_t i = 0, bit = 0; i < n; i++, bit += width) {
        unsigned shift = bit % 8;
        uint64_t x = pe_get_le64(b + bit / 8) >> shift;
        if (shift)
            x |= (uint64_t)b[bit / 8 + 8] << (64 - shift);
        v[i] = base + (x & mask);
    }
}

/* Differences in place, last first, so that each finds its neighbour still whole. */
static void differ(uint64_t *v, size_t n)
{
    for (size_t i = n; i-- > 1;)
        v[i] -= v[i - 1];
}

static void sum_up(uint64_t *v, size_t n)
{
    for (size_t i = 1; i < n; i++)
        v[i] += v[i - 1];
}

static uint64_t lowest_signed(const uint64_t *v, size_t n)
{
    int64_t low = (int64_t)v[0];
    for (size_t i = 1; i < n; i++)
        if ((int64_t)v[i] < low)
            low = (int64_t)v[i];
    return (uint64_t)low;
}

/* Groups: varint of the base, a byte of width, the bits. v is destroyed. Returns the size. */
static size_t put_groups(unsigned char *out, const uint64_t *v, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i += GROUP) {
        size_t part = n - i < GROUP ? n - i : GROUP;
        uint64_t base = lowest_signed(v + i, part), top = 0;
        for (size_t k = 0; k < part; k++)
            top |= v[i + k] - base;
        unsigned width = width_of(top);
        at += put_varint(out + at, zigzag(base));
        out[at++] = (unsigned char)width;
        put_bits(out + at, v + i, part, base, width);
        at += (part * width + 7) / 8;
    }
    return at;
}

/* What a column would take, without writing it. */
static size_t groups_size(const uint64_t *v, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i += GROUP) {
        size_t part = n - i < GROUP ? n - i : GROUP;
        uint64_t base = lowest_signed(v + i, part), top = 0;
        for (size_t k = 0; k < part; k++)
            top |= v[i + k] - base;
        size += 2 + (width_of(zigzag(base)) + 6) / 7 + (part * width_of(top) + 7) / 8;
    }
    return size;
}

/* The first and second value stand as they are (varints), so that they do not widen their group. */
static size_t put_whole(unsigned char *out, uint64_t *v, size_t n)
{
    size_t at = 0, plain = groups_size(v, n);
    unsigned order = 0;
    differ(v, n);
    if (n > 1 && groups_size(v + 1, n - 1) + 10 < plain) {
        order = 1;
        size_t once = groups_size(v + 1, n - 1);
        differ(v + 1, n - 1);
        if (n > 2 && groups_size(v + 2, n - 2) + 10 < once)
            order = 2;
        else
            sum_up(v + 1, n - 1);
    } else {
        sum_up(v, n);
    }
    out[at++] = (unsigned char)order;
    for (unsigned i = 0; i < order; i++)
        at += put_varint(out + at, zigzag(v[i]));
    return at + put_groups(out + at, v + order, n - order);
}

static int get_whole(const unsigned char *b, size_t size, uint64_t *v, size_t n)
{
    size_t at = 1;
    unsigned order = size ? b[0] : 3;
    if (order > 2 || order > n)
        return 0;
    for (unsigned i = 0; i < order; i++) {
        if (!get_varint(b, size, &at, &v[i]))
            return 0;
        v[i] = unzigzag(v[i]);
    }
    for (size_t i = order; i < n; i += GROUP) {
        size_t part = n - i < GROUP ? n - i : GROUP;
        uint64_t base;
        if (!get_varint(b, size, &at, &base) || at >= size || b[at] > 64)
            return 0;
        unsigned width = b[at++];
        size_t bytes = (part * width + 7) / 8;
        if (bytes > size - at)
            return 0;
        if (size - at - bytes >= 9) {
            get_bits(b + at, v + i, part, unzigzag(base), width);
        } else { /* get_bits reads past the end of the bits */
            unsigned char tail[GROUP * 8 + 16] = {0};
            memcpy(tail, b + at, bytes);
            get_bits(tail, v + i, part, unzigzag(base), width);
        }
        at += bytes;
    }
    if (order == 2)
        sum_up(v + 1, n - 1);
    if (order >= 1)
        sum_up(v, n);
    return at == size;
}

/* ---- doubles ---- */

static double as_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static uint64_t as_bits(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

/* 1 when the value is i / 10^e to the bit. */
static int decimal(uint64_t bits, unsigned e, int64_t *i)
{
    double scaled = as_double(bits) * powers[e];
    if (!(scaled > -0x1p53 && scaled < 0x1p53)) /* NaN too */
        return 0;
    *i = (int64_t)(scaled + (scaled < 0 ? -0.5 : 0.5));
    return as_bits((double)*i / powers[e]) == bits;
}

/* The least exponent under which the fewest of a sample are no decimals. */
static unsigned find_exponent(const uint64_t *v, size_t n)
{
    unsigned best = 0;
    size_t step = n / 64 + 1, best_bad = SIZE_MAX;
    for (unsigned e = 0; e < EXPONENTS && best_bad; e++) {
        size_t bad = 0;
        int64_t i;
        for (size_t k = 0; k < n; k += step)
            bad += !decimal(v[k], e, &i);
        if (bad < best_bad) {
            best_bad = bad;
            best = e;
        }
    }
    return best;
}

/* 0 where more than a sixteenth are exceptions. *extra gets their number; they stand at `tail`. */
static size_t put_decimal(unsigned char *out, const uint64_t *v, size_t n, unsigned e,
                          unsigned char *tail, size_t *extra)
{
    uint64_t whole[PE_SERIES_MAX];
    uint16_t at[PE_SERIES_MAX / 16 + 1];
    *extra = 0;
    for (size_t k = 0; k < n; k++) {
        int64_t i = k ? (int64_t)whole[k - 1] : 0;
        if (!decimal(v[k], e, &i)) {
            if (*extra == n / 16 + (n < 16))
                return 0;
            at[(*extra)++] = (uint16_t)k;
            i = k ? (int64_t)whole[k - 1] : 0;
        }
        whole[k] = (uint64_t)i;
    }
    for (size_t k = 0; k < *extra; k++) {
        pe_put_le16(tail + 2 * k, at[k]);
        pe_put_le64(tail + 2 * *extra + 8 * k, v[at[k]]);
    }
    return put_whole(out, whole, n);
}

typedef struct bits {
    unsigned char *out;
    size_t room, at; /* bits */
    int full;
} bits;

static void put(bits *b, uint64_t v, unsigned width)
{
    if (b->at + width > b->room) {
        b->full = 1;
        return;
    }
    for (unsigned done = 0; done < width;) {
        unsigned shift = b->at % 8, part = 8 - shift < width - done ? 8 - shift : width - done;
        unsigned char piece = (unsigned char)((v >> done & ((1u << part) - 1)) << shift);
        b->out[b->at / 8] = (unsigned char)((shift ? b->out[b->at / 8] : 0) | piece);
        b->at += part;
        done += part;
    }
}

/* 0 where it takes as much as the raw values. A value: bit 0 = same as before; 1 then 0 = within
 * the former window; 1 then 1 = a new window: 6 bits leading zeros, 6 bits width - 1. */
static size_t put_xor(unsigned char *out, const uint64_t *v, size_t n)
{
    bits b = {out, n * 64, 0, 0};
    unsigned lead = 0, width = 0;
    put(&b, v[0], 64);
    for (size_t k = 1; k < n && !b.full; k++) {
        uint64_t x = v[k] ^ v[k - 1];
        put(&b, x != 0, 1);
        if (x == 0)
            continue;
        unsigned l = (unsigned)__builtin_clzll(x), t = (unsigned)__builtin_ctzll(x);
        int fits = width && l >= lead && t >= 64 - lead - width;
        put(&b, !fits, 1);
        if (!fits) {
            lead = l;
            width = 64 - l - t;
            put(&b, lead, 6);
            put(&b, width - 1, 6);
        }
        put(&b, x >> (64 - lead - width), width);
    }
    return b.full ? 0 : (b.at + 7) / 8;
}

typedef struct bits_in {
    const unsigned char *b;
    size_t size, at; /* bits */
    int short_of;
} bits_in;

static uint64_t get(bits_in *in, unsigned width)
{
    if (in->size - in->at < width) {
        in->short_of = 1;
        return 0;
    }
    uint64_t v;
    size_t byte = in->at / 8;
    unsigned shift = in->at % 8;
    if (in->size / 8 - byte >= 9) {
        v = pe_get_le64(in->b + byte) >> shift;
        if (shift)
            v |= (uint64_t)in->b[byte + 8] << (64 - shift);
    } else {
        v = 0;
        for (unsigned i = 0; i < width; i++) {
            size_t bit = in->at + i;
            v |= (uint64_t)(in->b[bit / 8] >> bit % 8 & 1) << i;
        }
    }
    in->at += width;
    return width == 64 ? v : v & (((uint64_t)1 << width) - 1);
}

static int get_xor(const unsigned char *b, size_t size, uint64_t *v, size_t n)
{
    bits_in in = {b, size * 8, 0, 0};
    unsigned lead = 0, width = 0;
    v[0] = get(&in, 64);
    for (size_t k = 1; k < n; k++) {
        v[k] = v[k - 1];
        if (!get(&in, 1))
            continue;
        if (get(&in, 1)) {
            lead = (unsigned)get(&in, 6);
            width = (unsigned)get(&in, 6) + 1;
        }
        if (in.short_of || width == 0 || lead + width > 64)
            return 0;
        v[k] ^= get(&in, width) << (64 - lead - width);
    }
    return !in.short_of && (in.at + 7) / 8 == size;
}

/* ---- blocks ---- */

static size_t put_raw(unsigned char *out, const uint64_t *v, size_t n)
{
    for (size_t k = 0; k < n; k++)
        pe_put_le64(out + 8 * k, v[k]);
    return n * 8;
}

/* The column of values at `out`; *mode, *e, *extra say how. Exceptions stand at `tail`. */
static size_t put_values(unsigned char *out, const uint64_t *v, size_t n, int whole,
                         unsigned char *tail, unsigned *mode, unsigned *e, size_t *extra)
{
    uint64_t copy[PE_SERIES_MAX];
    *extra = 0;
    *e = 0;
    if (whole) {
        memcpy(copy, v, n * sizeof *v);
        *mode = PE_SERIES_WHOLE;
        return put_whole(out, copy, n);
    }
    *mode = PE_SERIES_DECIMAL;
    *e = find_exponent(v, n);
    size_t size = put_decimal(out, v, n, *e, tail, extra);
    if (size && size + *extra * 10 < n * 4)
        return size;
    /* Decimals of many digits: the other way may do better. */
    unsigned char other[PE_SERIES_MAX * 8 + 16];
    size_t xored = put_xor(other, v, n);
    if (xored && (!size || xored < size + *extra * 10)) {
        memcpy(out, other, xored);
        *mode = PE_SERIES_XOR;
        *extra = 0;
        return xored;
    }
    if (size && size + *extra * 10 < n * 8)
        return size;
    *extra = 0;
    *mode = PE_SERIES_RAW;
    return put_raw(out, v, n);
}

size_t pe_series_pack(unsigned char *out, size_t n, const uint64_t *sequences, const int64_t *times,
                      const uint64_t *values, int whole, int compress)
{
    uint64_t copy[PE_SERIES_MAX];
    unsigned char tail[10 * (PE_SERIES_MAX / 16 + 1)];
    unsigned mode = PE_SERIES_RAW, e = 0;
    size_t extra = 0, at = HEAD;
    memset(out, 0, HEAD);
    size_t size = compress ? put_values(out + at, values, n, whole, tail, &mode, &e, &extra)
                           : put_raw(out + at, values, n);
    pe_put_le32(out + 16, (uint32_t)size);
    at += size;
    memcpy(copy, sequences, n * sizeof *copy);
    size = put_whole(out + at, copy, n);
    pe_put_le32(out + 8, (uint32_t)size);
    at += size;
    memcpy(copy, times, n * sizeof *copy);
    size = put_whole(out + at, copy, n);
    pe_put_le32(out + 12, (uint32_t)size);
    at += size;
    memcpy(out + at, tail, extra * 10);
    pe_put_le32(out, (uint32_t)n);
    out[4] = (unsigned char)mode;
    out[5] = (unsigned char)e;
    pe_put_le32(out + 20, (uint32_t)extra);
    return at + extra * 10;
}

size_t pe_series_count(const unsigned char *block, size_t size)
{
    if (size < HEAD)
        return 0;
    size_t n = pe_get_le32(block);
    uint64_t sum = HEAD + (uint64_t)pe_get_le32(block + 8) + pe_get_le32(block + 12) +
                   pe_get_le32(block + 16) + (uint64_t)pe_get_le32(block + 20) * 10;
    int raw = block[4] == PE_SERIES_RAW;
    return n <= PE_SERIES_MAX && sum == size && block[4] <= PE_SERIES_WHOLE &&
                   block[5] < EXPONENTS && (!raw || pe_get_le32(block + 16) == n * 8)
               ? n
               : 0;
}

const void *pe_series_raw(const unsigned char *block, size_t size)
{
    return pe_series_count(block, size) && block[4] == PE_SERIES_RAW ? block + HEAD : NULL;
}

static int get_decimal(const unsigned char *block, size_t size, const unsigned char *column,
                       size_t column_size, uint64_t *v, size_t n)
{
    double scale = powers[block[5]];
    size_t extra = pe_get_le32(block + 20);
    const unsigned char *tail = block + size - extra * 10;
    if (!get_whole(column, column_size, v, n))
        return 0;
    for (size_t k = 0; k < n; k++)
        v[k] = as_bits((double)(int64_t)v[k] / scale);
    for (size_t k = 0; k < extra; k++) {
        uint16_t at = pe_get_le16(tail + 2 * k);
        if (at >= n)
            return 0;
        v[at] = pe_get_le64(tail + 2 * extra + 8 * k);
    }
    return 1;
}

static int get_values(const unsigned char *block, size_t size, const unsigned char *column,
                      size_t column_size, uint64_t *v, size_t n)
{
    switch (block[4]) {
    case PE_SERIES_RAW:
        for (size_t k = 0; k < n; k++)
            v[k] = pe_get_le64(column + 8 * k);
        return 1;
    case PE_SERIES_DECIMAL:
        return get_decimal(block, size, column, column_size, v, n);
    case PE_SERIES_XOR:
        return get_xor(column, column_size, v, n);
    default:
        return get_whole(column, column_size, v, n);
    }
}

peri_status pe_series_unpack(const unsigned char *block, size_t size, uint64_t *sequences,
                             int64_t *times, uint64_t *values)
{
    size_t n = pe_series_count(block, size);
    if (n == 0)
        return pe_fail(PERI_ERR_CORRUPT, "a block of a series makes no sense");
    size_t n_seq = pe_get_le32(block + 8), n_time = pe_get_le32(block + 12);
    size_t n_value = pe_get_le32(block + 16);
    const unsigned char *column = block + HEAD;
    int good = !values || get_values(block, size, column, n_value, values, n);
    column += n_value;
    good = good && (!sequences || get_whole(column, n_seq, sequences, n));
    column += n_seq;
    good = good && (!times || get_whole(column, n_time, (uint64_t *)times, n));
    return good ? PERI_OK : pe_fail(PERI_ERR_CORRUPT, "a column of a series makes no sense");
}
