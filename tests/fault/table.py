#!/usr/bin/env python3
"""Runs the tests that faults.json names, and writes what came out as a table into docs/reliability.md.

faults.json lists what a peer, the kernel or the surroundings may do, what must come out, and the tests that show it.
Each test is one line there, a glob of names as ctest knows them ("*" and "?"), which has to match a whole name:

    "conformance.Transport/ConformanceTest.Size*OverTheServersLimit/*"

A glob may end in an option of the build in brackets: without that option the tests are not known, and not looked for.

    "fuzz.ring [SHMRPC_FUZZ]"

A fault, or a part of it, that no test shows yet has "missing": what is not shown, and why. It stands in the table.
"""

import argparse
import collections
import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

FOLDER = pathlib.Path(__file__).resolve().parent
BEGIN = "<!-- faults: begin; written by tests/fault/table.py, changes here are lost -->"
END = "<!-- faults: end -->"

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class TableError(Exception):
    """Something that keeps the table from being made; its text tells what, and what to do."""


class Pattern:
    """One line of a fault's "tests"."""

    def __init__(self, text):
        match = re.fullmatch(r"(\S+)(?: \[(\w+)\])?", text) if isinstance(text, str) else None
        if match is None:
            raise TableError(f'"{text}" is not a glob of test names, with or without an option in brackets after it')
        self.text = text
        self.option = match.group(2)
        self._regex = re.compile(fnmatch.translate(match.group(1)))

    def matches(self, name):
        return self._regex.match(name) is not None


Fault = collections.namedtuple("Fault", "number group fault outcome patterns missing")

# What the tests of one fault have shown. `tests`: (name, how it ended), in ctest's order. `not_run`: patterns whose
# option the build does not have. `problems`: sentences.
Result = collections.namedtuple("Result", "fault tests not_run problems")


def load_faults(path):
    """The faults of the file, checked."""
    try:
        entries = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"cannot read the faults in {path}: {error}") from error
    if not isinstance(entries, list):
        raise TableError(f"{path} is not a list of faults")
    faults = []
    for position, entry in enumerate(entries, start=1):
        try:
            fault = Fault(number=entry["number"], group=entry["group"], fault=entry["fault"], outcome=entry["outcome"],
                          patterns=[Pattern(text) for text in entry["tests"]], missing=entry.get("missing"))
        except (KeyError, TypeError) as error:
            raise TableError(f"{path}: entry {position} is not a fault: {error!r}") from error
        if fault.number != position:
            raise TableError(f"{path}: entry {position} has the number {fault.number}; numbers count up from 1")
        unknown = set(entry) - {"number", "group", "fault", "outcome", "tests", "missing"}
        if unknown:
            raise TableError(f"{path}: fault {fault.number} has {', '.join(sorted(unknown))}, which means nothing")
        faults.append(fault)
    return faults


def run_ctest(build, arguments):
    """Runs ctest from a folder of its own, where it writes its logs: this may itself be a test of the build folder, whose
    logs are those of the run that it belongs to."""
    tests = str(pathlib.Path(build).resolve())
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "CTestTestfile.cmake").write_text(f"subdirs([=[{tests}]=])\n", encoding="utf-8")
        command = ["ctest", "--test-dir", folder, *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)


def known_tests(build):
    """The names of all tests of a build folder, in ctest's order."""
    ctest = run_ctest(build, ["--show-only=json-v1"])
    if ctest.returncode != 0:
        raise TableError(f"ctest does not list the tests of {build}: exit code {ctest.returncode}")
    return [test["name"] for test in json.loads(ctest.stdout)["tests"]]


def options_that_are_on(build):
    """The options of CMake that the build folder was configured with, and that are ON."""
    cache = pathlib.Path(build, "CMakeCache.txt")
    try:
        text = cache.read_text(encoding="utf-8")
    except OSError as error:
        raise TableError(f"{build} is not a build folder: {error}") from error
    return set(re.findall(r"^(\w+):BOOL=(?:ON|TRUE|1)$", text, flags=re.MULTILINE))


