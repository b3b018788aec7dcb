"""What a wrong, broken or hostile client can do: lose its own connection, and nothing else."""

from __future__ import annotations

import random
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.ipc import connection
from nucleus.wire import eventstream, rpc
from tests.nucleus import fakes_ipc
from tests.nucleus.ipc.raw import Raw, body, request

QUICK = connection.Limits(
    handshake_s=0.3,
    refusal_s=0.3,
    incomplete_s=0.3,
    stalled_s=0.5,
    tick_s=0.05,
    streams=10,
    connections=8,
    connections_of_one=4,
    queued_bytes=256 * 1024,
    held_bytes=2 * 1024 * 1024,
)


@pytest.fixture
def quick(socket_path: Path) -> Iterator[fakes_ipc.World]:
    """A server whose limits are reached soon, with two components that may do everything."""
    with fakes_ipc.serving_in_thread(fakes_ipc.World(socket_path, QUICK)) as world:
        for name in ("good", "bad"):
            world.do(lambda name=name: world.add(name, access=fakes_ipc.EVERYTHING))
        yield world


@pytest.fixture
def good(quick: fakes_ipc.World) -> Iterator[Raw]:
    """A well-behaved neighbour, checked to be served at the end."""
    with Raw(quick.path, "token-good") as client:
        yield client
        answer = client.call(9999, "ListComponents", {})
        assert len(body(answer)["components"]) == 2


def _prelude(total: int, headers: int) -> bytes:
    numbers = total.to_bytes(4, "big") + headers.to_bytes(4, "big")
    return numbers + zlib.crc32(numbers).to_bytes(4, "big")


def _message(kind: int, stream_id: int, flags: int = 0) -> bytes:
    numbers = (
        eventstream.int32(":message-type", kind)
        + eventstream.int32(":message-flags", flags)
        + eventstream.int32(":stream-id", stream_id)
    )
    return eventstream.encode(numbers, b"{}")


# ---- frames --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        request(1, "ListComponents")[:-1] + b"\x00",
        _prelude(15, 0),
        _prelude(0xFFFFFFF0, 0),
        _prelude(24 * 1024 * 1024 + 1, 0),
        _prelude(20, 19),
        bytes(64),
        eventstream.encode(b"\x05ab", b""),
    ],
    ids=["bad crc", "total below 16", "huge total", "over 24 MiB", "headers over total", "zeros", "cut headers"],
)
def test_frame_when_malformed_then_connection_closed(quick: fakes_ipc.World, good: Raw, data: bytes) -> None:
    with Raw(quick.path, "token-bad") as bad:
        bad.send(data)

        assert bad.read_to_end() == []


def test_prelude_when_trickled_then_connection_closed(quick: fakes_ipc.World, good: Raw) -> None:
    with Raw(quick.path, "token-bad") as bad:
        bad.send(request(1, "ListComponents")[:7])

        assert bad.read() is None


def test_frames_when_sent_byte_by_byte_then_served(quick: fakes_ipc.World) -> None:
    with Raw(quick.path, "token-good") as client:
        for byte in request(1, "ListComponents"):
            client.send(bytes((byte,)))

        assert body(client.read())["components"]


def test_stranger_when_its_first_frame_is_large_then_closed_unread(quick: fakes_ipc.World, good: Raw) -> None:
    with Raw(quick.path) as bad:
        bad.send(_prelude(1024 * 1024, 0))

        assert bad.read() is None


def test_incomplete_frames_when_memory_is_short_then_the_largest_goes(quick: fakes_ipc.World, good: Raw) -> None:
    with Raw(quick.path, "token-bad") as bad:
        try:
            bad.send(_prelude(20 * 1024 * 1024, 0) + bytes(4 * 1024 * 1024))
        except OSError:
            return  # already closed while we were sending

        assert bad.read() is None


