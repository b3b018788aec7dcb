"""Our own synchronous client against the server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nucleus.ipc import client, socket_file
from nucleus.wire import rpc
from tests.nucleus import fakes_ipc


@pytest.fixture
def mine(world: fakes_ipc.World) -> Iterator[client.Client]:
    token = world.do(lambda: world.add("test.Mine", access=fakes_ipc.EVERYTHING, rate=5, limits={"high": 2}))
    with client.Client(str(world.path), token) as connected:
        yield connected


@pytest.fixture
def other(world: fakes_ipc.World) -> Iterator[client.Client]:
    token = world.do(lambda: world.add("test.Other", access=fakes_ipc.EVERYTHING))
    with client.Client(str(world.path), token) as connected:
        yield connected


def test_call_when_answered_then_the_body(mine: client.Client) -> None:
    assert mine.call("GetConfiguration", {"keyPath": ["rate"]}) == {"componentName": "test.Mine", "value": {"rate": 5}}


@pytest.mark.parametrize(
    ("path", "value"), [(("rate",), 5), (("RATE",), 5), (("limits",), {"high": 2}), (("limits", "high"), 2)]
)
def test_configuration_when_read_then_leaf_is_unwrapped(mine: client.Client, path: tuple[str, ...], value: Any) -> None:
    assert mine.get_configuration(*path) == value


def test_call_when_refused_then_error_with_code_message_and_body(mine: client.Client) -> None:
    with pytest.raises(client.IPCError) as refused:
        mine.call("GetComponentDetails", {"componentName": "nobody"})

    assert refused.value.code == "ResourceNotFoundError"
    assert refused.value.message == "cannot find component nobody: it is not on this device"
    assert refused.value.body["resourceName"] == "nobody"


def test_events_when_calls_are_made_between_then_none_is_lost_and_order_is_kept(
    mine: client.Client, other: client.Client
) -> None:
    with mine.subscribe("SubscribeToTopic", {"topic": "a"}) as events:
        for number in range(50):
            other.publish("a", {"n": number})
            mine.call("ListComponents")

        heard = [events.next_event(10) for _ in range(50)]

    assert [event["jsonMessage"]["message"]["n"] for event in heard if event] == list(range(50))


def test_publish_when_bytes_or_json_then_binary_or_json_message(mine: client.Client) -> None:
    with mine.subscribe("SubscribeToTopic", {"topic": "a"}) as events:
        mine.publish("a", b"\x00\x01")
        mine.publish("a", [1])

        assert events.next_event(10) == {"binaryMessage": {"message": "AAE=", "context": {"topic": "a"}}}
        assert events.next_event(10) == {"jsonMessage": {"message": [1], "context": {"topic": "a"}}}


def test_subscription_when_iterated_then_ends_with_the_server(socket_path: Path) -> None:
    world = fakes_ipc.World(socket_path, fakes_ipc.connection.Limits())
    with fakes_ipc.serving_in_thread(world):
        connected = client.Client(str(socket_path), world.do(lambda: world.add("a", access=fakes_ipc.EVERYTHING)))
        events = connected.subscribe("SubscribeToTopic", {"topic": "t"})
        connected.publish("t", 1)

    assert events.next_event() is not None
    with pytest.raises(client.IPCError, match="closed the connection"):
        events.next_event()
    assert events.next_event() is None
    with pytest.raises(client.IPCError, match="ConnectionError"):
        connected.call("ListComponents")


def test_subscription_when_closed_then_no_more_events_and_the_client_lives(mine: client.Client) -> None:
    events = mine.subscribe("SubscribeToTopic", {"topic": "a"})
    events.close()
    events.close()
    mine.publish("a", 1)

    assert events.next_event(0.01) is None
    assert mine.get_configuration("rate") == 5


def test_subscription_when_refused_then_error(mine: client.Client) -> None:
    with pytest.raises(client.IPCError, match="ResourceNotFoundError"):
        mine.subscribe("SubscribeToConfigurationUpdate", {"keyPath": ["nothing"]})


def test_event_when_none_comes_in_time_then_none(mine: client.Client) -> None:
    assert mine.subscribe("SubscribeToTopic", {"topic": "a"}).next_event(0.01) is None


def test_update_state_and_iot_core_when_used_then_arrive(world: fakes_ipc.World, mine: client.Client) -> None:
    mine.update_state("RUNNING")
    mine.publish_to_iot_core("t", b"\xff", qos=0)

    assert world.components.reports == [("test.Mine", "RUNNING")]
    assert world.uplink.published == [("t", b"\xff", 0, {})]


def test_large_messages_when_both_sides_send_them_then_no_deadlock(mine: client.Client) -> None:
    """The server stops reading a client that does not read; the client must read while it sends."""
    with mine.subscribe("SubscribeToTopic", {"topic": "a"}) as events:
        for _ in range(4):
            mine.publish("a", b"x" * 6_000_000)

        sizes = [len(event["binaryMessage"]["message"]) for _ in range(4) if (event := events.next_event(10))]

    assert sizes == [8_000_000] * 4


def test_connect_when_token_is_wrong_then_access_denied(world: fakes_ipc.World) -> None:
    with pytest.raises(client.IPCError, match="AccessDenied"):
        client.Client(str(world.path), "wrong")


def test_connect_when_nobody_listens_then_error_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(client.IPCError, match=r"cannot connect to .*nothing.*is the nucleus running"):
        client.Client(str(tmp_path / "nothing"), "x")


def test_connect_when_environment_is_missing_then_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(client.SOCKET_VARIABLE, raising=False)

    with pytest.raises(client.IPCError, match=client.SOCKET_VARIABLE):
        client.Client()


def test_call_when_server_is_silent_then_timeout(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen()

        def accept() -> None:
            with listener.accept()[0] as peer:
                peer.recv(1000)
                peer.sendall(rpc.encode(rpc.Kind.CONNECT_ACK, rpc.ACCEPTED, 0))
                while peer.recv(1000):
                    pass

        thread = threading.Thread(target=accept)
        thread.start()
        with client.Client(str(socket_path), "x") as connected, pytest.raises(client.IPCError, match="Timeout"):
            connected.call("ListComponents", timeout_s=0.05)
        thread.join(10)


def test_file_when_copied_alone_then_runs_from_the_environment_without_our_packages(
    world: fakes_ipc.World, tmp_path: Path
) -> None:
    token = world.do(lambda: world.add("test.Mine", access=fakes_ipc.EVERYTHING, rate=5))
    shutil.copy(client.__file__, tmp_path / "marram_ipc.py")
    memory = "[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')][0]"
    code = f"import marram_ipc; print(marram_ipc.Client().get_configuration('rate'), {memory})"
    environment = {client.SOCKET_VARIABLE: str(world.path), client.TOKEN_VARIABLE: token, "PATH": os.environ["PATH"]}

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.stderr == ""
    rate, resident_kib = done.stdout.split()
    assert rate == "5"
    assert int(resident_kib) <= 12 * 1024


# ---- the socket's file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A folder that makes the socket's path longer than 107 bytes."""
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    return folder


