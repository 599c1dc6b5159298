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

static inline uint16_t pe_get_le16(const unsigned char *p)
{
    return (uint16_t)pe_get_le(p, 2);
}

static inline uint32_t pe_get_le32(const unsigned char *p)
{
    return (uint32_t)pe_get_le(p, 4);
}

static inline uint64_t pe_get_le64(const unsigned char *p)
{
    return pe_get_le(p, 8);
}

static inline void pe_put_le16(unsigned char *p, uint16_t v)
{
    pe_put_le(p, v, 2);
}

static inline void pe_put_le32(unsigned char *p, uint32_t v)
{
    pe_put_le(p, v, 4);
}

static inline void pe_put_le64(unsigned char *p, uint64_t v)
{
    pe_put_le(p, v, 8);
}

#endif
