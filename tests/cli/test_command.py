#!/usr/bin/env python3
"""The perigee command from end to end: what it makes, and what it says to wrong usage."""

import os
import pty
import select
import shutil
import subprocess
import unittest

import data
import harness
from harness import Case

COMMANDS = ("build", "search", "eval", "info", "check", "convert", "vectors")
SPARSE = ("build", "search", "info", "check")
ROWS, DIM, K = 600, 12, 5


class Help(Case):
    def test_version_and_help_go_to_standard_output(self):
        self.assertRegex(self.perigee("--version"), r"^perigee \d+\.\d+\.\d+ \(kernels: \w+\)\n$")
        self.assertEqual(self.perigee("--help"), self.perigee("help"))
        for name in COMMANDS:
            self.assertIn(name, self.perigee("--help"))
            text = self.perigee(name, "--help")
            self.assertTrue(text.startswith("usage: perigee " + name))
            self.assertEqual(text, self.perigee("help", name))
            self.assertEqual(text, self.perigee(name, "-h", "what", "--ever"))
            self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_manual_names_every_option_and_is_clean(self):
        page = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../cli/perigee.1")
        with open(page) as f:
            manual = f.read()
        for name in COMMANDS:
            for word in self.perigee(name, "--help").split():
                if word.startswith("--"):
                    self.assertIn("Fl Fl " + word[2:].rstrip(","), manual, name)
        for name in SPARSE:
            for word in self.perigee("sparse", name, "--help").split():
                if word.startswith("--"):
                    self.assertIn("Fl Fl " + word[2:].rstrip(","), manual, name)
        if shutil.which("mandoc"):
            done = subprocess.run(["mandoc", "-Tlint", page], capture_output=True)
            self.assertEqual(done.stdout.decode(), "")


