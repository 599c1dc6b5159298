/* Words of a text, folded; analyse.h says what a word is. */
#ifndef PE_TOKENISE_H
#define PE_TOKENISE_H

#include "base/status.h"

enum { PE_WORD_MAX = 255 };

typedef struct pe_tokeniser {
    int single_characters; /* of scripts without spaces; else pairs */
    int strip_accents;
} pe_tokeniser;

/* dense: from a script without spaces. An error ends it. */
typedef peri_status (*pe_word_fn)(void *ctx, char *word, size_t size, int dense);

peri_status pe_tokenise(const pe_tokeniser *t, peri_slice text, pe_word_fn fn, void *ctx);

#endif
