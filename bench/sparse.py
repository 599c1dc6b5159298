"""Sparse vectors: exact search against a linear term-at-a-time scan and SciPy's CSR product, approximate
search against exact and Seismic, all one thread, in turns, on rows like SPLADE's (sparse_peers.c)."""

import ctypes as c
import os
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import scipy.sparse

from bench_common import CACHE, K, median, qps_at
from perigee_ctypes import HIT, Query, SparseConfig, SparseInfo, SparseRows, Task, address

ROWS, QUERIES, VOCABULARY, SEED = 500_000, 200, 30522, 7
# (effort, rerank) of the curve; Seismic: (query_cut, heap_factor).
GRID = [(4, 30), (6, 30), (8, 40), (10, 40), (12, 40), (14, 50), (16, 60), (20, 60), (24, 80), (28, 80), (36, 100),
        (45, 120)]
SEISMIC = [(cut, factor) for cut in (3, 4, 5, 6, 8, 10, 14, 20) for factor in (0.7, 0.8, 0.9, 1.0)]
MUST = {"linear": 1.2, "scipy": 5, "at_99": 2.5, "at_95": 5, "filter": 0.5, "churn": 1.1}


class Peers:
    def __init__(self):
        CACHE.mkdir(parents=True, exist_ok=True)
        here, so = Path(__file__).parent, CACHE / "sparse_peers.so"
        subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", str(so), str(here / "sparse_peers.c"),
                        "-lm"], check=True)
        self.so = c.CDLL(str(so))
        self.so.sparse_make.restype = c.c_uint64
        self.so.sparse_make.argtypes = [c.c_uint64, c.c_int, c.c_uint64, c.c_uint64] + [c.c_void_p] * 3 + [c.c_uint64]
        self.so.sparse_invert.restype = c.c_void_p
        self.so.sparse_invert.argtypes = [c.c_uint64] + [c.c_void_p] * 3
        self.so.sparse_uninvert.argtypes = [c.c_void_p]
        for scan in (self.so.sparse_linear, self.so.sparse_maxscore):
            scan.argtypes = [c.c_void_p, c.c_uint32, c.c_void_p, c.c_void_p, c.c_uint32, c.c_void_p]
            scan.restype = None

    def make(self, n, queries):
        room = n * 190
        offsets, terms, weights = np.zeros(n + 1, np.uint64), np.empty(room, np.uint32), np.empty(room, np.float32)
        used = self.so.sparse_make(SEED, queries, 0, n, address(offsets), address(terms), address(weights), room)
        assert used
        return offsets, terms[:used].copy(), weights[:used].copy()


def row(data, i):
    a, b = int(data[0][i]), int(data[0][i + 1])
    return data[1][a:b], data[2][a:b]


def part_of_heaviest(data, n, rows=200):
    """What part of a row's weight its n heaviest entries hold, on average."""
    parts = []
    for i in range(rows):
        w = np.sort(row(data, i)[1])[::-1]
        parts.append(w[:n].sum() / w.sum())
    return float(np.mean(parts))


class Sparse:
    def __init__(self, library):
        self.library, self.handle = library, c.c_void_p()
        library.must(library.so.peri_sparse_create(c.byref(self.handle), c.byref(SparseConfig()), None))
        self.task = Task(threads=1)

    def put(self, data, first=0, last=None, ids=None):
        n = (len(data[0]) - 1 if last is None else last) - first
        offsets = np.ascontiguousarray(data[0][first:first + n + 1])
        rows = SparseRows(n, address(offsets), address(data[1]), address(data[2]))
        self.library.must(self.library.so.peri_sparse_put_many(
            self.handle, address(ids) if ids is not None else None, c.byref(rows), 0, c.byref(self.task), None))

    def remove(self, ids):
        for i in ids:
            self.library.must(self.library.so.peri_sparse_remove(self.handle, int(i)))

    def compact(self):
        self.library.must(self.library.so.peri_sparse_compact(self.handle, c.byref(self.task)))

    def info(self):
        info = SparseInfo()
        self.library.must(self.library.so.peri_sparse_get_info(self.handle, c.byref(info)))
        return info

    def search(self, data, effort=0, rerank=0, allow=None):
        """(ids, distances, mean ms): one call, one thread."""
        n = len(data[0]) - 1
        q = Query(k=K, effort=effort, rerank=rerank, allow=allow)
        hits, counts = np.zeros((n, K), HIT), np.zeros(n, np.uint64)
        rows = SparseRows(n, address(data[0]), address(data[1]), address(data[2]))
        start = time.perf_counter()
        self.library.must(self.library.so.peri_sparse_search_many(
            self.handle, c.byref(rows), c.byref(q), c.byref(self.task), address(hits), address(counts)))
        return hits["id"], hits["distance"], (time.perf_counter() - start) / n * 1e3

    def close(self):
        self.library.so.peri_sparse_close(self.handle)