class Usage(Case):
    def test_wrong_usage_is_status_2_and_named(self):
        cases = [
            ([], ""),
            (["frobnicate"], "unknown command 'frobnicate'"),
            (["help", "frobnicate"], "unknown command"),
            (["build"], "0 operands"),
            (["build", "a"], "--output is missing"),
            (["build", "a", "-o"], "needs a value"),
            (["build", "a", "b", "-o", "c"], "'b' is one operand too many"),
            (["build", "a", "-o", "c", "--nonsense"], "unknown option '--nonsense'"),
            (["build", "a", "-o", "c", "-z"], "unknown option '-z'"),
            (["build", "a", "-o", ""], "--output is empty"),
            (["build", "", "-o", "c"], "operand is empty"),
            (["build", "a", "-o", "c", "--m", "1"], "expected a whole number from 2 to 256"),
            (["build", "a", "-o", "c", "--m", "many"], "--m is 'many'"),
            (["build", "a", "-o", "c", "--m", "18446744073709551632"], "--m is"),
            (["build", "a", "-o", "c", "--m", "0x10"], "--m is"),
            (["build", "a", "-o", "c", "--m=16.0"], "--m is"),
            (["build", "a", "-o", "c", "--m", " 16"], "--m is"),
            (["build", "a", "-o", "c", "--m", "32", "--m-max", "16"], "--m-max is 16"),
            (["build", "a", "-o", "c", "--kind", "tree"], "expected one of: hnsw, flat, gwi"),
            (["build", "a", "-o", "c", "--kind", "flat", "--m", "8"], "for --kind hnsw"),
            (["build", "a", "-o", "c", "--kind", "gwi", "--m", "8"], "for --kind hnsw"),
            (["build", "a", "-o", "c", "--wells", "8"], "for --kind gwi"),
            (["build", "a", "-o", "c", "--kind", "flat", "--seed", "8"], "for every kind but flat"),
            (["build", "a", "-o", "c", "--metric", "L2"], "expected one of: l2, ip, cosine"),
            (["build", "a", "-o", "c", "--scalar", "f8"], "f32, f16, bf16, i8"),
            (["build", "a", "-o", "c", "--alpha", "nan"], "--alpha is 'nan'"),
            (["build", "a", "-o", "c", "--alpha", "1e999"], "--alpha is"),
            (["build", "a", "-o", "c", "--calibrate=yes"], "takes no value"),
            (["build", "a", "-o", "c", "-qx"], "takes no value"),
            (["search", "a"], "1 operands, expected INDEX QUERIES"),
            (["search", "a", "b", "-k", "0"], "-k"),
            (["search", "a", "b", "-k0"], "'0'"),
            (["search", "a", "b", "-k", "-1"], "'-1'"),
            (["search", "a", "b", "-k", "99999999999999999999999"], "whole number"),
            (["search", "a", "b", "--limit", "0"], "--limit"),
            (["search", "a", "b", "--ef", "5", "--target-recall", "0.9"], "exclude each other"),
            (["search", "a", "b", "--target-recall", "1"], "0.5 to 0.999"),
            (["search", "a", "b", "--max-distance", ""], "--max-distance is ''"),
            (["eval", "a", "b", "--ef", "10,,20"], "--ef is ''"),
            (["eval", "a", "b", "--ef", "10,"], "--ef is ''"),
            (["eval", "a", "b", "--ef", ",".join(["9"] * 65)], "more than 64"),
            (["eval", "a", "b", "--passes", "100"], "--passes"),
            (["info"], "expected FILE"),
            (["check", "--", "--json", "--quiet"], "one operand too many"),
            (["convert", "a"], "expected IN OUT"),
            (["convert", "a", "b.npy", "--type", "f31"], "expected one of: f16"),
            (["convert", "a", "b.npy", "--deflate", "10"], "--deflate"),
        ]
        for args, words in cases:
            with self.subTest(args=args):
                code, out, err = self.run_raw(*args)
                self.assertEqual((code, out), (2, ""), err)
                self.assertIn(words, err)
        self.assertEqual(os.listdir("."), [])

    def test_files_that_are_none_are_status_3_and_named(self):
        data.write_npy("v.npy", data.vectors(4, 3))
        os.mkdir("folder.npy")
        os.mkfifo("fifo.npy")
        os.symlink("/dev/zero", "zero.fvecs")
        open("empty.hdf5", "w").close()
        with open("text", "w") as f:
            f.write("neither an index nor vectors\n" * 100)
        bad = ("none.npy", "folder.npy", "fifo.npy", "zero.fvecs", "empty.hdf5", "none.hdf5:test")
        for name in bad:
            self.assertIn(name.split(":")[0], self.error("build", name, "-o", "x.peri"))
            self.assertIn(name.split(":")[0], self.error("convert", name, "x.npy"))
            self.assertIn(name.split(":")[0], self.error("info", name))
        for name in ("none", "folder.npy/x", "fifo.npy", "/dev/zero", "/dev/null", "."):
            self.error("check", name)
        self.perigee("check", "text", code=1)
        for name in ("none", "folder.npy/x", "text", "/dev/zero", "/dev/null", "."):
            for args in (["info", name], ["search", name, "v.npy"], ["eval", name, "v.npy"],
                         ["convert", name, "x.npy"]):
                with self.subTest(args=args):
                    self.error(*args)
        self.assertFalse(os.path.exists("x.peri") or os.path.exists("x.npy"))
        for out in ("folder.npy", "/dev/null", "fifo.npy", "none/x.peri"):
            self.error("build", "v.npy", "-o", out)
        self.assertIn("names no format", self.error("convert", "v.npy", "x.txt"))


