/* `perigee text`: which of its subcommands, and the small ones. */
#include "args.h"
#include "cmd_text.h"
#include "json.h"
#include "progress.h"

#include <stdio.h>
#include <string.h>

int text_open(const char *path, peri_text **index, peri_text_info *info)
{
    peri_status status =
        peri_text_open(index, path, PERI_OPEN_READONLY | PERI_OPEN_MAP, NULL, NULL);
    if (status != PERI_OK)
        return cli_failed("cannot open", status, NULL);
    peri_text_info_init(info);
    status = peri_text_get_info(*index, info);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot describe the index", status, NULL);
}

/* ---- info ---- */

static const char *stop_name(uint32_t stop)
{
    return stop == PERI_STOP_NONE ? "none" : stop == PERI_STOP_ENGLISH ? "english" : "own list";
}

static void info_json(const char *path, const peri_text_info *i)
{
    json j = {stdout, 0};
    json_open(&j, NULL, '{');
    json_text(&j, "file", path);
    json_count(&j, "file_bytes", cli_file_size(path));
    json_count(&j, "documents", i->documents);
    json_count(&j, "deleted", i->deleted);
    json_count(&j, "terms", i->terms);
    json_count(&j, "postings", i->postings);
    json_count(&j, "length", i->length);
    json_count(&j, "segments", i->segments);
    json_flag(&j, "positions", i->positions != 0);
    json_flag(&j, "keyed", i->keyed != 0);
    json_text(&j, "language", i->language);
    json_text(&j, "stop_words", stop_name(i->stop));
    json_flag(&j, "single_characters", i->script == PERI_SCRIPT_SINGLE);
    json_flag(&j, "strip_accents", i->accents == PERI_ACCENTS_STRIP);
    json_real(&j, "k1", (double)i->k1, 6);
    json_real(&j, "b", (double)i->b, 6);
    json_count(&j, "next_id", i->next_id);
    json_count(&j, "heap_bytes", i->bytes_heap);
    json_count(&j, "mapped_bytes", i->bytes_mapped);
    json_close(&j, '}');
    json_end(&j);
}

static void info_table(const char *path, const peri_text_info *i)
{
    char a[32], b[32];
    cli_print_bytes(cli_file_size(path), a);
    printf("file        %s, %s\n", path, a);
    cli_print_count(i->documents, a);
    cli_print_count(i->deleted, b);
    printf("documents   %s, %s deleted, %s\n", a, b,
           i->keyed ? "by string keys" : "by the ids given");
    cli_print_count(i->terms, a);
    cli_print_count(i->postings, b);
    printf("terms       %s in %s postings, %s\n", a, b,
           i->positions ? "with positions" : "without positions");
    printf("length      %.1f on average\n",
           i->documents ? (double)i->length / (double)i->documents : 0.0);
    printf("analysis    stemming %s, stop words %s%s%s\n", *i->language ? i->language : "none",
           stop_name(i->stop), i->script == PERI_SCRIPT_SINGLE ? ", single characters" : "",
           i->accents == PERI_ACCENTS_STRIP ? ", accents stripped" : "");
    printf("bm25        k1 %g, b %g\n", (double)i->k1, (double)i->b);
    printf("segments    %u\n", i->segments);
    cli_print_bytes(i->bytes_mapped, a);
    cli_print_bytes(i->bytes_heap, b);
    printf("memory      %s mapped, %s heap\n", a, b);
}

static int text_info(int argc, char **argv)
{
    int as_json = 0, n;
    const char *path;
    const arg_option options[] = {
        {0, "json", NULL, "print JSON", ARG_FLAG, &as_json, 0, 0, NULL},
    };
    const arg_command command = {"text info", "INDEX", "Describe a text index.", options, 1, 1, 1};
    int code = args_parse(&command, argc, argv, &path, &n);
    if (code >= 0)
        return code;
    peri_text *index = NULL;
    peri_text_info info;
    code = text_open(path, &index, &info);
    if (code == CLI_OK && as_json)
        info_json(path, &info);
    else if (code == CLI_OK)
        info_table(path, &info);
    peri_text_close(index);
    return code;
}

/* ---- check ---- */

static int text_check(int argc, char **argv)
{
    int as_json = 0, n;
    const char *path;
    const arg_option options[] = {
        {0, "json", NULL, "print JSON", ARG_FLAG, &as_json, 0, 0, NULL},
    };
    const arg_command command = {
        "text check",
        "INDEX",
        "Verify every checksum of a text index and prove its structure. Exit status 1 and the\n"
        "first fault where it is damaged.",
        options,
        1,
        1,
        1};
    int done = args_parse(&command, argc, argv, &path, &n);
    if (done >= 0)
        return done;
    peri_text *index = NULL;
    peri_text_info info;
    uint64_t faults = 0;
    peri_text_info_init(&info);
    peri_status status = peri_text_open(&index, path, PERI_OPEN_READONLY, NULL, NULL);
    /* Damage that opening finds is an answer; that there is no file to read is an error. */
    if (status == PERI_ERR_CORRUPT || (status == PERI_ERR_FORMAT && cli_is_file(path)))
        return json_check(path, as_json, "documents", 0, 1, peri_error_detail());
    if (status == PERI_OK)
        status = peri_text_get_info(index, &info);
    if (status == PERI_OK)
        status = peri_text_check(index, NULL, &faults);
    int code = status == PERI_OK ? json_check(path, as_json, "documents", info.documents, faults,
                                              faults ? peri_error_detail() : "")
                                 : cli_failed("cannot check", status, NULL);
    peri_text_close(index);
    return code;
}

/* ---- which ---- */

static const struct {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"build", "make a text index of a file of documents", text_build},
    {"search", "find documents by their words", text_search},
    {"eval", "measure ranking against judgements", text_eval},
    {"info", "describe a text index", text_info},
    {"check", "prove that a text index is whole", text_check},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

int cmd_text(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    int help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (!help && *name)
        return cli_usage("text", "unknown subcommand '%s'", name);
    FILE *to = help ? stdout : stderr;
    fputs("usage: perigee text SUBCOMMAND [options] ...\n\nFull text: BM25 over documents.\n\n",
          to);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].what);
    fputs("\n'perigee text SUBCOMMAND --help' tells the options of each.\n", to);
    return help ? CLI_OK : CLI_USAGE;
}
