/** @file text.h
 *  Full text: documents as UTF-8 text by `uint64_t` id or string key, found by their words and
 *  ranked by BM25. Inserts, updates and removes are seen by the next search; no rebuild is needed.
 *
 *  Score of a document: the sum over the distinct terms of the query that it holds (those under NOT
 *  apart) of
 *      n(t) * ln(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + k1 * (1 - b + b * length / average))
 *  with n(t) how often the query names the term, N the live documents, df those of them that hold
 *  it, tf its count in the document, length the document's terms (stop words not counted) and their
 *  average: BM25 (Robertson and Walker, SIGIR 1994) with Lucene's idf, which is never negative, and
 *  like Lucene from 8 on without the constant factor k1 + 1. N, df and the average are those of the
 *  live documents at the moment of the search: a score does not depend on what was removed before,
 *  nor on how the index came about, to the bit. Lengths are exact below 64, then rounded
 *  to 1/16. Scores are sums of integers (fixed point, 30 bits for the best a query could reach).
 *
 *  Answers are exact: pruning only leaves out what cannot be among the best k.
 *
 *  Threads: a function that takes `const peri_text *` is a read; any number may run at once, also
 *  while one thread writes. Writes are serialised inside the handle. close must be the last use.
 *
 *  A program, complete (compiled and run as tests/headers):
 *  @code
 *      peri_text_config config; peri_text *ix; peri_text_query q; peri_scored hits[10]; size_t n;
 *      peri_text_config_init(&config);
 *      config.language = "english";
 *      config.positions = 1; // for the phrase below
 *      peri_text_create(&ix, &config, NULL);
 *      peri_text_put(ix, 42, peri_slice_of("Wells of gravity bend the path of light."), 0);
 *      peri_text_query_init(&q, 10);
 *      peri_text_search(ix, peri_slice_of("gravity OR \"event horizon\""), &q, hits, &n);
 *      peri_text_save(ix, "my.text", NULL);
 *      peri_text_close(ix);
 *  @endcode
 */
#ifndef PERI_TEXT_H
#define PERI_TEXT_H

#include "perigee/base.h"
#include "perigee/fuse.h"
#include "perigee/index.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peri_text peri_text;

enum {
    PERI_STOP_NONE = 0,
    PERI_STOP_ENGLISH = 1, /* 33 words, the short list that most engines ship */
    PERI_STOP_LIST = 2     /* the caller's */
};

/* Han, kana, Hangul, Thai, Lao, Khmer and Burmese, which are written without spaces. */
enum { PERI_SCRIPT_PAIRS = 0, PERI_SCRIPT_SINGLE = 1 };

enum { PERI_ACCENTS_KEEP = 0, PERI_ACCENTS_STRIP = 1 };

/** How text becomes terms, and how terms weigh: fixed for the life of the index, saved with it.
 *
 *  Words are runs of letters, marks and digits, folded (NFKC, case); an apostrophe between letters
 *  and a point or comma between digits belong to them, a final 's goes. Everything else separates,
 *  bytes that are no UTF-8 included. Words are cut off after 255 bytes. */
typedef struct peri_text_config {
    uint32_t struct_size;
    uint32_t positions;   /* 1 = kept, which phrases need; 0 = not: a third smaller */
    const char *language; /* stemming by libstemmer: "english", "german", ...; NULL or "" = none */
    uint32_t stop;        /* PERI_STOP_* */
    uint32_t script;      /* PERI_SCRIPT_* */
    uint32_t accents;     /* PERI_ACCENTS_* */
    float k1;             /* 0 = 1.2; negative = 0: a term counts once. Up to 100 */
    float b;              /* 0 = 0.75; negative = 0: lengths do not count. Up to 1 */
    uint32_t reserved;
    const peri_slice *stop_words; /* PERI_STOP_LIST: words, one each; copied */
    size_t n_stop_words;          /* up to 65,536 */
} peri_text_config;

static inline void peri_text_config_init(peri_text_config *c)
{
    memset(c, 0, sizeof *c);
    c->struct_size = (uint32_t)sizeof *c;
}

/** A C string as a slice. */
static inline peri_slice peri_slice_of(const char *s)
{
    peri_slice slice;
    slice.data = s;
    slice.size = strlen(s);
    return slice;
}

