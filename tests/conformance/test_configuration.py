"""Behaviours 13.2 of the specification: what a deployment makes of configuration, and what restarts for it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from nucleus.core import component, configuration, document, run_as
from nucleus.core.lifecycle import State
from tests.nucleus.actors import device as devices
from tests.nucleus.actors import test_supervisor as supervision
from tests.nucleus.actors.device import recipe

A, B, C = "com.example.A", "com.example.B", "com.example.C"
STAYS = {"Run": "exec sleep 1000"}


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


def defaults(**values: Any) -> dict[str, Any]:
    return {"ComponentConfiguration": {"DefaultConfiguration": values}}


def needs(*names: str) -> dict[str, Any]:
    return {"ComponentDependencies": {name: {"VersionRequirement": "*"} for name in names}}


def printing(*pointers: str) -> dict[str, str]:
    """A script that writes each value on a line of its own."""
    lines = "\n".join(f"{{configuration:{pointer}}}" for pointer in pointers)
    return {"Startup": f"cat > out <<'END'\n{lines}\nEND"}


def printed(device: devices.Device, name: str = A) -> list[str]:
    return (device.places.work(name) / "out").read_text().splitlines()


async def test_24_deploy_when_a_value_of_a_script_changes_then_it_restarts_once_and_the_same_again_does_nothing(
    device: devices.Device,
) -> None:
    starts = {"Startup": "echo {configuration:/word} >> starts"}
    device.publish(recipe(A, "1.0.0", starts, **defaults(word="one")), recipe(B, "1.0.0", STAYS))
    wanted = {A: document.Wish(version="1.0.0", merge={"word": "two"}), B: "1.0.0"}
    async with device.running():
        await device.deploy({A: "1.0.0", B: "1.0.0"})
        before = device.supervisor.health()[B].pids
        await device.deploy(wanted)
        assert (device.places.work(A) / "starts").read_text().split() == ["one", "two"]
        assert device.supervisor.health()[B].pids == before

        assert (await device.deploy(wanted)).status == "SUCCEEDED"
    assert (device.places.work(A) / "starts").read_text().split() == ["one", "two"]


async def test_25_deploy_when_nested_dependencies_are_added_then_they_start_first_and_the_dependent_restarts(
    device: devices.Device,
) -> None:
    says = {name: {"Startup": f"echo {name[-1]} >> ../order"} for name in (A, B, C)}
    device.publish(
        recipe(A, "1.0.0", says[A]),
        recipe(A, "1.1.0", says[A], **needs(B)),
        recipe(B, "1.0.0", says[B], **needs(C)),
        recipe(C, "1.0.0", says[C]),
    )
    async with device.running():
        await device.deploy({A: "1.0.0"})
        result = await device.deploy({A: "1.1.0"})

        assert result.status == "SUCCEEDED"
        assert {health.state for health in device.supervisor.health().values()} == {State.RUNNING}
    assert (device.places.root / "work" / "order").read_text().split() == ["A", "C", "B", "A"]


async def test_26_deploy_when_a_component_is_left_out_then_it_is_closed_and_its_configuration_gone(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS, **defaults(speed=1)), recipe(B, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0", B: "1.0.0"})
        pids = device.supervisor.health()[A].pids
        await device.deploy({B: "1.0.0"})

        assert set(device.supervisor.health()) == {B}
    assert not supervision.exists(pids[0])
    with pytest.raises(KeyError):
        configuration.get(device.configuration.tree, ("services", A))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may switch users")
async def test_28_deploy_when_the_user_changes_then_restarted_as_that_one_and_without_it_as_the_default() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be passed by its owner only
        Path(folder).chmod(0o755)
        device = devices.Device(Path(folder) / "root")
        device.supervisor.set_defaults(run_as.defaults({}, "nobody"))
        device.publish(recipe(A, "1.0.0", {"Startup": "id -u > who"}))
        who = device.places.work(A) / "who"
        async with device.running():
            for user, expected in (("", 65534), ("45678:45678", 45678), ("45679:45678", 45679), ("", 65534)):
                who.unlink(missing_ok=True)
                run_with = component.RunWith(posix_user=user) if user else None
                result = await device.deploy({A: document.Wish(version="1.0.0", run_with=run_with)})

                assert result.status == "SUCCEEDED", result.cause
                assert int(who.read_text()) == expected


POINTERS = ("/singleLevelKey", "/path/leafKey", "/listKey", "/listKey/0", "/emptyObjectKey", "/newSingleLevelKey")
DEFAULTS = {
    "singleLevelKey": "default value",
    "path": {"leafKey": "default leaf"},
    "listKey": ["item1", "item2"],
    "emptyObjectKey": {},
}
MISSING = "{configuration:/newSingleLevelKey}"


async def test_29_deploy_when_merged_and_reset_in_five_steps_then_every_value_reaches_the_script_as_specified(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", printing(*POINTERS), **defaults(**DEFAULTS)))
    steps: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["default value", "default leaf", '["item1","item2"]', "item1", "{}", MISSING]),
        (
            {"merge": {"singleLevelKey": "merged", "path": {"leafKey": 7}, "listKey": ["item3"]}},
            ["merged", "7", '["item3"]', "item3", "{}", MISSING],
        ),
        (
            {"merge": {"newSingleLevelKey": "new", "emptyObjectKey": {"b": None, "a": True}}},
            ["merged", "7", '["item3"]', "item3", '{"a":true,"b":null}', "new"],
        ),
        (
            {"reset": ("/singleLevelKey", "/newSingleLevelKey", "/none/at/all"), "merge": {"path": {"leafKey": "8"}}},
            ["default value", "8", '["item3"]', "item3", '{"a":true,"b":null}', MISSING],
        ),
        ({"reset": ("",)}, ["default value", "default leaf", '["item1","item2"]', "item1", "{}", MISSING]),
    ]
    async with device.running():
        for update, expected in steps:
            assert (await device.deploy({A: document.Wish(version="1.0.0", **update)})).status == "SUCCEEDED"
            assert printed(device) == expected
    assert device.configuration.component(A) == DEFAULTS


async def test_30_deploy_when_the_first_one_updates_then_merged_over_the_defaults(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS, **defaults(kept=1, changed={"deep": 1, "other": 2}, items=[1, 2])))
    async with device.running():
        merge = {"changed": {"deep": 9}, "items": [3], "added": None}
        await device.deploy({A: document.Wish(version="1.0.0", merge=merge)})

    assert device.configuration.component(A) == {
        "kept": 1,
        "changed": {"deep": 9, "other": 2},
        "items": [3],
        "added": None,
    }


async def test_31_script_when_it_names_dependencies_and_the_system_then_filled_for_direct_ones_only(
    device: devices.Device,
) -> None:
    names = (
        f"{B}:configuration:/speed",
        f"{B}:artifacts:path",
        f"{B}:artifacts:decompressedPath",
        f"{B}:work:path",
        f"{C}:configuration:/speed",
        "artifacts:path",
        "work:path",
        "kernel:rootPath",
        "iot:thingName",
    )
    lines = "\n".join(f"{{{name}}}" for name in names)
    device.publish(
        recipe(A, "1.0.0", {"Run": f"cat > out <<'END'\n{lines}\nEND"}, **needs(B)),
        recipe(B, "2.0.0", STAYS, **needs(C), **defaults(speed=12)),
        recipe(C, "1.0.0", STAYS, **defaults(speed=13)),
    )
    async with device.running():
        result = await device.deploy({A: "1.0.0"})
        await device.until(A, "FINISHED")

    root = device.places.root
    assert result.status == "SUCCEEDED"
    assert printed(device) == [
        "12",
        str(root / "packages/artifacts" / B / "2.0.0"),
        str(root / "packages/artifacts-unarchived" / B / "2.0.0"),
        str(root / "work" / B),
        f"{{{C}:configuration:/speed}}",
        str(root / "packages/artifacts" / A / "1.0.0"),
        str(root / "work" / A),
        str(root),
        "t1",
    ]


async def test_32_upgrade_when_the_new_recipe_has_fewer_phases_then_the_old_ones_are_gone_from_the_store(
    device: devices.Device,
) -> None:
    old = {"Setenv": {"MODE": "old"}, "Install": "true", "Run": {"Script": 'echo "x$MODE" > out', "Timeout": 60}}
    device.publish(recipe(A, "1.0.0", old), recipe(A, "2.0.0", {"Run": {"Script": 'echo "x$MODE" > out'}}))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        await device.until(A, "FINISHED")
        assert printed(device) == ["xold"]
        await device.deploy({A: "2.0.0"})
        await device.until(A, "FINISHED")
        assert printed(device) == ["x"]

    recorded = configuration.get(device.configuration.tree, ("services", A, "lifecycle"))
    assert recorded == {"run": {"Script": 'echo "x$MODE" > out'}}


@pytest.mark.parametrize(("written", "value"), [("before", "deployed"), ("after", "component")])
async def test_33_deploy_when_the_component_wrote_a_key_then_the_newer_of_write_and_creation_wins(
    device: devices.Device, written: str, value: str
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS, **defaults(key="default", other="default")))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        created = device.configuration.now() + 1000
        stamp = created - 1 if written == "before" else created + 1
        path = ("services", A, "configuration", "key")
        device.configuration.commit((configuration.Change(path, "component", stamp, f"component:{A}"),))
        device.configuration.commit(
            (configuration.Change(("services", "x", "y"), 1, created + 1000, "nucleus"),)  # time goes by
        )
        merge = {"key": "deployed", "other": "deployed"}
        await device.deploy({A: document.Wish(version="1.0.0", merge=merge)}, created_ms=created)

    assert device.configuration.component(A) == {"key": value, "other": "deployed"}