class EndToEnd(Case):
    def setUp(self):
        super().setUp()
        self.rows = data.as_f32(data.vectors(ROWS, DIM))
        self.queries = data.as_f32(data.vectors(40, DIM, seed=2))
        data.write_npy("rows.npy", self.rows)
        data.write_npy("queries.npy", self.queries)

    def assert_hits(self, metric, lines, allow=None):
        self.assertEqual([line["query"] for line in lines], list(range(len(self.queries))))
        for line, query in zip(lines, self.queries):
            true = data.nearest(metric, self.rows, query, K, allow)
            self.assertEqual([h["id"] for h in line["hits"]], [i for _, i in true])
            for hit, (d, _) in zip(line["hits"], true):
                self.assertAlmostEqual(hit["distance"], d, places=4)

    def test_every_kind_and_metric_finds_the_nearest(self):
        for kind in ("flat", "hnsw", "gwi"):
            for metric in ("l2", "ip", "cosine"):
                with self.subTest(kind=kind, metric=metric):
                    made = self.json("build", "rows.npy", "-o", "x.peri", "--kind", kind,
                                     "--metric", metric)
                    self.assertEqual((made["kind"], made["metric"], made["rows"], made["dim"]),
                                     (kind, metric, ROWS, DIM))
                    info = self.json("info", "x.peri")
                    self.assertEqual((info["kind"], info["metric"], info["rows"], info["dim"],
                                      info["scalar"]), (kind, metric, ROWS, DIM, "f32"))
                    self.assertEqual(info["file_bytes"], os.path.getsize("x.peri"))
                    effort = ["--ef", ROWS] if kind != "flat" else []
                    self.assert_hits(metric, self.json_lines("search", "x.peri", "queries.npy",
                                                             "-k", K, *effort))

    def test_every_scalar_and_code_builds_and_recalls(self):
        for scalar in ("f32", "f16", "bf16", "i8"):
            for codes in ("auto", "none", "8bit"):
                with self.subTest(scalar=scalar, codes=codes):
                    self.perigee("build", "rows.npy", "-o", "x.peri", "--scalar", scalar,
                                 "--codes", codes, "--m", 8, "--ef-construction", 64, "--seed", 7,
                                 "--threads", 1, "-q")
                    self.assertEqual(self.json("info", "x.peri")["scalar"], scalar)
                    got = self.json("eval", "x.peri", "queries.npy", "--ef", 200, "--passes", 1)
                    self.assertGreater(got["results"][0]["recall"], 0.95)

    def test_equal_seeds_make_equal_files_on_one_thread(self):
        for name in ("a", "b"):
            self.perigee("build", "rows.npy", "-o", name, "--threads", 1, "--seed", 3, "-q")
        self.assertEqual(self.json_lines("search", "a", "queries.npy"),
                         self.json_lines("search", "b", "queries.npy"))

    def test_people_get_a_table(self):
        self.perigee("build", "rows.npy", "-o", "x.peri")
        for text in (self.perigee("search", "x.peri", "queries.npy", "--limit", 2, "-k", 3),
                     self.perigee("search", "x.peri", "queries.npy", "--limit", 2, "-k3", "-o-")):
            lines = text.splitlines()
            self.assertEqual(lines[0].split(), ["query", "rank", "id", "distance"])
            self.assertEqual(len(lines), 7)
        self.assertIn("hnsw", self.perigee("info", "x.peri"))
        self.assertIn("600 x 12 f32", self.perigee("info", "rows.npy"))
        self.assertIn("recall@10", self.perigee("eval", "x.peri", "queries.npy", "--ef", "10,20"))
        self.assertIn("whole, 600 rows", self.perigee("check", "x.peri"))

    def test_limits_of_k_rows_and_distance(self):
        self.perigee("build", "rows.npy", "-o", "x.peri", "--kind", "flat", "--limit", 7)
        lines = self.json_lines("search", "x.peri", "queries.npy", "-k", 1000000, "--limit", 3)
        self.assertEqual([len(line["hits"]) for line in lines], [7, 7, 7])
        lines = self.json_lines("search", "x.peri", "queries.npy", "--max-distance", 1e-3)
        self.assertTrue(all(line["hits"] == [] for line in lines))
        near = self.json_lines("search", "x.peri", "queries.npy", "--max-distance=4.5")
        self.assertTrue(all(h["distance"] <= 4.5 for line in near for h in line["hits"]))

    def test_only_allowed_ids_are_found(self):
        allow = set(range(3, ROWS, 50))
        with open("ids.txt", "w") as f:
            f.write("# some ids\n\n" + "".join(" %d\n" % i for i in allow))
        data.write_npy("ids.npy", sorted(allow), "i8", (len(allow),))
        self.perigee("build", "rows.npy", "-o", "x.peri")
        for name in ("ids.txt", "ids.npy"):
            self.assert_hits("l2", self.json_lines("search", "x.peri", "queries.npy", "-k", K,
                                                   "--ef", ROWS, "--allow", name), allow)
        for text, words in (("12\nseven\n", "line 2"), ("-1\n", "line 1"), ("1 2\n", "line 1"),
                            ("18446744073709551616\n", "line 1")):
            with open("ids.txt", "w") as f:
                f.write(text)
            self.assertIn(words, self.error("search", "x.peri", "queries.npy", "--allow", "ids.txt"))
        self.error("search", "x.peri", "queries.npy", "--allow", "rows.npy")
        self.error("search", "x.peri", "queries.npy", "--allow", "none.txt")

    def test_hits_go_to_files(self):
        self.perigee("build", "rows.npy", "-o", "x.peri", "--kind", "flat", "--limit", 4)
        ids = [[i for _, i in data.nearest("l2", self.rows[:4], q, 4)] for q in self.queries]
        self.perigee("search", "x.peri", "queries.npy", "-o", "hits.ivecs")
        self.assertEqual(data.read_vecs("hits.ivecs", "i"), ids)
        self.perigee("search", "x.peri", "queries.npy", "-o", "hits.npy")
        self.assertEqual(data.read_npy("hits.npy"), ids)
        self.perigee("search", "x.peri", "queries.npy", "-o", "hits.hdf5", "--max-distance", 5)
        self.perigee("convert", "hits.hdf5:neighbors", "near.ivecs")
        self.perigee("convert", "hits.hdf5:distances", "near.npy")
        for row, far, true in zip(data.read_vecs("near.ivecs", "i"), data.read_npy("near.npy"), ids):
            n = sum(i != -1 for i in row)
            self.assertEqual(row, true[:n] + [-1] * (4 - n))
            self.assertTrue(all(d <= 5 for d in far[:n]) and far[n:] == [float("inf")] * (4 - n))
        self.assertEqual(self.json("info", "hits.hdf5:distances")["distance"], "euclidean")

    def test_eval_knows_three_sources_of_truth(self):
        self.perigee("build", "rows.npy", "-o", "x.peri")
        true = [[i for _, i in data.nearest("l2", self.rows, q, 20)] for q in self.queries]
        data.write_npy("true.npy", true, "i4")
        exact = self.json("eval", "x.peri", "queries.npy", "--ef", 600, "--passes", 1)
        self.assertEqual(exact["results"][0]["recall"], 1)
        self.assertIn("exact", exact["truth"])
        given = self.json("eval", "x.peri", "queries.npy", "--truth", "true.npy", "--ef", 600, "-k",
                          20, "--threads", 2)
        self.assertEqual((given["results"][0]["recall"], given["truth"]), (1, "true.npy"))
        self.perigee("convert", "queries.npy", "data.hdf5:test")
        self.assertIn("exact", self.json("eval", "x.peri", "data.hdf5", "--ef", 10)["truth"])
        self.assertIn("expected at least", self.error("eval", "x.peri", "queries.npy", "--truth",
                                                      "true.npy", "-k", 21))
        self.perigee("eval", "x.peri", "queries.npy", "--ef", 600, "--min-recall", 1)
        wrong = [row[10:] + row[10:] for row in true]
        data.write_npy("wrong.npy", wrong, "i4")
        self.perigee("eval", "x.peri", "queries.npy", "--truth", "wrong.npy", "--ef", 600,
                     "--min-recall", 0.5, code=1)

    def test_target_recall_needs_a_calibrated_index(self):
        data.write_npy("more.npy", data.vectors(1500, DIM))
        self.perigee("build", "more.npy", "-o", "x.peri")
        self.error("search", "x.peri", "queries.npy", "--target-recall", 0.9)
        self.assertTrue(self.json("build", "more.npy", "-o", "x.peri", "--calibrate")["calibrated"])
        self.assertTrue(self.json("info", "x.peri")["calibrated"])
        for target in (0.5, 0.95, 0.999):
            self.perigee("search", "x.peri", "queries.npy", "--target-recall", target)
        self.perigee("build", "rows.npy", "-o", "x.peri", "--calibrate")  # too small for a curve
        self.assert_hits("l2", self.json_lines("search", "x.peri", "queries.npy", "-k", K,
                                               "--target-recall", 0.999))

    def test_ids_and_rows_come_back_out_of_an_index(self):
        ids = [(i * 7919) % 100003 for i in range(ROWS)]
        data.write_npy("ids.npy", ids, "i8", (ROWS,))
        self.perigee("build", "rows.npy", "-o", "x.peri", "--ids", "ids.npy")
        self.perigee("convert", "x.peri", "out.hdf5")
        self.perigee("convert", "out.hdf5:ids", "ids.ivecs")
        self.perigee("convert", "out.hdf5", "out.npy")
        order = sorted(range(ROWS), key=lambda i: ids[i])
        self.assertEqual(data.read_vecs("ids.ivecs", "i"), [[ids[i]] for i in order])
        self.assertEqual(data.read_npy("out.npy"), [self.rows[i] for i in order])
        code, _, err = self.run_raw("convert", "x.peri", "plain.fvecs")
        self.assertEqual(code, 0)
        self.assertIn("only HDF5 keeps them", err)
        self.assertEqual(data.read_vecs("plain.fvecs", "f"), [self.rows[i] for i in order])
        data.write_npy("few.npy", ids[:9], "i8", (9,))
        self.assertIn("expected 600 x 1",
                      self.error("build", "rows.npy", "-o", "y.peri", "--ids", "few.npy"))

    def test_conversions_go_round(self):
        data.write_npy("whole.npy", [[(i * j) % 251 for j in range(5)] for i in range(50)], "u1")
        path = "whole.npy"
        for name in ("a.bvecs", "b.hdf5", "c.fvecs", "d.ivecs", "e.hdf5:some/where", "f.npy"):
            self.perigee("convert", path, name)
            path = name
        self.perigee("convert", path, "end.npy", "--type", "u8")
        self.assertEqual(data.read_npy("end.npy"), data.read_npy("whole.npy"))
        wide = [[2**53 + 1, -1], [0, 2**62]]
        data.write_npy("wide.npy", wide, "i8")
        self.perigee("convert", "wide.npy", "wide.hdf5", "--deflate", 9)
        self.perigee("convert", "wide.hdf5", "back.npy")
        self.assertEqual(data.read_npy("back.npy"), wide)
        self.assertIn("cannot hold", self.error("convert", "wide.npy", "narrow.ivecs"))
        self.assertIn("cannot hold", self.error("convert", "wide.npy", "narrow.fvecs"))
        self.assertNotIn("narrow.fvecs", os.listdir("."))

    def test_the_distance_attribute_chooses_the_metric(self):
        for word, metric in (("angular", "cosine"), ("euclidean", "l2"), ("dot", "ip")):
            self.perigee("convert", "rows.npy", "d.hdf5", "--distance", word)
            self.assertEqual(self.json("build", "d.hdf5", "-o", "x.peri")["metric"], metric)
        self.perigee("convert", "rows.npy", "d.hdf5", "--distance", "jaccard")
        self.assertIn("say --metric", self.error("build", "d.hdf5", "-o", "y.peri"))
        self.perigee("build", "d.hdf5", "-o", "y.peri", "--metric", "ip")

    def test_vectors_that_do_not_fit_are_told_apart(self):
        self.perigee("build", "rows.npy", "-o", "x.peri")
        data.write_npy("wide.npy", data.vectors(3, DIM + 1))
        err = self.error("search", "x.peri", "wide.npy")
        self.assertIn("13", err)
        self.assertIn("12", err)
        self.error("eval", "x.peri", "wide.npy")
        for value in (float("nan"), float("inf"), -float("inf")):
            rows = [row[:] for row in self.rows]
            rows[77][3] = value
            data.write_npy("bad.npy", rows)
            self.assertIn("77", self.error("build", "bad.npy", "-o", "y.peri"))
            self.error("search", "x.peri", "bad.npy")
        self.assertFalse(os.path.exists("y.peri"))
        data.write_npy("zero.npy", [[0.0] * DIM])
        self.error("build", "zero.npy", "-o", "y.peri", "--metric", "cosine")
        data.write_npy("none.npy", [], shape=(0, DIM))
        self.perigee("build", "none.npy", "-o", "none.peri")
        lines = self.json_lines("search", "none.peri", "queries.npy")
        self.assertTrue(all(line["hits"] == [] for line in lines))
        self.perigee("search", "none.peri", "queries.npy", "-o", "hits.npy")
        self.perigee("check", "none.peri")


