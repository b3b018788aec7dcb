"""Many connections: who is silent makes room, changes always get in, and a flood stays bounded."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import agent_connections
import agent_frames
import model_client
import pytest

from tests.components import parts

AGENT = "marram.ModelAgent"


@pytest.fixture
def many(device: parts.Device) -> Iterator[list[model_client.Client]]:
    """An agent that serves 1.0.0, and as many clients with a connection each as stay."""
    device.start_agent()
    device.offer("1.0.0")
    made = [model_client.Client(device.socket) for _ in range(agent_connections.LIMIT)]
    for each in made:
        parts.predict(each)
    yield made
    for each in made:
        each.close()


@contextlib.contextmanager
def busy(device: parts.Device) -> Iterator[None]:
    """As many connections as stay, each with requests under way for the next seconds: nobody takes the answers."""
    frames = agent_frames.encode({"op": "list"}) * 100
    with contextlib.ExitStack() as stack:
        asking = [stack.enter_context(connected(device)) for _ in range(agent_connections.LIMIT)]
        for each in asking:
            each.setblocking(False)
        while writable := select.select([], asking, [], 0.5)[1]:
            for each in writable:
                with contextlib.suppress(BlockingIOError):
                    each.send(frames)
        yield


def connected(device: parts.Device) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.connect(str(device.socket))  # waits while too many others do
    one.settimeout(20)
    return one


def ask_or_busy(device: parts.Device, header: dict[str, Any]) -> str:
    try:
        reply = parts.ask(device, header)
    except (OSError, agent_frames.ClosedError):  # it closed while we wrote
        return "closed"
    return str(reply.get("code", "ok"))


def test_changes_when_clients_keep_all_connections_then_each_gets_in_and_no_request_fails(
    device: parts.Device, many: list[model_client.Client]
) -> None:
    assert device.offer("1.1.0").returncode == 0
    assert parts.serving(device)[0]["version"] == "1.1.0"
    old, new = device.processes[0], device.start_agent()
    assert old.wait(parts.WAIT_S) == 0
    assert new.poll() is None
    assert "took over after" in device.log(AGENT)

    assert {parts.predict(each).version for each in many} == {"1.1.0"}


def test_clients_when_there_are_more_than_stay_then_all_are_answered(
    device: parts.Device, many: list[model_client.Client]
) -> None:
    more = [model_client.Client(device.socket) for _ in range(2 * agent_connections.RESERVE)]
    failed: list[str] = []

    def ask(each: model_client.Client) -> None:
        try:
            for _ in range(5):
                parts.predict(each)
        except (OSError, ValueError) as error:
            failed.append(str(error))

    threads = [threading.Thread(target=ask, args=(each,)) for each in many + more]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(parts.WAIT_S)
    for each in more:
        each.close()

    assert failed == []


def test_changes_when_all_connections_have_requests_under_way_then_they_get_in_and_predictions_hear_busy(
    device: parts.Device,
) -> None:
    device.start_agent()
    device.offer("1.0.0")
    with busy(device):
        assert [ask_or_busy(device, {"op": verb}) for verb in ("predict", "share")] == ["BUSY", "BUSY"]

        assert parts.serving(device)[0]["version"] == "1.0.0"
        assert device.offer("1.1.0").returncode == 0
        assert parts.serving(device)[0]["version"] == "1.1.0"


def test_flood_when_it_connects_and_is_silent_then_changes_get_in_all_the_same(device: parts.Device) -> None:
    device.start_agent()
    with contextlib.ExitStack() as stack:
        for _ in range(agent_connections.LIMIT + agent_connections.RESERVE):
            stack.enter_context(connected(device))

        assert device.offer("1.0.0").returncode == 0


def test_reserve_when_all_of_it_is_taken_then_refused_and_offers_wait_until_its_silence_ends(
    device: parts.Device,
) -> None:
    device.start_agent()
    with busy(device), contextlib.ExitStack() as stack:
        for _ in range(agent_connections.RESERVE):
            stack.enter_context(connected(device))
        parts.until(lambda: ask_or_busy(device, {"op": "list"}) in ("BUSY", "closed"), "the reserve to be full")

        assert device.offer("1.0.0").returncode == 0


def pair(stack: contextlib.ExitStack) -> socket.socket:
    ours, theirs = socket.socketpair()
    stack.enter_context(theirs)
    return stack.enter_context(ours)


def test_place_when_all_are_taken_then_the_one_that_is_silent_longest_ends() -> None:
    with contextlib.ExitStack() as stack:
        door = agent_connections.Connections(limit=2, reserve=1)
        first, second = door.enter(pair(stack)), door.enter(pair(stack))
        assert first is not None
        assert second is not None
        first.since, second.since = 2.0, 1.0

        third = door.enter(pair(stack))

        assert third is not None
        assert (first.ending, second.ending, third.reserved) == (False, True, False)
        assert second.connection.recv(1) == b""
        assert door.enter(pair(stack)) is None
        door.leave(second)
        assert door.enter(pair(stack)) is not None
        assert first.ending


def test_place_when_all_have_requests_under_way_or_are_lent_then_of_the_reserve_and_none_ends() -> None:
    with contextlib.ExitStack() as stack:
        door = agent_connections.Connections(limit=2, reserve=2)
        first, second = door.enter(pair(stack)), door.enter(pair(stack))
        assert first is not None
        assert second is not None
        first.answering = True
        door.lend(second)

        reserved = [door.enter(pair(stack)) for _ in range(2)]

        assert [place is not None and place.reserved for place in reserved] == [True, True]
        assert door.enter(pair(stack)) is None
        assert (first.ending, second.ending, door.answering()) == (False, False, True)
        door.drain()
        assert (first.ending, second.ending) == (True, False)


@pytest.mark.parametrize(("verb", "code"), [("release", 0), ("withdraw", 1)])
def test_farewell_when_the_agent_cannot_do_it_then_told_and_a_withdrawal_fails(
    device: parts.Device, verb: str, code: int
) -> None:
    refusal = {"ok": False, "code": "PERMISSION_DENIED", "message": "not yours"}
    with answering(device, [refusal]):
        done = device.hand_over(verb, "1.0.0")

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"the model agent did not {verb} {parts.MODEL_NAME}: PERMISSION_DENIED: not yours\n"


@pytest.mark.parametrize(
    ("verb", "why"),
    [
        *((verb, why) for verb in ("offer", "release", "withdraw") for why in ("BUSY", "closed")),
        *((verb, "RESOURCE_EXHAUSTED") for verb in ("release", "withdraw")),  # of an offer it is a verdict
    ],
)
def test_hand_over_when_the_agent_cannot_just_now_then_asked_again(device: parts.Device, verb: str, why: str) -> None:
    passing = None if why == "closed" else {"ok": False, "code": why, "message": "no room"}
    artifacts = ("--artifacts", parts.MODEL / "1.0.0") if verb == "offer" else ()
    with answering(device, [passing, passing, {"ok": True, "message": "done"}]):
        done = device.hand_over(verb, "1.0.0", *artifacts)

    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@contextlib.contextmanager
def answering(device: parts.Device, replies: list[dict[str, Any] | None]) -> Iterator[None]:
    """Another agent: one reply for each connection, given before anything is read, as by one that has no room."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(device.socket))
        listener.listen()

        def answer() -> None:
            for reply in replies:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    if reply is not None:
                        agent_frames.send(connection, reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join(parts.WAIT_S)
