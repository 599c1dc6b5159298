/* What happens to words after cutting: possessives, stop words, stemming. */
#include "text/analyse.h"
#include "base/rng.h"

#include <libstemmer.h>

/* The short English list that most engines start from: Lucene's since its first release. */
static const char *const english_stop_words[] = {
    "a",   "an",    "and",  "are",   "as",    "at",   "be",   "but", "by",  "for",  "if",
    "in",  "into",  "is",   "it",    "no",    "not",  "of",   "on",  "or",  "such", "that",
    "the", "their", "then", "there", "these", "they", "this", "to",  "was", "will", "with"};

static uint64_t hash_word(const char *word, size_t size)
{
    uint64_t h = size;
    for (size_t i = 0; i < size; i++)
        h = (h ^ (unsigned char)word[i]) * 0x100000001b3u;
    return pe_mix64(h);
}

static int is_stop_word(const pe_analysis *a, const char *word, size_t size)
{
    if (a->stop_table_size == 0)
        return 0;
    size_t at = (size_t)hash_word(word, size) & (a->stop_table_size - 1);
    for (; a->stop_table[at]; at = (at + 1) & (a->stop_table_size - 1)) {
        const unsigned char *w = a->stop_words + a->stop_table[at] - 1;
        if (w[0] == size && memcmp(w + 1, word, size) == 0)
            return 1;
    }
    return 0;
}

/* Index the words of stop_words, which this takes as it stands. */
static peri_status index_stop_words(pe_analysis *a, size_t n)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    a->stop_table = pe_calloc(a->host, size * sizeof *a->stop_table);
    if (!a->stop_table)
        return PERI_ERR_NOMEM;
    a->stop_table_size = size;
    for (size_t at = 0; at < a->stop_bytes; at += (size_t)a->stop_words[at] + 1) {
        const char *word = (const char *)a->stop_words + at + 1;
        size_t place = (size_t)hash_word(word, a->stop_words[at]) & (size - 1);
        while (a->stop_table[place])
            place = (place + 1) & (size - 1);
        a->stop_table[place] = (uint32_t)at + 1;
    }
    return PERI_OK;
}

/* The one folded word that a stop word of the caller's must be. */
typedef struct only_word {
    size_t n, size;
    char text[PE_WORD_MAX];
} only_word;

static peri_status keep_word(void *ctx, char *word, size_t size, int dense)
{
    only_word *w = ctx;
    (void)dense;
    w->n++;
    w->size = size;
    memcpy(w->text, word, size);
    return PERI_OK;
}

static pe_tokeniser tokeniser_of(const pe_analysis *a)
{
    return (pe_tokeniser){.single_characters = a->script == PERI_SCRIPT_SINGLE,
                          .strip_accents = a->accents == PERI_ACCENTS_STRIP};
}

static peri_status add_words(pe_analysis *a, size_t n, const peri_slice *words)
{
    pe_tokeniser t = tokeniser_of(a);
    for (size_t i = 0; i < n; i++) {
        only_word w = {0};
        PE_TRY(pe_tokenise(&t, words[i], keep_word, &w));
        if (w.n != 1)
            return pe_fail(PERI_ERR_CONFIG, "stop word %zu is cut into %zu words, expected 1", i,
                           w.n);
        a->stop_words[a->stop_bytes] = (unsigned char)w.size;
        memcpy(a->stop_words + a->stop_bytes + 1, w.text, w.size);
        a->stop_bytes += w.size + 1;
    }
    return PERI_OK;
}

/* Folded words are at most PE_WORD_MAX bytes; the buffer is made for that and then cut down. */
static peri_status make_stop_words(pe_analysis *a, size_t n, const peri_slice *words)
{
    size_t room = n * (PE_WORD_MAX + 1);
    a->stop_words = pe_alloc(a->host, room);
    if (!a->stop_words)
        return PERI_ERR_NOMEM;
    peri_status status = add_words(a, n, words);
    unsigned char *all = a->stop_words;
    a->stop_words = status == PERI_OK ? pe_alloc(a->host, a->stop_bytes) : NULL;
    if (a->stop_words)
        memcpy(a->stop_words, all, a->stop_bytes);
    else if (status == PERI_OK)
        status = PERI_ERR_NOMEM;
    pe_free(a->host, all, room);
    PE_TRY(status);
    return index_stop_words(a, n);
}

