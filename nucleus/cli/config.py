"""`marram config get`: a component's configuration as it is in force, and where each value came from."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click

from nucleus.cli import daemon, output

_NO_TIME_MS = 1  # the stamp of what counts as older than everything: recipe defaults and the file


@click.command("get")
@click.option("-n", "--name", required=True, help="The component's name.")
@click.option("-k", "--key", default="", metavar="/A/B", help="Only what is at or below this JSON pointer.")
@click.option("--origins", is_flag=True, help="Show who wrote each value, and when.")
@daemon.option
@output.option
def get(name: str, key: str, origins: bool, root: Path, output_: str) -> None:
    """Shows a component's configuration."""
    path = _path(key)
    request: dict[str, Any] = {"componentName": name, "keyPath": path}
    with daemon.connect(root) as ipc:
        if not origins:
            value = ipc.call("GetConfiguration", request)["value"]
            click.echo(output.as_json(value))
            return
        found = ipc.call("marram#GetConfigurationOrigins", request)["values"]
    rows = [
        one | {"key": "/" + "/".join(map(_escaped, one["keyPath"])), "written": _written(one["stampMs"])}
        for one in found
    ]
    output.show("values", rows, {"KEY": "key", "VALUE": "value", "ORIGIN": "origin", "WRITTEN": "written"}, output_)


def _path(pointer: str) -> list[str]:
    """The names of a JSON pointer (RFC 6901); a missing first slash is forgiven."""
    names = pointer.removeprefix("/").split("/") if pointer.strip("/") else []
    return [name.replace("~1", "/").replace("~0", "~") for name in names]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _written(stamp_ms: int) -> str:
    if stamp_ms <= _NO_TIME_MS:
        return ""
    return datetime.datetime.fromtimestamp(stamp_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
