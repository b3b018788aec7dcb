"""The machine a model is made for: `{"name", "architecture", "runtime", "threads", "memoryBytes", "latencyMs"}`."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import msgspec

_MACHINES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7l": "arm",
    "i686": "x86",
}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")


class TargetError(ValueError):
    """A target's description cannot be used; the message names the key."""


class Target(msgspec.Struct, frozen=True, rename="camel"):
    """`architecture` is a recipe's (x86, amd64, arm, aarch64); the limits are what one model may take there, 0 for none.

    `runtime` is the one that will serve. `threads` is how many one session may use. `platform` are more attributes that its
    devices have (their nucleus's `platformOverride`), where the architecture does not tell two targets apart.
    """

    name: str
    architecture: str = "amd64"
    runtime: str = "onnxruntime"
    threads: int = 1
    memory_bytes: int = 0
    latency_ms: float = 0.0
    platform: dict[str, str] = {}


def read(data: bytes) -> Target:
    """The target in JSON. Raises TargetError."""
    try:
        found = msgspec.json.decode(data, type=Target)
    except msgspec.DecodeError as error:
        raise TargetError(f"cannot read the target: {error}") from error
    if not _NAME.fullmatch(found.name):
        raise TargetError(f"cannot use the target: its name {found.name!r} is no word of letters, digits, - and _")
    if not 1 <= found.threads <= 64:
        raise TargetError(f"cannot use the target: threads is {found.threads}, it must be 1 to 64")
    if found.memory_bytes < 0 or found.latency_ms < 0:
        raise TargetError("cannot use the target: memoryBytes and latencyMs are limits, not below 0")
    return found


def load(path: Path) -> Target:
    """The target in a file. Raises TargetError."""
    return read(path.read_bytes())


def here() -> str:
    """This machine's architecture in a recipe's word; its own where there is none."""
    return _MACHINES.get(platform.machine().lower(), platform.machine().lower())
