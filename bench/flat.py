"""The exact index against what bounds it: batches against sgemm, single queries
against the memory's read bandwidth."""

import ctypes as c
import ctypes.util
import mmap
import os
import subprocess
from pathlib import Path

import numpy as np

from bench_common import CACHE, K, Timed, load_average, median
from perigee_ctypes import Index

MUST_BATCH, MUST_SINGLE = 0.7, 0.9
ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112


class SystemSgemm:
    """sgemm of the OpenBLAS that the library itself links; core type from the environment."""

    def __init__(self):
        name = ctypes.util.find_library("openblas") or "libopenblas.so.0"
        self.so = c.CDLL(name)
        self.so.openblas_get_config.restype = c.c_char_p
        self.so.openblas_get_corename.restype = c.c_char_p
        self.name = f"{self.so.openblas_get_config().decode().split()[1]} {self.so.openblas_get_corename().decode()}"
        f, p, i = c.c_float, c.c_void_p, c.c_int
        self.so.cblas_sgemm.argtypes = [i, i, i, i, i, i, f, p, i, p, i, f, p, i]
        self.so.cblas_sgemm.restype = None

    def __call__(self, a, b, out):
        m, k, n = len(a), a.shape[1], len(b)
        self.so.cblas_sgemm(ROW_MAJOR, NO_TRANS, TRANS, m, n, k, 1.0, a.ctypes.data, k, b.ctypes.data, k, 0.0,
                            out.ctypes.data, n)


def last_cache():
    sizes = [p.read_text().strip() for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(s[:-1]) * {"K": 1 << 10, "M": 1 << 20}[s[-1]] for s in sizes if s[-1:] in "KM"), default=32 << 20)


class Machine:
    """The yardsticks of the kernel benchmark, called in this process, so that they
    can take turns with what they are held against."""

    def __init__(self):
        here = Path(__file__).parent
        CACHE.mkdir(parents=True, exist_ok=True)
        so = CACHE / "kernels_machine.so"
        subprocess.run(["cc", "-O3", "-shared", "-fPIC", "-I", str(here), "-o", str(so), str(here / "kernels_machine.c")],
                       check=True)
        self.so = c.CDLL(str(so))
        self.so.machine_use.restype = c.c_char_p
        self.so.machine_use.argtypes = [c.c_char_p]
        self.so.machine_fma.restype = self.so.machine_read.restype = c.c_double
        self.so.machine_read.argtypes = [c.c_void_p, c.c_size_t, c.c_size_t, c.c_void_p]
        self.size = 256 << 20
        # Huge pages, as the library asks for them: small ones cost a tenth of the rate.
        self.memory = mmap.mmap(-1, self.size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self.memory.madvise(mmap.MADV_HUGEPAGE)
        self.memory[:] = b"\1" * self.size
        self.start = c.addressof(c.c_char.from_buffer(self.memory))

    def use(self, level):
        self.so.machine_use(level.encode())

    def read(self):
        way = c.c_char_p()
        return self.so.machine_read(self.start, self.size, 1, c.byref(way))

    def fma(self):
        return self.so.machine_fma()


def measure(data, library, options, say):
    index = Index.flat(library, data.dim, data.distance)
    index.put(data.train, threads=2)
    machine, blas = Machine(), SystemSgemm()
    machine.use(library.cpu_level)
    batch = data.test[:1000 if options.quick else 4000]
    ones = data.test[:50 if options.quick else 100]
    hits = index.search(batch, K)
    recall = data.recall(np.vstack([hits["id"].astype(np.int64), np.full((len(data.test) - len(batch), K), -1)]))
    recall *= len(data.test) / len(batch)

    # sgemm at its best: tiles that stay in cache, and one large product.
    m = min(1000, len(data.test))
    shapes = {f"{m} x {n}": (m, n) for n in (min(2000, data.rows), min(20000, data.rows))}
    flops = {"perigee": [], **{f"{lib} {s}": [] for lib in ("system", "numpy") for s in shapes}}
    reads = {"perigee": [], "memory": []}
    rounds = options.rounds + 1
    for turn in range(rounds):
        with Timed() as t:
            index.search(batch, K, hits=hits)
        flops["perigee"].append(2.0 * len(batch) * data.rows * data.dim / t.cpu)
        for s, (m, n) in shapes.items():
            a, b, out = data.test[:m], data.train[:n], np.empty((m, n), np.float32)
            repeat = max(1, int(2e10 // (2 * m * n * data.dim)))
            for lib, product in (("system", blas), ("numpy", lambda a, b, out: np.matmul(a, b.T, out=out))):
                with Timed() as t:
                    for _ in range(repeat):
                        product(a, b, out)
                flops[f"{lib} {s}"].append(2.0 * m * n * data.dim * repeat / t.cpu)
        with Timed() as t:
            index.search_one(ones, K)
        reads["perigee"].append(4.0 * data.rows * data.dim * len(ones) / t.cpu)
        reads["memory"].append(machine.read())
    flops = {k: median(v[1:]) for k, v in flops.items()}  # the first round warms up
    reads = {k: median(v[1:]) for k, v in reads.items()}
    best = max((k for k in flops if k != "perigee"), key=flops.get)
    index.close()
    result = {"set": data.name, "rows": data.rows, "dim": data.dim, "recall": recall, "load_average": load_average(),
              "openblas": blas.name, "coretype": os.environ.get("OPENBLAS_CORETYPE"), "flops": flops, "best_sgemm": best,
              "batch_share": flops["perigee"] / flops[best], "read": reads,
              "single_share": reads["perigee"] / reads["memory"], "row_bytes_total": 4 * data.rows * data.dim}
    # Short rows leave the selection of the nearest more to do than the products: judged at 784-d.
    result["batch_met"] = result["batch_share"] >= MUST_BATCH if data.dim >= 784 else None
    # Rows that fit the last-level cache say nothing about memory.
    result["single_met"] = result["single_share"] >= MUST_SINGLE if 4 * data.rows * data.dim > 2 * last_cache() else None
    say(f"{data.name}: batch {flops['perigee'] / 1e9:.0f} GFLOP/s ({result['batch_share']:.0%} of sgemm), single query "
        f"{reads['perigee'] / 1e9:.1f} GB/s ({result['single_share']:.0%} of memory)")
    return result


def table(results):
    mark = {True: "met", False: "**not met**", None: "not judged"}
    lines = ["| set | flat batch, GFLOP/s | sgemm, GFLOP/s | share | must 0.7 | single query, GB/s | memory, GB/s | share | must 0.9 | recall |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for r in results:
        lines.append(f"| {r['set']}-{r['dim']} | {r['flops']['perigee'] / 1e9:.0f} | {r['flops'][r['best_sgemm']] / 1e9:.0f} "
                     f"({r['best_sgemm']}) | {r['batch_share']:.2f} | {mark[r['batch_met']]} | {r['read']['perigee'] / 1e9:.1f} | "
                     f"{r['read']['memory'] / 1e9:.1f} | {r['single_share']:.2f} | {mark[r['single_met']]} | {r['recall']:.4f} |")
    return "\n".join(lines)
