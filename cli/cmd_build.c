#include "args.h"
#include "json.h"
#include "progress.h"
#include "source.h"

#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = 256 << 20 }; /* bytes of rows handed over at a time: bulk building likes it large */

/* In the order of what they stand for. */
static const char *const kind_words[] = {"hnsw", "flat", "gwi", "cascade", NULL};
static const char *const preset_words[] = {"large", "small", "high_recall", "fast_search", NULL};
static const char *const layout_words[] = {"auto", "g", "q", NULL};
static const char *const build_words[] = {"auto", "search", "bulk", NULL};

enum { KIND_HNSW, KIND_FLAT, KIND_GWI, KIND_CASCADE };

typedef struct build {
    const char *data, *out, *ids_path;
    int kind, metric, scalar, codes, calibrate, quiet, json;
    uint64_t m, m_max, ef_construction, seed, threads, limit;
    uint64_t branching, levels, wells, nprobe, rounds, bits;
    int preset, layout, how;
    uint64_t hyperplanes, bucket_capacity;
    double alpha;
    source rows, ids;
    peri_index *index;
    progress bar;
    uint64_t n_rows;
    double build_seconds, calibrate_seconds;
} build;

static int parse(build *b, int argc, char **argv)
{
    const arg_option options[] = {
        {'o', "output", "INDEX", "the file to write (required)", ARG_TEXT, &b->out, 0, 0, NULL},
        {0, "kind", "KIND", "hnsw (default), flat, gwi or cascade", ARG_CHOICE, &b->kind, 0, 0,
         kind_words},
        {0, "metric", "METRIC", "l2, ip or cosine; default: what DATA says, else l2", ARG_CHOICE,
         &b->metric, 0, 0, cli_metric_words},
        {0, "scalar", "TYPE", "how rows are kept: f32 (default), f16, bf16 or i8", ARG_CHOICE,
         &b->scalar, 0, 0, cli_scalar_words},
        {0, "codes", "CODES", "all but flat: what traversal reads: auto (default), none or 8bit",
         ARG_CHOICE, &b->codes, 0, 0, cli_codes_words},
        {0, "m", "N", "hnsw: links per node, 2 to 256 (16)", ARG_COUNT, &b->m, 2, 256, NULL},
        {0, "m-max", "N", "hnsw: links at the dense layer, up to 512 (2 m)", ARG_COUNT, &b->m_max,
         2, 512, NULL},
        {0, "ef-construction", "N", "hnsw: candidates kept while building (200)", ARG_COUNT,
         &b->ef_construction, 8, 4096, NULL},
        {0, "alpha", "X", "hnsw: diversity of links, 0.5 to 2", ARG_REAL, &b->alpha, 0.5, 2, NULL},
        {0, "wells", "N", "gwi: wells aimed at (4 roots of the rows)", ARG_COUNT, &b->wells, 2,
         1048576, NULL},
        {0, "branching", "N", "gwi: with --levels, wells aimed at: N^levels (16)", ARG_COUNT,
         &b->branching, 2, 1024, NULL},
        {0, "levels", "N", "gwi: see --branching (3)", ARG_COUNT, &b->levels, 1, 16, NULL},
        {0, "nprobe", "N", "gwi: wells a query scans (32); cascade: buckets it starts from (8)",
         ARG_COUNT, &b->nprobe, 1, 1048576, NULL},
        {0, "rounds", "N", "gwi: rounds of k-means (10)", ARG_COUNT, &b->rounds, 1, 100, NULL},
        {0, "bits", "N", "gwi: bits a dimension in the wells, 1, 2 or 4", ARG_COUNT, &b->bits, 1, 4,
         NULL},
        {0, "preset", "PRESET", "cascade: large (default), small, high_recall or fast_search",
         ARG_CHOICE, &b->preset, 0, 0, preset_words},
        {0, "hyperplanes", "N", "cascade: bits of a row's hash, 1 to 32 (16)", ARG_COUNT,
         &b->hyperplanes, 1, 32, NULL},
        {0, "bucket-capacity", "N", "cascade: rows of a bucket before it splits (128)", ARG_COUNT,
         &b->bucket_capacity, 8, 4096, NULL},
        {0, "layout", "LAYOUT", "hnsw, cascade: auto (default), g or q", ARG_CHOICE, &b->layout, 0,
         0, layout_words},
        {0, "build", "HOW", "hnsw: auto (default), bulk or search", ARG_CHOICE, &b->how, 0, 0,
         build_words},
        {0, "seed", "N", "all but flat: seed of what is drawn", ARG_COUNT, &b->seed, 1, 0x1p63,
         NULL},
        {0, "ids", "FILE", "ids of the rows; default: 0 to rows - 1", ARG_TEXT, &b->ids_path, 0, 0,
         NULL},
        {0, "limit", "N", "only the first N rows", ARG_COUNT, &b->limit, 1, 0x1p63, NULL},
        {0, "calibrate", NULL, "measure the curve that search --target-recall needs", ARG_FLAG,
         &b->calibrate, 0, 0, NULL},
        {0, "threads", "N", "threads, 0 = all cores (default)", ARG_COUNT, &b->threads, 0, 256,
         NULL},
        {0, "json", NULL, "print the summary as JSON", ARG_FLAG, &b->json, 0, 0, NULL},
        {'q', "quiet", NULL, "no progress bar, no summary", ARG_FLAG, &b->quiet, 0, 0, NULL},
    };
    const arg_command command = {
        "build",
        "DATA -o INDEX",
        "Make an index of the vectors in DATA (.hdf5 .npy .fvecs .bvecs; FILE.hdf5:DATASET,\n"
        "default dataset train) and write it to INDEX.",
        options,
        sizeof options / sizeof *options,
        1,
        1};
    int n, done = args_parse(&command, argc, argv, &b->data, &n);
    if (done >= 0)
        return done;
    if (!b->out)
        return cli_usage("build", "--output is missing: where does the index go?");
    if (b->kind == KIND_FLAT && (b->codes || b->seed))
        return cli_usage("build", "--codes and --seed are for every kind but flat");
    if (b->kind != KIND_HNSW && (b->m || b->m_max || b->ef_construction || b->alpha > 0 || b->how))
        return cli_usage(
            "build", "--m, --m-max, --ef-construction, --alpha and --build are for --kind hnsw");
    if (b->kind != KIND_GWI && (b->wells || b->branching || b->levels || b->rounds || b->bits))
        return cli_usage("build",
                         "--wells, --branching, --levels, --rounds and --bits are for --kind gwi");
    if (b->kind != KIND_CASCADE && (b->preset || b->hyperplanes || b->bucket_capacity))
        return cli_usage("build",
                         "--preset, --hyperplanes and --bucket-capacity are for --kind cascade");
    if (b->kind != KIND_GWI && b->kind != KIND_CASCADE && b->nprobe)
        return cli_usage("build", "--nprobe is for --kind gwi and cascade");
    if (b->kind != KIND_HNSW && b->kind != KIND_CASCADE && b->layout)
        return cli_usage("build", "--layout is for --kind hnsw and cascade");
    if (b->m && b->m_max && b->m_max < b->m)
        return cli_usage("build", "--m-max is %llu, expected at least --m, which is %llu",
                         (unsigned long long)b->m_max, (unsigned long long)b->m);
    return -1;
}

