"""One client's connection as the MQTT layer sees it: what was agreed at CONNECT, what is owed, how to send and to close."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from cloud.core import access
from cloud.mqtt.broker import limits, messages
from cloud.mqtt.broker import session as sessions
from nucleus.wire import mqtt, mqtt_packets

ALLOW_ALL = access.compile([{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}])


class Wire(Protocol):
    """The socket below: `connection.Connection`, or a fake."""

    def schedule_flush(self) -> None:
        """The link has output: write it at the end of this turn of the loop."""

    def pause(self) -> None:
        """Stop reading from the client."""

    def resume(self) -> None:
        """Read again."""

    def close(self) -> None:
        """Write what is there and close."""


class Receipt:
    """What a publisher is owed for one PUBLISH with QoS 1: a PUBACK when nothing is `pending` any more."""

    __slots__ = ("link", "packet_id", "pending", "reason")

    def __init__(self, link: Link, packet_id: int) -> None:
        self.link = link
        self.packet_id = packet_id
        self.pending = 1
        self.reason = 0

    def release(self) -> None:
        self.pending -= 1
        if self.pending == 0:
            self.link.settle()


class Link:
    """Its task is the loop's: nothing here awaits, nothing here closes while a message is being delivered."""

    __slots__ = (
        "aliases", "assigned", "bounds", "client_id", "closed", "connected", "grants", "heard_at", "holds", "in_flight",
        "keep_alive_s", "maximum_packet_bytes", "output", "output_bytes", "peer", "principal", "receipts", "service",
        "session", "session_id", "version", "will", "wire", "writable",
    )  # fmt: skip

    def __init__(self, wire: Wire, peer: str, principal: str, bounds: limits.Limits, *, service: bool) -> None:
        self.wire = wire
        self.peer = peer
        self.principal = principal
        self.bounds = bounds
        self.service = service
        self.version = 0
        self.client_id = ""
        self.assigned = False
        self.session_id = ""  # of this connection, for presence
        self.session: sessions.Session | None = None
        self.grants = access.Grants(access.Policy(()), {})
        self.will: tuple[messages.Message, int] | None = None  # with its delay in seconds
        self.keep_alive_s = 0
        self.heard_at = 0.0
        self.in_flight = bounds.in_flight_v311
        self.maximum_packet_bytes = 0  # the client's; 0 = it named none
        self.aliases: dict[int, str] | None = None
        self.receipts: deque[Receipt] | None = None
        self.output: list[bytes] = []
        self.output_bytes = 0
        self.writable = True
        self.connected = False
        self.closed = False
        self.holds = 0

    def send(self, data: bytes) -> None:
        """Queues bytes; everything queued in one turn of the loop leaves in one write."""
        if self.closed:
            return
        if not self.output:
            self.wire.schedule_flush()
        self.output.append(data)
        self.output_bytes += len(data)
        if self.output_bytes > self.bounds.output_bytes:
            self.writable = False

    def packet(self, packet: mqtt_packets.Packet) -> None:
        self.send(mqtt.encode(packet, self.version))

    def owe(self, packet_id: int) -> Receipt:
        """Notes a PUBACK that is due; they are sent in the order of the publishes (MQTT 5.0, 4.6)."""
        receipt = Receipt(self, packet_id)
        if self.receipts is None:
            self.receipts = deque()
        self.receipts.append(receipt)
        if len(self.receipts) == self.bounds.receive_maximum:
            self.hold()
        return receipt

    def settle(self) -> None:
        """Sends the PUBACKs that nothing holds back any more."""
        receipts = self.receipts
        if receipts is None or receipts[0].pending:
            return
        was_full = len(receipts) >= self.bounds.receive_maximum
        while receipts and not receipts[0].pending:
            receipt = receipts.popleft()
            self.send(mqtt.puback(receipt.packet_id, receipt.reason, self.version))
        if was_full and len(receipts) < self.bounds.receive_maximum:
            self.release()
        if not receipts:
            self.receipts = None

    def hold(self) -> None:
        """Reads no more from this client until as many `release` calls have come."""
        self.holds += 1
        if self.holds == 1 and not self.closed:
            self.wire.pause()

    def release(self) -> None:
        self.holds -= 1
        if self.holds == 0 and not self.closed:
            self.wire.resume()

    def close(self, reason: int = 0) -> None:
        """Says why, if the client speaks MQTT 5 and is connected, and closes; reason 0 says nothing."""
        if self.closed:
            return
        if reason and self.connected and self.version == mqtt_packets.V5:
            self.packet(mqtt_packets.Disconnect(reason))
        self.closed = True
        self.wire.close()