def recall(ids, truth):
    return float(np.mean([len(set(map(int, a)) & set(map(int, b))) / K for a, b in zip(ids, truth)]))


def scan_ms(scan, inverted, queries, n):
    top = np.zeros(K, dtype=[("score", "f4"), ("row", "u4")])
    start = time.perf_counter()
    for i in range(n):
        terms, weights = row(queries, i)
        scan(inverted, len(terms), terms.ctypes.data, weights.ctypes.data, K, address(top))
    return (time.perf_counter() - start) / n * 1e3


def scipy_ms(matrix, queries, n):
    """What its users write: matrix times dense query, argpartition, sort the ten."""
    start = time.perf_counter()
    for i in range(n):
        terms, weights = row(queries, i)
        dense = np.zeros(VOCABULARY, np.float32)
        dense[terms] = weights
        scores = matrix @ dense
        best = np.argpartition(scores, -K)[-K:]
        best[np.argsort(-scores[best])]
    return (time.perf_counter() - start) / n * 1e3


def build_seismic(rows, say):
    from seismic import SeismicIndexRaw
    path = CACHE / "sparse_rows.bin"
    if not path.exists():
        with open(path, "wb") as f:
            f.write(struct.pack("<I", len(rows[0]) - 1))
            for i in range(len(rows[0]) - 1):
                terms, weights = row(rows, i)
                f.write(struct.pack("<I", len(terms)) + terms.astype("<i4").tobytes() + weights.tobytes())
    start = time.monotonic()
    index = SeismicIndexRaw.build(str(path), n_postings=3500, centroid_fraction=0.1, min_cluster_size=2,
                                  summary_energy=0.4)
    seconds = time.monotonic() - start
    say(f"sparse: seismic built in {seconds:.0f} s (all cores)")
    return index, seconds


def seismic_points(index, queries, truth):
    points = []
    for cut, factor in SEISMIC:
        got, start = [], time.perf_counter()
        for i in range(len(queries[0]) - 1):
            terms, weights = row(queries, i)
            got.append(index.search(terms.astype(np.int32), weights, K, cut, factor, 0, True))
        ms = (time.perf_counter() - start) / len(got) * 1e3
        points.append({"recall": recall([[h[1] for h in hits] for hits in got], truth), "qps": 1e3 / ms,
                       "setting": f"cut {cut}, heap_factor {factor}"})
    return points


def measure_churn(library, rows, queries, rounds):
    """Half of 100,000 rows deleted and compacted, against a build of the other half alone."""
    n = 100_000
    used, fresh = Sparse(library), Sparse(library)
    used.put(rows, 0, n)
    used.remove(range(0, n, 2))
    used.compact()
    kept = np.arange(1, n, 2)
    parts = [row(rows, int(i)) for i in kept]
    offsets = np.concatenate([[0], np.cumsum([len(t) for t, _ in parts])]).astype(np.uint64)
    fresh.put((offsets, np.concatenate([t for t, _ in parts]), np.concatenate([w for _, w in parts])),
              ids=kept.astype(np.uint64))
    fresh.compact()
    ms = ([], [])
    for _ in range(rounds):
        for sparse, out in zip((used, fresh), ms):
            out.append(sparse.search(queries)[2])
    a, b = used.search(queries), fresh.search(queries)
    result = {"latency": median(ms[0]) / median(ms[1]),
              "size": used.info().bytes_sealed / fresh.info().bytes_sealed,
              "same": bool((a[0] == b[0]).all() and (a[1] == b[1]).all())}
    used.close()
    fresh.close()
    return result


