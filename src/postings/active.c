/* The active segment: one window of documents whose lists grow in an arena.
 *
 * Everything that a reader may look at lies in the arena and stays there until the segment goes,
 * so nothing need be retired while lists and tables grow: at most half of the arena is what was
 * grown out of, and sealing leaves all of it behind. */
#include "postings/postings_parts.h"
#include "base/checked.h"
#include "base/rng.h"

enum { CHUNK = 256 << 10, TABLE_MIN = 256, BLOCK_MIN = 4 };

/* ---- the arena ---- */

static peri_status arena_reserve(pe_active *a, size_t size)
{
    if (a->chunk && a->chunk->size - a->chunk->used >= size)
        return PERI_OK;
    size_t whole;
    if (pe_add_size(size, sizeof(pe_arena_chunk) + PE_ALIGN, &whole))
        return pe_fail(PERI_ERR_NOMEM, "a document of %zu bytes", size);
    whole = whole < CHUNK ? CHUNK : whole;
    pe_arena_chunk *c = pe_alloc(a->host, whole);
    if (!c)
        return PERI_ERR_NOMEM;
    *c = (pe_arena_chunk){a->chunk, whole, pe_round_up(sizeof *c, 8)};
    a->chunk = c;
    return PERI_OK;
}

/* Aligned to 8; the room is reserved. */
static void *arena_take(pe_active *a, size_t size)
{
    unsigned char *p = (unsigned char *)a->chunk + a->chunk->used;
    a->chunk->used += pe_round_up(size, 8);
    return p;
}

/* ---- making ---- */

static size_t table_bytes(size_t slots)
{
    return sizeof(pe_terms) + slots * sizeof(_Atomic(pe_term *));
}

/* Takes from the arena, whose room is reserved. */
static pe_terms *new_table(pe_active *a, uint32_t slots)
{
    pe_terms *t = arena_take(a, table_bytes(slots));
    memset(t, 0, table_bytes(slots));
    t->mask = slots - 1;
    return t;
}

peri_status pe_active_create(pe_active **out, pe_host *host, int counts)
{
    pe_active *a = pe_calloc(host, sizeof *a);
    *out = NULL;
    if (!a)
        return PERI_ERR_NOMEM;
    a->host = host;
    a->counts = counts;
    peri_status status = arena_reserve(a, PE_SETS * pe_round_up(table_bytes(TABLE_MIN), 8));
    if (status != PERI_OK) {
        pe_active_destroy(a);
        return status;
    }
    for (int set = 0; set < PE_SETS; set++)
        atomic_store_explicit(&a->terms[set], new_table(a, TABLE_MIN), memory_order_relaxed);
    *out = a;
    return PERI_OK;
}

void pe_active_destroy(pe_active *a)
{
    if (!a)
        return;
    for (pe_arena_chunk *c = a->chunk, *next; c; c = next) {
        next = c->next;
        pe_free(a->host, c, c->size);
    }
    pe_free(a->host, a, sizeof *a);
}

/* ---- terms ---- */

static pe_term *find_term(const pe_terms *t, uint32_t term)
{
    for (uint64_t i = pe_mix64(term);; i++) {
        pe_term *at = atomic_load_explicit(&t->slot[i & t->mask], memory_order_acquire);
        if (!at || at->term == term)
            return at;
    }
}

static void enter_term(pe_terms *t, pe_term *term)
{
    uint64_t i = pe_mix64(term->term);
    while (atomic_load_explicit(&t->slot[i & t->mask], memory_order_relaxed))
        i++;
    atomic_store_explicit(&t->slot[i & t->mask], term, memory_order_release);
    t->used++;
}

/* Room for n more terms in a table that stays at most three quarters full. */
static peri_status widen_table(pe_active *a, int set, uint32_t n)
{
    pe_terms *t = atomic_load_explicit(&a->terms[set], memory_order_relaxed);
    uint64_t slots = (uint64_t)t->mask + 1, want = (uint64_t)t->used + n;
    if (want <= slots / 4 * 3)
        return PERI_OK;
    while (want > slots / 4 * 3)
        slots *= 2;
    if (slots > UINT32_MAX / 2)
        return pe_fail(PERI_ERR_FULL, "%llu terms in one segment", (unsigned long long)want);
    PE_TRY(arena_reserve(a, table_bytes((size_t)slots)));
    pe_terms *wide = new_table(a, (uint32_t)slots);
    for (uint32_t i = 0; i <= t->mask; i++) {
        pe_term *term = atomic_load_explicit(&t->slot[i], memory_order_relaxed);
        if (term)
            enter_term(wide, term);
    }
    atomic_store_explicit(&a->terms[set], wide, memory_order_release);
    return PERI_OK;
}

