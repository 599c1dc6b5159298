#include "args.h"
#include "json.h"
#include "progress.h"

#include <stdio.h>

/* Damage that opening finds is an answer, like faults that the proof finds; that there is no file
 * to read is an error. */
static int is_answer(const char *path, peri_status status)
{
    return status == PERI_ERR_CORRUPT || (status == PERI_ERR_FORMAT && cli_is_file(path));
}

static void print_answer(const char *path, int as_json, uint64_t rows, uint64_t faults,
                         const char *first)
{
    if (as_json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_text(&j, "file", path);
        json_flag(&j, "ok", faults == 0);
        json_count(&j, "rows", rows);
        json_count(&j, "faults", faults);
        if (faults)
            json_text(&j, "first", first);
        json_close(&j, '}');
        json_end(&j);
        return;
    }
    char n[32];
    cli_print_count(faults ? faults : rows, n);
    if (faults)
        printf("%s: %s fault%s; the first: %s\n", path, n, faults == 1 ? "" : "s", first);
    else
        printf("%s: whole, %s rows\n", path, n);
}

/* peri_index_check sets the detail only when it finds something. */
static int prove(const char *path, peri_index *index, const peri_task *task, progress *bar,
                 int as_json)
{
    peri_index_info info;
    uint64_t faults = 0;
    peri_index_info_init(&info);
    peri_status status = peri_index_get_info(index, &info);
    if (status == PERI_OK)
        status = peri_index_check(index, task, &faults);
    progress_clear(bar);
    if (status != PERI_OK && !is_answer(path, status))
        return cli_failed("cannot check", status, NULL);
    if (status != PERI_OK && !faults)
        faults = 1;
    print_answer(path, as_json, info.rows, faults, faults ? peri_error_detail() : "");
    return faults ? CLI_NO : CLI_OK;
}

int cmd_check(int argc, char **argv)
{
    int as_json = 0, quiet = 0, n;
    uint64_t threads = 0;
    const char *path;
    const arg_option options[] = {
        {0, "threads", "N", "threads, 0 = all cores (default)", ARG_COUNT, &threads, 0, 256, NULL},
        {0, "json", NULL, "print JSON", ARG_FLAG, &as_json, 0, 0, NULL},
        {'q', "quiet", NULL, "no progress bar", ARG_FLAG, &quiet, 0, 0, NULL},
    };
    const arg_command command = {
        "check",
        "INDEX",
        "Verify every checksum of an index and prove its structure. Exit status 1 and the\n"
        "first fault where it is damaged.",
        options,
        sizeof options / sizeof *options,
        1,
        1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    progress bar;
    peri_task task;
    progress_init(&bar, quiet);
    progress_task(&bar, &task, (unsigned)threads);
    progress_begin(&bar, NULL, 0);
    peri_index *index;
    peri_status status = peri_index_open(&index, path, PERI_OPEN_READONLY, NULL, &task);
    if (status != PERI_OK) {
        progress_clear(&bar);
        if (!is_answer(path, status))
            return cli_failed("cannot open", status, NULL);
        print_answer(path, as_json, 0, 1, peri_error_detail());
        return CLI_NO;
    }
    int code = prove(path, index, &task, &bar, as_json);
    peri_index_close(index);
    return code;
}
