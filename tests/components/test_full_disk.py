"""A disk that is full: nothing half stays, what is refused is told and remembered, and what needs little is done all the same."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_durable
import model_client
import numpy as np
import pytest

from tests.components import models, parts

C = "com.example.Small"
COPY_BYTES = 5_000_000
LIMIT_BYTES = 1_000_000  # of a file; a quota that needs no file system of its own


def ask(device: parts.Device, verb: str, version: str, folder: Path | None = None) -> dict[str, Any]:
    artifacts = {} if folder is None else {"artifacts": str(folder)}
    return parts.ask(device, {"op": verb, "component": C, "version": version, **artifacts})


def small(folder: Path, number: int, megabytes: float = 0.1) -> Path:
    return models.weighty(folder / f"small-{number}", "small", number, megabytes)


def wrong(folder: Path) -> Path:
    """A model whose digest is not the one that its model.json tells."""
    return parts.changed_model(folder / "wrong", lambda described: described.update(name="small", sha256="0" * 64))


def answer(device: parts.Device) -> str:
    client = model_client.Client(str(device.socket))
    try:
        return str(client.predict("small", {"x": np.ones((1, 64), np.float32)}, deadline_s=parts.WAIT_S).version)
    finally:
        client.close()


def copies(store: Path) -> list[str]:
    return sorted(each.name for each in (store / "models").iterdir())


def test_offer_when_its_copy_finds_no_room_then_refused_remembered_and_nothing_of_it_stays(
    device: parts.Device, tmp_path: Path
) -> None:
    process = device.start_agent()
    store = device.work("marram.ModelAgent") / "registry"
    ask(device, "offer", "1.0.0", small(tmp_path, 1))
    before = copies(store)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LIMIT_BYTES, resource.RLIM_INFINITY))

    refused = ask(device, "offer", "2.0.0", small(tmp_path, 2, COPY_BYTES / 1e6))

    assert refused["code"] == "RESOURCE_EXHAUSTED"
    assert "cannot write a copy of weighty.onnx (5.0 MB): " in refused["message"]
    assert "make room there and try again; small still answers with com.example.Small 1.0.0" in refused["message"]
    assert copies(store) == before
    row = parts.serving(device)[0]
    assert (row["desired"], row["serving"], answer(device)) == ("2.0.0", "1.0.0", "1.0.0")
    assert row["reason"].startswith("RESOURCE_EXHAUSTED: cannot write a copy of weighty.onnx")
    assert ask(device, "offer", "3.0.0", small(tmp_path, 3))["ok"]
    assert answer(device) == "3.0.0"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Takes all the space that there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def kill(process: Any) -> None:
    process.kill()
    process.wait(parts.WAIT_S)


def test_disk_when_full_then_refusals_say_why_and_the_component_can_be_released_and_withdrawn(
    device: parts.Device, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        agent = device.start_agent("--store", str(disk / "store"))
        ask(device, "offer", "1.0.0", small(tmp_path, 1))
        kill(agent)
        left = disk / "store/models" / ("0" * 64 + ".new")  # killed while it copied, and the disk was full
        left.mkdir()
        fill(left / "model.onnx")
        agent = device.start_agent("--store", str(disk / "store"))

        assert ask(device, "release", "1.0.0")["ok"]
        assert not left.exists()
        fill(disk / "others")
        said = ask(device, "offer", "2.0.0", small(tmp_path, 2))
        bad = ask(device, "offer", "3.0.0", wrong(tmp_path))
        kill(agent)
        agent = device.start_agent("--store", str(disk / "store"))
        row = parts.serving(device)[0]

        assert (said["code"], bad["code"]) == ("RESOURCE_EXHAUSTED", "DIGEST_MISMATCH")
        assert (row["desired"], row["reason"].partition(":")[0], answer(device)) == (
            "3.0.0",
            "DIGEST_MISMATCH",
            "1.0.0",
        )
        assert ask(device, "withdraw", "3.0.0")["ok"]
        assert parts.serving(device) == []
        assert ask(device, "offer", "2.0.0", small(tmp_path / "again", 2))["ok"]  # where the withdrawn one was
        kill(agent)


def test_verdict_when_it_cannot_be_kept_then_what_was_decided_counts_all_the_same(
    device: parts.Device, tmp_path: Path
) -> None:
    device.start_agent()
    (device.work("marram.ModelAgent") / "registry/verdicts.json.new").mkdir()  # no file can be written in its place

    accepted = ask(device, "offer", "1.0.0", small(tmp_path, 1))
    refused = ask(device, "offer", "2.0.0", wrong(tmp_path))

    assert (accepted["ok"], refused["code"], answer(device)) == (True, "DIGEST_MISMATCH", "1.0.0")
    assert device.log("marram.ModelAgent").count("is not kept: ") == 2


def test_reserve_when_the_file_is_replaced_then_its_space_is_used_and_taken_again(tmp_path: Path) -> None:
    path, size_bytes = tmp_path / "small.json", 64 * 1024
    agent_durable.reserve(path, size_bytes)
    reserved = (tmp_path / "small.json.new").stat()
    assert reserved.st_blocks * 512 >= size_bytes

    agent_durable.write(path, {"one": 1}, reserve_bytes=size_bytes)

    assert (path.stat().st_ino, json.loads(path.read_bytes())) == (reserved.st_ino, {"one": 1})
    assert (tmp_path / "small.json.new").stat().st_blocks * 512 >= size_bytes