uint32_t pe_active_terms(const pe_active *a, int set, uint32_t *terms, uint32_t n)
{
    const pe_terms *t = atomic_load_explicit(&a->terms[set], memory_order_acquire);
    uint32_t found = 0;
    for (uint32_t i = 0; i <= t->mask; i++) {
        pe_term *term = atomic_load_explicit(&t->slot[i], memory_order_acquire);
        if (!term)
            continue;
        if (found < n)
            terms[found] = term->term;
        found++;
    }
    return found;
}

/* ---- appending ---- */

static size_t block_bytes(uint32_t room, int positions)
{
    size_t each = sizeof(uint32_t) + sizeof(uint16_t) + (positions ? sizeof(void *) : 0);
    return sizeof(pe_block) + 8 + room * each;
}

static pe_block *block_of(const pe_term *t)
{
    return t ? atomic_load_explicit(&t->block, memory_order_relaxed) : NULL;
}

/* Postings that the next block of a term has room for; 0 when the one that is there has. */
static uint32_t next_room(const pe_term *t)
{
    const pe_block *b = block_of(t);
    if (!b)
        return BLOCK_MIN;
    return atomic_load_explicit(&b->n, memory_order_relaxed) < b->room ? 0 : b->room * 2;
}

static int is_in(const pe_doc *doc, int set, uint32_t i)
{
    return set == PE_SET_ALL || (doc->mark && doc->mark[i]);
}

static peri_status reserve_set(pe_active *a, const pe_doc *doc, int set, pe_term **found,
                               size_t *bytes)
{
    const pe_terms *t = atomic_load_explicit(&a->terms[set], memory_order_relaxed);
    int positions = set == PE_SET_ALL && doc->positions;
    uint32_t fresh = 0;
    for (uint32_t i = 0; i < doc->n; i++) {
        found[i] = NULL;
        if (!is_in(doc, set, i))
            continue;
        found[i] = find_term(t, doc->terms[i]);
        if (!found[i]) {
            fresh++;
            *bytes += pe_round_up(sizeof(pe_term), 8);
        }
        uint32_t room = next_room(found[i]);
        if (room)
            *bytes += pe_round_up(block_bytes(room, positions), 8);
        if (positions)
            *bytes += pe_round_up(doc->position_sizes[i], 8);
    }
    return widen_table(a, set, fresh);
}

peri_status pe_active_reserve(pe_active *a, const pe_doc *doc, pe_term **found)
{
    size_t bytes = pe_round_up(doc->own_size, 8);
    PE_TRY(reserve_set(a, doc, PE_SET_ALL, found, &bytes));
    if (doc->mark)
        PE_TRY(reserve_set(a, doc, PE_SET_MARKED, found + doc->n, &bytes));
    return arena_reserve(a, bytes);
}

static pe_block *grow_block(pe_active *a, pe_term *t, uint32_t room, int positions)
{
    const pe_block *old = block_of(t);
    pe_block *b = arena_take(a, block_bytes(room, positions));
    uint32_t n = old ? atomic_load_explicit(&old->n, memory_order_relaxed) : 0;
    unsigned char *after = (unsigned char *)(b->values + room);
    b->room = room;
    b->positions = NULL;
    if (positions) {
        b->positions = (void *)pe_round_up((uintptr_t)after, 8);
        after = (unsigned char *)(b->positions + room);
    }
    b->ids = (void *)after;
    atomic_store_explicit(&b->n, n, memory_order_relaxed);
    uint32_t max = old ? atomic_load_explicit(&old->max, memory_order_relaxed) : 0;
    uint32_t min = old ? atomic_load_explicit(&old->min, memory_order_relaxed) : 0;
    atomic_store_explicit(&b->max, max, memory_order_relaxed);
    atomic_store_explicit(&b->min, min, memory_order_relaxed);
    if (n) {
        memcpy(b->ids, old->ids, n * sizeof *b->ids);
        memcpy(b->values, old->values, n * sizeof *b->values);
        if (positions)
            memcpy(b->positions, old->positions, n * sizeof *b->positions);
    }
    atomic_store_explicit(&t->block, b, memory_order_release);
    return b;
}

