#!/usr/bin/env python3
"""log, tensor, model and run: what they print, what they store, what wrong use gets."""

import hashlib
import json
import os
import unittest

import data
import harness
from harness import Case


class Log(Case):
    def test_values_keep_their_type_and_their_history(self):
        self.perigee("log", "put", "l", "a", "1")
        self.perigee("log", "put", "l", "a", "2.5")
        self.perigee("log", "put", "l", "a", "two words")
        self.perigee("log", "put", "l", "b", "7", "--type", "text")
        self.assertEqual(self.perigee("log", "get", "l", "a"), "two words\n")
        self.assertEqual(self.perigee("log", "get", "l", "a", "--as-of", "1"), "1\n")
        lines = self.perigee("log", "history", "l", "a").splitlines()
        self.assertEqual(len(lines), 4)
        self.assertIn("float", lines[2])
        first = [json.loads(x) for x in self.perigee("log", "keys", "l", "--json").splitlines()]
        self.assertEqual([(k["key"], k["type"]) for k in first], [("a", "text"), ("b", "text")])
        self.assertEqual(len(self.perigee("log", "keys", "l", "b*").splitlines()), 2)
        self.perigee("log", "delete", "l", "a")
        self.error("log", "get", "l", "a")
        self.assertIn("deleted", self.perigee("log", "history", "l", "a"))
        self.assertEqual(self.perigee("log", "check", "l"), "whole\n")
        self.assertIn("1 keys", self.perigee("log", "compact", "l", "--keep", "1"))
        self.assertIn("1 keys", self.perigee("log", "info", "l"))
        self.error("log", "history", "l", "a")

    def test_damage_is_refused_until_it_is_repaired(self):
        for i in range(40):
            self.perigee("log", "put", "l", "k", str(i))
        name = [n for n in os.listdir("l") if n.endswith(".pej")][0]
        with open(os.path.join("l", name), "r+b") as f:
            f.seek(1000)
            b = f.read(1)
            f.seek(1000)
            f.write(bytes([b[0] ^ 1]))
        said = self.error("log", "get", "l", "k")
        self.assertIn(name, said)
        self.assertIn("repair", said)
        self.assertIn("given up", self.perigee("log", "repair", "l"))
        kept = int(self.perigee("log", "get", "l", "k"))
        self.assertLess(kept, 39)
        self.assertEqual(self.perigee("log", "check", "l"), "whole\n")
        self.assertEqual(self.perigee("log", "repair", "l"), "nothing to repair\n")

    def test_wrong_use(self):
        self.error("log", "get", "none", "k")
        self.assertFalse(os.path.exists("none"))
        self.error("log", "delete", "none", "k")
        self.assertFalse(os.path.exists("none"))
        self.error("log", "fly", "l", code=2)
        self.error("log", "get", "l", code=2)
        self.error("log", "put", "l", "k", "x", "--type", "int", code=2)
        self.error("log", "repair", code=2)


class Layers(Case):
    def test_a_tensor_goes_in_and_comes_out(self):
        data.write_npy("rows.npy", data.vectors(50, 6))
        self.perigee("tensor", "put", "l", "t/", "rows.npy", "--rows", "7")
        self.assertIn("50 x 6 f32", self.perigee("tensor", "get", "l", "t/*", "back.npy"))
        self.assertIn("50 x 6 f32", self.perigee("info", "back.npy"))
        with open("rows.npy", "rb") as a, open("back.npy", "rb") as b:
            self.assertEqual(a.read()[-1200:], b.read()[-1200:])
        self.error("tensor", "get", "l", "u/*")

    def test_models_have_versions_and_stages(self):
        with open("m.bin", "wb") as f:
            f.write(b"weights")
        self.perigee("model", "save", "l", "net", "m.bin", "--metadata", "{}")
        said = self.perigee("model", "save", "l", "net", "m.bin")
        self.assertIn(hashlib.sha256(b"weights").hexdigest(), said)
        self.perigee("model", "stage", "l", "net", "2", "Production")
        lines = self.perigee("model", "list", "l", "net").splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("Production", lines[2])
        self.perigee("model", "load", "l", "net", "out.bin", "--version", "1")
        with open("out.bin", "rb") as f:
            self.assertEqual(f.read(), b"weights")
        self.error("model", "load", "l", "net", "out.bin", "--version", "3")
        self.error("model", "stage", "l", "net", "1", "Nowhere", code=2)

    def test_no_runs_is_an_empty_table(self):
        self.perigee("log", "put", "l", "k", "1")
        self.assertEqual(self.perigee("run", "list", "l"), "experiment\n")
        self.assertEqual(len(self.perigee("run", "list", "l", "none").splitlines()), 1)
        self.error("run", "show", "l", "0" * 32)
        self.error("run", "show", "l", "x")
        self.error("run", "list", "l", "e", "--state", "asleep", code=2)


if __name__ == "__main__":
    harness.main()
