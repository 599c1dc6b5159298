/* Datasets of one or two dimensions out of HDF5 files.
 *
 * A file states sizes in many places and libhdf5 believes most of them. What we can hold against
 * the file's size, we do: a contiguous dataset lies within the file; a chunked one is at most
 * RATIO times as large, since deflate makes at most 1,032 bytes of one, and so is each of its
 * chunks, which libhdf5 allocates whole. Links and storage that lead out of the file are refused:
 * a file must not make us read another. */
#define _GNU_SOURCE
#include "base/checked.h"
#include "io/element.h"
#include "io/hdf5_guard.h"

#include <stdio.h>

enum { RATIO = 2048, CACHE_MAX = 256 << 20, CHUNK_FREE = 1 << 20 };

static herr_t refuse_link(const char *parent_file, const char *parent_group, const char *file,
                          const char *object, unsigned *flags, hid_t fapl, void *data)
{
    (void)parent_file, (void)parent_group, (void)file, (void)object;
    (void)flags, (void)fapl;
    *(int *)data = 1;
    return -1;
}

/* ERR_NOT_FOUND when some part of the path to the dataset is not there. */
static peri_status check_exists(peri_matrix *m, hid_t file, hid_t access)
{
    char part[PE_MATRIX_NAME];
    for (size_t i = 0; i <= strlen(m->dataset); i++) {
        if (i == 0 || (m->dataset[i] && m->dataset[i] != '/'))
            continue;
        memcpy(part, m->dataset, i);
        part[i] = 0;
        htri_t there = H5Lexists(file, part, access);
        if (there < 0)
            return pe_hdf5_fail(PERI_ERR_CORRUPT, m, "look the dataset up");
        if (there == 0)
            return pe_fail(PERI_ERR_NOT_FOUND, "%s: no dataset '%s'", m->path, m->dataset);
    }
    return PERI_OK;
}

/* What the elements are; ERR_UNSUPPORTED for all but plain numbers of 1 to 8 bytes. */
static peri_status element_of(peri_matrix *m, hid_t type, uint32_t *element)
{
    static const uint16_t floats[] = {PERI_ELEMENT_F16, PERI_ELEMENT_F32, PERI_ELEMENT_F64};
    static const uint16_t ints[2][9] = {{[1] = PERI_ELEMENT_U8,
                                         [2] = PERI_ELEMENT_U16,
                                         [4] = PERI_ELEMENT_U32,
                                         [8] = PERI_ELEMENT_U64},
                                        {[1] = PERI_ELEMENT_I8,
                                         [2] = PERI_ELEMENT_I16,
                                         [4] = PERI_ELEMENT_I32,
                                         [8] = PERI_ELEMENT_I64}};
    size_t size = H5Tget_size(type);
    *element = 0;
    if (H5Tget_class(type) == H5T_INTEGER && size <= 8 && H5Tget_precision(type) == 8 * size)
        *element = ints[H5Tget_sign(type) == H5T_SGN_2][size];
    for (size_t i = 0; H5Tget_class(type) == H5T_FLOAT && i < 3; i++) {
        hid_t plain = pe_hdf5_memory_type(floats[i]);
        if (H5Tequal(type, plain) > 0)
            *element = floats[i];
        H5Tset_order(plain, H5T_ORDER_BE);
        if (H5Tequal(type, plain) > 0)
            *element = floats[i];
        H5Tclose(plain);
    }
    if (!*element)
        return pe_fail(PERI_ERR_UNSUPPORTED,
                       "%s:%s: elements of class %d and %zu bytes, expected plain integers or "
                       "floats",
                       m->path, m->dataset, (int)H5Tget_class(type), size);
    return PERI_OK;
}

static peri_status check_filters(peri_matrix *m, hid_t plist)
{
    int n = H5Pget_nfilters(plist);
    for (int i = 0; i < n; i++) {
        unsigned flags = 0, config = 0;
        size_t n_values = 0;
        char name[64] = "";
        H5Z_filter_t id =
            H5Pget_filter2(plist, (unsigned)i, &flags, &n_values, NULL, sizeof name, name, &config);
        if (id < 0 || H5Zfilter_avail(id) <= 0)
            return pe_fail(PERI_ERR_UNSUPPORTED, "%s:%s: filter %d '%.*s' is not installed",
                           m->path, m->dataset, (int)id, (int)sizeof name - 1, name);
    }
    return PERI_OK;
}

/* The bytes of one chunk, within what the file could hold. */
static peri_status chunk_bytes(peri_matrix *m, hid_t plist, int rank, size_t element, size_t *bytes,
                               hsize_t chunk[2])
{
    if (H5Pget_chunk(plist, rank, chunk) != rank)
        return pe_hdf5_fail(PERI_ERR_CORRUPT, m, "read the size of chunks");
    if (pe_mul_size(chunk[0], chunk[1], bytes) || pe_mul_size(*bytes, element, bytes) ||
        *bytes == 0 || (*bytes > CHUNK_FREE && *bytes / RATIO > m->file_size))
        return pe_fail(PERI_ERR_CORRUPT,
                       "%s:%s: chunks of %llu x %llu elements in a file of %llu bytes", m->path,
                       m->dataset, (unsigned long long)chunk[0], (unsigned long long)chunk[1],
                       (unsigned long long)m->file_size);
    return PERI_OK;
}