def test_random_mutations_when_2000_are_sent_then_the_neighbour_is_served(quick: fakes_ipc.World, good: Raw) -> None:
    seeds = [
        rpc.connect("token-bad"),
        request(1, "ListComponents"),
        request(2, "PublishToTopic", b'{"topic":"a","publishMessage":{"jsonMessage":{"message":{"a":[1]}}}}'),
        request(3, "SubscribeToTopic", b'{"topic":"a/#"}'),
        request(3, "", b"", rpc.TERMINATE),
        _message(rpc.Kind.PING, 0),
    ]
    dice = random.Random(20240229)
    bad = Raw(quick.path, "token-bad")
    for number in range(2000):
        frame = _mutated(dice, dice.choice(seeds))
        try:
            bad.send(frame)
        except OSError:
            bad.close()
            bad = Raw(quick.path, "token-bad")
        if number % 100 == 0:
            assert body(good.call(number + 1, "ListComponents", {}))["components"]
    bad.close()

    assert "ipc.handler_failed" not in quick.log.names()


def _mutated(dice: random.Random, frame: bytes) -> bytes:
    """A few bytes changed; half of the time with the checksums made right again, so that it goes deeper."""
    data = bytearray(frame)
    for _ in range(dice.randint(1, 4)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    if dice.random() < 0.5:
        data[0:8] = frame[0:8]
        data[8:12] = frame[8:12]
        data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "big")
    return bytes(data)


# ---- connecting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [b'{"authToken":"wrong"}', b'{"authToken":""}', b'{"authToken":5}', b"{}", b"[]", b"no json", b"", b"[" * 9000],
)
def test_connect_when_token_is_bad_then_ack_without_acceptance_then_closed(
    quick: fakes_ipc.World, good: Raw, payload: bytes
) -> None:
    headers = eventstream.string(":version", "0.1.0") + _message(rpc.Kind.CONNECT, 0)[12:-6]
    with Raw(quick.path) as bad:
        bad.send(eventstream.encode(headers, payload))
        (ack,) = bad.read_to_end()

    assert (ack.head.kind, ack.head.flags) == (rpc.Kind.CONNECT_ACK, 0)


def test_connect_when_version_is_another_then_refused(quick: fakes_ipc.World) -> None:
    headers = eventstream.string(":version", "0.2.0") + _message(rpc.Kind.CONNECT, 0)[12:-6]
    with Raw(quick.path) as bad:
        bad.send(eventstream.encode(headers, b'{"authToken":"token-bad"}'))
        (ack,) = bad.read_to_end()

    assert ack.head.flags == 0


def test_requests_when_sent_behind_a_refused_connect_then_not_served(quick: fakes_ipc.World) -> None:
    with Raw(quick.path) as bad:
        bad.send(rpc.connect("wrong") + request(1, "ListComponents") + rpc.connect("token-bad"))

        assert [message.head.kind for message in bad.read_to_end()] == [rpc.Kind.CONNECT_ACK]


def test_requests_when_sent_behind_connect_at_once_then_served(quick: fakes_ipc.World) -> None:
    with Raw(quick.path) as client:
        client.send(rpc.connect("token-good") + request(1, "ListComponents"))
        client.read()

        assert body(client.read())["components"]


def test_stranger_when_silent_then_closed_after_the_handshake_time(quick: fakes_ipc.World, good: Raw) -> None:
    with Raw(quick.path) as bad:
        assert bad.read() is None


@pytest.mark.parametrize(
    "data", [request(1, "ListComponents"), _message(rpc.Kind.PING, 0), _message(rpc.Kind.CONNECT, 1)]
)
def test_first_frame_when_not_connect_then_protocol_error_and_closed(quick: fakes_ipc.World, data: bytes) -> None:
    with Raw(quick.path) as bad:
        bad.send(data)

        assert [message.head.kind for message in bad.read_to_end()] == [rpc.Kind.PROTOCOL_ERROR]


def test_connections_when_too_many_of_one_component_then_refused_and_others_get_in(quick: fakes_ipc.World) -> None:
    clients = [Raw(quick.path, "token-bad") for _ in range(4)]
    with Raw(quick.path) as fifth:
        fifth.send(rpc.connect("token-bad"))
        ack = fifth.read()
        assert ack is not None
        assert ack.head.flags == 0
        with Raw(quick.path, "token-good") as client:
            assert client.call(1, "ListComponents", {})
    for client in clients:
        client.close()


