"""One client of many threads, of a process that forks, and of callers that write to its answers or ask for the impossible."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import model_client
import numpy as np
import pytest

from tests.components import models, parts

SMALL, LARGE = 8, 4096  # over the socket, in shared memory


@pytest.fixture(scope="module")
def served() -> Iterator[parts.Device]:
    """One agent whose model answers what it was asked."""
    with parts.device() as made:
        made.start_agent()
        folder = models.identity(made.root / "echo", "echo", {"x": "float32"})
        named = {"component": "com.example.echo", "version": "1.0.0"}
        assert parts.ask(made, {"op": "offer", **named, "artifacts": str(folder)})["ok"]
        yield made


@pytest.fixture
def client(served: parts.Device) -> Iterator[model_client.Client]:
    made = model_client.Client(served.socket)
    yield made
    made.close()


def wrong(client: model_client.Client, size: int, value: float, times: int) -> int:
    """How many answers are another's."""
    asked = {"x": np.full(size, value, dtype=np.float32)}
    answers = [client.predict("echo", asked, deadline_s=20).outputs["x_out"] for _ in range(times)]
    return sum(answer.shape != (size,) or not bool((answer == value).all()) for answer in answers)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_client_when_more_threads_ask_than_it_has_turns_then_each_gets_its_own_answers(
    client: model_client.Client, size: int
) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda value=value: found.append(wrong(client, size, float(value), 50)))
        for value in range(model_client.AT_A_TIME + 4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(parts.WAIT_S)

    assert found == [0] * len(threads)


FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # of Python 3.12


@FORKS
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_client_when_its_process_forks_then_both_get_their_own_answers(client: model_client.Client, size: int) -> None:
    assert wrong(client, size, 1.0, 1) == 0
    began, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(began[1], b"x")
            os.write(told[1], bytes([wrong(client, size, 2.0, 100)]))
        finally:
            os._exit(0)
    os.read(began[0], 1)

    ours = wrong(client, size, 3.0, 100)

    theirs = os.read(told[0], 1)
    os.waitpid(child, 0)
    for each in (*began, *told):
        os.close(each)
    assert (ours, theirs) == (0, b"\0")
    assert (
        client.predict("echo", {"x": np.zeros(size, np.float32)}, deadline_s=20).tries == 1
    )  # over the connection it had


@FORKS
def test_client_when_a_forked_child_only_lives_then_it_holds_none_of_the_parents_connections(
    served: parts.Device, client: model_client.Client
) -> None:
    wrong(client, LARGE, 1.0, 1)
    told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(told[1], bytes([sum("socket:" in str(each.readlink()) for each in descriptors())]))
        finally:
            os._exit(0)

    held = os.read(told[0], 1)[0]

    os.waitpid(child, 0)
    for each in told:
        os.close(each)
    assert held == sum("socket:" in str(each.readlink()) for each in descriptors()) - 1


def descriptors() -> list[Path]:
    return [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]


class InterruptedCallError(Exception):
    """What a signal's handler raises."""


def stopped(device: parts.Device) -> bool:
    tasks = Path(f"/proc/{device.processes[0].pid}/task")
    return {(task / "stat").read_text().rpartition(") ")[2][0] for task in tasks.iterdir()} == {"T"}


def test_client_when_a_request_is_interrupted_then_its_late_reply_is_nobodys(
    served: parts.Device, client: model_client.Client
) -> None:
    wrong(client, SMALL, 1.0, 1)

    def interrupt(*_: object) -> None:
        raise InterruptedCallError

    before = signal.signal(signal.SIGALRM, interrupt)
    served.processes[0].send_signal(signal.SIGSTOP)
    try:
        parts.until(lambda: stopped(served), "the agent to stop")
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(InterruptedCallError):
            wrong(client, SMALL, 2.0, 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        served.processes[0].send_signal(signal.SIGCONT)

    assert wrong(client, SMALL, 3.0, 20) == 0


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("size", [0, 1, SMALL, LARGE, 1_000_000])
def test_answer_when_it_came_either_way_then_its_array_may_be_written_to(
    served: parts.Device, size: int, shared: bool
) -> None:
    client = model_client.Client(served.socket, shared=shared)
    for _ in range(2):  # the size of the first one's answer is news to the client
        answer = client.predict("echo", {"x": np.ones(size, np.float32)}, deadline_s=20).outputs["x_out"]

        answer *= 2

        assert answer.shape == (size,)
        assert bool((answer == 2).all())
    client.close()


def test_predict_when_the_header_is_too_large_then_rejected_at_once_and_the_next_is_answered(
    client: model_client.Client,
) -> None:
    many = {f"{number}" * 40: np.ones(1, np.float32) for number in range(1000, 1900)}

    with pytest.raises(model_client.RejectedError, match=r"header of .* bytes is above the limit"):
        client.predict("echo", many, deadline_s=1e9)

    assert wrong(client, SMALL, 1.0, 1) == 0


def test_predict_when_there_is_no_agent_then_it_pauses_between_tries(device: parts.Device) -> None:
    client = model_client.Client(device.socket)

    with pytest.raises(model_client.UnansweredError, match=r"within 0.3 s \(\d tries\): UNANSWERED: .*No such file"):
        client.predict("echo", {"x": np.ones(1, np.float32)}, deadline_s=0.3)


def test_predict_when_the_path_can_be_no_sockets_then_rejected_at_once() -> None:
    client = model_client.Client("/tmp/" + "x" * 150)

    with pytest.raises(model_client.RejectedError, match=r"cannot reach the agent at /tmp/x.*too long"):
        client.predict("echo", {"x": np.ones(1, np.float32)}, deadline_s=1e9)


def test_predict_when_the_deadline_is_no_number_then_rejected(client: model_client.Client) -> None:
    with pytest.raises(model_client.RejectedError, match="deadline_s must be a number of seconds, not nan"):
        client.predict("echo", {"x": np.ones(1, np.float32)}, deadline_s=float("nan"))


def test_predict_when_the_deadline_has_no_end_then_answered(client: model_client.Client) -> None:
    answer = client.predict("echo", {"x": np.ones(1, np.float32)}, deadline_s=float("inf"))

    assert answer.outputs["x_out"].tolist() == [1.0]


def test_close_when_another_thread_asks_then_both_go_on(client: model_client.Client) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(wrong(client, LARGE, 1.0, 100)))
    thread.start()
    while thread.is_alive():
        client.close()
    thread.join(parts.WAIT_S)

    assert found == [0]
    assert wrong(client, LARGE, 2.0, 1) == 0
