/* Versions as they lie in files: building, bounding, verifying, walking back. */
#include "base/checked.h"
#include "history/history_parts.h"

size_t pe_op_size(size_t key, size_t value, uint64_t offset, uint32_t *value_at)
{
    size_t at = pe_round_up(PE_OP_HEAD + key, 8);
    if (value >= PE_OP_LARGE)
        at += (size_t)(-(offset + at) & 63);
    *value_at = (uint32_t)at;
    return pe_round_up(at + value, 8);
}

static uint64_t op_sum(const unsigned char *b, uint64_t seed, uint64_t offset, uint32_t value_at,
                       uint32_t size)
{
    seed = pe_mix64(seed + offset);
    return pe_segment_hash(b + 8, value_at - 8, seed ^ pe_segment_hash(b + value_at, size, seed));
}

size_t pe_op_put(unsigned char *b, uint64_t seed, uint64_t offset, const pe_version *v)
{
    uint32_t at;
    size_t size = pe_op_size(v->key.size, v->size, offset, &at);
    pe_put_le64(b + 8, v->prev);
    pe_put_le64(b + 16, v->sequence);
    pe_put_le64(b + 24, (uint64_t)v->time);
    pe_put_le32(b + 32, v->size);
    pe_put_le32(b + 36, at);
    pe_put_le32(b + 40, v->depth);
    pe_put_le16(b + 44, (uint16_t)v->key.size);
    b[46] = v->kind;
    b[47] = v->tag;
    memcpy(b + PE_OP_HEAD, v->key.data, v->key.size);
    memset(b + PE_OP_HEAD + v->key.size, 0, at - PE_OP_HEAD - v->key.size);
    if (v->size)
        memcpy(b + at, v->value, v->size);
    memset(b + at + v->size, 0, size - at - v->size);
    pe_put_le64(b, op_sum(b, seed, offset, at, v->size));
    return size;
}

int pe_op_get(const unsigned char *b, uint64_t room, pe_version *v, uint64_t *size)
{
    if (room < PE_OP_HEAD)
        return 0;
    uint32_t at = pe_get_le32(b + 36);
    v->prev = pe_get_le64(b + 8);
    v->sequence = pe_get_le64(b + 16);
    v->time = (int64_t)pe_get_le64(b + 24);
    v->size = pe_get_le32(b + 32);
    v->depth = pe_get_le32(b + 40);
    v->key = (peri_slice){b + PE_OP_HEAD, pe_get_le16(b + 44)};
    v->kind = b[46];
    v->tag = b[47];
    v->value = b + at;
    if (at > room || v->size > room - at || at % 8 || PE_OP_HEAD + v->key.size > at ||
        v->key.size == 0 || v->kind < PE_OP_PUT || v->kind > PE_OP_BLOCK)
        return 0;
    *size = pe_round_up((size_t)at + v->size, 8);
    return *size <= room;
}

int pe_op_verify(const unsigned char *b, uint64_t seed, uint64_t offset)
{
    return op_sum(b, seed, offset, pe_get_le32(b + 36), pe_get_le32(b + 32)) == pe_get_le64(b);
}

