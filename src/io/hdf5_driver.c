/* The file driver that libhdf5 reads and writes through: our own descriptor, by the host's table.
 *
 * Not its own driver, because of what happens on a full disk: a write that fails leaves libhdf5
 * with metadata that it can neither write nor forget, closing the file fails, and 1.10 then crashes
 * when the process ends. So a failed write is kept here, in h->failed, and libhdf5 is told that all
 * went well; the callers of libhdf5 look at h->failed. The file is thrown away anyhow.
 *
 * It also means that libhdf5 opens no path by itself, takes no file locks (a reader must not be
 * kept out by a file system that has none), and that tests can fail its every call on files. */
#define _GNU_SOURCE
#include "io/hdf5_guard.h"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

typedef struct driver_file {
    H5FD_t pub; /* libhdf5's part, first */
    peri_matrix *m;
    haddr_t eoa, eof; /* what is allocated in the file; what is there */
} driver_file;

static driver_file *ours(H5FD_t *file)
{
    return (driver_file *)(void *)file;
}

static void keep_failure(pe_hdf5 *h, peri_status status)
{
    h->failed = status;
    pe_detail_copy(h->detail);
}

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t most)
{
    (void)name, (void)most;
    peri_matrix *const *m = H5Pget_driver_info(access);
    if (!m)
        return NULL;
    driver_file *f = pe_calloc(&(*m)->host, sizeof *f);
    if (!f) {
        keep_failure((*m)->format_state, PERI_ERR_NOMEM);
        return NULL;
    }
    f->m = *m;
    f->eof = flags & H5F_ACC_TRUNC ? 0 : (haddr_t)(*m)->file_size;
    return &f->pub;
}

static herr_t driver_close(H5FD_t *file)
{
    pe_free(&ours(file)->m->host, file, sizeof(driver_file));
    return 0;
}

/* As libhdf5's default driver has them, whose files ours are. */
static herr_t driver_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const driver_file *)(const void *)file)->eoa;
}

static herr_t driver_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t at)
{
    (void)type;
    ours(file)->eoa = at;
    return 0;
}

static haddr_t driver_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const driver_file *)(const void *)file)->eof;
}

/* What lies behind the end of the file but is allocated reads as zeros; so does, in a file that
 * is being thrown away, everything. */
static herr_t driver_read(H5FD_t *file, H5FD_mem_t type, hid_t plist, haddr_t at, size_t size,
                          void *out)
{
    (void)type, (void)plist;
    driver_file *f = ours(file);
    pe_hdf5 *h = f->m->format_state;
    size_t there = at >= f->eof ? 0 : f->eof - at < size ? (size_t)(f->eof - at) : size;
    memset((char *)out + there, 0, size - there);
    if (h->failed != PERI_OK) {
        memset(out, 0, there);
        return f->m->state == PE_MATRIX_READS ? -1 : 0;
    }
    peri_status status = pe_file_read(&f->m->file, out, there, at);
    if (status != PERI_OK)
        keep_failure(h, status);
    return status == PERI_OK ? 0 : -1;
}

static herr_t driver_write(H5FD_t *file, H5FD_mem_t type, hid_t plist, haddr_t at, size_t size,
                           const void *data)
{
    (void)type, (void)plist;
    driver_file *f = ours(file);
    pe_hdf5 *h = f->m->format_state;
    peri_status status =
        h->failed == PERI_OK ? pe_file_write(&f->m->file, data, size, at) : PERI_OK;
    if (status != PERI_OK)
        keep_failure(h, status);
    if (at + size > f->eof)
        f->eof = at + size;
    return 0;
}

/* Called before closing: the file must reach to the end of what is allocated. One that reaches
 * further stays so; readers do not mind. */
static herr_t driver_truncate(H5FD_t *file, hid_t plist, hbool_t closing)
{
    (void)closing;
    driver_file *f = ours(file);
    return f->eof < f->eoa ? driver_write(file, H5FD_MEM_DEFAULT, plist, f->eoa - 1, 1, "") : 0;
}

static const H5FD_class_t driver = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = 400, /* of the range that needs no registration */
#endif
    .name = "perigee",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(peri_matrix *),
    .open = driver_open,
    .close = driver_close,
    .query = driver_query,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t pe_hdf5_file_access(peri_matrix *m)
{
    pe_hdf5 *h = m->format_state;
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    h->driver = H5FDregister(&driver);
    if (list < 0)
        return -1;
    if (h->driver >= 0 && H5Pset_driver(list, h->driver, &m) >= 0 &&
        H5Pset_fclose_degree(list, H5F_CLOSE_STRONG) >= 0)
        return list;
    H5Pclose(list);
    return -1;
}
