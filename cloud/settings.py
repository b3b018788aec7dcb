"""What a service is started with; what is fixed once for ever is in `cloud.store.founding`."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path

from msgspec import Struct

from cloud.store import founding, pki

_ALWAYS = ("localhost", "127.0.0.1")


class Settings(Struct, frozen=True):
    """How to serve; port 0 takes a free one.

    `names` are host names and addresses that devices use, the first one is advertised; loopback's are always served.
    """

    api_port: int = 8080
    device_port: int = 8443
    mqtt_port: int = 8883
    host: str = "127.0.0.1"
    names: tuple[str, ...] = _ALWAYS

    def advertised(self) -> str:
        """The name that devices are told."""
        return self.served_names()[0]

    def served_names(self) -> tuple[str, ...]:
        """All names of the server's certificate."""
        return tuple(dict.fromkeys((*self.names, *_ALWAYS)))

    def is_local(self) -> bool:
        """Whether only this machine can reach us: then the operator API speaks plain HTTP (design.md 4.6, row 20)."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def init(root: Path, account: str = founding.ACCOUNT, region: str = founding.REGION) -> None:
    """Founds a service in `root`, its server certificate included. Raises as `founding.create` does."""
    founding.create(root, account, region, time.time_ns() // 1_000_000)
    pki.Authority.open(root).issue_server(Settings().served_names())
