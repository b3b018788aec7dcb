"""Built-in components resolve, are recorded and told, and leave with the deployment that leaves them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nucleus.actors import builtins
from nucleus.core import builtin, document, status
from nucleus.core.lifecycle import Health, State

from .device import Device


def _app(**dependencies: str) -> dict[str, Any]:
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": "App",
        "ComponentVersion": "1.0.0",
        "ComponentDependencies": {
            name: {"VersionRequirement": wanted, "DependencyType": "HARD"} for name, wanted in dependencies.items()
        },
        "Manifests": [{"Lifecycle": {"Startup": "true"}}],
    }


async def test_deployment_when_a_component_depends_on_built_ins_then_they_are_recorded_and_configurable(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path)
    known = builtins.BuiltIns(lambda: device.configuration.tree, lambda one: None)
    device.publish(_app(**{builtin.SECRET_MANAGER: ">=2.0.0", builtin.SHADOW_MANAGER: "^2.3.0"}))
    secrets = document.Wish(version=status.VERSION, merge={"cloudSecrets": []})
    async with device.running():
        assert set(known.health()) == {builtin.NUCLEUS}
        result = await device.deploy({"App": "1.0.0", builtin.SECRET_MANAGER: secrets})
        assert result.status == "SUCCEEDED", result
        assert set(known.health()) == {builtin.NUCLEUS, builtin.SECRET_MANAGER, builtin.SHADOW_MANAGER}
        assert known.health()[builtin.SHADOW_MANAGER].state is State.RUNNING
        assert device.configuration.component(builtin.SECRET_MANAGER) == {"cloudSecrets": []}
        assert set(device.supervisor.health()) == {"App"}

        device.publish({**_app(), "ComponentVersion": "1.1.0"})
        result = await device.deploy({"App": "1.1.0"})
        assert result.status == "SUCCEEDED", result
        assert set(known.health()) == {builtin.NUCLEUS}
        assert device.configuration.component(builtin.SECRET_MANAGER) == {}


async def test_deployment_when_no_version_of_a_built_in_fits_then_it_fails_and_changes_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.publish(_app(**{builtin.SHADOW_MANAGER: ">=3.0.0"}))
    async with device.running():
        result = await device.deploy({"App": "1.0.0"})
    assert result.status == "FAILED"
    assert builtin.SHADOW_MANAGER in result.cause
    assert not builtin.recorded(device.configuration.tree)


def test_report_when_repeated_then_told_once(tmp_path: Path) -> None:
    device = Device(tmp_path)
    told: list[Health] = []
    known = builtins.BuiltIns(lambda: device.configuration.tree, told.append)
    known.report(builtin.SHADOW_MANAGER, State.ERRORED, "its database is damaged")
    known.report(builtin.SHADOW_MANAGER, State.ERRORED, "its database is damaged")
    known.report(builtin.SHADOW_MANAGER, State.RUNNING)
    assert [(one.state, one.reason) for one in told] == [
        (State.ERRORED, "its database is damaged"),
        (State.RUNNING, ""),
    ]
