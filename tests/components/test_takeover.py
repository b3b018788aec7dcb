"""An agent takes the place of the one that runs: real processes, clients that never stop asking, and deaths at every step."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_aliases
import agent_frames
import agent_listener
import agent_registry
import agent_takeover
import grpc
import hand_over
import model_client
import psutil
import pytest

from tests.components import crashing, parts

AGENT = "marram.ModelAgent"


@pytest.fixture
def device() -> Iterator[parts.Device]:
    with parts.device() as made:
        yield made


class Clients:
    """Threads that ask without a pause; `gaps_s` has the longest time between two answers of each."""

    def __init__(self, path: Path, count: int) -> None:
        self.answers, self.failed, self.tries = 0, list[str](), 0
        self.gaps_s: list[float] = [0.0] * count
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(path, number)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, path: Path, number: int) -> None:
        client = model_client.Client(str(path))
        before = time.monotonic()
        while not self._stop.is_set():
            try:
                answer = client.predict("power-curve", parts.BATCH, deadline_s=20)
                assert answer.outputs["power_kw"].shape[0] == len(parts.BATCH["conditions"])
            except (OSError, ValueError, AssertionError) as error:
                self.failed.append(repr(error))
                continue
            now = time.monotonic()
            self.gaps_s[number], before = max(self.gaps_s[number], now - before), now
            self.answers, self.tries = self.answers + 1, self.tries + answer.tries - 1
        client.close()


def reached(device: parts.Device, *steps: str) -> agent_takeover.Predecessor:
    """This process as the one that takes over, up to the last of `steps`."""
    found = agent_takeover.find(str(device.socket))
    assert found is not None, device.log(AGENT)
    if "freeze" in steps:
        found.freeze()
    if "hand" in steps:
        listening, lock = found.hand(str(device.socket), device.work(AGENT) / "registry")
        listening.close()
        os.close(lock)
    if "taken" in steps:
        found.taken()
    return found


STEPS = ("freeze", "hand", "taken")


def test_update_when_clients_never_stop_asking_then_no_request_fails_and_the_old_agents_end_by_themselves(
    device: parts.Device, capsys: pytest.CaptureFixture[str]
) -> None:
    agents = [device.start_agent()]
    assert device.offer("1.0.0").returncode == 0
    clients = Clients(device.socket, 4)
    try:
        for _ in range(3):
            seen = clients.answers
            parts.until(lambda seen=seen: clients.answers > seen + 50)
            agents.append(device.start_agent())
            assert agents[-2].wait(parts.WAIT_S) == 0
            seen = clients.answers
            parts.until(lambda seen=seen: clients.answers > seen + 50)
    finally:
        clients.stop()

    assert clients.failed == []
    assert agents[-1].poll() is None
    assert device.log(AGENT).count("took over after") == 3
    with capsys.disabled():
        longest = max(clients.gaps_s) * 1000
        print(f"\n3 take-overs: {clients.answers} answers, {clients.tries} retries, longest gap {longest:.0f} ms")


def test_update_when_it_is_done_then_the_new_agent_has_socket_lock_and_table(device: parts.Device) -> None:
    device.start_agent()
    device.offer("1.0.0")
    new = device.start_agent()

    assert parts.serving(device)[0]["version"] == "1.0.0"
    assert device.offer("1.1.0").returncode == 0
    with pytest.raises(agent_registry.StoreError, match="another model agent holds"):
        agent_registry.Registry.open(device.work(AGENT) / "registry", wait_s=0)
    new.terminate()
    assert new.wait(parts.WAIT_S) == 0
    assert not device.socket.exists()
    device.start_agent()
    assert parts.serving(device)[0]["version"] == "1.1.0"


@pytest.mark.parametrize("number", range(len(STEPS) + 1), ids=["hello", *STEPS])
def test_successor_when_it_dies_after_a_step_then_the_old_agent_goes_on_with_everything(
    device: parts.Device, number: int
) -> None:
    agent = device.start_agent()
    device.offer("1.0.0")
    reached(device, *STEPS[:number]).close()

    with_client = model_client.Client(str(device.socket))
    assert parts.predict(with_client).version == "1.0.0"
    with_client.close()
    assert device.offer("1.1.0").returncode == 0
    assert agent.poll() is None
    device.start_agent()
    assert agent.wait(parts.WAIT_S) == 0
    assert parts.serving(device)[0]["version"] == "1.1.0"


def test_offer_when_the_store_is_frozen_then_busy_and_hand_over_asks_until_it_is_taken(device: parts.Device) -> None:
    device.start_agent()
    device.offer("1.0.0")
    successor = reached(device, "freeze")
    offer = {"op": "offer", "component": parts.MODEL_NAME, "version": "1.1.0", "artifacts": str(parts.MODEL / "1.1.0")}

    assert parts.ask(device, offer)["code"] == "BUSY"
    assert parts.ask(device, {"op": "release_hold", "alias": "power-curve"})["code"] == "BUSY"
    assert parts.serving(device)[0]["version"] == "1.0.0"
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(device.offer("1.1.0").returncode))
    thread.start()
    successor.close()
    thread.join()
    assert codes == [0]


def test_withdraw_when_the_store_is_frozen_then_it_is_not_lost(device: parts.Device) -> None:
    device.start_agent()
    device.offer("1.0.0")
    successor = reached(device, "freeze")
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = str(device.root / "between")
    connected.bind(path)
    connected.listen()
    told: list[int] = []
    request = {"op": "withdraw", "component": parts.MODEL_NAME, "version": "1.0.0"}
    thread = threading.Thread(target=lambda: told.append(hand_over.farewell(request, path)))
    thread.start()
    with connected:
        for last in (False, True):
            client, _ = connected.accept()
            with client:
                header, _ = agent_frames.receive(client)
                if last:
                    successor.close()
                    parts.until(lambda: "is gone" in device.log(AGENT))
                agent_frames.send(client, parts.ask(device, header))
    thread.join()

    assert told == [0]
    assert parts.serving(device) == []


def test_old_agent_when_it_is_stopped_after_it_gave_everything_then_it_leaves_the_socket_alone(
    device: parts.Device,
) -> None:
    old = device.start_agent()
    device.offer("1.0.0")
    successor = reached(device, *STEPS)
    old.terminate()

    assert old.wait(parts.WAIT_S) == 0
    assert device.socket.exists()
    successor.close()


def test_old_agent_when_the_new_one_changed_the_store_and_died_then_it_starts_anew(device: parts.Device) -> None:
    old = device.start_agent()
    device.offer("1.0.0")
    successor = reached(device, *STEPS)
    registry = device.work(AGENT) / "registry/registry.json"
    registry.with_suffix(".new").write_bytes(registry.read_bytes())
    registry.with_suffix(".new").replace(registry)
    successor.close()

    assert old.wait(parts.WAIT_S) == 1
    device.start_agent()
    assert parts.serving(device)[0]["version"] == "1.0.0"


def test_second_successor_when_one_is_at_it_then_it_finds_nobody_to_take_over_from(device: parts.Device) -> None:
    device.start_agent()
    first = reached(device)

    assert agent_takeover.find(str(device.socket)) is None
    first.close()


def test_steps_when_out_of_order_then_refused(device: parts.Device) -> None:
    device.start_agent()

    for step in ("freeze", "hand", "taken", "done", "x"):
        assert parts.ask(device, {"op": "take_over", "step": step, "format": 1})["code"] == "INVALID_ARGUMENT"
    found = reached(device)
    with pytest.raises(agent_takeover.LostError, match="INVALID_ARGUMENT"):
        found.taken()
    found.close()
    assert parts.serving(device) == []


def test_store_when_it_changed_after_it_was_read_then_it_is_read_again(device: parts.Device) -> None:
    device.start_agent()
    device.offer("1.0.0")
    read: list[agent_registry.Registry] = []

    def restored(registry: agent_registry.Registry) -> agent_aliases.Aliases:
        aliases = agent_aliases.Aliases(registry, 600)
        aliases.restore()
        read.append(registry)
        if len(read) == 1:
            assert device.offer("1.1.0").returncode == 0
        return aliases

    begun = agent_takeover.start(str(device.socket), device.work(AGENT) / "registry", restored)

    assert [each.aliases["power-curve"].serving.version for each in read] == ["1.0.0", "1.1.0"]
    serving = begun.aliases.serving("power-curve")
    assert serving is not None
    assert serving.version == "1.1.0"
    begun.listener.close()
    begun.registry.close()
    assert begun.predecessor is not None
    begun.predecessor.done()


def test_store_when_it_changed_after_it_was_read_then_what_was_loaded_before_that_is_let_go(
    device: parts.Device, tmp_path: Path
) -> None:
    """A small device has no room for a third set of all models, nor for processes that nobody asks."""
    device.start_agent()
    folder = crashing.laborer(tmp_path / "labor", "labor")
    request = {"op": "offer", "component": "com.example.labor", "version": "1.0.0", "artifacts": str(folder)}
    assert parts.ask(device, request | {"settings": {"isolated": True}})["ok"]
    own = psutil.Process()
    before = set(own.children())
    loaded: list[agent_aliases.Aliases] = []

    def restored(registry: agent_registry.Registry) -> agent_aliases.Aliases:
        aliases = agent_aliases.Aliases(registry, 600)
        aliases.restore()
        loaded.append(aliases)
        if len(loaded) == 1:
            assert device.offer("1.0.0").returncode == 0
        return aliases

    begun = agent_takeover.start(str(device.socket), device.work(AGENT) / "registry", restored)

    serving = begun.aliases.serving("labor")
    assert serving is not None
    assert {one.pid for one in set(own.children()) - before} == {serving.model.process["process"]["pid"]}
    serving.model.retire()
    begun.listener.close()
    begun.registry.close()
    assert begun.predecessor is not None
    begun.predecessor.done()


# ---- who is no predecessor -------------------------------------------------------------------------------------------


class Fake:
    """Listens at the agent's socket and answers each frame with the next of `replies`, then closes the connection."""

    def __init__(self, path: Path, *replies: Any) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._replies = replies
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            for reply, *descriptors in self._replies:
                agent_frames.receive(connection)
                socket.send_fds(connection, [agent_frames.encode(reply)], descriptors)

    def join(self) -> None:
        self._thread.join()


