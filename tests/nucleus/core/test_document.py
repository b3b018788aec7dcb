"""Deployment documents: what is read, and what a bad one is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nucleus.core import document, errors, local

ARN = "arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/turbines:2"


def full(**changes: Any) -> dict[str, Any]:
    """The job document of spec/cloud.md 3.3, numbers as doubles as they may arrive."""
    return {
        "deploymentId": "3b86691d-4f81-408a-852e-edc14cd351a7",
        "configurationArn": ARN,
        "creationTimestamp": 1604067741583.0,
        "requiredCapabilities": ["LINUX_RESOURCE_LIMITS"],
        "failureHandlingPolicy": "ROLLBACK",
        "componentUpdatePolicy": {"timeout": 60.0, "action": "NOTIFY_COMPONENTS"},
        "somethingNew": True,
        "components": {
            "com.example.Hello": {
                "version": "1.0.1",
                "configurationUpdate": {"merge": {"key": "val"}, "reset": ["/sampleText"]},
                "runWith": {
                    "posixUser": "ggc_user:ggc_group",
                    "systemResourceLimits": {"memory": 1024000, "cpus": 1.5},
                },
            }
        },
        **changes,
    }


def test_read_cloud_when_full_then_every_member_is_there() -> None:
    found = document.parse_cloud(json.dumps(full()))

    assert found.group == "thinggroup/turbines"
    assert found.created_ms == 1604067741583
    wish = found.components["com.example.Hello"]
    assert (wish.version, wish.merge, wish.reset) == ("1.0.1", {"key": "val"}, ("/sampleText",))
    assert wish.run_with is not None
    assert (wish.run_with.posix_user, wish.run_with.memory_kb, wish.run_with.cpus) == (
        "ggc_user:ggc_group",
        1024000,
        1.5,
    )
    assert found.deadline_s == document.DEADLINE_S


def test_read_cloud_when_on_behalf_of_then_the_parent_group_is_meant() -> None:
    parent = "arn:aws:iot:us-east-1:123456789012:thinggroup/Parent"

    assert document.read_cloud(full(onBehalfOf=parent)).group == "thinggroup/Parent"


def test_read_cloud_when_our_cloud_adds_settings_then_they_count() -> None:
    found = document.read_cloud(full(marram={"deadline_s": 5, "watch_s": 0}))

    assert (found.deadline_s, found.watch_s) == (5.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"deploymentId": ""}, "deployment ?: deploymentId is missing"),
        ({"configurationArn": "x"}, "configurationArn must be the ARN of a configuration"),
        ({"creationTimestamp": "yesterday"}, "creationTimestamp must be a number of milliseconds"),
        ({"failureHandlingPolicy": "PANIC"}, "failureHandlingPolicy is 'PANIC'; use ROLLBACK or DO_NOTHING"),
        ({"components": []}, None),
        ({"components": ["a"]}, "components must be an object"),
        ({"components": {"a": {}}}, "components.a.version must be a version"),
        (
            {"components": {"a": {"version": "1.0.0", "configurationUpdate": {"merge": "{}"}}}},
            "merge must be an object",
        ),
        ({"components": {"a": {"version": "1.0.0", "configurationUpdate": {"reset": "/a"}}}}, "must be a list of JSON"),
    ],
)
def test_read_cloud_when_a_key_is_bad_then_the_error_names_it(changes: dict[str, Any], expected: str | None) -> None:
    if expected is None:
        assert document.read_cloud(full(**changes)).components == {}
        return
    with pytest.raises(errors.NucleusError) as caught:
        document.read_cloud(full(**changes))

    assert caught.value.code == "DEPLOYMENT_DOCUMENT_NOT_VALID"
    assert expected in caught.value.detail


def test_parse_cloud_when_no_json_then_parse_error() -> None:
    with pytest.raises(errors.NucleusError) as caught:
        document.parse_cloud("{")

    assert caught.value.code == "DEPLOYMENT_DOCUMENT_PARSE_ERROR"


def test_local_when_adding_and_removing_then_other_roots_stay() -> None:
    request = local.LocalRequest(
        add={"b": "2.0.0", "c": "1.0.0"}, remove=("a",), updates={"c": {"MERGE": {"x": 1}, "RESET": ["/y"]}}
    )

    found = document.local(request, deployment_id="d", created_ms=5, running_roots={"a": "1.0.0", "b": "1.0.0"})

    assert {name: wish.version for name, wish in found.components.items()} == {"b": "2.0.0", "c": "1.0.0"}
    assert found.components["c"].merge == {"x": 1}
    assert found.failure_policy == document.DO_NOTHING


def test_local_when_updating_what_is_no_root_then_refused_instead_of_ignored() -> None:
    """aws-greengrass-nucleus issue 1765: the original accepts it, reports success and does nothing."""
    with pytest.raises(errors.NucleusError, match=r"aws\.greengrass\.Nucleus: not a root component"):
        document.local(
            local.LocalRequest(updates={"aws.greengrass.Nucleus": {"MERGE": {"x": 1}}}),
            deployment_id="d",
            created_ms=5,
            running_roots={},
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"creationTimestamp": float("nan")},
        {"creationTimestamp": float("inf")},
        {"requiredCapabilities": 7},
        {"requiredCapabilities": [1]},
        {"marram": {"deadline_s": "soon"}},
        {"marram": {"watch_s": float("nan")}},
        {"marram": [1]},
        {"components": {"a": {"version": "1.0.0", "configurationUpdate": [1]}}},
        {"components": {"a": {"version": "1.0.0", "configurationUpdate": {"merge": [1]}}}},
        {"components": {"a": {"version": "1.0.0", "configurationUpdate": {"reset": 5}}}},
        {"components": {"a": {"version": "1.0.0", "runWith": ["root"]}}},
        {"components": {"a": {"version": "1.0.0", "runWith": {"systemResourceLimits": {"memory": "much"}}}}},
        {"components": {"a": {"version": "1.0.0", "runWith": {"systemResourceLimits": 7}}}},
    ],
)
def test_read_cloud_when_a_member_is_of_the_wrong_kind_then_refused_with_its_name(changes: dict[str, Any]) -> None:
    """Whatever a document holds ends in one readable refusal, never in a fault that loses the job."""
    with pytest.raises(errors.NucleusError, match="cannot read the document of deployment 3b86691d") as refused:
        document.read_cloud(full(**changes))
    assert refused.value.code == "DEPLOYMENT_DOCUMENT_NOT_VALID"


def test_read_cloud_when_deadline_and_watch_come_from_tags_then_text_counts() -> None:
    found = document.read_cloud(full(marram={"deadline_s": "60", "watch_s": "2.5"}))

    assert (found.deadline_s, found.watch_s) == (60.0, 2.5)


# ---- how components are asked, sub-deployments, our settings -----------------------------------------------------------


def _cloud(**more: Any) -> dict[str, Any]:
    return {
        "deploymentId": "d1",
        "configurationArn": "arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/retry:1",
        "creationTimestamp": 1,
        **more,
    }


def test_read_when_policies_are_given_then_taken_and_else_the_defaults() -> None:
    plain = document.read_cloud(_cloud())
    given = document.read_cloud(
        _cloud(
            componentUpdatePolicy={"timeout": 120.0, "action": "SKIP_NOTIFY_COMPONENTS"},
            configurationValidationPolicy={"timeout": 5},
            marram={"regret_s": "30", "validation_timeout": "fail"},
        )
    )

    assert (plain.update_action, plain.update_timeout_s, plain.validation_timeout_s) == (document.NOTIFY, 60.0, 60.0)
    assert (plain.regret_s, plain.validation_silence_fails) == (600.0, False)
    assert (given.update_action, given.update_timeout_s, given.validation_timeout_s) == (document.SKIP, 120.0, 5.0)
    assert (given.regret_s, given.validation_silence_fails) == (30.0, True)


def test_read_when_on_behalf_of_a_group_then_it_is_that_groups_deployment() -> None:
    parent = "arn:aws:iot:us-east-1:123456789012:thinggroup/farm"

    found = document.read_cloud(_cloud(parentTargetArn=parent, onBehalfOf=parent))

    assert (found.group, found.on_behalf_of, found.parent_target) == ("thinggroup/farm", parent, parent)
    assert found.configuration_arn.endswith("thinggroup/retry:1")


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"componentUpdatePolicy": {"action": "ASK"}}, "componentUpdatePolicy.action"),
        ({"componentUpdatePolicy": {"timeout": -1}}, "componentUpdatePolicy.timeout"),
        ({"componentUpdatePolicy": {"timeout": "soon"}}, "componentUpdatePolicy.timeout"),
        (
            {"configurationValidationPolicy": []} | {"configurationValidationPolicy": [1]},
            "configurationValidationPolicy",
        ),
        ({"onBehalfOf": "arn:aws:iot:us-east-1:123456789012:thing/t1"}, "onBehalfOf"),
        ({"onBehalfOf": 7}, "onBehalfOf"),
        ({"marram": {"validation_timeout": "maybe"}}, "marram.validation_timeout"),
        ({"marram": {"regret_s": "long"}}, "marram.regret_s"),
    ],
)
def test_read_when_a_policy_is_wrong_then_the_key_is_named(more: dict[str, Any], key: str) -> None:
    with pytest.raises(errors.NucleusError) as refused:
        document.read_cloud(_cloud(**more))

    assert refused.value.code == "DEPLOYMENT_DOCUMENT_NOT_VALID"
    assert key in refused.value.detail


def test_local_when_made_then_nobody_is_notified_and_validation_is_short() -> None:
    made = document.local(local.LocalRequest(), deployment_id="d1", created_ms=1, running_roots={})

    assert (made.update_action, made.validation_timeout_s) == (document.SKIP, 20.0)
