#!/usr/bin/env python3
"""Tests of table.py: what it reads, what it complains about, and what it writes."""

import contextlib
import io
import json
import pathlib
import tempfile
import unittest

import table

JUNIT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux" tests="6" failures="2" disabled="0" skipped="2">
  <testcase name="unit.RingTest.Full" classname="unit.RingTest.Full" time="0.1" status="run"/>
  <testcase name="conformance.Transport/ConformanceTest.Echo/shm" classname="" time="0.1" status="run"/>
  <testcase name="conformance.Transport/ConformanceTest.Echo/tcp" classname="" time="0.1" status="run"/>
  <testcase name="fault.breaks" classname="fault.breaks" time="0.1" status="fail"><failure message=""/></testcase>
  <testcase name="fault.needs_root" classname="" time="0" status="notrun">
    <skipped message="SKIP_RETURN_CODE=77"/>
  </testcase>
  <testcase name="bench_test_NOT_BUILT" classname="" time="0" status="notrun">
    <skipped message="Unable to find executable"/>
  </testcase>
</testsuite>
"""


def entry(number, tests, **more):
    return {"number": number, "group": "Processes", "fault": f"fault {number}", "outcome": "survived", "tests": tests,
            **more}


class TableTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.write("junit.xml", JUNIT)
        self.write("document.md", f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name

    def run_program(self, faults, *arguments):
        """The exit code and everything that was printed."""
        faults = self.write("faults.json", json.dumps(faults))
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = table.main([f"--faults={faults}", f"--document={self.folder / 'document.md'}", *arguments])
        return code, output.getvalue()

    def run_table(self, faults, *arguments):
        """The same with the results above."""
        return self.run_program(faults, f"--junit={self.folder / 'junit.xml'}", *arguments)

    def write_build(self):
        """A build folder with four tests, as far as ctest is concerned."""
        self.write("CMakeCache.txt", "SHMRPC_FUZZ:BOOL=OFF\n")
        self.write("CTestTestfile.cmake", """
            add_test([=[fault.first]=] "true")
            add_test([=[unit.Case/Fails.Always/1]=] "false")
            add_test([=[fault.skips]=] "sh" "-c" "exit 77")
            set_tests_properties([=[fault.skips]=] PROPERTIES SKIP_RETURN_CODE "77")
            add_test([=[fault.last]=] "true")
            """)

    def test_leaves_the_logs_of_the_build_folder_alone(self):
        self.write_build()
        (self.folder / "Testing" / "Temporary").mkdir(parents=True)
        self.write("Testing/Temporary/LastTest.log", "the run that this is a test of")
        code, output = self.run_program([entry(1, ["fault.first"])], str(self.folder))
        self.assertEqual(code, 0, output)
        code, output = self.run_program([entry(1, ["fault.first"])], "--check-names", str(self.folder))
        self.assertEqual(code, 0, output)
        self.assertEqual([path.name for path in (self.folder / "Testing" / "Temporary").iterdir()], ["LastTest.log"])
        self.assertEqual((self.folder / "Testing" / "Temporary" / "LastTest.log").read_text(encoding="utf-8"),
                         "the run that this is a test of")

    def document(self):
        return (self.folder / "document.md").read_text(encoding="utf-8")

    def test_writes_the_table_between_its_marks(self):
        code, output = self.run_table([entry(1, ["unit.RingTest.*"]),
                                       entry(2, ["conformance.Transport/ConformanceTest.Ech?/*", "fault.needs_root"])])
        self.assertEqual(code, 0, output)
        self.assertIn("2 faults, shown by 4 tests: 3 passed, 0 failed, 1 skipped", output)
        document = self.document()
        self.assertIn("| 1 | fault 1 | survived | 1 passed: `RingTest.Full` |", document)
        self.assertIn("| 2 | fault 2 | survived | 2 passed, 1 skipped: `Echo` ×2, `fault.needs_root` |", document)
        self.assertTrue(document.startswith("before\n") and document.endswith("\nafter\n"), document)
        self.assertNotIn("old", document)
        self.assertEqual(self.run_table([entry(1, ["unit.RingTest.*"])])[0], 0)  # once more

    def test_a_failed_test_is_told_and_shown(self):
        code, output = self.run_table([entry(1, ["fault.breaks"])])
        self.assertEqual(code, 1)
        self.assertIn("fault 1: fault.breaks failed", output)
        self.assertIn("1 failed: `fault.breaks`", self.document())

    def test_what_could_not_be_run_has_failed(self):
        code, output = self.run_table([entry(1, ["bench_test_*"])])
        self.assertEqual(code, 1)
        self.assertIn("bench_test_NOT_BUILT failed", output)

    def test_a_pattern_has_to_match_a_whole_name(self):
        for pattern in ("RingTest.Full", "unit.RingTest.Ful", "unit.ringtest.full", "unit.RingTest.Full.*"):
            code, output = self.run_table([entry(1, ["unit.RingTest.Full", pattern])])
            self.assertEqual(code, 1, pattern)
            self.assertIn(f"fault 1: no test has a name like {pattern}", output)

    def test_a_fault_without_test_has_to_say_why(self):
        code, output = self.run_table([entry(1, [])])
        self.assertEqual(code, 1)
        self.assertIn("fault 1: it has no test", output)
        code, output = self.run_table([entry(1, [], missing="needs a second machine")])
        self.assertEqual(code, 0, output)
        self.assertIn("not or not wholly shown: 1", output)
        self.assertIn("**not shown yet:** needs a second machine", self.document())

    def test_a_pattern_with_an_option_is_for_builds_that_have_it(self):
        faults = [entry(1, ["unit.RingTest.Full", "fuzz.ring [SHMRPC_FUZZ]"])]
        code, output = self.run_table(faults)
        self.assertEqual(code, 0, output)
        self.assertIn("not run here: `fuzz.ring [SHMRPC_FUZZ]`", self.document())
        self.write("CMakeCache.txt", "SHMRPC_FUZZ:BOOL=OFF\n")
        self.assertEqual(self.run_table(faults, str(self.folder))[0], 0)
        self.write("CMakeCache.txt", "SHMRPC_FUZZ:BOOL=ON\n")
        code, output = self.run_table(faults, str(self.folder))
        self.assertEqual(code, 1)
        self.assertIn("no test has a name like fuzz.ring [SHMRPC_FUZZ]", output)

    def test_runs_the_tests_of_a_build_folder(self):
        self.write_build()
        code, output = self.run_program([entry(1, ["fault.skips"]), entry(2, ["fault.last"])], str(self.folder))
        self.assertEqual(code, 0, output)
        self.assertIn("2 faults, shown by 2 tests: 1 passed, 0 failed, 1 skipped", output)
        self.assertIn("1 passed: `fault.last`", self.document())
        code, output = self.run_program([entry(1, ["fault.*", "unit.*/Fails.Always/*"])], str(self.folder))
        self.assertEqual(code, 1, output)
        self.assertIn("unit.Case/Fails.Always/1 failed", output)
        self.assertIn("2 passed, 1 failed, 1 skipped: `fault.first`, `fault.skips`, `fault.last`, `Fails.Always`",
                      self.document())

    def test_checks_names(self):
        self.write_build()
        before = self.document()
        arguments = ["--check-names", str(self.folder)]
        code, output = self.run_program([entry(1, ["unit.*/Fails.Always/*", "fuzz.* [SHMRPC_FUZZ]"])], *arguments)
        self.assertEqual(code, 0, output)
        code, output = self.run_program([entry(1, ["fault.first", "fault.second"])], *arguments)
        self.assertEqual(code, 1)
        self.assertIn("fault 1: no test has a name like fault.second", output)
        self.assertEqual(self.document(), before)

    def test_only_prints_lines_and_writes_nothing(self):
        before = self.document()
        code, output = self.run_table([entry(1, ["fault.breaks"]), entry(2, ["unit.RingTest.Full"])], "--only=2")
        self.assertEqual(code, 0, output)
        self.assertIn("| 2 | fault 2 |", output)
        self.assertEqual(self.document(), before)
        self.assertEqual(self.run_table([entry(1, ["unit.RingTest.Full"])], "--only=2")[0], 1)

    def test_malformed_faults(self):
        for faults in ({}, [entry(2, [])], [{"number": 1}], [entry(1, ["two words"])], [entry(1, [7])], [7],
                       [entry(1, ["unit.RingTest.Full"], mising="a word with an error")]):
            code, output = self.run_table(faults)
            self.assertEqual(code, 1, faults)
            self.assertIn("table.py: ", output)

    def test_malformed_results_and_documents(self):
        good = [entry(1, ["unit.RingTest.Full"])]
        self.write("document.md", "no marks")
        self.assertEqual(self.run_table(good)[0], 1)
        self.write("junit.xml", "<testsuite>")
        self.assertEqual(self.run_table(good)[0], 1)

    def test_the_list_of_faults_is_in_order(self):
        faults = table.load_faults(table.FOLDER / "faults.json")
        self.assertEqual(len(faults), 86)
        document = (table.FOLDER.parent.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
        table.insert(document, "")  # has the marks


if __name__ == "__main__":
    unittest.main()
