"""Bootstrap steps in deployments: order, facts, going down and coming back, the way back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from nucleus.actors import bootstrap_step
from nucleus.core import component, document, errors, run_as
from nucleus.host import places
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.device import recipe

A, B = "com.example.A", "com.example.B"
STAYS = {"Run": "exec sleep 1000"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def noting(root: Path, word: str, code: int = 0, **more: object) -> dict[str, object]:
    """A lifecycle whose Bootstrap appends a word to <root>/notes and ends with a code."""
    return STAYS | {"Bootstrap": {"Script": f"echo {word} >> {root}/notes; exit {code}", **more}}


def notes(root: Path) -> list[str]:
    path = root / "notes"
    return path.read_text().split() if path.exists() else []


async def going_down(device: devices.Device) -> int:
    async with asyncio.timeout(20):
        return await device.left.get()


async def test_bootstrap_when_new_or_changed_then_it_runs_before_activation_and_never_again(root: Path) -> None:
    device = devices.Device(root)
    device.publish(
        recipe(A, "1.0.0", noting(root, "a1"), ComponentDependencies={B: {"VersionRequirement": "^1.0.0"}}),
        recipe(B, "1.0.0", noting(root, "b1")),
        recipe(A, "1.1.0", noting(root, "a2")),
    )
    async with device.running():
        first = await device.deploy({A: "1.0.0"})
        same = await device.deploy({A: "1.0.0"})
        upgraded = await device.deploy({A: "1.1.0"})

    assert [one.status for one in (first, same, upgraded)] == ["SUCCEEDED"] * 3
    assert notes(root) == ["b1", "a1", "a2"]
    assert device.left.empty()  # all returned 0: no restart


@pytest.mark.parametrize("code", [100, 101])
async def test_bootstrap_when_it_asks_to_go_down_then_once_for_all_and_it_is_carried_on_after(
    root: Path, code: int
) -> None:
    device = devices.Device(root)
    device.publish(recipe(A, "1.0.0", noting(root, "a", 100)), recipe(B, "1.0.0", noting(root, "b", code)))
    async with device.running():
        record = device.submit({A: "1.0.0", B: "1.0.0"})

        assert await going_down(device) == code

    if code == 101:  # the machine has not rebooted: asked for once more, then given up
        again = devices.Device(root)
        async with again.running():
            assert await going_down(again) == 101
    last = devices.Device(root)
    async with last.running():
        result = await last.end_of(record.id)
        await last.until(A, "RUNNING")

    assert result.status == "SUCCEEDED"
    assert notes(root) == ["a", "b"]


async def test_bootstrap_when_it_fails_then_the_old_versions_run_and_what_asks_for_it_is_bootstrapped_back(
    root: Path,
) -> None:
    device = devices.Device(root)
    device.publish(
        recipe(A, "1.0.0", noting(root, "a1", BootstrapOnRollback=True)),
        recipe(A, "2.0.0", noting(root, "a2")),
        recipe(B, "1.0.0", noting(root, "b1")),
        recipe(B, "2.0.0", noting(root, "b2", 7)),
    )
    async with device.running():
        await device.deploy({A: "1.0.0", B: "1.0.0"})
        result = await device.deploy({A: "2.0.0", B: "2.0.0"}, failure_policy=document.DO_NOTHING)
        for name in (A, B):
            await device.until(name, "RUNNING")

        assert {name: one.version for name, one in device.supervisor.health().items()} == {A: "1.0.0", B: "1.0.0"}
    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert result.stack[:2] == ("DEPLOYMENT_FAILURE", "COMPONENT_BOOTSTRAP_ERROR")
    assert "com.example.B 2.0.0 ended with exit code 7" in result.cause
    assert notes(root) == ["a1", "b1", "a2", "b2", "a1"]


async def test_bootstrap_when_it_takes_the_nucleus_down_each_time_then_it_is_given_up(root: Path) -> None:
    """aws-greengrass-nucleus pull 1497: a failing bootstrap must not become an endless loop of launches."""
    device = devices.Device(root)
    device.publish(recipe(A, "1.0.0", STAYS | {"Bootstrap": f"echo x >> {root}/notes; sleep 1000"}))
    record = device.submit({A: "1.0.0"})
    for count in (1, 2, 3):
        launched = devices.Device(root)
        async with launched.running():
            async with asyncio.timeout(20):
                while len(notes(root)) < count:  # noqa: ASYNC110  another process writes it
                    await asyncio.sleep(0.02)
    last = devices.Device(root)
    async with last.running():
        result = await last.end_of(record.id)

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert "took the nucleus down 3 times" in result.cause


async def test_configuration_when_it_counts_only_after_a_restart_then_the_nucleus_goes_down_once(root: Path) -> None:
    device = devices.Device(root)
    wish = document.Wish(version="2.15.0", merge={"mqtt": {"version": "mqtt3"}})
    async with device.running():
        record = device.submit({"aws.greengrass.Nucleus": wish})
        assert await going_down(device) == 100
    again = devices.Device(root)
    async with again.running():
        result = await again.end_of(record.id)

    assert result.status == "SUCCEEDED"
    assert again.left.empty()


async def test_own_update_when_there_is_no_loader_then_no_state_change(root: Path) -> None:
    device = devices.Device(root)
    device.publish(recipe("marram.Nucleus", "9.0.0", {}))
    async with device.running():
        result = await device.deploy({"marram.Nucleus": "9.0.0"})

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert result.stack[1] == "LAUNCH_DIRECTORY_CORRUPTED"
    assert "marram nucleus install" in result.cause


async def test_step_when_it_does_not_end_then_a_timeout_and_nothing_is_left(root: Path) -> None:
    device = devices.Device(root)
    steps = bootstrap_step.Steps(
        device.places, {"PATH": os.environ["PATH"]}, lambda: run_as.defaults({}, str(os.getuid()))
    )
    step = {"Script": "echo $$ > pid; sleep 1000", "Timeout": 1}

    with pytest.raises(errors.NucleusError) as caught:
        await steps.run(component.Component(name=A, version="1.0.0", lifecycle={"bootstrap": step}))

    assert caught.value.code == "COMPONENT_BOOTSTRAP_TIMEOUT"
    pid = int((places.Places(root).work(A) / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_record_when_written_by_a_later_release_then_it_is_still_read(root: Path) -> None:
    """Store changes are additive for one release, so that a downgrade can read them."""
    device = devices.Device(root)
    record = device.submit({A: "1.0.0"})
    store = deployments.DeploymentStore(device.places)
    path = store.path(record) / "record.json"
    path.write_text(path.read_text().replace('{"document":', '{"later":{"x":[1]},"document":', 1))

    found, bad = store.load()

    assert [one.id for one in found] == [record.id]
    assert not bad
