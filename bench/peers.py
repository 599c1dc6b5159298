"""The engines behind one face: build, save, load, search. Indexes are cached on
disk by data set, version and parameters, because a full grid takes hours."""

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np

from bench_common import CACHE, K, Timed, load_average
from perigee_ctypes import Index

GRID = [{"m": m, "ef_construction": e} for e in (200, 500) for m in (16, 12, 24, 8, 32)]


class Hnswlib:
    name = "hnswlib"

    def __init__(self, data):
        import hnswlib
        self.data, self.lib = data, hnswlib
        self.space = "l2" if data.distance == "euclidean" else "ip"

    @staticmethod
    def version():
        from importlib.metadata import version
        return version("hnswlib")

    @staticmethod
    def is_native():
        """Whether the extension was compiled for this CPU, read from its code:
        AVX-512 (or AVX) registers appear only with -march=native."""
        import hnswlib
        code = subprocess.run(["objdump", "-d", hnswlib.__file__], capture_output=True, text=True).stdout
        flags = open("/proc/cpuinfo").read()
        return ("zmm" if "avx512f" in flags else "ymm") in code

    def build(self, params, threads):
        self.index = self.lib.Index(space=self.space, dim=self.data.dim)
        self.index.init_index(max_elements=self.data.rows, M=params["m"],
                              ef_construction=params["ef_construction"], random_seed=100)
        with Timed() as t:
            self.index.add_items(self.data.train, np.arange(self.data.rows), num_threads=threads)
        return t

    def save(self, path):
        self.index.save_index(str(path))

    def load(self, path):
        self.index = self.lib.Index(space=self.space, dim=self.data.dim)
        self.index.load_index(str(path))

    def search(self, ef):
        self.index.set_ef(ef)
        with Timed() as t:
            ids, _ = self.index.knn_query(self.data.test, k=K, num_threads=1)
        return ids, t


class Faiss:
    name = "faiss"

    def __init__(self, data):
        import faiss
        self.data, self.lib = data, faiss
        faiss.omp_set_num_threads(1)

    @staticmethod
    def version():
        import faiss
        return faiss.__version__

    def build(self, params, threads):
        # Rows are of unit length where the metric is angular, so L2 ranks as
        # cosine does; FAISS's L2 is faster than its negated inner product.
        self.index = self.lib.IndexHNSWFlat(self.data.dim, params["m"])
        self.index.hnsw.efConstruction = params["ef_construction"]
        self.lib.omp_set_num_threads(threads)
        try:
            with Timed() as t:
                self.index.add(self.data.train)
        finally:
            self.lib.omp_set_num_threads(1)
        return t

    def save(self, path):
        self.lib.write_index(self.index, str(path))

    def load(self, path):
        self.index = self.lib.read_index(str(path))

    def search(self, ef):
        self.index.hnsw.efSearch = ef
        with Timed() as t:
            _, ids = self.index.search(self.data.test, K)
        return ids, t


PEERS = {"hnswlib": Hnswlib, "faiss": Faiss}

# Perigee's own settings. AUTO codes are what a user gets; rows are f32 as the peers' are.
PERIGEE_GRID = [{"m": m, "ef_construction": e, "scalar": "f32", "codes": codes}
                for codes in ("8bit", "none") for e in (200, 500) for m in (16, 12, 24, 32, 8)]


class Perigee:
    name = "perigee"

    def __init__(self, data, library):
        self.data, self.library, self.params = data, library, {}

    def version(self):
        # The library itself: an index from another build of it proves nothing.
        return hashlib.sha256(Path(self.library.path).read_bytes()).hexdigest()[:12]

    def create(self, params):
        params = {k: v for k, v in params.items() if k not in SEARCH_ONLY}
        return Index.hnsw(self.library, self.data.dim, self.data.distance, scalar=params.pop("scalar", "f32"),
                          codes=params.pop("codes", "auto"), **params)

    def build(self, params, threads):
        self.index = self.create(params)
        with Timed() as t:
            self.index.put(self.data.train, threads=threads)
        return t

    def save(self, path):
        self.index.save(path)

    def load(self, path):
        self.index = Index.open(self.library, path)

    def search(self, ef):
        with Timed() as t:
            hits = self.index.search(self.data.test, K, effort=ef, rerank=self.params.get("rerank", 0))
        return hits["id"].astype(np.int64), t


SEARCH_ONLY = ("rerank",)  # settings that change the query and not the index


def label(params, index_only=False):
    """A setting as a name: M16-efc200, and what else a setting says."""
    parts = [f"M{params['m']}", f"efc{params['ef_construction']}"]
    for key, value in params.items():
        if key in ("scalar", "codes"):
            parts.append(str(value))
        elif key not in ("m", "ef_construction") and not (index_only and key in SEARCH_ONLY):
            parts.append(f"{key}{value}")
    return "-".join(parts)


def cached(engine, params, threads=2, build=True):
    """Load the engine's index from the cache, building it there first."""
    data = engine.data
    folder = CACHE / f"{data.name}-{data.fingerprint()}"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{engine.name}-{engine.version()}-{label(params, index_only=True)}"
    engine.params = params
    path, meta = folder / f"{stem}.index", folder / f"{stem}.json"
    if path.exists() and meta.exists():
        engine.load(path)
        return json.loads(meta.read_text())
    if not build:
        return None
    load = load_average()
    t = engine.build(params, threads)
    part = Path(f"{path}.part")
    engine.save(part)
    os.replace(part, path)
    info = {"params": params, "threads": threads, "build_wall": t.wall, "build_cpu": t.cpu,
            "load_average": load, "file_bytes": path.stat().st_size, "date": time.strftime("%Y-%m-%d")}
    meta.write_text(json.dumps(info) + "\n")
    return info


def forget_other_builds(engine):
    """Perigee's cached indexes belong to one build of it; those of others only fill the disk."""
    folder = CACHE / f"{engine.data.name}-{engine.data.fingerprint()}"
    for path in [*folder.glob(f"{engine.name}-*"), *folder.glob(f"survey-{engine.name}-*")]:
        if engine.version() not in path.name:
            path.unlink()
