"""Captures on disk: nothing acknowledged is lost or torn by SIGKILL, the bounds hold, a full disk harms nobody."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_capture
import agent_capture_files
import pytest

from tests.components import parts

WAIT_S = 20.0
NOW = 1_700_000_000.0
WRITER = Path(__file__).with_name("capture_writer.py")


def record(size: int = 10, *, identity: str = "", at: float = NOW, model: str = "m") -> agent_capture.Record:
    item = agent_capture.Item("x", f"Tensor[uint8; {size}]", bytes(size))
    return agent_capture.Record(model, identity or str(uuid.uuid4()), at, (item,), ())


@contextlib.contextmanager
def capturing(
    root: Path, *, disk: int = 1 << 20, buffer: int = 4, sync: Callable[[int], None] = os.fsync
) -> Iterator[agent_capture.Capture]:
    files = agent_capture_files.Files(root, "crane", disk, 100, sync)
    made = agent_capture.Capture(files, agent_capture.Bounds(buffer, min(buffer, 2)), lambda: NOW)
    try:
        yield made
    finally:
        made.close()


def lines(root: Path) -> list[dict[str, Any]]:
    """All captures, in the order of their numbers; each line must be whole."""
    paths = sorted(root.rglob("*.jsonl"), key=lambda path: int(path.stem))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def identities(root: Path) -> list[str]:
    return [line["eventMetadata"]["eventId"] for line in lines(root)]


def taken(root: Path) -> int:
    """Bytes on the disk, as a file system with blocks of 4 KiB counts them."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("kills", [3])
