"""Every operation in scope with the unmodified awsiotsdk client: success and declared errors."""

from __future__ import annotations

import datetime
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
from awsiot import eventstreamrpc
from awsiot.greengrasscoreipc import model

from nucleus.core import component, local
from nucleus.ipc import operations
from nucleus.wire import extensions, shapes
from tests.nucleus import fakes_ipc

Official = Callable[..., Any]


def _json(value: Any) -> model.PublishMessage:
    return model.PublishMessage(json_message=model.JsonMessage(message=value))


def _binary(value: bytes) -> model.PublishMessage:
    return model.PublishMessage(binary_message=model.BinaryMessage(message=value))


def _listen(client: Any, topic: str, mode: str | None = None) -> tuple[queue.Queue[Any], Any]:
    """Subscribes locally; returns the queue of events and the operation to close."""
    events: queue.Queue[Any] = queue.Queue()
    _, operation = client.subscribe_to_topic(
        topic=topic, receive_mode=mode, on_stream_event=events.put, on_stream_error=events.put
    )
    return events, operation


# ---- connecting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["wrong", "token-unknown"])
def test_connect_when_token_is_unknown_then_access_denied(world: fakes_ipc.World, token: str) -> None:
    with pytest.raises(eventstreamrpc.AccessDeniedError):
        awsiot.greengrasscoreipc.connect(ipc_socket=str(world.path), authtoken=token, timeout=10)


def test_table_when_compared_with_the_model_then_has_exactly_its_operations() -> None:
    assert set(operations.TABLE) == set(shapes.OPERATIONS) | set(extensions.OPERATIONS)


# ---- local publish and subscribe -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [{"a": [1, 1.5, None, "ü"]}, {}, {"deep": {"er": True}}, [1], "text", 7])
def test_json_when_published_then_subscriber_gets_the_same_and_the_topic(official: Official, value: Any) -> None:
    events, _ = _listen(official("test.Subscriber"), "a/b")

    official("test.Publisher").publish_to_topic(topic="a/b", publish_message=_json(value))

    event = events.get(timeout=10)
    assert event.json_message.message == value
    assert type(event.json_message.message) is type(value)
    assert event.json_message.context.topic == "a/b"


@pytest.mark.parametrize("data", [b"", b"\x00\xff", bytes(range(256)) * 40, bytes(3 * 1024 * 1024)])
def test_binary_when_published_then_same_bytes(official: Official, data: bytes) -> None:
    events, _ = _listen(official("test.Subscriber"), "a")

    official("test.Publisher").publish_to_topic(topic="a", publish_message=_binary(data))

    event = events.get(timeout=10)
    assert event.binary_message.message == data
    assert event.binary_message.context.topic == "a"


def test_order_when_many_are_published_then_kept(official: Official) -> None:
    events, _ = _listen(official("test.Subscriber"), "a")
    publisher = official("test.Publisher")

    futures = [publisher.publish_to_topic_async(topic="a", publish_message=_json({"n": n})) for n in range(500)]
    for future in futures:
        future.result(10)

    assert [events.get(timeout=10).json_message.message["n"] for _ in range(500)] == list(range(500))


@pytest.mark.parametrize(
    ("filter_", "mode", "own", "foreign"),
    [
        ("a/b", None, True, True),
        ("a/b", "RECEIVE_ALL_MESSAGES", True, True),
        ("a/b", "RECEIVE_MESSAGES_FROM_OTHERS", False, True),
        ("a/+", None, False, True),
        ("a/#", "RECEIVE_ALL_MESSAGES", True, True),
        ("#", "RECEIVE_MESSAGES_FROM_OTHERS", False, True),
        ("b/+", None, False, False),
    ],
)
def test_receive_mode_when_own_and_foreign_are_published_then_by_the_rule(
    official: Official, filter_: str, mode: str | None, own: bool, foreign: bool
) -> None:
    me = official("test.Me")
    events, _ = _listen(me, filter_, mode)
    end, _ = _listen(me, "end", "RECEIVE_ALL_MESSAGES")

    me.publish_to_topic(topic="a/b", publish_message=_json({"from": "me"}))
    official("test.Other").publish_to_topic(topic="a/b", publish_message=_json({"from": "other"}))
    me.publish_to_topic(topic="end", publish_message=_json({}))
    end.get(timeout=10)

    seen = [event.json_message.message.get("from") for event in events.queue]
    assert [name for name in seen if name] == ["me"] * own + ["other"] * foreign


