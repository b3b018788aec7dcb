"""Access policies of components: who may do what (spec/ipc.md 3.2)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import authorization

PUBSUB = "aws.greengrass.ipc.pubsub"
MQTT = "aws.greengrass.ipc.mqttproxy"
CLI = "aws.greengrass.Cli"
SHADOW = "aws.greengrass.ShadowManager"
TES = "aws.greengrass.TokenExchangeService"


def op(name: str) -> str:
    return f"aws.greengrass#{name}"


CONTROL = {
    PUBSUB: {
        "A:pubsub:1": {"policyDescription": "x", "operations": [op("PublishToTopic")], "resources": ["a/*", "b/#"]},
        "A:pubsub:2": {"operations": ["*"], "resources": ["everything/${*}"]},
    },
    MQTT: {"A:mqtt:1": {"operations": [op("SubscribeToIoTCore")], "resources": ["alarms/+/new", "site/#"]}},
    TES: {"A:tes:1": {"operations": ["*"]}},
}
POLICIES = authorization.read({"A": CONTROL, "B": {PUBSUB: {"B:1": {"operations": ["*"], "resources": ["*"]}}}})


@pytest.mark.parametrize(
    ("caller", "service", "operation", "resource", "allowed"),
    [
        ("A", PUBSUB, op("PublishToTopic"), "a/b/c", True),
        ("A", PUBSUB, op("publishtotopic"), "a/b", True),
        ("A", PUBSUB, op("PublishToTopic"), "b/#", True),
        ("A", PUBSUB, op("PublishToTopic"), "b/c", False),
        ("A", PUBSUB, op("SubscribeToTopic"), "a/b", False),
        ("A", PUBSUB, op("SubscribeToTopic"), "everything/*", True),
        ("A", PUBSUB, op("SubscribeToTopic"), "everything/x", False),
        ("A", PUBSUB, op("PublishToTopic"), "", False),
        ("B", PUBSUB, op("PublishToTopic"), "x", True),
        ("B", PUBSUB, op("PublishToIoTCore"), "x", False),  # not an operation of this service
        ("B", PUBSUB, "*", "x", False),
        ("B", MQTT, op("PublishToIoTCore"), "x", False),
        ("C", PUBSUB, op("PublishToTopic"), "a/b", False),
        ("a", PUBSUB, op("PublishToTopic"), "a/b", False),  # names of components are case-sensitive here
        ("A", MQTT, op("SubscribeToIoTCore"), "alarms/north/new", True),
        ("A", MQTT, op("SubscribeToIoTCore"), "alarms/+/new", True),
        ("A", MQTT, op("SubscribeToIoTCore"), "alarms/north/old", False),
        ("A", MQTT, op("SubscribeToIoTCore"), "alarms/#", False),
        ("A", MQTT, op("SubscribeToIoTCore"), "site", True),
        ("A", MQTT, op("SubscribeToIoTCore"), "site/#", True),
        ("A", MQTT, op("PublishToIoTCore"), "site/x", False),
        ("A", TES, "getCredentials", "", True),
        ("A", TES, "getCredentials", "x", False),
        ("A", "unknown.service", op("PublishToTopic"), "a/b", False),
        ("A", CLI, op("ListComponents"), "*", False),
        (CLI, CLI, op("ListComponents"), "*", True),
        ("greengrass-cli#user-1000", CLI, op("CreateLocalDeployment"), "*", True),
        ("greengrass-cli#user-1000", CLI, op("CancelLocalDeployment"), "*", True),
        ("greengrass-cli#user-1000", PUBSUB, op("PublishToTopic"), "a", True),
        ("greengrass-cli#user-1000", MQTT, op("SubscribeToIoTCore"), "a/#", True),
        ("greengrass-cli#user-1000", "aws.greengrass.ipc.lifecycle", op("PauseComponent"), "a", False),
        ("greengrass-cli", CLI, op("ListComponents"), "*", False),
        (SHADOW, SHADOW, op("GetThingShadow"), "$aws/things/x/shadow", True),
        (SHADOW, PUBSUB, op("PublishToTopic"), "x", False),
        ("A", SHADOW, op("GetThingShadow"), "$aws/things/x/shadow", False),
    ],
)
def test_allows_when_asked_then_as_the_table_says(
    caller: str, service: str, operation: str, resource: str, allowed: bool
) -> None:
    assert authorization.allows(POLICIES, caller, service, operation, resource) is allowed


def test_cancel_when_a_component_holds_a_policy_then_still_only_the_command_line_may() -> None:
    policies = authorization.read({"A": {CLI: {"1": {"operations": ["*"], "resources": ["*"]}}}})

    assert authorization.allows(policies, "A", CLI, op("ListComponents"), "*")
    assert not authorization.allows(policies, "A", CLI, op("CancelLocalDeployment"), "*")


def test_explain_when_denied_then_the_sentence_of_the_original() -> None:
    assert authorization.explain(POLICIES, "C", PUBSUB, op("PublishToTopic"), "a/b") == (
        f"Principal C is not authorized to perform {PUBSUB}:aws.greengrass#PublishToTopic on resource a/b"
    )


def test_explain_when_allowed_then_names_the_policy() -> None:
    assert authorization.explain(POLICIES, "A", PUBSUB, op("PublishToTopic"), "a/b").endswith("by policy A:pubsub:1")
    assert "always" in authorization.explain(POLICIES, CLI, CLI, op("ListComponents"), "*")


def test_read_when_access_control_is_json_text_then_the_same() -> None:
    assert authorization.read({"A": json.dumps(CONTROL)}) == authorization.read({"A": CONTROL})


def test_read_when_keys_have_another_case_then_the_same() -> None:
    policies = authorization.read({"A": {PUBSUB: {"1": {"Operations": ["*"], "RESOURCES": ["x"]}}}})

    assert authorization.allows(policies, "A", PUBSUB, op("PublishToTopic"), "x")


@pytest.mark.parametrize(
    ("control", "problem"),
    [
        ({"nope": {"1": {"operations": ["*"], "resources": ["*"]}}}, "there is no such service"),
        ({PUBSUB: {"bad": {"resources": ["*"]}}}, "lists no operations"),
        ({PUBSUB: {"bad": {"operations": [], "resources": ["*"]}}}, "lists no operations"),
        ({PUBSUB: {"bad": "text"}}, "lists no operations"),
        ({PUBSUB: {"bad": {"operations": ["*"], "resources": ["a?"]}}}, "write ${?}"),
        ({PUBSUB: {"bad": {"operations": ["*"], "resources": [""]}}}, "it is empty"),
        ({PUBSUB: {"bad": {"operations": ["aws.greengrass#Fly"], "resources": ["*"]}}}, "unknown operation"),
        ({PUBSUB: ["*"]}, "must be an object"),
        ("no json", "must be an object"),
        (5, "must be an object"),
    ],
)
def test_read_when_something_is_broken_then_told_and_the_rest_stays(control: Any, problem: str) -> None:
    good = {"good": {"operations": ["*"], "resources": ["x"]}}
    if isinstance(control, dict) and isinstance(control.get(PUBSUB), dict):
        control = {PUBSUB: {**control[PUBSUB], **good}}
    elif isinstance(control, dict) and PUBSUB not in control:
        control = {**control, PUBSUB: good}

    policies = authorization.read({"A": control, "B": {PUBSUB: good}})

    assert len(policies.problems) == 1
    assert problem in policies.problems[0]
    assert "A" in policies.problems[0]
    assert authorization.allows(policies, "B", PUBSUB, op("PublishToTopic"), "x")
    has_good = isinstance(control, dict) and isinstance(control.get(PUBSUB), dict)
    assert authorization.allows(policies, "A", PUBSUB, op("PublishToTopic"), "x") is has_good
    assert not authorization.allows(policies, "A", PUBSUB, op("PublishToTopic"), "y")


def test_read_when_nothing_is_given_then_nothing_is_allowed() -> None:
    assert authorization.read({"A": None, "B": {}}) == authorization.Policies()


anything = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from([PUBSUB, "operations", "resources", "*", "a?"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([PUBSUB, "operations", "resources", "x"]), inner, max_size=3)
    ),
)


@given(anything)
def test_read_when_any_value_then_never_broken(control: Any) -> None:
    policies = authorization.read({"A": control})

    authorization.allows(policies, "A", PUBSUB, op("PublishToTopic"), "x")


# ---- spec/ipc.md 3.2, sentence by sentence ---------------------------------------------------------------------------

LIFECYCLE = "aws.greengrass.ipc.lifecycle"


def granted(service: str, resources: Any, resource: str, operation: str = "*", wanted: str = "") -> bool:
    """Whether a component with this one policy may do `wanted`, by default an operation of the service."""
    policy = {"operations": [operation], "resources": resources}
    wanted = wanted or min(authorization.SERVICES[service])
    return authorization.allows(authorization.read({"A": {service: {"1": policy}}}), "A", service, wanted, resource)


def test_policies_when_several_components_have_some_then_each_counts_for_its_holder_only() -> None:
    policies = authorization.read(
        {name: {PUBSUB: {"same id": {"operations": ["*"], "resources": [name]}}} for name in ("A", "B")}
    )

    assert [
        (caller, resource)
        for caller in ("A", "B", "*")
        for resource in ("A", "B")
        if authorization.allows(policies, caller, PUBSUB, op("PublishToTopic"), resource)
    ] == [("A", "A"), ("B", "B")]


@pytest.mark.parametrize("service", sorted(authorization.SERVICES))
def test_operation_when_it_is_not_registered_for_the_service_then_denied_whatever_the_policy(service: str) -> None:
    assert granted(service, ["*"], "x")
    assert not granted(service, ["*"], "x", wanted=op("CancelLocalDeployment"))
    assert not granted(service, ["*"], "x", operation=op("Fly"), wanted=op("Fly"))


@pytest.mark.parametrize(
    ("service", "pattern", "resource", "allowed"),
    [
        (PUBSUB, "a/*", "a/b/c", True),
        (PUBSUB, "a/*", "a/", True),
        (PUBSUB, "a/*", "a", False),
        (PUBSUB, "a/#", "a/#", True),
        (PUBSUB, "a/#", "a/b", False),
        (PUBSUB, "a/+", "a/b", False),
        (LIFECYCLE, "com.x+", "com.x+", True),
        (MQTT, "a/+/c", "a/b/c", True),
        (MQTT, "a/+/c", "a/b/b/c", False),
        (MQTT, "a/#", "a", True),
        (MQTT, "a/#", "a/b/c", True),
        (MQTT, "a+/c", "ab/c", False),
        (MQTT, "a+/c", "a+/c", True),
        (MQTT, "a/#/c", "a/b/c", False),
        (MQTT, "a/#/c", "a/#/c", True),
        (MQTT, "a#", "ab", False),
        (PUBSUB, "a${*}b", "a*b", True),
        (PUBSUB, "a${*}b", "axb", False),
        (PUBSUB, "a${?}b${$}{", "a?b${", True),
        (PUBSUB, "a${x}", "a${x}", False),
        (PUBSUB, "a?", "a?", False),
        (PUBSUB, "", "", False),
    ],
)
def test_resource_when_matched_then_in_the_style_of_its_service(
    service: str, pattern: str, resource: str, allowed: bool
) -> None:
    assert granted(service, [pattern], resource) is allowed


def test_resource_when_one_is_invalid_then_only_that_is_left_out() -> None:
    policies = authorization.read(
        {"A": {PUBSUB: {"1": {"operations": ["*"], "resources": ["a?", "", "${x}", 5, "b"]}}}}
    )

    assert authorization.allows(policies, "A", PUBSUB, op("PublishToTopic"), "b")
    assert not authorization.allows(policies, "A", PUBSUB, op("PublishToTopic"), "")
    assert len(policies.problems) == 4
    assert all(f"cannot use resource {each!r} of policy 1" in "\n".join(policies.problems) for each in ("a?", "", 5))


@pytest.mark.parametrize("resources", ["*", "", 5, {"a": "b"}, [5], [None], ["?"]])
def test_resources_when_they_cannot_be_read_then_told_and_the_policy_is_not_one_without_resources(
    resources: Any,
) -> None:
    policies = authorization.read({"A": {TES: {"1": {"operations": ["*"], "resources": resources}}}})

    assert len(policies.problems) == 1
    assert not authorization.allows(policies, "A", TES, "getCredentials", "")


@pytest.mark.parametrize("resources", [None, []])
def test_resources_when_there_are_none_then_only_requests_without_one_are_allowed(resources: Any) -> None:
    assert granted(TES, resources, "")
    assert not granted(PUBSUB, resources, "a")


def test_policy_when_it_names_an_unknown_operation_then_told_and_its_others_count() -> None:
    policy = {"operations": [op("Fly"), op("PublishToTopic")], "resources": ["a"]}
    policies = authorization.read({"A": {PUBSUB: {"1": policy}}})

    assert "unknown operation aws.greengrass#Fly" in policies.problems[0]
    assert authorization.allows(policies, "A", PUBSUB, op("PublishToTopic"), "a")


def test_recipe_variable_when_it_stands_in_a_resource_then_it_is_literal_text_here() -> None:
    """As in the original unless its nucleus has `interpolateComponentConfiguration`, which is off by default."""
    assert granted(MQTT, ["{iot:thingName}/x"], "{iot:thingName}/x")
    assert not granted(MQTT, ["{iot:thingName}/x"], "turbine/x")


@pytest.mark.parametrize("caller", ["aws.greengrass.Cli", "greengrass-cli#user-0", "greengrass-cli#group-1"])
def test_command_line_when_it_asks_then_no_policy_is_needed_for_its_operations(caller: str) -> None:
    nothing = authorization.Policies()
    everything = authorization.SERVICES[CLI]

    assert all(authorization.allows(nothing, caller, CLI, operation, "x") for operation in everything)
    assert not authorization.allows(nothing, caller, SHADOW, op("GetThingShadow"), "x")
    assert not authorization.allows(nothing, caller, "aws.greengrass.SecretManager", op("GetSecretValue"), "x")
