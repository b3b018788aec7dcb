"""Starting scripts and ending everything they started, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from nucleus.host import descendants, exits, logs, process

FOREVER = "exec sleep 1000"


class Lines:
    """A sink that remembers, and tells when something came."""

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._news = asyncio.Event()

    def __call__(self, stream: str, lines: list[str]) -> None:
        self.seen[stream] += lines
        self._news.set()

    async def until(self, count: int) -> list[str]:
        """Waits for that many lines of standard output."""
        async with asyncio.timeout(20):
            while len(self.seen["stdout"]) < count:
                self._news.clear()
                await self._news.wait()
        return self.seen["stdout"]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.fixture(params=[exits.PidfdExits, exits.ThreadExits])
async def processes(request: pytest.FixtureRequest, records: Path) -> AsyncIterator[process.Processes]:
    choose: Callable[[asyncio.AbstractEventLoop], exits.Exits] = request.param
    made = process.Processes(records, choose=choose)
    yield made
    made.kill_now()
    made.close()


def order(script: str, records: Path, component: str = "com.example.A", **more: str) -> process.Order:
    return process.Order(
        component=component,
        version="1.0.0",
        script=script,
        directory=records.parent,
        environment={"PATH": os.environ["PATH"], **more},
    )


def alive(pid: int) -> bool:
    return any(member.pid == pid for member in descendants.find((member_of(pid),), "-"))


def member_of(pid: int) -> descendants.Member:
    return descendants.Member(pid, descendants.start_time(pid) or -1)


async def test_spawn_when_the_script_ends_then_output_code_and_no_record(
    processes: process.Processes, records: Path
) -> None:
    lines = Lines()

    child = processes.spawn(order("echo one; printf 'two\\r\\nthree'; echo bad >&2; exit 7", records), lines)
    code = await child.wait()

    assert code == 7
    assert lines.seen == {"stdout": ["one", "two", "three"], "stderr": ["bad"]}
    assert list(records.iterdir()) == []
    assert processes.pids("com.example.A") == ()


async def test_spawn_when_the_script_runs_then_directory_environment_session_and_record(
    processes: process.Processes, records: Path
) -> None:
    lines = Lines()

    child = processes.spawn(order(f"pwd; env | cut -d= -f1 | sort; echo end; {FOREVER}", records, X="1"), lines)
    while "end" not in lines.seen["stdout"]:
        await lines.until(len(lines.seen["stdout"]) + 1)

    assert lines.seen["stdout"][0] == str(records.parent)
    assert {"MARRAM_OWNER", "PATH", "X"} <= set(lines.seen["stdout"]) <= {
        str(records.parent), "MARRAM_OWNER", "PATH", "X", "PWD", "OLDPWD", "SHLVL", "_", "end",
    }  # fmt: skip
    assert os.getsid(child.pid) == child.pid
    [record] = records.iterdir()
    fact = msgspec.json.decode(record.read_bytes(), type=process.Fact)
    assert (fact.component, fact.version, fact.pid) == ("com.example.A", "1.0.0", child.pid)
    assert (fact.boot_id, fact.start) == (process.boot_id(), descendants.start_time(child.pid))


async def test_spawn_when_the_directory_is_missing_then_oserror_and_nothing_is_left(
    processes: process.Processes, records: Path
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    with pytest.raises(OSError, match="nowhere"):
        processes.spawn(process.Order("A", "1", FOREVER, records / "nowhere", {"PATH": os.environ["PATH"]}), Lines())

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(records.iterdir()) == []


async def test_spawn_when_the_record_cannot_be_written_then_it_runs_all_the_same(
    processes: process.Processes, records: Path
) -> None:
    records.rmdir()

    assert await processes.spawn(order("exit 0", records), Lines()).wait() == 0


async def test_spawn_when_many_then_no_thread_for_each(records: Path) -> None:
    made = process.Processes(records)
    before = threading.active_count()

    children = [made.spawn(order("read x < /dev/null; exit 3", records), Lines()) for _ in range(20)]

    assert threading.active_count() == before
    assert [await child.wait() for child in children] == [3] * 20
    made.close()


async def test_output_when_a_line_is_endless_then_it_comes_in_pieces(
    processes: process.Processes, records: Path
) -> None:
    lines = Lines()

    await processes.spawn(order("head -c 100000 /dev/zero | tr '\\0' x; echo; echo end", records), lines).wait()

    assert sum(len(line) for line in lines.seen["stdout"]) == 100_000 + 3
    assert max(len(line) for line in lines.seen["stdout"]) <= 8192
    assert lines.seen["stdout"][-1] == "end"


async def test_output_when_a_descendant_outlives_the_script_then_its_lines_still_come(
    processes: process.Processes, records: Path
) -> None:
    lines = Lines()
    fifo = records.parent / "go"
    os.mkfifo(fifo)

    await processes.spawn(order("(read x < go; echo late) & echo early", records), lines).wait()
    assert lines.seen["stdout"] == ["early"]
    await asyncio.to_thread(fifo.write_text, "\n")

    assert await lines.until(2) == ["early", "late"]


async def test_end_when_term_is_ignored_then_killed_after_the_grace_time(
    processes: process.Processes, records: Path
) -> None:
    lines = Lines()
    child = processes.spawn(order("trap '' TERM; echo ready; while :; do sleep 0.05; done", records), lines)
    await lines.until(1)

    left = await processes.end("com.example.A", grace_s=0.3)

    assert left == 0
    assert await child.wait() == -signal.SIGKILL


async def test_end_when_term_is_obeyed_then_the_script_may_clean_up(
    processes: process.Processes, records: Path
) -> None:
    lines = Lines()
    child = processes.spawn(
        order("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done", records), lines
    )
    await lines.until(1)

    await processes.end("com.example.A")

    assert await child.wait() == 0
    assert lines.seen["stdout"] == ["ready", "bye"]


ESCAPES = {
    "background": "sleep 1000 & echo $!; wait",
    "another session": "setsid sleep 1000 & echo $!; wait",
    "parent dead": "(sleep 1000 & echo $!) ; exec sleep 1000",
    "parent dead and another session": "(setsid sh -c 'echo $$; exec sleep 1000' &) ; exec sleep 1000",
    "empty environment": "env -i sleep 1000 & echo $!; wait",
    "parent dead and empty environment": "(env -i sleep 1000 & echo $!) ; exec sleep 1000",
    "script ended": "setsid sleep 1000 >/dev/null 2>&1 & echo $!",
}


@pytest.mark.parametrize("script", ESCAPES.values(), ids=ESCAPES.keys())
async def test_end_when_a_descendant_has_escaped_then_it_is_ended_too(
    processes: process.Processes, records: Path, script: str
) -> None:
    lines = Lines()
    processes.spawn(order(script, records), lines)
    pid = int((await lines.until(1))[0])
    assert alive(pid)

    assert await processes.end("com.example.A") == 0

    assert not alive(pid)


async def test_end_when_another_component_runs_then_it_is_left_alone(
    processes: process.Processes, records: Path
) -> None:
    processes.spawn(order(FOREVER, records), Lines())
    other = processes.spawn(order(FOREVER, records, "com.example.A.longer"), Lines())

    await processes.end("com.example.A")

    assert processes.pids("com.example.A.longer") == (other.pid,)
    assert alive(other.pid)


async def test_end_one_when_two_scripts_run_then_the_other_stays(processes: process.Processes, records: Path) -> None:
    first = processes.spawn(order(FOREVER, records), Lines())
    second = processes.spawn(order(FOREVER, records), Lines())

    await processes.end_one(first)

    assert await first.wait() == -signal.SIGTERM
    assert alive(second.pid)


async def test_kill_now_when_processes_run_then_none_is_left(processes: process.Processes, records: Path) -> None:
    lines = Lines()
    child = processes.spawn(order("trap '' TERM; setsid sleep 1000 & echo $!; wait", records), lines)
    pid = int((await lines.until(1))[0])

    processes.kill_now()

    assert not alive(child.pid)
    assert not alive(pid)


# ---- survivors of a predecessor --------------------------------------------------------------------------------------

DAEMON = """
import asyncio, os, signal, sys
from pathlib import Path
from nucleus.host import process

