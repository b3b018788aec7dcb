"""Behaviours of 13.3 and 13.4 that need the cloud's half too: the service, the broker, a nucleus, real processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.whole.conftest import component, system, thing  # noqa: F401  fixtures
from tests.whole.test_deployments import STAYS, processes_of, recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole
AT_ONCE = {"marram:watch_s": "0"}
SLOW = {"Startup": {"Script": "exec sleep 1000", "Timeout": 900}}


def slow_recipe(name: str, version: str) -> dict[str, Any]:
    return recipe(name, version, "") | {"Manifests": [{"Lifecycle": SLOW}]}


def runs_version(system: systems.System, thing: str, name: str) -> str:  # noqa: F811
    """The version of a component's processes, "" while there is none; each writes it into its work folder."""
    if not processes_of(system.device(thing), name):
        return ""
    return (system.device(thing) / "work" / name / "version").read_text().strip()


def stays(version: str) -> str:
    return f"echo {version} > version; {STAYS}"


def test_40_cancel_when_a_thing_deployment_is_in_a_long_startup_then_canceled_and_restored(
    system: systems.System,  # noqa: F811
    thing: str,  # noqa: F811
    component: str,  # noqa: F811
) -> None:
    system.publish(recipe(component, "1.0.0", stays("1.0.0")))
    system.publish(slow_recipe(component, "1.1.0"))
    arn = f"arn:aws:iot:us-east-1:123456789012:thing/{thing}"
    system.wait(thing, system.deploy(arn, {component: "1.0.0"}, tags=AT_ONCE))
    before = processes_of(system.device(thing), component)
    slow = system.deploy(arn, {component: "1.1.0"}, tags=AT_ONCE)

    def is_starting() -> bool:
        now = processes_of(system.device(thing), component)
        return bool(now) and not set(now) & set(before)

    systems.wait_for(is_starting, lambda: "the slow start", 30)
    (system.device(thing) / "work" / component / "version").write_text("")
    system.client("greengrassv2").cancel_deployment(deploymentId=slow)

    ended = system.wait(thing, slow)

    assert ended["coreDeviceExecutionStatus"] == "CANCELED"
    systems.wait_for(lambda: runs_version(system, thing, component) == "1.0.0", lambda: "the old version", 30)


def test_40_cancel_when_the_thing_leaves_the_group_meanwhile_then_the_job_is_taken_back(
    system: systems.System,  # noqa: F811
    thing: str,  # noqa: F811
    component: str,  # noqa: F811
) -> None:
    system.publish(slow_recipe(component, "1.0.0"))
    system.deploy(target(thing), {component: "1.0.0"}, tags=AT_ONCE)
    root = system.device(thing)
    systems.wait_for(lambda: bool(processes_of(root, component)), lambda: "the slow start", 30)

    system.client("iot").remove_thing_from_thing_group(thingGroupName=thing, thingName=thing)

    systems.wait_for(lambda: not processes_of(root, component), lambda: "the way back", 30)
    systems.wait_for(
        lambda: any('"status":"CANCELED"' in path.read_text() for path in (root / "deployments").glob("*/record.json")),
        lambda: "a cancelled end",
        30,
    )


def test_48_offline_device_when_there_are_several_revisions_then_only_the_last_runs(
    system: systems.System,  # noqa: F811
    component: str,  # noqa: F811
) -> None:
    name = f"offline-{component.rsplit('.', 1)[1].lower()}"
    system.create_group(name)
    system.create_device(name, name)
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        system.publish(recipe(component, version, stays(version)))
    revisions = [
        system.deploy(target(name), {component: version}, tags=AT_ONCE) for version in ("1.0.0", "2.0.0", "3.0.0")
    ]
    system.start_nucleus(name)
    try:
        ended = system.wait(name, revisions[-1])
        first = [system.effective(name, one).get("coreDeviceExecutionStatus") for one in revisions[:2]]

        assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED"
        assert first == ["CANCELED", "CANCELED"]
        assert runs_version(system, name, component) == "3.0.0"
        assert len(list((system.device(name) / "deployments").iterdir())) == 1
    finally:
        system.kill(name, 15)


def test_53_sub_deployment_when_made_then_only_its_members_change_until_the_next_root_revision(
    system: systems.System,  # noqa: F811
    thing: str,  # noqa: F811
    component: str,  # noqa: F811
) -> None:
    for version in ("1.0.0", "2.0.0"):
        system.publish(recipe(component, version, stays(version)))
    part = system.create_group(f"part-of-{thing}")
    system.client("iot").add_thing_to_thing_group(thingGroupName=f"part-of-{thing}", thingName=thing)
    system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}, tags=AT_ONCE))

    sub = system.deploy(part, {component: "2.0.0"}, parentTargetArn=target(thing), tags=AT_ONCE)
    ended = system.wait(thing, sub)
    overridden = runs_version(system, thing, component)
    system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}, tags=AT_ONCE))

    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED"
    assert overridden == "2.0.0"
    assert runs_version(system, thing, component) == "1.0.0"
