"""What every measurement shares: data sets, recall, fronts, clocks, the machine.

Rules that all figures follow:
 1. One thread unless the figure is a build. Environment variables that set
    thread counts are put in place by script/bench, before NumPy is loaded.
 2. Queries/s are queries over the CPU time of this process (all its threads),
    which is the wall time of a quiet machine and is not fooled by a busy one;
    the wall time is kept beside it. Builds are wall time.
 3. Engines take turns inside each round; a figure is the median of the rounds.
 4. A hit is an id whose true distance is no larger than that of the tenth
    neighbour: rows that tie for tenth place all count, for every engine.
"""

import hashlib
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
CACHE = RESULTS / "cache"

K = 10
TARGETS = (0.95, 0.99)

# The sets of the project's goals: least queries/s over each peer (see --sets
# for others; a set without an entry is measured and not judged).
SETS = {
    "mnist": {"file": "mnist-784-euclidean.hdf5", "must": {"hnswlib": 3.0, "faiss": 3.0}},
    "sift": {"file": "sift250k-128-euclidean.hdf5", "must": {"hnswlib": 1.7, "faiss": 2.0}},
    "lsa": {"file": "imdb-lsa-256-angular.hdf5", "must": {"hnswlib": 1.3, "faiss": 1.5}},
    "w2v": {"file": "w2v-imdb-100-angular.hdf5", "must": {"hnswlib": 1.3, "faiss": 1.5}},
}


class DataSet:
    """One ann-benchmarks file. Angular rows are normalised, so that peers may
    use their plain inner product, which is faster than their cosine."""

    def __init__(self, name, path):
        self.name, self.path = name, Path(path)
        with h5py.File(path, "r") as f:
            distance = f.attrs["distance"]
            self.distance = distance.decode() if isinstance(distance, bytes) else str(distance)
            self.train = np.ascontiguousarray(f["train"][:], dtype=np.float32)
            self.test = np.ascontiguousarray(f["test"][:], dtype=np.float32)
            self.neighbors = f["neighbors"][:]
            self.distances = f["distances"][:]
        if self.distance not in ("euclidean", "angular"):
            raise SystemExit(f"{path}: distance '{self.distance}' is neither euclidean nor angular")
        if self.distance == "angular":
            self.train /= np.linalg.norm(self.train, axis=1, keepdims=True)
            self.test /= np.linalg.norm(self.test, axis=1, keepdims=True)
        self.rows, self.dim = self.train.shape
        # Rows that tie with the tenth neighbour, as one padded table of ids.
        limit = self.distances[:, K - 1:K]
        tied = self.distances <= limit + 1e-6 * np.abs(limit)
        width = int(tied.sum(axis=1).max())
        self._truth = np.where(tied, self.neighbors, -1)[:, :width].astype(np.int64)

    @property
    def must(self):
        return SETS.get(self.name, {}).get("must", {})

    def recall(self, ids):
        """recall@10 of ids (queries x 10; -1 where an engine gave fewer)."""
        ids = np.asarray(ids)[:, :K].astype(np.int64)
        hits = 0
        for a in range(0, len(ids), 1000):
            block = ids[a:a + 1000]
            same = (block[:, :, None] == self._truth[a:a + 1000, None, :]) & (block[:, :, None] >= 0)
            hits += int(same.any(axis=2).sum())
        return hits / (len(ids) * K)

    def fingerprint(self):
        h = hashlib.sha256(str(self.path.stat().st_size).encode())
        with open(self.path, "rb") as f:
            h.update(f.read(1 << 20))
        return h.hexdigest()[:12]


def open_sets(names, data_dir):
    """Data sets by short name, or any HDF5 file of this layout by path."""
    for name in names:
        if name in SETS:
            path = Path(data_dir) / SETS[name]["file"]
        else:
            path, name = Path(name), Path(name).stem
        if not path.exists():
            raise SystemExit(f"no such data set: {path} (see --data and --sets)")
        yield DataSet(name, path)


class Timed:
    """with Timed() as t: ...; then t.wall and t.cpu in seconds."""

    def __enter__(self):
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu


def median(values):
    return statistics.median(values)


def front(points):
    """The Pareto front of points {recall, qps, ...}, by rising recall."""
    best, out = 0.0, []
    for p in sorted(points, key=lambda p: (-p["recall"], -p["qps"])):
        if p["qps"] > best:
            best = p["qps"]
            out.append(p)
    return out[::-1]


def _interpolate(points, target):
    f = front(points)
    for i, p in enumerate(f):
        if p["recall"] >= target:
            if i == 0:
                return p["qps"]
            q = f[i - 1]
            share = (target - q["recall"]) / (p["recall"] - q["recall"])
            return float(np.exp((1 - share) * np.log(q["qps"]) + share * np.log(p["qps"])))
    return None


def qps_at(points, target):
    """Queries/s at a recall, log-linear between neighbouring points: of the front
    over all settings, or of one setting where that is more (a point of another
    setting that lies just under the line between two must not lower it).
    Below its first point an engine cannot get faster: its rate there stands.
    Above its last it has no answer: None."""
    groups = {}
    for p in points:
        groups.setdefault(p.get("setting"), []).append(p)
    rates = [_interpolate(g, target) for g in [points, *groups.values()]]
    return max((r for r in rates if r), default=None)


def load_average():
    return os.getloadavg()[0]


def busy_mark(wall, cpu):
    """Whether other work took more than 3 % of a one-thread measurement."""
    return wall > 1.03 * cpu


def machine():
    """What a reader must know to repeat the figures."""

    def run(*cmd):
        try:
            return subprocess.run(cmd, capture_output=True, text=True).stdout.strip()
        except OSError:
            return ""

    cpu, flags = platform.processor(), set()
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
            elif line.startswith("flags"):
                flags = set(line.split(":", 1)[1].split())
    except OSError:
        pass
    isa = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16") if f in flags]
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    release = platform.freedesktop_os_release() if hasattr(platform, "freedesktop_os_release") else {}
    lscpu = run("lscpu")
    caches = [" ".join(l.split()) for l in lscpu.splitlines() if l.strip().startswith(("L1d", "L2", "L3"))]
    return {
        "cpu": cpu,
        "isa": isa,
        "caches": caches,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": release.get("PRETTY_NAME", platform.platform()),
        "kernel": platform.release(),
        "compiler": (run("cc", "--version").splitlines() or ["?"])[0],
        "transparent_hugepage": pages.read_text().strip() if pages.exists() else "?",
        "load_average_at_start": round(load_average(), 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": run("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "date": time.strftime("%Y-%m-%d"),
    }


def write_json(name, value):
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(value, indent=1) + "\n")
    return path
