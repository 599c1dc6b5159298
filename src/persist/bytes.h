/* Numbers in files: little-endian at any alignment, whatever the host. */
#ifndef PE_BYTES_H
#define PE_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint64_t pe_get_le(const unsigned char *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = bytes; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static inline void pe_put_le(unsigned char *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

/* Whole numbers are one load or store where the host is little-endian; compilers do not reliably
 * see that in the loop above. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PE_BYTES(bits)                                                                             \
    static inline uint##bits##_t pe_get_le##bits(const unsigned char *p)                           \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof v);                                                                   \
        return v;                                                                                  \
    }                                                                                              \
    static inline void pe_put_le##bits(unsigned char *p, uint##bits##_t v)                         \
    {                                                                                              \
        memcpy(p, &v, sizeof v);                                                                   \
    }
#else
#define PE_BYTES(bits)                                                                             \
    static inline uint##bits##_t pe_get_le##bits(const unsigned char *p)                           \
    {                                                                                              \
        return (uint##bits##_t)pe_get_le(p, bits / 8);                                             \
    }                                                                                              \
    static inline void pe_put_le##bits(unsigned char *p, uint##bits##_t v)                         \
    {                                                                                              \
        pe_put_le(p, v, bits / 8);                                                                 \
    }
#endif
PE_BYTES(16)
PE_BYTES(32)
PE_BYTES(64)
#undef PE_BYTES

#endif
