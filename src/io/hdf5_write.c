/* Datasets into a new HDF5 file, in the layout of ann-benchmarks: datasets of the root group, and
 * text attributes of the file. Rows of a known number lie contiguous; else, or compressed, in
 * chunks (smaller ones where the number is not known: the last is allocated whole). No time
 * stamps: equal input makes equal bytes. */
#define _GNU_SOURCE
#include "io/element.h"
#include "io/hdf5_guard.h"

#include <unistd.h>

enum { CHUNK = 1 << 20, CHUNK_UNKNOWN = 128 << 10 };

static peri_status hdf5_layout(peri_matrix *m, hid_t plist, unsigned deflate)
{
    if (H5Pset_obj_track_times(plist, 0) < 0)
        return pe_hdf5_fail(PERI_ERR_INTERNAL, m, "make a property list");
    if (m->planned && !deflate)
        return PERI_OK;
    hsize_t fit = (m->planned ? CHUNK : CHUNK_UNKNOWN) / m->row_bytes;
    hsize_t chunk[2] = {fit ? fit : 1, m->info.dim};
    if (m->planned && chunk[0] > m->planned)
        chunk[0] = m->planned;
    if (H5Pset_chunk(plist, 2, chunk) < 0)
        return pe_hdf5_fail(PERI_ERR_INTERNAL, m, "set the size of chunks");
    if (!deflate)
        return PERI_OK;
    if (H5Zfilter_avail(H5Z_FILTER_DEFLATE) <= 0)
        return pe_fail(PERI_ERR_UNSUPPORTED, "%s: libhdf5 was built without deflate", m->path);
    if (H5Pset_shuffle(plist) < 0 || H5Pset_deflate(plist, deflate) < 0)
        return pe_hdf5_fail(PERI_ERR_INTERNAL, m, "set the compression");
    return PERI_OK;
}

/* The dataset m->dataset in the shape that m has. */
static peri_status create_dataset(peri_matrix *m, pe_hdf5 *h, unsigned deflate)
{
    hsize_t dims[2] = {m->planned, m->info.dim};
    hsize_t most[2] = {m->planned ? m->planned : H5S_UNLIMITED, m->info.dim};
    hid_t links = H5Pcreate(H5P_LINK_CREATE), plist = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(2, dims, most);
    peri_status status = PERI_OK;
    h->type = pe_hdf5_memory_type(m->info.element);
    h->rank = 2;
    h->extent = m->planned;
    if (links < 0 || plist < 0 || space < 0 || h->type < 0 ||
        H5Pset_create_intermediate_group(links, 1) < 0)
        status = pe_hdf5_fail(PERI_ERR_NOMEM, m, "make property lists");
    if (status == PERI_OK)
        status = hdf5_layout(m, plist, deflate);
    if (status == PERI_OK) {
        h->set = H5Dcreate2(h->file, m->dataset, h->type, space, links, plist, H5P_DEFAULT);
        if (h->set < 0)
            status = pe_hdf5_fail(PERI_ERR_CONFIG, m, "create the dataset");
    }
    if (space >= 0)
        H5Sclose(space);
    if (plist >= 0)
        H5Pclose(plist);
    if (links >= 0)
        H5Pclose(links);
    return status;
}

/* Of variable length: readers in Python then give text, not bytes. */
static peri_status write_text(peri_matrix *m, hid_t file, const char *name, const char *value)
{
    if (!name || !*name || !value)
        return pe_fail(PERI_ERR_ARG, "%s: an attribute without name or value", m->path);
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attribute = -1;
    if (type >= 0 && space >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0 &&
        H5Tset_cset(type, H5T_CSET_UTF8) >= 0)
        attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    peri_status status = attribute >= 0 && H5Awrite(attribute, type, &value) >= 0
                             ? PERI_OK
                             : pe_hdf5_fail(PERI_ERR_CONFIG, m, "write an attribute");
    if (attribute >= 0)
        H5Aclose(attribute);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return status;
}

