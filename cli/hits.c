#include "hits.h"
#include "json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int hits_alloc(hits *h, size_t n, size_t k)
{
    size_t total, bytes;
    *h = (hits){.n = n, .k = k};
    if (!__builtin_mul_overflow(n, k, &total) &&
        !__builtin_mul_overflow(total, sizeof(peri_hit), &bytes)) {
        h->hit = malloc(bytes ? bytes : 1);
        h->n_hits = calloc(n ? n : 1, sizeof *h->n_hits);
    }
    if (h->hit && h->n_hits)
        return CLI_OK;
    hits_free(h);
    return cli_error("no memory for %zu x %zu hits", n, k);
}

void hits_free(hits *h)
{
    free(h->hit);
    free(h->n_hits);
    *h = (hits){0};
}

static void print_json(const hits *h, size_t query, uint64_t number, const peri_buf *keys)
{
    json j = {stdout, 0};
    json_open(&j, NULL, '{');
    json_count(&j, "query", number);
    json_open(&j, "hits", '[');
    for (size_t i = 0; i < h->n_hits[query]; i++) {
        json_open(&j, NULL, '{');
        json_count(&j, "id", h->hit[query * h->k + i].id);
        if (keys)
            json_bytes(&j, "key", "key_hex", keys[i].data, keys[i].size);
        json_real(&j, "distance", (double)h->hit[query * h->k + i].distance, 9);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_close(&j, '}');
    json_end(&j);
}

static void print_table(const hits *h, size_t query, uint64_t number, const peri_buf *keys)
{
    if (h->n_hits[query] == 0)
        printf("%8llu     -\n", (unsigned long long)number);
    for (size_t i = 0; i < h->n_hits[query]; i++) {
        const peri_hit *hit = &h->hit[query * h->k + i];
        printf("%8llu  %4zu  %20llu  %12.6g", (unsigned long long)number, i + 1,
               (unsigned long long)hit->id, (double)hit->distance);
        if (keys) {
            printf("  ");
            for (size_t c = 0; c < keys[i].size; c++) { /* no control codes to the terminal */
                unsigned char byte = ((const unsigned char *)keys[i].data)[c];
                if (byte < 0x20 || byte == 0x7f)
                    printf("\\x%02x", byte);
                else
                    putchar(byte);
            }
        }
        putchar('\n');
    }
}

/* The keys of one query's hits; keys has room for k. */
static int look_up(const hits *h, hits_key_fn key, const void *from, size_t query, peri_buf *keys)
{
    for (size_t i = 0; i < h->n_hits[query]; i++) {
        peri_status status = key(from, h->hit[query * h->k + i].id, &keys[i]);
        if (status != PERI_OK)
            return cli_failed("cannot look up a key", status, NULL);
    }
    return CLI_OK;
}

int hits_print(const hits *h, hits_key_fn key, const void *from, uint64_t first, size_t n,
               int as_json)
{
    peri_buf *keys = key ? calloc(h->k, sizeof *keys) : NULL;
    int code = CLI_OK;
    if (key && !keys)
        return cli_error("no memory for %zu keys", h->k);
    if (!as_json && first == 0)
        printf("%8s  %4s  %20s  %12s%s\n", "query", "rank", "id", "distance", keys ? "  key" : "");
    for (size_t query = 0; code == CLI_OK && query < n; query++) {
        if (keys)
            code = look_up(h, key, from, query, keys);
        if (code == CLI_OK && as_json)
            print_json(h, query, first + query, keys);
        else if (code == CLI_OK)
            print_table(h, query, first + query, keys);
    }
    for (size_t i = 0; keys && i < h->k; i++)
        peri_buf_free(&keys[i]);
    free(keys);
    return code;
}

/* ---- files ---- */

static peri_status write_ids(const hits *h, peri_matrix *m, uint64_t *row)
{
    peri_status status = PERI_OK;
    for (size_t query = 0; status == PERI_OK && query < h->n; query++) {
        for (size_t i = 0; i < h->k; i++)
            row[i] = i < h->n_hits[query] ? h->hit[query * h->k + i].id : PERI_NO_ID;
        status = peri_matrix_write_ids(m, 1, row);
    }
    return status;
}

static peri_status write_distances(const hits *h, peri_matrix *m, float *row)
{
    peri_status status = PERI_OK;
    for (size_t query = 0; status == PERI_OK && query < h->n; query++) {
        for (size_t i = 0; i < h->k; i++)
            row[i] = i < h->n_hits[query] ? h->hit[query * h->k + i].distance : INFINITY;
        status = peri_matrix_write(m, 1, row);
    }
    return status;
}

static peri_status write_all(const hits *h, peri_matrix *m, void *row)
{
    peri_matrix_info info;
    peri_matrix_config config;
    peri_matrix_info_init(&info);
    peri_status status = peri_matrix_get_info(m, &info);
    if (status == PERI_OK)
        status = write_ids(h, m, row);
    if (status == PERI_OK && info.format == PERI_FORMAT_HDF5) {
        peri_matrix_config_init(&config, (uint32_t)h->k);
        config.dataset = "distances";
        config.rows = h->n;
        status = peri_matrix_next(m, &config);
        if (status == PERI_OK)
            status = write_distances(h, m, row);
    }
    return status == PERI_OK ? peri_matrix_commit(m) : status;
}

int hits_write(const hits *h, const char *path, unsigned metric)
{
    peri_matrix *m;
    peri_matrix_config config;
    char where[4608];
    cli_dataset_of(path, "neighbors", where);
    peri_matrix_config_init(&config, (uint32_t)h->k);
    config.rows = h->n;
    config.distance = cli_distance_of_metric(metric);
    if (!cli_is_ivecs(path))
        config.element = PERI_ELEMENT_I64;
    void *row = malloc(h->k * sizeof(uint64_t));
    if (!row)
        return cli_error("no memory for %zu hits", h->k);
    peri_status status = peri_matrix_create(&m, where, &config, NULL);
    if (status == PERI_OK)
        status = write_all(h, m, row);
    free(row);
    if (status == PERI_OK) {
        peri_matrix_close(m);
        return CLI_OK;
    }
    int code = cli_failed("cannot write the hits", status, NULL);
    peri_matrix_close(m);
    return code;
}
