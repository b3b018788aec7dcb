"""Behaviours of 13.2 and 13.3 in which a deployment asks, waits or is stopped: consent, validation, cancellation, order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucleus.core import configuration, desired, document, local
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "exec sleep 1000"}
SLOW = {"Startup": {"Script": "sleep 1000", "Timeout": 900}}


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


class Listener:
    """A component's subscription to updates, answering at once by `answer(event number)` (None: it stays silent)."""

    def __init__(self, device: devices.Device, name: str, answer: Callable[[int], int | None]) -> None:
        self.events: list[dict[str, Any]] = []
        self.news = asyncio.Event()
        self._device, self._name, self._answer = device, name, answer
        self.cancel = device.consent.subscribe(name, self._hear)

    def _hear(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.news.set()
        if "preUpdateEvent" not in event:
            return
        recheck = self._answer(len(self.asked()))
        if recheck is not None:
            deployment = event["preUpdateEvent"]["deploymentId"]
            self._device.consent.defer(self._name, deployment, recheck, "busy")

    def asked(self) -> list[str]:
        return [one["preUpdateEvent"]["deploymentId"] for one in self.events if "preUpdateEvent" in one]

    def told(self) -> list[str]:
        return [one["postUpdateEvent"]["deploymentId"] for one in self.events if "postUpdateEvent" in one]

    async def until_asked(self) -> None:
        async with asyncio.timeout(10):
            while not self.asked():
                self.news.clear()
                await self.news.wait()


def installed(device: devices.Device) -> dict[str, str]:
    return {name: one.version for name, one in desired.installed(device.configuration.tree).items()}


def setting(device: devices.Device, name: str, key: str) -> object:
    return configuration.get(device.configuration.tree, ("services", name, "configuration", key))


async def waiting_for(device: devices.Device, text: str) -> str:
    """Waits until the device reports that it waits for something that contains the text."""
    return await device.reports.until_waiting(text)


# ---- 27: component update policy ---------------------------------------------------------------------------------------


async def test_27_deploy_when_a_component_defers_then_it_waits_before_any_change_and_asks_again(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "1.1.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        seen: list[dict[str, str]] = []

        def answer(number: int) -> int:
            seen.append(installed(device))
            return 300 if number < 3 else 0

        listener = Listener(device, A, answer)
        record = device.submit({A: "1.1.0"})
        said = await waiting_for(device, f"waiting for consent of {A} until ")
        result = await device.end_of(record.id)

    assert result.status == "SUCCEEDED"
    assert listener.asked() == [record.id] * 3
    assert seen == [{A: "1.0.0"}] * 3
    assert listener.told() == [record.id]
    assert said.endswith(" UTC")


async def test_27_deploy_when_the_policy_is_skip_then_nobody_is_asked(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "1.1.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        listener = Listener(device, A, lambda _: 600_000)
        result = await device.deploy({A: "1.1.0"}, update_action=document.SKIP)

    assert result.status == "SUCCEEDED"
    assert listener.events == []


async def test_27_deploy_when_nobody_answers_then_it_goes_on_after_the_policy_timeout(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "1.1.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        listener = Listener(device, A, lambda _: None)
        result = await device.deploy({A: "1.1.0"}, update_timeout_s=0.2)

    assert result.status == "SUCCEEDED"
    assert len(listener.asked()) == 1


async def test_27_deploy_when_the_only_silent_listener_goes_away_then_it_is_not_waited_for(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS))
    async with device.running():
        listener = Listener(device, B, lambda _: None)
        record = device.submit({A: "1.0.0"}, update_timeout_s=600.0)
        await listener.until_asked()
        listener.cancel()
        result = await device.end_of(record.id)

    assert result.status == "SUCCEEDED"


# ---- 40: cancellation at every stage -----------------------------------------------------------------------------------


async def test_40_cancel_when_queued_then_only_that_one(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", STAYS))
    async with device.running():
        Listener(device, "com.example.busy", lambda number: 300 if number == 1 else 0)
        running = device.submit({A: "1.0.0"})
        queued = device.submit({B: "1.0.0"})
        device.deployer.cancel(deployments.JOB, queued.carrier)
        cancelled = await device.end_of(queued.id)
        result = await device.end_of(running.id)

    assert (cancelled.status, result.status) == ("CANCELED", "SUCCEEDED")
    assert installed(device) == {A: "1.0.0"}


async def test_40_cancel_when_waiting_for_consent_then_no_change_and_listeners_are_told(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "1.1.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        listener = Listener(device, A, lambda _: 3_600_000)
        before = device.configuration.tree
        record = device.submit({A: "1.1.0"})
        await waiting_for(device, "waiting for consent")
        device.deployer.cancel(deployments.JOB, record.carrier)
        result = await device.end_of(record.id)
        pids = device.supervisor.health()[A].pids

    assert result.status == "CANCELED"
    assert device.configuration.tree == before
    assert listener.told() == [record.id]
    assert pids


@pytest.mark.parametrize("action", [document.NOTIFY, document.SKIP])
async def test_40_cancel_when_in_a_long_startup_then_the_previous_state_is_restored(
    device: devices.Device, action: str
) -> None:
    device.publish(
        recipe(A, "1.0.0", STAYS, ComponentConfiguration={"DefaultConfiguration": {"speed": 1}}),
        recipe(A, "1.1.0", SLOW),
        recipe(B, "1.0.0", STAYS),
    )
    async with device.running():
        await device.deploy({A: "1.0.0"})
        wish = document.Wish(version="1.1.0", merge={"speed": 9})
        record = device.submit({A: wish, B: "1.0.0"}, update_action=action, failure_policy=document.DO_NOTHING)
        await device.until(A, "STARTING")
        device.deployer.cancel(deployments.JOB, record.carrier)
        result = await device.end_of(record.id)
        await device.until(A, "RUNNING")

        assert result.status == "CANCELED"
        assert set(device.supervisor.health()) == {A}
        assert device.supervisor.health()[A].version == "1.0.0"
    assert installed(device) == {A: "1.0.0"}
    assert setting(device, A, "speed") == 1


async def test_40_cancel_when_watching_then_rolled_back_and_when_rolling_back_then_that_finishes(
    device: devices.Device,
) -> None:
    device.publish(
        recipe(A, "1.0.0", {"Startup": "sleep 0.5"}),
        recipe(A, "1.1.0", STAYS),
        recipe(A, "1.2.0", {"Install": "exit 1", **STAYS}),
    )
    async with device.running():
        await device.deploy({A: "1.0.0"})
        watched = device.submit({A: "1.1.0"}, watch_s=600.0)
        await waiting_for(device, "watching")
        device.deployer.cancel(deployments.JOB, watched.carrier)
        device.deployer.keep_jobs(frozenset())  # the service tells it more than once
        first = await device.end_of(watched.id)
        failing = device.submit({A: "1.2.0"})
        await device.until(A, "BROKEN")
        await device.until(A, "STARTING")  # on the way back
        device.deployer.cancel(deployments.JOB, failing.carrier)
        second = await device.end_of(failing.id)

        assert device.supervisor.health()[A].version == "1.0.0"
    assert first.status == "CANCELED"
    assert (second.status, second.detailed) == ("FAILED", "FAILED_ROLLBACK_COMPLETE")


async def test_40_cancel_when_the_nucleus_was_restarted_in_between_then_restored_too(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(recipe(A, "1.0.0", STAYS), recipe(A, "1.1.0", SLOW))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        record = device.submit({A: "1.1.0"})
        await device.until(A, "STARTING")
    again = devices.Device(tmp_path / "root")
    again.deployer.restore()
    again.deployer.cancel(deployments.JOB, record.carrier)
    del again
    third = devices.Device(tmp_path / "root")
    async with third.running():
        result = await third.end_of(record.id)
        await third.until(A, "RUNNING")

    assert result.status == "CANCELED"
    assert installed(third) == {A: "1.0.0"}


async def test_40_cancel_local_when_running_and_queued_then_each_by_its_id(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", SLOW), recipe(B, "1.0.0", STAYS))
    folder = str(device.places.root / "published")
    async with device.running():
        running = await device.deployer.create_local(
            local.LocalRequest(add={A: "1.0.0"}, recipe_directory=folder), "me"
        )
        queued = await device.deployer.create_local(local.LocalRequest(add={B: "1.0.0"}), "me")
        await device.until(A, "STARTING")

        assert device.deployer.cancel_local(running)
        first = await device.end_of(running)
        second = await device.end_of(queued)
        assert not device.deployer.cancel_local(running)

    assert (first.status, second.status) == ("CANCELED", "SUCCEEDED")
    assert installed(device) == {B: "1.0.0"}


# ---- 41: shadow deployments replace each other --------------------------------------------------------------------------


async def test_41_submit_when_a_newer_shadow_deployment_comes_then_queued_and_running_ones_are_cancelled(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", SLOW), recipe(A, "2.0.0", STAYS), recipe(A, "3.0.0", STAYS))
    async with device.running():
        records = [device.submit({A: "1.0.0"}, source=deployments.SHADOW)]
        await device.until(A, "STARTING")
        records += [device.submit({A: version}, source=deployments.SHADOW) for version in ("2.0.0", "3.0.0")]
        results: dict[str, str] = {}
        while len(results) < 3:
            record = await device.ended.get()
            assert record.result is not None
            results[record.id] = record.result.status

    assert [results[one.id] for one in records] == ["CANCELED", "CANCELED", "SUCCEEDED"]
    assert installed(device) == {A: "3.0.0"}


async def test_42_resume_when_the_same_shadow_deployment_is_told_again_early_then_not_cancelled(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(recipe(A, "1.0.0", {"Startup": "while ! test -e ../../go; do sleep 0.02; done"}))
    async with device.running():
        record = device.submit({A: "1.0.0"}, source=deployments.SHADOW)
        await device.until(A, "STARTING")
    again = devices.Device(tmp_path / "root")
    async with again.running():
        told = deployments.Record(document=record.document, source=deployments.SHADOW, carrier=record.carrier)
        again.deployer.submit(told)
        await again.until(A, "STARTING")
        again.deployer.submit(told)
        (again.places.root / "go").touch()
        result = await again.end_of(record.id)

    assert result.status == "SUCCEEDED"
    assert installed(again) == {A: "1.0.0"}


# ---- 43, 44: what a document may require -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [deployments.JOB, deployments.LOCAL])
async def test_43_deploy_when_a_capability_is_missing_then_no_state_change_and_the_stack_says_so(
    device: devices.Device, source: str
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS))
    async with device.running():
        result = await device.deploy({A: "1.0.0"}, source=source, capabilities=("SUB_DEPLOYMENTS", "ANOTHER"))

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert result.stack == ("DEPLOYMENT_FAILURE", "NUCLEUS_MISSING_REQUIRED_CAPABILITIES")
    assert "has no ANOTHER" in result.cause
    assert installed(device) == {}


# ---- 47: configuration validation --------------------------------------------------------------------------------------


class Validator:
    """A component's subscription to validations that answers at once, or never (None)."""

    def __init__(self, device: devices.Device, name: str, accepted: bool | None) -> None:
        self.events: list[dict[str, Any]] = []
        self._device, self._name, self._accepted = device, name, accepted
        device.validation.subscribe(name, self._hear)

    def _hear(self, event: dict[str, Any]) -> None:
        self.events.append(event["validateConfigurationUpdateEvent"])
        if self._accepted is not None:
            deployment = self.events[-1]["deploymentId"]
            self._device.validation.report(self._name, deployment, self._accepted, "speed 9 is too fast")


async def validated(device: devices.Device, accepted: bool | None, **more: Any) -> tuple[Any, Validator]:
    device.publish(recipe(A, "1.0.0", STAYS, ComponentConfiguration={"DefaultConfiguration": {"speed": 1}}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        validator = Validator(device, A, accepted)
        await device.deploy({A: "1.0.0"})
        assert validator.events == []  # nothing changes: nothing to ask
        result = await device.deploy({A: document.Wish(version="1.0.0", merge={"speed": 9})}, **more)
        return result, validator


async def test_47_validation_when_accepted_then_applied(device: devices.Device) -> None:
    result, validator = await validated(device, True)

    assert result.status == "SUCCEEDED"
    assert validator.events[0]["configuration"] == {"speed": 9}
    assert setting(device, A, "speed") == 9


async def test_47_validation_when_rejected_then_failed_without_a_state_change(device: devices.Device) -> None:
    result, _ = await validated(device, False)

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert result.stack == ("DEPLOYMENT_FAILURE", "COMPONENT_CONFIGURATION_NOT_VALID")
    assert "speed 9 is too fast" in result.cause
    assert setting(device, A, "speed") == 1


@pytest.mark.parametrize(("silence_fails", "detailed"), [(False, "SUCCESSFUL"), (True, "FAILED_NO_STATE_CHANGE")])
async def test_47_validation_when_nobody_answers_then_it_goes_on_unless_the_originals_rule_is_asked_for(
    device: devices.Device, silence_fails: bool, detailed: str
) -> None:
    result, _ = await validated(device, None, validation_timeout_s=0.1, validation_silence_fails=silence_fails)

    assert result.detailed == detailed
