"""`make conformance`: runs tests/conformance and says, number by number, which behaviours of the original hold here.

The numbers are those of the specification's conformance list. A test carries its number in its name, `test_NN_…`; a
strict xfail names the issue that will turn it. With `--list` nothing is run. Exit code 1 if a test failed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[1]
FOLDER = Path("tests/conformance")
LAST = 71
MAX_XFAIL = 10

# What of a behaviour cannot exist here, with the reason. The rest of the same number is tested.
NOT_APPLICABLE = {
    23: "plug-in jars and their digests: there is no Java virtual machine in this nucleus",
    70: "Docker components: containers come with an issue of their own; stream manager: a separate component of AWS",
}
# Where a number without a test will come from; a number that has a test is not looked up here.
COMING: dict[int, str] = {}


class Case(Struct, frozen=True):
    """One test function; `outcome` is passed, failed, skipped or xfailed, "" if it was not run."""

    number: int
    name: str
    place: str
    outcome: str = ""
    why: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--list", action="store_true", help="only list the tests, run nothing")
    parser.add_argument("arguments", nargs="*", help="further arguments for pytest, after --")
    options = parser.parse_args()
    cases = listed(ROOT / FOLDER)
    failed = 0
    if not options.list:
        cases, failed = run(cases, options.arguments)
    print(report(cases))
    return 1 if failed else 0


def listed(folder: Path) -> list[Case]:
    """The numbered test functions of a folder, by number."""
    found = []
    for path in sorted(folder.glob("test_*.py")):
        for match in re.finditer(r"^(?:async )?def (test_(\d\d)_\w+)", path.read_text(), re.MULTILINE):
            found.append(Case(int(match[2]), match[1], f"{FOLDER}/{path.name}"))
    return sorted(found, key=lambda one: (one.number, one.place, one.name))


def run(cases: list[Case], arguments: list[str]) -> tuple[list[Case], int]:
    """Runs the folder; returns the cases with their outcomes, and pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", str(FOLDER), f"--junitxml={results}", *arguments]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        outcomes = _outcomes(results)
    return [
        Case(one.number, one.name, one.place, *_worst(outcomes.get((one.place, one.name), []))) for one in cases
    ], code


def _outcomes(results: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(file, function) to the outcomes of its parameters."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for case in ET.parse(results).iter("testcase"):
        place = case.get("classname", "").replace(".", "/") + ".py"
        name = case.get("name", "").partition("[")[0]
        outcome, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                outcome = "failed"
            elif child.tag == "skipped":
                outcome = "xfailed" if child.get("type") == "pytest.xfail" else "skipped"
                why = child.get("message", "")
        found.setdefault((place, name), []).append((outcome, why))
    return found


def _worst(outcomes: list[tuple[str, str]]) -> tuple[str, str]:
    order = ("failed", "xfailed", "skipped", "passed")
    return min(outcomes, key=lambda one: order.index(one[0]), default=("", ""))


def report(cases: list[Case]) -> str:
    """The lines for people: each number with its tests, then the count."""
    lines, held = [], 0
    for number in range(1, LAST + 1):
        mine = [one for one in cases if one.number == number]
        bad = [one for one in mine if one.outcome not in ("passed", "")]
        held += bool(mine) and not bad
        sign = "ok" if mine and not bad else bad[0].outcome if bad else "-"
        if not mine:
            lines.append(f"{number:3}  {sign:8} {COMING.get(number, 'no test yet')}")
        for one in mine:
            lines.append(f"{number:3}  {one.outcome or 'listed':8} {one.place}::{one.name}")
            if one.why:
                lines.append(f"{'':14}{one.why}")
        if number in NOT_APPLICABLE:
            lines.append(f"{'':5}{'n/a':8} {NOT_APPLICABLE[number]}")
    expected = sum(one.outcome == "xfailed" for one in cases)
    missing = [number for number in range(1, LAST + 1) if number not in {one.number for one in cases}]
    lines.append("")
    verb = "hold" if any(one.outcome for one in cases) else "have a test"
    lines.append(f"{held} of {LAST} behaviours {verb}; {len(missing)} have no test yet; {expected} expected failures")
    lines.append(f"not applicable here: parts of {', '.join(str(number) for number in sorted(NOT_APPLICABLE))}")
    if expected > MAX_XFAIL:
        lines.append(f"more than {MAX_XFAIL} expected failures are too many")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
