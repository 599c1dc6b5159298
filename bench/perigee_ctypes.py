"""libperigee through its public C API, by ctypes: the structs mirror include/perigee/*.h.

    python bench/perigee_ctypes.py      compares every mirrored struct with the headers,
                                        by compiling a small C program
"""

import ctypes as c
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

METRIC = {"euclidean": 1, "ip": 2, "angular": 3}
SCALAR = {"f32": 1, "f16": 2, "bf16": 3, "i8": 4}
CODES = {"auto": 0, "none": 1, "8bit": 2}
OPEN_READONLY, OPEN_MAP = 1, 2

HIT = np.dtype([("id", "<u8"), ("distance", "<f4"), ("reserved", "<u4")])


class Sized(c.Structure):
    """Structs that begin with struct_size; every other field 0 means the default."""

    def __init__(self, **fields):
        super().__init__(**fields)
        self.struct_size = c.sizeof(self)


class Task(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("threads", c.c_uint32), ("memory_limit", c.c_uint64),
                ("progress", c.c_void_p), ("progress_ctx", c.c_void_p)]


class Space(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("dim", c.c_uint32), ("metric", c.c_uint16), ("scalar", c.c_uint16)]


class HnswConfig(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("m", c.c_uint32), ("m_max", c.c_uint32),
                ("ef_construction", c.c_uint32), ("ef_search", c.c_uint32), ("codes", c.c_uint16),
                ("layout", c.c_uint16), ("alpha", c.c_float), ("build", c.c_uint32), ("seed", c.c_uint64)]


class GwiConfig(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("branching", c.c_uint32), ("levels", c.c_uint32), ("wells", c.c_uint32),
                ("nprobe", c.c_uint32), ("rounds", c.c_uint32), ("train_rows", c.c_uint32), ("codes", c.c_uint16),
                ("bits", c.c_uint16), ("seed", c.c_uint64)]


class Query(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("k", c.c_uint32), ("effort", c.c_uint32), ("rerank", c.c_uint32),
                ("target_recall", c.c_float), ("max_distance", c.c_float), ("has_max_distance", c.c_uint32),
                ("reserved", c.c_uint32), ("allow", c.c_void_p), ("filter", c.c_void_p), ("filter_ctx", c.c_void_p)]


class Info(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("caps", c.c_uint32), ("kind", c.c_char * 16), ("space", Space),
                ("keyed", c.c_uint32), ("codes", c.c_uint32), ("calibrated", c.c_uint32), ("links", c.c_uint32),
                ("rows", c.c_uint64), ("deleted", c.c_uint64), ("bytes_heap", c.c_uint64),
                ("bytes_mapped", c.c_uint64), ("clipped", c.c_uint64), ("next_id", c.c_uint64),
                ("wells", c.c_uint32), ("well_bits", c.c_uint32)]


class SparseConfig(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("flags", c.c_uint32), ("weights", c.c_uint32), ("keep", c.c_float)]


class SparseInfo(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("weights", c.c_uint32), ("flags", c.c_uint32), ("keep", c.c_float),
                ("keyed", c.c_uint32), ("segments", c.c_uint32), ("rows", c.c_uint64), ("deleted", c.c_uint64),
                ("active", c.c_uint64), ("postings", c.c_uint64), ("approximate_postings", c.c_uint64),
                ("bytes_sealed", c.c_uint64), ("bytes_heap", c.c_uint64), ("bytes_mapped", c.c_uint64),
                ("next_id", c.c_uint64)]


class SparseRows(c.Structure):
    _fields_ = [("n", c.c_size_t), ("offsets", c.c_void_p), ("terms", c.c_void_p), ("weights", c.c_void_p)]


MIRRORED = {"peri_task": Task, "peri_space": Space, "peri_hnsw_config": HnswConfig, "peri_gwi_config": GwiConfig, "peri_query": Query,
            "peri_index_info": Info, "peri_sparse_config": SparseConfig, "peri_sparse_info": SparseInfo}