/* Where the elements lie; *cache gets the bytes of a row of chunks. */
static peri_status check_layout(peri_matrix *m, hid_t plist, int rank, const hsize_t dims[2],
                                size_t element, size_t *cache)
{
    size_t total, bytes = 0;
    hsize_t chunk[2] = {1, 1};
    H5D_layout_t layout = H5Pget_layout(plist);
    if (layout == H5D_VIRTUAL || H5Pget_external_count(plist) != 0)
        return pe_fail(PERI_ERR_UNSUPPORTED, "%s:%s: its elements lie in other files", m->path,
                       m->dataset);
    if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED)
        return pe_fail(PERI_ERR_UNSUPPORTED, "%s:%s: layout %d", m->path, m->dataset, (int)layout);
    if (layout == H5D_CHUNKED) {
        PE_TRY(check_filters(m, plist));
        PE_TRY(chunk_bytes(m, plist, rank, element, &bytes, chunk));
    }
    if (pe_mul_size(dims[0], dims[1], &total) || pe_mul_size(total, element, &total) ||
        total / (bytes ? RATIO : 1) > m->file_size || dims[1] > PERI_MATRIX_MAX_DIM)
        return pe_fail(PERI_ERR_CORRUPT, "%s:%s: %llu x %llu elements in a file of %llu bytes",
                       m->path, m->dataset, (unsigned long long)dims[0],
                       (unsigned long long)dims[1], (unsigned long long)m->file_size);
    uint64_t across = bytes ? (dims[1] + chunk[1] - 1) / chunk[1] : 0;
    *cache = across && across > CACHE_MAX / bytes ? CACHE_MAX : across * bytes;
    return PERI_OK;
}

