"""Messages against the recorded vectors of spec/ipc.md 2.8, byte for byte."""

from __future__ import annotations

import math

import pytest

from nucleus.wire import eventstream, rpc

CONNECT = bytes.fromhex(
    "0000007900000048e9e79475083a76657273696f6e070005302e312e300d3a6d6573736167652d747970650400000004"
    "0e3a6d6573736167652d666c61677304000000000a3a73747265616d2d69640400000000"
    "7b2261757468546f6b656e223a202230313233343536373839414243444546227d4b8397bd"
)
ACCEPTED = bytes.fromhex(
    "0000004700000037374cfe3f0d3a6d6573736167652d7479706504000000050e3a6d6573736167652d666c61677304000000010a3a"
    "73747265616d2d69640400000000e237e27d"
)
REJECTED = bytes.fromhex(
    "0000004700000037374cfe3f0d3a6d6573736167652d7479706504000000050e3a6d6573736167652d666c61677304000000000a3a"
    "73747265616d2d696404000000006591293e"
)
UPDATE_STATE_RESPONSE = bytes.fromhex(
    "000000a2000000909fca80db0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e127365727669"
    "63652d6d6f64656c2d747970650700226177732e677265656e6772617373235570646174655374617465526573706f6e73650d3a6d"
    "6573736167652d7479706504000000000e3a6d6573736167652d666c61677304000000020a3a73747265616d2d69640400000001"
    "7b7d61775420"
)
CLOSE_OF_STREAM_2 = bytes.fromhex(
    "0000004700000037374cfe3f0d3a6d6573736167652d7479706504000000000e3a6d6573736167652d666c61677304000000020a3a"
    "73747265616d2d69640400000002b1009975"
)


def _read(data: bytes, reader: rpc.Reader | None = None) -> rpc.Message:
    (frame,) = eventstream.Decoder().feed(data)
    return (reader or rpc.Reader()).read(frame)


@pytest.mark.parametrize(
    ("made", "recorded"),
    [
        (rpc.connect("0123456789ABCDEF"), CONNECT),
        (rpc.encode(rpc.Kind.CONNECT_ACK, rpc.ACCEPTED, 0), ACCEPTED),
        (rpc.encode(rpc.Kind.CONNECT_ACK, 0, 0), REJECTED),
        (rpc.encode(rpc.Kind.MESSAGE, rpc.TERMINATE, 1, b"{}", "UpdateStateResponse"), UPDATE_STATE_RESPONSE),
        (rpc.encode(rpc.Kind.MESSAGE, rpc.TERMINATE, 2), CLOSE_OF_STREAM_2),
    ],
)
def test_message_when_encoded_then_equals_the_recorded_bytes(made: bytes, recorded: bytes) -> None:
    assert made == recorded


def test_recorded_connect_when_read_then_version_and_token() -> None:
    message = _read(CONNECT)

    assert message.head == rpc.Head(rpc.Kind.CONNECT, 0, "", "0.1.0")
    assert message.stream_id == 0
    assert rpc.load(message.frame.payload) == {"authToken": "0123456789ABCDEF"}


def test_repeated_header_block_when_stream_id_differs_then_each_has_its_own() -> None:
    reader = rpc.Reader()
    read = [_read(rpc.encode(rpc.Kind.MESSAGE, 0, number), reader) for number in (1, 2, 2**31 - 1, -1)]

    assert [message.stream_id for message in read] == [1, 2, 2**31 - 1, -1]
    assert all(message.head is read[0].head for message in read)


def test_stream_id_pattern_inside_a_value_when_read_then_not_taken_for_the_header() -> None:
    reader = rpc.Reader()
    trap = eventstream.string("note", "\x0a:stream-id\x04abcd")
    numbers = eventstream.int32(":message-type", 0) + eventstream.int32(":message-flags", 0)

    first = reader.read(eventstream.Frame(trap + numbers + eventstream.int32(":stream-id", 5), b""))
    second = reader.read(eventstream.Frame(trap + numbers + eventstream.int32(":stream-id", 6), b""))

    assert (first.stream_id, second.stream_id) == (5, 6)