pe_jfile *pe_view_file(const pe_view *v, uint64_t number)
{
    size_t low = 0, high = pe_files_count(v->files);
    if (high) { /* the newest is asked for most */
        pe_jfile *f = pe_files_at(v->files, high - 1);
        if (f->number == number)
            return f;
    }
    while (low < high) {
        size_t mid = (low + high) / 2;
        pe_jfile *f = pe_files_at(v->files, mid);
        if (f->number == number)
            return f;
        if (f->number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

typedef struct spot {
    const unsigned char *b;
    uint64_t room, offset, seed;
    _Atomic uint64_t *verified;
    const char *path;
} spot;

static peri_status damaged(const spot *s, const char *what)
{
    return pe_fail(PERI_ERR_CORRUPT, "%s: at byte %llu: %s", s->path, (unsigned long long)s->offset,
                   what);
}

/* Where a place is, and how many bytes of records lie from there on. */
static peri_status find_spot(const pe_history *h, const pe_view *v, uint64_t place, spot *s)
{
    uint64_t number = place >> PE_PLACE_BITS;
    s->offset = (place & PE_PLACE_OFFSET) * 8;
    if (v->base && v->base->number == number) {
        s->path = pe_segr_path(v->base->segment);
        s->seed = v->base->seed;
        s->verified = v->base->verified;
        if (s->offset >= v->base->size)
            return damaged(s, "a place beyond the versions");
        s->b = v->base->data + s->offset;
        s->room = v->base->size - s->offset;
        return PERI_OK;
    }
    pe_jfile *f = pe_view_file(v, number);
    if (!f)
        return pe_fail(PERI_ERR_CORRUPT, "%s: a place in file %llu, which is none of its files",
                       h->journal->dir, (unsigned long long)number);
    s->path = f->path;
    s->seed = f->seed;
    s->verified = f->verified;
    if (s->offset < PE_JOURNAL_HEADER || s->offset >= f->map_size)
        return damaged(s, "a place beyond the records");
    s->b = pe_journal_bytes(h->journal, f, s->offset, &s->room);
    if (!s->b)
        return damaged(s, "a place beyond the records");
    if (s->b != f->map + s->offset)
        s->verified = NULL;
    return PERI_OK;
}

/* A large value is hashed once, not each time: what begins in one block of 64 KiB and is as large
 * as that can only be one version. */
static int verify_spot(const spot *s, uint32_t size)
{
    if (size < PE_OP_VERIFIED_ONCE || !s->verified)
        return pe_op_verify(s->b, s->seed, s->offset);
    _Atomic uint64_t *word = &s->verified[(s->offset >> 16) / 64];
    uint64_t bit = (uint64_t)1 << (s->offset >> 16) % 64;
    if (atomic_load_explicit(word, memory_order_relaxed) & bit)
        return 1;
    if (!pe_op_verify(s->b, s->seed, s->offset))
        return 0;
    atomic_fetch_or_explicit(word, bit, memory_order_relaxed);
    return 1;
}

peri_status pe_view_version(const pe_history *h, const pe_view *v, uint64_t place, pe_version *out)
{
    spot s;
    uint64_t size;
    PE_TRY(find_spot(h, v, place, &s));
    /* A version of up to 256 bytes arrives in the time of one miss, not of one after the other. */
    if (s.room >= 256) {
        __builtin_prefetch(s.b + 64);
        __builtin_prefetch(s.b + 128);
        __builtin_prefetch(s.b + 192);
    }
    if (!pe_op_get(s.b, s.room, out, &size) || !verify_spot(&s, out->size))
        return damaged(&s, "the checksum of a version fails");
    out->place = place;
    return PERI_OK;
}

peri_status pe_view_peek(const pe_history *h, const pe_view *v, uint64_t place, pe_version *out)
{
    spot s;
    uint64_t size;
    PE_TRY(find_spot(h, v, place, &s));
    if (!pe_op_get(s.b, s.room, out, &size))
        return damaged(&s, "no version is here");
    out->place = place;
    return PERI_OK;
}

peri_status pe_view_key(const pe_history *h, const pe_view *v, uint64_t place, int verify,
                        peri_slice *key)
{
    spot s;
    pe_version at;
    uint64_t size;
    PE_TRY(find_spot(h, v, place, &s));
    if (!pe_op_get(s.b, s.room, &at, &size) || (verify && !verify_spot(&s, at.size)))
        return damaged(&s, "the checksum of a version fails");
    *key = at.key;
    return PERI_OK;
}

/* Sequences fall along a chain, and within a batch places do: whatever a damaged or forged file
 * says, the walk ends. */
peri_status pe_view_former(const pe_history *h, const pe_view *v, pe_version *at)
{
    pe_version was = *at;
    if (was.prev == 0)
        return PERI_ERR_NOT_FOUND;
    uint64_t number = was.prev >> PE_PLACE_BITS;
    if ((v->base && v->base->number == number) || pe_view_file(v, number))
        PE_TRY(pe_view_version(h, v, was.prev, at));
    else if (v->base)
        PE_TRY(pe_base_find(h, v, was.key, at));
    else
        return pe_fail(PERI_ERR_CORRUPT, "%s: a former version in file %llu, which is gone",
                       h->journal->dir, (unsigned long long)number);
    if (at->key.size != was.key.size || memcmp(at->key.data, was.key.data, was.key.size) != 0 ||
        at->sequence > was.sequence || (at->sequence == was.sequence && at->place >= was.place))
        return pe_fail(PERI_ERR_CORRUPT, "%s: the versions of a key do not follow",
                       h->journal->dir);
    return PERI_OK;
}
