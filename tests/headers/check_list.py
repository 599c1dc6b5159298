"""Fail when a header of include/perigee/ is missing from the list that is compiled or installed.

    check_list.py ROOT NAME ...
"""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
there = {path.stem for path in (root / "include/perigee").glob("*.h")}
installed = set(re.findall(r"'perigee/(\w+)\.h'", (root / "include/meson.build").read_text()))
whole = set(re.findall(r'#include "perigee/(\w+)\.h"', (root / "include/perigee/perigee.h").read_text()))
bad = [f"{name}.h is not compiled by tests/headers" for name in sorted(there - set(sys.argv[2:]))]
bad += [f"{name}.h is not installed" for name in sorted(there - installed)]
bad += [f"{name}.h is not in perigee.h" for name in sorted(there - whole - {"perigee"})]
print("\n".join(bad))
sys.exit(bool(bad))
