/* Posting lists against a plain model: documents put, replaced, removed, sealed, merged, compacted,
 * saved and opened in random order; after each stretch every list, value, position, length and id
 * must be what the model says. Both sorts of values, and a snapshot held meanwhile must not move.
 */
#include "base/rng.h"
#include "postings/postings.h"
#include "scratch.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { IDS = 24000, TERMS = 300, ENTRIES = 6 };

typedef struct model_doc {
    int live;
    uint32_t length, n, terms[ENTRIES], counts[ENTRIES];
    float reals[ENTRIES];
    uint32_t gap; /* position j of an entry is gap * (j + 1) */
} model_doc;

typedef struct world {
    pe_host host;
    pe_epoch epoch;
    pe_postings p;
    pe_payload payload;
    model_doc *docs; /* by id */
    pe_rng r;
} world;

static void check_ok(peri_status status, int line)
{
    if (status == PERI_OK)
        return;
    print_error("line %d: %s: %s\n", line, peri_status_name(status), peri_error_detail());
    fail();
}
#define OK(call) check_ok((call), __LINE__)

static void begin_world(world *w, int counts, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    OK(pe_host_init(&w->host, NULL));
    pe_epoch_init(&w->epoch, &w->host, NULL);
    w->payload = (pe_payload){.counts = counts, .positions = counts, .marked = !counts};
    OK(pe_postings_init(&w->p, &w->host, &w->epoch, &w->payload));
    w->docs = calloc(IDS, sizeof *w->docs);
    assert_non_null(w->docs);
    w->r.state = seed;
}

static void end_world(world *w)
{
    pe_postings_destroy(&w->p);
    pe_epoch_destroy(&w->epoch);
    assert_int_equal(w->host.heap, 0);
    free(w->docs);
}

static uint64_t id_of(uint32_t i)
{
    return (uint64_t)i * 0x9e3779b97f4a7c15u; /* id 0 among them */
}

static void new_doc(world *w, model_doc *d)
{
    d->live = 1;
    d->length = pe_rng_below(&w->r, 1000);
    d->n = pe_rng_below(&w->r, ENTRIES + 1);
    d->gap = pe_rng_below(&w->r, 3) ? 1 + pe_rng_below(&w->r, 100) : 70000;
    uint32_t term = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        d->terms[i] = term += 1 + pe_rng_below(&w->r, TERMS / ENTRIES - 1);
        d->counts[i] = pe_rng_below(&w->r, 50) ? 1 + pe_rng_below(&w->r, 5) : 300;
        d->reals[i] = (float)((pe_rng_unit(&w->r) - 0.25) * 3);
    }
}

static void put_doc(world *w, pe_edit *e, uint32_t i)
{
    model_doc *d = &w->docs[i];
    static unsigned char bytes[ENTRIES][300 * PE_VARINT_MAX];
    const unsigned char *positions[ENTRIES];
    uint32_t sizes[ENTRIES];
    unsigned char mark[ENTRIES];
    new_doc(w, d);
    for (uint32_t t = 0; t < d->n; t++) {
        sizes[t] = 0;
        for (uint32_t j = 0; j < d->counts[t]; j++)
            sizes[t] += (uint32_t)pe_varint_put(bytes[t] + sizes[t], d->gap);
        positions[t] = bytes[t];
        mark[t] = d->reals[t] > 1;
    }
    pe_doc doc = {.id = id_of(i), .length = d->length, .n = d->n, .terms = d->terms};
    doc.values = w->payload.counts ? (const void *)d->counts : (const void *)d->reals;
    if (w->payload.counts) {
        doc.positions = positions;
        doc.position_sizes = sizes;
    } else {
        doc.mark = mark;
    }
    OK(pe_edit_put(e, &doc));
}

