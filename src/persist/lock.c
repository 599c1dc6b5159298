#define _GNU_SOURCE
#include "persist/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PID_TEXT = 24 };

static peri_status busy(const pe_file *f, const char *guarded)
{
    char text[PID_TEXT + 1] = {0};
    int64_t got = f->files->pread(f->files->ctx, f->fd, text, PID_TEXT, 0);
    long pid = got > 0 ? strtol(text, NULL, 10) : 0;
    if (pid > 0)
        return pe_fail(PERI_ERR_BUSY, "%s: process %ld is writing to it", guarded, pid);
    return pe_fail(PERI_ERR_BUSY, "%s: another process is writing to it", guarded);
}

static peri_status take(pe_lock *l, const char *guarded)
{
    char text[PID_TEXT] = {0};
    PE_TRY(pe_file_open(&l->file, l->host->files, l->path, O_RDWR | O_CREAT));
    int rc = pe_file_lock(&l->file, 1);
    if (rc == -EAGAIN || rc == -EACCES)
        return busy(&l->file, guarded);
    if (rc < 0)
        return pe_fail_errno(-rc, "lock", l->path);
    snprintf(text, sizeof text, "%ld\n", (long)getpid());
    return pe_file_write(&l->file, text, sizeof text, 0);
}

peri_status pe_lock_take(pe_lock *l, pe_host *host, const char *guarded)
{
    memset(l, 0, sizeof *l);
    l->host = host;
    l->file.fd = -1;
    l->path_room = strlen(guarded) + sizeof ".lock";
    l->path = pe_alloc(host, l->path_room);
    if (!l->path)
        return PERI_ERR_NOMEM;
    snprintf(l->path, l->path_room, "%s.lock", guarded);
    peri_status status = take(l, guarded);
    if (status != PERI_OK)
        pe_lock_give(l, status != PERI_ERR_BUSY);
    return status;
}

void pe_lock_give(pe_lock *l, int owner)
{
    if (!l->path)
        return;
    if (l->file.fd >= 0) {
        if (owner)
            (void)pe_file_lock(&l->file, 0);
        (void)pe_file_close(&l->file);
    }
    pe_free(l->host, l->path, l->path_room);
    l->path = NULL;
}
