"""Captures as lines and files of tensors (pure): Edge Manager's records, and what is read of a line again."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

BLOCK = 4096  # what a file takes at least


@dataclass(frozen=True)
class Item:
    """A tensor or an auxiliary: its bytes, and what they are; `encoding` CSV and JSON are embedded as text."""

    name: str
    content_type: str
    data: bytes
    encoding: str = "BASE64"


@dataclass(frozen=True)
class Record:
    """One capture: `identity` is a UUID, `at` the time of the inference in epoch seconds, `model` an alias.

    `more` goes into the metadata of its line.
    """

    model: str
    identity: str
    at: float
    inputs: tuple[Item, ...]
    outputs: tuple[Item, ...]
    more: tuple[tuple[str, str], ...] = ()


@dataclass
class Line:
    """A record in bytes; `files` are what it names."""

    text: bytes
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        return len(self.text) + sum(cost_of(len(data)) for data in self.files.values())


def line_of(record: Record, device: str, tensors: str, embed_bytes: int) -> Line:
    """The record in bytes; what is larger than `embed_bytes` goes into files in the folder `tensors`."""
    line = Line(b"")
    moment = datetime.fromtimestamp(record.at, UTC).isoformat(timespec="milliseconds")
    meta = {"eventId": record.identity, "deviceId": device, "modelName": record.model}

    def items(side: str, given: tuple[Item, ...]) -> list[dict[str, Any]]:
        names = (f"{tensors}/{record.identity}.{side}{index}" for index in range(len(given)))
        return [_item(each, name, line, embed_bytes) for each, name in zip(given, names, strict=True)]

    text = {
        "eventMetadata": {**meta, "inferenceTime": moment.replace("+00:00", "Z"), **dict(record.more)},
        "deviceFleetInputs": items("input", record.inputs),
        "deviceFleetOutputs": items("output", record.outputs),
    }
    return dataclasses.replace(line, text=json.dumps(text, separators=(",", ":")).encode() + b"\n")


def read(line: bytes, named: set[str]) -> str:
    """The id in a whole line, "" for half a one; adds the files that it names."""
    try:
        given = json.loads(line) if line.endswith(b"\n") else {}
        items = (*given["deviceFleetInputs"], *given["deviceFleetOutputs"])
        identity = str(given["eventMetadata"]["eventId"])
    except (ValueError, KeyError, TypeError):
        return ""
    named.update(str(item["file"]) for item in items if "file" in item)
    return identity


def cost_of(size: int) -> int:
    """What a file of so many bytes takes."""
    return -(-size // BLOCK) * BLOCK


def _item(item: Item, file: str, line: Line, embed_bytes: int) -> dict[str, Any]:
    described = {"name": item.name, "observedContentType": item.content_type, "encoding": item.encoding}
    if len(item.data) > embed_bytes:
        line.files[file] = item.data
        return {**described, "file": file}
    if item.encoding in ("CSV", "JSON"):
        with contextlib.suppress(UnicodeDecodeError):
            return {**described, "data": item.data.decode()}
    return {**described, "encoding": "BASE64", "data": base64.b64encode(item.data).decode()}
