"""Opens a store of captures, unless another agent still has it: the one for samples, or that of Edge Manager's door.

During an agent's update two agents run for a moment; a lock on the folder (flock, gone with the process) decides. Of the
samples the configuration `captures` of the agent's recipe tells, as JSON in MARRAM_CAPTURES:

    {"directory": "samples", "prefix": "", "fleet": "default", "diskBytes": 268435456}
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_capture
import agent_capture_files
import agent_capture_ids
import agent_settings

DISK_BYTES = 256 * 1024 * 1024
_BOUNDS = agent_capture.Bounds()
_LEAST_BYTES = 64 * 1024
EMBED_BYTES = 3072  # Edge Manager's own bound
_LOCK = ".lock"
_IDS_KEPT = 10_000
_BYTES_PER_ID = 1024  # of the store for each id: a seventh of a small store at most
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")  # of a path


@dataclass(frozen=True)
class Where:
    """The store: `folder`, below it `below` (prefix and fleet); for `device`, `disk_bytes` at most.

    What is in a `transit` one is on its way: nothing goes by the bound, and it is saved only when it is elsewhere. One that
    `remembers` knows the ids of what it sent, over restarts.
    """

    folder: Path
    below: str
    device: str
    disk_bytes: int
    embed_bytes: int = EMBED_BYTES
    bounds: agent_capture.Bounds = _BOUNDS
    transit: bool = False
    remembers: bool = False

    @property
    def root(self) -> Path:
        """Where the models' folders are."""
        return self.folder / self.below


def read(given: Mapping[str, Any]) -> Where:
    """Raises agent_settings.SettingsError."""
    directory, fleet, prefix = (
        given.get(key) or default for key, default in (("directory", "samples"), ("fleet", "default"), ("prefix", ""))
    )
    if not all(isinstance(value, str) and "\0" not in value for value in (directory, fleet, prefix)):
        raise agent_settings.SettingsError("captures: directory, prefix and fleet must be texts")
    parts = [*filter(None, prefix.split("/")), fleet]
    for part in parts:
        if not PART.fullmatch(part):
            raise agent_settings.SettingsError(f"captures: {part!r} cannot be part of a path; see prefix and fleet")
    disk = given.get("diskBytes", DISK_BYTES)
    if isinstance(disk, bool) or not isinstance(disk, int | float) or not _LEAST_BYTES <= disk <= 2**50:
        raise agent_settings.SettingsError(f"captures: diskBytes is {disk!r}, it must be at least {_LEAST_BYTES}")
    device = os.environ.get("AWS_IOT_THING_NAME", "") or socket.gethostname()
    return Where(Path(directory), "/".join(parts), device, int(disk))


def open_store(where: Where, stack: contextlib.ExitStack) -> agent_capture.Capture | None:
    """The store, closed and given away with `stack`; None while another process has it. Raises OSError."""
    where.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(where.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    stack.callback(os.close, descriptor)
    where.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    sent, disk_bytes = None, where.disk_bytes
    if where.remembers:
        keep = max(min(_IDS_KEPT, disk_bytes // _BYTES_PER_ID), 1)
        sent = agent_capture_ids.Ids(where.root / ".sent", keep)
        disk_bytes -= 2 * keep * agent_capture_ids.LINE_BYTES
    files = agent_capture_files.Files(where.root, where.device, disk_bytes, where.embed_bytes, evicts=not where.transit)
    here = agent_capture.UNDER_WAY if where.transit else agent_capture.SAVED
    store = agent_capture.Capture(files, where.bounds, here=here, sent=sent)
    stack.callback(store.close)
    return store