def test_headers_when_in_other_case_and_order_then_understood() -> None:
    """The C SDK sends the `:` headers first; names compare case-insensitively."""
    block = (
        eventstream.int32(":STREAM-ID", 3)
        + eventstream.int32(":Message-Flags", 0)
        + eventstream.int32(":message-type", 0)
        + eventstream.string("Operation", "aws.greengrass#PublishToTopic")
    )

    message = rpc.Reader().read(eventstream.Frame(block, b"{}"))

    assert (message.stream_id, message.head.operation) == (3, "PublishToTopic")


@pytest.mark.parametrize(
    "block",
    [
        b"",
        eventstream.int32(":message-type", 0) + eventstream.int32(":message-flags", 0),
        eventstream.int32(":message-type", 0) + eventstream.int32(":stream-id", 1),
        eventstream.int32(":message-flags", 0) + eventstream.int32(":stream-id", 1),
        eventstream.header(":message-type", eventstream.INT16, 0)
        + eventstream.int32(":message-flags", 0)
        + eventstream.int32(":stream-id", 1),
        eventstream.int32(":message-type", 8)
        + eventstream.int32(":message-flags", 0)
        + eventstream.int32(":stream-id", 0),
    ],
)
def test_headers_when_missing_or_of_another_type_then_protocol_error(block: bytes) -> None:
    with pytest.raises(rpc.ProtocolError):
        rpc.Reader().read(eventstream.Frame(block, b""))


def test_reader_when_flooded_with_operations_then_stays_small() -> None:
    reader = rpc.Reader()
    for number in range(2000):
        numbers = rpc.encode(rpc.Kind.MESSAGE, 0, 1)[12:-4]
        reader.read(eventstream.Frame(eventstream.string("operation", f"x{number}") + numbers, b""))

    assert len(reader._known) <= 256


def test_error_when_encoded_then_has_all_four_members_and_its_shape() -> None:
    refusal = rpc.OperationError("ResourceNotFoundError", "Key not found", resourceName="a/b")

    message = _read(rpc.error(4, refusal))

    assert (message.head.kind, message.head.flags, message.stream_id) == (rpc.Kind.ERROR, rpc.TERMINATE, 4)
    assert rpc.load(message.frame.payload) == {
        "message": "Key not found",
        "_message": "Key not found",
        "_service": "aws.greengrass#GreengrassCoreIPC",
        "_errorCode": "ResourceNotFoundError",
        "resourceName": "a/b",
    }


def test_ping_when_answered_then_payload_and_own_headers_come_back() -> None:
    numbers = rpc.encode(rpc.Kind.PING, 0, 0)[12:-4]
    ping = eventstream.Frame(eventstream.string("mine", "x") + numbers, b"beat")

    (pong,) = eventstream.Decoder().feed(rpc.pong(ping))

    assert pong.payload == b"beat"
    assert eventstream.read_headers(pong.headers)[0].value == "x"
    assert rpc.Reader().read(pong).head.kind == rpc.Kind.PING_RESPONSE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b"1.0", 1.0),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b"[NaN,Infinity,-Infinity]", [None, None, None]),
        (b"1e400", math.inf),
        (b'"\\ud800"', "\ud800"),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    ],
)
def test_json_when_as_odd_as_clients_send_it_then_read(text: bytes, value: object) -> None:
    """Spec/ipc.md 2.5."""
    assert rpc.load(text) == value


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000])
def test_json_when_broken_then_value_or_recursion_error(text: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        rpc.load(text)


def test_json_when_written_then_integers_stay_and_odd_values_survive() -> None:
    assert rpc.dump({"n": 1, "f": 1.0, "big": 10**30}) == b'{"n":1,"f":1.0,"big":1000000000000000000000000000000}'
    assert rpc.dump([math.inf, math.nan]) == b"[null,null]"
    assert rpc.load(rpc.dump("\ud800")) == "\ud800"
