#!/usr/bin/env python3
"""The perigee command under harm: killed half way, stopped, full disks, damaged files.

PERIGEE_FLIPS sets how many damaged HDF5 files are tried (default 600); 0 tries every bit."""

import os
import random
import resource
import signal
import subprocess
import time
import unittest

import data
import harness
from harness import Case

FLIPS = int(os.environ.get("PERIGEE_FLIPS", "600"))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, content):
    with open(path, "wb") as f:
        f.write(content)


class Killed(Case):
    """A run that ends early leaves the former file or the new one, whole."""

    def setUp(self):
        super().setUp()
        data.write_npy("rows.npy", data.vectors(4000, 24))
        data.write_npy("few.npy", data.vectors(20, 24))

    def end_early(self, args, out, number, times):
        start = time.monotonic()
        self.perigee(*args, timeout=300)
        whole = time.monotonic() - start
        new = read(out)
        rng = random.Random(5)
        early = 0
        for _ in range(times):
            write(out, self.former)
            child = subprocess.Popen([harness.COMMAND, *args], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.PIPE)
            time.sleep(rng.uniform(0, whole * 1.1))
            child.send_signal(number)
            err = child.communicate(timeout=60)[1].decode()
            self.assertIn(child.returncode, (0, 3, -number), err)
            left = [n for n in os.listdir(".") if n.endswith(".tmp")]
            if number == signal.SIGKILL:
                for name in left:
                    os.remove(name)
            else:
                self.assertIn(child.returncode, (0, 3) if err else (0, -number), err)
                self.assertEqual(left, [])
            if child.returncode:
                early += 1
            there = read(out)
            self.assertTrue(there == self.former or len(there) == len(new))
            if there != self.former and out.endswith(".peri"):
                self.assertIn(self.run_raw("info", out)[0], (0,))
        return early

    def test_build(self):
        args = ("build", "rows.npy", "-o", "x.peri", "-q")
        self.perigee("build", "few.npy", "-o", "former.peri")
        self.former = read("former.peri")
        for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
            self.assertGreater(self.end_early(args, "x.peri", number, 8), 0)

    def test_convert(self):
        for name in ("x.hdf5", "x.fvecs"):
            self.perigee("convert", "few.npy", "former-" + name)
            self.former = read("former-" + name)
            for number in (signal.SIGKILL, signal.SIGINT):
                self.end_early(("convert", "rows.npy", name), name, number, 8)

    def test_an_ignored_signal_stays_ignored(self):
        child = subprocess.Popen([harness.COMMAND, "build", "rows.npy", "-o", "x.peri", "-q"],
                                 preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        for _ in range(20):
            child.send_signal(signal.SIGHUP)
            time.sleep(0.005)
        self.assertEqual(child.wait(timeout=60), 0)


class Full(Case):
    """Files that may not grow stand for a full disk: an error, the former file whole."""

    def test_output_that_does_not_fit(self):
        data.write_npy("rows.npy", data.vectors(3000, 16))
        data.write_npy("few.npy", data.vectors(20, 16))
        self.perigee("build", "rows.npy", "-o", "rows.peri")

        def limited(size):
            def limit():
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            return limit

        for size in (0, 1, 4096, 65536):
            for args in (("build", "rows.npy", "-o", "x.peri"), ("convert", "rows.npy", "x.fvecs"),
                         ("convert", "rows.npy", "x.hdf5"), ("convert", "rows.npy", "y.npy"),
                         ("search", "rows.peri", "rows.npy", "-o", "x.hdf5")):
                with self.subTest(size=size, args=args):
                    out = args[-1]
                    write(out, b"former")
                    code, _, err = self.run_raw(*args, preexec_fn=limited(size))
                    self.assertEqual(code, 3, err)
                    self.assertEqual(read(out), b"former")
                    self.assertEqual([n for n in os.listdir(".") if n.endswith(".tmp")], [])


class Damaged(Case):
    def crashless(self, *args):
        """Done or refused, with words, within the time."""
        code, _, err = self.run_raw(*args, timeout=300)  # hangs end after 20 s of computing
        self.assertIn(code, (0, 1, 3), (args, err))
        if code == 3:
            self.assertTrue(err.startswith("perigee: "), err)
        return code

    def flip(self, whole, where):
        damaged = bytearray(whole)
        damaged[where >> 3] ^= 1 << (where & 7)
        return bytes(damaged)

    def flips(self, size, seed):
        if FLIPS == 0:
            return range(8 * size)
        return sorted(random.Random(seed).sample(range(8 * size), min(FLIPS // 2, 8 * size)))

    def test_no_bit_of_an_hdf5_file_crashes_the_command(self):
        data.write_npy("rows.npy", data.vectors(6, 5))
        self.perigee("convert", "rows.npy", "plain.hdf5", "--distance", "angular")
        self.perigee("convert", "rows.npy", "packed.hdf5", "--deflate", 6)
        codes = {}
        for name in ("plain.hdf5", "packed.hdf5"):
            whole = read(name)
            for where in self.flips(len(whole), name):
                write("bad.hdf5", self.flip(whole, where))
                with self.subTest(name=name, bit=where):
                    code = self.crashless("convert", "bad.hdf5", "out.npy")
                    codes[code] = codes.get(code, 0) + 1
            for cut in range(0, len(whole), 64 if FLIPS else 1):
                write("bad.hdf5", whole[:cut])
                with self.subTest(name=name, cut=cut):
                    self.assertEqual(self.crashless("info", "bad.hdf5"), 3)
        self.assertGreater(codes.get(3, 0), 0)
        self.assertGreater(codes.get(0, 0), 0)

    def test_a_reader_that_dies_is_an_error(self):
        """The control of the test above: a death of the reading process is told."""
        with open("rows.npy", "wb") as f:
            data.write_npy_head(f, "f4", (100000, 200))
            f.truncate(f.tell() + 100000 * 200 * 4)
        write("out.fvecs", b"former")
        child = subprocess.Popen([harness.COMMAND, "convert", "rows.npy", "out.fvecs"],
                                 stderr=subprocess.PIPE)
        children = "/proc/%d/task/%d/children" % (child.pid, child.pid)
        while not (reader := read(children).split()):
            self.assertIsNone(child.poll())
        os.kill(int(reader[0]), signal.SIGKILL)
        err = child.communicate(timeout=60)[1].decode()
        self.assertEqual(child.returncode, 3)
        self.assertIn("crashed (Killed)", err)
        self.assertEqual(sorted(os.listdir(".")), ["out.fvecs", "rows.npy"])
        self.assertEqual(read("out.fvecs"), b"former")

    def test_damaged_indexes_are_found_by_check(self):
        data.write_npy("rows.npy", data.vectors(300, 8))
        for kind in ("flat", "hnsw", "gwi"):
            self.perigee("build", "rows.npy", "-o", "good.peri", "--kind", kind)
            self.assertTrue(self.json("check", "good.peri")["ok"])
            whole = read("good.peri")
            rng = random.Random(9)
            for where in rng.sample(range(8 * len(whole)), 40):
                write("bad.peri", self.flip(whole, where))
                answer = self.json("check", "bad.peri", code=1)
                self.assertFalse(answer["ok"])
                self.assertTrue(answer["first"])
                self.crashless("search", "bad.peri", "rows.npy", "--limit", 3)
                self.crashless("info", "bad.peri")
            for cut in (1, 63, 64, len(whole) // 2, len(whole) - 1):
                write("bad.peri", whole[:cut])
                self.assertEqual(self.crashless("check", "bad.peri"), 1)


if __name__ == "__main__":
    harness.main()
