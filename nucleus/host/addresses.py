"""The names and addresses under which other machines reach this one."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket

import psutil

LIMIT = 64
_NAME = re.compile(r"[\w.-]{1,253}", re.ASCII)


def names() -> tuple[str, ...]:
    """`localhost`, the host's name, and the addresses of its interfaces; none that counts on one link only. Sorted."""
    found = {"localhost", "127.0.0.1", "::1"}
    found |= {name for name in (socket.gethostname(),) if _NAME.fullmatch(name)}
    with contextlib.suppress(OSError):  # a confined process may not ask
        for addresses in psutil.net_if_addrs().values():
            found |= {one.address for one in addresses if _is_reachable(one.family, one.address)}
    return tuple(sorted(found)[:LIMIT])


def _is_reachable(family: int, text: str) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        return not ipaddress.ip_address(text).is_link_local
    except ValueError:  # an IPv6 address with its interface behind `%`
        return False