GOOD = {"ok": True, "format": 1}
OLD_RELEASE = {"ok": False, "code": "INVALID_ARGUMENT", "message": "unknown operation 'take_over'"}


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        ([(OLD_RELEASE,)], "unknown operation"),
        ([(GOOD | {"format": 2},)], "speaks format 2"),
        ([], "no answer to hello"),
        ([(GOOD,)], "no answer to freeze"),
        ([(GOOD,), (GOOD,)], "no answer to hand"),
        ([(GOOD,), (GOOD,), (GOOD,)], "gave 0 descriptors"),
        ([(GOOD,), (GOOD,), (GOOD, 0, 0)], "not the lock of this store"),
    ],
    ids=["old release", "format", "dead", "dies at freeze", "dies at hand", "no descriptors", "wrong descriptors"],
)
def test_start_when_who_listens_is_no_predecessor_then_as_if_there_was_nobody(
    device: parts.Device, replies: list[Any], told: str
) -> None:
    fake = Fake(device.socket, *replies)
    (device.work(AGENT) / "registry").mkdir()
    (device.work(AGENT) / "registry/lock").touch()
    device.start_agent()
    fake.join()

    assert told in device.log(AGENT)
    assert device.offer("1.0.0").returncode == 0


def test_start_when_the_predecessor_is_killed_with_the_socket_handed_then_the_new_one_starts_anew(
    device: parts.Device,
) -> None:
    old = device.start_agent()
    device.offer("1.0.0")
    found = reached(device, "freeze", "hand")
    old.send_signal(signal.SIGKILL)
    old.wait(parts.WAIT_S)
    with pytest.raises(agent_takeover.LostError, match="no answer to taken"):
        found.taken()
    found.close()

    device.start_agent()
    assert parts.serving(device)[0]["version"] == "1.0.0"


