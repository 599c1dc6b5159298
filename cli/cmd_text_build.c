#include "args.h"
#include "cmd_text.h"
#include "json.h"
#include "progress.h"
#include "texts.h"

#include <stdio.h>

enum { BATCH = 4096 }; /* documents handed over at a time */

typedef struct build {
    const char *operands[2], *language, *fields, *stop_path;
    int format, positions, stop, single, strip, no_merge, quiet, json;
    uint64_t threads;
    double k1, b;
    texts in;
    text_list batch, stop_words;
    peri_text *index;
    uint64_t put;
    double seconds;
    progress bar;
} build;

static const char *const stop_words_of[] = {"none", "english", NULL};

static int parse(build *b, int argc, char **argv)
{
    const arg_option options[] = {
        {0, "format", "FORMAT", "auto (by extension), lines, tsv or jsonl", ARG_CHOICE, &b->format,
         0, 0, texts_format_words},
        {0, "fields", "A,B", "jsonl: fields that hold the text (title,text)", ARG_TEXT, &b->fields,
         0, 0, NULL},
        {'l', "language", "NAME", "stem by libstemmer: english, german, ...", ARG_TEXT,
         &b->language, 0, 0, NULL},
        {0, "stop", "LIST", "stop words: none (default), english", ARG_CHOICE, &b->stop, 0, 0,
         stop_words_of},
        {0, "stop-file", "FILE", "stop words of your own, one a line", ARG_TEXT, &b->stop_path, 0,
         0, NULL},
        {0, "positions", NULL, "keep positions: phrases can be searched", ARG_FLAG, &b->positions,
         0, 0, NULL},
        {0, "single-characters", NULL, "Han, kana, ... by character, not by pairs", ARG_FLAG,
         &b->single, 0, 0, NULL},
        {0, "strip-accents", NULL, "fold accents: caf\xc3\xa9 = cafe", ARG_FLAG, &b->strip, 0, 0,
         NULL},
        {0, "k1", "X", "BM25: saturation of counts (1.2)", ARG_REAL, &b->k1, 0, 100, NULL},
        {0, "b", "X", "BM25: how much length counts (0.75)", ARG_REAL, &b->b, 0, 1, NULL},
        {0, "no-merge", NULL, "do not merge into one segment", ARG_FLAG, &b->no_merge, 0, 0, NULL},
        {0, "threads", "N", "threads, 0 = all cores (default)", ARG_COUNT, &b->threads, 0, 256,
         NULL},
        {0, "json", NULL, "print JSON", ARG_FLAG, &b->json, 0, 0, NULL},
        {'q', "quiet", NULL, "no progress bar, no summary", ARG_FLAG, &b->quiet, 0, 0, NULL},
    };
    const arg_command command = {
        "text build",
        "DOCUMENTS INDEX",
        "Make a text index of DOCUMENTS (- = standard input): a text a line, or key and text by\n"
        "a tab (.tsv), or a JSON object a line (.jsonl: \"_id\" or \"id\", \"title\", \"text\").",
        options,
        sizeof options / sizeof *options,
        2,
        2};
    int n, done = args_parse(&command, argc, argv, b->operands, &n);
    if (done >= 0)
        return done;
    if (b->stop && b->stop_path)
        return cli_usage("text build", "--stop and --stop-file exclude each other");
    b->in.path = b->operands[0];
    b->in.format = (texts_format)b->format;
    b->in.fields = b->fields;
    return -1;
}

static int create(build *b)
{
    peri_text_config c;
    peri_text_config_init(&c);
    c.positions = (uint32_t)b->positions;
    c.language = b->language;
    c.stop = b->stop ? PERI_STOP_ENGLISH : PERI_STOP_NONE;
    c.script = b->single ? PERI_SCRIPT_SINGLE : PERI_SCRIPT_PAIRS;
    c.accents = b->strip ? PERI_ACCENTS_STRIP : PERI_ACCENTS_KEEP;
    c.k1 = b->k1 == 0 ? -1 : (float)b->k1; /* here a nought is a nought */
    c.b = b->b == 0 ? -1 : (float)b->b;
    if (b->stop_path) {
        texts list = {.path = b->stop_path, .format = TEXTS_LINES};
        int code = text_list_read(&b->stop_words, &list);
        if (code != CLI_OK)
            return code;
        c.stop = PERI_STOP_LIST;
        c.stop_words = b->stop_words.texts;
        c.n_stop_words = b->stop_words.n;
    }
    peri_status status = peri_text_create(&b->index, &c, NULL);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot create the index", status, NULL);
}

