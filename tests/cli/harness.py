"""Runs the command under test in a folder of its own for each test case."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

COMMAND = None  # set by main()


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="perigee-cli-")
        self.before = os.getcwd()
        os.chdir(self.folder)

    def tearDown(self):
        os.chdir(self.before)
        shutil.rmtree(self.folder)

    def run_raw(self, *args, timeout=120, **more):
        """Run to the end; a death by a signal or a sanitiser's report is a failure of the test,
        unless it is one on libhdf5 in the child that reads."""
        done = subprocess.run([COMMAND, *map(str, args)], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=timeout, **more)
        err = done.stderr.decode("utf-8", "replace")
        self.assertIn(done.returncode, (0, 1, 2, 3), "%r: %s" % (args, err))
        if "libhdf5" not in err:
            self.assertNotIn("Sanitizer", err)
        self.assertNotIn("runtime error", err)
        return done.returncode, done.stdout.decode("utf-8", "replace"), err

    def perigee(self, *args, code=0, **more):
        got, out, err = self.run_raw(*args, **more)
        self.assertEqual(got, code, "%r: %s%s" % (args, out, err))
        if code >= 2:
            self.assertTrue(err.startswith("perigee"), err)
            self.assertEqual(out, "")
        else:
            self.assertEqual(err, "")  # no bar where there is no terminal
        return out

    def error(self, *args, code=3):
        """The message of a call that must fail."""
        got, _, err = self.run_raw(*args)
        self.assertEqual(got, code, "%r: %s" % (args, err))
        self.assertTrue(err.startswith("perigee"), err)
        return err

    def json(self, *args, **more):
        return json.loads(self.perigee(*args, "--json", **more))

    def json_lines(self, *args, **more):
        return [json.loads(line) for line in self.perigee(*args, "--json", **more).splitlines()]


def main():
    global COMMAND
    import harness  # the module as the test cases know it, not __main__
    harness.COMMAND = os.path.abspath(sys.argv.pop(1))
    unittest.main(module="__main__")