static void change(world *w, uint32_t changes)
{
    while (changes) {
        pe_edit e;
        OK(pe_edit_begin(&e, &w->p));
        for (uint32_t n = 1 + pe_rng_below(&w->r, 3000); n && changes; n--, changes--) {
            uint32_t i = pe_rng_below(&w->r, IDS);
            if (w->docs[i].live && pe_rng_below(&w->r, 3) == 0) {
                OK(pe_edit_remove(&e, id_of(i)));
                w->docs[i].live = 0;
            } else {
                put_doc(w, &e, i);
            }
        }
        pe_edit_commit(&e);
        pe_epoch_reclaim(&w->epoch);
    }
}

/* ---- comparing ---- */

static void compare_posting(const world *w, const pe_list *l, uint32_t run, uint32_t first,
                            uint32_t at, const model_doc *d, uint32_t entry)
{
    if (!w->payload.counts) {
        float got = pe_list_real(l, at);
        float step = l->encoding == PE_ENC_I16 ? ldexpf(1, l->exponent) : 0;
        assert_true(fabsf(got - d->reals[entry]) <= step);
        assert_true(step <= 3.0f / 8192);
        return;
    }
    assert_int_equal(pe_list_count(l, at), d->counts[entry]);
    const unsigned char *p = pe_list_positions(l, run, first, at);
    for (uint32_t j = 0; j < d->counts[entry]; j++)
        assert_int_equal(pe_varint(&p), d->gap);
}

/* All postings of live documents of a term: each is the model's; returns how many. */
static uint32_t compare_list(const world *w, const pe_part *part, int set, uint32_t term,
                             const uint32_t *id_at)
{
    pe_list l;
    uint32_t live = 0, found = 0;
    if (!pe_list_open(part, set, term, &l))
        return 0;
    pe_cursor c = {.list = l};
    for (uint32_t window = 0; window < pe_part_windows(part); window++) {
        uint32_t n = pe_cursor_seek(&c, window);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t doc = window * PE_WINDOW + l.ids[c.first + i], at;
            assert_true(pe_list_find(&l, doc, &at) && at == c.first + i);
            if (!pe_part_alive(part, doc))
                continue;
            live++;
            const model_doc *d = &w->docs[id_at[doc]];
            uint32_t entry = 0;
            while (entry < d->n && d->terms[entry] != term)
                entry++;
            assert_true(entry < d->n);
            found++;
            compare_posting(w, &l, c.run, c.first, at, d, entry);
            const pe_run *run = pe_list_run(&l, c.run);
            float v = w->payload.counts ? (float)pe_list_count(&l, at) : pe_list_real(&l, at);
            assert_true(v <= pe_bound_value(run->max) && v >= pe_bound_value(run->min));
        }
    }
    assert_int_equal(pe_list_live(part, &l), live);
    return found;
}

static void compare(world *w)
{
    const pe_snapshot *s = pe_postings_now(&w->p);
    uint64_t live = 0, length = 0, faults = 1, expected[PE_SETS] = {0, 0}, got[PE_SETS] = {0, 0};
    uint32_t part, doc;
    OK(pe_postings_check(&w->p, NULL, &faults));
    if (faults)
        print_error("%s\n", peri_error_detail());
    assert_int_equal(faults, 0);
    uint32_t *id_at[64];
    assert_true(s->n_parts <= 64);
    for (uint32_t i = 0; i < s->n_parts; i++)
        id_at[i] = calloc(s->parts[i].docs + 1, sizeof **id_at);
    for (uint32_t i = 0; i < IDS; i++) {
        const model_doc *d = &w->docs[i];
        assert_int_equal(pe_snapshot_find(s, id_of(i), &part, &doc), d->live);
        if (!d->live)
            continue;
        assert_int_equal(pe_part_length(&s->parts[part], doc), d->length);
        id_at[part][doc] = i;
        live++;
        length += d->length;
        expected[PE_SET_ALL] += d->n;
        for (uint32_t t = 0; t < d->n && !w->payload.counts; t++)
            expected[PE_SET_MARKED] += d->reals[t] > 1;
    }
    assert_int_equal(s->live, live);
    assert_int_equal(s->length, length);
    for (int set = 0; set < PE_SETS; set++) {
        for (uint32_t term = 0; term <= TERMS; term++)
            for (uint32_t i = 0; i < s->n_parts; i++)
                got[set] += compare_list(w, &s->parts[i], set, term, id_at[i]);
        assert_int_equal(got[set], expected[set]);
    }
    for (uint32_t i = 0; i < s->n_parts; i++)
        free(id_at[i]);
}

