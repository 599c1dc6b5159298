"""Vector files: insert_batch against memcpy into a fresh mapping and against SynaDB's memory-mapped
store, the time of a checkpoint, opening. The measuring is done by bench/mmap_bench.c, all in C: this
runs it and makes a table."""

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

import bench_common as common


def find_syna():
    """The library inside the wheel, by its place: importing the package loads much else."""
    spec = importlib.util.find_spec("synadb")
    if not spec or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).glob("libsynadb*.so"))
    return found[0] if found else None


def measure(library, options, say):
    program = Path(library.path).resolve().parents[1] / "bench" / "mmap_bench"
    common.RESULTS.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="mmap-bench-", dir=common.RESULTS)
    command = [program, folder, "--rounds", str(options.rounds), "--mib", "256" if options.quick else "512"]
    syna = find_syna()
    if syna:
        command += ["--syna", syna]
    say("vector files: mmap_bench, " + ("with SynaDB" if syna else "without SynaDB, which is not installed"))
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        shutil.rmtree(folder)
    figures = []
    for line in done.stdout.splitlines():
        name, dim, value, unit = line.split("\t")
        figures.append({"name": name, "dim": int(dim), "value": float(value), "unit": unit})
    return figures


def table(figures):
    """One row a dimension, the other figures below."""
    dims = sorted({f["dim"] for f in figures if f["name"] == "memcpy"})
    value = {(f["name"], f["dim"], f["unit"]): f["value"] for f in figures}
    lines = ["| dimension | memcpy, GB/s | insert_batch, GB/s | of memcpy | SynaDB, GB/s | of SynaDB | insert, rows/s "
             "| checkpoint of |", "|---|---|---|---|---|---|---|---|"]
    for d in dims:
        syna = value.get(("SynaDB insert_batch", d, "GB/s"))
        lines.append(
            f"| {d} | {value['memcpy', d, 'GB/s']:.2f} | {value['insert_batch', d, 'GB/s']:.2f} "
            f"| {value['insert_batch / memcpy', d, 'x']:.2f}x "
            + (f"| {syna:.2f} | {value['insert_batch / SynaDB', d, 'x']:.1f}x " if syna else "| - | - ")
            + f"| {value['insert', d, 'rows/s']:,.0f} "
            f"| {value['checkpoint of', d, 'GB']:.2f} GB in {value['checkpoint', d, 's']:.2f} s |")
    lines.append("")
    for f in figures:
        if f["name"].startswith("open"):
            lines.append(f"{f['name']}: {f['value']:.1f} {f['unit']}")
    return "\n".join(lines)