def measure_filter(library, sparse, queries, rounds):
    """One row in a hundred: those of a tenant whose rows came together, and any, the worst for skipping windows."""
    sets = {"together": np.arange(ROWS // 3, ROWS // 3 + ROWS // 100),
            "at random": np.random.default_rng(1).choice(ROWS, ROWS // 100, replace=False)}
    n, result = 50, {}
    few = (queries[0][:n + 1].copy(), queries[1], queries[2])
    each = [(np.array([0, len(t)], np.uint64), t.copy(), w.copy()) for t, w in (row(queries, i) for i in range(n))]
    for name, ids in sets.items():
        allow, ids = c.c_void_p(), ids.astype(np.uint64)
        library.must(library.so.peri_idset_create(c.byref(allow), None))
        library.must(library.so.peri_idset_add(allow, len(ids), address(ids)))
        plain, filtered = [], []
        for _ in range(rounds):
            plain.append(sparse.search(few)[2])
            # One call a query, so that each pays for its filter.
            filtered.append(float(np.mean([sparse.search(one, allow=allow)[2] for one in each])))
        library.so.peri_idset_close(allow)
        result[name] = {"plain_ms": median(plain), "filtered_ms": median(filtered),
                        "ratio": median(filtered) / median(plain)}
    return result


def measure(library, options, say):
    peers = Peers()
    say(f"sparse: {ROWS:,} rows")
    rows, queries = peers.make(ROWS, 0), peers.make(QUERIES, 1)
    sparse, start = Sparse(library), time.monotonic()
    sparse.put(rows)
    sparse.compact()
    build = time.monotonic() - start
    say(f"sparse: built in {build:.0f} s")
    inverted = peers.so.sparse_invert(ROWS, address(rows[0]), address(rows[1]), address(rows[2]))
    matrix = scipy.sparse.csr_matrix((rows[2], rows[1].astype(np.int32), rows[0].astype(np.int64)),
                                     shape=(ROWS, VOCABULARY))
    truth = sparse.search(queries)[0]
    exact, linear, product = [], [], []
    for _ in range(options.rounds):
        exact.append(sparse.search(queries)[2])
        linear.append(scan_ms(peers.so.sparse_linear, inverted, queries, QUERIES))
        product.append(scipy_ms(matrix, queries, 10))
    maxscore = scan_ms(peers.so.sparse_maxscore, inverted, queries, 20)
    peers.so.sparse_uninvert(inverted)
    points = [{"recall": 1.0, "qps": 1e3 / median(exact), "setting": "exact"}]
    for effort, rerank in GRID:
        runs = [sparse.search(queries, effort, rerank) for _ in range(options.rounds)]
        points.append({"recall": recall(runs[0][0], truth), "qps": 1e3 / median([r[2] for r in runs]),
                       "setting": f"effort {effort}, rerank {rerank}"})
    for p in points:
        p["group"], p["setting"] = p["setting"], "perigee"
    say("sparse: curve measured")
    result = {"exact_ms": median(exact), "linear_ms": median(linear), "scipy_ms": median(product),
              "maxscore_over_linear": maxscore / median(linear), "query_top10": part_of_heaviest(queries, 10),
              "row_top50": part_of_heaviest(rows, 50), "build_s": build, "bytes": sparse.info().bytes_sealed,
              "points": points, "filter": measure_filter(library, sparse, queries, options.rounds),
              "churn": measure_churn(library, rows, queries, options.rounds)}
    if not options.quick:
        index, seconds = build_seismic(rows, say)
        result["seismic_build_s"] = seconds
        result["seismic"] = seismic_points(index, queries, truth)
        for p in result["seismic"]:
            p["group"], p["setting"] = p["setting"], "seismic"
    sparse.close()
    return [result]


def table(results):
    r = results[0]
    exact = 1e3 / r["exact_ms"]
    at = {t: qps_at(r["points"], t) for t in (0.95, 0.99)}
    lines = [f"{ROWS:,} rows like SPLADE's, {QUERIES} queries, recall@{K}, one thread; MaxScore takes "
             f"{r['maxscore_over_linear']:.0f} times as long as the linear scan, the ten heaviest entries of a query "
             f"hold {r['query_top10']:.0%} of its weight, the fifty of a row {r['row_top50']:.0%}. Built in "
             f"{r['build_s']:.0f} s, {r['bytes'] / 2**20:.0f} MiB.", "",
             "| what | ms a query | against | ratio | must |", "|---|---|---|---|---|",
             f"| exact | {r['exact_ms']:.2f} | linear scan, {r['linear_ms']:.2f} ms | "
             f"{r['linear_ms'] / r['exact_ms']:.2f} | {MUST['linear']} |",
             f"| exact | {r['exact_ms']:.2f} | SciPy CSR, {r['scipy_ms']:.1f} ms | "
             f"{r['scipy_ms'] / r['exact_ms']:.1f} | {MUST['scipy']} |"]
    for t, must in ((0.99, "at_99"), (0.95, "at_95")):
        if at[t]:
            lines.append(f"| approximate, recall {t} | {1e3 / at[t]:.3f} | own exact | {at[t] / exact:.2f} | "
                         f"{MUST[must]} |")
        peer = qps_at(r["seismic"], t) if "seismic" in r else None
        if at[t] and peer:
            lines.append(f"| approximate, recall {t} | {1e3 / at[t]:.3f} | Seismic, {1e3 / peer:.3f} ms | "
                         f"{at[t] / peer:.2f} | report |")
    churn = r["churn"]
    lines += [f"| filter of 1 %, {name} | {f['filtered_ms']:.3f} | unfiltered, {f['plain_ms']:.2f} ms | "
              f"{f['ratio']:.2f} | <= {MUST['filter']} |" for name, f in r["filter"].items()]
    lines += [f"| half deleted, compacted: latency | | fresh build | {churn['latency']:.2f} | <= {MUST['churn']} |",
              f"| the same: size | | fresh build | {churn['size']:.3f} | <= {MUST['churn']} |",
              f"| the same: answers | | fresh build | {'same' if churn['same'] else 'DIFFERENT'} | same |"]
    return "\n".join(lines)
