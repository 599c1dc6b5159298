#include "crash/power.h"
#include "scratch.h"

static const char *base_of(const power *p, const char *path)
{
    size_t n = strlen(p->dir);
    return strncmp(path, p->dir, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

static power_event *note(power *p, power_kind kind, int inode)
{
    if (p->n == p->room) {
        p->room = p->room ? p->room * 2 : 1024;
        p->events = realloc(p->events, p->room * sizeof *p->events);
    }
    power_event *e = &p->events[p->n++];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    e->inode = inode;
    return e;
}

static int find_name(const power *p, const char *name)
{
    for (size_t i = 0; i < p->n_names; i++)
        if (strcmp(p->names[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int power_open(void *ctx, const char *path, int flags, int mode)
{
    power *p = ctx;
    const char *name = base_of(p, path);
    int fd = peri_files_posix()->open(NULL, path, flags, mode);
    if (fd < 0 || !name || fd >= POWER_FDS)
        return fd;
    int i = find_name(p, name);
    if (i < 0) {
        i = (int)p->n_names++;
        snprintf(p->names[i].name, sizeof p->names[i].name, "%s", name);
        p->names[i].inode = p->n_inodes++;
        power_event *e = note(p, POWER_CREATE, p->names[i].inode);
        snprintf(e->name, sizeof e->name, "%s", name);
    }
    p->inode_of_fd[fd] = p->names[i].inode;
    return fd;
}

static int power_close(void *ctx, int fd)
{
    (void)ctx;
    return peri_files_posix()->close(NULL, fd);
}

static int64_t power_pread(void *ctx, int fd, void *buf, size_t n, uint64_t offset)
{
    (void)ctx;
    return peri_files_posix()->pread(NULL, fd, buf, n, offset);
}

static int64_t power_pwrite(void *ctx, int fd, const void *buf, size_t n, uint64_t offset)
{
    power *p = ctx;
    int64_t put = peri_files_posix()->pwrite(NULL, fd, buf, n, offset);
    if (put > 0) {
        power_event *e = note(p, POWER_WRITE, p->inode_of_fd[fd]);
        e->offset = offset;
        e->size = (uint64_t)put;
        e->data = malloc((size_t)put);
        memcpy(e->data, buf, (size_t)put);
    }
    return put;
}

static int power_sync(void *ctx, int fd)
{
    power *p = ctx;
    if (p->bug != POWER_NO_SYNC)
        note(p, POWER_SYNC, p->inode_of_fd[fd]);
    return 0;
}

static int power_datasync(void *ctx, int fd)
{
    power *p = ctx;
    if (p->bug != POWER_NO_DATASYNC)
        note(p, POWER_SYNC, p->inode_of_fd[fd]);
    return 0;
}

static int64_t power_size(void *ctx, int fd)
{
    (void)ctx;
    return peri_files_posix()->size(NULL, fd);
}

static int power_rename(void *ctx, const char *from, const char *to)
{
    power *p = ctx;
    int rc = peri_files_posix()->rename(NULL, from, to);
    if (rc < 0)
        return rc;
    const char *a = base_of(p, from), *b = base_of(p, to);
    int i = find_name(p, a), k = find_name(p, b);
    power_event *e = note(p, POWER_RENAME, p->names[i].inode);
    snprintf(e->name, sizeof e->name, "%s", a);
    snprintf(e->to, sizeof e->to, "%s", b);
    if (k >= 0) {
        p->names[k].inode = p->names[i].inode;
        p->names[i] = p->names[--p->n_names];
    } else {
        snprintf(p->names[i].name, sizeof p->names[i].name, "%s", b);
    }
    return rc;
}

static int power_unlink(void *ctx, const char *path)
{
    power *p = ctx;
    int rc = peri_files_posix()->unlink(NULL, path);
    const char *name = base_of(p, path);
    int i = rc == 0 && name ? find_name(p, name) : -1;
    if (i >= 0) {
        power_event *e = note(p, POWER_UNLINK, p->names[i].inode);
        snprintf(e->name, sizeof e->name, "%s", name);
        p->names[i] = p->names[--p->n_names];
    }
    return rc;
}

static int power_sync_dir(void *ctx, const char *path)
{
    power *p = ctx;
    if (p->bug != POWER_NO_SYNC_DIR && base_of(p, path))
        note(p, POWER_SYNC_DIR, -1);
    return 0;
}

static int power_map(void *ctx, int fd, size_t n, int writable, void **out)
{
    (void)ctx;
    return peri_files_posix()->map(NULL, fd, n, writable, out);
}

static int power_unmap(void *ctx, void *addr, size_t n)
{
    (void)ctx;
    return peri_files_posix()->unmap(NULL, addr, n);
}

static int power_allocate(void *ctx, int fd, uint64_t offset, uint64_t n)
{
    power *p = ctx;
    int rc = peri_files_posix()->allocate(NULL, fd, offset, n);
    power_event *e = note(p, POWER_GROW, p->inode_of_fd[fd]);
    e->offset = offset;
    e->size = n;
    return rc;
}

static int power_map_shared(void *ctx, int fd, size_t n, void **out)
{
    (void)ctx;
    return peri_files_posix()->map_shared(NULL, fd, n, out);
}

static int power_lock(void *ctx, int fd, int take)
{
    (void)ctx;
    return peri_files_posix()->lock(NULL, fd, take);
}

static int power_make_dir(void *ctx, const char *path)
{
    (void)ctx;
    return peri_files_posix()->make_dir(NULL, path);
}

void power_start(power *p, const char *dir, power_bug bug)
{
    memset(p, 0, sizeof *p);
    p->dir = dir;
    p->bug = bug;
    p->files = (peri_files){.struct_size = sizeof p->files,
                            .ctx = p,
                            .open = power_open,
                            .close = power_close,
                            .pread = power_pread,
                            .pwrite = power_pwrite,
                            .sync = power_sync,
                            .size = power_size,
                            .rename = power_rename,
                            .unlink = power_unlink,
                            .sync_dir = power_sync_dir,
                            .map = power_map,
                            .unmap = power_unmap,
                            .datasync = power_datasync,
                            .allocate = power_allocate,
                            .map_shared = power_map_shared,
                            .lock = power_lock,
                            .make_dir = power_make_dir};
    peri_env_init(&p->env);
    p->env.files = &p->files;
}

void power_ack(power *p, uint64_t sequence)
{
    note(p, POWER_ACK, -1)->offset = sequence;
}

void power_free(power *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->events[i].data);
    free(p->events);
}

/* ---- states ---- */

typedef struct image {
    unsigned char *bytes;
    uint64_t size, room;
} image;

static void grow(image *f, uint64_t size)
{
    if (size > f->room) {
        uint64_t room = size * 2;
        f->bytes = realloc(f->bytes, room);
        memset(f->bytes + f->room, 0, room - f->room);
        f->room = room;
    }
    if (size > f->size)
        f->size = size;
}

static void apply(image *f, const power_event *e, uint64_t from, uint64_t to)
{
    grow(f, e->offset + to);
    if (e->kind == POWER_WRITE && to > from)
        memcpy(f->bytes + e->offset + from, e->data + from, to - from);
}

/* Of a write that nobody made durable: nothing, all, or some of its sectors. */
static void apply_some(image *f, const power_event *e, pe_rng *rng)
{
    uint32_t dice = pe_rng_below(rng, 4);
    if (dice == 0)
        return;
    if (dice < 3 || e->kind == POWER_GROW) {
        apply(f, e, 0, e->size);
        return;
    }
    for (uint64_t at = 0; at < e->size;) {
        uint64_t end = ((e->offset + at) / POWER_SECTOR + 1) * POWER_SECTOR - e->offset;
        end = end < e->size ? end : e->size;
        if (pe_rng_below(rng, 2))
            apply(f, e, at, end);
        at = end;
    }
}

/* Files as of event `at`: what the last sync covers whole, what came later by chance. mode 0:
 * nothing that was not durable, 1: everything, 2: by chance. */
static void build_files(const power *p, size_t at, pe_rng *rng, uint32_t mode, image *files)
{
    size_t synced[POWER_INODES] = {0};
    for (size_t i = 0; i < at; i++)
        if (p->events[i].kind == POWER_SYNC)
            synced[p->events[i].inode] = i;
    for (size_t i = 0; i < at; i++) {
        const power_event *e = &p->events[i];
        if (e->kind != POWER_WRITE && e->kind != POWER_GROW)
            continue;
        if (i < synced[e->inode] || mode == 1)
            apply(&files[e->inode], e, 0, e->size);
        else if (mode == 2)
            apply_some(&files[e->inode], e, rng);
    }
}

typedef struct entry {
    char name[48];
    int inode;
} entry;

static void set_name(entry *names, size_t *n, const char *name, int inode)
{
    for (size_t i = 0; i < *n; i++)
        if (strcmp(names[i].name, name) == 0) {
            if (inode < 0)
                names[i] = names[--*n];
            else
                names[i].inode = inode;
            return;
        }
    if (inode >= 0) {
        snprintf(names[*n].name, sizeof names->name, "%s", name);
        names[(*n)++].inode = inode;
    }
}

static void build_names(const power *p, size_t at, pe_rng *rng, uint32_t mode, entry *names,
                        size_t *n)
{
    size_t synced = 0;
    for (size_t i = 0; i < at; i++)
        if (p->events[i].kind == POWER_SYNC_DIR)
            synced = i;
    *n = 0;
    for (size_t i = 0; i < at; i++) {
        const power_event *e = &p->events[i];
        if (e->kind != POWER_CREATE && e->kind != POWER_RENAME && e->kind != POWER_UNLINK)
            continue;
        if (i >= synced && (mode == 0 || (mode == 2 && pe_rng_below(rng, 2))))
            continue;
        if (e->kind == POWER_CREATE)
            set_name(names, n, e->name, e->inode);
        else
            set_name(names, n, e->name, -1);
        if (e->kind == POWER_RENAME)
            set_name(names, n, e->to, e->inode);
    }
}

static void empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            char file[PATH_MAX];
            snprintf(file, sizeof file, "%s/%s", path, e->d_name);
            unlink(file);
        }
    if (dir)
        closedir(dir);
}

uint64_t power_cut(const power *p, size_t at, pe_rng *rng, const char *dir)
{
    image *files = calloc(POWER_INODES, sizeof *files);
    entry *names = calloc(POWER_INODES, sizeof *names);
    size_t n;
    uint64_t acked = 0;
    uint32_t of_files = pe_rng_below(rng, 6), of_names = pe_rng_below(rng, 6);
    build_files(p, at, rng, of_files > 2 ? 2 : of_files, files);
    build_names(p, at, rng, of_names > 2 ? 2 : of_names, names, &n);
    empty_dir(dir);
    mkdir(dir, 0777);
    for (size_t i = 0; i < n; i++) {
        char path[PATH_MAX];
        const image *f = &files[names[i].inode];
        snprintf(path, sizeof path, "%s/%s", dir, names[i].name);
        blob_save(path, f->size ? f->bytes : (const unsigned char *)"", (size_t)f->size);
    }
    for (size_t i = 0; i < at; i++)
        if (p->events[i].kind == POWER_ACK)
            acked = p->events[i].offset;
    for (int i = 0; i < POWER_INODES; i++)
        free(files[i].bytes);
    free(files);
    free(names);
    return acked;
}
