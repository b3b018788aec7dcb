"""The spool on disk: a process killed at any statement, and power lost at any moment, lose nothing that was acknowledged."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from nucleus.store import spool as store

COUNT = 12
CALLS = "write,pwrite64,fsync,fdatasync,ftruncate,unlink"
_LINE = re.compile(
    rb"(?P<at>[\d.]+) (?P<call>\w+)\((?:\d+<(?P<path>[^>]*)>)?(?P<rest>.*)\) += (?P<result>-?\d+).* <(?P<took>[\d.]+)>"
)
_DATA = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')


def child(folder: Path, *arguments: str, before: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Runs it to its end, or its death: what it has said, by word."""
    command = [*before, sys.executable, "-m", "tools.crash.spool", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, -9), done.stderr.decode()
    found: dict[str, list[str]] = {"kept": [], "sent": []}
    for line in done.stdout.decode().splitlines():
        word, name = line.split()
        found[word].append(name)
    return found


def names(folder: Path) -> list[str]:
    """What is in the spool of the folder, in order."""
    one = store.SpoolStore(folder)
    try:
        totals, wrong = one.open()
        assert not wrong
        rows, damaged = one.page(0, 10_000, 10**9)
        assert not damaged
        assert totals.count == len(rows)
        return [row.topic for row in rows]
    finally:
        one.close()


@pytest.mark.parametrize("kill_at", range(1, 20))
def test_publish_when_killed_at_a_statement_then_everything_acknowledged_is_there_in_order(
    tmp_path: Path, kill_at: int
) -> None:
    kept = child(tmp_path, "--publish", str(COUNT), "--kill-at", str(kill_at))["kept"]

    found = names(tmp_path / "spool")

    assert set(kept) <= set(found)
    assert found == [f"m{number:03}" for number in range(len(found))]
    assert child(tmp_path, "--send")["sent"] == found
    assert names(tmp_path / "spool") == []


@pytest.mark.parametrize("kill_at", range(2, 10))
def test_send_when_killed_at_a_statement_then_nothing_is_missing_at_the_broker(tmp_path: Path, kill_at: int) -> None:
    kept = child(tmp_path, "--publish", str(COUNT))["kept"]
    first = child(tmp_path, "--send", "--kill-at", str(kill_at))["sent"]

    second = child(tmp_path, "--send")["sent"]

    assert {*first, *second} == set(kept)
    assert second == sorted(second)  # those sent before and not removed may come again


# ---- the loss of power -------------------------------------------------------------------------------------------------------


class Event(NamedTuple):
    """`at`: when the call began, or for a synchronisation when it had ended. A `said` event has the text as data."""

    at: float
    call: str
    file: str
    data: bytes = b""
    offset: int = 0


class Image:
    """One file: what is certainly on the disk, and the writes after that."""

    def __init__(self) -> None:
        self.synced = b""
        self.pending: list[Event] = []

    def content(self, kind: str) -> bytes:
        """As the disk may have it: `lost` all pending writes, `torn` in the middle of one of them, `written`."""
        count = {"lost": 0, "torn": (len(self.pending) + 1) // 2, "written": len(self.pending)}[kind]
        data = self.synced
        for number, event in enumerate(self.pending[:count], 1):
            torn = kind == "torn" and number == count
            data = _applied(data, event, len(event.data) // 2 if torn else len(event.data))
        return data


def _applied(data: bytes, event: Event, length: int) -> bytes:
    if event.call == "ftruncate":
        return data[: event.offset].ljust(event.offset, b"\0")
    data = data.ljust(event.offset, b"\0")
    return data[: event.offset] + event.data[:length] + data[event.offset + length :]


def record(folder: Path) -> list[Event]:
    """What a publishing child did to the spool's files, and said, in the order of time."""
    traces = folder / "trace"
    before = ("strace", "-ff", "-ttt", "-T", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-o", str(traces))
    child(folder, "--publish", str(COUNT), before=before)
    lines = [line for path in folder.glob("trace.*") for line in path.read_bytes().splitlines()]
    return sorted((one for one in map(_event, lines) if one is not None), key=lambda one: one.at)


def _event(line: bytes) -> Event | None:
    found = _LINE.match(line)
    if found is None or found["path"] is None:
        return None
    call, name = found["call"].decode(), Path(_plain(found["path"]).decode()).name
    data = b"".join(_plain(text) for text in _DATA.findall(found["rest"]))
    began, ended = float(found["at"]), float(found["at"]) + float(found["took"])
    if call == "write" and data.startswith(b"kept "):
        return Event(began, "said", "", data)
    if name not in (store.FILE, f"{store.FILE}-wal"):
        return None
    if call in ("fsync", "fdatasync"):
        return Event(ended, "sync", name)
    offset = int(found["rest"].rsplit(b",", 1)[-1]) if call in ("pwrite64", "ftruncate") else 0
    return Event(began, call, name, data, offset)


def _plain(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode()) if text.startswith(b"\\x") else text


def disks(events: list[Event]) -> Iterator[tuple[int, str, dict[str, bytes], list[str]]]:
    """After each event, every disk that a loss of power may leave, with the names acknowledged until then."""
    images = {store.FILE: Image(), f"{store.FILE}-wal": Image()}
    said: list[str] = []
    for number, event in enumerate(events):
        if event.call == "said":
            said.append(event.data.split()[1].decode())
        elif event.call == "sync":
            image = images[event.file]
            image.synced, image.pending = image.content("written"), []
        else:
            images[event.file].pending.append(event)
        for kind in ("lost", "torn", "written"):
            yield number, kind, {name: one.content(kind) for name, one in images.items()}, list(said)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to see what SQLite writes and synchronises")
def test_publish_when_power_is_lost_at_any_moment_then_everything_acknowledged_is_there(tmp_path: Path) -> None:
    events = record(tmp_path)
    assert sum(one.call == "said" for one in events) == COUNT
    first = next(number for number, one in enumerate(events) if one.call == "said")

    tried = 0
    for number, kind, files, said in itertools.islice(disks(events), 3 * first, None):
        folder = tmp_path / f"{number}-{kind}"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        found = names(folder)
        assert set(said) <= set(found), (number, kind)
        assert found == sorted(found)
        tried += 1

    assert tried > COUNT