static void copy_choices(pe_analysis *a, pe_host *host, const peri_text_config *config)
{
    memset(a, 0, sizeof *a);
    a->host = host;
    a->stop = config->stop;
    a->script = config->script;
    a->accents = config->accents;
    if (config->language)
        strncpy(a->language, config->language, PE_LANGUAGE_MAX);
}

peri_status pe_analysis_init(pe_analysis *a, pe_host *host, const peri_text_config *config)
{
    enum { N_ENGLISH = sizeof english_stop_words / sizeof english_stop_words[0] };
    peri_slice english[N_ENGLISH];
    copy_choices(a, host, config);
    if (config->stop == PERI_STOP_LIST && config->n_stop_words)
        return make_stop_words(a, config->n_stop_words, config->stop_words);
    if (config->stop != PERI_STOP_ENGLISH)
        return PERI_OK;
    for (size_t i = 0; i < N_ENGLISH; i++)
        english[i] = (peri_slice){english_stop_words[i], strlen(english_stop_words[i])};
    return make_stop_words(a, N_ENGLISH, english);
}

peri_status pe_analysis_load(pe_analysis *a, pe_host *host, const peri_text_config *config,
                             const unsigned char *stop_words, size_t stop_bytes)
{
    size_t n = 0;
    copy_choices(a, host, config);
    for (size_t at = 0; at < stop_bytes; at += (size_t)stop_words[at] + 1, n++)
        if (stop_words[at] == 0 || stop_words[at] >= stop_bytes - at)
            return pe_fail(PERI_ERR_CORRUPT, "stop word %zu has %u bytes", n, stop_words[at]);
    if (n == 0)
        return PERI_OK;
    a->stop_words = pe_alloc(host, stop_bytes);
    if (!a->stop_words)
        return PERI_ERR_NOMEM;
    memcpy(a->stop_words, stop_words, stop_bytes);
    a->stop_bytes = stop_bytes;
    return index_stop_words(a, n);
}

void pe_analysis_destroy(pe_analysis *a)
{
    pe_free(a->host, a->stop_words, a->stop_bytes);
    pe_free(a->host, a->stop_table, a->stop_table_size * sizeof *a->stop_table);
    a->stop_words = NULL;
    a->stop_table = NULL;
}

int pe_language_known(const char *language)
{
    for (const char **name = sb_stemmer_list(); *name; name++)
        if (strcmp(*name, language) == 0)
            return 1;
    return 0;
}

peri_status pe_analyser_init(pe_analyser *a, const pe_analysis *how)
{
    a->how = how;
    a->stemmer = NULL;
    if (how->language[0] && !(a->stemmer = sb_stemmer_new(how->language, "UTF_8")))
        return pe_fail(PERI_ERR_NOMEM, "could not make a stemmer for '%s'", how->language);
    return PERI_OK;
}

void pe_analyser_destroy(pe_analyser *a)
{
    sb_stemmer_delete(a->stemmer);
    a->stemmer = NULL;
}

typedef struct analysis {
    const pe_analyser *a;
    int mode;
    uint32_t *position;
    pe_token_fn fn;
    void *ctx;
} analysis;

static peri_status take_word(void *ctx, char *word, size_t size, int dense)
{
    analysis *x = ctx;
    if (size > 2 && word[size - 1] == 's' && word[size - 2] == '\'')
        size -= 2;
    uint32_t position = (*x->position)++;
    if (x->mode == PE_ANALYSE_TERMS) {
        if (is_stop_word(x->a->how, word, size))
            return PERI_OK;
        if (x->a->stemmer && !dense) {
            const sb_symbol *stem =
                sb_stemmer_stem(x->a->stemmer, (const sb_symbol *)word, (int)size);
            int length = sb_stemmer_length(x->a->stemmer);
            if (!stem)
                return pe_fail(PERI_ERR_NOMEM, "no memory for the stem of a word");
            if (length > 0 && length <= PE_TERM_MAX) {
                memcpy(word, stem, (size_t)length);
                size = (size_t)length;
            }
        }
    }
    pe_token token = {word, size, position};
    return x->fn(x->ctx, &token);
}

peri_status pe_analyse(const pe_analyser *a, peri_slice text, int mode, uint32_t *position,
                       pe_token_fn fn, void *ctx)
{
    analysis x = {a, mode, position, fn, ctx};
    pe_tokeniser t = tokeniser_of(a->how);
    return pe_tokenise(&t, text, take_word, &x);
}
