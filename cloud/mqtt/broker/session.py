"""One client's session: its subscriptions, the messages it still has to get, and those it has not acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from cloud.core import access
from cloud.mqtt.broker import journal, limits, messages
from nucleus.wire import mqtt, mqtt_packets

_NOTHING: deque[messages.Delivery] = deque(maxlen=0)  # an empty deque costs 760 bytes: all idle sessions share this one


class Outlet(Protocol):
    """What a session needs of a connection: `link.Link`."""

    version: int
    writable: bool
    service: bool
    in_flight: int
    maximum_packet_bytes: int
    grants: access.Grants

    def send(self, data: bytes) -> None:
        """Queues bytes for the client."""

    def hold(self) -> None:
        """Reads no more from the client."""

    def release(self) -> None:
        """Reads again, once per `hold`."""


class Receipt(Protocol):
    """What a publisher is owed: `link.Receipt`."""

    pending: int

    @property
    def link(self) -> Outlet:
        """The publisher."""

    def release(self) -> None:
        """One thing less that the receipt waits for."""


class Counters(msgspec.Struct):
    """What the broker did since it started; dropped messages by the reason."""

    received: int = 0
    delivered: int = 0
    dropped_queue_full: int = 0
    dropped_not_writable: int = 0
    dropped_expired: int = 0
    dropped_denied: int = 0
    dropped_too_large: int = 0
    refused_connections: int = 0
    queued_bytes: int = 0


class Surroundings(msgspec.Struct):
    """What every session shares. `now_ms` is the epoch time, `clock` the loop's, both of the last tick."""

    journal: journal.Journal
    totals: limits.Totals
    counters: Counters
    now_ms: int = 0
    clock: float = 0.0


class Subscription(msgspec.Struct, frozen=True):
    """`key` is the filter as the client wrote it, `filter` and `group` are its parts."""

    key: str
    filter: str
    group: str
    request: mqtt_packets.Request
    identifier: int


