/* Keys of the layers on top of the log: parts joined by '/', the parts that users name escaped, so
 * that a name with a slash stays one part. */
#ifndef PE_LOG_NAMES_H
#define PE_LOG_NAMES_H

#include "log/log_parts.h"

enum { PE_NAME_MAX = 255, PE_NAME_KEY = 2560 };

typedef struct pe_name_key {
    char text[PE_NAME_KEY];
    size_t size;
} pe_name_key;

/* "model", then the parts, escaped. Errors: ERR_ARG (a part of 0 or more than
 * PE_NAME_MAX bytes). */
peri_status pe_name_key_of(pe_name_key *k, const char *head, const peri_slice *parts, size_t n);
/* Put plain text behind it. */
void pe_name_key_add(pe_name_key *k, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The part of a key behind `skip` bytes up to the next '/' or the end, unescaped into out
 * (PE_NAME_MAX + 1 bytes); returns its size. */
size_t pe_name_part(peri_slice key, size_t skip, char *out);

static inline peri_slice pe_name_slice(const pe_name_key *k)
{
    return (peri_slice){k->text, k->size};
}

/* A text atom. */
static inline peri_atom pe_atom_text(const void *data, size_t size)
{
    return (peri_atom){.type = PERI_ATOM_TEXT, .data = data, .size = size};
}

static inline peri_atom pe_atom_int(int64_t v)
{
    return (peri_atom){.type = PERI_ATOM_INT, .integer = v};
}

#endif