/* One string of any of HDF5's two kinds; anything else is not the attribute that we mean. */
static peri_status read_distance(peri_matrix *m, hid_t file)
{
    char fixed[256] = {0}, *text = NULL;
    size_t room = sizeof m->info.distance;
    if (H5Aexists(file, "distance") <= 0)
        return PERI_OK;
    hid_t attribute = H5Aopen(file, "distance", H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    peri_status status = PERI_OK;
    if (attribute < 0 || type < 0 || space < 0) {
        status = pe_hdf5_fail(PERI_ERR_CORRUPT, m, "open the attribute 'distance'");
    } else if (H5Tget_class(type) == H5T_STRING && H5Sget_simple_extent_npoints(space) == 1) {
        int variable = H5Tis_variable_str(type) > 0;
        hid_t memory = H5Tcopy(H5T_C_S1);
        H5Tset_size(memory, variable ? H5T_VARIABLE : sizeof fixed);
        H5Tset_cset(memory, H5Tget_cset(type));
        if (H5Aread(attribute, memory, variable ? (void *)&text : fixed) < 0)
            status = pe_hdf5_fail(PERI_ERR_CORRUPT, m, "read the attribute 'distance'");
        else if (!variable || text)
            snprintf(m->info.distance, room, "%.*s", (int)room - 1, variable ? text : fixed);
        if (text)
            H5free_memory(text);
        H5Tclose(memory);
    }
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (attribute >= 0)
        H5Aclose(attribute);
    return status;
}

/* Rank and extent of the dataset; a list is a matrix of one column. */
static peri_status take_dims(peri_matrix *m, pe_hdf5 *h, hsize_t dims[2])
{
    hid_t space = H5Dget_space(h->set);
    if (space < 0)
        return pe_hdf5_fail(PERI_ERR_CORRUPT, m, "read the extent");
    h->rank =
        H5Sget_simple_extent_type(space) == H5S_SIMPLE ? H5Sget_simple_extent_ndims(space) : 0;
    dims[1] = 1;
    if (h->rank == 1 || h->rank == 2)
        H5Sget_simple_extent_dims(space, dims, NULL);
    H5Sclose(space);
    if (h->rank != 1 && h->rank != 2)
        return pe_fail(PERI_ERR_UNSUPPORTED, "%s:%s: %d dimensions, expected 1 or 2", m->path,
                       m->dataset, h->rank);
    return PERI_OK;
}

/* Check all that the dataset states and take it; *cache as in check_layout. */
static peri_status take_dataset(peri_matrix *m, pe_hdf5 *h, size_t *cache)
{
    hsize_t dims[2];
    uint32_t element = 0;
    PE_TRY(take_dims(m, h, dims));
    hid_t type = H5Dget_type(h->set), plist = H5Dget_create_plist(h->set);
    peri_status status = type < 0 || plist < 0
                             ? pe_hdf5_fail(PERI_ERR_CORRUPT, m, "read the dataset's header")
                             : element_of(m, type, &element);
    if (status == PERI_OK)
        status = check_layout(m, plist, h->rank, dims, pe_element_size(element), cache);
    if (plist >= 0)
        H5Pclose(plist);
    if (type >= 0)
        H5Tclose(type);
    PE_TRY(status);
    h->type = pe_hdf5_memory_type(element);
    if (h->type < 0)
        return pe_hdf5_fail(PERI_ERR_INTERNAL, m, "make a type");
    return pe_matrix_shape(m, dims[0], dims[1], element, PERI_ERR_FORMAT);
}

static peri_status open_named(peri_matrix *m, pe_hdf5 *h, hid_t access)
{
    PE_TRY(check_exists(m, h->file, access));
    hid_t object = H5Oopen(h->file, m->dataset, access);
    H5I_type_t type = object < 0 ? H5I_BADID : H5Iget_type(object);
    if (object >= 0)
        H5Oclose(object);
    if (object >= 0 && type != H5I_DATASET)
        return pe_fail(PERI_ERR_FORMAT, "%s: '%s' is no dataset", m->path, m->dataset);
    h->set = H5Dopen2(h->file, m->dataset, access);
    return h->set < 0 ? pe_hdf5_fail(PERI_ERR_CORRUPT, m, "open the dataset") : PERI_OK;
}

/* A chunk that does not fit the dataset's cache is decompressed again for each block read from
 * it: the cache must hold a row of chunks, and can be set only when opening. */
static peri_status open_dataset(peri_matrix *m, pe_hdf5 *h, hid_t access)
{
    size_t cache = 0;
    PE_TRY(open_named(m, h, access));
    PE_TRY(take_dataset(m, h, &cache));
    if (cache <= CHUNK_FREE)
        return PERI_OK;
    H5Dclose(h->set);
    H5Pset_chunk_cache(access, H5D_CHUNK_CACHE_NSLOTS_DEFAULT, cache, 1.0);
    h->set = H5Dopen2(h->file, m->dataset, access);
    return h->set < 0 ? pe_hdf5_fail(PERI_ERR_CORRUPT, m, "open the dataset") : PERI_OK;
}

static peri_status open_inside(peri_matrix *m, pe_hdf5 *h)
{
    int outside = 0;
    hid_t file_access = pe_hdf5_file_access(m), access = H5Pcreate(H5P_DATASET_ACCESS);
    peri_status status = PERI_OK;
    if (file_access < 0 || access < 0 || H5Pset_elink_cb(access, refuse_link, &outside) < 0)
        status = pe_hdf5_fail(PERI_ERR_NOMEM, m, "make property lists");
    if (status == PERI_OK) {
        h->file = H5Fopen(m->path, H5F_ACC_RDONLY, file_access);
        status = h->file < 0 ? pe_hdf5_fail(PERI_ERR_FORMAT, m, "open the file")
                             : open_dataset(m, h, access);
    }
    if (outside)
        status =
            pe_fail(PERI_ERR_UNSUPPORTED, "%s:%s: a link into another file", m->path, m->dataset);
    if (status == PERI_OK)
        status = read_distance(m, h->file);
    if (access >= 0)
        H5Pclose(access);
    if (file_access >= 0)
        H5Pclose(file_access);
    return status;
}

static peri_status read_inside(peri_matrix *m, pe_hdf5 *h, uint64_t first_row, size_t n, void *raw)
{
    hsize_t start[2] = {first_row, 0}, count[2] = {n, m->info.dim};
    hid_t from = H5Dget_space(h->set), to = H5Screate_simple(h->rank, count, NULL);
    peri_status status = PERI_OK;
    if (from < 0 || to < 0 ||
        H5Sselect_hyperslab(from, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
        H5Dread(h->set, h->type, to, from, H5P_DEFAULT, raw) < 0) {
        char what[80];
        snprintf(what, sizeof what, "read %zu rows from row %llu on", n,
                 (unsigned long long)first_row);
        status = pe_hdf5_fail(PERI_ERR_CORRUPT, m, what);
    }
    if (to >= 0)
        H5Sclose(to);
    if (from >= 0)
        H5Sclose(from);
    return status;
}

static peri_status hdf5_read(peri_matrix *m, uint64_t first_row, size_t n, void *raw)
{
    pe_hdf5_guard guard;
    PE_TRY(pe_hdf5_enter(&guard, m->path));
    pe_hdf5 *h = m->format_state;
    peri_status status = read_inside(m, h, first_row, n, raw);
    pe_hdf5_leave(&guard);
    return pe_hdf5_outcome(h, status);
}

static const pe_matrix_ops hdf5_read_ops = {hdf5_read, NULL, NULL, pe_hdf5_close};

peri_status pe_hdf5_open(peri_matrix *m)
{
    pe_hdf5_guard guard;
    PE_TRY(pe_hdf5_attach(m));
    m->ops = &hdf5_read_ops;
    PE_TRY(pe_hdf5_enter(&guard, m->path));
    pe_hdf5 *h = m->format_state;
    peri_status status = open_inside(m, h);
    pe_hdf5_leave(&guard);
    return pe_hdf5_outcome(h, status);
}
