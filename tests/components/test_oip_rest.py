"""The REST door against what browsers, scripts and attackers send: bounded, refused in words, and open for the next."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import agent_oip_address
import agent_oip_http
import pytest

from tests.components import parts

INFER = "/v2/models/power-curve/infer"
TENSOR = {"name": "conditions", "datatype": "FP32", "shape": [1, 2]}
REQUEST = json.dumps({"inputs": [TENSOR | {"data": [8.0, 10.0]}]}).encode()
BINARY = json.dumps({"inputs": [TENSOR | {"parameters": {"binary_data_size": 8}}]}).encode()
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of an agent that serves the power curve; no request of this module may end it."""
    with parts.device() as device:
        process = device.start_agent("--oip-http", "127.0.0.1:0")
        device.offer("1.1.0")
        found = re.search(r"REST on 127.0.0.1:(\d+)", device.log("marram.ModelAgent"))
        assert found is not None
        yield int(found[1])
        assert process.poll() is None


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Status and JSON of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None
    finally:
        connection.close()


def raw(port: int, data: bytes) -> bytes:
    """Everything that comes back until the door closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        parts_: list[bytes] = []
        while piece := _received(connection):
            parts_.append(piece)
        return b"".join(parts_)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:  # it closed with our bytes unread
        return b""


@pytest.fixture(autouse=True)
def answers_afterwards(port: int) -> Iterator[None]:
    """Whatever a test sent, the door answers the next."""
    yield
    assert ask(port, "POST", INFER, REQUEST)[0] == 200


def test_inference_when_plain_json_then_answered_in_json(port: int) -> None:
    status, answer = ask(port, "POST", INFER, REQUEST)

    assert (status, answer["model_version"]) == (200, "1.1.0")
    assert answer["outputs"][0]["data"] == [pytest.approx(855.487, abs=0.01)]


def test_inference_when_binary_over_one_connection_then_each_is_answered(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = BINARY + struct.pack("<ff", 8.0, 10.0)
    for _ in range(3):
        connection.request("POST", INFER, body, {LENGTH: str(len(BINARY))})
        response = connection.getresponse()
        assert json.loads(response.read())["outputs"][0]["data"] == [pytest.approx(855.487, abs=0.01)]
    connection.close()


@pytest.mark.parametrize("packed", [gzip.compress(REQUEST, mtime=0), zlib.compress(REQUEST)])
def test_inference_when_compressed_then_answered(port: int, packed: bytes) -> None:
    assert ask(port, "POST", INFER, packed, {"Content-Encoding": "gzip"})[0] == 200


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0", "Unable to parse"),
        ("-1", "Unable to parse"),
        ("1e3", "Unable to parse"),
        ("9" * 400, "Unable to parse"),
        (str(len(BINARY) + 9), "Unable to parse"),
        (str(len(BINARY) - 1), "failed to parse the request JSON"),
        (str(len(BINARY) + 8), "failed to parse the request JSON"),
    ],
)
def test_header_length_when_it_does_not_fit_then_refused(port: int, given: str, words: str) -> None:
    body = BINARY + struct.pack("<ff", 8.0, 10.0)

    status, answer = ask(port, "POST", INFER, body, {LENGTH: given})

    assert status == 400
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/power-curve/versions/1.1.0/ready", 200),
        ("GET", "/v2/models/power%2Dcurve/ready", 200),
        ("GET", "/v2/models/power-curve/versions/9/ready", 400),
        ("GET", "/v2/models/unknown/ready", 400),
        ("GET", "/v2/models/unknown", 404),
        ("GET", "/v2/models/..%2F..%2Fetc/config", 404),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2/models/power-curve/versions/1.1.0/stats", 200),
        ("GET", "/v2/models/power-curve?a=b", 200),
        ("GET", "/", 404),
        ("GET", "/v3", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/power-curve", 405),
        ("POST", "/v2/repository/index", 200),
        ("POST", "/v2/repository/models/power-curve/unload", 401),
        ("POST", "/v2/repository/models/power-curve/load", 401),
    ],
)
def test_path_when_asked_then_its_status(port: int, method: str, path: str, status: int) -> None:
    assert ask(port, method, path)[0] == status


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"\x00\xff", b"[" * 200_000, b'{"inputs": "no"}', b'{"inputs": [[]]}']
)
def test_body_when_it_is_no_request_then_400(port: int, body: bytes) -> None:
    status, answer = ask(port, "POST", INFER, body)

    assert status == 400
    assert answer["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": str(agent_oip_http.BODY_LIMIT_BYTES + 1)}, 413),
        ({"Content-Length": "9" * 30}, 400),
        ({"Content-Length": "-1"}, 400),
        ({"Content-Length": "0x10"}, 400),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Transfer-Encoding": "chunked", "Content-Length": "5"}, 411),
        ({"Content-Encoding": "br", "Content-Length": "5"}, 415),
        ({"Host": "attacker.example", "Content-Length": "0"}, 403),
        ({"Host": "localhost.attacker.example:8000", "Content-Length": "0"}, 403),
        ({"Host": "", "Content-Length": "0"}, 403),
        ({"Content-Length": str(agent_oip_http.BODY_LIMIT_BYTES + 1), "Expect": "100-continue"}, 413),
    ],
)
def test_request_when_its_head_cannot_be_right_then_refused_unread_and_closed(
    port: int, headers: dict[str, str], status: int
) -> None:
    lines = [f"{name}: {value}" for name, value in ({"Host": "localhost"} | headers).items()]

    answer = raw(port, f"POST {INFER} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer


def test_lengths_when_two_differ_then_refused(port: int) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" % INFER.encode()

    assert raw(port, head).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET /v2 HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
    ],
    ids=["tls", "short", "version", "long path", "many headers", "long header"],
)
def test_bytes_when_they_are_no_request_then_refused_and_closed(port: int, data: bytes) -> None:
    answer = raw(port, data)

    assert not answer or answer.startswith(b"HTTP/1.1 4")


def test_json_when_above_its_limit_then_413_and_the_way_out_is_named(port: int) -> None:
    body = b'{"inputs": [], "id": "' + b"a" * (4 * 1024 * 1024) + b'"}'

    status, answer = ask(port, "POST", INFER, body)

    assert status == 413
    assert "binary data" in answer["error"]


def test_body_when_it_unpacks_to_more_than_fits_then_413(port: int) -> None:
    bomb = gzip.compress(bytes(agent_oip_http.BODY_LIMIT_BYTES + 1))

    assert ask(port, "POST", INFER, bomb, {"Content-Encoding": "gzip"})[0] == 413
    assert ask(port, "POST", INFER, gzip.compress(REQUEST)[:-9], {"Content-Encoding": "gzip"})[0] == 413
    assert ask(port, "POST", INFER, b"no gzip", {"Content-Encoding": "gzip"})[0] == 400


def test_connections_when_too_many_then_503_and_a_place_comes_free(port: int) -> None:
    opened = [
        socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(agent_oip_http.CONNECTIONS_LIMIT)
    ]
    for each in opened:
        each.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert each.recv(100).startswith(b"HTTP/1.1 200 ")

    refused = raw(port, b"")
    for each in opened:
        each.close()

    assert refused.startswith(b"HTTP/1.1 503 ")
    parts.until(
        lambda: raw(port, b"GET /v2 HTTP/1.0\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 "), "a place"
    )


def test_bodies_when_too_many_at_a_time_then_503_and_room_comes_free() -> None:
    entered, leave = threading.Semaphore(0), threading.Event()

    def slow(asked: agent_oip_http.Asked) -> agent_oip_http.Reply:
        entered.release()
        leave.wait(20)
        return agent_oip_http.Reply(agent_oip_http.HTTPStatus.OK)

    server = agent_oip_http.Server("127.0.0.1:0", slow, lambda status, _: agent_oip_http.Reply(status))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port, body = int(server.where.rpartition(":")[2]), bytes(agent_oip_http.BODY_LIMIT_BYTES)
    held = [threading.Thread(target=ask, args=(port, "POST", "/", body)) for _ in range(4)]
    for each in held:
        each.start()
    for _ in held:
        assert entered.acquire(timeout=20)

    one_more = raw(port, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1")
    leave.set()
    for each in held:
        each.join(20)

    assert one_more.startswith(b"HTTP/1.1 503 ")
    assert ask(port, "POST", "/", body)[0] == 200
    server.finish(1)


def test_door_when_it_closes_then_the_request_under_way_is_answered() -> None:
    entered, leave, statuses = threading.Event(), threading.Event(), []

    def slow(asked: agent_oip_http.Asked) -> agent_oip_http.Reply:
        entered.set()
        leave.wait(20)
        return agent_oip_http.Reply(agent_oip_http.HTTPStatus.OK)

    server = agent_oip_http.Server("127.0.0.1:0", slow, lambda status, _: agent_oip_http.Reply(status))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = int(server.where.rpartition(":")[2])
    asking = threading.Thread(target=lambda: statuses.append(ask(port, "GET", "/")[0]))
    asking.start()
    assert entered.wait(20)

    finishing = threading.Thread(target=server.finish, args=(20,))
    finishing.start()
    parts.until(lambda: _refuses(port), "the door to close")
    leave.set()
    finishing.join(20)
    asking.join(20)

    assert statuses == [200]


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    "head", [b"", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"]
)
def test_request_when_it_trickles_in_then_cut_off_at_its_deadline(head: bytes) -> None:
    server = agent_oip_http.Server(
        "127.0.0.1:0",
        lambda _: agent_oip_http.Reply(agent_oip_http.HTTPStatus.OK),
        lambda status, _: agent_oip_http.Reply(status),
        request_s=0.3,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.create_connection(("127.0.0.1", int(server.where.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(head)
        parts.until(lambda: _is_cut_off(connection), "the door to close")
    server.finish(1)


def _is_cut_off(connection: socket.socket) -> bool:
    """Sends one more byte, which is what the patience of a server without a deadline would be fed with."""
    try:
        connection.sendall(b"a")
        connection.settimeout(0.01)
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_exchange_when_under_load_then_no_request_fails_and_each_says_its_version(device: parts.Device) -> None:
    device.start_agent("--oip-http", "127.0.0.1:0")
    device.offer("1.0.0")
    found = re.search(r"REST on 127.0.0.1:(\d+)", device.log("marram.ModelAgent"))
    assert found is not None
    answers: list[tuple[int, str, float]] = []
    over = threading.Event()

    def load() -> None:
        while not over.wait(0.001):
            status, answer = ask(int(found[1]), "POST", INFER, REQUEST)
            answers.append((status, answer.get("model_version"), round(answer["outputs"][0]["data"][0], 1)))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for each in threads:
        each.start()
    for version in ("1.1.0", "1.0.0", "1.1.0"):
        device.offer(version)
        parts.until(more_than(answers, len(answers) + 6), "answers after an exchange")
    over.set()
    for each in threads:
        each.join(parts.WAIT_S)

    assert {status for status, _, _ in answers} == {200}
    assert {version for _, version, _ in answers} == {"1.0.0", "1.1.0"}
    assert len({(version, value) for _, version, value in answers}) == 2


def more_than(answers: list[tuple[int, str, float]], least: int) -> Callable[[], bool]:
    return lambda: len(answers) > least


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8000", "8000", "192.168.0.1:1", "[::]:1", "localhost:", "127.0.0.1:65536", ""]
)
def test_address_when_others_could_reach_it_or_it_is_none_then_refused(address: str) -> None:
    with pytest.raises(agent_oip_address.AddressError, match=r"use 127\.0\.0\.1:PORT"):
        agent_oip_address.loopback(address)


@pytest.mark.parametrize("option", ["--oip-http", "--oip-grpc"])
def test_agent_when_a_door_would_be_reachable_by_others_then_it_does_not_start(
    device: parts.Device, option: str
) -> None:
    process = device.start("marram.ModelAgent", device.agent_files / "agent.py", option, "0.0.0.0:0")

    assert process.wait(parts.WAIT_S) == 1
    assert "cannot start the model agent: '0.0.0.0:0' is no address for a door" in device.log("marram.ModelAgent")


def test_agent_when_grpcio_is_missing_then_it_says_so_and_serves(device: parts.Device) -> None:
    (device.agent_files / "grpc.py").write_text("raise ImportError('no grpc here')\n")

    device.start_agent("--oip-grpc", "127.0.0.1:0")

    assert device.log("marram.ModelAgent").count("no gRPC door, no grpc here; install grpcio and protobuf") == 1
    assert device.offer("1.0.0").returncode == 0
