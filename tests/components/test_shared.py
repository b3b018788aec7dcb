"""Tensors in memory that a client shares with the agent: the answers of the socket, and no harm to others."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_frames
import agent_shared
import model_client
import numpy as np
import pytest

from tests.components import models, parts

SIZE = 1024 * 1024
COUNT = 2048
WHOLE = {"name": "x", "dtype": "float32", "shape": [COUNT], "at": 0}


@pytest.fixture(scope="module")
def served() -> Iterator[parts.Device]:
    """One agent with a model that answers what it was asked, "echo" for float32 and "types" for one input of each type."""
    with parts.device() as made:
        made.start_agent()
        for alias, tensors in (("echo", {"x": "float32"}), ("types", {name: name for name in models.DTYPES})):
            folder = models.identity(made.root / alias, alias, tensors)
            named = {"component": f"com.example.{alias}", "version": "1.0.0"}
            assert parts.ask(made, {"op": "offer", **named, "artifacts": str(folder)})["ok"]
        yield made


@pytest.fixture
def talk(served: parts.Device) -> Iterator[Talk]:
    made = Talk(served)
    yield made
    made.close()


class Talk:
    """A client by hand, which may do what none should."""

    def __init__(self, device: parts.Device) -> None:
        self.device = device
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.settimeout(20)
        self.connection.connect(str(device.socket))
        self.descriptors: list[int] = []

    def ask(self, header: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        agent_frames.send(self.connection, header, body)
        return agent_frames.receive(self.connection)

    def share(self, *descriptors: int) -> dict[str, Any]:
        socket.send_fds(self.connection, [agent_frames.encode({"op": "share"})], descriptors)
        return agent_frames.receive(self.connection)[0]

    def predict(self, *tensors: dict[str, Any], **more: Any) -> dict[str, Any]:
        asked = {"op": "predict", "alias": "echo", "tensors": list(tensors), "deadline_s": 10, **more}
        return self.ask(asked)[0]

    def memory(self, size: int = SIZE, seals: int = fcntl.F_SEAL_SHRINK) -> int:
        descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.descriptors.append(descriptor)
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return descriptor

    def close(self) -> None:
        self.connection.close()
        for each in self.descriptors:
            os.close(each)


def agent_of(device: parts.Device) -> Path:
    return Path("/proc") / str(device.processes[0].pid)


def memories(device: parts.Device) -> int:
    """How many memories of clients the agent has mapped."""
    return (agent_of(device) / "maps").read_text().count("memfd:")


def descriptors(device: parts.Device) -> int:
    return len(list((agent_of(device) / "fd").iterdir()))


def settled(device: parts.Device) -> int:
    """How many descriptors the agent has when it has no connection: of sockets only the one it listens on."""

    def connections() -> int:
        links = []
        for each in (agent_of(device) / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(str(each.readlink()))
        return sum(link.startswith("socket:") for link in links) - 1

    parts.until(lambda: (connections(), memories(device)) == (0, 0), "other tests' connections to be closed")
    return descriptors(device)


def stopped(device: parts.Device) -> bool:
    states = [(task / "stat").read_text().rpartition(") ")[2][0] for task in (agent_of(device) / "task").iterdir()]
    return set(states) == {"T"}


def unharmed(device: parts.Device) -> bool:
    """Whether the agent answers others, rightly."""
    client = model_client.Client(str(device.socket))
    array = np.arange(COUNT, dtype=np.float32)
    answer = client.predict("echo", {"x": array}, deadline_s=20)
    client.close()
    return bool(np.array_equal(answer.outputs["x_out"], array))


def of_every_type(count: int) -> dict[str, Any]:
    random = np.random.default_rng(count)
    return {
        name: random.random(count).astype(name)
        if name.startswith("float")
        else random.integers(0, 2, count).astype(name)
        for name in models.DTYPES
    }


@pytest.mark.parametrize("count", [1, 1000, 100_000])
def test_predict_when_memory_is_shared_then_every_type_is_answered_as_over_the_socket(
    served: parts.Device, count: int
) -> None:
    inputs = of_every_type(count)
    answers = []
    settled(served)
    for shared in (False, True):
        client = model_client.Client(str(served.socket), shared=shared)
        answers.append(client.predict("types", inputs, deadline_s=20))
        assert memories(served) == int(shared and count > 1)
        client.close()
        parts.until(lambda: memories(served) == 0, "the memory to be unmapped")

    for name, array in inputs.items():
        for answer in answers:
            assert answer.outputs[f"{name}_out"].dtype == array.dtype
            assert answer.outputs[f"{name}_out"].tobytes() == array.tobytes()
    assert [list(answer.outputs) for answer in answers] == [[f"{name}_out" for name in inputs]] * 2


def test_predict_when_arrays_are_strided_or_foreign_then_their_values_arrive(served: parts.Device) -> None:
    client = model_client.Client(str(served.socket))
    wide = np.arange(4 * COUNT, dtype=np.float32)
    for array in (wide[::2], wide[::-1], wide.astype(">f4"), wide):
        answer = client.predict("echo", {"x": array}, deadline_s=20)

        assert np.array_equal(answer.outputs["x_out"], array)
    client.close()


def test_answer_when_more_are_asked_for_then_it_stays(served: parts.Device) -> None:
    client = model_client.Client(str(served.socket))
    first = client.predict("echo", {"x": np.full(COUNT, 1, dtype=np.float32)}, deadline_s=20)

    second = client.predict("echo", {"x": np.full(COUNT, 2, dtype=np.float32)}, deadline_s=20)

    assert (set(first.outputs["x_out"]), set(second.outputs["x_out"])) == ({1.0}, {2.0})
    client.close()


def test_predict_when_the_agent_was_late_then_its_old_answer_harms_no_new_one(served: parts.Device) -> None:
    client = model_client.Client(str(served.socket))
    client.predict("echo", {"x": np.zeros(COUNT, dtype=np.float32)}, deadline_s=20)
    served.processes[0].send_signal(signal.SIGSTOP)
    try:
        parts.until(lambda: stopped(served), "the agent to stop")
        with pytest.raises(model_client.UnansweredError):
            client.predict("echo", {"x": np.full(COUNT, 7, dtype=np.float32)}, deadline_s=0.2)
    finally:
        served.processes[0].send_signal(signal.SIGCONT)

    for value in range(20):
        answer = client.predict("echo", {"x": np.full(COUNT, value, dtype=np.float32)}, deadline_s=20)
        assert set(answer.outputs["x_out"]) == {float(value)}
    client.close()


def test_predict_when_the_client_is_an_old_one_then_bytes_come_back(talk: Talk) -> None:
    array = np.arange(COUNT, dtype=np.float32)

    reply, body = talk.ask(
        {
            "op": "predict",
            "alias": "echo",
            "tensors": [{"name": "x", "dtype": "float32", "shape": [COUNT]}],
            "deadline_s": 5,
        },
        array.tobytes(),
    )

    assert reply["tensors"] == [{"name": "x_out", "dtype": "float32", "shape": [COUNT]}]
    assert body == array.tobytes()


def test_predict_when_the_agent_is_an_old_one_then_it_gets_bytes() -> None:
    array = np.arange(COUNT, dtype=np.float32)
    with other_agent() as client:
        answers = [client.predict("echo", {"x": array}, deadline_s=20) for _ in range(3)]

    assert all(np.array_equal(answer.outputs["y"], array) for answer in answers)
    assert [answer.tries for answer in answers] == [1, 1, 1]


def test_predict_when_the_last_connection_is_gone_then_a_new_one_is_tried_without_a_pause() -> None:
    array = np.arange(COUNT, dtype=np.float32)
    with other_agent(requests=2) as client:  # `share` and a prediction
        answers = [client.predict("echo", {"x": array}, deadline_s=20) for _ in range(3)]

    assert all(np.array_equal(answer.outputs["y"], array) for answer in answers)
    assert [answer.tries for answer in answers] == [1, 2, 2]


@contextlib.contextmanager
def other_agent(requests: int = 1000) -> Iterator[model_client.Client]:
    """A client of an agent that knows nothing of shared memory, and that ends each connection after some requests."""
    with (
        tempfile.TemporaryDirectory(prefix="m") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        listener.bind(f"{folder}/s")
        listener.listen()
        thread = threading.Thread(target=answer_all, args=(listener, requests))
        thread.start()
        client = model_client.Client(f"{folder}/s")
        yield client
        client.close()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(parts.WAIT_S)


def answer_all(listener: socket.socket, requests: int) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(agent_frames.ClosedError):
            for _ in range(requests):
                answer_as_an_old_one(connection)


def answer_as_an_old_one(connection: socket.socket) -> None:
    """A prediction is its input."""
    header, body = agent_frames.receive(connection)
    if header["op"] != "predict":
        agent_frames.send(connection, {"ok": False, "code": "INVALID_ARGUMENT", "message": "unknown operation"})
        return
    reply = {"ok": True, "component": "c", "version": "1", "tensors": [{**header["tensors"][0], "name": "y"}]}
    agent_frames.send(connection, reply, body)


def test_room_when_the_answer_does_not_fit_then_it_comes_in_the_body(talk: Talk) -> None:
    memory = talk.memory()
    array = np.arange(COUNT, dtype=np.float32)
    os.pwrite(memory, array.tobytes(), 0)
    assert talk.share(memory) == {"ok": True, "bytes": SIZE}

    for room in ([0, 100], [SIZE, 0], None):
        reply, body = talk.ask({"op": "predict", "alias": "echo", "tensors": [WHOLE], "room": room})

        assert "at" not in reply["tensors"][0]
        assert body == array.tobytes()


def test_overlaps_when_places_are_the_same_then_the_answer_is_right(talk: Talk) -> None:
    memory = talk.memory()
    array = np.arange(COUNT, dtype=np.float32)
    os.pwrite(memory, array.tobytes(), 1)
    talk.share(memory)

    reply = talk.predict({**WHOLE, "at": 1}, room=[1, SIZE - 1])  # the answer over the input, both at an odd place

    assert reply["tensors"][0]["at"] == 1
    assert os.pread(memory, array.nbytes, 1) == array.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"at": -1},
        {"at": SIZE},
        {"at": 2**63},
        {"at": 1.5},
        {"at": True},
        {"at": "0"},
        {"at": None},
        {"shape": [2**40]},
        {"shape": [2**62, 2**62]},
        {"room": [0, SIZE + 1]},
        {"room": [-1, 4]},
        {"room": [SIZE, 1]},
        {"room": [0]},
        {"room": "all"},
        {"room": [0, None]},
    ],
    ids=str,
)
def test_place_when_it_is_not_in_the_memory_then_told(talk: Talk, change: dict[str, Any]) -> None:
    talk.share(talk.memory())
    room = {"room": change.pop("room")} if "room" in change else {}

    reply = talk.predict({**WHOLE, **change}, **room)

    assert (reply["ok"], reply["code"]) == (False, "INVALID_ARGUMENT")
    assert talk.predict(WHOLE)["ok"]


def test_place_when_no_memory_is_shared_then_told(talk: Talk) -> None:
    assert "shares no memory" in talk.predict(WHOLE)["message"]
    assert "shares no memory" in talk.predict(room=[0, 4])["message"]


def unsealed(talk: Talk) -> int:
    return talk.memory(seals=0)


def of_no_size(talk: Talk) -> int:
    return talk.memory(0)


def too_large(talk: Talk) -> int:
    return talk.memory(agent_shared.MEMORY_LIMIT_BYTES + 1)


def read_only(talk: Talk) -> int:
    return talk.memory(seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)


def a_file(talk: Talk) -> int:
    descriptor = os.open(talk.device.socket.parent, os.O_TMPFILE | os.O_RDWR)
    os.ftruncate(descriptor, SIZE)
    talk.descriptors.append(descriptor)
    return descriptor


def in_shared_memory_folder(talk: Talk) -> int:
    descriptor = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
    os.ftruncate(descriptor, SIZE)
    talk.descriptors.append(descriptor)
    return descriptor


def a_pipe(talk: Talk) -> int:
    ends = os.pipe()
    talk.descriptors.extend(ends)
    return ends[0]


def a_socket(talk: Talk) -> int:
    return talk.connection.fileno()


@pytest.mark.parametrize(
    "made",
    [unsealed, of_no_size, too_large, read_only, a_file, in_shared_memory_folder, a_pipe, a_socket],
    ids=lambda made: made.__name__,
)
def test_share_when_a_client_could_harm_the_agent_with_it_then_refused(talk: Talk, made: Callable[[Talk], int]) -> None:
    reply = talk.share(made(talk))

    assert (reply["ok"], reply["code"]) == (False, "REFUSED")
    assert "shares no memory" in talk.predict(WHOLE)["message"]
    assert unharmed(talk.device)


def test_share_when_nothing_comes_with_it_then_told(talk: Talk) -> None:
    assert talk.ask({"op": "share"})[0]["code"] == "INVALID_ARGUMENT"


def test_share_when_asked_again_then_the_last_memory_counts(talk: Talk) -> None:
    for value in (1.0, 2.0):
        memory = talk.memory()
        os.pwrite(memory, np.full(COUNT, value, dtype=np.float32).tobytes(), 0)
        talk.share(memory)

        assert talk.predict(WHOLE, room=[0, SIZE])["ok"]
        assert memories(talk.device) == 1


def test_memory_when_its_owner_cuts_it_short_then_the_system_refuses(talk: Talk) -> None:
    memory = talk.memory()
    talk.share(memory)

    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)
    os.ftruncate(memory, 2 * SIZE)  # larger it may become; the agent has what it mapped

    assert talk.predict({**WHOLE, "at": SIZE})["code"] == "INVALID_ARGUMENT"
    assert talk.predict(WHOLE)["ok"]


def test_memory_when_it_changes_while_the_model_computes_then_only_its_own_answers_change(talk: Talk) -> None:
    memory = talk.memory()
    talk.share(memory)
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            os.pwrite(memory, os.urandom(SIZE), 0)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        replies = [talk.predict({**WHOLE, "shape": [SIZE // 4]}, room=[0, SIZE]) for _ in range(50)]
        assert unharmed(talk.device)
    finally:
        over.set()
        thread.join(parts.WAIT_S)

    assert all(reply["ok"] for reply in replies)


def test_descriptors_when_many_or_unasked_for_come_then_none_is_kept(served: parts.Device) -> None:
    before = settled(served)
    talk = Talk(served)
    memory = talk.memory()

    assert talk.share(*[memory] * 200)["ok"]
    for _ in range(5):  # beside a frame that is not about them
        socket.send_fds(talk.connection, [agent_frames.encode({"op": "list"})], [memory])
        assert agent_frames.receive(talk.connection)[0]["ok"]

    assert descriptors(served) <= before + 3  # the connection, its memory, the last one
    talk.close()
    parts.until(lambda: descriptors(served) == before, "all descriptors to be closed")


def test_descriptors_when_two_hundred_connections_shared_memory_then_as_many_as_before(served: parts.Device) -> None:
    before = settled(served)
    array = np.arange(COUNT, dtype=np.float32)
    for _ in range(200):
        client = model_client.Client(str(served.socket))
        client.predict("echo", {"x": array}, deadline_s=20)
        client.close()

    parts.until(lambda: descriptors(served) == before, "all descriptors to be closed")
    assert memories(served) == 0


@pytest.mark.parametrize("sent", [3, 20, 10_000], ids=["prelude", "header", "body"])
def test_client_when_it_dies_within_a_frame_then_nothing_of_it_stays(served: parts.Device, sent: int) -> None:
    before = settled(served)
    frame = agent_frames.encode({"op": "share"}, 100_000) + bytes(100_000)
    talk = Talk(served)
    socket.send_fds(talk.connection, [frame[:sent]], [talk.memory()])

    talk.close()

    parts.until(lambda: descriptors(served) == before, "all descriptors to be closed")
    assert unharmed(served)


def test_client_when_it_is_killed_with_its_memory_then_nothing_of_it_stays(served: parts.Device) -> None:
    before = settled(served)
    program = (
        "import sys, numpy, model_client\n"
        "client = model_client.Client(sys.argv[1])\n"
        "while client.predict('echo', {'x': numpy.zeros(99999, numpy.float32)}, deadline_s=20): print(flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(served.socket)],
        env={**os.environ, "PYTHONPATH": str(served.agent_files)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert memories(served) == 1
        process.kill()

    parts.until(lambda: (descriptors(served), memories(served)) == (before, 0), "everything of it to be given back")
    assert unharmed(served)


def test_frame_when_it_says_more_than_the_bounds_then_told_without_waiting_for_it(talk: Talk) -> None:
    socket.send_fds(talk.connection, [struct.pack(">II", 20, 2**31)], [talk.memory()])

    assert agent_frames.receive(talk.connection)[0]["code"] == "INVALID_ARGUMENT"


def test_copy_when_somebody_keeps_it_then_the_next_request_gets_another() -> None:
    memory = np.zeros(16, dtype=np.uint8)
    one = agent_shared.Input("x", memory.view(np.float32), agent_shared.Copies())
    first = one.copied()
    part = first[1:]
    memory[:] = 1
    second = one.copied()
    del first

    third = one.copied()

    assert not part.any()
    assert second is not third
    assert second.all()
    del second
    fourth = id(third)
    del third
    assert id(one.copied()) == fourth  # nobody kept it: the memory is used again


def test_copies_when_the_bound_is_reached_then_none_is_kept_until_one_is_given_back() -> None:
    copies = agent_shared.Copies(16)
    inputs = [agent_shared.Input("x", np.zeros(16, dtype=np.uint8), copies) for _ in range(2)]

    assert not copies.take(1)
    inputs[1].forget()
    assert not copies.take(1)
    inputs[0].forget()
    inputs[0].forget()
    assert copies.take(16)
    assert not copies.take(1)
