"""`marram component list|details|restart|stop`: the components of this device, asked over IPC."""

from __future__ import annotations

from pathlib import Path

import click

from nucleus.cli import daemon, exits, output


@click.command("list")
@daemon.option
@output.option
def list_components(root: Path, output_: str) -> None:
    """Lists the components installed on this device with their states."""
    with daemon.connect(root) as ipc:
        found = ipc.call("ListComponents", {})["components"]
    found.sort(key=lambda one: str(one["componentName"]))
    columns = {"COMPONENT": "componentName", "VERSION": "version", "STATE": "state"}
    output.show("components", found, columns, output_)


@click.command("details")
@click.option("-n", "--name", required=True, help="The component's name.")
@daemon.option
@output.option
def details(name: str, root: Path, output_: str) -> None:
    """Shows version, state and configuration of one component."""
    with daemon.connect(root) as ipc:
        found = ipc.call("GetComponentDetails", {"componentName": name})["componentDetails"]
    output.record("component", found, output_)


@click.command("restart")
@click.option("-n", "--names", required=True, help="Names, separated by commas.")
@daemon.option
def restart(names: str, root: Path) -> int:
    """Restarts components of this device."""
    return _each(root, names, "RestartComponent", "restartStatus")


@click.command("stop")
@click.option("-n", "--names", required=True, help="Names, separated by commas.")
@daemon.option
def stop(names: str, root: Path) -> int:
    """Stops components of this device."""
    return _each(root, names, "StopComponent", "stopStatus")


def _each(root: Path, names: str, operation: str, key: str) -> int:
    failed = 0
    with daemon.connect(root) as ipc:
        for name in filter(None, (part.strip() for part in names.split(","))):
            answer = ipc.call(operation, {"componentName": name})
            failed += answer[key] != "SUCCEEDED"
            click.echo(f"{name}: {answer[key]} {answer.get('message', '')}".rstrip())
    return exits.ERROR if failed else exits.OK
