"""Downloads over real connections that break, lie, restart or fill the disk; the server is in the test."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud.store import pki
from nucleus.core import errors, negotiate, recipe
from nucleus.host import places
from nucleus.store import components
from nucleus.uplink import artifacts, dataplane, http

NAME = "com.example.A"
DATA = random.Random(7).randbytes(300_000)


class Server:
    """Serves `data` with ranges. `cuts` are numbers of body bytes after which an answer breaks off."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.cuts: list[int] = []
        self.headers: dict[str, str] = {}
        self.status = 0  # instead of 200 or 206
        self.ranges: list[str] = []
        self.connections = 0
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/file"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(await reader.readuntil(b"\r\n\r\n"), writer):
                pass
        writer.close()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        fields = dict(line.split(": ", 1) for line in request.decode().split("\r\n")[1:] if ": " in line)
        asked = fields.get("Range", "")
        self.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        status = self.status or (416 if first >= len(self.data) else 206 if asked else 200)
        body = b"" if status == 416 else self.data[first:]
        headers = {"Content-Length": str(len(body)), **self.headers}
        lines = [f"HTTP/1.1 {status} X", *(f"{key}: {value}" for key, value in headers.items())]
        cut = self.cuts.pop(0) if self.cuts else len(body)
        writer.write("\r\n".join([*lines, "", ""]).encode() + body[:cut])
        await writer.drain()
        return cut >= len(body)


class Plane:
    def __init__(self, server: Server) -> None:
        self._server = server

    async def artifact_url(self, arn: str, name: str) -> str:
        return self._server.url


class Store(components.ComponentStore):
    """A disk with `room` bytes."""

    room = 1 << 40

    def check_space(self, what: str, size_bytes: int) -> None:
        if size_bytes > self.room:
            raise errors.NucleusError("DISK_SPACE_CRITICAL", f"cannot download {what}: full")


class World:
    def __init__(self, root: Path) -> None:
        authority = pki.Authority.create(root)
        device = authority.issue_device()
        (root / "device.pem").write_text(device.pem)
        (root / "device.key").write_text(device.private_key)
        self.server = Server()
        self.http = http.Http(certificate=root / "device.pem", private_key=root / "device.key", root_ca=root / "ca.pem")
        self.store = Store(places.Places(root))
        self.fetcher = artifacts.Artifacts(self.http, Plane(self.server), self.store)  # type: ignore[arg-type]  # its shape
        digest = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
        body = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": NAME,
            "ComponentVersion": "1.0.0",
            "Manifests": [{"Artifacts": [{"URI": "greengrass:x/file", "Digest": digest, "Algorithm": "SHA-256"}]}],
        }
        found = recipe.read(json.dumps(body).encode(), "test")
        self.candidate = negotiate.Candidate(name=NAME, version="1.0.0", recipe=found, arn="arn")
        self.artifact = found.manifests[0].artifacts[0]
        self.path = self.store.artifact_path(self.candidate, self.artifact)
        self.part = self.path.with_name(".file.part")

    async def fetch(self) -> None:
        await self.fetcher.fetch(self.candidate, self.artifact)

    def begin(self, data: bytes) -> None:
        self.part.parent.mkdir(parents=True)
        self.part.write_bytes(data)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    await one.server.start()
    yield one
    await one.http.close()
    await one.server.stop()


@pytest.mark.parametrize("cut", [0, 1, 77_777, len(DATA) - 1])
async def test_fetch_when_cut_at_any_byte_then_resumed_there(world: World, cut: int) -> None:
    world.server.cuts = [cut]

    with pytest.raises(dataplane.Unavailable):
        await world.fetch()
    have = world.part.stat().st_size if world.part.exists() else 0
    await world.fetch()

    assert world.path.read_bytes() == DATA
    assert not world.part.exists()
    assert have <= cut
    assert world.server.ranges[-1] == (f"bytes={have}-" if have else "")


async def test_size_when_the_server_tells_it_then_known_and_nothing_is_kept(world: World) -> None:
    world.server.headers = {"Content-Range": f"bytes 0-0/{len(DATA)}"}

    assert await world.fetcher.size(world.candidate, world.artifact) == len(DATA)
    assert world.server.ranges == ["bytes=0-0"]
    assert not world.part.exists()