class Terminal(Case):
    def run_on_terminal(self, *args):
        """Standard error of a run whose standard error is a terminal."""
        ours, theirs = pty.openpty()
        child = subprocess.Popen([harness.COMMAND, *args], stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        seen = b""
        while True:
            if not select.select([ours], [], [], 60)[0]:
                break
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        os.close(ours)
        self.assertEqual(child.wait(), 0)
        return seen

    def test_a_bar_is_drawn_on_a_terminal_and_wiped_off(self):
        data.write_npy("rows.npy", data.vectors(3000, 8))
        seen = self.run_on_terminal("build", "rows.npy", "-o", "x.peri")
        self.assertIn(b"of 3,000", seen)
        self.assertTrue(seen.endswith(b"\r\x1b[K"), seen[-80:])
        self.assertEqual(self.run_on_terminal("build", "rows.npy", "-o", "x.peri", "--quiet"), b"")

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_a_full_disk_behind_standard_output_is_an_error(self):
        data.write_npy("rows.npy", data.vectors(30, 4))
        with open("/dev/full", "w") as full:
            for args in (["info", "rows.npy"], ["--version"], ["build", "--help"]):
                done = subprocess.run([harness.COMMAND, *args], stdout=full, stderr=subprocess.PIPE)
                self.assertEqual(done.returncode, 3, args)


if __name__ == "__main__":
    harness.main()
