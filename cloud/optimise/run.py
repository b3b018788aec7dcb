"""The whole of `marram model optimise`: from a request to a report and, unless the source wins, a model component."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from cloud.optimise import (
    bench,
    candidates,
    certificates,
    components,
    forms,
    gate,
    golden,
    outcomes,
    picture,
    precision,
    reports,
    runtimes,
    samples,
    scores,
    search,
    targets,
)


class OptimiseError(Exception):
    """Nothing can be optimised; the message says why and what to do."""


class Request(msgspec.Struct, frozen=True):
    """`evaluation` is a file, or None: then the last `held_out` of the calibration set is held out for it.

    `runtimes` are runtimes to be tried beside onnxruntime (words of runtimes.KNOWN, or module:attribute); `forms` are the
    names of the forms to be tried, () for all.
    """

    model: Path
    calibration: Path
    evaluation: Path | None
    held_out: float
    target: targets.Target
    metric: scores.Metric
    bounds: gate.Bounds
    component: components.Component
    out: Path
    plan: search.Plan = search.Plan()
    runtimes: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True):
    """`recipe` and `artifacts` are None when the source won; `best` is the pick's outcome, then the source's."""

    figures: outcomes.Figures
    best: outcomes.Outcome
    report: Path
    picture: Path
    recipe: Path | None
    artifacts: Path | None


class Workshop:
    """Lab of a search: forms are made when first asked for, each runtime is probed once for each of its settings."""

    def __init__(self, maker: forms.Maker, tester: bench.Bench) -> None:
        self._maker, self._bench = maker, tester
        self._probed: dict[tuple[str, runtimes.Settings], str] = {}

    def enter(self, candidate: candidates.Candidate) -> bench.Running:
        return self._bench.start(candidate, self._maker.file(candidate.form))

    def probed(self, candidate: candidates.Candidate) -> str:
        key = (candidate.runtime, candidate.settings)
        if key not in self._probed:
            self._probed[key] = precision.probed(candidate)
        return self._probed[key]


def optimise(
    request: Request,
    told: Callable[[str], None] = lambda line: None,
    opened: Callable[[forms.Maker, bench.Bench], search.Lab] = Workshop,
) -> Result:
    """Searches, reports and writes; `told` hears a line for each candidate, `opened` makes the lab.

    Raises OptimiseError, samples.SamplesError, scores.ScoreError, components.ComponentError.
    """
    _check(request)
    source = _source(request.model)
    calibration, held = _sets(request, source.inputs)
    request.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="marram-") as name:
        maker = forms.Maker(request.model, calibration, Path(name))
        lab = opened(maker, bench.Bench(held, Path(name)))
        listed = candidates.listed(request.target, request.runtimes, request.forms)
        looking = search.Search(lab, request.metric, held, request.bounds, request.target, request.plan, told)
        try:
            figures = looking.run(listed)
        except (forms.FormError, bench.BenchError) as error:
            raise OptimiseError(f"cannot measure {request.model}: {error}") from error
        best = figures.named(figures.best) if figures.best else figures.source
        made: tuple[Path | None, Path | None] = (None, None)
        if figures.best:
            chosen = next(one for one in listed if one.name == figures.best)
            made = _component(request, figures, maker.file(chosen.form), chosen, source, calibration, held)
    report, drawn = request.out / "report.json", request.out / "report.png"
    digests = _digests(request, calibration, held)
    report.write_bytes(reports.write(figures, request.target, request.bounds, digests, maker.layers))
    drawn.write_bytes(picture.draw(figures, request.target, request.bounds, request.model.name))
    return Result(figures, best, report, drawn, *made)


def _component(
    request: Request,
    figures: outcomes.Figures,
    file: Path,
    chosen: candidates.Candidate,
    source: runtimes.Session,
    calibration: samples.Samples,
    held: samples.Samples,
) -> tuple[Path, Path]:
    best, data = figures.named(figures.best), file.read_bytes()
    session = runtimes.find(chosen.runtime).load(file, chosen.settings)
    component, now = request.component, datetime.datetime.now(datetime.UTC)
    described = golden.describe(
        component.alias,
        component.version,
        components.MODEL,
        data,
        session,
        (best.runtime, best.runtime_version),
        best.settings,
        golden.take(held, source),
    )
    digests = _digests(request, calibration, held) | {"model": hashlib.sha256(data).hexdigest()}
    files = {
        components.MODEL: data,
        components.DESCRIPTION: described,
        components.CERTIFICATE: certificates.write(best, figures, request.bounds, digests, now),
    }
    return components.write(request.out, component, request.target, files)


def _check(request: Request) -> None:
    architecture, here = request.target.architecture, targets.here()
    if architecture != here:
        raise OptimiseError(
            f"cannot measure for {request.target.name}: it is {architecture}, this machine is {here}; run it there"
        )
    if not 0 <= request.bounds.margin < 1:
        raise OptimiseError(f"cannot accept a margin of {request.bounds.margin:g}: it is a part, from 0 to below 1")
    for name in {request.target.runtime, *request.runtimes}:
        try:
            runtimes.find(name)
        except runtimes.RuntimeMissingError as error:
            raise OptimiseError(f"cannot use the runtime {name}: {error}") from error
    if shutil.disk_usage(tempfile.gettempdir()).free < 20 * request.model.stat().st_size:
        raise OptimiseError(f"cannot make the forms of {request.model}: too little room in {tempfile.gettempdir()}")


def _source(model: Path) -> runtimes.Session:
    try:
        return runtimes.OnnxRuntime().load(model, runtimes.Settings())
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise OptimiseError(f"cannot load {model}: {' '.join(str(error).split())[:300]}") from error


def _sets(request: Request, wanted: tuple[runtimes.Tensor, ...]) -> tuple[samples.Samples, samples.Samples]:
    calibration = samples.read(request.calibration, wanted)
    if request.evaluation is None:
        return samples.split(calibration, request.held_out)
    held = samples.read(request.evaluation, wanted)
    if held.digest == calibration.digest:
        raise OptimiseError(
            "cannot judge on the samples that calibrate: give an evaluation set of its own, or a part to be held out"
        )
    return calibration, held


def _digests(request: Request, calibration: samples.Samples, held: samples.Samples) -> dict[str, str]:
    source = hashlib.sha256(request.model.read_bytes()).hexdigest()
    return {"source": source, "calibration": calibration.digest, "evaluation": held.digest}