def test_socket_when_path_is_too_long_then_served_all_the_same_and_exported_relative(deep: Path) -> None:
    path = deep / "ipc.socket"
    with fakes_ipc.serving_in_thread(fakes_ipc.World(path, fakes_ipc.connection.Limits())) as world:
        token = world.do(lambda: world.add("a", access=fakes_ipc.EVERYTHING))
        with client.Client(str(path), token) as connected:
            assert connected.call("ListComponents")["components"]
        assert path.stat().st_mode & 0o777 == 0o666

    assert socket_file.exported(path) == "../../ipc.socket"
    assert not path.exists()


@pytest.mark.parametrize("length", [106, 107])
def test_socket_when_path_just_fits_then_exported_as_it_is(length: int) -> None:
    path = Path("/" + "x" * (length - 1))

    assert socket_file.exported(path) == str(path)


def test_socket_when_a_killed_predecessor_left_its_file_then_replaced(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))

    with socket_file.listen(socket_path), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(socket_path))


def test_socket_when_somebody_listens_or_it_is_no_socket_then_refused(socket_path: Path) -> None:
    with socket_file.listen(socket_path), pytest.raises(Exception, match="another nucleus listens there"):
        socket_file.listen(socket_path)

    plain = socket_path.with_name("plain")
    plain.write_text("precious")
    with pytest.raises(Exception, match="there is something else"):
        socket_file.listen(plain)
    assert plain.read_text() == "precious"
