#!/usr/bin/env python3
"""Fail when a folder of src/ uses what its layer may not: by #include, and by the symbols that its
objects leave undefined. The table is the architecture (docs/architecture.md).

    check_layers.py [ROOT [ARCHIVE ...]]     archives whose members are the objects of src/
"""
import pathlib
import re
import subprocess
import sys

# A folder may use any folder of a lower level, and itself; folders of one level never meet.
LEVEL = {
    "base": 0,
    "kernels": 1, "persist": 1, "fuse": 1,
    "keys": 2, "rows": 2, "cluster": 2, "history": 2, "io": 2,
    "index": 3, "postings": 3, "filter": 3,
    "graph": 4,
    "flat": 5, "hnsw": 5, "gwi": 5, "cascade": 5, "sparse": 5, "text": 5, "log": 5,
    "mmap": 6, "hybrid": 6, "backends": 6,
    "store": 7,
}
# Public header -> the folder that implements it and counts as its owner.
HEADER = {
    "base.h": "base", "space.h": "rows", "fuse.h": "fuse", "io.h": "io", "index.h": "index", "sparse.h": "sparse",
    "text.h": "text", "vectors.h": "mmap", "log.h": "log", "tensor.h": "log", "model.h": "log", "run.h": "log", "store.h": "store",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')
# registry.c, alone at the root of src/, names every kind; the contracts that it fills in declare it.
REGISTRY = {"index", "store"}


def allowed(here, there):
    return here == there or LEVEL[there] < LEVEL[here]


def owner_of_include(here, path):
    parts = path.split("/")
    if parts[0] == "perigee":
        return HEADER.get(parts[1], "store")
    if len(parts) > 1 and parts[0] in LEVEL:
        return parts[0]
    return None  # a system header


def check_includes(src):
    bad = []
    for f in sorted(src.rglob("*.[ch]")):
        rel = f.relative_to(src)
        if len(rel.parts) == 1:
            continue
        here = rel.parts[0]
        if here not in LEVEL:
            bad.append(f"{rel}: folder '{here}' is not in the table")
            continue
        for n, line in enumerate(f.read_text().splitlines(), 1):
            m = INCLUDE.match(line)
            if not m:
                continue
            if m[1].startswith("..") or "/../" in m[1]:
                bad.append(f"{rel}:{n}: includes by a path upwards: {m[1]}")
                continue
            there = owner_of_include(here, m[1])
            if there and not allowed(here, there):
                bad.append(f"{rel}:{n}: {here} may not include {m[1]}")
            if there is None and "/" not in m[1] and (f.parent / m[1]).exists():
                bad.append(f"{rel}:{n}: say \"{here}/{m[1]}\", not \"{m[1]}\"")
    return bad


def folders_of_objects(src):
    """Meson names an object after its source, '/' turned to '_': the file's path from the folder
    of the meson.build that lists it."""
    names = {}
    for f in src.rglob("*.c"):
        parts = f.relative_to(src).parts
        folder = parts[0] if len(parts) > 1 else "registry"
        for i in range(len(parts)):
            names["_".join(parts[i:]) + ".o"] = folder
    return names


def read_symbols(archives, folders):
    """{folder: (defined, undefined)}, each {symbol: object}."""
    found, bad = {}, []
    for archive in archives:
        out = subprocess.run(["nm", "-A", "-g", archive], check=True, capture_output=True, text=True)
        for line in out.stdout.splitlines():
            where, _, rest = line.rpartition(":")
            fields = rest.split()
            if len(fields) < 2:
                continue
            kind, symbol = fields[-2], fields[-1]
            obj = where.split(":")[-1].split("/")[-1]
            folder = folders.get(obj)
            if folder is None:
                bad.append(f"{archive}: no source for object {obj}")
                continue
            defined, undefined = found.setdefault(folder, ({}, {}))
            (undefined if kind in "Uwv" else defined)[symbol] = obj
    return found, sorted(set(bad))


def check_symbols(src, archives):
    found, bad = read_symbols(archives, folders_of_objects(src))
    owner = {}
    for folder, (defined, _) in found.items():
        for symbol, obj in defined.items():
            if owner.setdefault(symbol, folder) != folder:
                bad.append(f"{symbol}: defined in {owner[symbol]} and in {folder} ({obj})")
    uses = 0
    for folder, (_, undefined) in sorted(found.items()):
        for symbol, obj in sorted(undefined.items()):
            there = owner.get(symbol)
            if there is None or folder == "registry":
                continue
            uses += 1
            if there == "registry":
                if folder not in REGISTRY:
                    bad.append(f"{obj}: {folder} may not use {symbol} of registry.c")
            elif not allowed(folder, there):
                bad.append(f"{obj}: {folder} may not use {symbol} of {there}")
    return bad, uses


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    bad = check_includes(root / "src")
    if len(sys.argv) > 2:
        more, uses = check_symbols(root / "src", sys.argv[2:])
        bad += more
        if uses == 0:
            bad.append("no symbol goes from one folder to another: are these the right archives?")
    print("\n".join(bad))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