# ---- the listening socket --------------------------------------------------------------------------------------------


def test_listener_when_paused_then_what_comes_is_for_who_else_has_the_socket(device: parts.Device) -> None:
    listening, path = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(device.socket)
    listening.bind(path)
    listening.listen()
    other = agent_listener.Listener(listening.dup())
    one = agent_listener.Listener(listening)
    accepted: list[socket.socket | None] = []
    threads = [threading.Thread(target=lambda: accepted.append(one.accept())) for _ in range(2)]
    one.pause()
    for thread in threads:
        thread.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(path)
        found = other.accept()
        assert found is not None
        found.close()
    assert accepted == []
    one.resume()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(path)
        parts.until(lambda: accepted)
        assert accepted[0] is not None
        accepted[0].close()
        one.close()
        for thread in threads:
            thread.join()
    assert accepted[1] is None
    other.close()


# ---- the other doors -------------------------------------------------------------------------------------------------


class RestClients:
    """One thread that asks over one connection after the other, and one that keeps its connection as long as it is kept."""

    def __init__(self, connect: Callable[[], http.client.HTTPConnection]) -> None:
        self.answers, self.failed, self.again = 0, list[str](), 0
        self._connect = connect
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(kept,)) for kept in (False, True)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, kept: bool) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            try:
                connection.request("GET", "/v2/models/power-curve/ready")
                assert connection.getresponse().read() is not None
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                # What HTTP/1.1 lets a server do with a connection that is kept: close it between two requests.
                if kept and isinstance(error, http.client.RemoteDisconnected | BrokenPipeError | ConnectionResetError):
                    self.again += 1
                else:
                    self.failed.append(f"{kept} {error!r}")
                connection.close()
            if not kept:
                connection.close()
        connection.close()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
