"""The front door of the benchmarks; script/bench sets up what this needs."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import bench_common as common
import builds
import curves
import flat
import logs
import sparse
import text as full_text
import vector_files
import wells
from peers import PEERS, Hnswlib
from perigee_ctypes import Library, compare_with_headers

PARTS = ("curves", "build", "memory", "open", "flat", "wells", "inserts", "growth", "synadb", "mmap", "text", "sparse", "log")
# Parts that bring their own data: measured once, not for each set.
ALONE = {"mmap": vector_files, "text": full_text, "sparse": sparse, "log": logs,
         "synadb": SimpleNamespace(measure=lambda *how: [wells.as_documented(None, *how)], table=wells.documented_table)}
TITLES = {"curves": "Queries/s at equal recall@10, one thread", "build": "Build time and quality, two threads",
          "memory": "Memory", "open": "Opening a saved index", "flat": "Exact search",
          "wells": "Gravity wells against FAISS's inverted files", "inserts": "Gravity wells: inserts, opening",
          "growth": "Gravity wells: cost of a row by size",
          "synadb": "Gravity wells as SynaDB documents its own", "mmap": "Vector files", "text": "Full text",
          "sparse": "Sparse vectors", "log": "The log"}


def arguments():
    p = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    p.add_argument("--library", type=Path, help="path of libperigee.so; --no-library measures the peers alone")
    p.add_argument("--no-library", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--data", type=Path, default=common.ROOT.parent / "shared" / "data" / "vectors",
                   help="where the HDF5 files of the named sets are")
    p.add_argument("--sets", default=",".join(common.SETS), help="names (%(default)s) or paths of HDF5 files")
    p.add_argument("--only", default=",".join(PARTS), help="some of %(default)s")
    p.add_argument("--peers", default="hnswlib,faiss")
    p.add_argument("--rounds", type=int, default=5, help="rounds that count, the median of which is taken")
    p.add_argument("--quick", action="store_true", help="under ten minutes: the peers' best known settings, a small grid")
    p.add_argument("--grid", type=json.loads, help="Perigee's settings as JSON: [{\"m\": 16, \"ef_construction\": 200, ...}]")
    p.add_argument("--name", default=None, help="name of the result files (bench/results/NAME.json and .md)")
    options = p.parse_args()
    caller = Path(os.environ.get("PERIGEE_BENCH_CWD", "."))
    options.data = options.data if options.data.is_absolute() else caller / options.data
    options.sets = [s if s in common.SETS else str(caller / s) for s in options.sets.split(",") if s]
    options.only = [x for x in options.only.split(",") if x]
    options.peers = [x for x in options.peers.split(",") if x]
    for given, known in ((options.only, PARTS), (options.peers, PEERS)):
        for x in given:
            if x not in known:
                p.error(f"'{x}' is none of {', '.join(known)}")
    return options


def main():
    options = arguments()
    started = time.monotonic()
    say = lambda text: print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    machine = common.machine()
    machine["peers"] = {name: PEERS[name].version() for name in options.peers}
    machine["hnswlib_native"] = Hnswlib.is_native()
    if not machine["hnswlib_native"]:
        sys.exit("hnswlib was not compiled for this CPU: remove .venv-bench and run script/bench again")
    library = None
    if not options.no_library:
        if not options.library or not options.library.exists():
            sys.exit(f"no library at {options.library}")
        wrong = compare_with_headers(common.ROOT / "include")
        if wrong:
            sys.exit("bench/perigee_ctypes.py does not mirror the headers:\n" + "\n".join(wrong))
        library = Library(options.library)
        machine["perigee"] = {"version": library.version, "cpu_level": library.cpu_level}

    results = {part: [] for part in options.only}
    in_sets = [part for part in options.only if part not in ALONE]
    for data in common.open_sets(options.sets, options.data) if in_sets else ():
        say(f"{data.name}: {data.rows:,} x {data.dim}, {len(data.test):,} queries, {data.distance}")
        steps = {"curves": curves.measure, "build": builds.measure_builds, "memory": builds.measure_memory,
                 "open": builds.measure_open, "flat": flat.measure,
                 "wells": wells.measure, "inserts": wells.measure_inserts, "growth": wells.measure_growth}
        for part in options.only:
            if part not in ALONE and (library or part in ("curves", "build")):
                results[part].append(steps[part](data, library, options, say))
    for part in options.only:
        if part in ALONE and library:
            results[part] = ALONE[part].measure(library, options, say)
    machine["load_average_at_end"] = round(common.load_average(), 2)

    command = "script/bench " + " ".join(a for a in sys.argv[1:] if "libperigee" not in a and a != "--library")
    tables = {"curves": curves.table, "build": builds.build_table, "memory": builds.memory_table,
              "open": builds.open_table, "flat": flat.table, "wells": wells.table,
              "inserts": wells.inserts_table, "growth": wells.growth_table,
              **{part: module.table for part, module in ALONE.items()}}
    text = [f"`{command.strip()}` on {machine['date']}: {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['isa'])}), "
            f"{machine['memory_gib']} GiB, {machine['system']}, {machine['compiler']}; "
            + ", ".join(f"{n} {v}" for n, v in machine["peers"].items())
            + f"; load average {machine['load_average_at_start']} at the start, {machine['load_average_at_end']} at the end. "
            f"Medians of {options.rounds} interleaved rounds; queries/s by CPU time. "
            "\"busy\": other work ran on the machine."]
    for part in options.only:
        if results[part]:
            text += ["", f"### {TITLES[part]}", "", tables[part](results[part])]
    name = options.name or ("quick" if options.quick else "full")
    common.write_json(name, {"machine": machine, "command": command, **results})
    (common.RESULTS / f"{name}.md").write_text("\n".join(text) + "\n")
    print("\n".join(text[1:]))
    say(f"written: bench/results/{name}.json and .md")


if __name__ == "__main__":
    main()
