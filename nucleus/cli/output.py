"""Lists and records on the standard output: aligned text for people, JSON for machines.

The JSON of a list is `{"schemaVersion": 1, "kind": …, "items": […]}`; keys are only ever added (a contract under test).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

SCHEMA_VERSION = 1
Command = TypeVar("Command", bound=Callable[..., Any])


def option(command: Command) -> Command:
    """The option `-o` that every list has, as the parameter `output_`."""
    choice = click.Choice(["table", "json"])
    return click.option("-o", "--output", "output_", type=choice, default="table", help="How to write the answer.")(
        command
    )


def show(kind: str, items: Sequence[Mapping[str, Any]], columns: Mapping[str, str], output: str) -> None:
    """Writes a list; `columns` maps a heading to the key of the item shown under it (dots go deeper)."""
    if output == "json":
        click.echo(as_json({"schemaVersion": SCHEMA_VERSION, "kind": kind, "items": list(items)}))
        return
    if not items:
        click.echo(f"No {kind}.")
        return
    rows = [[_cell(item, key) for key in columns.values()] for item in items]
    for line in aligned([list(columns), *rows]):
        click.echo(line)


def record(kind: str, item: Mapping[str, Any], output: str) -> None:
    """Writes one thing, key by key."""
    if output == "json":
        click.echo(as_json({"schemaVersion": SCHEMA_VERSION, "kind": kind, "item": item}))
        return
    for line in aligned([[f"{key}:", _text(value)] for key, value in item.items()]):
        click.echo(line)


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pads all columns but the last to their widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in padded]


def _cell(item: Mapping[str, Any], key: str) -> str:
    value: Any = item
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return _text(value)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, (Mapping, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=_plain) if value else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _plain(value) if hasattr(value, "isoformat") else str(value)


def _plain(value: Any) -> str:
    """Times as ISO 8601 to the second; boto3 gives datetimes."""
    return str(value.isoformat(timespec="seconds")) if hasattr(value, "isoformat") else str(value)
