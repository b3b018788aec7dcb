"""`marram demo`: two wind turbines, a service, three components; a model swapped, a damaged one refused, a nucleus killed."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich import console, markup

from cloud.cli import demo_stage, demo_steps, listen
from nucleus.cli import exits, output

_REPOSITORY = Path(__file__).parents[2]
_TERMINATED = 143  # 128 + SIGTERM, as shells have it


@click.command()
@click.option(
    "--to",
    "folder",
    default=".demo",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for all state; removed at the start.",
)
def demo(folder: Path) -> int:
    """Shows the whole system on this machine in a minute: no root, no Docker, no account, no network."""
    if not (_REPOSITORY / "recipes").is_dir():
        raise exits.Failure(
            "cannot play the demo: its recipes are in the repository; run it in a clone, with `make demo`"
        )
    out = console.Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # so that the stage is cleared then, too
    began = time.monotonic()
    try:
        figures = _play(folder.absolute(), out)
    except exits.Failure as failure:
        out.print(f"\n[bold red]The demo failed:[/] {markup.escape(str(failure))}")
        out.print(f"Logs: {folder}/*.log and {folder}/turbine-*/logs")
        return failure.code
    _summarise(out, [*figures, ("whole demo", f"{time.monotonic() - began:.1f} s")])
    return exits.OK


def _play(folder: Path, out: console.Console) -> demo_steps.Figures:
    figures: demo_steps.Figures = []
    with demo_stage.Stage(folder, _REPOSITORY, out) as stage:

        def act(number: int, title: str, step: Callable[[], demo_steps.Figures]) -> None:
            out.print(f"\n[bold cyan]{number}. {title}[/]")
            figures.extend(step())

        act(1, "A deployment service, a group and two devices", lambda: demo_steps.found_the_cloud(stage))
        act(2, "Two nuclei, one per turbine", lambda: demo_steps.start_the_nuclei(stage))
        act(3, "Publish the components", lambda: demo_steps.publish(stage))
        with listen.connect(folder / "listener") as listener:
            listener.subscribe("turbines/#")
            act(4, "Deploy to the group and hear the first alarms", lambda: demo_steps.deploy_all(stage, listener))
        act(5, "Change only the model: nobody restarts", lambda: demo_steps.change_the_model(stage))
        act(6, "A damaged model: refused and rolled back", lambda: demo_steps.refuse_a_damaged_model(stage))
        act(
            7,
            "What the agents kept, and whether the stream is what the model knows",
            lambda: demo_steps.look_at_the_stream(stage),
        )
        act(8, "A new monitor, and kill -9 of a nucleus at the worst moment", lambda: demo_steps.kill_a_nucleus(stage))
        figures.extend(demo_steps.weigh(stage))
        out.print("\n[bold cyan]9. Stop everything[/]")
        killed = stage.stop()
        figures.append(("processes that had to be killed at the end", str(killed)))
    return figures


def _summarise(out: console.Console, figures: demo_steps.Figures) -> None:
    out.print("\n[bold]What was measured[/]")
    for line in output.aligned(figures):
        out.print(f"  {line}", markup=False)
