"""Build time on two threads, engines in turns, with the quality of what was built;
and memory: bytes a vector against hnswlib's 4d + 140."""

from bench_common import Timed, load_average, median, qps_at
from curves import survey_one
from peers import Faiss, Hnswlib, Perigee

BASE = {"m": 16, "ef_construction": 200}
EF = 64
MUST_BUILD = 0.6

# Bytes a vector, as a multiple of hnswlib's: what the rows are, what traversal reads.
MEMORY = [({"scalar": "f32", "codes": "none"}, 1.0), ({"scalar": "f32", "codes": "8bit"}, 1.3),
          ({"scalar": "i8", "codes": "auto"}, 0.45)]
MUST_I8 = {"w2v": 0.5}


def measure_builds(data, library, options, say):
    """Quality is recall@10 at ef 64. Perigee is built without codes, where that
    recall is one of traversing f32 rows, as the peers'; and with 8-bit codes; and
    with less effort, since what counts is the time to a graph of equal quality."""
    contenders = {"hnswlib": (Hnswlib(data), BASE)}
    if "faiss" in options.peers:
        contenders["faiss"] = (Faiss(data), BASE)
    if library:
        for effort in (200, 100):
            for codes in ("none", "8bit"):
                params = BASE | {"ef_construction": effort, "scalar": "f32", "codes": codes}
                contenders[f"perigee efc {effort}, codes {codes}"] = (Perigee(data, library), params)
    runs = {name: {"wall": [], "cpu": [], "recall": []} for name in contenders}
    rounds = max(1, options.rounds if not options.quick else min(3, options.rounds))
    for _ in range(rounds):
        for name, (engine, params) in contenders.items():
            t = engine.build(params, 2)
            ids, _ = engine.search(EF)
            runs[name]["wall"].append(t.wall)
            runs[name]["cpu"].append(t.cpu)
            runs[name]["recall"].append(data.recall(ids))
            del engine.index
    result = {"set": data.name, "rows": data.rows, "dim": data.dim, "threads": 2, "params": BASE, "ef": EF,
              "rounds": rounds, "load_average": load_average(), "engines": {}}
    base = {k: median(runs["hnswlib"][k]) for k in ("wall", "cpu", "recall")}
    for name, r in runs.items():
        wall, cpu, recall = median(r["wall"]), median(r["cpu"]), median(r["recall"])
        result["engines"][name] = {"wall": wall, "cpu": cpu, "recall": recall, "ratio": wall / base["wall"],
                                   "ratio_cpu": cpu / base["cpu"], "walls": r["wall"],
                                   # Within 0.0005 is the same: builds on two threads vary by that.
                                   "equal_quality": recall >= base["recall"] - 0.0005}
        say(f"{data.name} {name}: built in {wall:.1f} s ({wall / base['wall']:.2f}x), recall {recall:.4f} at ef {EF}")
    # Two threads with the machine to themselves use close to twice the wall time.
    result["busy"] = base["cpu"] < 1.85 * base["wall"]
    return result


def build_table(results):
    """The must is met by the fastest build of equal quality; on a busy machine
    the ratio of CPU times is the better witness."""
    lines = ["| set | engine | build, s (2 threads) | CPU, s | of hnswlib | CPU, of hnswlib | recall@10 at ef 64 | must 0.6x |",
             "|---|---|---|---|---|---|---|---|"]
    for r in results:
        ratio = "ratio_cpu" if r["busy"] else "ratio"
        for name, e in r["engines"].items():
            met = ""
            if name.startswith("perigee"):
                met = "lower quality" if not e["equal_quality"] else "met" if e[ratio] <= MUST_BUILD else "**not met**"
            lines.append(f"| {r['set']}-{r['dim']}{' (busy)' if r['busy'] else ''} | {name} | {e['wall']:.2f} | "
                         f"{e['cpu']:.2f} | {e['ratio']:.2f}x | {e['ratio_cpu']:.2f}x | {e['recall']:.4f} | {met} |")
    return "\n".join(lines)


