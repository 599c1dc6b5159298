#define _GNU_SOURCE
#include "persist/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* "manifest 1 process 0000012345\n": the mark, then who holds the lock. */
enum { TEXT_SIZE = 32, MARK_AT = 9, PID_AT = 19 };

static peri_status write_text(pe_lock *l)
{
    char text[TEXT_SIZE + 1];
    snprintf(text, sizeof text, "manifest %d process %010ld\n ", l->marked, (long)getpid());
    return pe_file_write(&l->file, text, TEXT_SIZE, 0);
}

static peri_status say_holder(pe_lock *l)
{
    char text[TEXT_SIZE + 1] = {0};
    char keep[PE_DETAIL_SIZE];
    pe_detail_copy(keep);
    uint64_t size = 0;
    if (pe_file_size(&l->file, &size) == PERI_OK && size >= TEXT_SIZE &&
        pe_file_read(&l->file, text, TEXT_SIZE, 0) == PERI_OK)
        return pe_fail(PERI_ERR_BUSY, "%s: process %ld is writing to what it guards", l->path,
                       strtol(text + PID_AT, NULL, 10));
    pe_detail_set(keep);
    return PERI_ERR_BUSY;
}

peri_status pe_lock_take(pe_lock *l, pe_host *host, const char *path)
{
    memset(l, 0, sizeof *l);
    l->host = host;
    l->file.fd = -1;
    l->path_room = strlen(path) + 1;
    l->path = pe_alloc(host, l->path_room);
    if (!l->path)
        return PERI_ERR_NOMEM;
    memcpy(l->path, path, l->path_room);
    peri_status status = pe_file_open(&l->file, host->files, l->path, O_RDWR | O_CREAT);
    int locked = 0;
    if (status == PERI_OK) {
        status = pe_file_lock(&l->file, 1);
        locked = status == PERI_OK;
        if (status == PERI_ERR_BUSY)
            status = say_holder(l);
    }
    char text[TEXT_SIZE];
    uint64_t size = 0;
    if (status == PERI_OK)
        status = pe_file_size(&l->file, &size);
    if (status == PERI_OK && size >= TEXT_SIZE) {
        status = pe_file_read(&l->file, text, TEXT_SIZE, 0);
        l->marked = status == PERI_OK && text[MARK_AT] == '1';
    }
    if (status == PERI_OK)
        status = write_text(l);
    if (status != PERI_OK) {
        if (locked)
            host->files->lock(host->files->ctx, l->file.fd, 0);
        pe_lock_release(l, 1);
    }
    return status;
}

void pe_lock_mark(pe_lock *l)
{
    if (l->marked)
        return;
    l->marked = 1;
    if (write_text(l) != PERI_OK)
        l->marked = 0;
}

/* The lock belongs to the open file description, which a child of fork shares: the owner unlocks
 * by name, so that a child that lives on does not keep it. */
void pe_lock_release(pe_lock *l, int forked)
{
    if (!l->host)
        return;
    if (l->file.fd >= 0 && !forked)
        l->host->files->lock(l->host->files->ctx, l->file.fd, 0);
    if (l->file.fd >= 0)
        l->host->files->close(l->host->files->ctx, l->file.fd);
    pe_free(l->host, l->path, l->path_room);
    memset(l, 0, sizeof *l);
}
