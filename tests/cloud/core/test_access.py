"""AWS IoT policies as tables."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.core import access

ONE = {access.THING_NAME: "one", access.CLIENT_ID: "one#2", access.IS_ATTACHED: "true"}


def allow(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def judge(statements: list[dict[str, Any]], action: str, resource: str) -> bool:
    return access.allows(access.compile([{"Statement": statements}]), action, resource, ONE)


def topic(tail: str) -> str:
    return f"arn:aws:iot:us-east-1:123456789012:{tail}"


TABLE: list[tuple[dict[str, Any], str, str, bool]] = [
    (allow("iot:Publish", topic("topic/a/b")), "iot:Publish", "topic/a/b", True),
    (allow("iot:Publish", topic("topic/a/b")), "iot:Publish", "topic/a/bc", False),
    (allow("iot:Publish", topic("topic/a/b")), "iot:Receive", "topic/a/b", False),
    (allow("IOT:publish", topic("topic/a/b")), "iot:Publish", "topic/a/b", True),
    (allow(["iot:Connect", "iot:Pub*"], topic("topic/a/b")), "iot:Publish", "topic/a/b", True),
    (allow("iot:*", "*"), "iot:Subscribe", "topicfilter/#", True),
    (allow("iot:*", "*"), "greengrass:ResolveComponentCandidates", "x", False),
    (allow("*", "arn:aws:iot:*"), "iot:Publish", "topic/a", True),
    (allow("greengrass:*", "*"), "greengrass:GetComponentVersionArtifact", "components:a:versions:1.0.0", True),
    (allow("greengrass:*", topic("*")), "greengrass:GetComponentVersionArtifact", "components:a:versions:1.0.0", False),
    (allow("iot:Publish", "arn:aws:iot:*:*:topic/a/*"), "iot:Publish", "topic/a/b/c", True),
    (allow("iot:Publish", topic("topic/*/end")), "iot:Publish", "topic/a/b/end", True),
    (allow("iot:Publish", topic("topic/*/end")), "iot:Publish", "topic/end", False),
    (allow("iot:Publish", topic("topic/a?c")), "iot:Publish", "topic/abc", True),
    (allow("iot:Publish", topic("topic/a?c")), "iot:Publish", "topic/ac", False),
    (allow("iot:Publish", topic("topic/a*a")), "iot:Publish", "topic/a", False),
    (allow("iot:Publish", topic("topic/a.c")), "iot:Publish", "topic/abc", False),
    # variables
    (allow("iot:Connect", topic("client/${iot:Connection.Thing.ThingName}*")), "iot:Connect", "client/one#2", True),
    (allow("iot:Connect", topic("client/${iot:ClientId}")), "iot:Connect", "client/one#2", True),
    (allow("iot:Connect", topic("client/${iot:Unknown}*")), "iot:Connect", "client/one", False),
    (allow("iot:Publish", topic("topic/x?/${iot:Connection.Thing.ThingName}")), "iot:Publish", "topic/xy/one", True),
    (allow("iot:Publish", topic("topic/a${*}b")), "iot:Publish", "topic/a*b", True),
    (allow("iot:Publish", topic("topic/a${*}b")), "iot:Publish", "topic/axb", False),
    # a subscription must lie inside the grant
    (allow("iot:Subscribe", topic("topicfilter/a/*")), "iot:Subscribe", "topicfilter/a/#", True),
    (allow("iot:Subscribe", topic("topicfilter/a/*")), "iot:Subscribe", "topicfilter/a/+/b", True),
    (allow("iot:Subscribe", topic("topicfilter/a/*")), "iot:Subscribe", "topicfilter/#", False),
    (allow("iot:Subscribe", topic("topicfilter/a/*")), "iot:Subscribe", "topicfilter/+/x", False),
    (allow("iot:Subscribe", topic("topicfilter/a/*/c")), "iot:Subscribe", "topicfilter/a/#", False),
    (allow("iot:Subscribe", topic("topicfilter/a/?")), "iot:Subscribe", "topicfilter/a/b", True),
    (allow("iot:Subscribe", topic("topicfilter/a/?")), "iot:Subscribe", "topicfilter/a/+", False),
    (allow("iot:Subscribe", topic("topicfilter/a/?")), "iot:Subscribe", "topicfilter/a/#", False),
    (allow("iot:Subscribe", topic("topicfilter/a/+")), "iot:Subscribe", "topicfilter/a/+", True),
    (allow("iot:Subscribe", topic("topicfilter/a/+")), "iot:Subscribe", "topicfilter/a/b", False),
    # conditions
    (
        allow("iot:*", "*", Condition={"Bool": {access.IS_ATTACHED: ["true"]}}), "iot:Connect", "client/one", True,
    ),
    (allow("iot:*", "*", Condition={"Bool": {access.IS_ATTACHED: False}}), "iot:Connect", "client/one", False),
    (allow("iot:*", "*", Condition={"StringLike": {access.CLIENT_ID: "one*"}}), "iot:Connect", "client/one", True),
    (allow("iot:*", "*", Condition={"IpAddress": {"aws:SourceIp": "::1"}}), "iot:Connect", "client/one", False),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "action", "resource", "expected"), TABLE)
def test_allows_when_one_statement_then_as_in_the_table(
    statement: dict[str, Any], action: str, resource: str, expected: bool
) -> None:
    assert judge([statement], action, resource) is expected


def test_allows_when_no_statement_then_denied() -> None:
    assert not judge([], "iot:Connect", "client/one")


@pytest.mark.parametrize("order", [1, -1])
def test_allows_when_a_deny_matches_too_then_it_wins_in_any_order(order: int) -> None:
    statements = [allow("iot:*", "*"), deny("iot:Publish", topic("topic/secret/*"))][::order]

    assert judge(statements, "iot:Publish", "topic/open")
    assert not judge(statements, "iot:Publish", "topic/secret/x")


def test_allows_when_a_deny_has_an_unknown_condition_then_it_denies() -> None:
    unknown = deny("iot:Publish", "*", Condition={"IpAddress": {"aws:SourceIp": "::1"}})

    assert not judge([allow("iot:*", "*"), unknown], "iot:Publish", "topic/a")


def test_allows_when_a_variable_holds_wildcards_then_they_are_plain_characters() -> None:
    policy = access.compile([{"Statement": allow("iot:Publish", topic("topic/${iot:ClientId}/x"))}])
    sly = {access.CLIENT_ID: "*"}

    assert not access.allows(policy, "iot:Publish", "topic/one/x", sly)
    assert access.allows(policy, "iot:Publish", "topic/*/x", sly)


def test_grants_when_many_topics_are_asked_then_answers_stay_right() -> None:
    policy = access.compile([{"Statement": allow("iot:Publish", topic("topic/even/*"))}])
    grants = access.Grants(policy, {})

    answers = [grants.allows("iot:Publish", f"topic/{'odd' if each % 2 else 'even'}/{each}") for each in range(100)]

    assert answers == [each % 2 == 0 for each in range(100)]


@pytest.mark.parametrize(
    "statement",
    [
        None,
        {"Effect": "Maybe", "Action": "*", "Resource": "*"},
        {"Effect": "Allow", "Action": [], "Resource": "*"},
        {"Effect": "Allow", "Action": "*"},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": "true"}},
    ],
)
def test_compile_when_statement_is_not_valid_then_error_names_it(statement: Any) -> None:
    with pytest.raises(ValueError, match="statement 0"):
        access.compile([{"Statement": [statement]}])