static int choose_metric(build *b, unsigned *metric)
{
    const char *distance = b->rows.info.distance;
    *metric = b->metric >= 0 ? (unsigned)b->metric + 1 : PERI_METRIC_L2;
    if (b->metric < 0 && *distance) {
        *metric = cli_metric_of_distance(distance);
        if (!*metric)
            return cli_error("%s: distance '%s' is none of l2, ip, cosine: say --metric", b->data,
                             distance);
    }
    return CLI_OK;
}

static peri_status create_hnsw(build *b, const peri_space *space)
{
    peri_hnsw_config config;
    peri_hnsw_config_init(&config);
    config.m = (uint32_t)b->m;
    config.m_max = (uint32_t)b->m_max;
    config.ef_construction = (uint32_t)b->ef_construction;
    config.codes = (uint16_t)b->codes;
    config.layout = (uint16_t)b->layout;
    config.build = (uint32_t)b->how;
    config.alpha = (float)b->alpha;
    config.seed = b->seed;
    return peri_hnsw_create(&b->index, space, &config, NULL);
}

static peri_status create_gwi(build *b, const peri_space *space)
{
    peri_gwi_config config;
    peri_gwi_config_init(&config);
    config.branching = (uint32_t)b->branching;
    config.levels = (uint32_t)b->levels;
    config.wells = (uint32_t)b->wells;
    config.nprobe = (uint32_t)b->nprobe;
    config.rounds = (uint32_t)b->rounds;
    config.bits = (uint16_t)b->bits;
    config.codes = (uint16_t)b->codes;
    config.seed = b->seed;
    return peri_gwi_create(&b->index, space, &config, NULL);
}