static float as_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Bounds first, then the posting, then the count that shows it. */
static void push(pe_block *b, uint16_t doc, uint32_t value, float real)
{
    uint32_t n = atomic_load_explicit(&b->n, memory_order_relaxed), bits;
    memcpy(&bits, &real, sizeof bits);
    if (real > as_float(atomic_load_explicit(&b->max, memory_order_relaxed)))
        atomic_store_explicit(&b->max, bits, memory_order_relaxed);
    if (real < as_float(atomic_load_explicit(&b->min, memory_order_relaxed)))
        atomic_store_explicit(&b->min, bits, memory_order_relaxed);
    b->ids[n] = doc;
    b->values[n] = value;
    atomic_store_explicit(&b->n, n + 1, memory_order_release);
}

static void append_set(pe_active *a, const pe_doc *doc, int set, pe_term **found)
{
    pe_terms *table = atomic_load_explicit(&a->terms[set], memory_order_relaxed);
    int positions = set == PE_SET_ALL && doc->positions;
    for (uint32_t i = 0; i < doc->n; i++) {
        if (!is_in(doc, set, i))
            continue;
        pe_term *t = found[i], *fresh = NULL;
        uint32_t room = next_room(t), value;
        if (!t) {
            t = fresh = arena_take(a, sizeof *t);
            t->term = doc->terms[i];
            atomic_store_explicit(&t->block, NULL, memory_order_relaxed);
        }
        pe_block *b = room ? grow_block(a, t, room, positions) : block_of(t);
        memcpy(&value, (const unsigned char *)doc->values + i * sizeof value, sizeof value);
        if (positions) {
            unsigned char *bytes = arena_take(a, doc->position_sizes[i]);
            memcpy(bytes, doc->positions[i], doc->position_sizes[i]);
            b->positions[atomic_load_explicit(&b->n, memory_order_relaxed)] = bytes;
        }
        push(b, (uint16_t)a->docs, value, a->counts ? (float)value : as_float(value));
        if (fresh)
            enter_term(table, fresh);
    }
}

static void bind_id(pe_active *a, uint64_t id)
{
    uint32_t mask = 2 * PE_WINDOW - 1;
    for (uint64_t i = pe_mix64(id);; i++) {
        _Atomic uint32_t *at = &a->map[i & mask];
        uint32_t doc = atomic_load_explicit(at, memory_order_relaxed);
        if (doc != 0 && a->ids[doc - 1] != id)
            continue;
        a->former[a->docs] = (uint16_t)doc;
        atomic_store_explicit(at, a->docs + 1, memory_order_release);
        return;
    }
}

void pe_active_append(pe_active *a, const pe_doc *doc, pe_term **found)
{
    void *own = NULL;
    if (doc->own_size) {
        own = arena_take(a, doc->own_size);
        memcpy(own, doc->own, doc->own_size);
    }
    a->ids[a->docs] = doc->id;
    a->lengths[a->docs] = doc->length;
    a->own[a->docs] = own;
    append_set(a, doc, PE_SET_ALL, found);
    if (doc->mark)
        append_set(a, doc, PE_SET_MARKED, found + doc->n);
    bind_id(a, doc->id);
    a->docs++;
}

/* ---- reading ---- */

uint32_t pe_active_latest(const pe_active *a, uint64_t id)
{
    uint32_t mask = 2 * PE_WINDOW - 1;
    for (uint64_t i = pe_mix64(id);; i++) {
        uint32_t doc = atomic_load_explicit(&a->map[i & mask], memory_order_acquire);
        if (doc == 0 || a->ids[doc - 1] == id)
            return doc - 1;
    }
}

int pe_active_list(const pe_active *a, uint32_t docs, int set, uint32_t term, pe_list *out)
{
    const pe_term *t = find_term(atomic_load_explicit(&a->terms[set], memory_order_acquire), term);
    if (!t)
        return 0;
    const pe_block *b = atomic_load_explicit(&t->block, memory_order_acquire);
    uint32_t n = atomic_load_explicit(&b->n, memory_order_acquire);
    if (n && b->ids[n - 1] >= docs) { /* cut off what is newer than the snapshot */
        uint32_t low = 0, high = n - 1;
        while (low < high) {
            uint32_t mid = (low + high) / 2;
            if (b->ids[mid] < docs)
                low = mid + 1;
            else
                high = mid;
        }
        n = low;
    }
    if (n == 0)
        return 0;
    float max = as_float(atomic_load_explicit(&b->max, memory_order_relaxed));
    float min = as_float(atomic_load_explicit(&b->min, memory_order_relaxed));
    *out = (pe_list){.n = n, .n_runs = 1, .encoding = a->counts ? PE_ENC_U32 : PE_ENC_F32};
    out->one = (pe_run){0, (uint16_t)(n - 1), pe_bound_up(max), pe_bound_down(min)};
    out->ids = b->ids;
    out->values = b->values;
    out->each = b->positions;
    return 1;
}
