/* .npy, versions 1 to 3, arrays of one or two dimensions in C order.
 *
 *  offset  size  what
 *  0       6     \x93NUMPY
 *  6       2     version: major, minor
 *  8       2|4   bytes of the header that follows: u16 in version 1, u32 in 2 and 3
 *  10|12   -     a Python dictionary: descr, fortran_order, shape; padded with spaces, ends in \n
 *  ...           the elements
 *
 * The header is read by a parser for just this dictionary; object arrays (pickles, which run code)
 * and records are refused. */
#include "base/checked.h"
#include "io/element.h"
#include "io/matrix.h"

#include <ctype.h>
#include <stdio.h>

enum { HEADER_MAX = 65536, WRITTEN_HEADER = 128 };

typedef struct npy_header {
    char descr[8];
    int fortran; /* -1 = not seen */
    int n_shape; /* -1 = not seen */
    uint64_t shape[2];
} npy_header;

/* ---- the dictionary ---- */

typedef struct cursor {
    const char *at, *end;
} cursor;

static char peek(cursor *c)
{
    while (c->at < c->end && isspace((unsigned char)*c->at))
        c->at++;
    return c->at < c->end ? *c->at : 0;
}

static int take(cursor *c, char want)
{
    if (peek(c) != want || c->at == c->end)
        return 0;
    c->at++;
    return 1;
}

/* A quoted string without escapes. Too long a one is cut: it equals nothing that we look for. */
static int take_string(cursor *c, char *out, size_t room)
{
    char quote = peek(c);
    size_t n = 0;
    if (quote != '\'' && quote != '"')
        return 0;
    for (c->at++; c->at < c->end && *c->at != quote; c->at++)
        if (n + 1 < room)
            out[n++] = *c->at;
    out[n] = 0;
    return take(c, quote);
}

static int take_word(cursor *c, const char *word)
{
    size_t n = strlen(word);
    (void)peek(c);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n) != 0)
        return 0;
    c->at += n;
    return 1;
}

static int take_number(cursor *c, uint64_t *out)
{
    if (!isdigit((unsigned char)peek(c)))
        return 0;
    for (*out = 0; c->at < c->end && isdigit((unsigned char)*c->at); c->at++)
        if (__builtin_mul_overflow(*out, 10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(*c->at - '0'), out))
            return 0;
    (void)take(c, 'L'); /* written by Python 2 */
    return 1;
}

static int take_shape(cursor *c, npy_header *h)
{
    if (!take(c, '('))
        return 0;
    for (h->n_shape = 0; !take(c, ')'); h->n_shape++) {
        uint64_t n;
        if (h->n_shape && !take(c, ','))
            return 0;
        if (take(c, ')')) /* the comma after the last */
            return 1;
        if (!take_number(c, &n))
            return 0;
        if (h->n_shape < 2)
            h->shape[h->n_shape] = n;
    }
    return 1;
}

static int take_entry(cursor *c, npy_header *h)
{
    char key[16];
    if (!take_string(c, key, sizeof key) || !take(c, ':'))
        return 0;
    if (strcmp(key, "descr") == 0)
        return take_string(c, h->descr, sizeof h->descr);
    if (strcmp(key, "fortran_order") == 0) {
        h->fortran = take_word(c, "True") ? 1 : take_word(c, "False") ? 0 : -1;
        return h->fortran >= 0;
    }
    return strcmp(key, "shape") == 0 && take_shape(c, h);
}

static int parse_header(const char *text, size_t n, npy_header *h)
{
    cursor c = {text, text + n};
    *h = (npy_header){.fortran = -1, .n_shape = -1};
    if (!take(&c, '{'))
        return 0;
    while (!take(&c, '}')) {
        if (!take_entry(&c, h))
            return 0;
        if (!take(&c, ',') && peek(&c) != '}')
            return 0;
    }
    return peek(&c) == 0 && *h->descr && h->fortran >= 0 && h->n_shape >= 0;
}

/* ---- descr ---- */

static const struct {
    char code[3];
    uint16_t element;
} codes[] = {{"f2", PERI_ELEMENT_F16}, {"f4", PERI_ELEMENT_F32}, {"f8", PERI_ELEMENT_F64},
             {"i1", PERI_ELEMENT_I8},  {"u1", PERI_ELEMENT_U8},  {"i2", PERI_ELEMENT_I16},
             {"u2", PERI_ELEMENT_U16}, {"i4", PERI_ELEMENT_I32}, {"u4", PERI_ELEMENT_U32},
             {"i8", PERI_ELEMENT_I64}, {"u8", PERI_ELEMENT_U64}};

static peri_status element_of(peri_matrix *m, const char *descr, uint32_t *element)
{
    *element = 0;
    if (strchr("<>|=", descr[0]))
        for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
            if (strcmp(descr + 1, codes[i].code) == 0)
                *element = codes[i].element;
    if (!*element)
        return pe_fail(PERI_ERR_UNSUPPORTED,
                       "%s: elements are '%s', expected f2 f4 f8 i1 u1 i2 u2 i4 u4 i8 or u8",
                       m->path, descr);
    m->swap = descr[0] == '>' && pe_element_size(*element) > 1;
    return PERI_OK;
}

