#!/usr/bin/env python3
"""Fail unless the shared library exports exactly the functions that the headers mark PERI_API, and
the static one defines no global symbol that could clash with a host's.

    check_exports.py ROOT SHARED STATIC [--leaks-known PREFIX ...]
"""
import pathlib
import re
import subprocess
import sys

DECLARATION = re.compile(r"\bPERI_API\b[^;{#]*?\b(peri_\w+)\s*\(")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


def declared(root):
    names = set()
    for header in sorted((root / "include/perigee").glob("*.h")):
        text = COMMENT.sub(" ", header.read_text())
        names.update(DECLARATION.findall(text))
    return names


def nm(*args):
    out = subprocess.run(["nm", *args], check=True, capture_output=True, text=True).stdout
    return [(fields[-2], fields[-1]) for fields in map(str.split, out.splitlines()) if len(fields) >= 3]


def main():
    root, shared, static = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    known = tuple(sys.argv[5:]) if sys.argv[4:5] == ["--leaks-known"] else ()
    api = declared(root)
    bad = []
    # A is the name of the symbol version itself.
    exported = {name.split("@")[0] for kind, name in nm("-D", "--defined-only", shared) if kind != "A"}
    if not api:
        bad.append("the headers declare nothing: is this the root?")
    for name in sorted(exported - api):
        bad.append(f"{shared}: exports {name}, which no header declares with PERI_API")
    for name in sorted(api - exported):
        bad.append(f"{shared}: does not export {name}, which a header declares")
    for name in sorted({name for _, name in nm("-g", "--defined-only", static)}):
        if not name.startswith(("peri_", "pe_", *known)):
            bad.append(f"{static}: leaks {name}: globals begin with peri_ or pe_")
    print("\n".join(bad))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