static peri_status create_cascade(build *b, const peri_space *space)
{
    peri_cascade_config config;
    peri_cascade_config_init(&config);
    config.preset = (uint32_t)b->preset;
    config.num_hyperplanes = (uint32_t)b->hyperplanes;
    config.bucket_capacity = (uint32_t)b->bucket_capacity;
    config.nprobe = (uint32_t)b->nprobe;
    config.codes = (uint16_t)b->codes;
    config.layout = (uint16_t)b->layout;
    config.seed = b->seed;
    return peri_cascade_create(&b->index, space, &config, NULL);
}

static int create(build *b)
{
    peri_space space;
    unsigned metric;
    int code = choose_metric(b, &metric);
    if (code != CLI_OK)
        return code;
    if (b->rows.info.dim > PERI_MAX_DIM)
        return cli_error("%s: dimension %u, an index takes 1 to %d", b->data, b->rows.info.dim,
                         PERI_MAX_DIM);
    peri_space_init(&space, b->rows.info.dim, (uint16_t)metric);
    space.scalar = (uint16_t)(b->scalar + 1);
    peri_status status = b->kind == KIND_FLAT      ? peri_flat_create(&b->index, &space, NULL)
                         : b->kind == KIND_GWI     ? create_gwi(b, &space)
                         : b->kind == KIND_CASCADE ? create_cascade(b, &space)
                                                   : create_hnsw(b, &space);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot create the index", status, NULL);
}

static int open_input(build *b)
{
    int code = source_need(&b->rows, b->data, SOURCE_VECTORS, b->limit);
    if (code != CLI_OK)
        return code;
    b->n_rows = b->rows.left;
    if (!b->ids_path)
        return CLI_OK;
    code = source_need(&b->ids, b->ids_path, SOURCE_IDS, b->n_rows);
    if (code == CLI_OK && (b->ids.info.dim != 1 || b->ids.left != b->n_rows))
        code = cli_error("%s: %llu x %u ids, expected %llu x 1", b->ids_path,
                         (unsigned long long)b->ids.info.rows, b->ids.info.dim,
                         (unsigned long long)b->n_rows);
    return code;
}

static int put_block(build *b, uint64_t first, size_t n, float *rows, uint64_t *ids)
{
    peri_task task;
    peri_status status = source_read(&b->rows, n, rows);
    if (status != PERI_OK)
        return source_failed(&b->rows, status);
    if (b->ids_path) {
        status = source_read(&b->ids, n, ids);
        if (status != PERI_OK)
            return source_failed(&b->ids, status);
    } else {
        for (size_t i = 0; i < n; i++)
            ids[i] = first + i;
    }
    progress_task(&b->bar, &task, (unsigned)b->threads);
    status = peri_index_put_many(b->index, n, ids, rows, 0, &task, NULL);
    if (status == PERI_OK)
        return CLI_OK;
    progress_clear(&b->bar);
    char what[96];
    snprintf(what, sizeof what, "rows %llu to %llu", (unsigned long long)first,
             (unsigned long long)(first + n - 1));
    return cli_failed(what, status, NULL);
}