class PerigeeError(Exception):
    pass


class Library:
    def __init__(self, path):
        self.path = str(path)
        so = c.CDLL(self.path)
        so.peri_strerror.restype = so.peri_error_detail.restype = so.peri_cpu_level.restype = c.c_char_p
        so.peri_version.restype = c.c_uint32
        so.peri_index_close.restype = so.peri_sparse_close.restype = so.peri_idset_close.restype = None
        pointer, size, u32, u64 = c.c_void_p, c.c_size_t, c.c_uint32, c.c_uint64
        for name, arguments in {
            "peri_flat_create": [pointer] * 3,
            "peri_hnsw_create": [pointer] * 4,
            "peri_gwi_create": [pointer] * 4,
            "peri_index_train": [pointer, size, pointer, pointer],
            "peri_index_open": [pointer, c.c_char_p, u32, pointer, pointer],
            "peri_index_save": [pointer, c.c_char_p, pointer],
            "peri_index_close": [pointer],
            "peri_index_reserve": [pointer, size],
            "peri_index_put_many": [pointer, size, pointer, pointer, u32, pointer, pointer],
            "peri_index_remove": [pointer, u64],
            "peri_index_maintain": [pointer, pointer],
            "peri_index_search": [pointer] * 5,
            "peri_index_search_many": [pointer, size] + [pointer] * 5,
            "peri_index_get_info": [pointer, pointer],
            "peri_index_check": [pointer, pointer, pointer],
            "peri_idset_create": [pointer, pointer],
            "peri_idset_add": [pointer, size, pointer],
            "peri_idset_close": [pointer],
            "peri_sparse_create": [pointer] * 3,
            "peri_sparse_close": [pointer],
            "peri_sparse_put_many": [pointer] * 3 + [u32, pointer, pointer],
            "peri_sparse_remove": [pointer, u64],
            "peri_sparse_compact": [pointer, pointer],
            "peri_sparse_search_many": [pointer] * 6,
            "peri_sparse_get_info": [pointer, pointer],
        }.items():
            getattr(so, name).argtypes = arguments
        self.so = so

    def must(self, status):
        if status:
            raise PerigeeError(f"{self.so.peri_strerror(status).decode()}: {self.so.peri_error_detail().decode()}")

    @property
    def cpu_level(self):
        return self.so.peri_cpu_level().decode()

    @property
    def version(self):
        v = self.so.peri_version()
        return f"{v >> 16}.{v >> 8 & 255}.{v & 255}"


def address(array):
    assert array.flags.c_contiguous
    return array.ctypes.data


