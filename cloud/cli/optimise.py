"""`marram model optimise`: the fastest form of an ONNX model that is provably as good on this machine, as a component."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click
import msgspec
from rich import console, table, text

from cloud.optimise import candidates, components, gate, outcomes, reports, run, samples, scores, search, targets
from nucleus.cli import exits, output, sign

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_CLASS_MARGIN = 0.1
_WIDE = 200  # characters that the table needs; figures must not be cut
_STYLES = {outcomes.SOURCE: "bold", outcomes.ACCEPTED: "green", outcomes.REFUSED: "red", outcomes.PASSED_OVER: "dim"}
_COLUMNS = (
    "CANDIDATE",
    "STATE",
    "MS",
    "P99",
    "× SOURCE",
    "MB",
    "RAM MB",
    "LOAD MS",
    "ACCURACY",
    "INTERVAL",
    "COMPUTES IN",
)


@click.command()
@click.argument("model", type=_FILE)
@click.option("--calibration", required=True, type=_FILE, help="Samples (.npz) that the ranges of INT8 come from.")
@click.option(
    "--evaluation",
    required=True,
    metavar="FILE|PART",
    help="Samples (.npz) to judge on, in their order; or the part of the calibration set to be held out, such as 0.25.",
)
@click.option("--target", "target_file", required=True, type=_FILE, help="JSON that describes the devices.")
@click.option("--metric", required=True, type=click.Choice(scores.METRICS), help="How answers are compared.")
@click.option("--margin", required=True, type=float, help="The loss of the metric that is allowed, such as 0.03.")
@click.option(
    "--class-margin",
    type=float,
    default=_CLASS_MARGIN,
    show_default=True,
    help="The loss of recall allowed in any class with 30 or more cases.",
)
@click.option("--tolerance", nargs=2, type=float, default=(0.0, 0.0), help="ABSOLUTE RELATIVE, for the metric close.")
@click.option("--block", type=int, default=0, help="Neighbouring samples that depend on each other; default: the root.")
@click.option("--component", required=True, metavar="NAME=VERSION", help="The component to be written.")
@click.option("--alias", required=True, help="The alias that the model serves.")
@click.option("--key", type=_FILE, help="NAME.key to sign with; without one the component is left unsigned.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for all results.")
@click.option("--also-runtime", "runtimes", multiple=True, help="Another runtime to try (openvino); repeatable.")
@click.option(
    "--form",
    "forms",
    multiple=True,
    type=click.Choice([form.name for form in candidates.FORMS[1:]]),
    help="Try only this form of the model; repeatable.",
)
@click.option("--exhaustive", is_flag=True, help="Measure every candidate in full, however hopeless.")
@output.option
def optimise(model: Path, key: Path | None, output_: str, **options: Any) -> int:
    """Searches the forms of MODEL that pay on this machine and writes the best as a component for its target.

    Exit codes: 0 a component was written, 2 the source wins and nothing was written but the report, 1 any error.
    """
    out = console.Console(stderr=output_ == "json", highlight=False, soft_wrap=True)
    request = _request(model, options)
    try:
        result = run.optimise(request, lambda line: out.print(line, markup=False))
    except (run.OptimiseError, samples.SamplesError, scores.ScoreError, components.ComponentError) as error:
        raise exits.Failure(str(error)) from None
    if result.artifacts is not None and key is not None:
        _sign(request.component, result.artifacts, key)
    if output_ == "json":
        output.record("optimisation", _item(result), output_)
    else:
        _show(out, result)
    return exits.OK if result.recipe is not None else exits.UNSATISFIED


def _request(model: Path, options: dict[str, Any]) -> run.Request:
    name, equals, version = options["component"].partition("=")
    if not (name and equals and version):
        raise click.BadParameter(f"{options['component']!r} is not NAME=VERSION")
    evaluation, held_out = _evaluation(options["evaluation"])
    try:
        target = targets.load(options["target_file"])
    except targets.TargetError as error:
        raise exits.Failure(str(error)) from None
    return run.Request(
        model=model,
        calibration=options["calibration"],
        evaluation=evaluation,
        held_out=held_out,
        target=target,
        metric=scores.Metric(options["metric"], *options["tolerance"]),
        bounds=gate.Bounds(options["margin"], options["class_margin"], options["block"]),
        component=components.Component(name, version, options["alias"]),
        out=options["out"],
        plan=search.Plan(exhaustive=options["exhaustive"]),
        runtimes=tuple(options["runtimes"]),
        forms=tuple(options["forms"]),
    )


def _evaluation(given: str) -> tuple[Path | None, float]:
    path = Path(given)
    if path.is_file():
        return path, 0.0
    try:
        part = float(given)
    except ValueError:
        part = 0.0
    if not 0 < part < 1:
        raise click.BadParameter(f"{given!r} is neither a file nor a part between 0 and 1")
    return None, part


def _sign(component: components.Component, folder: Path, key: Path) -> None:
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in components.FILES}
    sign.write((component.name, component.version), digests, key, folder)


def _item(result: run.Result) -> dict[str, Any]:
    files = {"recipe": result.recipe, "artifacts": result.artifacts, "report": result.report, "picture": result.picture}
    told = {name: str(path) if path is not None else "" for name, path in files.items()}
    return {"verdict": reports.verdict(result.figures), "best": result.figures.best, **told} | {
        "figures": msgspec.to_builtins(result.figures)
    }


def _show(out: console.Console, result: run.Result) -> None:
    shown = table.Table(box=None, pad_edge=False, header_style="bold")
    for at, heading in enumerate(_COLUMNS):
        shown.add_column(heading, justify="left" if at < 2 else "right", no_wrap=at != 1)
    for one in sorted(result.figures.outcomes, key=lambda each: each.latency_ms):
        if one.accuracy is not None:
            shown.add_row(*_row(one, one.name == result.figures.best))
    wide = console.Console(file=out.file, width=max(out.width, _WIDE), highlight=False, force_terminal=out.is_terminal)
    wide.print(shown)
    over = sum(one.state == outcomes.PASSED_OVER for one in result.figures.outcomes)
    out.print(f"{over} candidates were passed over. Reasons for all: {result.report}; picture: {result.picture}")
    out.print(reports.verdict(result.figures), markup=False)
    if result.recipe is not None:
        out.print(f"Component: {result.recipe}, artifacts below {result.recipe.parent / 'artifacts'}")


def _row(one: outcomes.Outcome, best: bool) -> list[text.Text | str]:
    accuracy = one.accuracy
    assert accuracy is not None, "only what was compared is shown"
    state = one.state + (" (pick)" if best else "") + "".join(f", {each.code}" for each in one.reasons)
    return [
        text.Text(one.name, "bold" if best else ""),
        text.Text(state, _STYLES[one.state]),
        f"{one.latency_ms:.2f}",
        f"{one.p99_ms:.2f}",
        f"{1 / one.ratio:.2f}" if one.ratio else "",
        f"{one.size_bytes / 1e6:.2f}",
        f"{one.memory_bytes / 1e6:.0f}",
        f"{one.load_ms:.0f}",
        f"{accuracy.candidate:.4f}",
        f"{accuracy.source + accuracy.low:.4f}–{accuracy.source + accuracy.high:.4f}",
        one.effective,
    ]
