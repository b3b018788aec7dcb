"""The table of misbehaviour (spec/ipc.md 2.7) from both sides.

First what the unmodified client does when a server breaks a rule: a scripted server answers it with exactly that frame. If a
new version of the client changes its mind, we hear of it here. Then, for every operation, that our server never sends
such a frame.

The traps of spec/ipc.md 6 and the tests that hold them (file without `test_`: test without `test_`):

1  flags of answers     here: server_when_any_operation_is_asked…; hostile_client: answer_when_unary_or_streaming…
2  answer, then events  here: client_when_an_event_comes_before_the_answer…, client_when_headers_of_the_answer_are_wrong…;
                        official_client: iot_core_subscription_when_message_waits_behind_the_suback…
3  null, base64, {}     here: server_when_any_operation_is_asked…; secrets: get_when_the_wire_is_looked_at…;
                        traps: timestamp_when_answered…; traps: answer_when_it_has_nothing_to_say…
4  body of an error     here: server_when_any_operation_is_asked…; test_rpc (wire): error_when_encoded…
5  lenient to requests  hostile_client: terminate_when_stream_is_unknown_or_over…;
                        traps: request_when_its_shape_is_named_wrongly…;
                        raw.request leaves both headers out in every test
6  never reconnects     here: client_when_the_socket_is_closed…; handover and leavers: all
7  slow subscriber      hostile_client: subscriber_when_it_never_reads…, caller_when_it_never_reads_answers…
8  nothing blocks       traps: calls_when_one_waits…
9  executor             conftest: `official` gives None; official_client: order_when_many_are_published…
10 limits               hostile_client: frame_when_malformed…, prelude_when_trickled…, stranger_when_…, connections_when_…,
                        streams_when_too_many_are_open…, incomplete_frames_when_memory_is_short…
11 socket file          client: socket_when_… (four)
12 unknown operations   hostile_client: operation_when_unknown…; official_client: table_when_compared_with_the_model…
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
from awsiot import eventstreamrpc
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.ipc import operations
from nucleus.wire import eventstream, extensions, rpc
from tests.nucleus import fakes_ipc

from .raw import Raw, body, request

JSON = "application/json"
GOT = "GetConfigurationResponse"
EVENT = "SubscriptionResponseMessage"
NOTHING = b"{}"
ANSWER = b'{"componentName":"a","value":{"b":1}}'
MESSAGE = b'{"jsonMessage":{"message":{"a":1},"context":{"topic":"t"}}}'


def frame(
    stream_id: int, payload: bytes = b"", shape: str = "", *, kind: int = 0, flags: int = 0, content: str = JSON
) -> bytes:
    """A frame with every header under control of the test."""
    headers = (
        (eventstream.string(":content-type", content) if content else b"")
        + (eventstream.string("service-model-type", rpc.NAMESPACE + shape) if shape else b"")
        + eventstream.int32(":message-type", kind)
        + eventstream.int32(":message-flags", flags)
        + eventstream.int32(":stream-id", stream_id)
    )
    return eventstream.encode(headers, payload)


class Scripted:
    """Accepts one client and sends the script once a request has come; keeps what the client sends after it."""

    def __init__(self, path: Path, script: list[bytes], *, hang_up: bool = False) -> None:
        self.after: queue.Queue[rpc.Message | None] = queue.Queue()
        self._script, self._hang_up = script, hang_up
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._listening.accept()
        decoder, reader = eventstream.Decoder(), rpc.Reader()
        asked = False
        with peer:
            while data := _received(peer):
                for message in map(reader.read, decoder.feed(data)):
                    if message.head.kind == rpc.Kind.CONNECT:
                        peer.sendall(rpc.encode(rpc.Kind.CONNECT_ACK, rpc.ACCEPTED, 0))
                    elif asked:
                        self.after.put(message)
                    else:
                        asked = True
                        peer.sendall(b"".join(self._script))
                if asked and self._hang_up:
                    break
        self.after.put(None)

    def close(self) -> None:
        self._thread.join(10)
        self._listening.close()


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65536)
    except ConnectionResetError:
        return b""


class Listener(eventstreamrpc.LifecycleHandler):  # type: ignore[misc]  # the SDK has no types
    """What happens to the connection."""

    def __init__(self) -> None:
        self.lost: futures.Future[Exception | None] = futures.Future()

    def on_disconnect(self, reason: Exception | None) -> None:
        self.lost.set_result(reason)


Play = Callable[..., tuple[Scripted, clientv2.GreengrassCoreIPCClientV2, Listener]]


@pytest.fixture
def play(socket_path: Path) -> Iterator[Play]:
    """Starts a scripted server and an official client of it."""
    with contextlib.ExitStack() as ends:

        def start(*script: bytes, hang_up: bool = False) -> Any:
            server = Scripted(socket_path, list(script), hang_up=hang_up)
            ends.callback(server.close)
            listener = Listener()
            low = awsiot.greengrasscoreipc.connect(
                ipc_socket=str(socket_path), authtoken="x", lifecycle_handler=listener, timeout=10
            )
            client = clientv2.GreengrassCoreIPCClientV2(client=low, executor=None)
            ends.callback(lambda: client.close().exception(10))
            return server, client, listener

        yield start


@pytest.mark.parametrize(
    "answer",
    [
        frame(1, ANSWER, GOT, flags=rpc.TERMINATE, content=""),
        frame(1, ANSWER, GOT, flags=rpc.TERMINATE, content="application/json; charset=utf-8"),
        frame(1, ANSWER, "PublishToTopicResponse", flags=rpc.TERMINATE),
    ],
    ids=["no content type", "content type with a charset", "another shape"],
)
def test_client_when_headers_of_the_answer_are_wrong_then_unmapped_data(play: Play, answer: bytes) -> None:
    _, client, _ = play(answer)

    with pytest.raises(eventstreamrpc.UnmappedDataError):
        client.get_configuration(key_path=["b"])


def test_client_when_an_error_does_not_end_its_stream_then_right_exception_and_the_client_ends_it(play: Play) -> None:
    text = b'{"message":"Key not found","_errorCode":"ResourceNotFoundError"}'
    server, client, _ = play(frame(1, text, "ResourceNotFoundError", kind=1))

    with pytest.raises(model.ResourceNotFoundError) as refusal:
        client.get_configuration(key_path=["b"])

    ended = server.after.get(timeout=10)
    assert refusal.value.message == "Key not found"
    assert ended is not None
    assert (ended.stream_id, ended.head.flags) == (1, rpc.TERMINATE)


def test_client_when_the_stream_ends_without_an_answer_then_stream_closed(play: Play) -> None:
    _, client, _ = play(frame(1, flags=rpc.TERMINATE, content=""))

    with pytest.raises(eventstreamrpc.StreamClosedError):
        client.get_configuration(key_path=["b"])


def _subscribe(client: Any, keep: bool = True) -> queue.Queue[Any]:
    """Events, errors and the end of a subscription; `keep` is what the error handler answers."""
    seen: queue.Queue[Any] = queue.Queue()

    def failed(error: Exception) -> bool:
        seen.put(error)
        return not keep

    client.subscribe_to_topic(
        topic="t", on_stream_event=seen.put, on_stream_error=failed, on_stream_closed=lambda: seen.put("closed")
    )
    return seen


def test_client_when_the_subscription_ends_with_its_answer_then_success_and_closed_at_once(play: Play) -> None:
    _, client, _ = play(frame(1, NOTHING, "SubscribeToTopicResponse", flags=rpc.TERMINATE))

    assert _subscribe(client).get(timeout=10) == "closed"


def test_client_when_an_event_cannot_be_read_then_error_and_the_stream_closes(play: Play) -> None:
    server, client, _ = play(frame(1, NOTHING, "SubscribeToTopicResponse"), frame(1, b"no json", EVENT))

    seen = _subscribe(client, keep=False)

    assert isinstance(seen.get(timeout=10), Exception)
    ended = server.after.get(timeout=10)
    assert ended is not None
    assert ended.head.flags == rpc.TERMINATE


def test_client_when_its_error_handler_says_so_then_it_survives_an_event_it_cannot_read(play: Play) -> None:
    accepted = frame(1, NOTHING, "SubscribeToTopicResponse")
    _, client, _ = play(accepted, frame(1, b"no json", EVENT), frame(1, MESSAGE, EVENT))

    seen = _subscribe(client, keep=True)

    assert isinstance(seen.get(timeout=10), Exception)
    assert seen.get(timeout=10).json_message.message == {"a": 1}


def test_client_when_an_event_comes_before_the_answer_then_the_call_fails(play: Play) -> None:
    server, client, _ = play(frame(1, MESSAGE, EVENT))

    with pytest.raises(eventstreamrpc.UnmappedDataError):
        _subscribe(client)

    ended = server.after.get(timeout=10)
    assert ended is not None
    assert ended.head.flags == rpc.TERMINATE


def test_client_when_an_error_comes_on_an_open_subscription_then_error_and_closed(play: Play) -> None:
    refusal = b'{"message":"over","_errorCode":"ServiceError"}'
    accepted = frame(1, NOTHING, "SubscribeToTopicResponse")
    _, client, _ = play(accepted, frame(1, refusal, "ServiceError", kind=1, flags=rpc.TERMINATE))

    seen = _subscribe(client)

    error = seen.get(timeout=10)
    assert isinstance(error, model.ServiceError)
    assert error.message == "over"
    assert seen.get(timeout=10) == "closed"


def test_client_when_a_checksum_is_wrong_then_the_connection_is_dropped(play: Play) -> None:
    broken = frame(1, ANSWER, GOT, flags=rpc.TERMINATE)[:-1] + b"\x00"
    _, client, listener = play(broken)

    with pytest.raises(eventstreamrpc.StreamClosedError):
        client.get_configuration(key_path=["b"])

    assert "CHECKSUM" in str(listener.lost.result(10))


def test_client_when_the_socket_is_closed_then_pending_calls_fail_and_it_never_comes_back(play: Play) -> None:
    _, client, listener = play(hang_up=True)

    with pytest.raises(eventstreamrpc.StreamClosedError):
        client.get_configuration(key_path=["b"])

    assert "SOCKET_CLOSED" in str(listener.lost.result(10))
    with pytest.raises(eventstreamrpc.ConnectionClosedError):
        client.get_configuration(key_path=["b"])


# ---- and our server -------------------------------------------------------------------------------------------------------

REQUESTS: dict[str, bytes] = {
    "PublishToTopic": b'{"topic":"a","publishMessage":{"jsonMessage":{"message":{}}}}',
    "SubscribeToTopic": b'{"topic":"a"}',
    "GetConfiguration": b'{"keyPath":[]}',
    "UpdateConfiguration": b'{"timestamp":99,"valueToMerge":{"a":1}}',
    "SubscribeToConfigurationUpdate": b'{"keyPath":[]}',
    "UpdateState": b'{"state":"RUNNING"}',
}


@pytest.mark.parametrize("name", sorted(one for one in operations.TABLE if "#" not in one))
def test_server_when_any_operation_is_asked_then_its_frames_keep_every_rule(world: fakes_ipc.World, name: str) -> None:
    """Whatever the answer is: its headers and shape are exact, it ends its stream or not as it must, and has no null."""
    world.do(lambda: world.add("test.App", access=fakes_ipc.EVERYTHING))
    kind, _, shape, _ = extensions.operation(name)
    with Raw(world.path, "token-test.App") as client:
        client.send(request(1, name, REQUESTS.get(name, NOTHING)))
        answer = client.read()

    assert answer is not None
    headers = {one.name: one.value for one in eventstream.read_headers(answer.frame.headers)}
    found = body(answer)
    failed = headers[":message-type"] == rpc.Kind.ERROR
    assert headers[":content-type"] == JSON
    assert headers["service-model-type"] == rpc.NAMESPACE + (found["_errorCode"] if failed else shape)
    assert headers[":message-flags"] == (rpc.TERMINATE if failed or kind == "unary" else 0)
    assert headers[":stream-id"] == 1
    assert isinstance(found, dict)
    assert None not in found.values()
    if failed:
        assert found["message"] == found["_message"] != ""
        assert found["_service"] == rpc.SERVICE
