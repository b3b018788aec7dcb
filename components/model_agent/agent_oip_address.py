"""Addresses on which the doors of the Open Inference Protocol may listen: this machine's alone."""

from __future__ import annotations

import contextlib
import ipaddress
import socket


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


def is_ours(header: str) -> bool:
    """Whether a Host header names loopback."""
    name, colon, port = header.rpartition(":")
    host = (name if colon and port.isdigit() else header).lower()
    with contextlib.suppress(ValueError):
        return host == "localhost" or bool(ipaddress.ip_address(host.strip("[]")).is_loopback)
    return False
