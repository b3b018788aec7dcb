"""What the fixture `marram_nucleus` gives to a test: the nucleus as a component meets it, and levers to move it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

from nucleus.actors import broker, consent, validation
from nucleus.core import configuration
from nucleus.core import errors as nucleus_errors
from nucleus.ipc import client, ports
from nucleus.store import configuration as configuration_store
from nucleus.testkit import clock, faults, standins

WITHIN_S = 20.0  # real seconds a test waits for a component's process before it fails
STOP_S = 5.0
LOOK_AGAIN_S = 0.02
PUBSUB = "aws.greengrass.ipc.pubsub"
MQTT = "aws.greengrass.ipc.mqttproxy"
EVERYTHING = {service: {"all": {"operations": ["*"], "resources": ["*"]}} for service in (PUBSUB, MQTT)}
TEST = "marram.Test"  # who publishes and subscribes for the test


class Inbox:
    """Messages in the order in which they came."""

    def __init__(self) -> None:
        self._messages: queue.Queue[tuple[str, Any]] = queue.Queue()

    def put(self, topic: str, message: Any) -> None:
        self._messages.put((topic, message))

    def take(self) -> tuple[str, Any]:
        """The next (topic, message): JSON as Python, binary as bytes. Raises AssertionError when none comes."""
        try:
            return self._messages.get(timeout=WITHIN_S)
        except queue.Empty:
            raise AssertionError(f"no message came within {WITHIN_S:.0f} s") from None

    def get(self) -> Any:
        """The next message without its topic."""
        return self.take()[1]

    def empty(self) -> bool:
        return self._messages.empty()


class Component:
    """A component under test: its identity, its configuration and, once started, its process."""

    def __init__(self, nucleus: Nucleus, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder  # its work folder, the process's current directory
        self.process: subprocess.Popen[bytes] | None = None
        self._nucleus = nucleus

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a nucleus gives to a component, for a client in the test's own process, too."""
        socket = str(self._nucleus.socket)
        return {
            client.SOCKET_VARIABLE: socket,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH": socket,
            client.TOKEN_VARIABLE: f"token-{self.name}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": f"token-{self.name}",
            "AWS_IOT_THING_NAME": "test-thing",
            "AWS_REGION": "us-east-1",
            "GGC_VERSION": "2.15.0",
        }

    def start(self, *command: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        """Starts its process; what it writes is in `output()`. The fixture ends it."""
        whole = {**os.environ, **self.environment, **environment}
        with (self.folder.parent / f"{self.name}.log").open("ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.folder,
                env=whole,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self.process

    def client(self) -> client.Client:
        """A client with its identity, for code under test that runs in the test's own process."""
        return client.Client(str(self._nucleus.socket), f"token-{self.name}")

    def output(self) -> str:
        path = self.folder.parent / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def states(self) -> list[str]:
        """What it has reported with UpdateState."""
        return [state for name, state in self._nucleus.components.reports if name == self.name]

    def configuration(self) -> dict[str, Any]:
        return self._nucleus.store.component(self.name)

    def stop(self) -> int | None:
        """Ends its process as the nucleus does: TERM to all of its group, after 5 s KILL. The exit code."""
        if self.process is None:
            return None
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(STOP_S)
        return self.process.wait(STOP_S)


class Nucleus:
    """Runs from `start` to `close`; every method is for the test's thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "ipc.socket"
        self.clock = clock.Clock()
        self.faults = faults.Faults()
        self.log = standins.Log()
        self.components = standins.Components()
        self.deployments = standins.Deployments()
        self.iot_core = standins.Uplink()
        self.store = configuration_store.ConfigurationStore(folder / "config", clock=self.clock.wall)
        self._broker = broker.Broker()
        self._consent = consent.Consent(self.log)
        self._validation = validation.Validation(self.log)
        self._started: list[Component] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    # ---- the component and its world ---------------------------------------------------------------------------------

    def component(
        self,
        name: str,
        *,
        configuration: Mapping[str, Any] | None = None,
        access: Mapping[str, Any] = EVERYTHING,
        version: str = "1.0.0",
    ) -> Component:
        """Installs a component with its configuration; `access` is its accessControl, by default everything."""
        self.components.known[name] = standins.Health(version, standins.State.RUNNING)
        self._write(("services", name, "version"), version)
        self._write(("services", name, "configuration"), {"accessControl": dict(access), **(configuration or {})})
        folder = self.folder / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        made = Component(self, name, folder)
        self._started.append(made)
        return made

    def publish(self, topic: str, message: Any) -> int:
        """Publishes to the local subscribers, bytes as a binary message, the rest as JSON; how many there were."""
        kind = "jsonMessage"
        if isinstance(message, bytes):
            kind, message = "binaryMessage", base64.b64encode(message).decode()
        event = json.dumps({kind: {"message": message, "context": {"topic": topic}}}).encode()
        return int(self.do(lambda: self._broker.publish(topic, event, TEST)))

    def subscribe(self, filter_: str) -> Inbox:
        """What components publish locally from now on."""
        inbox = Inbox()

        def take(topic: str, event: bytes) -> None:
            ((kind, body),) = json.loads(event).items()
            inbox.put(topic, base64.b64decode(body["message"]) if kind == "binaryMessage" else body["message"])

        self.do(lambda: self._broker.subscribe(filter_, broker.ALL, TEST, take))
        return inbox

    def deliver_from_cloud(self, topic: str, payload: bytes, **properties: Any) -> None:
        """A message from the cloud to whoever subscribes with SubscribeToIoTCore; `iot_core.published` has the others."""
        self.do(lambda: self.iot_core.arrive(standins.Incoming(topic, payload, properties=properties)))

    def connect(self, up: bool) -> None:
        """The connection to the cloud comes back or goes; while it is away, QoS 0 to the cloud fails."""
        self.do(lambda: self.iot_core.connect(up))

    def configure(self, name: str, values: Mapping[str, Any]) -> None:
        """Merges into a component's configuration as a deployment does."""
        self._write(("services", name, "configuration"), dict(values))

    def ask_for_update(self, deployment_id: str = "d1", timeout_s: float = 60.0) -> futures.Future[None]:
        """The question before an update; done when no component defers any more (`clock.advance` lets time pass)."""
        return self._start(self._consent.ask(deployment_id, timeout_s, lambda _: None))

    def tell_update_is_over(self, deployment_id: str = "d1") -> None:
        self.do(lambda: self._consent.over(deployment_id))

    def ask_for_validation(self, name: str, values: Mapping[str, Any], deployment_id: str = "d1") -> str:
        """What a component says of a configuration: "" for yes, else why not."""
        asked = self._validation.validate(deployment_id, {name: dict(values)}, WITHIN_S, lambda _: None)
        try:
            self._start(asked).result(WITHIN_S)
        except nucleus_errors.NucleusError as error:
            return error.detail
        return ""

    def restart(self) -> None:
        """Closes every connection and serves again; official clients never reconnect, a component must live with it."""
        again = self._start(self._serve_again())
        again.result(WITHIN_S)

    def until(self, met: Callable[[], bool], what: str) -> None:
        """Waits for something that a component's process does. Raises AssertionError with what the components wrote."""
        give_up_at = time.monotonic() + WITHIN_S
        while not met():
            if time.monotonic() > give_up_at:
                said = "\n".join(f"--- {one.name}\n{one.output()}" for one in self._started)
                raise AssertionError(f"{what} did not happen within {WITHIN_S:.0f} s; the components wrote:\n{said}")
            threading.Event().wait(LOOK_AGAIN_S)

    # ---- running -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(WITHIN_S), "the test nucleus did not start"

    def close(self) -> None:
        """Ends every component's process, then the server."""
        for one in self._started:
            one.stop()
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(WITHIN_S)
        self.store.close()

    def do(self, function: Callable[[], Any]) -> Any:
        """Calls a function in the nucleus's thread and returns its result."""

        async def run() -> Any:
            return function()

        return self._start(run()).result(WITHIN_S)

    def _start(self, work: Any) -> futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.clock.adopt(self._loop)
        self.store.open()
        await self._serve()
        self._ready.set()
        await self._over.wait()
        await self._stop_serving()

    async def _serve(self) -> None:
        self._server = faults.FaultyServer(self.socket, self._ports(), self.log)
        self._server.faults = self.faults
        self._serving = self._loop.create_task(self._server.run())
        await self._server.listening.wait()

    async def _stop_serving(self) -> None:
        self._serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._serving

    async def _serve_again(self) -> None:
        await self._stop_serving()
        await self._serve()

    def _ports(self) -> ports.Ports:
        return ports.Ports(
            identify=self._identify,
            configuration=self.store,
            components=self.components,
            deployments=self.deployments,
            uplink=self.iot_core,
            broker=self._broker,
            consent=self._consent,
            validation=self._validation,
        )

    def _identify(self, token: str) -> str | None:
        name = token.removeprefix("token-")
        return name if name != token and name in self.components.known else None

    def _write(self, path: configuration.Path, value: Any) -> None:
        def write() -> None:
            stamp = self.store.now()
            self.store.commit(configuration.merge(self.store.tree, path, value, stamp, "deployment:test")[1])

        self.do(write)
