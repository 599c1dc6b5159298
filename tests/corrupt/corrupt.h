/* Damage a file in thousands of ways and see what a user of it meets.
 *
 * The work is done in a child process with a limit on memory and on time, many damages to a child;
 * a child that dies is counted and replaced. For each damaged file there is one outcome: refused
 * some step said so with an error, and no step gave a wrong answer same      every step gave the
 * answer of the undamaged file wrong     a step gave another answer, and said it was good crashed,
 * hung touched   the file was written to by whoever opened it
 *
 * PERIGEE_PROVE in the environment makes the counts larger: release by fifty, a number by that;
 * PERIGEE_KEEP names a directory where files that kill a child are kept. */
#ifndef PE_CORRUPT_H
#define PE_CORRUPT_H

#include "perigee/base.h"

enum { CORRUPT_STEPS = 4096 };

/* What the steps of one use said. */
typedef struct corrupt_use {
    int learning; /* the file is whole: what is said now is right */
    unsigned step, n_right;
    uint64_t right[CORRUPT_STEPS];
    unsigned refused, wrong, first_wrong;
} corrupt_use;

/* Use a file: open it, ask it things, hand each answer to corrupt_answer, the n-th call always
 * being about the same question. Returning early is fine after a refusal. No cmocka assertions in
 * here: it runs in a child. */
typedef void (*corrupt_fn)(const char *path, corrupt_use *use, const void *arg);

/* status is not PERI_OK: refused. Else size bytes of answer. */
void corrupt_answer(corrupt_use *use, peri_status status, const void *answer, size_t size);

/* Something that must hold whatever the file is like, no leak say. */
void corrupt_must(corrupt_use *use, int holds);

typedef enum corrupt_kind {
    CORRUPT_BITS,    /* each bit of the first 256 bytes */
    CORRUPT_BYTES,   /* random: one byte to four, now and then a sector zeroed or copied */
    CORRUPT_CUTS,    /* the file cut off at each multiple of `count` bytes */
    CORRUPT_NUMBERS, /* random: a number in the file replaced by a likely troublemaker */
} corrupt_kind;

typedef struct corrupt_plan {
    const char *name;
    const char *path; /* where damaged files are put */
    const unsigned char *file;
    size_t size;
    corrupt_fn use;
    const void *arg;
    int plain;  /* the file is no segment: any byte is as likely as any other */
    int reseal; /* make all checksums right again: the structure alone must hold */
    uint64_t seed;
    /* A file that is no segment: parts of it that damage should find as often as all the rest, and
     * how its checksums are made right again. CORRUPT_BITS flips the bits of the first part. */
    const struct corrupt_part {
        uint64_t from, size;
    } * parts;
    size_t n_parts;
    void (*reseal_with)(unsigned char *file, size_t size);
    unsigned seconds;    /* for one use; 0 = 20 */
    unsigned stop_after; /* dead children; 0 = 20 */
} corrupt_plan;

typedef struct corrupt_result {
    uint64_t tried, refused, same, wrong, crashed, hung, touched;
    char first[256]; /* the first damage that had a bad outcome */
} corrupt_result;

/* Try `count` damages (BYTES, NUMBERS) or as many as the kind says, and print a line. */
corrupt_result corrupt_run(const corrupt_plan *plan, corrupt_kind kind, uint64_t count);

/* count, or as many times that as PERIGEE_PROVE says. */
uint64_t corrupt_scale(uint64_t count);

/* Damage number i of a plan, in place; what it did goes to `what`. Returns the new size. */
size_t corrupt_damage(const corrupt_plan *plan, corrupt_kind kind, uint64_t count, uint64_t i,
                      unsigned char *file, char what[128]);

#endif