def test_two_subscriptions_of_one_component_when_both_match_then_one_event_each(official: Official) -> None:
    client = official("test.Subscriber")
    first, _ = _listen(client, "a/b")
    second, _ = _listen(client, "a/+")

    official("test.Publisher").publish_to_topic(topic="a/b", publish_message=_json({}))

    assert first.get(timeout=10).json_message.context.topic == "a/b"
    assert second.get(timeout=10).json_message.context.topic == "a/b"


def test_subscription_when_closed_by_the_client_then_no_more_events(official: Official, world: fakes_ipc.World) -> None:
    client = official("test.Subscriber")
    events, operation = _listen(client, "a")
    later, _ = _listen(client, "a")

    operation.close().result(10)
    official("test.Publisher").publish_to_topic(topic="a", publish_message=_json({}))

    later.get(timeout=10)
    assert events.empty()


@pytest.mark.parametrize("topic", ["a/+", "#", "a*", ""])
def test_publish_when_topic_has_a_wildcard_or_is_empty_then_invalid_arguments(official: Official, topic: str) -> None:
    with pytest.raises(model.InvalidArgumentsError):
        official().publish_to_topic(topic=topic, publish_message=_json({}))


def test_publish_when_nobody_listens_then_success(official: Official) -> None:
    assert official().publish_to_topic(topic="lonely", publish_message=_json({})) is not None


def test_publish_when_message_is_missing_then_invalid_arguments_and_connection_lives(official: Official) -> None:
    client = official()

    with pytest.raises(model.InvalidArgumentsError) as refused:
        client.publish_to_topic(topic="a", publish_message=None)

    assert "publishMessage is missing" in refused.value.message
    client.publish_to_topic(topic="a", publish_message=_json({}))


# ---- accessControl -------------------------------------------------------------------------------------------------------


def _policy(operation: str, resource: str, service: str = fakes_ipc.PUBSUB) -> dict[str, Any]:
    return {service: {"p1": {"operations": [operation], "resources": [resource]}}}


def test_publish_when_no_policy_allows_then_unauthorized_and_the_message_says_what(official: Official) -> None:
    client = official("test.App", _policy("aws.greengrass#SubscribeToTopic", "*"))

    with pytest.raises(model.UnauthorizedError) as refused:
        client.publish_to_topic(topic="a", publish_message=_json({}))

    assert refused.value.message == (
        "Principal test.App is not authorized to perform aws.greengrass.ipc.pubsub:aws.greengrass#PublishToTopic "
        "on resource a"
    )


def test_wildcard_filter_when_policy_grants_less_then_unauthorized(official: Official) -> None:
    client = official("test.App", _policy("aws.greengrass#SubscribeToTopic", "a/b"))

    with pytest.raises(model.UnauthorizedError):
        client.subscribe_to_topic(topic="a/#", on_stream_event=print)


def test_policy_when_changed_while_connected_then_in_force_at_once(official: Official, world: fakes_ipc.World) -> None:
    client = official("test.App", {})
    where = ("services", "test.App", "configuration", "accessControl")

    with pytest.raises(model.UnauthorizedError):
        client.publish_to_topic(topic="a", publish_message=_json({}))
    world.do(lambda: world.put(where, _policy("*", "a")))
    client.publish_to_topic(topic="a", publish_message=_json({}))
    world.do(lambda: world.drop(where))
    with pytest.raises(model.UnauthorizedError):
        client.publish_to_topic(topic="a", publish_message=_json({}))


def test_iot_core_when_not_allowed_then_the_short_text(official: Official) -> None:
    with pytest.raises(model.UnauthorizedError) as refused:
        official("test.App", {}).publish_to_iot_core(topic_name="a", qos="1", payload=b"")

    assert refused.value.message == "Not Authorized"


def test_cli_operations_when_component_has_no_policy_then_unauthorized_but_the_cli_user_passes(
    official: Official,
) -> None:
    with pytest.raises(model.UnauthorizedError):
        official("test.App", {}).list_components()

    assert len(official("greengrass-cli#user-1000").list_components().components) == 1


# ---- IoT Core ------------------------------------------------------------------------------------------------------------