def test_connections_when_all_are_taken_then_closed_at_once_and_free_again_later(quick: fakes_ipc.World) -> None:
    strangers = [Raw(quick.path) for _ in range(8)]
    quick.do(lambda: None)
    with Raw(quick.path) as ninth:
        assert ninth.read() is None
    for stranger in strangers:
        assert stranger.read() is None  # the handshake time is over
        stranger.close()

    with Raw(quick.path, "token-good") as client:
        assert client.call(1, "ListComponents", {})


# ---- streams -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        rpc.connect("token-bad"),
        request(7, ""),
        request(0, "ListComponents"),
        request(-1, "ListComponents"),
        _message(rpc.Kind.PING, 1),
        _message(9, 0),
        eventstream.encode(b"", b""),
        eventstream.encode(eventstream.string("operation", "x"), b"{}"),
    ],
    ids=["second connect", "unknown stream", "stream 0", "stream -1", "ping on stream", "type 9", "bare", "no numbers"],
)
def test_message_when_against_the_rules_then_protocol_error_and_closed(
    quick: fakes_ipc.World, good: Raw, data: bytes
) -> None:
    with Raw(quick.path, "token-bad") as bad:
        bad.send(data)
        (last,) = bad.read_to_end()

    assert (last.head.kind, last.stream_id) == (rpc.Kind.PROTOCOL_ERROR, 0)
    assert body(last)["message"]


def test_second_request_on_an_open_stream_when_sent_then_protocol_error(quick: fakes_ipc.World, good: Raw) -> None:
    with Raw(quick.path, "token-bad") as bad:
        bad.call(1, "SubscribeToTopic", {"topic": "a"})
        bad.send(request(1, "ListComponents"))

        assert [message.head.kind for message in bad.read_to_end()] == [rpc.Kind.PROTOCOL_ERROR]


@pytest.mark.parametrize("stream_id", [1, 5, 77])
def test_terminate_when_stream_is_unknown_or_over_then_ignored(quick: fakes_ipc.World, stream_id: int) -> None:
    """Trap 5: both ends may close at the same time."""
    with Raw(quick.path, "token-good") as client:
        client.call(5, "ListComponents", {})
        client.send(request(stream_id, "", b"", rpc.TERMINATE))

        assert body(client.call(6, "ListComponents", {}))["components"]


def test_late_message_when_stream_is_over_then_ignored(quick: fakes_ipc.World) -> None:
    with Raw(quick.path, "token-good") as client:
        client.call(5, "ListComponents", {})
        client.send(request(5, ""))

        assert body(client.call(6, "ListComponents", {}))["components"]


@pytest.mark.parametrize("flags", [rpc.TERMINATE, 0])
def test_answer_when_unary_or_streaming_then_terminates_or_not(quick: fakes_ipc.World, flags: int) -> None:
    """Trap 1; and trap 4 for the error, which always ends its stream."""
    operation, request_ = ("ListComponents", {}) if flags else ("SubscribeToTopic", {"topic": "a"})
    with Raw(quick.path, "token-good") as client:
        answer = client.call(1, operation, request_)
        refusal = client.call(2, operation, [])

    assert answer is not None
    assert refusal is not None
    assert (answer.head.kind, answer.head.flags) == (rpc.Kind.MESSAGE, flags)
    assert (refusal.head.kind, refusal.head.flags) == (rpc.Kind.ERROR, rpc.TERMINATE)
    assert set(body(refusal)) == {"message", "_message", "_errorCode", "_service"}


@pytest.mark.parametrize("operation", ["FlyToTheMoon", "", "ListComponents#x"])
def test_operation_when_unknown_then_service_error_and_connection_lives(quick: fakes_ipc.World, operation: str) -> None:
    """Trap 12: new clients know more operations."""
    with Raw(quick.path, "token-good") as client:
        client.send(
            eventstream.encode(eventstream.string("operation", operation or "?") + request(1, "")[12:-6], b"{}")
        )
        assert body(client.read())["_errorCode"] == "ServiceError"

        assert body(client.call(2, "ListComponents", {}))["components"]


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"5", b"[" * 50_000, b'{"topic":NaN}'])
def test_body_when_no_request_then_invalid_arguments_and_connection_lives(
    quick: fakes_ipc.World, payload: bytes
) -> None:
    with Raw(quick.path, "token-good") as client:
        client.send(request(1, "SubscribeToTopic", payload))
        assert body(client.read())["_errorCode"] == "InvalidArgumentsError"

        assert body(client.call(2, "ListComponents", {}))["components"]


