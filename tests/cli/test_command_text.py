#!/usr/bin/env python3
"""perigee text from end to end: what it makes, what it answers, and what it says to wrong usage."""

import os
import shutil
import unittest

import harness
from harness import Case

SUBCOMMANDS = ("build", "search", "eval", "info", "check")
JSONL = """{"_id": "fox", "title": "The quick fox", "text": "jumps over the lazy dog"}
{"_id": "dog", "title": "", "text": "a dog is a dog is a dog"}
{"id": 7, "text": "brown bears and the brown fox", "more": ["ignored"]}
"""


def write(name, text):
    with open(name, "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    return name


class Help(Case):
    def test_help_names_the_subcommands(self):
        text = self.perigee("text", "--help")
        for name in SUBCOMMANDS:
            self.assertIn(name, text)
            self.assertTrue(self.perigee("text", name, "--help").startswith("usage: perigee text " + name))
            self.assertLessEqual(max(map(len, self.perigee("text", name, "--help").splitlines())), 100)

    def test_manual_names_every_option(self):
        page = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../cli/perigee.1")
        with open(page) as f:
            manual = f.read()
        for name in SUBCOMMANDS:
            for word in self.perigee("text", name, "--help").split():
                if word.startswith("--"):
                    self.assertIn("Fl Fl " + word[2:].rstrip(","), manual, name)

    def test_wrong_usage(self):
        self.assertEqual(self.run_raw("text")[0], 2)
        for args in (["paint"], ["build", "a"], ["build", "a", "b", "--stop", "german"],
                     ["build", "a", "b", "--stop", "english", "--stop-file", "c"], ["search", "a"],
                     ["search", "a", "b", "--queries", "c"], ["eval", "a", "b"], ["info"],
                     ["build", "a", "b", "--b", "2"]):
            self.error("text", *args, code=2)


class Life(Case):
    def build(self, *options):
        write("d.jsonl", JSONL)
        return self.json("text", "build", "d.jsonl", "d.text", "--positions", *options)

    def hits(self, *args):
        return [h.get("key", h["id"]) for h in self.json_lines("text", "search", "d.text", *args)[0]["hits"]]

    def test_documents_with_keys_are_found_by_words_phrases_and_prefixes(self):
        made = self.build("--language", "english")
        self.assertEqual(made["documents"], 3)
        self.assertEqual(self.hits("dogs"), ["dog", "fox"])
        self.assertEqual(self.hits("fox dog", "--all"), ["fox"])
        self.assertEqual(self.hits("\"brown fox\""), ["7"])
        self.assertEqual(self.hits("lazy* NOT bears"), [])  # a prefix is not stemmed: the term is lazi
        self.assertEqual(self.hits("bea* NOT quick"), ["7"])
        self.assertEqual(self.hits("\"(((", "--words"), [])
        self.assertIn("byte 4", self.error("text", "search", "d.text", "dog \"fox"))
        self.assertRegex(self.perigee("text", "search", "d.text", "bear"), r"^  1 +\d\.\d{4}  7\n$")
        info = self.json("text", "info", "d.text")
        self.assertEqual((info["documents"], info["positions"], info["keyed"], info["language"]),
                         (3, True, True, "english"))
        self.assertIn("stemming english", self.perigee("text", "info", "d.text"))
        self.assertEqual(self.json("text", "check", "d.text")["ok"], True)
        self.assertEqual(self.perigee("text", "check", "d.text"), "d.text: whole, 3 documents\n")

    def test_lines_and_tabs(self):
        write("d.txt", "one fish\ntwo fish\n\nred fish\r\n")
        self.assertEqual(self.json("text", "build", "d.txt", "d.text")["documents"], 4)
        self.assertEqual(self.hits("fish red"), [3, 0, 1])
        write("even.txt", "0\n2\n")
        self.assertEqual(self.hits("fish", "--allow", "even.txt"), [0])
        write("q.tsv", "first\tone\nsecond\ttwo fish\n")
        lines = self.json_lines("text", "search", "d.text", "--queries", "q.tsv", "-k", "1")
        self.assertEqual([(x["query_key"], [h["id"] for h in x["hits"]]) for x in lines],
                         [("first", [0]), ("second", [1])])
        write("d.tsv", "a\tone\tfish\nb\ttwo\n")
        self.assertEqual(self.json("text", "build", "d.tsv", "d.text")["documents"], 2)
        self.assertEqual(self.hits("fish"), ["a"])
        self.assertIn("needs positions", self.error("text", "search", "d.text", "\"one fish\""))

    def test_choices_of_analysis(self):
        write("d.txt", "Caf\u00e9 the end\n\u6771\u4eac\u90fd\n")
        write("stop.txt", "end\n")
        self.json("text", "build", "d.txt", "d.text", "--strip-accents", "--single-characters", "--stop-file",
                  "stop.txt", "--k1", "0", "--b", "0.4")
        self.assertEqual(self.hits("cafe"), [0])
        self.assertEqual(self.hits("\u4eac"), [1])
        self.assertEqual(self.hits("end"), [])
        info = self.json("text", "info", "d.text")
        self.assertEqual((info["k1"], info["b"], info["stop_words"]), (0, 0.4, "own list"))
        self.assertIn("klingon", self.error("text", "build", "d.txt", "d.text", "-l", "klingon"))

    def test_ranking_is_measured_against_judgements(self):
        self.build()
        write("q.tsv", "q1\tdog\nq2\tbrown fox\nq3\tnobody judged this\n")
        write("j.tsv", "query-id\tcorpus-id\tscore\nq1\tdog\t2\nq1\tfox\t1\nq2\t7\t1\nq2\tnone\t1\nq9\tfox\t1\n")
        said = self.json("text", "eval", "d.text", "q.tsv", "j.tsv")
        self.assertEqual(said["queries"], 2)
        # q1 is ideal; q2 finds one of two: 1 / (1 + 1 / log2(3))
        self.assertAlmostEqual(said["ndcg"], (1 + 1 / (1 + 1 / 1.5849625)) / 2, places=5)
        self.assertAlmostEqual(said["recall_100"], 0.75)
        self.assertEqual(said["reciprocal_rank"], 1)
        self.perigee("text", "eval", "d.text", "q.tsv", "j.tsv", "--min-ndcg", "0.8")
        self.perigee("text", "eval", "d.text", "q.tsv", "j.tsv", "--min-ndcg", "0.9", code=1)
        write("bad.tsv", "q1\tdog\t2\nq1\tfox\n")
        self.assertIn("line 2", self.error("text", "eval", "d.text", "q.tsv", "bad.tsv"))

    def test_bad_documents_are_named_by_line(self):
        for name, text, what in (("a.jsonl", "{\"_id\": \"x\", \"text\": \"y\"}\nnot json\n", "line 2"),
                                 ("b.jsonl", "[1]\n", "expected an object"),
                                 ("c.jsonl", "{\"text\": \"x\"}\n", "expected a key"),
                                 ("d.jsonl", "{\"_id\": \"x\"}\n", "no text"),
                                 ("e.tsv", "no tab here\n", "expected a key, a tab"),
                                 ("missing.txt", None, "cannot read")):
            if text is not None:
                write(name, text)
            self.assertIn(what, self.error("text", "build", name, "x.text"))
            self.assertFalse(os.path.exists("x.text"))

    def test_odd_bytes_are_text(self):
        write("d.txt", b"nul\0nul \xff\xfe word\n" + b"x" * 100000 + b" long\n\n")
        self.assertEqual(self.json("text", "build", "d.txt", "d.text")["documents"], 3)
        self.assertEqual(self.hits("word"), [0])
        self.assertEqual(self.hits("long"), [1])
        write("empty.txt", "")
        self.assertEqual(self.json("text", "build", "empty.txt", "d.text")["documents"], 0)
        self.assertEqual(self.hits("word"), [])

    def test_damage_is_an_answer_of_check_and_an_error_elsewhere(self):
        self.build()
        with open("d.text", "rb") as f:
            whole = f.read()
        for at in (10, 300, len(whole) - 9):
            write("bad.text", whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:])
            self.assertFalse(self.json("text", "check", "bad.text", code=1)["ok"])
            self.error("text", "search", "bad.text", "dog")
        write("other.text", "some other file")
        self.perigee("text", "check", "other.text", code=1)
        self.error("text", "check", "nowhere.text")
        shutil.copy("d.text", "copy.peri")
        self.error("info", "copy.peri")  # not an index of vectors


if __name__ == "__main__":
    harness.main()