async def main():
    records = Path(sys.argv[1])
    processes = process.Processes(records)
    lines = asyncio.Queue()
    for script in sys.argv[2:]:
        order = process.Order("com.example.A", "1.0.0", script, records.parent, {"PATH": os.environ["PATH"]})
        child = processes.spawn(order, lambda stream, found: [lines.put_nowait(one) for one in found])
        print(child.pid, await lines.get(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def killed_nucleus(records: Path, *scripts: str) -> list[int]:
    """Starts the scripts in another process, SIGKILLs it, and returns the pids of scripts and what they printed."""
    done = subprocess.run(
        [sys.executable, "-c", DAEMON, str(records), *scripts], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_survivors_when_the_nucleus_was_killed_then_all_descendants_end_before_it_returns(records: Path) -> None:
    pids = killed_nucleus(
        records,
        "sleep 1000 & echo $!; wait",
        "(setsid sh -c 'echo $$; exec sleep 1000' &) ; exec sleep 1000",
        "env -i sleep 1000 & echo $!; wait",
    )
    assert all(alive(pid) for pid in pids)

    ended = process.end_survivors(records, logs.Log("test", directory=records.parent))

    assert ended == 6
    assert not any(alive(pid) for pid in pids)
    assert list(records.iterdir()) == []


def test_survivors_when_a_record_is_torn_then_the_environment_still_tells(records: Path) -> None:
    pids = killed_nucleus(records, "sleep 1000 & echo $!; wait")
    [record] = records.iterdir()
    record.write_bytes(record.read_bytes()[:20])

    process.end_survivors(records, logs.Log("test", directory=records.parent))

    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize(
    "change", [{"start": 1}, {"boot_id": "another boot"}], ids=["pid was reused", "machine was restarted"]
)
def test_survivors_when_the_recorded_pid_is_somebody_else_s_then_it_lives(
    records: Path, change: dict[str, object]
) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as innocent:
        try:
            fact = process.Fact(
                process.boot_id(), "com.example.A", "1.0.0", innocent.pid, descendants.start_time(innocent.pid) or 0
            )
            fact = msgspec.structs.replace(fact, **change)
            (records / "com.example.A.1.json").write_bytes(msgspec.json.encode(fact))

            ended = process.end_survivors(records, logs.Log("test", directory=records.parent))

            assert ended == 0
            assert innocent.poll() is None
        finally:
            innocent.kill()


def test_survivors_when_they_are_another_nucleus_s_then_they_live(records: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "run"
    other.mkdir(parents=True)
    pids = killed_nucleus(other, "sleep 1000 & echo $!; wait")

    assert process.end_survivors(records, logs.Log("test", directory=tmp_path)) == 0
    assert all(alive(pid) for pid in pids)

    process.end_survivors(other, logs.Log("test", directory=tmp_path))
    assert not any(alive(pid) for pid in pids)


def test_survivors_when_there_is_no_folder_then_zero(tmp_path: Path) -> None:
    assert process.end_survivors(tmp_path / "never", logs.Log("test", directory=tmp_path)) == 0