class Session:
    """Persistent if `expiry_s` > 0: then every change of its queue goes to the journal."""

    __slots__ = (
        "around", "bounds", "client_id", "ends_at_ms", "expiry_s", "in_flight", "link", "packet_id", "pending_will",
        "progress_at", "queue", "queued_bytes", "service", "slowed", "subscriptions",
    )  # fmt: skip

    def __init__(self, client_id: str, around: Surroundings, bounds: limits.Limits, *, service: bool) -> None:
        self.client_id = client_id
        self.around = around
        self.bounds = bounds
        self.service = service
        self.expiry_s = 0
        self.ends_at_ms = 0  # while off-line
        self.link: Outlet | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.queue = _NOTHING
        self.queued_bytes = 0  # of the queue and of what is in flight
        self.in_flight: dict[int, messages.Delivery] = {}
        self.packet_id = 0
        self.progress_at = 0.0
        self.slowed: list[Outlet] = []  # publishers that wait for us
        self.pending_will: tuple[messages.Message, int] | None = None  # with the time to send it, epoch ms

    def offer(self, message: messages.Message, *, retain: bool, identifiers: tuple[int, ...]) -> None:
        """Sends a message with QoS 0, or drops it: to nobody, or when the socket is full."""
        counters, to = self.around.counters, self.link
        if to is None or not to.writable:
            counters.dropped_not_writable += 1
            return
        if not self._may_receive(to, message):
            return
        head, tail = messages.parts(
            message, version=to.version, qos=0, retain=retain, identifiers=identifiers,
            now_ms=self.around.now_ms, service=self.service,
        )  # fmt: skip
        if self._fits(to, len(head) + len(tail)):
            to.send(head + tail)
            counters.delivered += 1

    def deliver(
        self, message: messages.Message, *, retain: bool, identifiers: tuple[int, ...], receipt: Receipt | None
    ) -> None:
        """Queues a message with QoS 1; the publisher's receipt waits until it is on disk or acknowledged."""
        around = self.around
        if not self._has_room(message):
            around.counters.dropped_queue_full += 1
            return
        delivery = messages.Delivery(message, around.journal.next_sequence(), retain, identifiers)
        if self.expiry_s:
            done: Callable[[], None] | None = None
            if receipt is not None:
                receipt.pending += 1
                done = receipt.release
            around.journal.enqueue(self.client_id, delivery, done)
        self.queued_bytes += message.size_bytes
        around.counters.queued_bytes += message.size_bytes
        if self.queue is _NOTHING:
            self.queue = deque()
        self.queue.append(delivery)
        self.pump()
        if receipt is not None and len(self.queue) * 2 > self.bounds.queue_messages:
            self._slow_down(receipt.link)

    def pump(self) -> None:
        """Sends from the queue what the client's window and socket take."""
        to, queue = self.link, self.queue
        if to is None:
            return
        while queue and to.writable and len(self.in_flight) < to.in_flight:
            delivery = queue.popleft()
            if not self._send(to, delivery):
                self._finish(delivery)
        if not queue:
            self.queue = _NOTHING

    def acknowledge(self, packet_id: int) -> None:
        """Takes a PUBACK; an unknown identifier is ignored."""
        delivery = self.in_flight.pop(packet_id, None)
        if delivery is None:
            return
        self._finish(delivery)
        self.progress_at = self.around.clock
        self.pump()
        if self.slowed and len(self.queue) * 4 < self.bounds.queue_messages:
            self.release_slowed()

    def resume(self, to: Outlet) -> None:
        """Continues on a new connection: what was in flight goes first (MQTT 5.0, 4.4)."""
        self.link = to
        self.progress_at = self.around.clock
        if self.in_flight:
            self.queue = deque([*self.in_flight.values(), *self.queue])
            self.in_flight = {}
        self.pump()

    def release_slowed(self) -> None:
        slowed, self.slowed = self.slowed, []
        for each in slowed:
            each.release()

    def restore(self, queue: list[messages.Delivery]) -> None:
        """Takes over the queue that was on disk."""
        if queue:
            self.queue = deque(queue)
        self.queued_bytes = sum(each.message.size_bytes for each in queue)
        self.around.counters.queued_bytes += self.queued_bytes

    def undelivered(self) -> list[messages.Delivery]:
        return [*self.in_flight.values(), *self.queue]

    def clear(self) -> None:
        """Forgets queue and window, here and on disk."""
        if self.expiry_s:
            self.around.journal.forget_session(self.client_id, self.undelivered())
        self.around.counters.queued_bytes -= self.queued_bytes
        self.queued_bytes = 0
        self.queue, self.in_flight = _NOTHING, {}
        self.release_slowed()

    def _has_room(self, message: messages.Message) -> bool:
        waiting = len(self.queue) + len(self.in_flight)
        if waiting >= self.bounds.queue_messages or self.queued_bytes + message.size_bytes > self.bounds.queue_bytes:
            return False
        return self.service or self.around.counters.queued_bytes < self.around.totals.queued_bytes

    def _slow_down(self, publisher: Outlet) -> None:
        if self.link is None or publisher.service or publisher is self.link or publisher in self.slowed:
            return
        if self.around.clock - self.progress_at <= self.bounds.progress_s:
            self.slowed.append(publisher)
            publisher.hold()

    def _send(self, to: Outlet, delivery: messages.Delivery) -> bool:
        message, around = delivery.message, self.around
        if message.expires_at_ms and message.expires_at_ms <= around.now_ms:
            around.counters.dropped_expired += 1
            return False
        if not self._may_receive(to, message):
            return False
        head, tail = messages.parts(
            message, version=to.version, qos=1, retain=delivery.retain, identifiers=delivery.identifiers,
            now_ms=around.now_ms, service=self.service,
        )  # fmt: skip
        if not self._fits(to, len(head) + len(tail) + 2):
            return False
        packet_id = self._next_packet_id()
        self.in_flight[packet_id] = delivery
        to.send(mqtt.publish_frame(head, packet_id, tail, dup=delivery.sent))
        delivery.sent = True
        around.counters.delivered += 1
        return True

    def _may_receive(self, to: Outlet, message: messages.Message) -> bool:
        if self.service or to.grants.allows("iot:Receive", f"topic/{message.topic}"):
            return True
        self.around.counters.dropped_denied += 1
        return False

    def _fits(self, to: Outlet, size_bytes: int) -> bool:
        if not to.maximum_packet_bytes or size_bytes <= to.maximum_packet_bytes:
            return True
        self.around.counters.dropped_too_large += 1
        return False

    def _finish(self, delivery: messages.Delivery) -> None:
        size = delivery.message.size_bytes
        self.queued_bytes -= size
        self.around.counters.queued_bytes -= size
        if self.expiry_s:
            self.around.journal.dequeue(self.client_id, delivery)

    def _next_packet_id(self) -> int:
        while True:
            self.packet_id = self.packet_id % 65_535 + 1
            if self.packet_id not in self.in_flight:
                return self.packet_id
