"""The four operations: what is refused, to whom, and how (beside behaviour 71, tests/conformance/test_shadows.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from awsiot.greengrasscoreipc import model

from tests.nucleus import shadow_device

THING, NAME = shadow_device.THING, shadow_device.NAME
STATE = b'{"state":{"reported":{"a":1}}}'


@pytest.fixture
def device() -> Iterator[shadow_device.Device]:
    with shadow_device.running() as one:
        yield one


def policy(operation: str, *resources: str) -> dict[str, Any]:
    return {NAME: {"p": {"operations": [f"aws.greengrass#{operation}"], "resources": list(resources)}}}


def test_authorization_when_a_policy_names_one_shadow_then_that_only(device: shadow_device.Device) -> None:
    client = device.client("test.One", policy("UpdateThingShadow", f"$aws/things/{THING}/shadow/name/mine"))

    client.update_thing_shadow(thing_name=THING, shadow_name="mine", payload=STATE)

    for thing, name in ((THING, "other"), (THING, ""), ("thing2", "mine")):
        with pytest.raises(model.UnauthorizedError) as error:
            client.update_thing_shadow(thing_name=thing, shadow_name=name, payload=STATE)
        assert "is not authorized" in (error.value.message or "")
    with pytest.raises(model.UnauthorizedError):
        client.get_thing_shadow(thing_name=THING, shadow_name="mine")


def test_authorization_when_shadows_are_listed_then_the_resource_is_the_thing(device: shadow_device.Device) -> None:
    client = device.client("test.List", policy("ListNamedShadowsForThing", THING))

    assert client.list_named_shadows_for_thing(thing_name=THING).results == []
    with pytest.raises(model.UnauthorizedError):
        client.list_named_shadows_for_thing(thing_name="thing2")


def test_authorization_when_the_shadow_manager_itself_asks_then_no_policy_is_needed(
    device: shadow_device.Device,
) -> None:
    client = device.client(NAME, {})

    assert client.update_thing_shadow(thing_name=THING, payload=STATE).payload
    assert client.list_named_shadows_for_thing(thing_name=THING).results == []


@pytest.mark.parametrize(
    "request_",
    [
        {"payload": b"no json"},
        {"payload": b"{}"},
        {"payload": b'{"state":{"reported":{"a":1}},"clientToken":"' + b"x" * 65 + b'"}'},
        {"payload": b'{"state":{"wished":{}}}'},
        {"payload": b'{"state":{"reported":{"1":{"2":{"3":{"4":{"5":{"6":{"7":1}}}}}}}}}'},
        {"payload": msgspec.json.encode({"state": {"reported": {"a": "x" * 8192}}})},
        {"payload": STATE, "shadow_name": "a/b"},
        {"payload": STATE, "shadow_name": "n" * 65},
        {"payload": STATE, "thing_name": "t" * 129},
        {"payload": STATE, "thing_name": "+"},
        {"payload": STATE, "thing_name": ""},
    ],
)
def test_update_when_it_cannot_be_then_invalid_arguments_and_nothing_changes(
    device: shadow_device.Device, request_: dict[str, Any]
) -> None:
    client = device.client()

    with pytest.raises(model.InvalidArgumentsError) as error:
        client.update_thing_shadow(**{"thing_name": THING, "shadow_name": "n"} | request_)

    assert error.value.message
    with pytest.raises(model.ResourceNotFoundError):
        client.get_thing_shadow(thing_name=THING, shadow_name="n")


def test_size_when_the_limit_is_raised_then_at_once(device: shadow_device.Device) -> None:
    client = device.client()
    payload = msgspec.json.encode({"state": {"reported": {"a": "x" * 20_000}}})
    with pytest.raises(model.InvalidArgumentsError):
        client.update_thing_shadow(thing_name=THING, payload=payload)

    device.reconfigure(shadow_device.QUICK | {"shadowDocumentSizeLimitBytes": 30 * 1024})

    assert client.update_thing_shadow(thing_name=THING, payload=payload).payload


def test_service_when_the_component_is_not_installed_then_the_error_says_what_to_do() -> None:
    with shadow_device.running(None) as device:
        client = device.client()

        with pytest.raises(model.ServiceError) as error:
            client.update_thing_shadow(thing_name=THING, payload=STATE)
        assert "deploy aws.greengrass.ShadowManager" in (error.value.message or "")

        device.reconfigure({})
        assert client.update_thing_shadow(thing_name=THING, payload=STATE).payload


def test_rates_when_a_thing_is_asked_too_often_then_a_service_error_and_other_things_are_served() -> None:
    slow = {"rateLimits": {"maxLocalRequestsPerSecondPerThing": 0.001}}
    with shadow_device.running(slow) as device:
        client = device.client()
        client.update_thing_shadow(thing_name=THING, payload=STATE)

        with pytest.raises(model.ServiceError) as error:
            client.update_thing_shadow(thing_name=THING, payload=STATE)

        assert "Too many requests" in (error.value.message or "")
        assert client.update_thing_shadow(thing_name="thing2", payload=STATE).payload


def test_rates_when_one_thing_is_asked_too_often_then_that_does_not_count_for_all() -> None:
    slow = {"rateLimits": {"maxLocalRequestsPerSecondPerThing": 0.001, "maxTotalLocalRequestsRate": 3}}
    with shadow_device.running(slow) as device:
        client = device.client()
        client.update_thing_shadow(thing_name=THING, payload=STATE)
        for _ in range(20):
            with pytest.raises(model.ServiceError):
                client.update_thing_shadow(thing_name=THING, payload=STATE)

        assert client.update_thing_shadow(thing_name="thing2", payload=STATE).payload
        assert client.update_thing_shadow(thing_name="thing3", payload=STATE).payload


def test_reports_when_settings_are_wrong_then_errored_until_they_are_right(device: shadow_device.Device) -> None:
    device.reconfigure({"strategy": {"type": "lazy"}})
    device.reconfigure({})

    assert [is_well for is_well, _ in device.reports] == [True, False, True]
    assert "lazy" in device.reports[1][1]


def test_service_when_its_file_cannot_be_made_then_a_service_error_until_it_can(device: shadow_device.Device) -> None:
    client = device.client()
    folder = device.folder / "shadows"
    folder.write_text("a file where the folder should be")

    with pytest.raises(model.ServiceError) as error:
        client.update_thing_shadow(thing_name=THING, payload=STATE)
    folder.unlink()
    client.update_thing_shadow(thing_name=THING, payload=STATE)

    assert str(folder) in (error.value.message or "")
    assert [is_well for is_well, _ in device.reports][-2:] == [False, True]


def test_service_when_its_file_is_damaged_while_it_is_off_then_told_set_aside_and_served() -> None:
    with shadow_device.running() as device:
        device.folder.joinpath("shadows").mkdir()
        device.folder.joinpath("shadows", "shadows.db").write_bytes(b"no database" * 1000)
        client = device.client()

        with pytest.raises(model.ResourceNotFoundError):
            client.get_thing_shadow(thing_name=THING)

        assert device.reports[-1][0]
        assert "damaged" in device.reports[-1][1]
        assert "shadow.file_damaged" in device.world.log.names()
