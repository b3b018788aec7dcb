"""Access policies as a component with the unmodified client meets them (spec/ipc.md 3.2, the live half).

More of it: refusals in test_official_client.py, shadows in test_shadows.py, secrets in test_secrets.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from nucleus.core import authorization
from tests.nucleus import fakes_ipc

Official = Callable[..., Any]
WHERE = ("services", "test.App", "configuration", "accessControl")
PUBLISH = "aws.greengrass#PublishToTopic"


def policy(
    *resources: Any, operations: tuple[str, ...] = (PUBLISH,), service: str = fakes_ipc.PUBSUB
) -> dict[str, Any]:
    return {service: {"test.App:1": {"operations": list(operations), "resources": list(resources)}}}


def may_publish(client: Any, topic: str) -> bool:
    try:
        client.publish_to_topic(
            topic=topic, publish_message=model.PublishMessage(json_message=model.JsonMessage(message={}))
        )
    except model.UnauthorizedError:
        return False
    return True


def told(world: fakes_ipc.World) -> list[str]:
    """Why policies were left out, by the log."""
    return [fields["why"] for name, fields in world.log.events if name == "ipc.policy_ignored"]


def test_decision_when_remembered_then_forgotten_with_any_change_of_a_policy(
    official: Official, world: fakes_ipc.World
) -> None:
    client, other = official("test.App", policy("a")), official("test.Other", {})
    assert [may_publish(client, "a"), may_publish(client, "b"), may_publish(other, "b")] == [True, False, False]
    assert [may_publish(client, "a"), may_publish(client, "b"), may_publish(other, "b")] == [True, False, False]

    world.do(lambda: world.put((*WHERE, fakes_ipc.PUBSUB, "test.App:1", "resources"), ["b"]))  # one leaf of one policy

    assert [may_publish(client, "a"), may_publish(client, "b"), may_publish(other, "b")] == [False, True, False]


def test_decision_when_other_configuration_changes_then_policies_are_not_read_again(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official("test.App", {"no.such.service": {}})
    may_publish(client, "a")
    assert len(told(world)) == 1

    world.do(lambda: world.put(("services", "test.App", "configuration", "rate"), 1))
    may_publish(client, "b")

    assert len(told(world)) == 1


def test_access_control_when_it_is_one_json_text_then_as_the_object_and_reloaded(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official("test.App", json.dumps(policy("a")))
    assert [may_publish(client, "a"), may_publish(client, "b")] == [True, False]

    world.do(lambda: world.put(WHERE, json.dumps(policy("b"))))

    assert [may_publish(client, "a"), may_publish(client, "b")] == [False, True]


def test_access_control_when_parts_cannot_be_understood_then_they_are_told_and_the_rest_is_in_force(
    official: Official, world: fakes_ipc.World
) -> None:
    control = policy("a", "b?", "${b}", "", operations=(PUBLISH, "aws.greengrass#Fly"))
    control[fakes_ipc.PUBSUB]["no operations"] = {"resources": ["*"]}
    control[fakes_ipc.PUBSUB]["no resources"] = {"operations": ["*"]}
    control["no.such.service"] = {"1": {"operations": ["*"], "resources": ["*"]}}
    client = official("test.App", control)

    assert [may_publish(client, topic) for topic in ("a", "b?", "bx", "${b}", "other")] == [True] + 4 * [False]

    problems = "\n".join(told(world))
    assert len(told(world)) == 6
    for words in ("unknown operation", "'b?'", "'${b}'", "it is empty", "lists no operations", "no such service"):
        assert words in problems


def test_recipe_variable_when_it_is_in_a_resource_then_it_stays_text(official: Official) -> None:
    client = official("test.App", policy("{iot:thingName}/a"))

    assert may_publish(client, "{iot:thingName}/a")
    assert not may_publish(client, "device/a")


@pytest.mark.parametrize("caller", ["aws.greengrass.Cli", "greengrass-cli#user-1000"])
def test_command_line_when_it_has_no_policy_then_its_operations_are_served(official: Official, caller: str) -> None:
    official("test.App", {})
    client = official(caller, {})

    assert client.get_component_details(component_name="test.App").component_details.component_name == "test.App"
    assert client.create_local_deployment(root_component_versions_to_add={"test.App": "1.0.0"}).deployment_id
    with pytest.raises(model.UnauthorizedError):
        client.pause_component(component_name="test.App")


def test_refusal_when_the_resource_is_the_target_then_its_words_name_both(official: Official) -> None:
    official("test.Other", {})

    with pytest.raises(model.UnauthorizedError) as refused:
        official("test.App", {}).pause_component(component_name="test.Other")

    assert refused.value.message == (
        "Principal test.App is not authorized to perform "
        "aws.greengrass.ipc.lifecycle:aws.greengrass#PauseComponent on resource test.Other"
    )


@pytest.mark.parametrize("access", [{}, policy("*", operations=("*",), service=authorization.CLI)])
def test_cancel_when_a_component_asks_then_unauthorized_even_with_a_policy(official: Official, access: Any) -> None:
    with pytest.raises(model.UnauthorizedError):
        official("test.App", access).cancel_local_deployment(deployment_id="x")


def test_resource_when_it_is_huge_then_refused_before_it_is_matched_or_kept(
    official: Official, world: fakes_ipc.World
) -> None:
    """Else every refused name of 20 MB would be remembered, and matching one would hold up all components."""
    client = official("test.App", policy("a/*"))

    with pytest.raises(model.InvalidArgumentsError):
        may_publish(client, "a/" + "x" * 5_000_000)
    for number in range(3):
        assert not may_publish(client, f"b{number}" + "x" * 60_000)

    kept = world.do(lambda: [resource for *_, resource in world.server._access._decisions])
    assert max(map(len, kept), default=0) <= 1024
    assert may_publish(client, "a/b")
