"""Names and addresses of this machine, as far as other machines can use them."""

from __future__ import annotations

import ipaddress
import socket

from nucleus.host import addresses


def test_names_when_asked_then_loopback_and_none_of_one_link_only() -> None:
    found = addresses.names()

    assert {"localhost", "127.0.0.1", "::1"} <= set(found)
    assert "%" not in "".join(found)
    for name in found:
        try:
            assert not ipaddress.ip_address(name).is_link_local
        except ValueError:
            assert name in ("localhost", socket.gethostname())
    assert list(found) == sorted(found)
