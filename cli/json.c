#include "json.h"
#include "cli.h"

#include <math.h>
#include <string.h>

static void put_string(json *j, const char *s, size_t n)
{
    putc('"', j->to);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            fprintf(j->to, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(j->to, "\\u%04x", c);
        else
            putc(c, j->to);
    }
    putc('"', j->to);
}

static void put_key(json *j, const char *key)
{
    if (j->comma)
        fputs(", ", j->to);
    j->comma = 1;
    if (key) {
        put_string(j, key, strlen(key));
        fputs(": ", j->to);
    }
}

void json_open(json *j, const char *key, char bracket)
{
    put_key(j, key);
    putc(bracket, j->to);
    j->comma = 0;
}

void json_close(json *j, char bracket)
{
    putc(bracket, j->to);
    j->comma = 1;
}

void json_count(json *j, const char *key, uint64_t value)
{
    put_key(j, key);
    fprintf(j->to, "%llu", (unsigned long long)value);
}

void json_real(json *j, const char *key, double value, int digits)
{
    put_key(j, key);
    if (isfinite(value))
        fprintf(j->to, "%.*g", digits, value);
    else
        fputs("null", j->to);
}

void json_flag(json *j, const char *key, int value)
{
    put_key(j, key);
    fputs(value ? "true" : "false", j->to);
}

/* The length of the UTF-8 sequence at s, 0 if it is none: overlong forms, surrogates and what lies
 * beyond U+10FFFF are none. */
static size_t sequence(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xc2 && s[0] < 0xe0   ? 2
                 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                               : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

static int is_utf8(const unsigned char *s, size_t n)
{
    for (size_t i = 0, len; i < n; i += len)
        if (!(len = sequence(s + i, n - i)))
            return 0;
    return 1;
}

void json_bytes(json *j, const char *key, const char *hex_key, const void *data, size_t size)
{
    if (is_utf8(data, size)) {
        put_key(j, key);
        put_string(j, data, size);
        return;
    }
    put_key(j, hex_key);
    putc('"', j->to);
    for (size_t i = 0; i < size; i++)
        fprintf(j->to, "%02x", ((const unsigned char *)data)[i]);
    putc('"', j->to);
}

/* Paths and messages that are no UTF-8 lose their odd bytes to '?': the line must parse. */
void json_text(json *j, const char *key, const char *value)
{
    const unsigned char *s = (const unsigned char *)value;
    size_t n = strlen(value), len;
    put_key(j, key);
    if (is_utf8(s, n)) {
        put_string(j, value, n);
        return;
    }
    putc('"', j->to);
    for (size_t i = 0; i < n; i += len) {
        len = sequence(s + i, n - i);
        if (len > 1)
            fwrite(s + i, 1, len, j->to);
        else if (len == 0 || s[i] < 0x20 || s[i] == 0x7f || s[i] == '"' || s[i] == '\\')
            putc('?', j->to);
        else
            putc(s[i], j->to);
        len = len ? len : 1;
    }
    putc('"', j->to);
}

void json_end(json *j)
{
    putc('\n', j->to);
    j->comma = 0;
}

int json_check(const char *path, int as_json, const char *what, uint64_t n, uint64_t faults,
               const char *first)
{
    char text[32];
    if (as_json) {
        json j = {stdout, 0};
        json_open(&j, NULL, '{');
        json_text(&j, "file", path);
        json_flag(&j, "ok", faults == 0);
        json_count(&j, what, n);
        json_count(&j, "faults", faults);
        if (faults)
            json_text(&j, "first", first);
        json_close(&j, '}');
        json_end(&j);
        return faults ? CLI_NO : CLI_OK;
    }
    cli_print_count(faults ? faults : n, text);
    if (faults)
        printf("%s: %s fault%s; the first: %s\n", path, text, faults == 1 ? "" : "s", first);
    else
        printf("%s: whole, %s %s\n", path, text, what);
    return faults ? CLI_NO : CLI_OK;
}