def test_rest_door_when_the_agent_is_replaced_then_there_is_always_one(device: parts.Device, unix: bool) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    path = device.work(AGENT) / "rest.sock"
    option = ("--oip-http", "unix:rest.sock" if unix else f"127.0.0.1:{port}")
    old = device.start_agent(*option)
    device.offer("1.0.0")
    clients = RestClients(
        lambda: UnixConnection(path) if unix else http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    )
    try:
        parts.until(lambda: clients.answers > 50)
        new = device.start_agent(*option)
        assert old.wait(parts.WAIT_S) == 0
        seen = clients.answers
        parts.until(lambda: clients.answers > seen + 50)
    finally:
        clients.stop()

    # Two processes at one TCP port are two queues: what the kernel put into the old one as it closed is reset.
    assert len(clients.failed) <= (0 if unix else 1), clients.failed
    assert clients.again <= 1
    new.terminate()
    assert new.wait(parts.WAIT_S) == 0
    assert not path.exists()


def test_grpc_doors_when_the_agent_is_replaced_then_a_kept_channel_goes_on(device: parts.Device) -> None:
    edge = device.work(AGENT) / "edge.sock"
    option = ("--oip-grpc", "unix:grpc.sock", "--edge-manager", json.dumps({"socketPath": str(edge)}))
    old = device.start_agent(*option)
    device.offer("1.0.0")
    failed, answers, stop = list[str](), list[float](), threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(f"unix:{device.work(AGENT) / 'grpc.sock'}") as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            while not stop.is_set():
                try:
                    assert live(b"", timeout=20) == b"\x08\x01"
                    answers.append(time.monotonic())
                except grpc.RpcError as error:
                    failed.append(str(error.code()))  # type: ignore[attr-defined]

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        parts.until(lambda: len(answers) > 50)
        device.start_agent(*option)
        assert old.wait(parts.WAIT_S) == 0
        seen = len(answers)
        parts.until(lambda: len(answers) > seen + 50)
    finally:
        stop.set()
        thread.join()

    # A server of grpc that stops cancels the call that comes in that moment; the channel goes on by itself.
    assert failed in ([], ["StatusCode.CANCELLED"], ["StatusCode.UNAVAILABLE"])
    assert edge.exists()
    assert device.log(AGENT).count("edge manager: gRPC on") == 2


def test_doors_when_somebody_else_listens_there_then_the_agent_does_not_start(device: parts.Device) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        agent = device.start(
            AGENT, device.agent_files / "agent.py", "--oip-http", f"127.0.0.1:{other.getsockname()[1]}"
        )
        assert agent.wait(parts.WAIT_S) == 1

    assert "Address already in use" in device.log(AGENT)
