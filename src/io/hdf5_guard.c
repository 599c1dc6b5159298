#define _GNU_SOURCE
#include "io/hdf5_guard.h"
#include "io/element.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static _Atomic long inside; /* the process that is inside, 0 = none */

peri_status pe_hdf5_enter(pe_hdf5_guard *g, const char *path)
{
    long self = (long)getpid();
    for (;;) {
        long seen = 0;
        if (atomic_compare_exchange_weak_explicit(&inside, &seen, self, memory_order_acquire,
                                                  memory_order_relaxed))
            break;
        if (seen && seen != self)
            return pe_fail(PERI_ERR_FORKED,
                           "%s: this process was forked while a thread was inside libhdf5", path);
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    if (H5open() < 0 || H5Eget_auto2(H5E_DEFAULT, &g->handler, &g->handler_data) < 0) {
        atomic_store_explicit(&inside, 0, memory_order_release);
        return pe_fail(PERI_ERR_INTERNAL, "%s: libhdf5 does not start", path);
    }
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return PERI_OK;
}

void pe_hdf5_leave(pe_hdf5_guard *g)
{
    H5Eclear2(H5E_DEFAULT);
    H5Eset_auto2(H5E_DEFAULT, g->handler, g->handler_data);
    atomic_store_explicit(&inside, 0, memory_order_release);
}

peri_status pe_hdf5_outcome(const pe_hdf5 *h, peri_status status)
{
    if (h->failed == PERI_OK)
        return status;
    pe_detail_set(h->detail);
    return h->failed;
}

static herr_t first_reason(unsigned n, const H5E_error2_t *error, void *out)
{
    if (n == 0 && error->desc)
        snprintf(out, 128, "%s", error->desc);
    return 0;
}

peri_status pe_hdf5_fail(peri_status status, const peri_matrix *m, const char *what)
{
    char reason[128] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_reason, reason);
    return pe_fail(status, "%s:%s: libhdf5 could not %s: %s", m->path, m->dataset, what, reason);
}

/* libhdf5 of Debian 12 has no half type: IEEE 754 says sign 1, exponent 5 (bias 15), fraction 10.
 */
static hid_t half_type(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type >= 0 && (H5Tset_fields(type, 15, 10, 5, 0, 10) < 0 || H5Tset_size(type, 2) < 0 ||
                      H5Tset_ebias(type, 15) < 0)) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

hid_t pe_hdf5_memory_type(uint32_t element)
{
    switch (element) {
    case PERI_ELEMENT_F16:
        return half_type();
    case PERI_ELEMENT_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case PERI_ELEMENT_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case PERI_ELEMENT_I8:
        return H5Tcopy(H5T_STD_I8LE);
    case PERI_ELEMENT_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case PERI_ELEMENT_I16:
        return H5Tcopy(H5T_STD_I16LE);
    case PERI_ELEMENT_U16:
        return H5Tcopy(H5T_STD_U16LE);
    case PERI_ELEMENT_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case PERI_ELEMENT_U32:
        return H5Tcopy(H5T_STD_U32LE);
    case PERI_ELEMENT_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case PERI_ELEMENT_U64:
        return H5Tcopy(H5T_STD_U64LE);
    default:
        return -1;
    }
}

peri_status pe_hdf5_attach(peri_matrix *m)
{
    pe_hdf5 *h = pe_alloc(&m->host, sizeof *h);
    if (!h)
        return PERI_ERR_NOMEM;
    *h = (pe_hdf5){.driver = -1, .file = -1, .set = -1, .type = -1};
    m->format_state = h;
    return PERI_OK;
}

void pe_hdf5_release(pe_hdf5 *h)
{
    if (h->type >= 0)
        H5Tclose(h->type);
    if (h->set >= 0)
        H5Dclose(h->set);
    if (h->file >= 0)
        H5Fclose(h->file);
    /* Last: H5Fclose lets its driver go and then calls it once more. */
    if (h->driver >= 0)
        H5FDunregister(h->driver);
    h->type = h->set = h->file = h->driver = -1;
}

void pe_hdf5_close(peri_matrix *m)
{
    pe_hdf5 *h = m->format_state;
    pe_hdf5_guard guard;
    if (!h)
        return;
    if (pe_hdf5_enter(&guard, m->path) == PERI_OK) {
        pe_hdf5_release(h);
        pe_hdf5_leave(&guard);
    }
    pe_free(&m->host, h, sizeof *h);
    m->format_state = NULL;
}
