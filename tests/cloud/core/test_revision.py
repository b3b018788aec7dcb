"""The document of a revision, and what is wrong with a request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloud.core import revision
from nucleus.core import document

GROUP = "arn:aws:iot:us-east-1:123456789012:thinggroup/g"
ARN = "arn:aws:greengrass:us-east-1:123456789012:configuration:thinggroup/g:1"


def _request(**members: Any) -> revision.Request:
    return msgspec.convert({"targetArn": GROUP, **members}, revision.Request)


def _document(**members: Any) -> dict[str, Any]:
    return revision.document(_request(**members), deployment_id="d", configuration_arn=ARN, created_ms=5)


def test_document_when_nothing_is_asked_for_then_the_defaults() -> None:
    assert _document() == {
        "deploymentId": "d",
        "schemaDate": "2021-05-17",
        "configurationArn": ARN,
        "creationTimestamp": 5,
        "failureHandlingPolicy": "ROLLBACK",
        "componentUpdatePolicy": {"timeout": 60, "action": "NOTIFY_COMPONENTS"},
        "configurationValidationPolicy": {"timeout": 30},
        "components": {},
    }


def test_document_when_limits_are_set_then_the_capability_is_required() -> None:
    limits = {"memory": 1024, "cpus": 1.5}
    wish = {"componentVersion": "1.0.0", "runWith": {"posixUser": "u:g", "systemResourceLimits": limits}}

    made = _document(components={"c": wish})

    assert made["requiredCapabilities"] == ["LINUX_RESOURCE_LIMITS"]
    assert made["components"]["c"] == {
        "version": "1.0.0",
        "runWith": {"posixUser": "u:g", "systemResourceLimits": limits},
    }


def test_document_when_merge_is_text_then_an_object() -> None:
    update = {"merge": '{"a": {"b": [1, 2.5, null]}}', "reset": ["", "/x"]}

    made = _document(components={"c": {"componentVersion": "1.0.0", "configurationUpdate": update}})

    assert made["components"]["c"]["configurationUpdate"] == {
        "merge": {"a": {"b": [1, 2.5, None]}},
        "reset": ["", "/x"],
    }


def test_document_when_read_by_the_device_then_the_same_wishes() -> None:
    update = {"merge": '{"a": 1}', "reset": ["/x"]}
    made = _document(
        deploymentName="n",
        components={"c": {"componentVersion": "1.0.0", "configurationUpdate": update}},
        deploymentPolicies={"failureHandlingPolicy": "DO_NOTHING"},
    )

    read = document.read_cloud(made)

    assert (read.deployment_id, read.configuration_arn, read.created_ms) == ("d", ARN, 5)
    assert read.failure_policy == "DO_NOTHING"
    assert (read.components["c"].version, read.components["c"].merge, read.components["c"].reset) == (
        "1.0.0",
        {"a": 1},
        ("/x",),
    )


def test_document_when_tags_are_settings_then_carried() -> None:
    assert _document(tags={"marram:watch_s": "0", "team": "wind"})["marram"] == {"watch_s": "0"}


@pytest.mark.parametrize("merge", ["{", "1", "null", '["a"]', "[" * 5000])
def test_problems_when_merge_is_no_object_then_the_member_is_named(merge: str) -> None:
    wish = {"componentVersion": "1.0.0", "configurationUpdate": {"merge": merge}}

    found = revision.problems(_request(components={"c": wish}))

    assert [name for name, _ in found] == ["components.c.configurationUpdate.merge"]


def test_problems_when_reset_is_no_pointer_then_named() -> None:
    wish = {"componentVersion": "1.0.0", "configurationUpdate": {"reset": ["", "/a", "b"]}}

    assert len(revision.problems(_request(components={"c": wish}))) == 1


@pytest.mark.parametrize(
    ("arn", "wanted"),
    [
        (GROUP, ("thinggroup", "g")),
        ("arn:aws:iot:us-east-1:123456789012:thing/t", ("thing", "t")),
        ("arn:aws:iot:us-east-1:123456789012:cert/x", ("", "")),
        ("arn:aws:iot:us-east-1:123456789012:thing/", ("", "")),
        ("thing/t", ("", "")),
        ("", ("", "")),
    ],
)
def test_target_when_read_then_kind_and_name(arn: str, wanted: tuple[str, str]) -> None:
    target = revision.target(arn)

    assert (target.kind, target.name) == wanted


@pytest.mark.parametrize(("now", "newest", "wanted"), [(10, None, 10), (10, 5, 10), (10, 10, 11), (10, 99, 100)])
def test_created_when_clock_goes_back_then_still_later(now: int, newest: int | None, wanted: int) -> None:
    assert revision.created_ms(now, newest) == wanted