def parse_junit(path):
    """How each test ended, by name, of a file that `ctest --output-junit` has written."""
    try:
        root = xml.etree.ElementTree.parse(path).getroot()
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        raise TableError(f"cannot read the results in {path}: {error}") from error
    outcomes = {}
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.get("status") == "fail":
            outcome = FAILED
        elif case.get("status") == "run":
            outcome = PASSED
        elif case.find("skipped") is not None and "SKIP" in case.find("skipped").get("message", ""):
            outcome = SKIPPED  # by its exit code, or by what it has printed
        else:
            outcome = FAILED  # ctest could not run it: no program, a missing fixture
        outcomes[case.get("name")] = outcome
    return outcomes


def run_tests(build, names, jobs):
    """Runs those tests, and returns how each ended."""
    numbers = {name: number for number, name in enumerate(known_tests(build), start=1)}
    with tempfile.TemporaryDirectory() as folder:
        selection = pathlib.Path(folder, "selection")
        # From 0 to 0 in steps of 0, and these. Without an end of the line the last of them would not count.
        selection.write_text(",".join(["0,0,0", *(str(numbers[name]) for name in names)]) + "\n", encoding="utf-8")
        junit = pathlib.Path(folder, "junit.xml")
        ctest = run_ctest(build, ["-I", str(selection), "--output-junit", str(junit), "--output-on-failure",
                                  "--parallel", str(jobs)])
        sys.stderr.write(ctest.stdout)
        outcomes = parse_junit(junit)
    if set(outcomes) != set(names):
        raise TableError(f"ctest did not run what it was asked to: {sorted(set(outcomes) ^ set(names))}")
    return outcomes


def evaluate(faults, outcomes, options):
    """A Result for each fault. `outcomes`: by the name of the test. `options`: those of the build; None: not known."""
    results = []
    for fault in faults:
        tests, not_run, problems = {}, [], []
        for pattern in fault.patterns:
            found = {name: outcome for name, outcome in outcomes.items() if pattern.matches(name)}
            tests.update(found)
            if found:
                continue
            if pattern.option is not None and (options is None or pattern.option not in options):
                not_run.append(pattern)
            else:
                problems.append(f"no test has a name like {pattern.text}")
        problems += [f"{name} failed" for name, outcome in tests.items() if outcome == FAILED]
        if not tests and fault.missing is None:
            problems.append('it has no test; if that is so for now, say why in "missing"')
        results.append(Result(fault, list(tests.items()), not_run, problems))
    return results


def short_name(name):
    """A test's name without what says where it runs: the folder's prefix, the instantiation, the transport."""
    match = re.fullmatch(r"\w+\.(?:\w+/)?(\w+)\.(\w+)(?:/.*)?", name)
    if match is None:
        return name
    return match.group(2) if match.group(1).startswith("Conformance") else f"{match.group(1)}.{match.group(2)}"


def describe_tests(result):
    """The table's last column."""
    parts = []
    counts = collections.Counter(outcome for _, outcome in result.tests)
    if counts:
        parts.append(", ".join(f"{counts[outcome]} {outcome}" for outcome in (PASSED, FAILED, SKIPPED)
                               if counts[outcome] > 0))
    names = collections.Counter(short_name(name) for name, _ in result.tests)
    if names:
        parts[-1] += ": " + ", ".join(f"`{name}`" + (f" ×{count}" if count > 1 else "")
                                      for name, count in names.items())
    parts += [f"not run here: `{pattern.text}`" for pattern in result.not_run]
    if result.fault.missing is not None:
        parts.append(f"**not shown yet:** {result.fault.missing}")
    return "; ".join(parts).replace("|", r"\|")


def render(results):
    """The table in Markdown, with a heading for each group."""
    lines = []
    group = None
    for result in results:
        fault = result.fault
        if fault.group != group:
            group = fault.group
            lines += ["", f"### {group}", "", "| | fault | outcome | tests |", "|---|---|---|---|"]
        lines.append(f"| {fault.number} | {fault.fault} | {fault.outcome} | {describe_tests(result)} |")
    return "\n".join(lines[1:])


