/* Damage in each kind of file of a log: journal, base, hint, manifest. What opens gives the right
 * answers or says that it cannot; a hint may be left aside. Nothing that was durable is missing
 * without a word: that is what the watermarks are for, and the last test shows that without them
 * the same damage goes unseen. */
#include "corrupt/corrupt.h"
#include "faulty.h"
#include "histories.h"

#include <xxhash.h>

enum { KEYS = 30, ROUNDS = 40 };

typedef struct part {
    char path[PATH_MAX];
    blob whole;
} part;

static part journal, base, hint, manifest;
static const char *dir;

static size_t key_text(unsigned k, char out[32])
{
    return (size_t)sprintf(out, "%s/key %u", k % 3 ? "a" : "b", k);
}

static void write_round(pe_history *h, unsigned round)
{
    for (unsigned k = 0; k < KEYS; k++) {
        char key[32], value[600];
        double number = round * 0.25 + k;
        size_t size = k % 4 == 0 ? 8 : 10 + (k * 37 + round) % 500;
        memset(value, (int)(k + round), sizeof value);
        memcpy(value, &number, 8);
        pe_write w = {k % 7 == 3 && round % 9 == 8 ? PE_OP_DELETE : PE_OP_PUT,
                      k % 4 == 0 ? PE_TAG_F64 : 3,
                      (int64_t)(round * 1000 + k),
                      {key, key_text(k, key)},
                      {value, size}};
        assert_int_equal(pe_history_write(h, &w, 1, 0, NULL, NULL), PERI_OK);
    }
}

static void load_part(part *p, const char *extension)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strstr(e->d_name, extension))
            snprintf(p->path, sizeof p->path, "%s/%s", dir, e->d_name);
    closedir(d);
    p->whole = blob_load(p->path);
}

static int make(void **state)
{
    (void)state;
    pe_history *h;
    dir = scratch("corrupt-log");
    pe_history_config c = {.dir = dir,
                           .create = 1,
                           .durability = PE_DURABLE_COMMIT,
                           .compress = 1,
                           .hint_bytes = 1000};
    pe_retention all = {0};
    assert_int_equal(pe_history_open(&h, NULL, &c), PERI_OK);
    for (unsigned round = 0; round < ROUNDS; round++) {
        write_round(h, round);
        if (round == ROUNDS / 2)
            assert_int_equal(pe_history_compact(h, &all, NULL), PERI_OK);
        if (round == ROUNDS - 4)
            assert_int_equal(pe_history_save_hint(h), PERI_OK);
    }
    pe_history_close(h);
    load_part(&journal, ".pej");
    load_part(&base, ".peb");
    load_part(&hint, ".peh");
    load_part(&manifest, "MANIFEST");
    return 0;
}

static int drop(void **state)
{
    free(journal.whole.data);
    free(base.whole.data);
    free(hint.whole.data);
    free(manifest.whole.data);
    dir_remove(dir);
    return scratch_remove(state);
}

typedef struct digest {
    uint64_t sum;
} digest;

static void add(digest *d, const pe_version *v)
{
    d->sum = XXH3_64bits_withSeed(v->key.data, v->key.size, d->sum + v->sequence);
    d->sum = XXH3_64bits_withSeed(v->value, v->size, d->sum + v->kind + (uint64_t)v->time);
}

static peri_status add_change(void *ctx, const pe_version *v)
{
    add(ctx, v);
    return PERI_OK;
}

static void use_history(pe_history *h, corrupt_use *use)
{
    pe_read r;
    uint64_t faults = 0;
    peri_status status;
    for (unsigned k = 0; k <= KEYS; k++) { /* the last one is none */
        char key[32];
        peri_slice slice = {key, key_text(k, key)};
        pe_version v;
        digest d = {0};
        pe_read_begin(&r, h, 0);
        status = pe_read_get(&r, slice, &v);
        if (status == PERI_OK)
            add(&d, &v);
        d.sum += status == PERI_ERR_NOT_FOUND;
        corrupt_answer(use, status == PERI_ERR_NOT_FOUND ? PERI_OK : status, &d, sizeof d);
        d.sum = 0;
        for (status = pe_read_head(&r, slice, &v); status == PERI_OK;
             status = pe_read_former(&r, &v))
            add(&d, &v);
        corrupt_answer(use, status == PERI_ERR_NOT_FOUND ? PERI_OK : status, &d, sizeof d);
        pe_read_end(&r);
    }
    digest d = {0};
    pe_read_begin(&r, h, 0);
    status = pe_read_scan(&r, (peri_slice){"a", 1}, (peri_slice){NULL, 0}, 1, add_change, &d);
    corrupt_answer(use, status, &d, sizeof d);
    d.sum = 0;
    status = pe_read_changes(&r, KEYS * (ROUNDS / 2 + 1), add_change, &d);
    corrupt_answer(use, status, &d, sizeof d);
    pe_read_end(&r);
    status = pe_history_check(h, &faults);
    corrupt_answer(use, faults ? PERI_ERR_CORRUPT : status, &faults, sizeof faults);
}

static void use_log(const char *path, corrupt_use *use, const void *arg)
{
    faulty f;
    pe_history *h;
    pe_history_config c = {.dir = dir, .readonly = 1};
    (void)path;
    (void)arg;
    faulty_init(&f, FAULTY_NOTHING, 0, 0);
    peri_status status = pe_history_open(&h, &f.env, &c);
    if (status == PERI_OK) {
        use_history(h, use);
        pe_history_close(h);
    } else {
        corrupt_answer(use, status, NULL, 0);
    }
    corrupt_must(use, faulty_clean(&f));
}

