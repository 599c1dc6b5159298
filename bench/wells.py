"""Gravity wells against FAISS's inverted files, hnswlib's build and SynaDB: builds, queries/s at
equal recall, inserts, growth, opening.

Every engine gets as many lists as Perigee made wells. FAISS's IVF-PQ has 4-bit fast-scan codes of
two dimensions each and re-ranks on the rows (IVFn,PQ(d/2)x4fs,RFlat), its best form here.
"""

import ctypes as c
import time

import numpy as np

from bench_common import CACHE, K, Timed, median, qps_at
from perigee_ctypes import Index, address

PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
TARGETS = (0.90, 0.95, 0.99)


def build(data, library, threads=2, **config):
    index = Index.gwi(library, data.dim, data.distance, **config)
    with Timed() as t:
        index.put(data.train, threads=threads)
    return index, t


def faiss_of(spec, data, threads=2):
    import faiss
    index = faiss.index_factory(data.dim, spec)
    faiss.omp_set_num_threads(threads)
    try:
        with Timed() as train:
            index.train(data.train)
        with Timed() as add:
            index.add(data.train)
    finally:
        faiss.omp_set_num_threads(1)
    return index, train.wall, add.wall


def specs(data, wells):
    return {"IVF-Flat": f"IVF{wells},Flat", "IVF-PQfs, refine": f"IVF{wells},PQ{data.dim // 2}x4fs,RFlat"}


def search_faiss(index, name, probes, k_factor, queries):
    import faiss
    if "refine" in name:
        index.k_factor = k_factor
        faiss.downcast_index(index.base_index).nprobe = probes
    else:
        index.nprobe = probes
    with Timed() as t:
        _, ids = index.search(queries, K)
    return ids, t


def search_wells(index, probes, queries):
    with Timed() as t:
        hits = index.search(queries, K, effort=probes)
    return hits["id"].astype(np.int64), t


def curve(run, settings, data, rounds):
    """Points of recall and rate, of which those past recall 0.995 are not needed."""
    points, queries = [], len(data.test)
    for setting, probes in settings:
        rates = []
        for _ in range(rounds):
            ids, t = run(setting, probes)
            rates.append(queries / t.cpu)
        points.append({"setting": setting, "probes": probes, "recall": data.recall(ids), "qps": median(rates)})
    return points


def until_enough(run, setting, data, rounds):
    points = []
    for probes in PROBES:
        points += curve(run, [(setting, probes)], data, rounds)
        if points[-1]["recall"] > 0.993 or len(points) > 2 and points[-1]["recall"] < points[-3]["recall"] + 0.0005:
            break
    return points


def measure(data, library, options, say):
    """One set: the build of each engine, then its curve."""
    rounds = 2 if options.quick else options.rounds
    data.test = data.test[:2000] if options.quick else data.test
    data._truth = data._truth[:len(data.test)]
    result = {"set": data.name, "rows": data.rows, "dim": data.dim, "engines": {}}
    built = []
    for _ in range(3):
        index, t = build(data, library)
        built.append(t.wall)
        wells = index.info().wells
    result |= {"wells": wells, "build": median(built), "heap_bytes_a_row": index.info().bytes_heap / data.rows}
    say(f"{data.name}: {wells} wells built in {result['build']:.2f} s")
    result["engines"]["gwi"] = until_enough(lambda _, p: search_wells(index, p, data.test), "auto", data, rounds)
    index.close()
    for name, spec in specs(data, wells).items():
        other, train, add = faiss_of(spec, data)
        points = []
        for k_factor in ((2, 4, 8) if "refine" in name else (1,)):
            points += until_enough(lambda k, p: search_faiss(other, name, p, k, data.test), k_factor, data, rounds)
        result["engines"][name] = points
        result[f"build of {name}"] = train + add
        say(f"{data.name}: {spec} trained in {train:.2f} s, added in {add:.2f} s")
        del other
    return result