def test_iot_core_when_published_with_all_fields_then_uplink_and_subscriber_get_them(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official()
    events: queue.Queue[Any] = queue.Queue()
    client.subscribe_to_iot_core(topic_name="t/#", qos="1", on_stream_event=events.put)

    client.publish_to_iot_core(
        topic_name="t/1",
        qos="1",
        payload=b"\x00payload",
        retain=True,
        user_properties=[model.UserProperty(key="k", value="v")],
        message_expiry_interval_seconds=60,
        correlation_data=b"\xffid",
        response_topic="t/answer",
        payload_format="1",
        content_type="text/plain",
    )

    topic, payload, qos, properties = world.uplink.published[0]
    assert (topic, payload, qos) == ("t/1", b"\x00payload", 1)
    assert properties["correlationData"] == b"\xffid"
    assert properties["retain"] is True
    message = events.get(timeout=10).message
    assert (message.topic_name, message.payload, message.correlation_data) == ("t/1", b"\x00payload", b"\xffid")
    assert message.user_properties == [model.UserProperty(key="k", value="v")]
    assert (message.message_expiry_interval_seconds, message.payload_format) == (60, "1")


def test_iot_core_subscription_when_message_waits_behind_the_suback_then_delivered_after_the_answer(
    official: Official,
) -> None:
    events: queue.Queue[Any] = queue.Queue()

    official().subscribe_to_iot_core(topic_name="retained", qos="0", on_stream_event=events.put)

    assert events.get(timeout=10).message.payload == b"old"


def test_iot_core_subscription_when_suback_is_bad_then_service_error_with_reason(official: Official) -> None:
    with pytest.raises(model.ServiceError) as refused:
        official().subscribe_to_iot_core(topic_name="forbidden", qos="0", on_stream_event=print)

    assert refused.value.context == {"reasonCode": "135", "reasonString": "not authorized"}


def test_iot_core_when_client_closes_the_stream_then_uplink_subscription_ends(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official()
    _, operation = client.subscribe_to_iot_core(topic_name="t", qos="1", on_stream_event=print)
    assert world.do(lambda: world.uplink.subscriptions) == 1

    operation.close().result(10)
    client.list_components()

    assert world.do(lambda: world.uplink.subscriptions) == 0


def test_iot_core_publish_when_uplink_refuses_then_service_error_with_its_words(
    official: Official, world: fakes_ipc.World
) -> None:
    world.uplink.offline = True

    with pytest.raises(model.ServiceError) as refused:
        official().publish_to_iot_core(topic_name="t", qos="0", payload=b"x")

    assert refused.value.message == "cannot publish to t: offline and QoS 0"
    assert refused.value.context == {"code": "NETWORK_ERROR"}


@pytest.mark.parametrize("topic", ["a/+", "", "x" * 257, "1/2/3/4/5/6/7/8/9"])
def test_iot_core_publish_when_the_broker_would_hang_up_then_invalid_arguments(official: Official, topic: str) -> None:
    with pytest.raises(model.InvalidArgumentsError):
        official().publish_to_iot_core(topic_name=topic, qos="1", payload=b"")


@pytest.mark.parametrize("filter_", ["a/#/b", "a+", "a#", ""])
def test_iot_core_subscribe_when_filter_is_malformed_then_invalid_arguments(official: Official, filter_: str) -> None:
    with pytest.raises(model.InvalidArgumentsError):
        official().subscribe_to_iot_core(topic_name=filter_, qos="1", on_stream_event=print)


# ---- configuration -------------------------------------------------------------------------------------------------------

VALUES = {"Rate": 5, "limits": {"High": 1.5, "names": ["a", "b"], "none": None}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["Rate"], {"Rate": 5}),
        (["rate"], {"Rate": 5}),
        (["LIMITS", "high"], {"High": 1.5}),
        (["limits", "names"], {"names": ["a", "b"]}),
        (["limits", "none"], {"none": None}),
        (["limits"], VALUES["limits"]),
        ([], VALUES | {"accessControl": {}}),
        (None, VALUES | {"accessControl": {}}),
    ],
)
def test_get_configuration_when_leaf_or_map_then_wrapped_or_bare(official: Official, path: Any, value: Any) -> None:
    answer = official("test.App", {}, **VALUES).get_configuration(key_path=path)

    assert (answer.component_name, answer.value) == ("test.App", value)


def test_get_configuration_when_of_another_component_then_readable(official: Official) -> None:
    official("test.Other", {}, **VALUES)

    answer = official("test.App", {}).get_configuration(component_name="test.Other", key_path=["Rate"])

    assert (answer.component_name, answer.value) == ("test.Other", {"Rate": 5})


