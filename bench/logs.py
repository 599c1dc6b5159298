"""The log against RocksDB, LMDB, SQLite and SynaDB: bench/log_bench.c does the work, in one process,
rounds interleaved; here are the medians and the ratios that it is held to."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench_common import median

PARTS = ("load", "get", "ycsb", "durable", "history", "open")


def find_synadb():
    try:
        import synadb
    except ImportError:
        return []
    found = list(Path(synadb.__file__).parent.glob("libsynadb.*"))
    return str(found[0]) if found else None


def measure(library, options, say):
    """All rows that log_bench prints; none where its peers are not installed."""
    program = options.library.parent.parent / "bench" / "log_bench"
    if not program.exists():
        say("log: librocksdb-dev, liblmdb-dev or libsqlite3-dev is missing: left out")
        return []
    env = dict(os.environ)
    synadb = find_synadb()
    if synadb:
        env["PERIGEE_SYNADB"] = synadb
    rows = []
    folder = tempfile.mkdtemp(prefix="log-bench-", dir=program.parent)
    try:
        for part in PARTS:
            say(f"log: {part}")
            out = subprocess.run([program, folder, part], env=env, check=True, capture_output=True, text=True).stdout
            rows += [json.loads(line) for line in out.splitlines()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def medians(rows, what, field, by="engine"):
    found = {}
    for row in rows:
        if row["what"] == what and row.get(field):
            found.setdefault(row.get(by, ""), []).append(row[field])
    return {name: median(values) for name, values in found.items()}


def table(rows):
    lines = ["| work | Perigee | RocksDB | LMDB | SQLite | SynaDB |", "|---|---|---|---|---|---|"]

    def line(title, what, mine):
        rates = medians(rows, what, "ops")
        cells = [f"{rates[mine]:,.0f}/s"]
        for peer in ("rocksdb", "lmdb", "sqlite", "synadb"):
            cells.append(f"{rates[mine] / rates[peer]:.2f}x of {rates[peer]:,.0f}" if peer in rates else "")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    line("put 150 B, level process", "load", "perigee process")
    line("put 150 B, level memory", "load", "perigee memory")
    line("random get, 1M keys", "get", "perigee memory")
    for mix, words in (("A", "50 % updates"), ("B", "5 %"), ("C", "none")):
        line(f"YCSB {mix} ({words}), zipfian, 1,000 B, level process", f"ycsb {mix}", "perigee process")
        line("the same, level memory", f"ycsb {mix}", "perigee memory")
    two, one = medians(rows, "get", "two"), medians(rows, "get", "ops")
    raw, durable = medians(rows, "durable", "raw"), medians(rows, "durable", "perigee")
    group = next(row for row in rows if row["what"] == "group")
    with_hint, scan = medians(rows, "open", "hint ms"), medians(rows, "open", "scan ms")
    shallow, deep = medians(rows, "latest", "one version"), medians(rows, "latest", "100,000")
    lines += ["", "| what | figure |", "|---|---|",
              f"| two reader threads / one | {two['perigee memory'] / one['perigee memory']:.2f}x |",
              f"| durable put / pwrite + fdatasync loop | {durable[''] / raw['']:.2f}x of {raw['']:,.0f}/s |",
              f"| fsyncs a commit, 16 writers | {group['syncs per commit']:.3f} |",
              f"| latest value: 100,000 versions / one | {deep[''] / shallow['']:.2f}x of {shallow['']:,.0f}/s |",
              f"| open 1M keys: hint / scan | {with_hint['']:.1f} ms / {scan['']:.0f} ms, {scan[''] / with_hint['']:.0f}x |"]
    for row in rows:
        if row["what"] == "series":
            lines.append(f"| 1M doubles, {row['data']} | {row['read GB/s']:.2f} GB/s, {row['ratio']:.1f}x smaller than the doubles alone, "
                         f"{'exact' if row['exact'] else 'NOT EXACT'} |")
    return "\n".join(lines)
