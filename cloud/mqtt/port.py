"""What the service needs of a broker, whichever engine it is: publish, push principals, kick, hear what devices say.

`socket_port.SocketPort` implements it for the embedded broker. Everything delivered through `inbound` is acknowledged by
the service itself: the device gets its PUBACK when the broker has the message on disk or `done()` was called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, runtime_checkable

import msgspec

# Control topics: only the service's own principal may publish there; the broker takes them as orders.
CONTROL_PRINCIPALS = "$marram/broker/principals"
CONTROL_KICK = "$marram/broker/kick"
CONTROL_STATISTICS = "$marram/broker/statistics"
STATISTICS = "$SYS/broker/statistics"  # the answer to CONTROL_STATISTICS

# User properties the broker adds to what it delivers to the service; the last of each name is the broker's own.
CLIENT_ID_PROPERTY = "marram-client-id"
PRINCIPAL_PROPERTY = "marram-principal"
# A user property of what the service publishes: only this client gets the message, whoever else subscribed.
ONLY_PROPERTY = "marram-only"

SERVICE_CLIENT_ID = "$service"
SOCKET_NAME = "broker.sock"

# What devices say here only the service hears.
CONFIDENTIAL = ("$aws/certificates/", "$aws/provisioning-templates/")

# Everything devices may publish to the service (spec/cloud.md 3), and presence.
SERVICE_FILTERS = (
    "$aws/things/+/jobs/#",
    "$aws/things/+/shadow/#",
    "$aws/things/+/greengrassv2/health/json",
    "$aws/certificates/#",
    "$aws/provisioning-templates/#",
    "$aws/events/presence/#",
)


class PrincipalRecord(msgspec.Struct, frozen=True):
    """One certificate: what it may do and until when; `not_after_ms` is epoch milliseconds."""

    things: tuple[str, ...]
    policies: tuple[str, ...]
    active: bool
    not_after_ms: int


class Snapshot(msgspec.Struct, frozen=True):
    """All principals by the lower-case hexadecimal SHA-256 of their certificate's DER, and the policies they name."""

    version: int
    policies: dict[str, dict[str, Any]]
    principals: dict[str, PrincipalRecord]


class Inbound(msgspec.Struct, frozen=True):
    """A message for the service; `client_id` and `principal` are the broker's word. Call `done` when it is dealt with."""

    topic: str
    payload: bytes
    client_id: str
    principal: str
    done: Callable[[], None]


class BrokerUnavailableError(Exception):
    """The broker did not take the message in time; it may or may not have been delivered."""


@runtime_checkable
class BrokerPort(Protocol):
    """The service's side of the broker."""

    async def publish(self, topic: str, payload: bytes, qos: int = 1, *, only: str = "") -> None:
        """With QoS 1 returns when the broker has taken responsibility; raises BrokerUnavailableError after 10 s.

        `only` is the one client that may get the message, "" for every subscriber.
        """

    async def push(self, snapshot: Snapshot) -> None:
        """Hands over the principals; a newer snapshot replaces one that is still waiting. Repeated on reconnect."""

    async def kick(self, client_id: str) -> None:
        """Ends the client's connection; its session stays."""

    @property
    def inbound(self) -> AsyncIterator[Inbound]:
        """Everything published by devices to the service's topics, and presence."""