@pytest.mark.parametrize(("name", "path"), [(None, ["nothing"]), (None, ["Rate", "below"]), ("test.Nobody", [])])
def test_get_configuration_when_missing_then_resource_not_found(official: Official, name: Any, path: Any) -> None:
    with pytest.raises(model.ResourceNotFoundError) as refused:
        official("test.App", {}, **VALUES).get_configuration(component_name=name, key_path=path)

    assert refused.value.message == "Key not found"


def _time(ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)


def test_update_configuration_when_newer_then_merged_with_its_stamp_and_origin(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official("test.App", {}, **VALUES)

    client.update_configuration(key_path=["limits"], timestamp=_time(9000), value_to_merge={"HIGH": 2, "low": {"a": 1}})

    assert client.get_configuration(key_path=["limits"]).value == {
        "High": 2,
        "names": ["a", "b"],
        "none": None,
        "low": {"a": 1},
    }
    path = ("services", "test.App", "configuration", "limits", "low", "a")
    leaf = next(leaf for found, leaf in fakes_ipc.configuration.leaves(world.configuration.tree) if found == path)
    assert (leaf.stamp, leaf.origin) == (9000, "component:test.App")


def test_update_configuration_when_its_time_is_far_ahead_then_the_device_clock_stays(
    official: Official, world: fakes_ipc.World
) -> None:
    """Else every later stamp, also of deployments, would lie in that future."""
    client = official("test.App", {}, **VALUES)
    before = world.configuration.now()

    client.update_configuration(timestamp=_time(before + 10**12), value_to_merge={"Rate": 6})
    client.update_configuration(timestamp=_time(world.configuration.now()), value_to_merge={"Rate": 7})

    assert world.configuration.now() < before + 10**9
    assert client.get_configuration(key_path=["Rate"]).value == {"Rate": 7}


def test_update_configuration_when_key_path_names_a_leaf_then_replaced_by_the_map(official: Official) -> None:
    client = official("test.App", {}, **VALUES)

    client.update_configuration(key_path=["rate"], timestamp=_time(9000), value_to_merge={"per": "second"})

    assert client.get_configuration(key_path=["Rate"]).value == {"per": "second"}


def test_update_configuration_when_one_leaf_is_newer_then_condition_check_fails_and_nothing_is_written(
    official: Official,
) -> None:
    client = official("test.App", {}, **VALUES)
    client.update_configuration(timestamp=_time(9000), value_to_merge={"Rate": 6})

    with pytest.raises(model.FailedUpdateConditionCheckError):
        client.update_configuration(timestamp=_time(8999), value_to_merge={"fresh": 1, "Rate": 7})

    value = client.get_configuration(key_path=[]).value
    assert value["Rate"] == 6
    assert "fresh" not in value


def test_update_configuration_when_time_is_equal_then_written(official: Official) -> None:
    client = official("test.App", {}, **VALUES)
    for rate in (6, 7):
        client.update_configuration(timestamp=_time(9000), value_to_merge={"Rate": rate})

    assert client.get_configuration(key_path=["Rate"]).value == {"Rate": 7}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ([], {"accessControl": {}}),
        ([], {"ACCESSCONTROL": {}}),
        (["AccessControl"], {"x": {}}),
        (["accessControl", "aws.greengrass.ipc.pubsub"], {}),
        ([], 5),
        ([""], {"a": 1}),
    ],
)
def test_update_configuration_when_access_control_or_no_object_then_invalid_arguments(
    official: Official, path: Any, value: Any
) -> None:
    with pytest.raises(model.InvalidArgumentsError):
        official("test.App", {}).update_configuration(key_path=path, timestamp=_time(9000), value_to_merge=value)


def test_update_configuration_when_it_lies_too_deep_then_invalid_arguments_and_nothing_is_written(
    official: Official,
) -> None:
    client = official()
    deep: Any = 1
    for _ in range(400):
        deep = {"a": deep}
    for more in ({"value_to_merge": deep}, {"key_path": ["a"] * 400, "value_to_merge": 1}):
        with pytest.raises(model.InvalidArgumentsError):
            client.update_configuration(timestamp=_time(9000), **more)
    assert client.get_configuration(key_path=[]).value.get("a") is None


def test_update_configuration_when_caller_is_no_component_then_unauthorized(official: Official) -> None:
    with pytest.raises(model.UnauthorizedError):
        official("greengrass-cli#user-1").update_configuration(timestamp=_time(9000), value_to_merge={"a": 1})


