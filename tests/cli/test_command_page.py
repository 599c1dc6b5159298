#!/usr/bin/env python3
"""docs/command.md is a session: each line that it shows is run, and ends as it says."""

import os
import re
import subprocess
import unittest

import harness
from harness import Case

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
DATA = os.path.join(TREE, "examples", "data", "scifact-minilm-384-angular.hdf5")


def session():
    """(command line, exit status, first line shown) of each."""
    with open(os.path.join(TREE, "docs", "command.md")) as f:
        blocks = re.findall(r"^```console\n(.*?)^```", f.read(), re.S | re.M)
    for block in blocks:
        for line, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)?)", block, re.M):
            status = re.search(r"# exit status (\d)$", line)
            yield line, int(status.group(1)) if status else 0, shown.rstrip("\n")


class Page(Case):
    def test_every_line_of_the_page_does_what_it_shows(self):
        os.symlink(os.path.realpath(DATA), "scifact.hdf5")
        path = os.path.dirname(harness.COMMAND) + os.pathsep + os.environ["PATH"]
        lines = list(session())
        self.assertGreater(len(lines), 15)
        for line, status, shown in lines:
            with self.subTest(line=line):
                done = subprocess.run(["sh", "-c", line], env=dict(os.environ, PATH=path),
                                      capture_output=True, timeout=120)
                said = (done.stdout + done.stderr).decode()
                self.assertEqual(done.returncode, status, said)
                # Sizes and figures differ from machine to machine, words do not.
                first = said.split("\n")[0]
                self.assertEqual(re.findall(r"[a-z]{3,}", re.sub(r"kernels \w+", "", first)),
                                 re.findall(r"[a-z]{3,}", re.sub(r"kernels \w+", "", shown)))


if __name__ == "__main__":
    harness.main()
