#include "actions.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t version;
static const char *metadata;
static const char *const heads[] = {"model", ">version", "stage", ">size", "saved (UTC)", "sha256"};

static int add(void *ctx, peri_slice name, const peri_model_info *info)
{
    table *t = ctx;
    char bytes[32], time[32];
    cli_print_bytes(info->size, bytes);
    table_time(info->time, time);
    table_put_bytes(t, name.data, name.size);
    table_put(t, "%llu", (unsigned long long)info->version);
    table_put(t, "%s", peri_stage_name(info->stage) ? peri_stage_name(info->stage) : "?");
    table_put(t, "%s", bytes);
    table_put(t, "%s", time);
    table_put(t, "%.12s", info->sha256);
    return 0;
}

static int run_list(peri_log *log, const char **operands, int n)
{
    table t;
    table_begin(&t, 6, heads);
    peri_status status = n ? peri_model_versions(log, peri_cstr(operands[0]), add, &t)
                           : peri_model_names(log, add, &t);
    int code = table_end(&t);
    return status == PERI_OK ? code : cli_failed("no model", status, NULL);
}

static int run_save(peri_log *log, const char **operands, int n)
{
    void *data;
    size_t size;
    peri_model_info info;
    (void)n;
    int code = actions_read_file(operands[1], &data, &size);
    if (code != CLI_OK)
        return code;
    peri_status status = peri_model_save(log, peri_cstr(operands[0]), (peri_slice){data, size},
                                         peri_cstr(metadata), &info);
    free(data);
    if (status != PERI_OK)
        return cli_failed("cannot save", status, NULL);
    printf("%s: version %llu, %s\n", operands[0], (unsigned long long)info.version, info.sha256);
    return CLI_OK;
}

static int run_load(peri_log *log, const char **operands, int n)
{
    peri_buf data = {0};
    peri_model_info info;
    (void)n;
    peri_status status = peri_model_load(log, peri_cstr(operands[0]), version, &data, NULL, &info);
    int code = status == PERI_OK ? actions_write_file(operands[1], data.data, data.size)
                                 : cli_failed("cannot load", status, NULL);
    peri_buf_free(&data);
    return code;
}

static int run_stage(peri_log *log, const char **operands, int n)
{
    char *end;
    unsigned long long v = strtoull(operands[1], &end, 10);
    (void)n;
    if (*end || v == 0)
        return cli_usage("model", "'%s' is no version", operands[1]);
    for (uint32_t s = 0; peri_stage_name(s); s++)
        if (strcmp(operands[2], peri_stage_name(s)) == 0) {
            peri_status status = peri_model_set_stage(log, peri_cstr(operands[0]), v, s);
            return status == PERI_OK ? CLI_OK : cli_failed("cannot set the stage", status, NULL);
        }
    return cli_usage("model", "'%s' is none of Development, Staging, Production, Archived",
                     operands[2]);
}

int cmd_model(int argc, char **argv)
{
    static const action actions[] = {
        {"save", "DIRECTORY NAME FILE", "save a new version", 3, 3, 1, 1, run_save},
        {"load", "DIRECTORY NAME OUT", "load one, its SHA-256 checked", 3, 3, 0, 0, run_load},
        {"list", "DIRECTORY [NAME]", "list models, or the versions of one", 1, 2, 0, 0, run_list},
        {"stage", "DIRECTORY NAME VERSION STAGE", "put a version into a stage", 4, 4, 1, 0,
         run_stage},
    };
    const arg_option options[] = {
        {0, "version", "N", "load: which one; default the newest", ARG_COUNT, &version, 1, 1e9,
         NULL},
        {0, "metadata", "TEXT", "save: what to keep beside it", ARG_TEXT, &metadata, 0, 0, NULL},
    };
    return actions_run("model", "A registry of models in a log.", actions,
                       sizeof actions / sizeof *actions, options, sizeof options / sizeof *options,
                       argc, argv);
}
