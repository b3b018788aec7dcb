"""The key `mqtt` of the nucleus's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import mqtt_settings


def test_read_when_nothing_is_configured_then_the_defaults_of_the_field() -> None:
    found = mqtt_settings.read({})

    assert found == mqtt_settings.Settings(disk=False, spool_bytes=2_621_440, keep_qos_0=False, retries=100)


def test_read_when_configured_then_taken_whatever_the_case() -> None:
    spooler = {"storagetype": "disk", "MAXSIZEINBYTES": "1000", "keepQos0WhenOffline": "true"}

    found = mqtt_settings.read({"MQTT": {"spooler": spooler, "maxInFlightPublishes": 5, "maxPublishRetry": -1}})

    wanted = mqtt_settings.Settings(disk=True, spool_bytes=1000, keep_qos_0=True, in_flight=5, retries=-1)
    assert found == wanted


@pytest.mark.parametrize(
    ("mqtt", "told"),
    [
        ({"spooler": {"storageType": "Tape"}}, "must be Memory or Disk"),
        ({"spooler": {"pluginName": "com.example.Spooler"}}, "is no part of this nucleus"),
        ({"spooler": {"maxSizeInBytes": "much"}}, "maxSizeInBytes must be a number"),
        ({"maxInFlightPublishes": float("inf")}, "maxInFlightPublishes must be a number"),
        ({"maxPublishRetry": None}, "maxPublishRetry must be a number"),
    ],
)
def test_read_when_it_cannot_be_understood_then_told_and_the_default_is_used(mqtt: dict[str, Any], told: str) -> None:
    found = mqtt_settings.read({"mqtt": mqtt})

    assert told in found.problems[0]
    assert found == mqtt_settings.Settings(problems=found.problems)


@pytest.mark.parametrize("mqtt", [None, 5, [], "x", {"spooler": 7}])
def test_read_when_it_is_no_object_then_the_defaults(mqtt: Any) -> None:
    assert mqtt_settings.read({"mqtt": mqtt}) == mqtt_settings.Settings()


def test_read_when_numbers_are_out_of_bounds_then_the_nearest() -> None:
    found = mqtt_settings.read({"mqtt": {"maxInFlightPublishes": 1000, "maxPublishRetry": -7}})

    assert (found.in_flight, found.retries) == (100, -1)