static peri_status create_inside(peri_matrix *m, pe_hdf5 *h, const peri_matrix_config *config)
{
    hid_t access = pe_hdf5_file_access(m);
    if (access < 0)
        return pe_hdf5_fail(PERI_ERR_NOMEM, m, "make a property list");
    h->file = H5Fcreate(m->temp, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    if (h->file < 0)
        return pe_hdf5_fail(PERI_ERR_IO, m, "create the file");
    if (config->distance)
        PE_TRY(write_text(m, h->file, "distance", config->distance));
    for (size_t i = 0; i < config->n_attributes; i++)
        PE_TRY(write_text(m, h->file, config->attributes[i].name, config->attributes[i].value));
    return create_dataset(m, h, config->deflate);
}

static peri_status write_inside(peri_matrix *m, pe_hdf5 *h, size_t n, const void *raw)
{
    hsize_t start[2] = {m->info.rows, 0}, count[2] = {n, m->info.dim};
    hsize_t extent[2] = {m->info.rows + n, m->info.dim};
    if (extent[0] > h->extent) {
        if (H5Dset_extent(h->set, extent) < 0)
            return pe_hdf5_fail(PERI_ERR_IO, m, "extend the dataset");
        h->extent = extent[0];
    }
    hid_t to = H5Dget_space(h->set), from = H5Screate_simple(2, count, NULL);
    peri_status status = PERI_OK;
    if (to < 0 || from < 0 ||
        H5Sselect_hyperslab(to, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
        H5Dwrite(h->set, h->type, from, to, H5P_DEFAULT, raw) < 0)
        status = pe_hdf5_fail(PERI_ERR_IO, m, "write rows");
    if (from >= 0)
        H5Sclose(from);
    if (to >= 0)
        H5Sclose(to);
    return status;
}

static peri_status hdf5_write(peri_matrix *m, size_t n, const void *raw)
{
    pe_hdf5_guard guard;
    PE_TRY(pe_hdf5_enter(&guard, m->path));
    pe_hdf5 *h = m->format_state;
    peri_status status = write_inside(m, h, n, raw);
    pe_hdf5_leave(&guard);
    return pe_hdf5_outcome(h, status);
}

static peri_status end_dataset(peri_matrix *m, pe_hdf5 *h)
{
    herr_t closed = H5Dclose(h->set);
    H5Tclose(h->type);
    h->set = h->type = -1;
    return closed < 0 ? pe_hdf5_fail(PERI_ERR_IO, m, "close the dataset") : PERI_OK;
}

static peri_status hdf5_finish(peri_matrix *m)
{
    pe_hdf5 *h = m->format_state;
    pe_hdf5_guard guard;
    PE_TRY(pe_hdf5_enter(&guard, m->path));
    peri_status status = end_dataset(m, h);
    if (status == PERI_OK) {
        herr_t closed = H5Fclose(h->file);
        h->file = -1;
        if (closed < 0)
            status = pe_hdf5_fail(PERI_ERR_IO, m, "close the file");
    }
    pe_hdf5_leave(&guard);
    return pe_hdf5_outcome(h, status);
}

static const pe_matrix_ops hdf5_write_ops = {NULL, hdf5_write, hdf5_finish, pe_hdf5_close};

peri_status pe_hdf5_create(peri_matrix *m, const peri_matrix_config *config)
{
    pe_hdf5_guard guard;
    PE_TRY(pe_hdf5_attach(m));
    m->ops = &hdf5_write_ops;
    PE_TRY(pe_hdf5_enter(&guard, m->path));
    pe_hdf5 *h = m->format_state;
    peri_status status = create_inside(m, h, config);
    pe_hdf5_leave(&guard);
    return pe_hdf5_outcome(h, status);
}

static peri_status next_inside(peri_matrix *m, pe_hdf5 *h, const peri_matrix_config *config,
                               uint32_t element)
{
    /* Only the names of the root group: a taken name within a group fails in create_dataset. */
    if (!strchr(config->dataset, '/') && H5Lexists(h->file, config->dataset, H5P_DEFAULT) > 0)
        return pe_fail(PERI_ERR_EXISTS, "%s: dataset '%s' is there already", m->path,
                       config->dataset);
    peri_status status = end_dataset(m, h);
    if (status == PERI_OK)
        status = pe_matrix_shape(m, config->rows, config->dim, element, PERI_ERR_CONFIG);
    if (status == PERI_OK) {
        m->info.rows = 0;
        m->planned = config->rows;
        memcpy(m->dataset, config->dataset, strlen(config->dataset) + 1);
        status = create_dataset(m, h, config->deflate);
    }
    if (status != PERI_OK)
        m->state = PE_MATRIX_POISONED; /* the former dataset is closed, the next is not there */
    return status;
}

peri_status pe_hdf5_next(peri_matrix *m, const peri_matrix_config *config, uint32_t element)
{
    pe_hdf5_guard guard;
    PE_TRY(pe_hdf5_enter(&guard, m->path));
    pe_hdf5 *h = m->format_state;
    peri_status status = next_inside(m, h, config, element);
    pe_hdf5_leave(&guard);
    if (h->failed != PERI_OK)
        m->state = PE_MATRIX_POISONED;
    return pe_hdf5_outcome(h, status);
}
