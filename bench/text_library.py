"""peri_text and peri_fuse through ctypes; the structs mirror include/perigee/text.h and fuse.h."""

import ctypes as c

import numpy as np

from perigee_ctypes import MIRRORED, OPEN_MAP, OPEN_READONLY, Sized, Task

SCORED = np.dtype([("id", "<u8"), ("score", "<f4"), ("reserved", "<u4")])
STOP = {"none": 0, "english": 1}


class Slice(c.Structure):
    _fields_ = [("data", c.c_char_p), ("size", c.c_size_t)]


class TextConfig(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("positions", c.c_uint32), ("language", c.c_char_p),
                ("stop", c.c_uint32), ("script", c.c_uint32), ("accents", c.c_uint32), ("k1", c.c_float),
                ("b", c.c_float), ("reserved", c.c_uint32), ("stop_words", c.c_void_p), ("n_stop_words", c.c_size_t)]


class TextQuery(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("k", c.c_uint32), ("syntax", c.c_uint32), ("join", c.c_uint32),
                ("allow", c.c_void_p), ("filter", c.c_void_p), ("filter_ctx", c.c_void_p)]


class TextInfo(Sized):
    _fields_ = [("struct_size", c.c_uint32), ("positions", c.c_uint32), ("keyed", c.c_uint32),
                ("segments", c.c_uint32), ("documents", c.c_uint64), ("deleted", c.c_uint64), ("terms", c.c_uint64),
                ("postings", c.c_uint64), ("length", c.c_uint64), ("bytes_heap", c.c_uint64),
                ("bytes_mapped", c.c_uint64), ("next_id", c.c_uint64), ("k1", c.c_float), ("b", c.c_float),
                ("stop", c.c_uint32), ("script", c.c_uint32), ("accents", c.c_uint32), ("reserved", c.c_uint32),
                ("language", c.c_char * 32)]


MIRRORED.update({"peri_text_config": TextConfig, "peri_text_query": TextQuery, "peri_text_info": TextInfo})


def slices(texts):
    """Texts as an array of slices, and what keeps their bytes alive."""
    raw = [t.encode() if isinstance(t, str) else t for t in texts]
    array = (Slice * len(raw))()
    for i, t in enumerate(raw):
        array[i].data, array[i].size = t, len(t)
    return array, raw


class IdSet:
    def __init__(self, library, ids):
        self.library, self.handle = library, c.c_void_p()
        so = library.so
        so.peri_idset_add.argtypes = [c.c_void_p, c.c_size_t, c.c_void_p]
        so.peri_idset_close.argtypes = [c.c_void_p]
        library.must(so.peri_idset_create(c.byref(self.handle), None))
        ids = np.ascontiguousarray(ids, dtype=np.uint64)
        library.must(so.peri_idset_add(self.handle, len(ids), ids.ctypes.data))

    def close(self):
        self.library.so.peri_idset_close(self.handle)


class Text:
    """One peri_text."""

    def __init__(self, library, handle):
        self.library, self.handle = library, handle
        pointer, size, u32, u64 = c.c_void_p, c.c_size_t, c.c_uint32, c.c_uint64
        for name, arguments in {
            "peri_text_close": [pointer],
            "peri_text_save": [pointer, c.c_char_p, pointer],
            "peri_text_put_many": [pointer, size, pointer, pointer, u32, pointer, pointer],
            "peri_text_remove": [pointer, u64],
            "peri_text_maintain": [pointer, c.c_int, pointer],
            "peri_text_search_many": [pointer, size] + [pointer] * 5,
            "peri_text_get_info": [pointer, pointer],
        }.items():
            getattr(library.so, name).argtypes = arguments

    @classmethod
    def create(cls, library, positions=False, language=None, stop="none", k1=0.0, b=0.0):
        handle = c.c_void_p()
        config = TextConfig(positions=int(positions), language=language and language.encode(), stop=STOP[stop], k1=k1, b=b)
        library.must(library.so.peri_text_create(c.byref(handle), c.byref(config), None))
        return cls(library, handle)

    @classmethod
    def open(cls, library, path, mapped=True):
        handle = c.c_void_p()
        library.so.peri_text_open.argtypes = [c.c_void_p, c.c_char_p, c.c_uint32, c.c_void_p, c.c_void_p]
        library.must(library.so.peri_text_open(c.byref(handle), str(path).encode(), OPEN_MAP * mapped | OPEN_READONLY,
                                               None, None))
        return cls(library, handle)

    def put(self, texts, ids=None, threads=1):
        array, _keep = slices(texts)
        ids = np.arange(len(texts), dtype=np.uint64) if ids is None else np.ascontiguousarray(ids, dtype=np.uint64)
        task = Task(threads=threads)
        self.library.must(self.library.so.peri_text_put_many(
            self.handle, len(texts), ids.ctypes.data, c.byref(array), 0, c.byref(task), None))

    def remove(self, ids):
        for i in ids:
            self.library.must(self.library.so.peri_text_remove(self.handle, int(i)))

    def maintain(self, everything=True, threads=1):
        task = Task(threads=threads)
        self.library.must(self.library.so.peri_text_maintain(self.handle, int(everything), c.byref(task)))

    def search(self, queries, k=10, join_and=False, operators=False, allow=None, threads=1):
        """queries: what slices() gave, so that a clock around this sees only the search."""
        array = queries[0]
        hits = np.zeros((len(array), k), dtype=SCORED)
        counts = np.zeros(len(array), dtype=np.uintp)
        q = TextQuery(k=k, syntax=0 if operators else 1, join=int(join_and), allow=allow and allow.handle.value)
        task = Task(threads=threads)
        self.library.must(self.library.so.peri_text_search_many(
            self.handle, len(array), c.byref(array), c.byref(q), c.byref(task), hits.ctypes.data, counts.ctypes.data))
        return hits, counts

    def save(self, path):
        self.library.must(self.library.so.peri_text_save(self.handle, str(path).encode(), None))

    def info(self):
        info = TextInfo()
        self.library.must(self.library.so.peri_text_get_info(self.handle, c.byref(info)))
        return info

    def close(self):
        if self.handle:
            self.library.so.peri_text_close(self.handle)
            self.handle = None