def measure_memory(data, library, options, say):
    theirs = 4 * data.dim + 140
    result = {"set": data.name, "rows": data.rows, "dim": data.dim, "hnswlib_bytes": theirs, "settings": []}
    for params, must in MEMORY:
        if params["scalar"] == "i8":
            must = MUST_I8.get(data.name, must)
        engine = Perigee(data, library)
        engine.build(BASE | params, 2)
        info = engine.index.info()
        points = [{"ef": int(ef), "recall": r, "qps": q} for ef, (r, q) in survey_one(engine, {}, targets=(0.95,), rounds=1).items()]
        best = max(p["recall"] for p in points)
        row = params | {"bytes": info.bytes_heap / data.rows, "ratio": info.bytes_heap / data.rows / theirs, "must": must,
                        "codes_in_effect": info.codes, "qps_at_0.95": qps_at(points, 0.95), "best_recall": best}
        row["met"] = row["ratio"] <= must and best >= 0.95
        result["settings"].append(row)
        say(f"{data.name} rows {params['scalar']}, codes {params['codes']}: {row['bytes']:.0f} bytes a vector, "
            f"{row['ratio']:.2f}x of hnswlib's {theirs}")
        engine.index.close()
    return result


def memory_table(results):
    lines = ["| set | rows | codes | bytes a vector | of hnswlib's 4d + 140 | must | queries/s at 0.95 | |",
             "|---|---|---|---|---|---|---|---|"]
    for r in results:
        for s in r["settings"]:
            rate = f"{s['qps_at_0.95']:,.0f}" if s["qps_at_0.95"] else f"best recall {s['best_recall']:.3f}"
            lines.append(f"| {r['set']}-{r['dim']} | {s['scalar']} | {s['codes']} | {s['bytes']:.0f} | {s['ratio']:.2f}x | "
                         f"{s['must']}x | {rate} | {'met' if s['met'] else '**not met**'} |")
    return "\n".join(lines)


def measure_open(data, library, options, say):
    """Open a saved index mapped and answer one query, warm page cache; copied beside it."""
    from bench_common import CACHE, K
    from perigee_ctypes import Index

    engine = Perigee(data, library)
    path = CACHE / f"open-{data.name}.peri"
    path.parent.mkdir(parents=True, exist_ok=True)
    engine.build(BASE | {"scalar": "f32", "codes": "auto"}, 2)
    engine.save(path)
    engine.index.close()
    result = {"set": data.name, "rows": data.rows, "dim": data.dim, "file_bytes": path.stat().st_size}
    times = {"mapped": [], "copied": []}
    for i in range(20 if not options.quick else 10):
        for how in times:
            with Timed() as t:
                ix = Index.open(library, path, mapped=how == "mapped")
                ix.search(data.test[i:i + 1], K)
            times[how].append(1e3 * t.wall)
            ix.close()
    path.unlink()
    for how, ms in times.items():
        result[f"{how}_ms"], result[f"{how}_worst_ms"] = median(ms), max(ms)
    result["must_ms"], result["met"] = 20, result["mapped_ms"] < 20
    say(f"{data.name}: first answer {result['mapped_ms']:.1f} ms after a mapped open, {result['copied_ms']:.1f} ms copied")
    return result


def open_table(results):
    lines = ["| set | file, MB | open mapped to first answer, ms (worst) | copied, ms | must | |", "|---|---|---|---|---|---|"]
    for r in results:
        lines.append(f"| {r['set']}-{r['dim']}, {r['rows']:,} rows | {r['file_bytes'] / 1e6:.0f} | {r['mapped_ms']:.1f} "
                     f"({r['mapped_worst_ms']:.1f}) | {r['copied_ms']:.1f} | < 20 ms | {'met' if r['met'] else '**not met**'} |")
    return "\n".join(lines)
