"""Addresses on which the doors of the Open Inference Protocol may listen: this machine's alone.

Two processes of the agent may listen at one address while one takes over from the other (agent_takeover.py): TCP ports by
SO_REUSEPORT, and for that reason `free` says beforehand that nobody else does; Unix sockets are bound beside their path and
moved there, so that there is always one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path


class AddressError(OSError):
    """An address on which this door does not listen; the message says why."""


def loopback(address: str) -> tuple[str, int]:
    """(host, port) of `127.0.0.1:8000`, `[::1]:8000` or `localhost:8000`; raises AddressError for any other host."""
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    valid = port.isascii() and port.isdigit() and int(port[:6]) < 65536
    try:
        own = bool(ipaddress.ip_address(host).is_loopback)
    except ValueError:
        own = False
    if not own or not valid:
        raise AddressError(f"{address!r} is no address for a door: use 127.0.0.1:PORT, [::1]:PORT or unix:PATH")
    return host, int(port)


def family(host: str) -> socket.AddressFamily:
    """That of an address that `loopback` returned."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def free(address: str) -> None:
    """Raises OSError if somebody listens on this TCP address; Unix sockets are taken from whoever has them."""
    if address.startswith("unix:"):
        return
    host, port = loopback(address)
    with socket.socket(family(host), socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((host, port))


def place(path: str, bind: Callable[[str], None]) -> int:
    """Lets `bind` make a listening Unix socket that ends up at `path`, for this user only; returns its inode. Raises OSError."""
    target = Path(path)
    if target.exists() and not stat.S_ISSOCK(target.stat().st_mode):
        raise AddressError(f"{path} exists and is no socket")
    beside = Path(f"{path}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        bind(str(beside))
    finally:
        os.umask(before)
    inode = beside.stat().st_ino
    beside.replace(target)
    return inode


def leave(path: str, inode: int) -> None:
    """Removes the socket that `place` made, if it is still there and not a successor's."""
    target = Path(path)
    with contextlib.suppress(OSError):
        if target.stat().st_ino == inode:
            target.unlink()


def is_ours(header: str) -> bool:
    """Whether a Host header names loopback."""
    name, colon, port = header.rpartition(":")
    host = (name if colon and port.isdigit() else header).lower()
    with contextlib.suppress(ValueError):
        return host == "localhost" or bool(ipaddress.ip_address(host.strip("[]")).is_loopback)
    return False
