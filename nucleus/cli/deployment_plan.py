"""`marram deployment plan` and `explain`: what a deployment would do, and why the device has what it has."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from nucleus.cli import daemon, deployment, output

_PLAN_WITHIN_S = 60.0  # the cloud is asked for versions


@click.command("plan")
@daemon.option
@deployment.asking
@output.option
def plan(root: Path, output_: str, **options: Any) -> None:
    """Shows what a local deployment would download, stop, start and remove, in this order, and why. Touches nothing."""
    wanted = deployment.request(**options)
    with daemon.connect(root) as ipc:
        found = ipc.call("marram#PlanLocalDeployment", wanted, timeout_s=_PLAN_WITHIN_S)
    if output_ == "json":
        output.record("deploymentPlan", found, output_)
        return
    for line in _plan_lines(found):
        click.echo(line)


@click.command("explain")
@click.option("-n", "--name", default="", help="Only this component.")
@daemon.option
@output.option
def explain(name: str, root: Path, output_: str) -> None:
    """Says for each component of the device why it is there in this version, and who asked for it."""
    with daemon.connect(root) as ipc:
        found = ipc.call("marram#ExplainDeployment", {"componentName": name} if name else {})["components"]
    if output_ == "json":
        output.show("reasons", found, {}, output_)
        return
    if not found:
        click.echo("There are no components on this device.")
    for one in found:
        for line in _reason_lines(one):
            click.echo(line)


def _plan_lines(found: dict[str, Any]) -> Iterator[str]:
    acts = [
        (
            "Download",
            [
                (f"{one['component']} {one['version']}", f"{one['uri']} ({_size(one)}) from {one['source']}")
                for one in found["downloads"]
            ],
        ),
        ("Run the Bootstrap step of", _actions(found["bootstraps"])),
        ("Restart", [("the nucleus", found["restart"])] if found["restart"] else []),
        ("Stop", _actions(found["stops"])),
        ("Start", _actions(found["starts"])),
        ("Remove", _actions(found["removals"])),
    ]
    yield f"A deployment to {found['group']} would, in this order:"
    number = 0
    for verb, each in acts:
        for what, why in each:
            number += 1
            yield f"  {number:>2}. {verb[0].lower()}{verb[1:]} {what}: {why}"
    if not number:
        yield "  do nothing: every component is as wanted"
    known = [one.get("sizeBytes") for one in found["downloads"]]
    if known and None not in known:
        yield f"In all {sum(known)} bytes would be downloaded or copied."
    yield from (f"Warning: {one}" for one in found["warnings"])
    if found["configuration"]:
        yield "Configuration keys that change:"
        yield from (f"  {key}" for key in found["configuration"])
    if found["unchanged"]:
        yield f"Left as they are: {', '.join(found['unchanged'])}"
    yield "Nothing was changed."


def _size(download: dict[str, Any]) -> str:
    size = download.get("sizeBytes")
    return "size unknown" if size is None else f"{size} bytes"


def _actions(actions: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(f"{one['component']} {one['version']}", one["reason"]) for one in actions]


def _reason_lines(one: dict[str, Any]) -> Iterator[str]:
    since = datetime.datetime.fromtimestamp(one["sinceMs"] / 1000, datetime.UTC).isoformat(timespec="seconds")
    yield f"{one['component']} {one['version']}, by {one['origin']}, since {since}"
    yield f"  {one['sentence']}"
    for each in one["refused"]:
        yield f"  not {each['version']}: {each['reason']}"
