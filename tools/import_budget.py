"""Installs the wheel as a device would and measures what starting costs: `python -m tools.import_budget`.

Builds the wheel, installs it with the device dependencies only into an empty virtual environment and into one that also
holds rich and structlog, then looks in both: the daemon loads nothing forbidden (tests/rules/test_import_budget.py),
`marram --help` costs at most 8 bare interpreter starts. Needs the package index once, or `--find-links DIR`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORBIDDEN = (
    "boto3",
    "botocore",
    "rich",
    "numpy",
    "onnxruntime",
    "cryptography",
    "pydantic",
    "structlog",
    "unittest",
    "click",
)
STARTS = 8  # bare interpreter starts that `marram --help` may cost
RUNS = 15
_LIST = "import nucleus.app, json, sys; print(json.dumps(sorted(sys.modules)))"
_PEAK = "import nucleus.app, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def main() -> int:
    """Prints the figures; 1 if a budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--find-links", default="", help="Folder of wheels to install from instead of the index.")
    source = parser.parse_args().find_links
    broken = 0
    with tempfile.TemporaryDirectory(prefix="marram-budget-") as folder:
        wheel = _build(Path(folder))
        for label, extra in (
            ("device dependencies only", ()),
            ("with rich and structlog beside it", ("rich", "structlog")),
        ):
            python = _install(Path(folder) / f"venv-{len(extra)}", [str(wheel), *extra], source)
            broken += _daemon(label, python) + _help(label, python)
    return 1 if broken else 0


def _build(folder: Path) -> Path:
    """Builds from a copy: setuptools leaves a build folder behind, whose old modules would get into the next wheel."""
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("nucleus", "cloud"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(copy)])
    return next(folder.glob("marram-*.whl"))


def _install(folder: Path, what: Sequence[str], source: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    offline = ["--no-index", "--find-links", source] if source else []
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *offline, *what])
    return python


def _daemon(label: str, python: Path) -> int:
    loaded = set(json.loads(_run([str(python), "-c", _LIST])))
    found = sorted(loaded & set(FORBIDDEN))
    peak_mib = int(_run([str(python), "-c", _PEAK])) / 1024
    print(
        f"nucleus.app, {label}: {len(loaded)} modules, peak {peak_mib:.1f} MiB, forbidden: {', '.join(found) or 'none'}"
    )
    return len(found)


def _help(label: str, python: Path) -> int:
    bare_ms, help_ms = _median_ms([str(python), "-c", "pass"], [str(python.with_name("marram")), "--help"])
    ratio = help_ms / bare_ms
    print(
        f"marram --help, {label}: {help_ms:.0f} ms, {ratio:.1f} bare starts of {bare_ms:.0f} ms (median of {RUNS}, <= {STARTS})"
    )
    return int(ratio > STARTS)


def _median_ms(*commands: Sequence[str]) -> list[float]:
    """Of each command; they take turns, so that a neighbour on the machine meets both alike."""
    taken: list[list[float]] = [[] for _ in commands]
    for _ in range(RUNS):
        for command, times in zip(commands, taken, strict=True):
            began = time.perf_counter()
            _run(command)
            times.append((time.perf_counter() - began) * 1000)
    return [statistics.median(times) for times in taken]


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        sys.exit(f"cannot run {' '.join(command)}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
