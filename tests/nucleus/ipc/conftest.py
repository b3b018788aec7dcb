"""A server in a thread of its own, and unmodified official clients of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
from awsiot.greengrasscoreipc import clientv2

from nucleus.ipc import connection
from tests.nucleus import fakes_ipc


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path short enough for a socket; pytest's own folders may not be."""
    with tempfile.TemporaryDirectory(prefix="ipc-") as folder:
        yield Path(folder) / "ipc.socket"


@pytest.fixture
def world(socket_path: Path) -> Iterator[fakes_ipc.World]:
    with fakes_ipc.serving_in_thread(fakes_ipc.World(socket_path, connection.Limits())) as running:
        yield running


@pytest.fixture
def official(world: fakes_ipc.World) -> Iterator[Callable[..., clientv2.GreengrassCoreIPCClientV2]]:
    """Makes clients of a component that is added with the given policies and configuration."""
    clients: list[clientv2.GreengrassCoreIPCClientV2] = []

    def make(name: str = "test.App", access: Any = fakes_ipc.EVERYTHING, **values: Any) -> Any:
        if name not in world.components.known and "#" not in name:
            world.do(lambda: world.add(name, access=access, **values))
        low = awsiot.greengrasscoreipc.connect(ipc_socket=str(world.path), authtoken=f"token-{name}", timeout=10)
        client = clientv2.GreengrassCoreIPCClientV2(client=low, executor=None)  # None keeps the order of events
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close().result(10)
