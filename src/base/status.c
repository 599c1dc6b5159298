#define _GNU_SOURCE
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static _Thread_local char thread_detail[PE_DETAIL_SIZE];

const char *peri_strerror(int status)
{
    switch (status) {
#define PERI_X(name, value, text)                                                                  \
    case value:                                                                                    \
        return text;
        PERI_STATUS_MAP(PERI_X)
#undef PERI_X
    default:
        return "unknown status";
    }
}

const char *peri_status_name(int status)
{
    switch (status) {
#define PERI_X(name, value, text)                                                                  \
    case value:                                                                                    \
        return "PERI_" #name;
        PERI_STATUS_MAP(PERI_X)
#undef PERI_X
    default:
        return "";
    }
}

const char *peri_error_detail(void)
{
    return thread_detail;
}

uint32_t peri_version(void)
{
    return (uint32_t)PERI_VERSION_MAJOR << 16 | (uint32_t)PERI_VERSION_MINOR << 8 |
           (uint32_t)PERI_VERSION_PATCH;
}

peri_status pe_fail(peri_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(thread_detail, sizeof thread_detail, format, args);
    va_end(args);
    return status;
}

static peri_status status_of_errno(int error)
{
    switch (error) {
    case ENOENT:
        return PERI_ERR_NOT_FOUND;
    case EEXIST:
        return PERI_ERR_EXISTS;
    case ENOMEM:
        return PERI_ERR_NOMEM;
    default:
        return PERI_ERR_IO;
    }
}

peri_status pe_fail_errno(int error, const char *what, const char *path)
{
    char text[96];
#if defined(__GLIBC__)
    const char *name = strerrordesc_np(error);
    snprintf(text, sizeof text, "%s", name ? name : "unknown error");
#else
    strerror_r(error, text, sizeof text);
#endif
    return pe_fail(status_of_errno(error), "%s: %s: %s (errno %d)", path, what, text, error);
}

void pe_detail_copy(char out[PE_DETAIL_SIZE])
{
    memcpy(out, thread_detail, PE_DETAIL_SIZE);
}

void pe_detail_set(const char *detail)
{
    snprintf(thread_detail, sizeof thread_detail, "%s", detail);
}
