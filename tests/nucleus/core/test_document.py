"""Deployment documents: what is read, and what a bad one is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nucleus.core import document, errors

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
    found = document.local(
        deployment_id="d",
        group=document.LOCAL_GROUP,
        created_ms=5,
        running_roots={"a": "1.0.0", "b": "1.0.0"},
        add={"b": "2.0.0", "c": "1.0.0"},
        remove=("a",),
        updates={"c": {"MERGE": {"x": 1}, "RESET": ["/y"]}},
    )

    assert {name: wish.version for name, wish in found.components.items()} == {"b": "2.0.0", "c": "1.0.0"}
    assert found.components["c"].merge == {"x": 1}
    assert found.failure_policy == document.DO_NOTHING


def test_local_when_updating_what_is_no_root_then_refused_instead_of_ignored() -> None:
    """aws-greengrass-nucleus issue 1765: the original accepts it, reports success and does nothing."""
    with pytest.raises(errors.NucleusError, match=r"aws\.greengrass\.Nucleus: not a root component"):
        document.local(
            deployment_id="d",
            group=document.LOCAL_GROUP,
            created_ms=5,
            running_roots={},
            add={},
            updates={"aws.greengrass.Nucleus": {"MERGE": {"x": 1}}},
        )
