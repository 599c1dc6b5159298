/* Globs on bytes: * ? [a-z] [!a-z] \x. A star is retried from where it stood only, never from an
 * earlier one, so the worst case is pattern times text. */
#include "log/log_parts.h"

/* One element of the pattern at p against byte c; *next: behind it. */
static int match_one(const unsigned char *p, const unsigned char *end, unsigned char c,
                     const unsigned char **next)
{
    if (*p == '?') {
        *next = p + 1;
        return 1;
    }
    if (*p == '\\' && p + 1 < end) {
        *next = p + 2;
        return p[1] == c;
    }
    if (*p != '[') {
        *next = p + 1;
        return *p == c;
    }
    const unsigned char *q = p + 1;
    int negate = q < end && (*q == '!' || *q == '^'), found = 0;
    q += negate;
    for (int first = 1; q < end && (first || *q != ']'); first = 0) {
        unsigned char low = *q++, high = low;
        if (q + 1 < end && *q == '-' && q[1] != ']') {
            high = q[1];
            q += 2;
        }
        found |= c >= low && c <= high;
    }
    if (q == end) { /* no end: the bracket means itself */
        *next = p + 1;
        return c == '[';
    }
    *next = q + 1;
    return found != negate;
}

int pe_glob_match(peri_slice glob, peri_slice text)
{
    const unsigned char *p = glob.data, *p_end = p + glob.size;
    const unsigned char *t = text.data, *t_end = t + text.size;
    const unsigned char *star = NULL, *from = NULL, *next;
    while (t < t_end) {
        if (p < p_end && *p == '*') {
            star = ++p;
            from = t;
        } else if (p < p_end && match_one(p, p_end, *t, &next)) {
            p = next;
            t++;
        } else if (star) {
            p = star;
            t = ++from;
        } else {
            return 0;
        }
    }
    while (p < p_end && *p == '*')
        p++;
    return p == p_end;
}

size_t pe_glob_prefix(peri_slice glob)
{
    size_t n = 0;
    while (n < glob.size && !memchr("*?[\\", ((const char *)glob.data)[n], 4))
        n++;
    return n;
}