static int put_batch(build *b)
{
    peri_task task;
    peri_status status;
    progress_task(&b->bar, &task, (unsigned)b->threads);
    b->bar.before = b->put;
    if (texts_keyed(&b->in))
        status = peri_text_put_many_keyed(b->index, b->batch.n, b->batch.keys, b->batch.texts, 0,
                                          &task, NULL);
    else
        status = peri_text_put_many(b->index, b->batch.n, NULL, b->batch.texts, 0, &task, NULL);
    if (status != PERI_OK) {
        progress_clear(&b->bar);
        return cli_failed("cannot put documents", status, NULL);
    }
    b->put += b->batch.n;
    text_list_clear(&b->batch);
    return CLI_OK;
}

static int put_all(build *b)
{
    peri_slice key, text;
    double start = cli_seconds();
    int code = CLI_OK, got = 1;
    progress_begin(&b->bar, "indexing", 0);
    while (code == CLI_OK && (got = texts_next(&b->in, &key, &text)) == 1) {
        code = text_list_add(&b->batch, key, text);
        if (code == CLI_OK && b->batch.n == BATCH)
            code = put_batch(b);
    }
    if (code == CLI_OK && got == 0 && b->batch.n)
        code = put_batch(b);
    b->seconds = cli_seconds() - start;
    progress_clear(&b->bar);
    return got < 0 ? CLI_ERROR : code;
}

static int finish(build *b)
{
    peri_task task;
    peri_status status = PERI_OK;
    progress_task(&b->bar, &task, (unsigned)b->threads);
    if (!b->no_merge) {
        progress_begin(&b->bar, "merging", 0);
        status = peri_text_maintain(b->index, 1, &task);
        progress_clear(&b->bar);
        if (status != PERI_OK)
            return cli_failed("cannot merge", status, NULL);
    }
    progress_begin(&b->bar, "writing", 0);
    status = peri_text_save(b->index, b->operands[1], &task);
    progress_clear(&b->bar);
    return status == PERI_OK ? CLI_OK : cli_failed("cannot save", status, NULL);
}

static int summary(build *b)
{
    peri_text_info info;
    peri_text_info_init(&info);
    peri_status status = peri_text_get_info(b->index, &info);
    if (status != PERI_OK)
        return cli_failed("cannot describe the index", status, NULL);
    uint64_t file = cli_file_size(b->operands[1]);
    double rate = b->seconds > 0 ? (double)b->put / b->seconds : 0;
    if (b->json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_text(&j, "index", b->operands[1]);
        json_count(&j, "documents", info.documents);
        json_count(&j, "terms", info.terms);
        json_count(&j, "postings", info.postings);
        json_real(&j, "build_seconds", b->seconds, 6);
        json_real(&j, "documents_per_second", rate, 6);
        json_count(&j, "file_bytes", file);
        json_close(&j, '}');
        json_end(&j);
    } else if (!b->quiet) {
        char documents[32], terms[32], bytes[32], speed[32];
        cli_print_count(info.documents, documents);
        cli_print_count(info.terms, terms);
        cli_print_bytes(file, bytes);
        cli_print_count((uint64_t)rate, speed);
        printf("%s: %s documents, %s terms%s, %s\nread in %.1f s (%s documents/s)\n",
               b->operands[1], documents, terms, info.positions ? " with positions" : "", bytes,
               b->seconds, speed);
    }
    return CLI_OK;
}

int text_build(int argc, char **argv)
{
    build b = {.k1 = 1.2, .b = 0.75};
    int code = parse(&b, argc, argv);
    if (code >= 0)
        return code;
    progress_init(&b.bar, b.quiet);
    code = cli_check_output(b.operands[1]);
    if (code == CLI_OK)
        code = texts_open(&b.in);
    if (code == CLI_OK)
        code = create(&b);
    if (code == CLI_OK)
        code = put_all(&b);
    if (code == CLI_OK)
        code = finish(&b);
    if (code == CLI_OK)
        code = summary(&b);
    texts_close(&b.in);
    text_list_free(&b.batch);
    text_list_free(&b.stop_words);
    peri_text_close(b.index);
    return code;
}
