"""A server with a real shadow manager, driven by unmodified official clients from a test's thread."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import tempfile
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import msgspec
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.actors import shadow_manager
from nucleus.core import shadow_settings
from nucleus.ipc import connection
from nucleus.ipc import shadows as messages
from nucleus.store import shadows as store
from tests.nucleus import fakes_ipc

NAME = "aws.greengrass.ShadowManager"
THING = "thing1"
QUICK = {"rateLimits": {"maxTotalLocalRequestsRate": 10_000, "maxLocalRequestsPerSecondPerThing": 10_000}}
EVERYTHING = {service: {"p": {"operations": ["*"], "resources": ["*"]}} for service in (NAME, fakes_ipc.PUBSUB)}


class _Port:
    """Stands for the manager, which needs the broker that the world makes."""

    manager: shadow_manager.ShadowManager

    async def request(self, verb: str, thing: str, name: str, payload: bytes, /) -> bytes:
        return await self.manager.request(verb, thing, name, payload)

    async def names(self, thing: str, after: str, limit: int, /) -> list[str]:
        return await self.manager.names(thing, after, limit)


class Device:
    """`configuration` None: the component is not installed."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any] | None) -> None:
        port = _Port()
        self.folder = folder
        self.configuration = configuration
        self.reports: list[tuple[bool, str]] = []
        self.world = fakes_ipc.World(folder / "ipc.socket", connection.Limits(), shadows=port)
        port.manager = self.manager = shadow_manager.ShadowManager(
            store.ShadowStore(folder / "shadows"),
            self.world.broker,
            messages.Messages(),
            None,
            read=self._read,
            report=lambda is_well, why: self.reports.append((is_well, why)),
            log=self.world.log,
        )
        self._clients: list[Any] = []

    def _read(self) -> shadow_settings.Settings | None:
        return None if self.configuration is None else shadow_settings.read(self.configuration, THING)

    @contextlib.contextmanager
    def running(self) -> Iterator[Device]:
        with fakes_ipc.serving_in_thread(self.world):
            assert self.world.loop is not None
            serving = asyncio.run_coroutine_threadsafe(self.manager.run(), self.world.loop)
            try:
                yield self
            finally:
                for one in self._clients:
                    one.close().result(10)
                serving.cancel()
                with contextlib.suppress(futures.CancelledError):
                    serving.result(10)

    def reconfigure(self, configuration: Mapping[str, Any] | None) -> None:
        self.configuration = configuration
        self.world.do(self.manager.changed)

    def client(self, name: str = "test.App", access: Any = EVERYTHING) -> Any:
        if name not in self.world.components.known:
            self.world.do(lambda: self.world.add(name, access=access))
        low = awsiot.greengrasscoreipc.connect(ipc_socket=str(self.world.path), authtoken=f"token-{name}", timeout=10)
        self._clients.append(clientv2.GreengrassCoreIPCClientV2(client=low, executor=None))
        return self._clients[-1]


@contextlib.contextmanager
def running(configuration: Mapping[str, Any] | None = QUICK) -> Iterator[Device]:
    with tempfile.TemporaryDirectory(prefix="sh-") as folder, Device(Path(folder), configuration).running() as one:
        yield one


def document(payload: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(bytes(payload))
    return found


def listen(client: Any, topic: str) -> queue.Queue[tuple[str, dict[str, Any]]]:
    """Documents of a local topic with the words behind `shadow/`, as they come."""
    heard: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def take(event: Any) -> None:
        one = event.binary_message
        heard.put((one.context.topic.partition("/shadow/")[2], document(one.message)))

    client.subscribe_to_topic(topic=topic, on_stream_event=take, receive_mode="RECEIVE_ALL_MESSAGES")
    return heard


def publish(client: Any, topic: str, body: Any) -> None:
    binary = model.BinaryMessage(message=msgspec.json.encode(body))
    client.publish_to_topic(topic=topic, publish_message=model.PublishMessage(binary_message=binary))
