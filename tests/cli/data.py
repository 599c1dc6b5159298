"""Small files of vectors and ids, written and read without libraries; exact search in Python."""

import math
import random
import struct

CODES = {"f4": "f", "f8": "d", "i4": "i", "i8": "q", "u1": "B"}


def vectors(rows, dim, seed=1):
    rng = random.Random(seed)
    return [[rng.gauss(0, 1) for _ in range(dim)] for _ in range(rows)]


def as_f32(rows):
    return [list(struct.unpack("<%df" % len(r), struct.pack("<%df" % len(r), *r))) for r in rows]


def write_npy_head(f, code, shape):
    mark = "|" if code == "u1" else "<"
    head = "{'descr': '%s%s', 'fortran_order': False, 'shape': %r, }" % (mark, code, shape)
    head += " " * (-(len(head) + 11) % 64) + "\n"
    f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())


def write_npy(path, rows, code="f4", shape=None):
    with open(path, "wb") as f:
        write_npy_head(f, code, shape or (len(rows), len(rows[0])))
        for r in rows:
            values = r if isinstance(r, (list, tuple)) else [r]
            f.write(struct.pack("<%d%s" % (len(values), CODES[code]), *values))


def read_npy(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<H", data[8:10])[0]
    head = eval(data[10 : 10 + size].decode(), {}, {})  # written by the command under test
    code = CODES[head["descr"][1:]]
    rows, dim = head["shape"]
    flat = struct.unpack("<%d%s" % (rows * dim, code), data[10 + size :])
    return [list(flat[i * dim : (i + 1) * dim]) for i in range(rows)]


def read_vecs(path, code):
    rows = []
    with open(path, "rb") as f:
        while head := f.read(4):
            dim = struct.unpack("<i", head)[0]
            size = struct.calcsize("<%d%s" % (dim, code))
            rows.append(list(struct.unpack("<%d%s" % (dim, code), f.read(size))))
    return rows


def distance(metric, a, b):
    dot = sum(x * y for x, y in zip(a, b))
    if metric == "ip":
        return -dot
    if metric == "cosine":
        return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))


def nearest(metric, rows, query, k, allow=None):
    """The k nearest as (distance, id)."""
    found = ((distance(metric, query, r), i) for i, r in enumerate(rows))
    return sorted(f for f in found if allow is None or f[1] in allow)[:k]