def test_configuration_update_when_values_change_then_one_event_each_with_the_path(official: Official) -> None:
    watcher = official("test.Watcher", {})
    client = official("test.App", {}, **VALUES)
    events: queue.Queue[Any] = queue.Queue()
    watcher.subscribe_to_configuration_update(
        component_name="test.App", key_path=["limits"], on_stream_event=events.put
    )

    client.update_configuration(timestamp=_time(9000), value_to_merge={"Rate": 6})  # elsewhere
    client.update_configuration(timestamp=_time(9001), value_to_merge={"limits": {"high": 1.5}})  # same value
    client.update_configuration(timestamp=_time(9002), value_to_merge={"limits": {"empty": {}}})  # new empty branch
    client.update_configuration(timestamp=_time(9003), value_to_merge={"limits": {"high": 2, "names": []}})

    paths = [events.get(timeout=10).configuration_update_event.key_path for _ in range(2)]
    assert sorted(paths) == [["limits", "High"], ["limits", "names"]]
    assert events.empty()


def test_configuration_update_when_subscribed_to_a_missing_path_then_resource_not_found(official: Official) -> None:
    with pytest.raises(model.ResourceNotFoundError):
        official("test.App", {}).subscribe_to_configuration_update(key_path=["nothing"], on_stream_event=print)


def test_subscription_when_connection_closes_then_configuration_is_not_watched_any_more(
    official: Official, world: fakes_ipc.World
) -> None:
    before = world.do(lambda: world.watchers)
    client = official("test.App", {}, **VALUES)
    client.subscribe_to_configuration_update(key_path=[], on_stream_event=print)
    assert world.do(lambda: world.watchers) == before + 1

    client.close().result(10)
    official("test.Other", {}).get_configuration(key_path=[])

    assert world.do(lambda: world.watchers) == before


# ---- components and lifecycle --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["RUNNING", "ERRORED", "FINISHED"])
def test_update_state_when_reported_then_supervisor_hears_it(
    official: Official, world: fakes_ipc.World, state: str
) -> None:
    official("test.App", {}).update_state(state=state)

    assert world.components.reports == [("test.App", state)]


def test_update_state_when_caller_is_no_component_then_resource_not_found(official: Official) -> None:
    with pytest.raises(model.ResourceNotFoundError):
        official("greengrass-cli#user-1000").update_state(state="RUNNING")


def test_component_details_when_known_then_version_state_configuration(official: Official) -> None:
    details = official(**VALUES).get_component_details(component_name="test.App").component_details

    assert (details.component_name, details.version, details.state) == ("test.App", "1.0.0", "RUNNING")
    assert details.configuration["Rate"] == 5


def test_component_details_when_unknown_then_resource_not_found(official: Official) -> None:
    with pytest.raises(model.ResourceNotFoundError) as refused:
        official().get_component_details(component_name="test.Nobody")

    assert (refused.value.resource_type, refused.value.resource_name) == ("component", "test.Nobody")


def test_components_when_listed_then_sorted_by_name(official: Official) -> None:
    official("test.B")

    names = [one.component_name for one in official("test.A").list_components().components]

    assert names == ["test.A", "test.B"]


def test_restart_and_stop_when_known_then_status_by_the_supervisor(official: Official, world: fakes_ipc.World) -> None:
    client = official()

    assert client.restart_component(component_name="test.App").restart_status == "SUCCEEDED"
    assert client.stop_component(component_name="test.App").stop_status == "SUCCEEDED"
    world.components.stubborn.add("test.App")
    answer = client.restart_component(component_name="test.App")
    assert (answer.restart_status, answer.message) == ("FAILED", "cannot restart test.App now")


def test_restart_and_stop_when_unknown_then_component_not_found(official: Official) -> None:
    client = official()

    with pytest.raises(model.ComponentNotFoundError):
        client.restart_component(component_name="test.Nobody")
    with pytest.raises(model.ComponentNotFoundError):
        client.stop_component(component_name="test.Nobody")