static corrupt_result run(const char *name, const part *p, int reseal, corrupt_kind kind,
                          uint64_t count)
{
    corrupt_plan plan = {.name = name,
                         .path = p->path,
                         .file = p->whole.data,
                         .size = p->whole.size,
                         .use = use_log,
                         .plain = p == &journal,
                         .reseal = reseal,
                         .seed = 7};
    corrupt_result r = corrupt_run(&plan, kind, count);
    blob_save(p->path, p->whole.data, p->whole.size);
    return r;
}

static void assert_no_wrong_answer(corrupt_result r)
{
    if (r.wrong + r.crashed + r.hung + r.touched)
        print_message("%s\n", r.first);
    assert_int_equal(r.wrong + r.crashed + r.hung + r.touched, 0);
}

static void damage(const char *name, const part *p, uint64_t bytes)
{
    assert_no_wrong_answer(run(name, p, 0, CORRUPT_BITS, 0));
    assert_no_wrong_answer(run(name, p, 0, CORRUPT_BYTES, corrupt_scale(bytes)));
    assert_no_wrong_answer(run(name, p, 0, CORRUPT_NUMBERS, corrupt_scale(bytes / 4)));
    assert_no_wrong_answer(run(name, p, 0, CORRUPT_CUTS, p->whole.size / 300 + 1));
}

static void a_damaged_journal_never_answers_wrongly(void **state)
{
    (void)state;
    damage("journal", &journal, 4000);
}

static void a_damaged_base_never_answers_wrongly(void **state)
{
    (void)state;
    damage("base", &base, 3000);
}

static void a_damaged_hint_is_left_aside(void **state)
{
    (void)state;
    damage("hint", &hint, 3000);
}

static void a_damaged_manifest_is_refused(void **state)
{
    (void)state;
    damage("manifest", &manifest, 3000);
}

static void structure_holds_where_checksums_do_not_help(void **state)
{
    (void)state;
    const part *const parts[] = {&base, &hint, &manifest};
    static const char *const names[] = {"base resealed", "hint resealed", "manifest resealed"};
    for (int i = 0; i < 3; i++)
        for (int kind = CORRUPT_BYTES; kind <= CORRUPT_NUMBERS; kind++) {
            if (kind == CORRUPT_CUTS)
                continue;
            corrupt_result r = run(names[i], parts[i], 1, (corrupt_kind)kind, corrupt_scale(1500));
            if (r.crashed + r.hung + r.touched)
                print_message("%s\n", r.first);
            assert_int_equal(r.crashed + r.hung + r.touched, 0);
        }
}

/* Flip a byte in the first half of a journal of `level`, many times. */
static void flip(uint32_t level, uint64_t *refused, uint64_t *silent)
{
    enum { PUTS = 60, FLIPS = 400 };
    const char *other = scratch("flipped");
    pe_history *h;
    pe_history_info info;
    pe_rng rng = {11};
    char path[PATH_MAX];
    pe_history_config c = {.dir = other, .create = 1, .durability = level};
    dir_remove(other);
    assert_int_equal(pe_history_open(&h, NULL, &c), PERI_OK);
    for (int i = 0; i < PUTS; i++)
        assert_int_equal(put_text(h, "key", "a value of some length", 0), PERI_OK);
    pe_history_close(h);
    snprintf(path, sizeof path, "%s/%016x.pej", other, 1);
    blob b = blob_load(path);
    c.readonly = 1;
    *refused = *silent = 0;
    for (int i = 0; i < FLIPS; i++) {
        size_t at = 64 + pe_rng_below(&rng, PUTS / 2 * 128);
        unsigned char bit = (unsigned char)(1u << pe_rng_below(&rng, 8));
        b.data[at] ^= bit;
        blob_save(path, b.data, b.size);
        b.data[at] ^= bit;
        peri_status status = pe_history_open(&h, NULL, &c);
        if (status == PERI_OK) {
            pe_history_get_info(h, &info);
            *silent += info.sequence < PUTS;
            pe_history_close(h);
        }
        *refused += status == PERI_ERR_CORRUPT;
    }
    free(b.data);
    dir_remove(other);
}

/* The control: a journal that was never synced carries no watermark, and there damage does look
 * like a torn tail. */
static void watermarks_are_what_tells_damage_from_a_torn_tail(void **state)
{
    (void)state;
    uint64_t refused, silent;
    flip(PE_DURABLE_COMMIT, &refused, &silent);
    print_message("with watermarks: %llu refused, %llu silently shorter\n",
                  (unsigned long long)refused, (unsigned long long)silent);
    assert_int_equal(refused, 400);
    flip(PE_DURABLE_PROCESS, &refused, &silent);
    print_message("never synced: %llu refused, %llu silently shorter\n",
                  (unsigned long long)refused, (unsigned long long)silent);
    assert_true(silent > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_journal_never_answers_wrongly),
        cmocka_unit_test(a_damaged_base_never_answers_wrongly),
        cmocka_unit_test(a_damaged_hint_is_left_aside),
        cmocka_unit_test(a_damaged_manifest_is_refused),
        cmocka_unit_test(structure_holds_where_checksums_do_not_help),
        cmocka_unit_test(watermarks_are_what_tells_damage_from_a_torn_tail),
    };
    return cmocka_run_group_tests_name("corrupt: log", tests, make, drop);
}
