#include "log/log_names.h"

#include <stdarg.h>
#include <stdio.h>

peri_status pe_name_key_of(pe_name_key *k, const char *head, const peri_slice *parts, size_t n)
{
    static const char hex[] = "0123456789ABCDEF";
    k->size = (size_t)snprintf(k->text, sizeof k->text, "%s", head);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *b = parts[i].data;
        if (!b || parts[i].size == 0 || parts[i].size > PE_NAME_MAX)
            return pe_fail(PERI_ERR_ARG, "a name of %zu bytes, expected 1 to %d", parts[i].size,
                           PE_NAME_MAX);
        k->text[k->size++] = '/';
        for (size_t c = 0; c < parts[i].size; c++) {
            if (b[c] == '/' || b[c] == '%') {
                k->text[k->size++] = '%';
                k->text[k->size++] = hex[b[c] >> 4];
                k->text[k->size++] = hex[b[c] & 15];
            } else {
                k->text[k->size++] = (char)b[c];
            }
        }
    }
    return PERI_OK;
}

void pe_name_key_add(pe_name_key *k, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(k->text + k->size, sizeof k->text - k->size, format, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof k->text - k->size)
        k->size += (size_t)n;
}

static int digit(unsigned char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 0;
}

size_t pe_name_part(peri_slice key, size_t skip, char *out)
{
    const unsigned char *b = key.data;
    size_t n = 0;
    for (size_t i = skip; i < key.size && b[i] != '/' && n < PE_NAME_MAX; i++) {
        if (b[i] == '%' && i + 2 < key.size) {
            out[n++] = (char)(digit(b[i + 1]) << 4 | digit(b[i + 2]));
            i += 2;
        } else {
            out[n++] = (char)b[i];
        }
    }
    out[n] = '\0';
    return n;
}
