/* Cutting and folding text; see analyse.h for the rules.
 *
 * Most words of most texts are plain ASCII between plain separators: they take a path of their own
 * that looks at each byte twice. All else goes code point by code point through utf8proc, so that
 * no buffer grows with the text. */
#include "text/tokenise.h"

#include <utf8proc.h>

enum {
    WORD_ROOM = 320, /* code points of a word being gathered; more are dropped */
    WORD_FULL = 256,
    FOLDED_MAX = 32, /* of one code point: NFKC yields 18 at most */
};

/* Code points gathered so far: a word, or a run of a script without spaces. */
typedef struct gather {
    const pe_tokeniser *t;
    pe_word_fn fn;
    void *ctx;
    int32_t cps[WORD_ROOM];
    size_t n;
    int dense;   /* a run without spaces */
    int plain;   /* all ASCII: no composition */
    int carried; /* dense: cps[0] was the second half of a pair given before */
} gather;

static int is_alpha(unsigned c)
{
    return (c | 0x20) - 'a' < 26u;
}

static int is_digit(unsigned c)
{
    return c - '0' < 10u;
}

static int is_mark(int32_t cp)
{
    utf8proc_category_t c = utf8proc_category(cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

static int is_letter(int32_t cp)
{
    utf8proc_category_t c = utf8proc_category(cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

static int is_number(int32_t cp)
{
    utf8proc_category_t c = utf8proc_category(cp);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

/* Scripts written without spaces, and Hangul, whose words carry their particles. */
static int is_dense(int32_t c)
{
    return (c >= 0x0e00 && c <= 0x0eff) || (c >= 0x1000 && c <= 0x109f) ||
           (c >= 0x1100 && c <= 0x11ff) || (c >= 0x1780 && c <= 0x17ff) ||
           (c >= 0x3040 && c <= 0x31ff && c != 0x30fb) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xa960 && c <= 0xa97f) ||
           (c >= 0xac00 && c <= 0xd7ff) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x20000 && c <= 0x3ffff) || c == 0x3005 || c == 0x3007;
}

/* May begin what composition makes one character of: no mark, no vowel or final of a syllable. */
static int is_starter(int32_t cp)
{
    return !is_mark(cp) && !(cp >= 0x1160 && cp <= 0x11ff);
}

static peri_status give(const gather *g, const int32_t *cps, size_t n)
{
    unsigned char out[PE_WORD_MAX + 4];
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        size_t step = (size_t)utf8proc_encode_char(cps[i], out + size);
        if (size + step > PE_WORD_MAX)
            break;
        size += step;
    }
    if (size == 0)
        return PERI_OK;
    return g->fn(g->ctx, (char *)out, size, g->dense);
}

/* Pairs of the run so far. The last character waits for its successor unless this is the end; a run
 * of one character is given by itself. */
static peri_status give_run(gather *g, int end)
{
    size_t width = g->t->single_characters ? 1 : 2, i = 0;
    for (; i + width <= g->n; i++)
        PE_TRY(give(g, g->cps + i, width));
    if (width == 2 && end && g->n == 1 && !g->carried)
        return give(g, g->cps, 1);
    if (width == 2 && !end && g->n > 0) {
        g->carried = i > 0 || g->carried;
        g->cps[0] = g->cps[g->n - 1];
        g->n = 1;
    } else {
        g->n = 0;
    }
    return PERI_OK;
}

/* Marks on one letter in the order of their classes, then as few code points as can be. */
static void compose(gather *g)
{
    for (size_t i = 1; i < g->n; i++) {
        int32_t cp = g->cps[i];
        int class = utf8proc_get_property(cp)->combining_class;
        size_t j = i;
        for (; class && j > 0 && utf8proc_get_property(g->cps[j - 1])->combining_class > class; j--)
            g->cps[j] = g->cps[j - 1];
        g->cps[j] = cp;
    }
    utf8proc_ssize_t n = utf8proc_normalize_utf32(g->cps, (utf8proc_ssize_t)g->n,
                                                  UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    g->n = n > 0 ? (size_t)n : 0;
}

static peri_status flush(gather *g, int end)
{
    peri_status status = PERI_OK;
    if (g->n && !g->plain)
        compose(g);
    if (g->n && g->dense)
        status = give_run(g, end);
    else if (g->n)
        status = give(g, g->cps, g->n);
    if (end || !g->dense) {
        g->n = 0;
        g->carried = 0;
    }
    if (g->n == 0)
        g->plain = 1;
    return status;
}

/* One folded code point: into the word, or the end of it. */
static peri_status take(gather *g, int32_t cp)
{
    int dense = is_dense(cp), mark = is_mark(cp);
    if (!mark && !is_letter(cp) && !is_number(cp))
        return flush(g, 1);
    /* A mark needs something to stand on. In scripts without spaces marks are half of the letter,
     * so they are never taken for accents. */
    if (mark && (g->n == 0 || (g->t->strip_accents && !g->dense)))
        return PERI_OK;
    if (!mark && g->n && g->dense != dense)
        PE_TRY(flush(g, 1));
    if (g->n >= WORD_FULL && g->dense && is_starter(cp))
        PE_TRY(flush(g, 0));
    if (!mark)
        g->dense = dense;
    g->plain &= cp < 0x80;
    if (g->n < WORD_ROOM)
        g->cps[g->n++] = cp;
    return PERI_OK;
}

static utf8proc_ssize_t decode(const unsigned char *s, size_t n, int32_t *cp)
{
    return utf8proc_iterate(s, n > 4 ? 4 : (utf8proc_ssize_t)n, cp);
}

/* Does the separator before s stand inside a word that goes on with s? */
static int joins(const gather *g, int separator, const unsigned char *s, size_t n)
{
    if (g->n == 0 || n == 0 || g->dense)
        return 0;
    int32_t before = g->cps[g->n - 1], after;
    if (separator != '\'')
        return is_digit((unsigned)before) && is_digit(s[0]);
    if (s[0] < 0x80)
        return is_alpha(s[0]) && (is_letter(before) || is_mark(before));
    return decode(s, n, &after) > 0 && is_letter(after) && !is_dense(after) &&
           (is_letter(before) || is_mark(before));
}

static peri_status take_ascii(gather *g, const unsigned char *s, size_t left)
{
    unsigned c = s[0];
    if (is_alpha(c) || is_digit(c))
        return take(g, (int32_t)(is_digit(c) ? c : c | 0x20));
    if ((c == '\'' || c == '.' || c == ',') && joins(g, (int)c, s + 1, left - 1)) {
        if (g->n < WORD_ROOM)
            g->cps[g->n++] = (int32_t)c;
        return PERI_OK;
    }
    return flush(g, 1);
}

/* Take the character at s; *used is its bytes. */
static peri_status take_at(gather *g, const unsigned char *s, size_t left, size_t *used)
{
    enum { RIGHT_QUOTE = 0x2019, MODIFIER_APOSTROPHE = 0x02bc, FULLWIDTH_APOSTROPHE = 0xff07 };
    int32_t cp, folded[FOLDED_MAX];
    int boundary = 0;
    *used = 1;
    if (s[0] < 0x80)
        return take_ascii(g, s, left);
    utf8proc_ssize_t size = decode(s, left, &cp);
    if (size <= 0)
        return flush(g, 1);
    *used = (size_t)size;
    if (cp == RIGHT_QUOTE || cp == MODIFIER_APOSTROPHE || cp == FULLWIDTH_APOSTROPHE) {
        if (!joins(g, '\'', s + size, left - (size_t)size))
            return flush(g, 1);
        if (g->n < WORD_ROOM)
            g->cps[g->n++] = '\'';
        return PERI_OK;
    }
    utf8proc_ssize_t n =
        utf8proc_decompose_char(cp, folded, FOLDED_MAX,
                                UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD |
                                    UTF8PROC_IGNORE | UTF8PROC_DECOMPOSE,
                                &boundary);
    if (n < 0 || n > FOLDED_MAX)
        return flush(g, 1);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        PE_TRY(take(g, folded[i]));
    return PERI_OK;
}

peri_status pe_tokenise(const pe_tokeniser *t, peri_slice text, pe_word_fn fn, void *ctx)
{
    const unsigned char *s = text.data;
    size_t n = text.size, i = 0, used;
    gather g;
    g.t = t;
    g.fn = fn;
    g.ctx = ctx;
    g.n = 0;
    g.dense = g.carried = 0;
    g.plain = 1;
    while (i < n) {
        char plain[PE_WORD_MAX];
        size_t end = i;
        while (g.n == 0 && end < n && end - i < PE_WORD_MAX &&
               (is_alpha(s[end]) || is_digit(s[end]))) {
            plain[end - i] = (char)(is_digit(s[end]) ? s[end] : s[end] | 0x20);
            end++;
        }
        int ends = end == n || (s[end] < 0x80 && s[end] != '\'' && s[end] != '.' && s[end] != ',' &&
                                !is_alpha(s[end]) && !is_digit(s[end]));
        if (end > i && ends) {
            PE_TRY(fn(ctx, plain, end - i, 0));
            i = end;
            continue;
        }
        PE_TRY(take_at(&g, s + i, n - i, &used));
        i += used;
    }
    return flush(&g, 1);
}
