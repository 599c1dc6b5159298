#!/usr/bin/env python3
"""Fail when clang-format would change a tracked C file.

    check_format.py [ROOT]     (repair with: clang-format -i FILE)
"""
import pathlib
import shutil
import subprocess
import sys

SKIP = 77  # what meson takes for "skipped"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    if not shutil.which("clang-format"):
        print("clang-format is not installed")
        return SKIP
    listed = subprocess.run(["git", "ls-files", "-z", "*.c", "*.h", "*.cpp"], cwd=root, capture_output=True)
    if listed.returncode != 0:
        print("not a git checkout: no list of files")
        return SKIP
    files = [name for name in listed.stdout.decode().split("\0") if name and (root / name).exists()]
    run = subprocess.run(["clang-format", "--dry-run", "-Werror", *files], cwd=root, capture_output=True,
                         text=True)
    bad = sorted({line.split(":")[0] for line in run.stderr.splitlines() if "error:" in line})
    print("\n".join(bad) or run.stderr)
    return bool(run.returncode)


if __name__ == "__main__":
    sys.exit(main())
