#!/usr/bin/env python3
"""perigee vectors: every action end to end, and what it says to wrong usage and damaged files."""

import os
import signal
import struct
import subprocess
import time
import unittest

import data
import harness
from harness import Case

ROWS, DIM, K = 700, 12, 5
ACTIONS = ("create", "import", "get", "search", "delete", "index", "compact", "info", "check")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, content):
    with open(path, "wb") as f:
        f.write(content)


class Help(Case):
    def test_every_action_has_help_and_its_options_stand_in_the_manual(self):
        page = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../cli/perigee.1")
        with open(page) as f:
            manual = f.read()
        for action in ACTIONS:
            self.assertIn(action, self.perigee("vectors", "--help"))
            text = self.perigee("vectors", action, "--help")
            self.assertTrue(text.startswith("usage: perigee vectors " + action))
            self.assertLessEqual(max(map(len, text.splitlines())), 100)
            self.assertTrue("Cm vectors " + action in manual, action)
            for word in text.split():
                if word.startswith("--"):
                    self.assertTrue("Fl Fl " + word[2:].rstrip(",") in manual, (action, word))

    def test_wrong_usage_is_status_2_and_named(self):
        cases = [
            (["vectors"], "which action?"),
            (["vectors", "frobnicate"], "unknown action 'frobnicate'"),
            (["vectors", "create", "a"], "--dim is missing"),
            (["vectors", "create", "a", "--dim", "0"], "1 to 65535"),
            (["vectors", "create", "a", "--dim", "65536"], "1 to 65535"),
            (["vectors", "create", "a", "--dim", "3", "--metric", "l3"], "one of: l2, ip, cosine"),
            (["vectors", "import", "a"], "expected FILE DATA"),
            (["vectors", "import", "a", "b", "--keys", "k", "--prefix", "p"], "exclude each other"),
            (["vectors", "get", "a"], "expected FILE KEY"),
            (["vectors", "get", "a", ""], "operand is empty"),
            (["vectors", "search", "a", "b", "-k", "0"], "'0'"),
            (["vectors", "search", "a", "b", "--ef", "9", "--target-recall", "0.9"], "exclude"),
            (["vectors", "index", "a", "--update", "--m", "8"], "no other setting"),
            (["vectors", "index", "a", "--kind", "flat", "--m", "8"], "for --kind hnsw"),
        ]
        for args, words in cases:
            with self.subTest(args=args):
                code, out, err = self.run_raw(*args)
                self.assertEqual((code, out), (2, ""), err)
                self.assertIn(words, err)
        self.assertEqual(os.listdir("."), [])