def test_pause_and_resume_when_allowed_then_done_and_a_refusal_says_why(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official()

    client.pause_component(component_name="test.App")
    assert world.components.paused == ["test.App"]
    client.resume_component(component_name="test.App")
    assert world.components.paused == []
    world.components.stubborn.add("test.App")
    with pytest.raises(model.ServiceError) as refused:
        client.pause_component(component_name="test.App")
    assert "only a RUNNING component can be paused" in str(refused.value.message)
    with pytest.raises(model.UnauthorizedError):
        official("test.Plain", access={}).pause_component(component_name="test.App")


# ---- local deployments ---------------------------------------------------------------------------------------------------


def test_local_deployment_when_created_then_request_reaches_the_deployer(
    official: Official, world: fakes_ipc.World, tmp_path: Path
) -> None:
    answer = official().create_local_deployment(
        group_name="g",
        root_component_versions_to_add={"a": "1.0.0"},
        root_components_to_remove=["b"],
        component_to_configuration={"a": {"MERGE": {"x": 1}, "RESET": ["/y"]}},
        component_to_run_with_info={
            "a": model.RunWithInfo(
                posix_user="u", system_resource_limits=model.SystemResourceLimits(memory=1024, cpus=0.5)
            )
        },
        recipe_directory_path=str(tmp_path),
        artifacts_directory_path=str(tmp_path),
        failure_handling_policy="DO_NOTHING",
    )

    request, caller = world.deployments.requests[0]
    assert caller == "test.App"
    assert request == local.LocalRequest(
        group="g",
        add={"a": "1.0.0"},
        remove=("b",),
        updates={"a": {"MERGE": {"x": 1}, "RESET": ["/y"]}},
        run_with={"a": component.RunWith("u", 1024, 0.5)},
        recipe_directory=str(tmp_path),
        artifacts_directory=str(tmp_path),
        failure_policy="DO_NOTHING",
    )
    deployment = official().get_local_deployment_status(deployment_id=answer.deployment_id).deployment
    assert (deployment.status, deployment.created_on) == ("QUEUED", "14-11-2023 22:13:20 UTC")
    assert deployment.deployment_status_details is None


def test_local_deployment_when_failed_then_details_are_listed(official: Official, world: fakes_ipc.World) -> None:
    world.deployments.known["x"] = local.LocalStatus(
        deployment_id="x",
        status="FAILED",
        created_at=0.0,
        detail="FAILED_NO_STATE_CHANGE",
        error_stack=("DEPLOYMENT_FAILURE",),
        error_types=("REQUEST_ERROR",),
        failure_cause="because",
    )

    (found,) = official().list_local_deployments().local_deployments

    details = found.deployment_status_details
    assert (details.detailed_deployment_status, details.deployment_failure_cause) == (
        "FAILED_NO_STATE_CHANGE",
        "because",
    )
    assert details.deployment_error_stack == ["DEPLOYMENT_FAILURE"]


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"recipe_directory_path": "/nowhere/at/all"}, model.InvalidRecipeDirectoryPathError),
        ({"recipe_directory_path": "relative"}, model.InvalidRecipeDirectoryPathError),
        ({"artifacts_directory_path": "/etc/passwd"}, model.InvalidArtifactsDirectoryPathError),
        ({"component_to_configuration": {"a": {"merge": {}}}}, model.InvalidArgumentsError),
        ({"failure_handling_policy": "PANIC"}, model.InvalidArgumentsError),
        ({"root_component_versions_to_add": {"missing": "1.0.0"}}, model.ServiceError),
    ],
)
def test_local_deployment_when_request_is_wrong_then_declared_error(
    official: Official, members: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        official().create_local_deployment(**members)


@pytest.mark.parametrize(
    ("deployment_id", "error"),
    [("no-uuid", model.InvalidArgumentsError), ("0" * 32, model.ResourceNotFoundError)],
)
def test_local_deployment_status_when_id_is_wrong_or_unknown_then_error(
    official: Official, deployment_id: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        official().get_local_deployment_status(deployment_id=deployment_id)


# ---- the connection's status -------------------------------------------------------------------------------------------------


def test_connection_status_when_subscribed_then_the_state_now_and_every_change(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official(access={})  # no policy guards it
    events: queue.Queue[Any] = queue.Queue()
    _, operation = client.subscribe_to_iot_core_connection_status(on_stream_event=events.put)

    assert events.get(timeout=10).connection_status_event.status == "CONNECTED"
    world.do(lambda: world.uplink.connect(False))
    assert events.get(timeout=10).connection_status_event.status == "DISCONNECTED"
    world.do(lambda: world.uplink.connect(True))
    assert events.get(timeout=10).connection_status_event.status == "CONNECTED"
    operation.close().result(10)
    client.get_configuration(key_path=[])  # behind the end of the stream on the same connection
    world.do(lambda: world.uplink.connect(False))
    assert events.empty()