/** The name of the i-th language that can be stemmed, NULL past the last. Since 0.2. */
PERI_API const char *peri_text_language(size_t i);

/** config and env may be NULL. Errors: ERR_ARG, ERR_CONFIG (names the field), ERR_NOMEM. On failure
 *  *out is NULL. Since 0.2. */
PERI_API peri_status peri_text_create(peri_text **out, const peri_text_config *config,
                                      const peri_env *env);

/** flags: PERI_OPEN_READONLY, PERI_OPEN_MAP. A mapped file is verified whole before open returns;
 *  it may be written to: what it holds stays in the mapping, changes are kept beside it until save.
 *  Errors: as peri_index_open. Since 0.2. */
PERI_API peri_status peri_text_open(peri_text **out, const char *path, uint32_t flags,
                                    const peri_env *env, const peri_task *task);

/** Write the index to `path` by temporary file, fsync and rename. Blocks writers, not readers.
 *  Errors: as peri_index_save. */
PERI_API peri_status peri_text_save(const peri_text *ix, const char *path, const peri_task *task);

/** NULL is fine. No other call may be running. */
PERI_API void peri_text_close(peri_text *ix);

/** Insert a document, or replace the one of an id (PERI_PUT_NEW: ERR_EXISTS instead). A text
 *  without any word is a document, too; no query finds it. Cost: by its words; now and then a put
 *  seals a window of 8,192 documents and merges up to 65,536.
 *  Errors: ERR_ARG (text of 1 GiB or more), ERR_EXISTS, ERR_FULL (2^32 - 1 distinct terms),
 *  ERR_NOMEM, ERR_FORKED, ERR_STATE (read-only, or keyed). Since 0.2. */
PERI_API peri_status peri_text_put(peri_text *ix, uint64_t id, peri_slice text, uint32_t flags);

/** n documents; ids may be NULL: numbered onwards from the highest id seen. Documents [0, *n_done)
 *  are in, the rest are not. An id that stands twice keeps its last text. Readers see the documents
 *  in batches. Errors: as put; ERR_CANCELLED. Since 0.2. */
PERI_API peri_status peri_text_put_many(peri_text *ix, size_t n, const uint64_t *ids,
                                        const peri_slice *texts, uint32_t flags,
                                        const peri_task *task, size_t *n_done);

/** Errors: ERR_NOT_FOUND, ERR_NOMEM, ERR_FORKED, ERR_STATE. Since 0.2. */
PERI_API peri_status peri_text_remove(peri_text *ix, uint64_t id);

/* The same by string key, 1 to PERI_MAX_KEY_SIZE bytes. The first put decides whether an index is
 * keyed; then ids are given by the index, and hits carry them. Since 0.2. */
PERI_API peri_status peri_text_put_keyed(peri_text *ix, peri_slice key, peri_slice text,
                                         uint32_t flags);
PERI_API peri_status peri_text_put_many_keyed(peri_text *ix, size_t n, const peri_slice *keys,
                                              const peri_slice *texts, uint32_t flags,
                                              const peri_task *task, size_t *n_done);
PERI_API peri_status peri_text_remove_keyed(peri_text *ix, peri_slice key);
/** The id of a key. Errors: ERR_NOT_FOUND. */
PERI_API peri_status peri_text_id_of(const peri_text *ix, peri_slice key, uint64_t *id);
/** The key of an id, copied into *key. Errors: ERR_NOT_FOUND, ERR_NOMEM. */
PERI_API peri_status peri_text_key_of(const peri_text *ix, uint64_t id, peri_buf *key);

enum {
    /** Words side by side are joined as `join` says, and:
     *      "one two"       a phrase: these words in this order, stop words counted
     *      wor*            a prefix: any term that begins so (of stems, where there is stemming)
     *      a AND b, a OR b, a NOT b, ( ... )    in capitals
     *  Side by side binds tightest, then AND, then OR; NOT takes out of the words that it stands
     *  beside. What is malformed is an error that names the byte. */
    PERI_SYNTAX_OPERATORS = 0,
    /** Nothing but words: for questions, sentences, whatever a user pastes. Never an error. */
    PERI_SYNTAX_WORDS = 1
};
enum { PERI_JOIN_OR = 0, PERI_JOIN_AND = 1 };