@pytest.mark.parametrize("status", [200, 403, 500])
async def test_size_when_the_answer_does_not_tell_it_then_unknown(world: World, status: int) -> None:
    world.server.status = status

    assert await world.fetcher.size(world.candidate, world.artifact) is None


async def test_size_when_there_is_no_network_then_unknown(world: World) -> None:
    await world.server.stop()

    assert await world.fetcher.size(world.candidate, world.artifact) is None


async def test_fetch_when_a_kept_connection_breaks_in_the_middle_then_no_byte_twice(world: World) -> None:
    """The answer had begun: repeating the request in place would append the same bytes again."""
    await world.http.request("GET", world.server.url)
    world.begin(DATA[:1000])
    world.server.cuts = [50_000]

    with pytest.raises(dataplane.Unavailable):
        await world.fetch()
    assert DATA.startswith(world.part.read_bytes())
    await world.fetch()

    assert world.path.read_bytes() == DATA


async def test_request_when_the_server_restarted_then_the_kept_connection_is_replaced(world: World) -> None:
    await world.http.request("GET", world.server.url)
    await world.server.stop()
    await world.server.start()

    answer = await world.http.request("GET", world.server.url)

    assert answer.body == DATA
    assert world.server.connections == 2


async def test_request_when_repeated_then_one_connection(world: World) -> None:
    for _ in range(3):
        await world.http.request("GET", world.server.url)

    assert world.server.connections == 1


@pytest.mark.parametrize("begun", [b"other bytes", DATA + b"too long"])
async def test_fetch_when_the_part_is_of_other_bytes_then_begun_anew(world: World, begun: bytes) -> None:
    """The version was deleted and published again while the device was offline."""
    world.begin(begun)

    await world.fetch()

    assert world.path.read_bytes() == DATA


async def test_fetch_when_the_part_is_complete_then_taken(world: World) -> None:
    world.begin(DATA)

    await world.fetch()

    assert world.path.read_bytes() == DATA
    assert len(world.server.ranges) == 1


async def test_fetch_when_the_bytes_are_wrong_then_said_and_nothing_is_left(world: World) -> None:
    world.server.data = DATA[:-1] + b"?"

    with pytest.raises(errors.NucleusError, match=r"file of com\.example\.A 1\.0\.0") as refused:
        await world.fetch()

    assert refused.value.code == "ARTIFACT_CHECKSUM_MISMATCH"
    assert not list(world.path.parent.iterdir())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"status": 404}, "DOWNLOAD_GREENGRASS_ARTIFACT_ERROR"),
        ({"status": 503}, "SERVER_ERROR"),
        ({"headers": {"Content-Range": "bytes 5-9/10"}}, "SERVER_ERROR"),
    ],
)
async def test_fetch_when_the_answer_is_no_use_then_its_code(world: World, change: dict[str, Any], code: str) -> None:
    world.begin(DATA[:10])
    for key, value in change.items():
        setattr(world.server, key, value)

    with pytest.raises(errors.NucleusError) as refused:
        await world.fetch()

    assert refused.value.code == code
    assert world.part.read_bytes() == DATA[:10]


async def test_fetch_when_there_is_no_room_then_the_beginning_stays_for_later(world: World) -> None:
    world.begin(DATA[:10])
    world.store.room = 100

    with pytest.raises(errors.NucleusError) as refused:
        await world.fetch()

    assert refused.value.code == "DISK_SPACE_CRITICAL"
    assert world.part.read_bytes() == DATA[:10]


async def test_fetch_when_the_disk_fills_up_on_the_way_then_said_and_room_is_made(world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    folder = world.part.parent
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(errors.NucleusError, match=r"file of com\.example\.A 1\.0\.0") as refused:
            await world.fetch()

        assert refused.value.code == "DISK_SPACE_CRITICAL"
        assert not list(folder.iterdir())
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_fetch_when_the_part_is_a_link_then_nothing_is_written_through_it(world: World, tmp_path: Path) -> None:
    world.part.parent.mkdir(parents=True)
    world.part.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(errors.NucleusError) as refused:
        await world.fetch()

    assert refused.value.code == "IO_WRITE_ERROR"
    assert not (tmp_path / "elsewhere").exists()