def table(results):
    lines = ["| set | engine | build, s (2 threads) | " + " | ".join(f"queries/s at {t}" for t in TARGETS) + " |",
             "|---|---|---|" + "---|" * len(TARGETS)]
    for r in results:
        for name, points in r["engines"].items():
            took = r["build"] if name == "gwi" else r[f"build of {name}"]
            cells = []
            for target in TARGETS:
                mine, rate = qps_at(r["engines"]["gwi"], target), qps_at(points, target)
                ratio = f" ({mine / rate:.2f}x)" if rate and mine and name != "gwi" else ""
                cells.append(f"{rate:,.0f}{ratio}" if rate else "never")
            ratio = f" ({took / r['build']:.1f}x)" if name != "gwi" else ""
            lines.append(f"| {r['set']}-{r['dim']}, {r['wells']} lists | {name} | {took:.2f}{ratio} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure_inserts(data, library, options, say):
    """Rows into a trained index, one thread: a batch, then one call a row; then save and open mapped."""
    half = data.rows // 2
    result = {"set": data.name, "dim": data.dim, "rows": data.rows}
    ids = np.arange(data.rows, dtype=np.uint64)
    batched, single = [], []
    for _ in range(3):
        index = Index.gwi(library, data.dim, data.distance)
        index.put(data.train[:half], threads=2)
        with Timed() as t:
            index.put(data.train[half:], threads=1, ids=ids[half:])
        batched.append((data.rows - half) / t.wall)
        index.close()
    put, row = library.so.peri_index_put, data.train.strides[0]
    put.argtypes = [c.c_void_p, c.c_uint64, c.c_void_p, c.c_uint32]
    for _ in range(3):
        index = Index.gwi(library, data.dim, data.distance)
        index.put(data.train[:half], threads=2)
        n, base = min(half, 50000), address(data.train)
        with Timed() as t:
            for i in range(half, half + n):
                put(index.handle, i, base + i * row, 0)
        single.append(n / t.wall)
    path = CACHE / f"wells-{data.name}.peri"
    path.parent.mkdir(parents=True, exist_ok=True)
    index.save(path)
    index.close()
    opened = []
    for i in range(10):
        with Timed() as t:
            index = Index.open(library, path, mapped=True)
            index.search(data.test[i:i + 1], K)
        opened.append(1e3 * t.wall)
        index.close()
    path.unlink()
    result |= {"batched": median(batched), "single": median(single), "open_ms": median(opened)}
    say(f"{data.name}: {result['batched']:,.0f} rows/s batched, {result['single']:,.0f} one by one, "
        f"mapped in {result['open_ms']:.1f} ms")
    return result


def inserts_table(results):
    lines = ["| set | batched, rows/s | one by one, rows/s | open mapped to first answer, ms |", "|---|---|---|---|"]
    for r in results:
        lines.append(f"| {r['set']}-{r['dim']} | {r['batched']:,.0f} | {r['single']:,.0f} | {r['open_ms']:.1f} |")
    return "\n".join(lines)


def measure_growth(data, library, options, say):
    """Microseconds a row as an index of jittered copies grows, each size built at once."""
    rng = np.random.default_rng(5)
    result = {"set": data.name, "dim": data.dim, "sizes": []}
    spread = 0.05 * data.train.std()
    for n in (50_000, 100_000, 250_000, 500_000, 1_000_000):
        if n > 8 * data.rows or options.quick and n > 500_000:
            break
        parts = [data.train]
        while sum(len(p) for p in parts) < n:
            parts.append(data.train + rng.normal(0, spread, data.train.shape).astype(np.float32))
        rows = np.ascontiguousarray(np.concatenate(parts)[:n])
        index = Index.gwi(library, data.dim, data.distance)
        with Timed() as t:
            index.put(rows, threads=2)
        result["sizes"].append({"rows": n, "us_a_row": 1e6 * t.wall / n, "cpu_us_a_row": 1e6 * t.cpu / n,
                                "wells": index.info().wells})
        index.close()
        say(f"{data.name}: {n:,} rows, {1e6 * t.wall / n:.2f} us a row")
    return result


def growth_table(results):
    lines = ["| set | rows | wells | us a row (2 threads) | CPU, us a row |", "|---|---|---|---|---|"]
    for r in results:
        for s in r["sizes"]:
            lines.append(f"| {r['set']}-{r['dim']} | {s['rows']:,} | {s['wells']} | {s['us_a_row']:.2f} | {s['cpu_us_a_row']:.2f} |")
    return "\n".join(lines)


def as_documented(_, library, options, say):
    """SynaDB's own case: 50,000 x 768, nprobe 50, whatever the data set of the run. Its rows are
    normalised here: it takes cosine, and so every engine ranks alike."""
    rng, n, dim, out = np.random.default_rng(9), 50_000, 768, []
    centres = rng.normal(size=(200, dim)).astype(np.float32)
    sets = {"clustered": centres[rng.integers(0, 200, n)] + 0.5 * rng.normal(size=(n, dim)).astype(np.float32),
            "i.i.d. normal": rng.normal(size=(n, dim)).astype(np.float32)}
    for name, rows in sets.items():
        rows = np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
        queries = np.ascontiguousarray(rows[rng.integers(0, n, 500)] + 0.01 * rng.normal(size=(500, dim)).astype(np.float32))
        flat = Index.flat(library, dim, "angular")
        flat.put(rows, threads=2)
        truth = flat.search(queries, K, threads=2)["id"]
        flat.close()
        index = Index.gwi(library, dim, "angular")
        with Timed() as t:
            index.put(rows, threads=2)
        with Timed() as s:
            found = index.search(queries, K, effort=50)["id"]
        recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth)])
        out.append({"rows": name, "engine": "perigee gwi", "build": t.wall, "recall": recall, "ms": 1e3 * s.cpu / len(queries)})
        index.close()
        out += synadb(name, rows, queries, truth, say)
    for o in out:
        say(f"{o['engine']}, {o['rows']}: built in {o['build']:.2f} s, recall@10 {o['recall']:.3f}, {o['ms']:.3f} ms a query")
    return out


def synadb(name, rows, queries, truth, say):
    import tempfile
    try:
        from synadb import GravityWellIndex
    except ImportError as e:
        say(f"SynaDB is not here: {e}")
        return []
    with tempfile.TemporaryDirectory() as folder:
        with Timed() as t:
            index = GravityWellIndex(f"{folder}/x.gwi", dimensions=rows.shape[1])
            index.initialize(rows[:1000])
            index.insert_batch([str(i) for i in range(len(rows))], rows)
        hits = 0
        with Timed() as s:
            for q, want in zip(queries, truth):
                found = {int(r.key) for r in index.search(q, k=K, nprobe=50)}
                hits += len(found & set(int(w) for w in want))
    return [{"rows": name, "engine": "SynaDB", "build": t.wall, "recall": hits / (K * len(queries)), "ms": 1e3 * s.wall / len(queries)}]


def documented_table(runs):
    results = runs[0]
    lines = ["| 50,000 x 768, nprobe 50 | engine | build, s | recall@10 | ms a query |", "|---|---|---|---|---|"]
    for r in results:
        lines.append(f"| {r['rows']} | {r['engine']} | {r['build']:.2f} | {r['recall']:.3f} | {r['ms']:.3f} |")
    return "\n".join(lines)
