"""The Unix socket's file: binding, also below a root whose path is too long for an address (spec/ipc.md 2.2)."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from nucleus.core import errors
from nucleus.host import places

FROM_WORK_FOLDER = "../../ipc.socket"  # a component's working folder is <root>/work/<component>
_PROBE_TIMEOUT_S = 1.0


def exported(path: Path) -> str:
    """The address a component is given: the path itself, or relative to its working folder when it is too long."""
    return str(path) if len(os.fsencode(path)) <= places.SOCKET_PATH_LIMIT else FROM_WORK_FOLDER


def listen(path: Path, backlog: int = 128) -> socket.socket:
    """Binds and listens, readable and writable for all users; replaces the file of a dead predecessor.

    Raises NucleusError IO_ERROR when another process listens there or the path cannot be bound.
    """
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        _with_short_address(path, server.bind)
        path.chmod(0o666)
        server.listen(backlog)
    except OSError as error:
        server.close()
        raise errors.NucleusError("IO_ERROR", f"cannot listen on {path}: {error.strerror or error}") from error
    server.setblocking(False)
    return server


def remove(path: Path) -> None:
    """Removes the file if it is there."""
    with contextlib.suppress(OSError):
        path.unlink()


def _with_short_address(path: Path, use: Callable[[str], None]) -> None:
    """Calls `use` with an address of the path that fits; a folder's descriptor stands for a folder too long to name."""
    if len(os.fsencode(path)) <= places.SOCKET_PATH_LIMIT:
        use(str(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        use(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> None:
    """Removes what a killed predecessor left. Raises OSError when somebody answers there or it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError("there is something else; move it away")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(_PROBE_TIMEOUT_S)
    try:
        _with_short_address(path, probe.connect)
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
        return
    finally:
        probe.close()
    raise OSError("another nucleus listens there; stop it first")
