/** @file fuse.h
 *  One ranking out of several: reciprocal ranks, convex combination of scores, distribution-based
 *  scores. Works on plain arrays of ids and scores, so on the answers of any index, here or
 *  elsewhere.
 *
 *  Fusion is deterministic: ties break by smaller id, and the order of the legs does not change a
 *  bit of any score.
 *
 *  @code
 *      peri_fuse_leg legs[2]; peri_fusion f; peri_fused best[10]; size_t n;
 *      peri_fuse_leg_init(&legs[0], text_hits, n_text);    // BM25: larger is better, never below 0
 *      peri_fuse_leg_init(&legs[1], vector_hits, n_vector);
 *      legs[1].smaller_is_better = 1;                      // cosine distance, 0 to 2
 *      legs[1].worst = 2;
 *      peri_fusion_init(&f, PERI_FUSE_CONVEX, 10);
 *      peri_fuse_legs(&f, 2, legs, NULL, best, &n);
 *  @endcode
 */
#ifndef PERI_FUSE_H
#define PERI_FUSE_H

#include "perigee/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A hit whose score is better when larger (text, sparse); peri_hit of index.h has the same layout,
 *  with a distance. */
typedef struct peri_scored {
    uint64_t id;
    float score;
    uint32_t reserved;
} peri_scored;

enum {
    /** Sum over legs of weight / (rank_constant + rank): Cormack, Clarke and Buettcher, SIGIR 2009.
     *  Scores do not count, only the order in which the leg names its hits; an id that a leg does
     *  not name gets nothing from it. */
    PERI_FUSE_RRF = 1,
    /** Sum over legs of weight x (score - worst) / (best score of the leg - worst), `worst` being
     *  what a score can theoretically be at worst: Bruch, Gai and Ingber, TOIS 2023. An id that a
     *  leg does not name counts as worst there. Scores beyond `worst` count as worst. */
    PERI_FUSE_CONVEX = 2,
    /** Sum over legs of weight x where the score lies between the mean of the leg's hits - 3
     *  standard deviations (0) and + 3 (1), cut off there; 0.5 where all are equal. */
    PERI_FUSE_DBSF = 3
};

enum { PERI_RANK_FROM_1 = 0, PERI_RANK_FROM_0 = 1 };

enum { PERI_FUSE_MAX_LEGS = 64 };

/** One ranking, best hit first. */
typedef struct peri_fuse_leg {
    uint32_t struct_size;
    uint32_t smaller_is_better; /* 1 = the values are distances */
    const void *hits;           /* n of peri_scored, or n of peri_hit; each id once */
    size_t n;
    double weight; /* > 0; 0 = 1 */
    double worst;  /* CONVEX: the theoretical minimum of a score (maximum of a distance) */
} peri_fuse_leg;

static inline void peri_fuse_leg_init(peri_fuse_leg *leg, const void *hits, size_t n)
{
    memset(leg, 0, sizeof *leg);
    leg->struct_size = (uint32_t)sizeof *leg;
    leg->hits = hits;
    leg->n = n;
}

/** Score n ids for one leg, ids that another leg named and this one did not. A score that does not
 *  exist is NaN. Called once per leg, from the calling thread; an error ends the fusion. */
typedef peri_status (*peri_fuse_score_fn)(void *ctx, size_t leg, size_t n, const uint64_t *ids,
                                          float *scores);

typedef struct peri_fusion {
    uint32_t struct_size;
    uint32_t method;      /* PERI_FUSE_* */
    uint32_t k;           /* hits wanted at most, 1 or more */
    uint32_t rank_origin; /* RRF: PERI_RANK_FROM_1 as in the paper, or 0 as Qdrant counts */
    double
        rank_constant; /* RRF: 0 = 60 as in the paper, up to 1e9; Qdrant's default is 2, from 0 */
    /** Complete scoring of the union: where the legs can score any id, give them all a say on all
     *  ids instead of treating the absent as worst. NULL = only what the legs name. Under RRF the
     *  ranks are then those of the scores. */
    peri_fuse_score_fn score;
    void *score_ctx;
} peri_fusion;

static inline void peri_fusion_init(peri_fusion *f, uint32_t method, uint32_t k)
{
    memset(f, 0, sizeof *f);
    f->struct_size = (uint32_t)sizeof *f;
    f->method = method;
    f->k = k;
}

typedef struct peri_fused {
    uint64_t id;
    double score; /* larger is better; what its size means depends on the method */
} peri_fused;

/** Fuse 1 to PERI_FUSE_MAX_LEGS rankings. `hits` has room for f->k; best first, ties by smaller id;
 *  *n_hits is less than k when the legs name fewer ids between them. env may be NULL.
 *  Errors: ERR_ARG (NULL, k is 0, no or too many legs, an id twice in a leg), ERR_CONFIG (method,
 *  weight, constant), ERR_NONFINITE (a score that counts is NaN or infinite), ERR_NOMEM, and what
 *  the callback returned. Any thread. Since 0.2. */
PERI_API peri_status peri_fuse_legs(const peri_fusion *f, size_t n_legs, const peri_fuse_leg *legs,
                                    const peri_env *env, peri_fused *hits, size_t *n_hits);

#ifdef __cplusplus
}
#endif
#endif
