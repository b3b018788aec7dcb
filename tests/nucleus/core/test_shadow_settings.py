"""The configuration keys of the original, and what is told about mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import rates, shadow_settings, shadow_sync

CORE = "core1"


@pytest.mark.parametrize(
    ("synchronize", "wanted"),
    [
        ({}, set()),
        ({"coreThing": {}}, {(CORE, "")}),
        ({"coreThing": {"classic": False, "namedShadows": ["a", "b"]}}, {(CORE, "a"), (CORE, "b")}),
        ({"CoreThing": {"Classic": "false", "NamedShadows": ["a"]}}, {(CORE, "a")}),
        ({"shadowDocumentsMap": {"t2": {"namedShadows": ["a"]}}}, {("t2", ""), ("t2", "a")}),
        ({"shadowDocuments": [{"thingName": "t2", "classic": False, "namedShadows": ["a"]}]}, {("t2", "a")}),
        ({"coreThing": {}, "shadowDocuments": [{"thingName": CORE}]}, {(CORE, "")}),
    ],
)
def test_read_when_shadows_are_named_then_those_are_synchronised(synchronize: Any, wanted: set[Any]) -> None:
    found = shadow_settings.read({"synchronize": synchronize}, CORE)

    assert found.synchronized == wanted
    assert not found.problems


def test_read_when_the_device_has_no_thing_then_its_own_shadows_are_no_problem() -> None:
    assert (
        shadow_settings.read({"synchronize": {"coreThing": {"namedShadows": ["a"]}}}, "") == shadow_settings.Settings()
    )


def test_read_when_all_keys_are_given_then_they_hold() -> None:
    configuration = {
        "strategy": {"type": "periodic", "delay": 12},
        "synchronize": {"direction": "deviceToCloud"},
        "rateLimits": {
            "maxOutboundSyncUpdatesPerSecond": 1,
            "maxTotalLocalRequestsRate": 2,
            "maxLocalRequestsPerSecondPerThing": 3,
        },
        "shadowDocumentSizeLimitBytes": 30 * 1024,
    }

    found = shadow_settings.read(configuration, CORE)

    assert found == shadow_settings.Settings(
        direction=shadow_sync.Direction.UP,
        strategy=shadow_settings.Strategy(12),
        outbound_rate=1,
        total_rate=2,
        thing_rate=3,
        size_bytes=30 * 1024,
    )


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        ({"synchronize": {"direction": "sideways"}}, "not one of betweenDeviceAndCloud"),
        ({"synchronize": {"coreThing": 5}}, "coreThing must be an object"),
        ({"synchronize": {"coreThing": {"classic": False, "namedShadows": ["a b"]}}}, "the shadow name 'a b'"),
        ({"synchronize": {"coreThing": {"classic": False, "namedShadows": [7]}}}, "7 is no name"),
        ({"synchronize": {"shadowDocuments": [{}]}}, "cannot be read"),
        ({"synchronize": {"shadowDocuments": {}, "shadowDocumentsMap": [1]}}, "must be an object"),
        (
            {"synchronize": {"coreThing": {"classic": False, "namedShadows": [shadow_settings.RESERVED]}}},
            "the nucleus's own",
        ),
        ({"strategy": {"type": "lazy"}}, "not realTime or periodic"),
        ({"strategy": {"type": "periodic", "delay": 0}}, "delay is 0"),
        ({"strategy": 5}, "strategy must be an object"),
        ({"rateLimits": {"maxTotalLocalRequestsRate": "x"}}, "200 is used"),
        ({"shadowDocumentSizeLimitBytes": 30 * 1024 + 1}, "up to 30720"),
        ({"rateLimits": {"maxTotalLocalRequestsRate": float("nan")}}, "200 is used"),
    ],
)
def test_read_when_something_is_wrong_then_it_is_told_and_the_default_holds(configuration: Any, problem: str) -> None:
    found = shadow_settings.read(configuration, CORE)

    assert problem in found.problems[0]
    assert not found.synchronized
    assert found.total_rate == 200


def test_bucket_when_a_second_passes_then_as_many_permits_as_the_rate() -> None:
    bucket, taken = rates.full(20, 0.0), 0
    for step in range(300):  # 3 s in steps of 10 ms
        bucket, wait_s = rates.take(bucket, step / 100)
        taken += not wait_s

    assert taken == 20 + 59
    assert rates.take(rates.Bucket(20, 0.0, 5.0), 5.0)[1] == pytest.approx(0.05)
    assert rates.take(rates.Bucket(20, 0.0, 5.0), 4.0)[1] == pytest.approx(0.05)  # the clock went back