def insert(document, table):
    """The document with the table between its marks, in place of what is there."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise TableError(f'the document needs the lines "{BEGIN}" and "{END}", once each and in this order')
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def complain(results):
    """Prints what is wrong; how much that is."""
    problems = [f"fault {result.fault.number}: {problem}" for result in results for problem in result.problems]
    for problem in problems:
        print(f"table.py: {problem}", file=sys.stderr)
    return len(problems)


def report(results):
    """Prints what is wrong and a last line that sums up; the exit code."""
    problems = complain(results)
    missing = [str(result.fault.number) for result in results if result.fault.missing is not None]
    tests = collections.Counter(outcome for outcome in dict(test for result in results
                                                            for test in result.tests).values())
    print(f"{len(results)} faults, shown by {sum(tests.values())} tests: "
          + ", ".join(f"{tests[outcome]} {outcome}" for outcome in (PASSED, FAILED, SKIPPED))
          + (f"; not or not wholly shown: {', '.join(missing)}" if missing else "")
          + (f"; {problems} problems" if problems else ""))
    return 1 if problems else 0


def check_names(faults, build):
    """Whether ctest knows a test for every pattern; the exit code."""
    known = known_tests(build)
    not_built = sorted({name for name in known if name.endswith("_NOT_BUILT")})
    if not_built:
        print(f"table.py: not built, so their tests are not known: {', '.join(not_built)}", file=sys.stderr)
    problems = complain(evaluate(faults, dict.fromkeys(known, PASSED), options_that_are_on(build)))
    print(f"{sum(len(fault.patterns) for fault in faults)} patterns of {len(faults)} faults, {problems} problems")
    return 1 if problems else 0


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="The exit code is 0 when each fault has a test (or says why not), each "
                                     "pattern matches one, and none failed; otherwise 1, and 2 for wrong usage.")
    parser.add_argument("build", nargs="?", help="a build folder; its tests are run, but with --junit")
    parser.add_argument("--junit", action="append", default=[], metavar="FILE",
                        help="results of `ctest --output-junit FILE`, instead of running tests; may be repeated")
    parser.add_argument("--check-names", action="store_true",
                        help="only check that each pattern matches a test of the build folder; write nothing")
    parser.add_argument("--only", metavar="NUMBERS", help="run the tests of these faults only, as 21,30; write nothing")
    parser.add_argument("--jobs", type=int, default=1, help="tests at the same time (default: %(default)s)")
    parser.add_argument("--faults", default=FOLDER / "faults.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--document", default=FOLDER.parent.parent / "docs" / "reliability.md", metavar="FILE",
                        help="where the table goes, between two marks (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.build is None and not options.junit:
        parser.error("name a build folder or a file with --junit")
    if options.check_names and (options.build is None or options.junit):
        parser.error("--check-names takes a build folder and no --junit")
    return options


def main(arguments):
    options = parse_arguments(arguments)
    try:
        faults = load_faults(options.faults)
        if options.check_names:
            return check_names(faults, options.build)
        if options.only is not None:
            wanted = set(options.only.split(","))
            faults = [fault for fault in faults if str(fault.number) in wanted]
            if len(faults) != len(wanted):
                raise TableError(f"--only={options.only} names a fault that there is not")
        build_options = options_that_are_on(options.build) if options.build is not None else None
        outcomes = {}
        if options.junit:
            for path in options.junit:
                outcomes.update(parse_junit(path))
        else:
            names = [name for name in known_tests(options.build)
                     if any(pattern.matches(name) for fault in faults for pattern in fault.patterns)]
            if names:
                outcomes = run_tests(options.build, names, options.jobs)
        results = evaluate(faults, outcomes, build_options)
        if options.only is not None:
            print(render(results))
        else:
            document = pathlib.Path(options.document)
            document.write_text(insert(document.read_text(encoding="utf-8"), render(results)), encoding="utf-8")
        return report(results)
    except (TableError, OSError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    os.environ.pop("SHMRPC_TRANSPORT", None)  # tests must not depend on who runs them
    sys.exit(main(sys.argv[1:]))
