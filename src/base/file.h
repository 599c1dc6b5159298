/* The one place that calls the operating system for files. Callers use the host's table through
 * these helpers, which loop over short transfers and interrupted calls and name the file when
 * they fail. */
#ifndef PE_FILE_H
#define PE_FILE_H

#include "base/host.h"

typedef struct pe_file {
    const peri_files *files;
    const char *path; /* lent by the caller for the life of the pe_file */
    int fd;           /* -1 when closed */
} pe_file;

/* flags as open(2); O_CLOEXEC is added. */
peri_status pe_file_open(pe_file *f, const peri_files *files, const char *path, int flags);
/* Read or write exactly n bytes; a file that ends early is ERR_CORRUPT with the offset. */
peri_status pe_file_read(const pe_file *f, void *buf, size_t n, uint64_t offset);
peri_status pe_file_write(const pe_file *f, const void *buf, size_t n, uint64_t offset);
peri_status pe_file_size(const pe_file *f, uint64_t *size);
peri_status pe_file_sync(const pe_file *f);
peri_status pe_file_map(const pe_file *f, size_t n, int writable, void **out);
peri_status pe_file_allocate(const pe_file *f, uint64_t offset, uint64_t n);
peri_status pe_file_map_at(const pe_file *f, void *addr, size_t n, uint64_t offset, int writable);
void pe_file_unmap(const peri_files *files, void *addr, size_t n);
/* Closing a written file may report the error of an earlier write: look at the result then. */
peri_status pe_file_close(pe_file *f);
peri_status pe_file_rename(const peri_files *files, const char *from, const char *to);
peri_status pe_file_sync_dir(const peri_files *files, const char *path);
peri_status pe_file_datasync(const pe_file *f);
peri_status pe_file_map_shared(const pe_file *f, size_t n, void **out);
/* ERR_BUSY when another holds it. */
peri_status pe_file_lock(const pe_file *f, int take);
peri_status pe_file_make_dir(const peri_files *files, const char *path);
void pe_file_unlink(const peri_files *files, const char *path); /* best effort */

#endif
