/* From text to terms.
 *
 * Text is UTF-8; it is folded (NFKC, case) character by character, then cut into words:
 *  - a word is a run of letters, marks and digits; an apostrophe between letters and a point or
 *    comma between digits belong to it (the rules of UAX 29 that matter to search); a final 's
 * goes;
 *  - scripts written without spaces (Han, kana, Hangul, Thai, Lao, Khmer, Burmese) become
 *    overlapping pairs of characters, or single characters by choice;
 *  - everything else separates, NUL and bytes that are no UTF-8 included.
 * Words longer than PE_TERM_MAX bytes are cut there. Stop words leave a gap in the positions, then
 * the stemmer of the language has its turn.
 *
 * A pe_analysis is immutable and shared; a pe_analyser is one thread's (the stemmer keeps state).
 */
#ifndef PE_ANALYSE_H
#define PE_ANALYSE_H

#include "base/host.h"
#include "perigee/text.h"
#include "text/tokenise.h"

enum { PE_TERM_MAX = PE_WORD_MAX, PE_LANGUAGE_MAX = 31 };

typedef struct pe_analysis {
    pe_host *host;
    char language[PE_LANGUAGE_MAX + 1]; /* "" = no stemming */
    uint32_t stop, script, accents;
    /* Stop words, folded: one after the other, each preceded by its size in a byte. */
    unsigned char *stop_words;
    size_t stop_bytes;
    uint32_t *stop_table; /* offset + 1 into stop_words by hash, 0 = empty place */
    size_t stop_table_size;
} pe_analysis;

typedef struct pe_token {
    const char *text; /* valid during the call */
    size_t size;      /* 1..PE_TERM_MAX */
    uint32_t position;
} pe_token;

/* An error ends the analysis. */
typedef peri_status (*pe_token_fn)(void *ctx, const pe_token *token);

struct sb_stemmer;

typedef struct pe_analyser {
    const pe_analysis *how;
    struct sb_stemmer *stemmer;
} pe_analyser;

/* Fill *a from a config whose fields pe_text_config_check found good; the words of a list of the
 * caller's are folded here. Errors: ERR_CONFIG, ERR_NOMEM. */
peri_status pe_analysis_init(pe_analysis *a, pe_host *host, const peri_text_config *config);
/* The same from what a file holds: stop_words as laid out above. */
peri_status pe_analysis_load(pe_analysis *a, pe_host *host, const peri_text_config *config,
                             const unsigned char *stop_words, size_t stop_bytes);
void pe_analysis_destroy(pe_analysis *a);

/* 1 if libstemmer knows the language. */
int pe_language_known(const char *language);

peri_status pe_analyser_init(pe_analyser *a, const pe_analysis *how);
void pe_analyser_destroy(pe_analyser *a);

/* What becomes of a word: a term of the index, or the beginning of terms (a prefix keeps its stop
 * words and is not stemmed). */
enum { PE_ANALYSE_TERMS = 0, PE_ANALYSE_PREFIX = 1 };

/* Give fn every token of the text. Positions count from *position on and advance it, also over
 * stop words. */
peri_status pe_analyse(const pe_analyser *a, peri_slice text, int mode, uint32_t *position,
                       pe_token_fn fn, void *ctx);

#endif
