#!/usr/bin/env python3
"""Fail on what review would say about src/: a file name used twice, a file above 1,000 lines, a
function above 150, a call that has no place in a library.

    check_tree.py [ROOT]
"""
import pathlib
import re
import sys

FILE_LINES, FUNCTION_LINES = 1000, 150
# What is called instead, or why not at all.
BANNED = {
    "global state": "rand srand random srandom drand48 lrand48 strtok setlocale setenv putenv signal "
                    "exit abort _exit atexit",
    "output of its own": "printf fprintf vprintf vfprintf puts putchar fputs perror",
    "no bound": "strcpy strcat sprintf vsprintf gets alloca",
    "base/host.h": "malloc calloc realloc free posix_memalign aligned_alloc memalign strdup strndup "
                   "asprintf vasprintf",
    "base/file.h": "open creat close read write pread pwrite fsync fdatasync rename unlink mmap munmap "
                   "fopen fclose fread fwrite ftruncate",
}
WHY = {name: why for why, names in BANNED.items() for name in names.split()}
IN_BASE = {"base/host.h", "base/file.h"}  # base/ itself is where these are wrapped
CALL = re.compile(r"(?<![\w.>])(" + "|".join(WHY) + r")\s*\(")
NOISE = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)
DECLARES = re.compile(r"^[\w \t\*]*\b\w[\w \t]*[ \t\*]$")


def blank(text):
    """The text without comments and literals, lines kept."""
    return NOISE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def functions(lines):
    """(name, first line, length) of bodies: '{' and '}' alone at the left edge."""
    start = None
    for n, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = n
        elif line.startswith("}") and start:
            head = " ".join(lines[max(0, start - 4):start - 1])
            name = re.findall(r"(\w+)\s*\(", head)
            if ")" in head:
                yield (name[-1] if name else "?"), start, n - start + 1
            start = None


def check(path, rel):
    text = path.read_text()
    lines = text.splitlines()
    bad = []
    if len(lines) > FILE_LINES:
        bad.append(f"{rel}: {len(lines)} lines, at most {FILE_LINES}")
    code = blank(text).splitlines()
    for name, at, length in functions(code):
        if length > FUNCTION_LINES:
            bad.append(f"{rel}:{at}: {name} has {length} lines, at most {FUNCTION_LINES}")
    for n, line in enumerate(code, 1):
        for m in CALL.finditer(line):
            why = WHY[m[1]]
            if why in IN_BASE and rel.parts[0] == "base":
                continue
            # A declaration of a function pointer or of a function of that name is no call.
            if DECLARES.match(line[:m.start()]) and not line[:m.start()].strip() in ("return", "else", ""):
                continue
            bad.append(f"{rel}:{n}: {m[1]}() is not called here ({why})")
    return bad


def main():
    src = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "src"
    bad, names = [], {}
    for path in sorted(src.rglob("*.[ch]")):
        rel = path.relative_to(src)
        if path.name in names:
            bad.append(f"{rel}: the name is taken by {names[path.name]}")
        names[path.name] = rel
        bad += check(path, rel)
    if not names:
        bad.append(f"{src}: no sources: is this the root?")
    print("\n".join(bad))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
