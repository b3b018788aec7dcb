"""Whether the pruned search of `marram model optimise` finds what an exhaustive one does, on the real detector.

`python -m tools.optimise_pruning DIR` puts the model, the samples (of the committed video: 20 frames of its first half to
calibrate, its second half to judge) and a target into DIR, searches into DIR/pruned and DIR/exhaustive, and lets the picks of
both and the source take turns. Files that are there stay, so other samples may be put there first, and a search whose report
is there is not done again. `--search pruned` does only that search, `--search none` none. Exit code 1: more than 5 % slower.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cloud.optimise import (
    bench,
    candidates,
    components,
    gate,
    outcomes,
    reports,
    run,
    runtimes,
    samples,
    scores,
    search,
    targets,
)
from tools import vision_assets, vision_models

PRUNED, EXHAUSTIVE, SOURCE = "pruned", "exhaustive", "source"
MODEL, CALIBRATION, EVALUATION, TARGET = "detector.onnx", "calibration.npz", "evaluation.npz", "target.json"
FRAMES, RUNS, WORSE = 20, 5, 1.05
BOUNDS = gate.Bounds(margin=0.03, class_margin=0.1)


class Compared(msgspec.Struct, frozen=True):
    """`picks` are the names of both, `ms` the median of each and of the source, `ratio` pruned to exhaustive, by turns."""

    picks: Mapping[str, str]
    ms: Mapping[str, float]
    ratio: float


def prepare(folder: Path) -> None:
    """What a search asks for, but what is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MODEL).exists():
        (folder / MODEL).write_bytes(vision_assets.expand(vision_assets.DETECTOR.read_bytes()))
    if not ((folder / CALIBRATION).exists() and (folder / EVALUATION).exists()):
        frames = np.stack(vision_models.frames())
        half = len(frames) // 2
        np.savez(folder / CALIBRATION, image=frames[np.linspace(0, half - 1, FRAMES).astype(int)])
        np.savez(folder / EVALUATION, image=frames[half:])
    if not (folder / TARGET).exists():
        (folder / TARGET).write_bytes(msgspec.json.encode(targets.Target("here", targets.here())))


def look(folder: Path, name: str) -> None:
    """One of the two searches, unless its report is there."""
    if (folder / name / "report.json").exists():
        return
    request = run.Request(
        model=folder / MODEL,
        calibration=folder / CALIBRATION,
        evaluation=folder / EVALUATION,
        held_out=0.0,
        target=targets.load(folder / TARGET),
        metric=scores.Metric("detections"),
        bounds=BOUNDS,
        component=components.Component("com.example.Detector", "2.0.0", "detector"),
        out=folder / name,
        plan=search.Plan(exhaustive=name == EXHAUSTIVE),
    )
    found = run.optimise(request, lambda line: print(f"{name}: {line}", flush=True)).figures
    print(f"{name}: {found.measured} of {len(found.outcomes)} candidates measured in {found.seconds:.0f} s", flush=True)


def compare(folder: Path, rounds: int) -> Compared:
    """Both picks and the source in turns. Raises ValueError when the two searches were asked different things."""
    read = {name: _report(folder / name) for name in (PRUNED, EXHAUSTIVE)}
    asked = [(one.digests, one.target, one.bounds, one.machine) for one in read.values()]
    if asked[0] != asked[1]:
        raise ValueError(
            f"cannot compare {folder}: the two reports are of different models, samples, targets or machines"
        )
    if asked[0][0]["source"] != hashlib.sha256((folder / MODEL).read_bytes()).hexdigest():
        raise ValueError(f"cannot compare {folder}: the reports are not of the {MODEL} there")
    held = samples.read(folder / EVALUATION, runtimes.OnnxRuntime().load(folder / MODEL, runtimes.Settings()).inputs)
    with tempfile.TemporaryDirectory(prefix="marram-") as place:
        taken = _turns(bench.Bench(held, Path(place)), _files(folder, read), rounds)
    pairs = zip(taken[PRUNED], taken[EXHAUSTIVE], strict=True)
    return Compared(
        picks={name: one.figures.best or SOURCE for name, one in read.items()},
        ms={name: statistics.median(each) for name, each in taken.items()},
        ratio=statistics.median(own / other for own, other in pairs),
    )


def _report(folder: Path) -> reports.Report:
    return msgspec.json.decode((folder / "report.json").read_bytes(), type=reports.Report)


def _files(folder: Path, read: Mapping[str, reports.Report]) -> dict[str, tuple[candidates.Candidate, Path]]:
    found = {SOURCE: (_candidate(next(iter(read.values())).figures.source), folder / MODEL)}
    for name, one in read.items():
        artifact = folder / name / "artifacts" / one.target.name / components.MODEL
        best = one.figures.named(one.figures.best) if one.figures.best else one.figures.source
        found[name] = (_candidate(best), artifact if one.figures.best else folder / MODEL)
    return found


def _candidate(one: outcomes.Outcome) -> candidates.Candidate:
    return candidates.Candidate(candidates.form(one.form), one.runtime, one.settings)


def _turns(
    tester: bench.Bench, files: Mapping[str, tuple[candidates.Candidate, Path]], rounds: int
) -> dict[str, list[float]]:
    """The median of each turn in milliseconds; who begins changes with every round."""
    running: dict[str, bench.Running] = {}
    taken: dict[str, list[float]] = {name: [] for name in files}
    try:
        for name, (candidate, file) in files.items():
            running[name] = tester.start(candidate, file)
        for at in range(rounds):
            order = list(running)
            for name in order[at % len(order) :] + order[: at % len(order)]:
                taken[name].append(statistics.median(running[name].time(RUNS)))
    finally:
        for one in running.values():
            one.close()
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--search", choices=(PRUNED, EXHAUSTIVE, "both", "none"), default="both")
    parser.add_argument("--rounds", type=int, default=60)
    given: Any = parser.parse_args(arguments)
    prepare(given.folder)
    for name in (PRUNED, EXHAUSTIVE):
        if given.search in (name, "both"):
            look(given.folder, name)
    lacking = [name for name in (PRUNED, EXHAUSTIVE) if not (given.folder / name / "report.json").exists()]
    if lacking:
        print(f"no comparison yet: there is no report of the {lacking[0]} search")
        return 0
    found = compare(given.folder, given.rounds)
    for name, ms in found.ms.items():
        print(f"{name}: {ms:.2f} ms{f', {found.picks[name]}' if name in found.picks else ''}")
    print(f"pruned / exhaustive: {found.ratio:.3f} ({given.rounds} rounds in turns; at most {WORSE} is wanted)")
    return 0 if found.ratio <= WORSE else 1


if __name__ == "__main__":
    sys.exit(main())
