"""The broker's process: it ends with its parent, says why it cannot start, and comes back on the same port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from cloud.mqtt import addresses, child
from tests.cloud import certificates
from tests.cloud.mqtt import clients, harness


async def test_child_when_its_parent_is_killed_then_it_ends(tmp_path: Path) -> None:
    certificates.Authority(tmp_path).server()
    program = Path(__file__).with_name("parent.py")
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child_pid = int(await parent.stdout.readline())
    watched = os.pidfd_open(child_pid)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(watched, ended.set)

    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()

    async with asyncio.timeout(clients.WAIT_S):
        await ended.wait()
    asyncio.get_running_loop().remove_reader(watched)
    os.close(watched)


async def test_start_when_port_is_taken_then_error_names_it(tmp_path: Path) -> None:
    certificates.Authority(tmp_path).server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

        with pytest.raises(RuntimeError, match=f"cannot start the broker: .*{number}.*in use"):
            async with child.broker(tmp_path, host="127.0.0.1", port=number, log=harness.Events()):
                pass


async def test_start_when_certificate_is_missing_then_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="No such file"):
        async with child.broker(tmp_path, host="127.0.0.1", port=0, log=harness.Events()):
            pass


async def test_child_when_killed_then_it_listens_on_the_same_port_again(bench: harness.Bench) -> None:
    await bench.kill_broker()

    listening = [each for each in bench.events.lines if each.startswith("broker.listening")]
    assert all(f"'port': {bench.number}" in each for each in listening)
    assert len(listening) == 2


async def test_port_when_broker_is_killed_then_publishing_goes_on(bench: harness.Bench) -> None:
    os.kill(bench.broker_pid(), signal.SIGKILL)

    await bench.port.publish("shared/x", b"1")

    assert bench.version == 1


async def test_socket_when_folder_has_a_long_name_then_service_connects(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)

    async with harness.running(deep) as bench:
        await bench.port.publish("shared/x", b"")

    with addresses.short(deep / "broker.sock") as path:
        assert len(path) <= 107


async def test_socket_when_broker_runs_then_only_its_owner_may_use_it(bench: harness.Bench) -> None:
    assert (bench.directory / "broker.sock").stat().st_mode & 0o777 == 0o600
