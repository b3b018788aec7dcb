"""Plays the vision demo: `python -m tools.demo_vision [--to .demo-vision]`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from rich import console, markup

from cloud.cli import demo_stage
from nucleus.cli import exits, output
from tools.demo_vision import sheet, steps

_REPOSITORY = Path(__file__).resolve().parents[2]
_TERMINATED = 143  # 128 + SIGTERM, as shells have it


def play(folder: Path, out: console.Console) -> steps.Figures:
    """All acts; returns what was measured. Raises nucleus.cli.exits.Failure."""
    figures: steps.Figures = []
    with demo_stage.Stage(folder, _REPOSITORY, out) as stage:
        demo = steps.Demo(stage)
        for number, (title, act) in enumerate(demo.acts(), start=1):
            out.print(f"\n[bold cyan]{number}. {title}[/]")
            figures.extend(act())
        figures.extend(demo.sum_up())
        out.print(f"\n[bold cyan]{len(demo.acts()) + 1}. Stop everything[/]")
        stage.stop()
        made = sheet.make(folder, demo.marks)
        out.print(f"Contact sheet: {made}; all annotated frames: {demo.frames}")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--to", type=Path, default=Path(".demo-vision"), help="folder for all state; emptied at the start"
    )
    folder = parser.parse_args().to.absolute()
    out = console.Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # so that the stage is cleared then, too
    began = time.monotonic()
    try:
        figures = play(folder, out)
    except exits.Failure as failure:
        out.print(f"\n[bold red]The demo failed:[/] {markup.escape(str(failure))}")
        out.print(f"Logs: {folder}/*.log and {folder}/{steps.THING}/logs")
        return failure.code
    out.print("\n[bold]What was measured[/]")
    for line in output.aligned([*figures, ("whole demo", f"{time.monotonic() - began:.1f} s")]):
        out.print(f"  {line}", markup=False)
    return exits.OK


if __name__ == "__main__":
    sys.exit(main())