static int put_all(build *b)
{
    size_t row_bytes = b->rows.info.dim * sizeof(float), step = BLOCK / row_bytes;
    if (step > b->n_rows)
        step = b->n_rows ? (size_t)b->n_rows : 1;
    float *rows = malloc(step * row_bytes);
    uint64_t *ids = malloc(step * sizeof *ids);
    int code = CLI_OK;
    if (!rows || !ids)
        code = cli_error("no memory for %zu rows of %zu bytes", step, row_bytes);
    else if (b->n_rows > SIZE_MAX || peri_index_reserve(b->index, (size_t)b->n_rows) != PERI_OK)
        code = cli_failed("cannot make room for the rows", PERI_ERR_NOMEM, NULL);
    double start = cli_seconds();
    progress_begin(&b->bar, NULL, 0);
    for (uint64_t at = 0; code == CLI_OK && at < b->n_rows;) {
        size_t n = b->n_rows - at < step ? (size_t)(b->n_rows - at) : step;
        code = put_block(b, at, n, rows, ids);
        at += n;
    }
    progress_clear(&b->bar);
    b->build_seconds = cli_seconds() - start;
    free(ids);
    free(rows);
    return code;
}

static int finish(build *b)
{
    peri_task task;
    progress_task(&b->bar, &task, (unsigned)b->threads);
    if (b->calibrate) {
        double start = cli_seconds();
        progress_begin(&b->bar, "measuring recall", 0);
        peri_status status = peri_index_maintain(b->index, &task);
        progress_clear(&b->bar);
        if (status != PERI_OK)
            return cli_failed("cannot calibrate", status, NULL);
        b->calibrate_seconds = cli_seconds() - start;
    }
    progress_begin(&b->bar, "writing", 0);
    peri_status status = peri_index_save(b->index, b->out, &task);
    progress_clear(&b->bar);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot save", status, NULL);
}

static int summary(build *b)
{
    peri_index_info info;
    peri_index_info_init(&info);
    peri_status status = peri_index_get_info(b->index, &info);
    if (status != PERI_OK)
        return cli_failed("cannot describe the index", status, NULL);
    uint64_t file = cli_file_size(b->out);
    double rate = b->build_seconds > 0 ? (double)info.rows / b->build_seconds : 0;
    if (b->json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_text(&j, "index", b->out);
        json_text(&j, "kind", info.kind);
        json_text(&j, "metric", cli_metric_name(info.space.metric));
        json_text(&j, "scalar", cli_scalar_name(info.space.scalar));
        json_count(&j, "dim", info.space.dim);
        json_count(&j, "rows", info.rows);
        json_real(&j, "build_seconds", b->build_seconds, 6);
        json_real(&j, "rows_per_second", rate, 6);
        json_flag(&j, "calibrated", info.calibrated != 0);
        json_count(&j, "file_bytes", file);
        json_count(&j, "heap_bytes", info.bytes_heap);
        json_close(&j, '}');
        json_end(&j);
    } else if (!b->quiet) {
        char rows[32], bytes[32], speed[32];
        cli_print_count(info.rows, rows);
        cli_print_bytes(file, bytes);
        cli_print_count((uint64_t)rate, speed);
        printf("%s: %s, %s, %s rows of %u dimensions as %s, %s\n", b->out, info.kind,
               cli_metric_name(info.space.metric), rows, info.space.dim,
               cli_scalar_name(info.space.scalar), bytes);
        printf("built in %.1f s (%s rows/s)", b->build_seconds, speed);
        if (b->calibrate && info.calibrated)
            printf(", calibrated in %.1f s", b->calibrate_seconds);
        else if (b->calibrate && info.caps & PERI_CAP_EFFORT)
            printf(", too few rows to calibrate");
        putchar('\n');
    }
    return CLI_OK;
}

int cmd_build(int argc, char **argv)
{
    build b = {.metric = -1};
    b.rows.fd = b.ids.fd = -1;
    int code = parse(&b, argc, argv);
    if (code >= 0)
        return code;
    progress_init(&b.bar, b.quiet);
    code = cli_check_output(b.out);
    if (code == CLI_OK)
        code = open_input(&b);
    if (code == CLI_OK)
        code = create(&b);
    if (code == CLI_OK)
        code = put_all(&b);
    if (code == CLI_OK)
        code = finish(&b);
    if (code == CLI_OK)
        code = summary(&b);
    source_close(&b.rows);
    source_close(&b.ids);
    peri_index_close(b.index);
    return code;
}
