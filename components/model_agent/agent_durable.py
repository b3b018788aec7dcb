"""Small JSON files that are either the old or the new content after any crash; one that cannot be read is put aside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(path: Path, content: Any) -> None:
    """Replaces the file: write new, fsync, rename, fsync the folder. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(content, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> Any:
    """The content; None if there is no such file. Raises ValueError for one that is damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def put_aside(path: Path, why: object) -> str:
    """Moves a damaged file out of the way, never overwrites it silently; returns a line for the log."""
    aside = path.with_name(f"{path.name}.unreadable")
    path.replace(aside)
    return f"{path.name} could not be read ({why}); kept as {aside.name}, starting empty"
