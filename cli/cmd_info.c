#include "args.h"
#include "json.h"
#include "source.h"

#include <stdio.h>

static int show_matrix(const char *path, int as_json)
{
    source s;
    int code = source_need(&s, path, SOURCE_SHAPE, 0);
    if (code != CLI_OK)
        return code;
    const char *format = peri_matrix_format_name(s.info.format);
    const char *element = peri_matrix_element_name(s.info.element);
    if (as_json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_text(&j, "file", path);
        json_text(&j, "format", format);
        json_text(&j, "element", element);
        json_count(&j, "rows", s.info.rows);
        json_count(&j, "dim", s.info.dim);
        json_text(&j, "distance", s.info.distance);
        json_close(&j, '}');
        json_end(&j);
    } else {
        char rows[32];
        cli_print_count(s.info.rows, rows);
        printf("%s: %s, %s x %u %s%s%s\n", path, format, rows, s.info.dim, element,
               *s.info.distance ? ", distance " : "", s.info.distance);
    }
    source_close(&s);
    return CLI_OK;
}

static void print_json(const char *path, const peri_index_info *i)
{
    json j = {stdout, 0};
    json_open(&j, NULL, '{');
    json_text(&j, "file", path);
    json_count(&j, "file_bytes", cli_file_size(path));
    json_text(&j, "kind", i->kind);
    json_text(&j, "metric", cli_metric_name(i->space.metric));
    json_text(&j, "scalar", cli_scalar_name(i->space.scalar));
    json_text(&j, "codes", i->caps & PERI_CAP_CODES ? cli_codes_name(i->codes) : "none");
    json_count(&j, "dim", i->space.dim);
    json_count(&j, "rows", i->rows);
    json_count(&j, "deleted", i->deleted);
    json_count(&j, "links", i->links);
    json_count(&j, "wells", i->wells);
    json_flag(&j, "exact", (i->caps & PERI_CAP_EXACT) != 0);
    json_flag(&j, "keyed", i->keyed != 0);
    json_flag(&j, "calibrated", i->calibrated != 0);
    json_count(&j, "clipped", i->clipped);
    json_count(&j, "next_id", i->next_id);
    json_count(&j, "heap_bytes", i->bytes_heap);
    json_count(&j, "mapped_bytes", i->bytes_mapped);
    json_close(&j, '}');
    json_end(&j);
}

static void print_table(const char *path, const peri_index_info *i)
{
    char rows[32], deleted[32], file[32], heap[32], mapped[32];
    cli_print_count(i->rows, rows);
    cli_print_count(i->deleted, deleted);
    cli_print_bytes(cli_file_size(path), file);
    cli_print_bytes(i->bytes_heap, heap);
    cli_print_bytes(i->bytes_mapped, mapped);
    printf("file        %s, %s\n", path, file);
    printf("kind        %s%s\n", i->kind, i->caps & PERI_CAP_EXACT ? " (exact)" : "");
    printf("metric      %s\n", cli_metric_name(i->space.metric));
    printf("dimension   %u\n", i->space.dim);
    printf("rows        %s as %s, %s deleted\n", rows, cli_scalar_name(i->space.scalar), deleted);
    if (i->caps & PERI_CAP_CODES)
        printf("codes       %s\n", cli_codes_name(i->codes));
    if (i->wells)
        printf("wells       %u, %u bits a dimension\n", i->wells, i->well_bits);
    if (i->links)
        printf("links       %u per node\n", i->links);
    if (i->caps & PERI_CAP_EFFORT)
        printf("calibrated  %s\n", i->calibrated ? "yes" : "no (build --calibrate)");
    printf("ids         %s, next is %llu\n", i->keyed ? "from string keys" : "given",
           (unsigned long long)i->next_id);
    printf("memory      %s mapped, %s heap\n", mapped, heap);
}

static int show_index(const char *path, int as_json)
{
    peri_index *index;
    peri_index_info info;
    peri_status status =
        peri_index_open(&index, path, PERI_OPEN_READONLY | PERI_OPEN_MAP, NULL, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    peri_index_info_init(&info);
    status = peri_index_get_info(index, &info);
    if (status == PERI_OK && as_json)
        print_json(path, &info);
    else if (status == PERI_OK)
        print_table(path, &info);
    peri_index_close(index);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot describe the index", status, NULL);
}

int cmd_info(int argc, char **argv)
{
    int as_json = 0, n;
    const char *path;
    const arg_option options[] = {
        {0, "json", NULL, "print JSON", ARG_FLAG, &as_json, 0, 0, NULL},
    };
    const arg_command command = {
        "info", "FILE", "Describe an index or a file of vectors.", options, 1, 1, 1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    return cli_is_matrix(path) ? show_matrix(path, as_json) : show_index(path, as_json);
}
