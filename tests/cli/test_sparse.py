#!/usr/bin/env python3
"""perigee sparse, end to end: what goes in as text comes out as the true answers."""

import random
import unittest

import harness
from harness import Case


def write(name, rows, ids=None):
    with open(name, "w") as f:
        for i, row in enumerate(rows):
            entries = " ".join("%d:%.9g" % e for e in sorted(row.items()))
            f.write(("%d " % ids[i] if ids else "") + entries + "\n")


def truth(rows, ids, query, k):
    scored = []
    for i, row in zip(ids, rows):
        shared = sorted(set(row) & set(query))
        if shared:
            scored.append((-sum(row[t] * query[t] for t in shared), i))
    return sorted(scored)[:k]


class Sparse(Case):
    def make(self, n=400, seed=1):
        r = random.Random(seed)
        row = lambda: {r.randrange(200): r.randrange(1, 64) / 8 for _ in range(r.randrange(1, 20))}
        return [row() for _ in range(n)], [row() for _ in range(20)]

    def test_answers_are_true_in_every_form(self):
        rows, queries = self.make()
        ids = [7 * i + 3 for i in range(len(rows))]
        write("rows", rows, ids)
        write("queries", queries)
        for options in ([], ["--weights", "f16"], ["--exact-only", "--threads", 2]):
            self.perigee("sparse", "build", "rows", "-o", "a.sparse", *options)
            got = self.json_lines("sparse", "search", "a.sparse", "queries", "-k", 5)
            self.assertEqual(len(got), len(queries))
            for i, line in enumerate(got):
                self.assertEqual(line["query"], i)
                want = truth(rows, ids, queries[i], 5)
                self.assertEqual([(-h["score"], h["id"]) for h in line["hits"]], want)
        self.assertEqual(self.json("sparse", "check", "a.sparse")["ok"], True)
        info = self.json("sparse", "info", "a.sparse")
        self.assertEqual((info["rows"], info["weights"], info["approximate_postings"]), (400, "f32", 0))

    def test_filters_bounds_and_effort(self):
        rows, queries = self.make()
        write("rows", rows)
        write("queries", queries)
        self.perigee("sparse", "build", "rows", "-o", "a.sparse")
        with open("some", "w") as f:
            f.write("\n".join(map(str, range(0, 400, 9))))
        for line in self.json_lines("sparse", "search", "a.sparse", "queries", "--allow", "some"):
            self.assertTrue(all(h["id"] % 9 == 0 for h in line["hits"]))
        for line in self.json_lines("sparse", "search", "a.sparse", "queries", "--max-distance", -90):
            self.assertTrue(all(h["score"] >= 90 for h in line["hits"]))
        whole = ["--effort", 100, "--rerank", 400]
        self.perigee("sparse", "build", "rows", "-o", "all.sparse", "--keep", 1)
        self.assertEqual(self.perigee("sparse", "search", "all.sparse", "queries", *whole),
                         self.perigee("sparse", "search", "all.sparse", "queries"))
        self.assertEqual(len(self.json_lines("sparse", "search", "a.sparse", "queries", "--limit", 3)), 3)

    def test_text_is_read_to_the_letter(self):
        with open("rows", "w") as f:
            f.write("# nothing\n\n5 1:1 \t2:2e0\r\n6\n7 4294967295:-3 # 1:9\n")
        self.perigee("sparse", "build", "rows", "-o", "a.sparse")
        self.assertEqual(self.json("sparse", "info", "a.sparse")["rows"], 3)
        with open("q", "w") as f:
            f.write("1:1\n4294967295:1")
        got = self.json_lines("sparse", "search", "a.sparse", "q")
        self.assertEqual([line["hits"] for line in got],
                         [[{"id": 5, "score": 1}], [{"id": 7, "score": -3}]])

    def test_lines_that_make_no_sense_are_named(self):
        cases = [("1 2:3\n2 x\n", "line 2: 'x'"), ("1:2:3", "line 1"), ("1:", "line 1"), ("-1:2", "line 1"),
                 ("4294967296:1", "line 1"), ("1:nan", "term 1"), ("1:1e99", "term 1"), ("1:2 1:3", "stands twice"),
                 ("1:2\n3 1:2\n", "have no id"), ("3 1:2\n1:2\n", "as the rows before"), ("1 2 3:4", "line 1: '2'"),
                 ("99999999999999999999 1:2", "line 1"), ("\0", None)]
        for text, says in cases:
            with self.subTest(text=text):
                with open("rows", "w") as f:
                    f.write(text)
                if says is None:
                    self.perigee("sparse", "build", "rows", "-o", "a.sparse")
                else:
                    self.assertIn(says, self.error("sparse", "build", "rows", "-o", "b.sparse"))
        self.error("sparse", "info", "b.sparse")  # nothing was left behind

    def test_wrong_usage_and_damaged_files(self):
        for args, says in ((["sparse"], "action is missing"), (["sparse", "grow"], "unknown action 'grow'"),
                           (["sparse", "build", "a"], "--output is missing"),
                           (["sparse", "build", "a", "-o", "b", "--weights", "bf16"], "f32, f16, i8"),
                           (["sparse", "build", "a", "-o", "b", "--keep", "2"], "--keep"),
                           (["sparse", "search", "a"], "expected INDEX QUERIES"),
                           (["sparse", "search", "a", "b", "--effort", "0"], "--effort")):
            self.assertIn(says, self.error(*args, code=2))
        self.assertIn("no such", self.error("sparse", "search", "none", "none"))
        rows, _ = self.make(20)
        write("rows", rows)
        self.perigee("sparse", "build", "rows", "-o", "a.sparse")
        with open("a.sparse", "r+b") as f:
            f.seek(700)
            f.write(b"\xa5\x5a\xa5")
        self.assertIn("1 fault", self.perigee("sparse", "check", "a.sparse", code=1))
        self.assertIn("a.sparse", self.error("sparse", "info", "a.sparse"))


if __name__ == "__main__":
    harness.main()
