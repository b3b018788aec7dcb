"""`marram watch DEPLOYMENT`, and the watching part of `marram deploy`: until it has ended on every device."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import click
import msgspec
from rich import console

from cloud.cli import progress, view
from cloud.cli import session as sessions
from nucleus.cli import exits, output

_LOOK_S = 0.2  # between two looks at the devices
_FORGIVEN_S = 20.0  # how long the service may be away while we watch


@click.command()
@click.argument("deployment_id", metavar="DEPLOYMENT")
@click.option("--timeout", "timeout_s", default=0.0, metavar="SECONDS", help="Stop watching then (exit code 4).")
@sessions.option
@output.option
def watch(deployment_id: str, timeout_s: float, root: Path | None, output_: str) -> int:
    """Watches a deployment until it has ended on every device; exit codes as those of deploy."""
    session = sessions.open_session(root)
    deployed = session.client("greengrassv2").get_deployment(deploymentId=deployment_id).get("components", {})
    out = console.Console(stderr=output_ == "json")
    standing, code = follow(session, deployment_id, out, frozenset(deployed), timeout_s)
    conclude(out, standing, code)
    if output_ == "json":
        output.record("deployment", {**msgspec.to_builtins(standing), "exitCode": code}, output_)
    return code


def follow(
    session: sessions.Session, deployment_id: str, out: console.Console, names: frozenset[str], timeout_s: float = 0
) -> tuple[progress.Standing, int]:
    """Shows a deployment until it has ended on every device; gives the last standing and the exit code."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s if timeout_s else None
    standing, seen_at = progress.Standing(deployment_id, "ACTIVE"), time.monotonic()
    with view.View(out, names) as show:
        while True:
            try:
                standing, seen_at = progress.read(session, deployment_id), time.monotonic()
            except exits.Failure as failure:
                # A restart of the service is no reason to lose sight of a deployment that goes on.
                if failure.code != exits.ERROR or time.monotonic() - seen_at > _FORGIVEN_S:
                    raise
            show(standing)
            if standing.ended:
                return standing, progress.exit_code(standing)
            if deadline is not None and time.monotonic() >= deadline:
                return standing, exits.TIMED_OUT
            pause.wait(_LOOK_S)


def conclude(out: console.Console, standing: progress.Standing, code: int) -> None:
    """Tells how a deployment ended, each reason of a failure once."""
    if not standing.devices:
        out.print("No device is in the target yet; whoever joins gets this revision.", highlight=False)
        return
    if code == exits.TIMED_OUT:
        waiting = ", ".join(device.thing for device in standing.devices if not device.ended)
        out.print(f"Stopped watching; not ended on {waiting}. The deployment goes on.", style="yellow")
    for cause, things in progress.causes(standing.devices):
        out.print(f"Failed on {', '.join(things)}: {cause}", style="red", markup=False, highlight=False, soft_wrap=True)
    good = sum(device.succeeded for device in standing.devices)
    out.print(f"{good} of {len(standing.devices)} devices succeeded.", highlight=False)
