"""Traps and small print of the wire that no other test holds (spec/ipc.md 3.3 and 6; the list is in test_misbehaviour.py)."""

from __future__ import annotations

import asyncio
import datetime
import queue
import time
from collections.abc import Callable
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from nucleus.wire import eventstream, rpc
from tests.nucleus import fakes_ipc, shadow_device

from .raw import Raw, body, request

Official = Callable[..., Any]


def _published(client: Any, topic: str, value: Any) -> None:
    message = model.PublishMessage(json_message=model.JsonMessage(message=value))
    client.publish_to_topic(topic=topic, publish_message=message)


@pytest.mark.parametrize(
    ("filter_", "heard"),
    [("a/#", ["a/b", "a/b/c"]), ("a/", ["a", "a/"]), ("#", ["a", "a/", "a/b", "a/b/c", "$x/y"]), ("+/y", ["$x/y"])],
)
def test_filter_when_local_then_with_the_quirks_of_the_original(
    official: Official, filter_: str, heard: list[str]
) -> None:
    """`a/#` leaves `a` out, a last `/` does not count, and `$` is a character like others."""
    events: queue.Queue[Any] = queue.Queue()
    listener = official("test.Listener")  # one connection for both: what comes over two may change places
    listener.subscribe_to_topic(topic=filter_, receive_mode="RECEIVE_ALL_MESSAGES", on_stream_event=events.put)
    listener.subscribe_to_topic(topic="end", on_stream_event=events.put)
    speaker = official("test.Speaker")

    for topic in ("a", "a/", "a/b", "a/b/c", "$x/y", "end"):
        _published(speaker, topic, topic)

    found: list[str] = []
    while "end" not in found:
        event = events.get(timeout=10).json_message
        assert event.context.topic == event.message
        found.append(event.message)
    assert sorted(found[:-1]) == sorted([*heard])


@pytest.mark.parametrize("missing", ["topicName", "qos", "payload"])
def test_iot_core_when_a_member_is_missing_then_invalid_arguments_and_the_connection_lives(
    world: fakes_ipc.World, missing: str
) -> None:
    token = world.do(lambda: world.add("test.App", access=fakes_ipc.EVERYTHING))
    whole = {"topicName": "a", "qos": "1", "payload": "AA=="}
    with Raw(world.path, token) as client:
        refused = body(client.call(1, "PublishToIoTCore", {name: whole[name] for name in whole if name != missing}))
        done = body(client.call(2, "PublishToIoTCore", whole))

    assert refused["_errorCode"] == "InvalidArgumentsError"
    assert missing in refused["message"]
    assert done == {}


def test_update_configuration_when_the_path_is_missing_then_created(official: Official) -> None:
    client = official("test.App", {})

    client.update_configuration(
        key_path=["a", "b"],
        timestamp=datetime.datetime.fromtimestamp(9, datetime.UTC),
        value_to_merge={"c": 1, "d": {"e": [1, {"f": None}]}},
    )

    assert client.get_configuration(key_path=["A", "B"]).value == {"c": 1, "d": {"e": [1, {"f": None}]}}


def test_calls_when_one_waits_then_others_of_the_same_connection_are_answered(world: fakes_ipc.World) -> None:
    suback = asyncio.Event()

    async def slow(*_: Any) -> Callable[[], None]:
        await suback.wait()
        return lambda: None

    world.uplink.subscribe = slow  # type: ignore[method-assign]
    token = world.do(lambda: world.add("test.App", access=fakes_ipc.EVERYTHING))
    with Raw(world.path, token) as client:
        client.send(request(1, "SubscribeToIoTCore", b'{"topicName": "a", "qos": "1"}'))
        others = [client.call(stream, "GetConfiguration", {"keyPath": []}) for stream in (2, 3)]
        world.do(suback.set)
        answer = client.read()

    assert [one.stream_id for one in others if one is not None] == [2, 3]
    assert answer is not None
    assert (answer.stream_id, body(answer)) == (1, {})


@pytest.mark.parametrize("shape", ["SubscribeToIoTCoreConnectionStatusResponse", "Nonsense", ""])
def test_request_when_its_shape_is_named_wrongly_then_served_by_its_operation(
    world: fakes_ipc.World, shape: str
) -> None:
    """The SDK for C names the response's shape there."""
    token = world.do(lambda: world.add("test.App", access=fakes_ipc.EVERYTHING))
    named = eventstream.string("service-model-type", rpc.NAMESPACE + shape)
    with Raw(world.path, token) as client:
        client.send(request(1, "SubscribeToIoTCoreConnectionStatus", prefix=named))

        assert body(client.read()) == {}
        assert "connectionStatusEvent" in body(client.read())


def test_answer_when_it_has_nothing_to_say_then_an_empty_object(world: fakes_ipc.World) -> None:
    token = world.do(lambda: world.add("test.App", access=fakes_ipc.EVERYTHING))
    with Raw(world.path, token) as client:
        answer = client.call(1, "UpdateState", {"state": "RUNNING"})

    assert answer is not None
    assert bytes(answer.frame.payload) == b"{}"


def test_timestamp_when_answered_then_seconds_with_a_fraction() -> None:
    before = time.time()
    with shadow_device.running() as device:
        answer = device.client().list_named_shadows_for_thing(thing_name="thing")

    assert before - 1 < answer.timestamp.timestamp() < time.time() + 1
