"""Plant one fault of each sort in a small tree: a lint that stays silent is no lint.

    test_lint.py TOOLS CC
"""
import pathlib
import subprocess
import sys
import tempfile

tools, cc = pathlib.Path(sys.argv[1]), sys.argv[2]
failures = []


def run(tool, *args):
    done = subprocess.run([sys.executable, tools / tool, *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def expect(what, result, code, text=""):
    if result[0] != code or text not in result[1]:
        failures.append(f"{what}: exit {result[0]}, expected {code} and '{text}' in:\n{result[1]}")


def tree(files):
    root = pathlib.Path(tempfile.mkdtemp(dir=work))
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def archive(root, *sources, shared=False):
    """Objects named as meson names them, in one archive or shared library."""
    objects = []
    for source in sources:
        obj = root / (source.replace("src/", "", 1).replace("/", "_") + ".o")
        subprocess.run([cc, "-c", "-fPIC", "-o", obj, root / source], check=True)
        objects.append(obj)
    out = root / ("lib.so" if shared else "lib.a")
    command = [cc, "-shared", "-o", out] if shared else ["ar", "rcs", out]
    subprocess.run([*command, *objects], check=True)
    return out


GOOD = "int pe_low(void);\nint pe_low(void)\n{\n    return 1;\n}\n"
USES = "int pe_low(void);\nint pe_high(void);\nint pe_high(void)\n{\n    return pe_low();\n}\n"

with tempfile.TemporaryDirectory() as work:
    # layers
    root = tree({"src/base/low.c": GOOD, "src/index/high.c": USES})
    expect("a use downwards", run("check_layers.py", root, archive(root, "src/base/low.c", "src/index/high.c")), 0)
    root = tree({"src/index/low.c": GOOD, "src/base/high.c": USES})
    expect("a symbol upwards", run("check_layers.py", root, archive(root, "src/index/low.c", "src/base/high.c")), 1,
           "base may not use pe_low of index")
    root = tree({"src/flat/low.c": GOOD, "src/hnsw/high.c": USES})
    expect("a symbol sideways", run("check_layers.py", root, archive(root, "src/flat/low.c", "src/hnsw/high.c")), 1,
           "hnsw may not use pe_low of flat")
    root = tree({"src/base/a.c": '#include "rows/rows.h"\n'})
    expect("an include upwards", run("check_layers.py", root), 1, "base may not include rows/rows.h")
    root = tree({"src/rows/a.h": '#include "perigee/index.h"\n'})
    expect("a public header upwards", run("check_layers.py", root), 1, "rows may not include perigee/index.h")
    root = tree({"src/attic/a.c": "\n"})
    expect("an unknown folder", run("check_layers.py", root), 1, "not in the table")

    # exports
    api = "PERI_API int peri_one(int a);\nPERI_API const char *\n    peri_two(void);\n"
    code = "int peri_one(int a) { return a; }\nconst char *peri_two(void) { return 0; }\n"
    root = tree({"include/perigee/a.h": api, "src/a.c": code})
    shared, static = archive(root, "src/a.c", shared=True), archive(root, "src/a.c")
    expect("what the header says", run("check_exports.py", root, shared, static), 0)
    root = tree({"include/perigee/a.h": api, "src/a.c": code + "int peri_three(void) { return 3; }\n"})
    expect("an export too many", run("check_exports.py", root, archive(root, "src/a.c", shared=True), static), 1,
           "exports peri_three")
    root = tree({"include/perigee/a.h": api + "PERI_API int peri_four(void);\n", "src/a.c": code})
    expect("an export missing", run("check_exports.py", root, shared, static), 1, "does not export peri_four")
    root = tree({"include/perigee/a.h": api, "src/a.c": code + "int helper(void) { return 3; }\n"})
    expect("a leak", run("check_exports.py", root, shared, archive(root, "src/a.c")), 1, "leaks helper")

    # sizes and calls
    long_body = "int f(void)\n{\n" + "    ;\n" * 149 + "}\n"
    cases = {
        "a long file": ({"src/base/a.c": "\n" * 1001}, "1001 lines"),
        "a long function": ({"src/base/a.c": long_body}, "f has 151 lines"),
        "a name taken": ({"src/base/a.c": "\n", "src/rows/a.c": "\n"}, "the name is taken"),
        "malloc outside base": ({"src/rows/a.c": "void *f(void)\n{\n    return malloc(3);\n}\n"}, "malloc()"),
        "printf": ({"src/base/a.c": 'void f(void)\n{\n    printf("x");\n}\n'}, "printf()"),
        "strcpy": ({"src/base/a.c": "void f(char *a)\n{\n    if (strcpy(a, a))\n        f(a);\n}\n"}, "strcpy()"),
        "rand": ({"src/base/a.c": "int f(void)\n{\n    int x = rand();\n    return x;\n}\n"}, "rand()"),
    }
    for what, (files, text) in cases.items():
        expect(what, run("check_tree.py", tree(files)), 1, text)
    fine = ('/* malloc(3) */\nvoid f(void)\n{\n    h->files->open(1);\n    g("printf(1)");\n    pe_malloc(2);\n'
            "    fread_all(1);\n}\n")
    expect("what only looks like a call", run("check_tree.py", tree({"src/rows/a.c": fine})), 0)
    expect("malloc in base", run("check_tree.py", tree({"src/base/a.c": "void *f(void)\n{\n    return malloc(3);\n}\n"})), 0)

    # format
    def repository(text):
        root = tree({"a.c": text, ".clang-format": "BasedOnStyle: LLVM\n"})
        for command in (["init", "-q"], ["add", "a.c"]):
            subprocess.run(["git", *command], cwd=root, check=True)
        return root
    good, bad = run("check_format.py", repository("int a;\n")), run("check_format.py", repository("int   a ;\n"))
    if good[0] != 77:
        expect("a formatted file", good, 0)
        expect("a file that is not formatted", bad, 1, "a.c")

print("\n".join(failures) or "every planted fault was caught")
sys.exit(bool(failures))
