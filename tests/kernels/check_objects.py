#!/usr/bin/env python3
"""What the compiler made of the kernels: disassembles each level's library and fails where

- an `ids` kernel has lost its prefetches (gcc 12 can fold such a loop to one), or is missing;
- a level does not use the instructions it is there for (a SIMD level that quietly runs scalar code
  passes every test of equality);
- the C level, which must run on any CPU of the family, uses more than the platform's floor;
- anything would run before main().

    check_objects.py --family x86_64 [--objdump PROGRAM] LIBRARY...
"""
import argparse
import collections
import re
import subprocess
import sys

FLOATS = ["f32", "f16", "bf16"]
# level: elements it has `ids` kernels for, what each of those must contain
LEVELS = {
    "x86_64": {
        "c": (FLOATS + ["i8", "b1"], {}),
        "avx2": (FLOATS + ["i8", "b1"],
                 {"f32": r"vfn?madd\w+ps .*%ymm", "f16": r"vcvtph2ps .*%ymm",
                  "bf16": r"vfn?madd\w+ps .*%ymm", "i8": r"vpmaddwd .*%ymm", "b1": r"vpshufb .*%ymm"}),
        "avx512": (FLOATS + ["i8", "b1"],
                   {"f32": r"vfn?madd\w+ps .*%zmm", "f16": r"vcvtph2ps .*%zmm",
                    "bf16": r"vfn?madd\w+ps .*%zmm", "i8": r"vpmaddwd .*%zmm",
                    "b1": r"vpshufb .*%zmm"}),
        "avx512vnni": (["i8", "b1"], {"i8": r"vpdpbusd .*%zmm", "b1": r"vpopcntq .*%zmm"}),
    },
    "aarch64": {
        "c": (FLOATS + ["i8", "b1"], {}),
        "neon": (FLOATS + ["i8", "b1"],
                 {"f32": r"fml[as]\s+v\d+\.4s", "f16": r"fcvtl", "bf16": r"fml[as]\s+v\d+\.4s",
                  "i8": r"smlal|sadalp", "b1": r"cnt\s+v\d+\.16b"}),
        "neon-dot": (["i8"], {"i8": r"[su]dot\s+v\d+\.4s"}),
    },
}
PREFETCH = {"x86_64": r"\bprefetcht0\b", "aarch64": r"\bprfm\b"}
BEYOND_FLOOR = {"x86_64": r"%[yz]mm|\sv[a-z0-9]+\s+.*%xmm|\spopcnt\b", "aarch64": r"[su]dot\s"}


def functions(objdump, library):
    """name -> lines of code, parts that the compiler split off counted with their function."""
    text = subprocess.run([objdump, "-d", "--no-show-raw-insn", library], check=True,
                          capture_output=True, text=True).stdout
    code, name = collections.defaultdict(list), None
    for line in text.splitlines():
        head = re.match(r"[0-9a-f]+ <([^>]+)>:$", line)
        if head:
            name = head[1].split(".")[0]
        elif name and line.startswith(" "):
            code[name].append(line.split("\t", 1)[-1].replace("\t", " ") + " ")
    return code


def check(family, objdump, library):
    level = re.search(r"pe_kernels_([\w-]+)\.a$", library)[1]
    elems, must_use = LEVELS[family][level]
    code, bad = functions(objdump, library), []
    counts = {}
    for op in ("l2", "dot"):
        for elem in elems:
            name = f"{op}_{elem}_ids"
            if name not in code:
                bad.append(f"{level}: {name} is missing")
                continue
            # One loop for the rows at the start, one for those ahead.
            counts[name] = sum(bool(re.search(PREFETCH[family], l)) for l in code[name])
            if counts[name] < 2:
                bad.append(f"{level}: {name} has {counts[name]} prefetches, not 2 or more")
            want = must_use.get(elem)
            if want and not any(re.search(want, l) for l in code[name]):
                bad.append(f"{level}: {name} has no {want}")
    if level == "c":
        for name, lines in code.items():
            for line in lines:
                if re.search(BEYOND_FLOOR[family], line):
                    bad.append(f"{level}: {name} is beyond the floor: {line.strip()}")
                    break
    sections = subprocess.run([objdump, "-h", library], check=True, capture_output=True, text=True)
    if re.search(r"\.(init_array|ctors|preinit_array)\b", sections.stdout):
        if "asan" not in sections.stdout and "tsan" not in sections.stdout and \
                not any(n.startswith(("_sub_I_", "asan.", "tsan.")) for n in code):
            bad.append(f"{level}: something runs before main()")
    print(f"{level}: prefetches {counts}")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--family", required=True, choices=LEVELS)
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("libraries", nargs="+")
    args = parser.parse_args()
    seen = {re.search(r"pe_kernels_([\w-]+)\.a$", l)[1] for l in args.libraries}
    bad = [f"no library for level {l}" for l in LEVELS[args.family] if l not in seen]
    for library in args.libraries:
        bad += check(args.family, args.objdump, library)
    print("\n".join(bad))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
