"""The configuration of client devices: what is allowed, that DENY wins, and that a mistake allows nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import builtin, client_devices

PUBLISH, CONNECT = "mqtt:publish", "mqtt:connect"


def statement(operations: list[str], resources: list[str], effect: str = "ALLOW") -> dict[str, Any]:
    return {"statementDescription": "d", "effect": effect, "operations": operations, "resources": resources}


def configured(*statements: Any, rule: str = "thingName: *", **more: Any) -> dict[str, Any]:
    policy = {str(number): one for number, one in enumerate(statements)}
    groups = {
        "formatVersion": "2021-03-05",
        "definitions": {"all": {"selectionRule": rule, "policyName": "p"}},
        "policies": {"p": policy},
    }
    return {"deviceGroups": groups, **more}


@pytest.mark.parametrize(
    ("operations", "resources", "operation", "resource", "is_allowed"),
    [
        (["mqtt:publish"], ["mqtt:topic:a/b"], PUBLISH, "mqtt:topic:a/b", True),
        (["mqtt:publish"], ["mqtt:topic:a/b"], PUBLISH, "mqtt:topic:a/c", False),
        (["mqtt:publish"], ["mqtt:topic:a/b"], CONNECT, "mqtt:topic:a/b", False),
        (["*"], ["*"], PUBLISH, "mqtt:topic:a/b", True),
        (["mqtt:*"], ["mqtt:topic:*"], PUBLISH, "mqtt:topic:", True),
        (["mqtt:publish"], ["mqtt:topic:*/b/*"], PUBLISH, "mqtt:topic:a/b/c", True),
        (["mqtt:publish"], ["mqtt:topic:*/b/*"], PUBLISH, "mqtt:topic:a/b", False),
        (["mqtt:publish"], ["mqtt:topic:ab*ba"], PUBLISH, "mqtt:topic:aba", False),
        (["mqtt:subscribe"], ["mqtt:topicfilter:a/#"], "mqtt:subscribe", "mqtt:topicfilter:a/#", True),
        (["mqtt:subscribe"], ["mqtt:topicfilter:a/#"], "mqtt:subscribe", "mqtt:topicfilter:a/b", False),
        (["mqtt:connect"], ["mqtt:clientId:${iot:Connection.Thing.ThingName}"], CONNECT, "mqtt:clientId:pump", True),
        (["mqtt:connect"], ["mqtt:clientId:${iot:Connection.Thing.ThingName}"], CONNECT, "mqtt:clientId:p", False),
        (["mqtt:publish"], ["mqtt:topic:${iot:Unknown}"], PUBLISH, "mqtt:topic:pump", False),
        ([], ["*"], PUBLISH, "mqtt:topic:a", False),
    ],
)
def test_allows_when_a_statement_is_compared_then_operation_and_resource_must_fit(
    operations: list[str], resources: list[str], operation: str, resource: str, is_allowed: bool
) -> None:
    settings = client_devices.read(configured(statement(operations, resources)))

    assert settings.problems == ()
    assert client_devices.allows(settings, "pump", operation, resource) == is_allowed


def test_allows_when_one_statement_denies_then_it_wins_whatever_the_order() -> None:
    allow, deny = statement(["*"], ["*"]), statement([PUBLISH], ["mqtt:topic:secret/*"], "DENY")
    for statements in ((allow, deny), (deny, allow)):
        settings = client_devices.read(configured(*statements))

        assert client_devices.allows(settings, "pump", PUBLISH, "mqtt:topic:open")
        assert not client_devices.allows(settings, "pump", PUBLISH, "mqtt:topic:secret/1")


def test_allows_when_two_groups_select_a_device_then_the_denial_of_one_wins() -> None:
    found = configured(statement(["*"], ["*"]))
    found["deviceGroups"]["definitions"]["bad"] = {"selectionRule": "thingName: bad*", "policyName": "none"}
    found["deviceGroups"]["policies"]["none"] = {"s": statement(["*"], ["*"], "DENY")}
    settings = client_devices.read(found)

    assert client_devices.allows(settings, "good", PUBLISH, "mqtt:topic:a")
    assert not client_devices.allows(settings, "bad-1", PUBLISH, "mqtt:topic:a")


def test_allows_when_no_group_selects_a_device_then_nothing() -> None:
    settings = client_devices.read(configured(statement(["*"], ["*"]), rule="thingName: a"))

    assert not client_devices.allows(settings, "b", PUBLISH, "mqtt:topic:a")


def test_read_when_effect_is_not_given_then_it_allows() -> None:
    without = {"operations": ["*"], "resources": ["*"]}

    assert client_devices.allows(client_devices.read(configured(without)), "a", PUBLISH, "mqtt:topic:a")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (configured({**statement(["*"], ["*"]), "effect": "MAYBE"}), "effect must be ALLOW or DENY"),
        (configured({"operations": ["*"]}), "policies.p.0.resources: it must be a list of texts"),
        (configured({"operations": "*", "resources": ["*"]}), "policies.p.0.operations: it must be a list of texts"),
        (configured("text"), "policies.p.0: it must be an object"),
        (configured(statement(["*"], ["*"]), rule="a"), "selectionRule of definitions.all: 'a' (character 1)"),
        ({"deviceGroups": []}, "deviceGroups: it must be an object"),
        ({"deviceGroups": {"formatVersion": "1"}}, "formatVersion must be '2021-03-05'"),
        ({"deviceGroups": {"definitions": {"g": {"selectionRule": "thingName: *"}}}}, "policyName"),
        (configured(certificates={"serverCertificateValiditySeconds": 1}), "a number from 172800 to 864000"),
        (configured(marram={"serverNames": ["ä"]}), "at most 64 host names"),
    ],
)
def test_read_when_there_is_a_mistake_then_it_is_told_and_nothing_is_allowed(wrong: Any, why: str) -> None:
    wrong = {**wrong}
    good = configured(statement(["*"], ["*"]))["deviceGroups"]
    wrong.setdefault("deviceGroups", good)

    settings = client_devices.read(wrong)

    assert [one for one in settings.problems if why in one]
    assert not client_devices.allows(settings, "a", PUBLISH, "mqtt:topic:a")


def test_read_when_values_are_given_then_they_count_whatever_their_case() -> None:
    settings = client_devices.read(
        {
            "Certificates": {"ServerCertificateValiditySeconds": "200000"},
            "security": {"clientdevicetrustdurationminutes": 5},
            "performance": {"maxActiveAuthTokens": 3},
            "marram": {"offlineTrustHours": 2, "serverNames": ["broker.local", "10.0.0.1"]},
        }
    )

    assert settings.problems == ()
    assert (settings.validity_s, settings.trust_s, settings.offline_s, settings.tokens) == (200_000, 300, 7_200, 3)
    assert settings.names == ("broker.local", "10.0.0.1")


def test_read_when_it_is_the_default_configuration_then_there_is_no_problem() -> None:
    assert client_devices.read(builtin.DEFAULTS[builtin.CLIENT_DEVICES]) == client_devices.Settings()


MEMBERS = ["deviceGroups", "formatVersion", "definitions", "policies", "g", "p"]
KEYS = st.sampled_from([*MEMBERS, "selectionRule", "policyName", "effect", "operations", "resources"])
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("thingName: *"))
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4))
)


@given(st.dictionaries(KEYS, ANYTHING), st.text(), st.text(), st.text())
def test_read_and_allows_when_given_anything_then_they_do_not_fail(
    found: dict[str, Any], thing: str, operation: str, resource: str
) -> None:
    settings = client_devices.read(found)

    assert client_devices.allows(settings, thing, operation, resource) in (True, False)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_allows_when_patterns_have_stars_then_they_match_as_a_regular_expression_would(pattern: str, text: str) -> None:
    settings = client_devices.read(configured(statement(["*"], [pattern])))
    expression = ".*".join(map(re.escape, pattern.split("*")))

    assert client_devices.allows(settings, "t", PUBLISH, text) == (re.fullmatch(expression, text) is not None)