def test_streams_when_too_many_are_open_then_service_error_and_those_that_are_live(quick: fakes_ipc.World) -> None:
    with Raw(quick.path, "token-good") as client:
        for number in range(1, 11):
            assert body(client.call(number, "SubscribeToTopic", {"topic": "a"})) == {}
        assert body(client.call(11, "SubscribeToTopic", {"topic": "a"}))["_errorCode"] == "ServiceError"

        client.send(request(10, "", b"", rpc.TERMINATE))
        assert body(client.call(12, "SubscribeToTopic", {"topic": "a"})) == {}


def test_ping_when_sent_then_answered_with_its_payload(quick: fakes_ipc.World) -> None:
    with Raw(quick.path, "token-good") as client:
        client.send(_message(rpc.Kind.PING, 0))
        pong = client.read()

    assert pong is not None
    assert (pong.head.kind, pong.frame.payload) == (rpc.Kind.PING_RESPONSE, b"{}")


# ---- clients that do not read ----------------------------------------------------------------------------------------------


def _publish(client: Raw, count: int, size: int, first: int = 1) -> None:
    message = {"topic": "a", "publishMessage": {"jsonMessage": {"message": "x" * size}}}
    for number in range(first, first + count):
        assert body(client.call(number, "PublishToTopic", message)) == {}


def test_subscriber_when_it_never_reads_then_bounded_counted_and_closed(quick: fakes_ipc.World, good: Raw) -> None:
    """Trap 7."""
    bad = Raw(quick.path, "token-bad")
    bad.call(1, "SubscribeToTopic", {"topic": "a"})
    (slow,) = [one for one in quick.server._connections if one.component == "bad"]

    _publish(good, 200, 10_000)

    assert slow.dropped_events > 100
    assert quick.do(slow.queued_bytes) < 2 * QUICK.queued_bytes
    quick.log.wait_for("ipc.events_dropped")
    quick.log.wait_for("ipc.connection_aborted")  # only then it reads
    received = sum(message.stream_id == 1 for message in bad.read_to_end())
    assert 0 < received <= 200 - slow.dropped_events
    bad.close()


def test_caller_when_it_never_reads_answers_then_its_requests_wait_and_it_is_closed(
    quick: fakes_ipc.World, good: Raw
) -> None:
    quick.do(lambda: quick.put(("services", "bad", "configuration", "blob"), "x" * 50_000))
    with Raw(quick.path, "token-bad") as bad:
        bad.socket.settimeout(0.2)
        many = b"".join(request(number, "GetConfiguration") for number in range(1, 20_000))
        with pytest.raises(TimeoutError):
            bad.send(many)
        (greedy,) = [one for one in quick.server._connections if one.component == "bad"]
        assert quick.do(greedy.queued_bytes) < 2 * QUICK.queued_bytes
        quick.log.wait_for("ipc.connection_aborted")


def test_client_when_it_vanishes_in_the_middle_then_its_subscriptions_go(quick: fakes_ipc.World, good: Raw) -> None:
    bad = Raw(quick.path, "token-bad")
    bad.call(1, "SubscribeToTopic", {"topic": "a"})
    bad.send(request(2, "ListComponents")[:20])
    bad.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    bad.close()
    quick.log.wait_for("ipc.disconnected")

    assert quick.do(lambda: quick.broker.publish("a", b"", "good")) == 0


def test_client_when_it_vanishes_before_the_suback_then_the_uplink_subscription_goes(
    quick: fakes_ipc.World, good: Raw
) -> None:
    with Raw(quick.path, "token-bad") as bad:
        bad.send(request(1, "SubscribeToIoTCore", b'{"topicName":"t","qos":"0"}'))
    quick.log.wait_for("ipc.disconnected")

    assert quick.do(lambda: quick.uplink.subscriptions) == 0