/* Save what there is and go on with what was opened. */
static pe_segr *reopen(world *w, const char *path, int map)
{
    pe_segment_id id = {.kind = PE_FOURCC('T', 'E', 'S', 'T'), .version_major = 1};
    pe_segw *sw;
    pe_segr *sr;
    OK(pe_segw_open(&sw, &w->host, path, &id));
    OK(pe_postings_save(&w->p, sw));
    OK(pe_segw_commit(sw));
    pe_postings_destroy(&w->p);
    OK(pe_segr_open(&sr, &w->host, path, map ? PE_SEGMENT_MAP : PE_SEGMENT_COPY));
    OK(pe_postings_init(&w->p, &w->host, &w->epoch, &w->payload));
    OK(pe_postings_open(&w->p, sr, map));
    if (map)
        return sr;
    pe_segr_close(sr);
    return NULL;
}

static void run_life(int counts)
{
    world w;
    const char *path = scratch("postings.peri");
    begin_world(&w, counts, 7 + (uint64_t)counts);
    compare(&w);
    for (int round = 0; round < 4; round++) {
        pe_segr *file = NULL;
        change(&w, 9000);
        compare(&w);
        OK(pe_postings_tidy(&w.p, PE_MERGE_BOUNDED, 0, NULL, 1));
        compare(&w);
        file = reopen(&w, path, round % 2);
        compare(&w);
        change(&w, 5000);
        compare(&w);
        if (round >= 2) {
            OK(pe_postings_tidy(&w.p, UINT64_MAX, 1, NULL, 2));
            compare(&w);
            const pe_snapshot *s = pe_postings_now(&w.p);
            assert_int_equal(s->n_parts, 1);
            assert_int_equal(s->parts[0].docs, s->live);
        }
        if (file) { /* what still lies in the mapping has to leave it first */
            reopen(&w, path, 0);
            pe_segr_close(file);
        }
    }
    end_world(&w);
}

static void counts_with_positions_are_those_of_the_model(void **state)
{
    (void)state;
    run_life(1);
}

static void reals_and_marked_lists_are_those_of_the_model(void **state)
{
    (void)state;
    run_life(0);
}

static void a_snapshot_does_not_move_while_others_replace_it(void **state)
{
    (void)state;
    world w;
    begin_world(&w, 0, 99);
    change(&w, 12000);
    pe_reader *reader = pe_epoch_enter(&w.epoch);
    const pe_snapshot *held = pe_postings_now(&w.p);
    uint64_t live = held->live, seen = 0;
    uint32_t part, doc;
    for (uint32_t i = 0; i < IDS; i++)
        seen += (uint64_t)pe_snapshot_find(held, id_of(i), &part, &doc);
    assert_int_equal(seen, live);
    change(&w, 20000);
    OK(pe_postings_tidy(&w.p, UINT64_MAX, 1, NULL, 1));
    seen = 0;
    for (uint32_t i = 0; i < IDS; i++)
        seen += (uint64_t)pe_snapshot_find(held, id_of(i), &part, &doc);
    assert_int_equal(seen, live);
    pe_epoch_exit(reader);
    pe_epoch_reclaim(&w.epoch);
    compare(&w);
    end_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_with_positions_are_those_of_the_model),
        cmocka_unit_test(reals_and_marked_lists_are_those_of_the_model),
        cmocka_unit_test(a_snapshot_does_not_move_while_others_replace_it),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