enum {
    PERI_QUERY_TERMS = 32768, /* distinct terms of a query, a prefix's included */
    PERI_QUERY_DEPTH = 64     /* parentheses in each other */
};

/** What varies from search to search. */
typedef struct peri_text_query {
    uint32_t struct_size;
    uint32_t k;              /* hits wanted at most, 1 or more */
    uint32_t syntax;         /* PERI_SYNTAX_* */
    uint32_t join;           /* of words side by side: PERI_JOIN_* */
    const peri_idset *allow; /* only these ids; NULL = all */
    peri_filter_fn filter;   /* only ids that it keeps; NULL = all; both may be given */
    void *filter_ctx;
} peri_text_query;

static inline void peri_text_query_init(peri_text_query *q, uint32_t k)
{
    memset(q, 0, sizeof *q);
    q->struct_size = (uint32_t)sizeof *q;
    q->k = k;
}

/** The k documents that match `query` and score best; best first, ties by smaller id. hits has room
 *  for q->k. A query without terms (only stop words) finds nothing.
 *  Errors: ERR_ARG (k is 0; a malformed query: the detail names the byte; too many terms or too
 *  deep), ERR_CONFIG, ERR_UNSUPPORTED (a phrase, without positions), ERR_NOMEM. Since 0.2. */
PERI_API peri_status peri_text_search(const peri_text *ix, peri_slice query,
                                      const peri_text_query *q, peri_scored *hits, size_t *n_hits);

/** n queries; hits is n x q->k, n_hits is n long. Parallel by task->threads. On an error no result
 *  counts. Since 0.2. */
PERI_API peri_status peri_text_search_many(const peri_text *ix, size_t n, const peri_slice *queries,
                                           const peri_text_query *q, const peri_task *task,
                                           peri_scored *hits, size_t *n_hits);

/** The scores of n given documents, whether or not they match the query's operators: 0 for one that
 *  holds no term, NaN for an id that is not there. For fusion with complete scoring of the union
 *  (fuse.h); q's k and filters do not count. Errors: as search. Since 0.2. */
PERI_API peri_status peri_text_score(const peri_text *ix, peri_slice query,
                                     const peri_text_query *q, size_t n, const uint64_t *ids,
                                     float *scores);

/** Merge what puts have left in pieces, leave removed documents and terms behind, give their space
 *  back. all: into one segment, whatever it takes. Cancelling leaves a valid index. Since 0.2. */
PERI_API peri_status peri_text_maintain(peri_text *ix, int all, const peri_task *task);

typedef struct peri_text_info {
    uint32_t struct_size;
    uint32_t positions; /* 1 = kept */
    uint32_t keyed;     /* 1 = ids come from string keys */
    uint32_t segments;
    uint64_t documents;    /* live */
    uint64_t deleted;      /* removed, space not yet given back */
    uint64_t terms;        /* distinct, those of removed documents included until maintain */
    uint64_t postings;     /* of live and removed documents */
    uint64_t length;       /* terms of all live documents */
    uint64_t bytes_heap;   /* allocated by this handle */
    uint64_t bytes_mapped; /* of files */
    uint64_t next_id;      /* the id that put_many without ids would take next */
    float k1, b;
    uint32_t stop, script, accents, reserved;
    char language[32];
} peri_text_info;

static inline void peri_text_info_init(peri_text_info *i)
{
    memset(i, 0, sizeof *i);
    i->struct_size = (uint32_t)sizeof *i;
}

/** Fill *info; struct_size must be set. */
PERI_API peri_status peri_text_get_info(const peri_text *ix, peri_text_info *info);

/** The ids of all live documents, each once, in no set order: up to `capacity` into ids, and in *n
 *  how many there are in all. */
PERI_API peri_status peri_text_ids(const peri_text *ix, uint64_t *ids, size_t capacity, size_t *n);

/** Full structural proof. *n_faults counts what is wrong; the detail names the first. Blocks
 *  writers. Errors: ERR_NOMEM, ERR_CANCELLED, ERR_FORKED; faults are not an error. */
PERI_API peri_status peri_text_check(const peri_text *ix, const peri_task *task,
                                     uint64_t *n_faults);

#ifdef __cplusplus
}
#endif
#endif
