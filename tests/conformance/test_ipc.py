"""Behaviours 13.5 of the specification, with unmodified official clients of a real server."""

from __future__ import annotations

import datetime
import queue
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
from awsiot import eventstreamrpc
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.ipc import connection
from tests.conformance import daemon as daemons
from tests.nucleus import fakes_ipc

Official = Callable[..., Any]
EVERYTHING = fakes_ipc.EVERYTHING
ACCESS = ("services", "test.App", "configuration", "accessControl")


@pytest.fixture
def world() -> Iterator[fakes_ipc.World]:
    with tempfile.TemporaryDirectory(prefix="ipc-") as folder:
        made = fakes_ipc.World(Path(folder) / "ipc.socket", connection.Limits())
        with fakes_ipc.serving_in_thread(made) as running:
            yield running


@pytest.fixture
def official(world: fakes_ipc.World) -> Iterator[Official]:
    """Makes clients of a component that is added with the given policies and configuration."""
    clients: list[Any] = []

    def make(name: str = "test.App", access: Any = EVERYTHING, **values: Any) -> Any:
        if name not in world.components.known:
            world.do(lambda: world.add(name, access=access, **values))
        clients.append(connect(str(world.path), f"token-{name}"))
        return clients[-1]

    yield make
    for client in clients:
        client.close().result(10)


@pytest.fixture
def daemon() -> Iterator[daemons.Daemon]:
    with tempfile.TemporaryDirectory(prefix="nuc-") as folder, daemons.running(Path(folder), system={}) as one:
        yield one


def connect(socket: str, token: str) -> Any:
    low = awsiot.greengrasscoreipc.connect(ipc_socket=socket, authtoken=token, timeout=10)
    return clientv2.GreengrassCoreIPCClientV2(client=low, executor=None)


def message(value: Any) -> model.PublishMessage:
    return model.PublishMessage(json_message=model.JsonMessage(message=value))


def listen(client: Any, topic: str, mode: str | None = None) -> tuple[queue.Queue[Any], Any]:
    events: queue.Queue[Any] = queue.Queue()
    _, operation = client.subscribe_to_topic(topic=topic, receive_mode=mode, on_stream_event=events.put)
    return events, operation


def seen(events: queue.Queue[Any]) -> list[Any]:
    return [event.json_message.message for event in events.queue]


def policy(operation: str, resource: str) -> dict[str, Any]:
    return {fakes_ipc.PUBSUB: {"p1": {"operations": [operation], "resources": [resource]}}}


def at(ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)