def test_captures_when_killed_while_writing_then_all_that_were_acknowledged_are_there_and_whole(
    tmp_path: Path, kills: int
) -> None:
    acknowledged: list[str] = []
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, WRITER, tmp_path / "c", str(1 << 30)],
            env={**os.environ, "PYTHONPATH": str(parts.AGENT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        acknowledged += [process.stdout.readline().strip() for _ in range(40)]
        process.kill()
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.stdout.close()
        process.wait(WAIT_S)

    with capturing(tmp_path / "c") as capture:
        known = [capture.status(identity) for identity in acknowledged]

    assert len(acknowledged) >= 40 * kills
    assert set(known) == {"SUCCESS"}
    found = {line["eventMetadata"]["eventId"]: line["deviceFleetInputs"] for line in lines(tmp_path / "c")}
    assert set(acknowledged) <= found.keys()
    for identity, (small, large) in found.items():
        assert base64.b64decode(small["data"]).decode() == identity
        (path,) = tmp_path.rglob(f"*/{large['file'].split('/')[1]}")
        assert path.read_bytes() == identity.encode() * 100


@pytest.mark.parametrize("torn", [b"", b'{"eventMetadata":{"eventId":"x"', b"\0" * 50, b'{"eventMetadata":{}}\n'])
def test_store_when_the_last_line_is_torn_then_it_is_cut_off_and_the_rest_kept(tmp_path: Path, torn: bytes) -> None:
    kept, later = record(), record(200)
    with capturing(tmp_path) as capture:
        capture.submit(kept)
        capture.submit(later)
    (file,) = tmp_path.rglob("*.jsonl")
    with file.open("ab") as stream:
        stream.write(torn)
    orphan = file.with_suffix(".tensors") / f"{uuid.uuid4()}.input0"
    orphan.write_bytes(b"of a record that never got its line")

    with capturing(tmp_path) as capture:
        assert bool(capture.repaired) == bool(torn)
        assert capture.status(kept.identity) == capture.status(later.identity) == "SUCCESS"
        with pytest.raises(agent_capture.CaptureError, match="already") as refused:
            capture.submit(kept)
        assert refused.value.code == "ALREADY_EXISTS"
        after = record()
        capture.submit(after)

    assert identities(tmp_path) == [kept.identity, later.identity, after.identity]
    assert not orphan.exists()
    assert len(list(file.with_suffix(".tensors").iterdir())) == 1


def test_store_when_killed_while_a_unit_was_removed_then_its_files_do_not_stay(tmp_path: Path) -> None:
    with capturing(tmp_path) as capture:
        capture.submit(record(200))
    (lines_file,) = tmp_path.rglob("*.jsonl")
    lines_file.unlink()

    with capturing(tmp_path) as capture:
        assert capture.used_bytes() == 0

    assert taken(tmp_path) == 0


def test_store_when_a_line_in_the_middle_is_damaged_then_what_follows_is_kept(tmp_path: Path) -> None:
    last = record()
    with capturing(tmp_path) as capture:
        capture.submit(record())
        capture.submit(last)
    (file,) = tmp_path.rglob("*.jsonl")
    file.write_bytes(b"#" + file.read_bytes()[1:])

    with capturing(tmp_path) as capture:
        assert capture.repaired == ""
        assert capture.status(last.identity) == "SUCCESS"


def test_disk_bound_when_reached_then_the_oldest_go_and_nothing_is_refused(tmp_path: Path) -> None:
    bound = 128 * 1024
    sent = []
    with capturing(tmp_path / "c", disk=bound) as capture:
        for number in range(120):
            sent.append(record(5000 if number % 3 else 50, at=NOW - 3600 * (number % 2)))
            capture.submit(sent[-1])
            assert taken(tmp_path / "c") <= bound

    left = set(identities(tmp_path / "c"))
    expected = [each.identity for each in sent]
    assert 5 < len(left) < 40
    assert set(expected[-4:]) <= left
    assert not set(expected[:60]) & left
    with capturing(tmp_path / "c", disk=bound // 2) as capture:  # a bound that was lowered
        capture.submit(record())
        assert taken(tmp_path / "c") <= bound // 2


def test_capture_when_larger_than_the_store_then_refused_and_the_others_stay(tmp_path: Path) -> None:
    first = record()
    with capturing(tmp_path, disk=64 * 1024) as capture:
        capture.submit(first)
        huge = record(100_000)
        with pytest.raises(agent_capture.CaptureError) as refused:
            capture.submit(huge)
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        assert capture.status(huge.identity) == "FAILURE"

    assert identities(tmp_path) == [first.identity]


def test_capture_when_the_buffer_is_full_then_refused_at_once_and_the_rest_kept(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        begun.set()
        assert go.wait(WAIT_S)
        os.fsync(descriptor)

    sent = [record() for _ in range(4)]
    with capturing(tmp_path, sync=slow) as capture:
        threads = [threading.Thread(target=capture.submit, args=(each,)) for each in sent]
        for thread in threads:
            thread.start()
        assert begun.wait(WAIT_S)
        parts.until(lambda: all(capture.status(each.identity) == "IN_PROGRESS" for each in sent), "all to wait")
        late = record()
        with pytest.raises(agent_capture.CaptureError, match="wait for the disk") as full:
            capture.submit(late)
        with pytest.raises(agent_capture.CaptureError) as twice:
            capture.submit(sent[0])
        go.set()
        for thread in threads:
            thread.join(WAIT_S)
        capture.submit(late)

    assert (full.value.code, twice.value.code) == ("RESOURCE_EXHAUSTED", "ALREADY_EXISTS")
    assert set(identities(tmp_path)) == {each.identity for each in (*sent, late)}


def test_capture_when_the_disk_fails_then_not_acknowledged_and_may_be_sent_again(tmp_path: Path) -> None:
    failing = [True]

    def sync(descriptor: int) -> None:
        if failing[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.fsync(descriptor)

    one = record(200)
    with capturing(tmp_path, sync=sync) as capture:
        with pytest.raises(agent_capture.CaptureError, match="No space left") as refused:
            capture.submit(one)
        assert (refused.value.code, capture.status(one.identity)) == ("RESOURCE_EXHAUSTED", "FAILURE")
        failing[0] = False
        capture.submit(one)
        assert capture.status(one.identity) == "SUCCESS"

    assert identities(tmp_path) == [one.identity]


@contextlib.contextmanager
def files_limited(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond that: a disk that takes a part of what is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_capture_when_the_disk_takes_only_a_part_then_nothing_of_it_stays(tmp_path: Path) -> None:
    kept = record(200)
    with capturing(tmp_path) as capture:
        capture.submit(kept)
        with files_limited(20_000):
            for model in ("m", "m", "other"):  # to what is there, and as the first of a model
                with pytest.raises(agent_capture.CaptureError, match="File too large"):
                    capture.submit(record(50_000, model=model))
        capture.submit(also := record(300))
        used = capture.used_bytes()

    assert identities(tmp_path) == [kept.identity, also.identity]
    assert {path.name for path in tmp_path.rglob("*.input0")} == {f"{one.identity}.input0" for one in (kept, also)}
    assert not (tmp_path / "other").exists()
    with capturing(tmp_path) as again:
        assert again.used_bytes() == used  # nothing was there that only a restart would find


def test_capture_when_its_time_is_in_the_future_then_out_of_range(tmp_path: Path) -> None:
    with capturing(tmp_path) as capture:
        capture.submit(record(at=NOW + 0.5))
        with pytest.raises(agent_capture.CaptureError) as refused:
            capture.submit(record(at=NOW + 5))

    assert refused.value.code == "OUT_OF_RANGE"


def test_bounds_when_a_batch_is_larger_than_the_buffer_then_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        agent_capture.Bounds(4, 5)