static peri_status npy_read(peri_matrix *m, uint64_t first_row, size_t n, void *raw)
{
    PE_TRY(pe_file_read(&m->file, raw, n * m->row_bytes, m->data_at + first_row * m->row_bytes));
    if (m->swap)
        pe_element_swap(pe_element_size(m->info.element), raw, n * m->info.dim);
    return PERI_OK;
}

static peri_status npy_write(peri_matrix *m, size_t n, const void *raw)
{
    return pe_file_write(&m->file, raw, n * m->row_bytes, m->data_at + m->info.rows * m->row_bytes);
}

static peri_status npy_finish(peri_matrix *m)
{
    char head[WRITTEN_HEADER], text[WRITTEN_HEADER];
    const char *code = "";
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].element == m->info.element)
            code = codes[i].code;
    int n = snprintf(
        text, sizeof text, "{'descr': '%c%s', 'fortran_order': False, 'shape': (%llu, %u), }",
        code[1] == '1' ? '|' : '<', code, (unsigned long long)m->info.rows, m->info.dim);
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    head[8] = WRITTEN_HEADER - 10;
    head[9] = 0;
    memcpy(head + 10, text, (size_t)n);
    head[WRITTEN_HEADER - 1] = '\n';
    return pe_file_write(&m->file, head, sizeof head, 0);
}

static const pe_matrix_ops npy_ops = {npy_read, npy_write, npy_finish, NULL};

/* Read the header's text into *text of *size bytes (to be freed), and find where data begins. */
static peri_status load_header(peri_matrix *m, char **text, size_t *size)
{
    unsigned char head[12];
    if (m->file_size < sizeof head)
        return pe_fail(PERI_ERR_CORRUPT, "%s: %llu bytes, expected the %zu of a .npy header",
                       m->path, (unsigned long long)m->file_size, sizeof head);
    PE_TRY(pe_file_read(&m->file, head, sizeof head, 0));
    if (memcmp(head, "\x93NUMPY", 6) != 0)
        return pe_fail(PERI_ERR_FORMAT, "%s: no .npy magic at offset 0", m->path);
    if (head[6] < 1 || head[6] > 3)
        return pe_fail(PERI_ERR_VERSION, "%s: .npy version %u.%u, expected 1 to 3", m->path,
                       head[6], head[7]);
    uint64_t at = head[6] == 1 ? 10 : 12, n = head[8] | (uint64_t)head[9] << 8;
    if (head[6] != 1)
        n |= (uint64_t)head[10] << 16 | (uint64_t)head[11] << 24;
    if (n > HEADER_MAX || n > m->file_size - at)
        return pe_fail(PERI_ERR_CORRUPT,
                       "%s: header of %llu bytes at offset %llu, the file has %llu and %d are read",
                       m->path, (unsigned long long)n, (unsigned long long)at,
                       (unsigned long long)m->file_size, HEADER_MAX);
    m->data_at = at + n;
    *text = pe_alloc(&m->host, n);
    *size = n;
    if (!*text)
        return PERI_ERR_NOMEM;
    return pe_file_read(&m->file, *text, n, at);
}

/* Hold the stated shape against the file's size. */
static peri_status take_header(peri_matrix *m, const npy_header *h)
{
    uint32_t element;
    size_t bytes;
    PE_TRY(element_of(m, h->descr, &element));
    if (h->fortran)
        return pe_fail(PERI_ERR_UNSUPPORTED, "%s: fortran_order is True, expected C order",
                       m->path);
    if (h->n_shape < 1 || h->n_shape > 2)
        return pe_fail(PERI_ERR_UNSUPPORTED, "%s: array of %d dimensions, expected 1 or 2", m->path,
                       h->n_shape);
    uint64_t rows = h->shape[0], dim = h->n_shape == 2 ? h->shape[1] : 1;
    uint64_t there = m->file_size - m->data_at;
    if (pe_mul_size(rows, dim, &bytes) || pe_mul_size(bytes, pe_element_size(element), &bytes) ||
        bytes != there)
        return pe_fail(
            PERI_ERR_CORRUPT, "%s: %llu bytes from offset %llu on do not make %llu rows of %llu %s",
            m->path, (unsigned long long)there, (unsigned long long)m->data_at,
            (unsigned long long)rows, (unsigned long long)dim, peri_matrix_element_name(element));
    return pe_matrix_shape(m, rows, dim, element, PERI_ERR_FORMAT);
}

peri_status pe_npy_open(peri_matrix *m)
{
    char *text = NULL;
    size_t size = 0;
    npy_header h;
    m->ops = &npy_ops;
    peri_status status = load_header(m, &text, &size);
    if (status == PERI_OK && !parse_header(text, size, &h))
        status = pe_fail(PERI_ERR_FORMAT,
                         "%s: the header is no plain array's: {'descr': '..', 'fortran_order': "
                         "False, 'shape': (rows, dim)} expected",
                         m->path);
    pe_free(&m->host, text, size);
    return status == PERI_OK ? take_header(m, &h) : status;
}

peri_status pe_npy_create(peri_matrix *m)
{
    m->ops = &npy_ops;
    m->data_at = WRITTEN_HEADER;
    return PERI_OK;
}