class Index:
    """One handle. Rows and queries are float32 arrays, C order; nothing is copied on the way."""

    def __init__(self, library, handle):
        self.library, self.handle = library, handle

    @classmethod
    def flat(cls, library, dim, metric, scalar="f32"):
        handle, space = c.c_void_p(), Space(dim=dim, metric=METRIC[metric], scalar=SCALAR[scalar])
        library.must(library.so.peri_flat_create(c.byref(handle), c.byref(space), None))
        return cls(library, handle)

    @classmethod
    def hnsw(cls, library, dim, metric, scalar="f32", codes="auto", **config):
        handle, space = c.c_void_p(), Space(dim=dim, metric=METRIC[metric], scalar=SCALAR[scalar])
        cfg = HnswConfig(codes=CODES[codes], **config)
        library.must(library.so.peri_hnsw_create(c.byref(handle), c.byref(space), c.byref(cfg), None))
        return cls(library, handle)

    @classmethod
    def gwi(cls, library, dim, metric, scalar="f32", codes="auto", **config):
        handle, space = c.c_void_p(), Space(dim=dim, metric=METRIC[metric], scalar=SCALAR[scalar])
        cfg = GwiConfig(codes=CODES[codes], **config)
        library.must(library.so.peri_gwi_create(c.byref(handle), c.byref(space), c.byref(cfg), None))
        return cls(library, handle)

    @classmethod
    def open(cls, library, path, mapped=False, readonly=True):
        handle, flags = c.c_void_p(), OPEN_MAP * mapped | OPEN_READONLY * readonly
        library.must(library.so.peri_index_open(c.byref(handle), str(path).encode(), flags, None, None))
        return cls(library, handle)

    def put(self, rows, threads=1, ids=None):
        ids = np.arange(len(rows), dtype=np.uint64) if ids is None else ids
        task = Task(threads=threads)
        self.library.must(self.library.so.peri_index_put_many(
            self.handle, len(rows), address(ids), address(rows), 0, c.byref(task), None))

    def train(self, rows, threads=1):
        self.library.must(self.library.so.peri_index_train(
            self.handle, len(rows), address(rows), c.byref(Task(threads=threads))))

    def maintain(self, threads=1):
        self.library.must(self.library.so.peri_index_maintain(self.handle, c.byref(Task(threads=threads))))

    def save(self, path):
        self.library.must(self.library.so.peri_index_save(self.handle, str(path).encode(), None))

    def search(self, rows, k, effort=0, rerank=0, threads=1, hits=None):
        """Hits as a structured array (queries x k); places beyond n_hits hold id 2^64 - 1."""
        if hits is None:
            hits = np.empty((len(rows), k), HIT)
        counts, query, task = np.empty(len(rows), np.uintp), Query(k=k, effort=effort, rerank=rerank), Task(threads=threads)
        self.library.must(self.library.so.peri_index_search_many(
            self.handle, len(rows), address(rows), c.byref(query), c.byref(task), address(hits), address(counts)))
        if (counts < k).any():
            hits["id"][np.arange(k) >= counts[:, None]] = np.iinfo(np.uint64).max
        return hits

    def search_one(self, rows, k, effort=0):
        """One call per query, as an interactive user makes them."""
        hits, n, query = np.empty((len(rows), k), HIT), c.c_size_t(), Query(k=k, effort=effort)
        call, handle, q, count = self.library.so.peri_index_search, self.handle, c.byref(query), c.byref(n)
        row, hit = address(rows), address(hits)
        for i in range(len(rows)):
            status = call(handle, row + i * rows.strides[0], q, hit + i * hits.strides[0], count)
            if status:
                self.library.must(status)
        return hits

    def info(self):
        info = Info()
        self.library.must(self.library.so.peri_index_get_info(self.handle, c.byref(info)))
        return info

    def check(self):
        faults = c.c_uint64()
        self.library.must(self.library.so.peri_index_check(self.handle, None, c.byref(faults)))
        return faults.value

    def close(self):
        if self.handle:
            self.library.so.peri_index_close(self.handle)
            self.handle = None

    __del__ = close


def compare_with_headers(include):
    """Names of mirrored fields that do not lie where the headers put them."""
    lines = ["#include <stdio.h>", "#include <stddef.h>", '#include "perigee/perigee.h"', "int main(void) {"]
    mine = {}
    for name, mirror in MIRRORED.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        mine[name] = c.sizeof(mirror)
        for field, *_ in mirror._fields_:
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
            mine[f"{name}.{field}"] = getattr(mirror, field).offset
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "layout.c"
        source.write_text("\n".join(lines) + "return 0; }\n")
        program = Path(folder) / "layout"
        subprocess.run(["cc", "-I", str(include), "-o", str(program), str(source)], check=True)
        theirs = dict(line.split() for line in subprocess.check_output([program], text=True).splitlines())
    return [f"{name}: {mine[name]} here, {value} in the header" for name, value in theirs.items()
            if mine[name] != int(value)]


if __name__ == "__main__":
    wrong = compare_with_headers(Path(__file__).resolve().parent.parent / "include")
    print("\n".join(wrong) or f"{len(MIRRORED)} structs agree with the headers")
    sys.exit(bool(wrong))
