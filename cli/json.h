/* JSON to a stream, a value at a time; commas are seen to. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct json {
    FILE *to;
    int comma; /* the next value stands behind another */
} json;

/* key is NULL within an array and for the outermost value. */
void json_open(json *j, const char *key, char bracket); /* '{' or '[' */
void json_close(json *j, char bracket);                 /* '}' or ']' */
void json_count(json *j, const char *key, uint64_t value);
/* Infinities and NaN, which JSON lacks, become null. digits: 9 tell f32 values apart. */
void json_real(json *j, const char *key, double value, int digits);
void json_flag(json *j, const char *key, int value);
void json_text(json *j, const char *key, const char *value);
/* Any bytes: as text under `key` where they are UTF-8, else in hexadecimal under `hex_key`. */
void json_bytes(json *j, const char *key, const char *hex_key, const void *data, size_t size);
/* The end of the outermost value: a line of its own. */
void json_end(json *j);

/* What a check found, for people or as JSON; `what` names the things counted. Returns the exit
 * status. */
int json_check(const char *path, int as_json, const char *what, uint64_t n, uint64_t faults,
               const char *first);

#endif
