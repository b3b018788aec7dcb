"""Faults between device, broker and service, with real processes: what a field engineer meets first."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.whole.test_deployments import STAYS, processes_of, recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole
AT_ONCE: Any = {"tags": {"marram:watch_s": "0"}}  # no watch window: nothing here breaks after it ran


def installed(system: systems.System, thing: str) -> dict[str, str]:
    """What the service knows of a device: component to state."""
    found = system.client("greengrassv2").list_installed_components(coreDeviceThingName=thing, topologyFilter="ALL")
    return {one["componentName"]: one["lifecycleState"] for one in found["installedComponents"]}


def ports(system: systems.System) -> dict[str, int]:
    found = system.endpoints
    number = {key: int(found[key].rsplit(":", 1)[1]) for key in ("api", "device")}
    return {"api_port": number["api"], "device_port": number["device"], "mqtt_port": found["mqtt"]["port"]}


def test_download_when_the_service_is_killed_in_the_middle_then_resumed_and_succeeded(
    system: systems.System, thing: str, component: str
) -> None:
    data = os.urandom(48_000_000)
    system.publish(recipe(component, "1.0.0", STAYS, {"Uri": f"s3://artifacts/{component}"}), {component: data})
    folder = system.device(thing) / "packages" / "artifacts" / component / "1.0.0"
    same = ports(system)
    deployment = system.deploy(target(thing), {component: "1.0.0"}, **AT_ONCE)

    systems.wait_for(
        lambda: any(one.stat().st_size for one in folder.glob(".*.part")), "the download to begin", 30, 0.001
    )
    system.kill("cloud")
    part = next(folder.glob(".*.part"), None)
    begun = part.stat().st_size if part is not None else len(data)
    (system.cloud_root / "endpoints.json").unlink()
    system.start_cloud(**same)
    ended = system.wait(thing, deployment, 90)

    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED"
    assert 0 < begun <= len(data)
    assert (folder / component).read_bytes() == data


def test_group_when_left_and_joined_again_then_its_components_go_and_come_back(
    system: systems.System, thing: str, component: str
) -> None:
    """The job of before is queued anew: the device must not answer with its old result."""
    other, mine, iot = f"{thing}-other", component, system.client("iot")
    theirs = f"{component}.Other"
    system.create_group(other)
    iot.add_thing_to_thing_group(thingGroupName=other, thingName=thing)
    for name in (mine, theirs):
        system.publish(recipe(name, "1.0.0", STAYS))
    system.wait(thing, system.deploy(target(thing), {mine: "1.0.0"}, **AT_ONCE))
    system.wait(thing, system.deploy(target(other), {theirs: "1.0.0"}, **AT_ONCE))
    root = system.device(thing)
    assert processes_of(root, mine)
    assert processes_of(root, theirs)

    iot.remove_thing_from_thing_group(thingGroupName=other, thingName=thing)
    system.wait(thing, system.deploy(target(thing), {mine: "1.0.0"}, **AT_ONCE))
    assert processes_of(root, mine)
    assert not processes_of(root, theirs)
    systems.wait_for(lambda: theirs not in installed(system, thing), "the service to forget it", 20)

    iot.add_thing_to_thing_group(thingGroupName=other, thingName=thing)
    systems.wait_for(lambda: bool(processes_of(root, theirs)), "the component to come back", 30)
    systems.wait_for(lambda: installed(system, thing).get(theirs) == "RUNNING", "the service to know it", 20)


def test_restart_when_components_start_again_then_the_service_sees_them_run(
    system: systems.System, thing: str, component: str
) -> None:
    slow = {"Startup": "sleep 1", "Shutdown": "true"}
    changed = recipe(component, "1.0.0", "") | {"Manifests": [{"Lifecycle": slow}]}
    system.publish(changed)
    system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}, **AT_ONCE))
    seen: list[str] = []

    system.kill(thing)
    system.start_nucleus(thing)

    def starts_and_runs() -> bool:
        state = installed(system, thing).get(component, "")
        if state not in seen[-1:]:
            seen.append(state)
        return seen[-1] == "RUNNING" and len(seen) > 1

    systems.wait_for(starts_and_runs, lambda: f"the service to see it start and run, not {seen}", 30)


def test_shadow_when_replaced_quickly_then_only_the_last_is_carried_out(
    system: systems.System, thing: str, component: str
) -> None:
    arn = f"arn:aws:iot:us-east-1:123456789012:thing/{thing}"
    for number in (1, 2, 3):
        system.publish(recipe(component, f"{number}.0.0", STAYS))

    sent = [system.deploy(arn, {component: f"{number}.0.0"}, **AT_ONCE) for number in (1, 2, 3)]
    ends: list[Any] = [system.wait(thing, one)["coreDeviceExecutionStatus"] for one in sent]

    assert ends[-1] == "COMPLETED"
    assert set(ends[:-1]) <= {"CANCELED", "COMPLETED"}
    assert len(processes_of(system.device(thing), component)) == 1
    systems.wait_for(lambda: installed(system, thing).get(component) == "RUNNING", "the service to know it", 20)


def test_nucleus_when_its_certificate_is_damaged_then_says_so_and_local_work_goes_on(
    system: systems.System, component: str
) -> None:
    """aws-greengrass-nucleus issue 1168: power cycles; a file of zeros must not take the machines down."""
    thing = f"zeros{component.rsplit('C', 1)[1]}"
    system.create_group(thing)
    folder = system.create_device(thing, thing)
    system.publish(recipe(component, "1.0.0", STAYS))
    system.start_nucleus(thing)
    system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}, **AT_ONCE))
    system.kill(thing, 15)

    (folder / "device.pem").write_bytes(bytes(800))
    system.start_nucleus(thing)
    log = folder / "logs" / "greengrass.log"
    systems.wait_for(lambda: bool(processes_of(folder, component)), "the component to run", 30)

    assert "uplink.impossible" in log.read_text()
    assert (folder / "ipc.socket").exists()
    system.kill(thing, 15)
