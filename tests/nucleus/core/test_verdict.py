"""What the policies say, and whether the advice is true."""

from __future__ import annotations

import json

import pytest

from nucleus.core import authorization, verdict

PUBLISH = "aws.greengrass#PublishToTopic"


@pytest.mark.parametrize("resource", ["a/b", "a/*", "why?", "${x}", "$aws/things/a"])
def test_of_when_denied_then_the_remedy_allows_just_that(resource: str) -> None:
    found = verdict.of(authorization.Policies(), "A", PUBLISH, resource)

    assert not found.allowed
    access = json.loads(found.remedy.split(" with ", 1)[1])["accessControl"]
    after = authorization.read({"A": access})
    assert verdict.of(after, "A", PUBLISH, resource).allowed
    assert not verdict.of(after, "A", PUBLISH, resource + "x").allowed


def test_of_when_the_operation_is_reserved_then_only_its_holders_may() -> None:
    for caller, allowed in (("A", False), ("aws.greengrass.StreamManager", True), ("marram.ModelAgent", True)):
        found = verdict.of(authorization.Policies(), caller, "aws.greengrass#ValidateAuthorizationToken", "")
        assert (found.allowed, found.remedy) == (allowed, "")


def test_of_when_no_policy_is_asked_then_it_says_so() -> None:
    assert verdict.of(authorization.Policies(), "A", "aws.greengrass#UpdateState", "").service == ""