@pytest.mark.parametrize("token", ["", "wrong"])
def test_54_connect_when_the_token_is_missing_or_wrong_then_refused_and_a_right_one_accepted(
    official: Official, world: fakes_ipc.World, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVCUID", token)  # where the client takes it from when it is given none
    with pytest.raises(eventstreamrpc.AccessDeniedError):
        awsiot.greengrasscoreipc.connect(ipc_socket=str(world.path), timeout=10)

    assert official("test.App").get_configuration(key_path=[]).component_name == "test.App"


def test_54_validate_when_stream_manager_asks_about_a_token_then_valid_or_an_error(official: Official) -> None:
    official("test.App")
    manager = official("aws.greengrass.StreamManager")

    assert manager.validate_authorization_token(token="token-test.App").is_valid
    with pytest.raises(model.InvalidTokenError):
        manager.validate_authorization_token(token="wrong")


def test_55_publish_when_authorised_then_delivered_and_policies_count_from_the_moment_they_change(
    official: Official, world: fakes_ipc.World
) -> None:
    events, _ = listen(official("test.Listener"), "a/b")
    client = official("test.App", {})
    with pytest.raises(model.UnauthorizedError):
        client.publish_to_topic(topic="a/b", publish_message=message(1))
    with pytest.raises(model.UnauthorizedError):
        client.subscribe_to_topic(topic="a/b", on_stream_event=print)

    world.do(lambda: world.put(ACCESS, policy("aws.greengrass#PublishToTopic", "a/b")))
    client.publish_to_topic(topic="a/b", publish_message=message(2))
    assert events.get(timeout=10).json_message.message == 2

    world.do(lambda: world.drop((*ACCESS, fakes_ipc.PUBSUB, "p1")))
    with pytest.raises(model.UnauthorizedError):
        client.publish_to_topic(topic="a/b", publish_message=message(3))

    world.do(lambda: world.put(ACCESS, policy("aws.greengrass#PublishToTopic", "a/b")))
    client.publish_to_topic(topic="a/b", publish_message=message(4))
    world.do(lambda: world.drop(("services", "test.App")))
    with pytest.raises(model.UnauthorizedError):
        client.publish_to_topic(topic="a/b", publish_message=message(5))
    assert events.get(timeout=10).json_message.message == 4
    assert events.empty()


def test_56_subscribe_when_wildcards_modes_and_unsubscribing_then_each_message_as_specified(
    official: Official,
) -> None:
    me = official("test.Me")
    exact, operation = listen(me, "a/b")
    everything, _ = listen(me, "a/+", "RECEIVE_ALL_MESSAGES")
    others, _ = listen(me, "a/#")

    me.publish_to_topic(topic="a/b", publish_message=message("mine"))
    assert exact.get(timeout=10).json_message.message == "mine"
    operation.close().result(10)
    official("test.Other").publish_to_topic(topic="a/b", publish_message=message("foreign"))
    assert others.get(timeout=10).json_message.message == "foreign"

    assert exact.empty()
    assert others.empty()
    assert [everything.get(timeout=10).json_message.message for _ in range(2)] == ["mine", "foreign"]
    assert everything.empty()
    poor = official("test.Poor", policy("aws.greengrass#SubscribeToTopic", "a/b"))
    with pytest.raises(model.UnauthorizedError):
        poor.subscribe_to_topic(topic="a/+", on_stream_event=print)


def test_57_configuration_when_leaves_are_updated_replaced_and_added_then_read_back_and_told_with_their_path(
    official: Official,
) -> None:
    client = official("test.App", {}, rate=5, limits={"high": 1})
    paths: queue.Queue[list[str]] = queue.Queue()
    client.subscribe_to_configuration_update(
        key_path=[], on_stream_event=lambda event: paths.put(event.configuration_update_event.key_path)
    )

    client.update_configuration(key_path=[], timestamp=at(9000), value_to_merge={"rate": 6})
    client.update_configuration(key_path=["rate"], timestamp=at(9001), value_to_merge={"per": "second"})
    client.update_configuration(key_path=["limits"], timestamp=at(9002), value_to_merge={"low": 0})

    assert client.get_configuration(key_path=["rate", "per"]).value == {"per": "second"}
    assert client.get_configuration(key_path=["limits"]).value == {"high": 1, "low": 0}
    told = [paths.get(timeout=10) for _ in range(3)]
    assert told == [["rate"], ["rate", "per"], ["limits", "low"]]


@pytest.mark.parametrize("qos", ["0", "1"])
def test_59_iot_core_when_published_and_subscribed_then_the_uplink_carries_it_and_its_errors_come_back(
    official: Official, world: fakes_ipc.World, qos: str
) -> None:
    client = official()
    events: queue.Queue[Any] = queue.Queue()
    client.subscribe_to_iot_core(topic_name="t/#", qos=qos, on_stream_event=events.put)
    client.publish_to_iot_core(topic_name="t/1", qos=qos, payload=b"\x00up")

    assert [(one[0], one[1], one[2]) for one in world.uplink.published] == [("t/1", b"\x00up", int(qos))]
    arrived = events.get(timeout=10).message
    assert (arrived.topic_name, arrived.payload) == ("t/1", b"\x00up")
    with pytest.raises(model.ServiceError):
        client.subscribe_to_iot_core(topic_name="forbidden", qos=qos, on_stream_event=events.put)
    world.uplink.offline = True
    with pytest.raises(model.ServiceError):
        client.publish_to_iot_core(topic_name="t/1", qos="0", payload=b"")


def test_58_update_state_when_a_component_reports_then_its_state_follows_and_dying_after_it_is_an_error(
    daemon: daemons.Daemon,
) -> None:
    script = "echo $SVCUID > ../token; test -e ../../died && exec sleep 1000; touch ../../died; exec sleep 1000"
    name = daemon.component({"Startup": {"Script": script, "Timeout": 60}, "Shutdown": "true"})
    deployment = daemon.deploy_local({name: "1.0.0"})
    daemon.until(lambda: daemon.state(name) == "STARTING" and (daemon.root / "work/token").exists(), "STARTING")
    client = connect(str(daemon.socket), daemon.token(name))

    client.update_state(state="RUNNING")
    daemon.until(lambda: daemon.state(name) == "RUNNING", "RUNNING")
    daemon.until(lambda: daemon.status(deployment) == "SUCCEEDED", "the deployment's success")
    daemon.kill_component(name)
    daemon.until(lambda: daemon.has_logged("ERRORED", name), "ERRORED")
    client.close().result(10)


def test_60_socket_when_its_path_is_configured_then_it_and_the_components_use_it() -> None:
    with tempfile.TemporaryDirectory(prefix="nuc-") as folder:
        socket = Path(folder) / "elsewhere.socket"
        with daemons.running(Path(folder) / "root", system={"ipcSocketPath": str(socket)}) as one:
            script = "echo $AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT > ../path; echo $SVCUID > ../token"
            name = one.component({"Startup": script})
            deployment = one.deploy_local({name: "1.0.0"})
            one.until(lambda: one.status(deployment) == "SUCCEEDED", "the deployment's success")

            assert not (one.root / "ipc.socket").exists()
            assert (one.root / "work/path").read_text().strip() == str(socket)
            client = connect(str(socket), one.token(name))
            assert client.get_configuration(key_path=[]).component_name == name
            client.close().result(10)
