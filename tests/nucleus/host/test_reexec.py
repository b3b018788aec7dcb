"""Another program in the same process: what it gets, what stays open, which children it adopts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.core import handover
from nucleus.host import descendants, exits, logs, process
from tests.nucleus.core.test_handover import STATE
from tests.nucleus.host.test_process import Lines

BEFORE = """
import json, os, sys
from nucleus.core import handover
from nucleus.host import reexec
import msgspec
kept, other = os.pipe()
state = msgspec.json.decode(sys.argv[1], type=handover.State)
state = msgspec.structs.replace(state, pid=os.getpid(), lock=kept, sockets=handover.Sockets("", -1),
    ports={}, components=handover.Components(generation=0, number=0))
data = handover.encode(state) if sys.argv[3] == "whole" else handover.encode(state)[:-5]
try:
    reexec.execute([sys.executable, "-c", sys.argv[2], state.root, str(kept), str(other)], data,
        handover.descriptors(state), [15] if sys.argv[3] == "told to stop" else [])
except InterruptedError as error:
    print(json.dumps([str(error), os.get_inheritable(kept)]))
"""
AFTER = """
import json, os, signal, sys
from pathlib import Path
from nucleus.host import reexec
state, why = reexec.receive(Path(sys.argv[1]))
def is_open(one):
    try:
        return bool(os.fstat(int(one)))
    except OSError:
        return False
blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
print(json.dumps([state is not None, why, is_open(sys.argv[2]), is_open(sys.argv[3]), reexec.VARIABLE in os.environ, blocked]))
"""


def replaced(kind: str) -> list[object]:
    command = [sys.executable, "-c", BEFORE, handover.encode(STATE).decode(), AFTER, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found: list[object] = json.loads(done.stdout)
    return found


def test_execute_when_all_is_well_then_the_text_and_what_it_names_are_there_and_nothing_else() -> None:
    assert replaced("whole") == [True, "", True, False, False, [2, 15]]


def test_receive_when_the_text_is_damaged_then_nothing_is_left_open() -> None:
    is_there, why, kept, other, *_ = replaced("damaged")

    assert (is_there, kept, other) == (False, False, False)
    assert "damaged" in str(why)


def test_execute_when_a_signal_came_then_all_is_as_before() -> None:
    why, is_inheritable = replaced("told to stop")

    assert "told to stop" in str(why)
    assert is_inheritable is False


# ---- children of the image before -----------------------------------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[int]:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exec sleep 1000"], os.environ)
    yield pid
    found = exits.Adopted(pid)
    found.kill()
    found.wait(10)


def test_adopted_when_it_is_killed_then_that_is_its_code(child: int) -> None:
    found = exits.Adopted(child)

    assert found.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        found.wait(0.0)
    found.kill()
    assert (found.wait(), found.poll()) == (-9, -9)


def test_adopted_when_it_is_no_child_then_its_code_is_unknown() -> None:
    assert exits.Adopted(os.getppid()).poll() == exits.UNKNOWN


async def test_adopt_when_it_goes_on_then_its_words_are_joined_and_its_end_is_told(tmp_path: Path) -> None:
    out, out_end = os.pipe()
    errors, errors_end = os.pipe()
    files = [(os.POSIX_SPAWN_DUP2, out_end, 1), (os.POSIX_SPAWN_DUP2, errors_end, 2)]
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "echo sentence; exit 3"], os.environ, file_actions=files)
    os.close(out_end)
    os.close(errors_end)
    record = tmp_path / "a.1.json"
    record.touch()
    carried = handover.Child(
        pid=pid,
        start=descendants.start_time(pid) or 0,
        record=record.name,
        pipes=(handover.Pipe(out, b"half a "), handover.Pipe(errors)),
    )
    sink, processes = Lines(), process.Processes(tmp_path, number=7)

    adopted = processes.adopt("a", carried, sink)
    async with asyncio.timeout(20):
        code = await adopted.wait()

    assert (code, sink.seen["stdout"], record.exists(), processes.number) == (3, ["half a sentence"], False, 7)
    assert adopted.carry().code == 3
    processes.close()


async def test_adopt_when_it_had_ended_already_then_its_code_is_the_one_that_was_told(tmp_path: Path) -> None:
    carried = handover.Child(pid=1, start=0, record="a.1.json", code=0, pipes=(handover.Pipe(-1), handover.Pipe(-1)))
    processes = process.Processes(tmp_path)

    adopted = processes.adopt("a", carried, Lines())

    assert await adopted.wait() == 0
    assert processes.pids("a") == ()
    processes.close()


async def test_end_survivors_when_some_components_stay_then_only_the_others_end(tmp_path: Path) -> None:
    processes = process.Processes(tmp_path)
    running = {}
    for name in ("a", "b"):
        order = process.Order(
            component=name,
            version="1.0.0",
            script="exec sleep 1000",
            directory=tmp_path,
            environment={},
            shell="/bin/sh",
        )
        running[name] = processes.spawn(order, Lines())
    log = logs.Log("test", directory=tmp_path / "logs")

    ended = await asyncio.to_thread(process.end_survivors, tmp_path, log, {"a"})
    async with asyncio.timeout(20):
        await running["b"].wait()

    assert ended == 1
    assert running["a"].running()
    assert [path.name.split(".")[0] for path in tmp_path.glob("*.json")] == ["a"]
    processes.kill_now()
    processes.close()
