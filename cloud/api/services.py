"""What every API route may use: one record, made by the composition root."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from cloud.objects import files
from cloud.store import database, pki


class Endpoints(Struct):
    """Where the service can be reached; filled in when the servers listen, hence the only mutable record here."""

    api: str = ""  # "http://127.0.0.1:8080"
    device: str = ""  # "https://localhost:8443"
    mqtt_host: str = "localhost"
    mqtt_port: int = 0


class Services(Struct, frozen=True, kw_only=True):
    """`clock` gives epoch milliseconds; `notify` wakes the outbox's sender and the broker's principals after a commit.

    `notify` is called from worker threads.
    """

    database: database.Database
    account: str
    region: str
    objects: files.Objects
    endpoints: Endpoints
    notify: Callable[[], None]
    pki: pki.Authority
    clock: Callable[[], int]

    def arn(self, service: str, tail: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{tail}"
