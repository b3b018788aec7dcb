"""Connections from one server to the next: nothing is lost, nothing comes twice, whatever state they are in."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nucleus.core import handover
from nucleus.ipc import connection, deputy
from nucleus.wire import rpc
from tests.nucleus import fakes_ipc
from tests.nucleus.ipc import raw

NAME, OTHER = "test.App", "test.Other"


class Succession:
    """A server that can be followed by another one, as a process image is; clients are blocking and run in threads."""

    def __init__(self, path: Path, *, with_deputy: bool) -> None:
        self.with_deputy = with_deputy
        self.world = self._made(path)
        self._path = path
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None
        self.clients: list[raw.Raw] = []

    def _made(self, path: Path) -> fakes_ipc.World:
        world = fakes_ipc.World(path, connection.Limits())
        for name in (NAME, OTHER):
            world.add(name, access=fakes_ipc.EVERYTHING)
        return world

    async def __aenter__(self) -> Succession:
        await self._group.__aenter__()
        await self._start()
        return self

    async def __aexit__(self, *problem: Any) -> None:
        for one in self.clients:
            one.close()
        assert self._task is not None
        self._task.cancel()
        await self._group.__aexit__(None, None, None)
        self.world.configuration.close()

    async def _start(self) -> None:
        self._task = self._group.create_task(self.world.server.run())
        async with asyncio.timeout(10):
            await self.world.server.listening.wait()

    async def client(self, name: str = NAME, **options: Any) -> raw.Raw:
        made = await asyncio.to_thread(raw.Raw, self._path, f"token-{name}" if name else "")
        self.clients.append(made)
        return made

    async def follow(
        self,
        prepare: Callable[[fakes_ipc.World], None] = lambda world: None,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> handover.Sockets:
        """The next server takes over; the old one loses its descriptors as by exec, unheard."""
        old, task = self.world, self._task
        assert task is not None
        await old.server.quiet()
        state = old.server.carry()
        kept = {one: os.dup(one) for one in [state.descriptor, *(client.descriptor for client in state.clients)]}
        clerk = deputy.appoint(old.server.ports, self._kept(state, kept)) if self.with_deputy else None
        for one in list(old.server._connections):
            one.abort("replaced")
        task.cancel()
        await asyncio.wait({task})
        old.configuration.close()
        if meanwhile is not None:
            await meanwhile()
        found = self._kept(msgspec.json.decode(msgspec.json.encode(state), type=handover.Sockets), kept)
        if clerk is not None:
            clients = await asyncio.to_thread(deputy.relieve, clerk)
            assert clients is not None
            for gone in {each.descriptor for each in found.clients} - {each.descriptor for each in clients}:
                os.close(gone)
            found = msgspec.structs.replace(found, clients=clients)
        self.world = self._made(self._path)
        prepare(self.world)
        self.world.server._carried = lambda: found
        await self._start()
        return state

    def _kept(self, state: handover.Sockets, kept: dict[int, int]) -> handover.Sockets:
        clients = tuple(msgspec.structs.replace(one, descriptor=kept[one.descriptor]) for one in state.clients)
        return handover.Sockets(state.path, kept[state.descriptor], clients)


@pytest.fixture(params=[False, True], ids=["alone", "with deputy"])
async def succession(socket_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Succession]:
    async with Succession(socket_path, with_deputy=request.param) as made:
        yield made


@pytest.fixture
async def deputised(socket_path: Path) -> AsyncIterator[Succession]:
    async with Succession(socket_path, with_deputy=True) as made:
        yield made


def publication(stream_id: int, text: str, topic: str = "t") -> bytes:
    body = {"topic": topic, "publishMessage": {"jsonMessage": {"message": {"is": text}}}}
    return raw.request(stream_id, "PublishToTopic", rpc.dump(body))


def said(message: rpc.Message | None) -> str:
    return str(raw.body(message)["jsonMessage"]["message"]["is"])


async def read(one: raw.Raw) -> rpc.Message | None:
    return await asyncio.to_thread(one.read)


async def test_subscription_when_taken_over_then_no_second_answer_and_events_go_on(succession: Succession) -> None:
    listener, speaker = await succession.client(), await succession.client(OTHER)
    assert raw.body(await asyncio.to_thread(listener.call, 7, "SubscribeToTopic", {"topic": "t"})) == {}

    await succession.follow()
    speaker.send(publication(1, "hello"))
    answer, event = await read(speaker), await read(listener)
    listener.send(rpc.encode(rpc.Kind.MESSAGE, rpc.TERMINATE, 7))
    again = await asyncio.to_thread(listener.call, 8, "GetConfiguration", {})

    assert raw.body(answer) == {}
    assert event is not None
    assert (event.stream_id, said(event)) == (7, "hello")
    assert "value" in raw.body(again)
    assert "ipc.taken_over" in succession.world.log.names()


async def test_frame_when_half_of_it_was_read_then_the_next_server_completes_it(succession: Succession) -> None:
    one = await succession.client()
    frame = raw.request(1, "GetConfiguration", b'{"keyPath": []}')
    one.send(frame[:50])
    assert raw.body(await asyncio.to_thread((await succession.client()).call, 1, "GetConfiguration", {}))  # it was read

    await succession.follow()
    one.send(frame[50:])

    assert "value" in raw.body(await read(one))


async def test_requests_when_they_come_while_nobody_serves_then_they_find_every_subscriber(
    succession: Succession,
) -> None:
    listeners = [await succession.client() for _ in range(3)]
    speaker = await succession.client(OTHER)
    for one in listeners:
        await asyncio.to_thread(one.call, 1, "SubscribeToTopic", {"topic": "#"})
    many = b"".join(publication(number + 1, str(number)) for number in range(200))
    async with asyncio.TaskGroup() as group:
        await succession.world.server.quiet()
        group.create_task(asyncio.to_thread(speaker.send, many))
        await succession.follow()

    for _ in range(200):
        assert raw.body(await read(speaker)) == {}
    for one in listeners:
        assert [said(await read(one)) for _ in range(200)] == [str(number) for number in range(200)]


async def test_events_when_the_client_does_not_read_then_the_rest_is_carried_byte_by_byte(
    succession: Succession,
) -> None:
    listener, speaker = await succession.client(), await succession.client(OTHER)
    await asyncio.to_thread(listener.call, 1, "SubscribeToTopic", {"topic": "t"})
    for number in range(100):
        await asyncio.to_thread(speaker.send, publication(number + 1, f"{number}" + "x" * 20_000))
        await read(speaker)

    state = await succession.follow()
    speaker.send(publication(101, "last"))
    events = [said(await read(listener)).rstrip("x") for _ in range(101)]

    assert max(len(one.unsent) for one in state.clients) > 1_000_000
    assert events == [*map(str, range(100)), "last"]


async def test_call_when_it_is_not_answered_then_repeated_or_told_that_nobody_knows(succession: Succession) -> None:
    one, forever = await succession.client("greengrass-cli#user-0"), asyncio.Event()

    async def never(*_: Any) -> Any:
        await forever.wait()

    succession.world.uplink.subscribe = never  # type: ignore[method-assign]
    succession.world.deployments.create_local = never  # type: ignore[method-assign]
    one.send(raw.request(1, "CreateLocalDeployment", b"{}"))
    other = await succession.client()
    other.send(raw.request(1, "SubscribeToIoTCore", b'{"topicName": "retained", "qos": "1"}'))

    await succession.follow()
    refused, answer, event = await read(one), await read(other), await read(other)

    assert raw.body(refused)["_errorCode"] == "ServiceError"
    assert "look, then try again" in raw.body(refused)["message"]
    assert raw.body(answer) == {}
    assert raw.body(event)["message"]["topicName"] == "retained"
    assert succession.world.deployments.requests == []


async def test_events_when_a_subscription_greets_then_its_client_does_not_hear_that_again(
    succession: Succession,
) -> None:
    def ask(world: fakes_ipc.World) -> None:
        world.consent._question, world.consent._event = "d1", {"preUpdateEvent": {"deploymentId": "d1"}}

    one = await succession.client()
    await asyncio.to_thread(one.call, 1, "SubscribeToComponentUpdates", {})

    await succession.follow(ask)
    succession.world.consent.over("d1")

    assert raw.body(await read(one)) == {"postUpdateEvent": {"deploymentId": "d1"}}


async def test_connection_when_it_has_not_shaken_hands_then_it_can_with_the_next_server(succession: Succession) -> None:
    one = await succession.client("")
    assert raw.body(await asyncio.to_thread((await succession.client()).call, 1, "GetConfiguration", {}))

    await succession.follow()
    one.send(rpc.connect(f"token-{NAME}"))
    ack = await read(one)

    assert ack is not None
    assert ack.head.flags == rpc.ACCEPTED


async def test_deputy_when_it_serves_then_messages_flow_and_new_subscriptions_go_on(deputised: Succession) -> None:
    listener, speaker = await deputised.client(), await deputised.client(OTHER)
    await asyncio.to_thread(listener.call, 1, "SubscribeToTopic", {"topic": "t"})
    heard: list[str] = []

    async def meanwhile() -> None:
        speaker.send(publication(1, "first"))
        assert raw.body(await read(speaker)) == {}
        heard.append(said(await read(listener)))
        assert raw.body(await asyncio.to_thread(listener.call, 2, "SubscribeToTopic", {"topic": "u"})) == {}
        assert "value" in raw.body(await asyncio.to_thread(listener.call, 3, "GetConfiguration", {}))
        listener.send(rpc.encode(rpc.Kind.MESSAGE, rpc.TERMINATE, 1))

    await deputised.follow(meanwhile=meanwhile)
    speaker.send(publication(2, "nobody listens") + publication(3, "second", "u"))
    event = await read(listener)

    assert heard == ["first"]
    assert event is not None
    assert (event.stream_id, said(event)) == (2, "second")


async def test_deputy_when_something_else_is_asked_then_it_and_what_follows_wait_for_the_next_server(
    deputised: Succession,
) -> None:
    one, listener = await deputised.client(), await deputised.client(OTHER)
    await asyncio.to_thread(listener.call, 1, "SubscribeToTopic", {"topic": "#"})
    await asyncio.to_thread(one.call, 1, "SubscribeToConfigurationUpdate", {"componentName": NAME})
    update = {"keyPath": ["a"], "valueToMerge": 1, "timestamp": 9.0}

    async def meanwhile() -> None:
        one.send(publication(2, "before"))
        assert raw.body(await read(one)) == {}
        shadow = publication(3, "for a service of the daemon", "$aws/things/x/shadow/update")
        one.send(shadow + raw.request(4, "UpdateConfiguration", rpc.dump(update)) + publication(5, "after"))

    await deputised.follow(meanwhile=meanwhile)
    told = [await read(one) for _ in range(4)]
    heard = [said(await read(listener)) for _ in range(3)]

    assert heard == ["before", "for a service of the daemon", "after"]
    assert [message.stream_id for message in told if message is not None] == [3, 1, 4, 5]
    assert raw.body(told[1])["configurationUpdateEvent"]["keyPath"] == ["a"]


async def test_deputy_when_it_dies_then_that_is_told(deputised: Succession) -> None:
    world = deputised.world
    one = await deputised.client()
    state = world.server.carry()
    copy = msgspec.structs.replace(state.clients[0], descriptor=os.dup(state.clients[0].descriptor))
    clerk = deputy.appoint(world.server.ports, handover.Sockets(state.path, -1, (copy,)))
    os.kill(clerk.pid, signal.SIGKILL)

    assert await asyncio.to_thread(deputy.relieve, clerk) is None

    os.close(copy.descriptor)
    assert "value" in raw.body(await asyncio.to_thread(one.call, 1, "GetConfiguration", {}))
