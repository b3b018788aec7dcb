"""The bounds of the broker. Where AWS IoT Core has a figure it is AWS's (spec/cloud.md 3.1).

Policy: a message with QoS 1 that does not fit into a session's queue is dropped *for that session* and counted, its
publisher gets its PUBACK. Before that happens, publishers to a session that is connected and making progress are slowed
down by not reading from them; a subscriber that acknowledges nothing for `progress_s` slows nobody. QoS 0 is dropped when
the subscriber is off-line or its socket is full. A client whose socket takes nothing for `stuck_s` is disconnected.
"""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Bounds per connection and session, then of the whole broker."""

    packet_bytes: int = 262_144
    payload_bytes: int = 131_072
    client_id_bytes: int = 256
    filters_per_subscribe: int = 8
    subscriptions: int = 50
    receive_maximum: int = 100  # publishes of a client we have not acknowledged
    in_flight: int = 100  # publishes to a client it has not acknowledged; also bounded by its own receive maximum
    in_flight_v311: int = 32
    queue_messages: int = 1_000
    queue_bytes: int = 4_194_304
    topic_aliases: int = 8
    keep_alive_s: int = 1_200
    session_expiry_s: int = 604_800  # also for 3.1.1's persistent sessions: an off-line weekend must not lose the queue
    output_bytes: int = 131_072
    connect_timeout_s: float = 10.0
    stuck_s: float = 30.0
    progress_s: float = 2.0


class Totals(msgspec.Struct, frozen=True):
    """Bounds of the whole broker."""

    connections: int = 18_000  # machines cap a process at 20,000 descriptors (spec/broker.md 5)
    sessions: int = 100_000
    queued_bytes: int = 268_435_456
    retained_messages: int = 50_000
    retained_bytes: int = 67_108_864
    handshake_steps_per_turn: int = 4
    principal_wait_s: float = 2.0


DEVICE = Limits()
# The service's own connection: one snapshot of all principals is one packet, and every device's messages pass through it.
SERVICE = Limits(
    packet_bytes=67_108_864,
    payload_bytes=67_108_864,
    filters_per_subscribe=64,
    subscriptions=1_000,
    receive_maximum=1_000,
    in_flight=1_000,
    queue_messages=100_000,
    queue_bytes=134_217_728,
    output_bytes=4_194_304,
)