class Life(Case):
    def setUp(self):
        super().setUp()
        self.rows = data.as_f32(data.vectors(ROWS, DIM))
        self.queries = data.as_f32(data.vectors(20, DIM, seed=2))
        data.write_npy("rows.npy", self.rows)
        data.write_npy("queries.npy", self.queries)

    def keys_of(self, *args):
        return [[h["key"] for h in line["hits"]] for line in
                self.json_lines("vectors", "search", "v", "queries.npy", "-k", K, *args)]

    def expected(self, metric, name, without=()):
        allow = set(range(ROWS)) - set(without)
        return [[name(i) for _, i in data.nearest(metric, self.rows, q, K, allow)] for q in self.queries]

    def test_rows_are_imported_found_deleted_compacted(self):
        for metric in ("l2", "ip", "cosine"):
            with self.subTest(metric=metric):
                said = self.json("vectors", "import", "v", "rows.npy", "--metric", metric, "--prefix", "doc-")
                self.assertEqual((said["imported"], said["rows"]), (ROWS, ROWS))
                name = lambda i: "doc-%d" % i
                self.assertEqual(self.keys_of(), self.expected(metric, name))
                row = self.json("vectors", "get", "v", "doc-7")
                self.assertEqual(row["key"], "doc-7")
                for a, b in zip(row["row"], self.rows[7]):
                    self.assertAlmostEqual(a, b, places=5)
                gone = range(0, ROWS, 3)
                self.perigee("vectors", "index", "v", "--quiet")
                self.perigee("vectors", "delete", "v", *map(name, gone))
                self.assertEqual(self.keys_of("--ef", 700), self.expected(metric, name, gone))
                self.perigee("vectors", "index", "v", "--update")
                self.assertEqual(self.keys_of("--ef", 700), self.expected(metric, name, gone))
                info = self.json("vectors", "info", "v")
                self.assertEqual((info["rows"], info["dead"], info["index"], info["indexed"]),
                                 (ROWS - len(gone), len(gone), "hnsw", ROWS))
                self.assertIn("was", self.perigee("vectors", "compact", "v"))
                info = self.json("vectors", "info", "v")
                self.assertEqual((info["rows"], info["dead"], info["index"], info["generation"]),
                                 (ROWS - len(gone), 0, "", 2))
                self.assertEqual(self.keys_of(), self.expected(metric, name, gone))
                self.assertIn("whole", self.perigee("vectors", "check", "v"))
                for kind in ("gwi", "cascade", "flat"):
                    self.perigee("vectors", "index", "v", "--kind", kind)
                    self.assertEqual(self.json("vectors", "info", "v")["index"], kind)
                    found, right = self.keys_of("--ef", 5000), self.expected(metric, name, gone)
                    if kind == "flat":
                        self.assertEqual(found, right)
                    self.assertGreater(sum(len(set(f) & set(r)) for f, r in zip(found, right)), 0.9 * len(right) * K)
                self.assertTrue(self.json("vectors", "check", "v")["ok"])
                for file in ("v", "v.index", "v.lock"):
                    os.unlink(file)

    def test_keys_come_from_a_file_and_rows_replace_those_of_their_keys(self):
        with open("keys", "w") as f:
            f.writelines("key %d\n" % (i % 600) for i in range(ROWS))
        self.perigee("vectors", "create", "v", "--dim", DIM, "--scalar", "f16")
        self.perigee("vectors", "import", "v", "rows.npy", "--keys", "keys")
        self.assertEqual(self.json("vectors", "info", "v")["rows"], 600)
        row = self.json("vectors", "get", "v", "key 5")["row"]  # row 605 came later
        self.assertLess(max(abs(a - b) for a, b in zip(row, self.rows[605])), 0.01)
        self.assertIn("present", self.error("vectors", "import", "v", "rows.npy", "--keys", "keys", "--new"))
        with open("keys", "a") as f:
            f.write("one more\n")
        self.assertIn("more keys than", self.error("vectors", "import", "v", "rows.npy", "--keys", "keys"))
        with open("keys", "w") as f:
            f.write("only one\n")
        self.assertIn("line 2", self.error("vectors", "import", "v", "rows.npy", "--keys", "keys"))
        self.assertEqual(self.json("vectors", "info", "v")["rows"], 600)

    def test_what_cannot_be_is_status_3_and_changes_nothing(self):
        self.perigee("vectors", "import", "v", "rows.npy", "-q")
        before = read("v")
        self.assertIn("something stands there", self.error("vectors", "create", "v", "--dim", 3))
        self.assertIn("no such key", self.error("vectors", "get", "v", "7", "nobody"))
        self.assertIn("no such key", self.error("vectors", "delete", "v", "7", "nobody"))
        data.write_npy("thin.npy", data.vectors(4, 3))
        self.assertIn("3 dimensions", self.error("vectors", "import", "v", "thin.npy"))
        self.assertIn("3 dimensions", self.error("vectors", "search", "v", "thin.npy"))
        self.assertIn("for a new file", self.error("vectors", "import", "v", "rows.npy", "--metric", "ip", code=2))
        data.write_npy("nan.npy", [[float("nan")] * DIM])
        self.assertIn("not finite", self.error("vectors", "import", "v", "nan.npy"))
        self.assertIn("not finite", self.error("vectors", "import", "fresh", "nan.npy"))
        self.assertFalse(os.path.exists("fresh"))
        self.assertEqual(read("v"), before)
        for action in ("get", "info", "check"):
            for name in ("none", ".", "/dev/zero"):
                self.error("vectors", action, name, *(["k"] if action == "get" else []))
        self.perigee("vectors", "check", "rows.npy", code=1)

    def test_damage_is_found_by_check_and_by_whoever_reads_there(self):
        self.perigee("vectors", "import", "v", "rows.npy")
        whole = read("v")
        at = whole.index(struct.pack("<3f", *self.rows[9][:3]))
        hurt = bytearray(whole)
        hurt[at + 1] ^= 4
        write("v", hurt)
        self.assertIn("damaged", self.perigee("vectors", "check", "v", code=1))
        self.assertFalse(self.json("vectors", "check", "v", code=1)["ok"])
        self.assertIn("damaged", self.error("vectors", "get", "v", "9"))
        self.assertIn("damaged", self.error("vectors", "search", "v", "queries.npy"))
        self.assertIn("damaged", self.error("vectors", "compact", "v"))
        write("v", whole[:-70000])
        self.assertIn("bytes", self.perigee("vectors", "check", "v", code=1))
        self.error("vectors", "info", "v")
        hurt = bytearray(whole)
        hurt[100] ^= 1  # one of two headers
        write("v", hurt)
        self.assertTrue(self.json("vectors", "check", "v")["ok"])

    def test_a_stopped_import_leaves_the_file_as_it_was(self):
        self.perigee("vectors", "import", "v", "rows.npy", "-q")
        os.mkfifo("keys")
        process = subprocess.Popen([harness.COMMAND, "vectors", "import", "v", "rows.npy", "--keys", "keys"],
                                   stderr=subprocess.PIPE)
        with open("keys", "w") as keys:
            keys.write("a\nb\n")
            keys.flush()
            time.sleep(0.2)
            busy = self.error("vectors", "delete", "v", "1")
            self.assertIn("process %d" % process.pid, busy)
            self.assertEqual(self.json("vectors", "info", "v")["rows"], ROWS)  # readers do not mind
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stderr.close()
        self.assertEqual(self.json("vectors", "info", "v")["rows"], ROWS)
        self.assertTrue(self.json("vectors", "check", "v")["ok"])
        self.perigee("vectors", "delete", "v", "1")


if __name__ == "__main__":
    harness.main()
