/* Checksums of rows. Each checkpoint sums the row space it adds by blocks that end at multiples of
 * 64 KiB, the first and the last of them short: no block is ever summed again. (Summing the last
 * block anew with what a later checkpoint adds to it would save eight bytes, and let a reader see
 * a sum that does not belong to what it has.) A reader verifies all blocks of a 64 KiB when it
 * first reads there, and keeps one bit for it; the last 64 KiB, which may yet be added to, has a
 * length instead. */
#include "base/checked.h"
#include "mmap/vectors_parts.h"
#include "persist/segment_format.h"

enum { PASSED_WORDS = 4096, READ_AT_ONCE = 16 };

static uint64_t block_seed(const pe_vgen *g, uint64_t begin)
{
    return pe_mix64(pe_mix64(g->seed ^ PE_FOURCC('r', 'o', 'w', 's')) + begin);
}

static uint64_t block_end(uint64_t begin, uint64_t end)
{
    uint64_t next = (begin | (PE_VBLOCK - 1)) + 1;
    return next < end ? next : end;
}

size_t pe_vgen_blocks(uint64_t begin, uint64_t end)
{
    return end > begin ? (size_t)(((end - 1) >> PE_VBLOCK_SHIFT) - (begin >> PE_VBLOCK_SHIFT)) + 1
                       : 0;
}

peri_status pe_vgen_sum_blocks(const pe_vgen *g, uint64_t begin, uint64_t end, unsigned char *sums)
{
    if (begin == end)
        return PERI_OK;
    /* Read, not mapped: pages that were written by pwrite are not in the page table yet, and a
     * fault for each costs more than the copy. */
    unsigned char *buf = pe_alloc_aligned(g->host, READ_AT_ONCE * PE_VBLOCK, PE_VBLOCK);
    if (!buf)
        return PERI_ERR_NOMEM;
    peri_status status = PERI_OK;
    while (begin < end && status == PERI_OK) {
        uint64_t stop = begin;
        for (int i = 0; i < READ_AT_ONCE && stop < end; i++)
            stop = block_end(stop, end);
        status = pe_vgen_pread(g, buf, (size_t)(stop - begin), begin);
        for (uint64_t at = begin, next; at < stop && status == PERI_OK; at = next) {
            next = block_end(at, end);
            uint64_t sum =
                pe_segment_hash(buf + (at - begin), (size_t)(next - at), block_seed(g, at));
            pe_put_le64(sums, sum);
            sums += 8;
        }
        begin = stop;
    }
    pe_free(g->host, buf, READ_AT_ONCE * PE_VBLOCK);
    return status;
}

peri_status pe_vgen_reserve_blocks(pe_vgen *g, uint64_t begin, uint64_t end)
{
    size_t n = atomic_load_explicit(&g->n_blocks, memory_order_relaxed);
    size_t words = (size_t)(end >> PE_VBLOCK_SHIFT) / 64 + 1;
    PE_TRY(pe_array_reserve(&g->blocks, g->epoch, n + pe_vgen_blocks(begin, end), 0));
    /* Readers set bits at any time; one that is set while the words move to a larger array is lost,
     * and the block verified once more. Room for 16 GiB at once makes that rare. */
    return pe_array_reserve(&g->passed, g->epoch, words > PASSED_WORDS ? words : PASSED_WORDS, 0);
}

void pe_vgen_add_blocks(pe_vgen *g, uint64_t begin, uint64_t end, const unsigned char *sums)
{
    size_t n = atomic_load_explicit(&g->n_blocks, memory_order_relaxed);
    for (; begin < end; begin = block_end(begin, end), sums += 8) {
        pe_vblock b = {begin, pe_get_le64(sums)};
        memcpy(pe_array_at(&g->blocks, n++), &b, sizeof b);
    }
    atomic_store_explicit(&g->n_blocks, n, memory_order_release);
}

static pe_vblock block_at(const pe_vgen *g, size_t i)
{
    pe_vblock b;
    memcpy(&b, pe_array_at(&g->blocks, i), sizeof b);
    return b;
}

/* The block that holds this byte, of those before `n`. */
static size_t find_block(const pe_vgen *g, size_t n, uint64_t at)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (block_at(g, mid).begin <= at)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* Verify row space [begin, end), which lies in one 64 KiB and starts and ends with a block. */
static peri_status verify_blocks(const pe_vgen *g, size_t n, uint64_t begin, uint64_t end)
{
    const unsigned char *base = pe_vgen_mapping(g)->base;
    for (size_t i = find_block(g, n, begin); i < n && begin < end; i++) {
        pe_vblock b = block_at(g, i);
        uint64_t stop = i + 1 < n ? block_at(g, i + 1).begin : end;
        if (b.begin != begin || stop > end || stop <= begin)
            return pe_fail(PERI_ERR_INTERNAL, "%s: blocks of rows are out of order", g->file.path);
        if (pe_segment_hash(base + begin, (size_t)(stop - begin), block_seed(g, begin)) != b.sum)
            return pe_fail(PERI_ERR_CORRUPT,
                           "%s: rows %llu to %llu are damaged (bytes %llu to %llu of the rows)",
                           g->file.path, (unsigned long long)(begin / g->stride),
                           (unsigned long long)((stop - 1) / g->stride), (unsigned long long)begin,
                           (unsigned long long)stop);
        begin = stop;
    }
    return PERI_OK;
}

peri_status pe_vgen_verify_more(const pe_vgen *shared, uint64_t at, uint64_t n)
{
    pe_vgen *g = (pe_vgen *)(uintptr_t)shared; /* what has passed is noted by reads */
    uint64_t trusted = atomic_load_explicit(&g->trusted, memory_order_acquire);
    uint64_t end = at + n < trusted ? at + n : trusted;
    size_t all = atomic_load_explicit(&g->n_blocks, memory_order_acquire);
    size_t n_blocks = find_block(g, all, trusted - 1) + 1;
    for (uint64_t block = at >> PE_VBLOCK_SHIFT; block << PE_VBLOCK_SHIFT < end; block++) {
        _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)pe_array_at(&g->passed, block / 64);
        uint64_t from = block << PE_VBLOCK_SHIFT, to = from + PE_VBLOCK, bit = 1ull << block % 64;
        if (atomic_load_explicit(word, memory_order_relaxed) & bit)
            continue;
        if (to <= trusted) {
            PE_TRY(verify_blocks(g, n_blocks, from, to));
            atomic_fetch_or_explicit(word, bit, memory_order_relaxed);
            continue;
        }
        if (atomic_load_explicit(&g->tail_passed, memory_order_acquire) >= end)
            continue;
        PE_TRY(verify_blocks(g, n_blocks, from, trusted));
        atomic_store_explicit(&g->tail_passed, trusted, memory_order_release);
    }
    return PERI_OK;
}
