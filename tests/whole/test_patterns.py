"""Three patterns of the field as unmodified awsiotsdk programs (components/patterns) on a real device with a real cloud."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from nucleus.ipc import client as ipc
from nucleus.wire import jobs
from tests.cloud import device as devices
from tests.whole.test_deployments import target
from tools import system as systems

pytestmark = pytest.mark.whole

REPOSITORY = Path(__file__).resolve().parents[2]
PREFIX = "com.example.patterns."
MANAGER = "aws.greengrass.ShadowManager"
WAIT_S = 40


def publish(system: systems.System, name: str) -> str:
    """The component as its recipe and artifact lie in the repository; published once for all tests."""
    text = (REPOSITORY / "recipes" / f"{PREFIX}{name}-1.0.0.yaml").read_text()
    recipe = yaml.safe_load(text.replace("BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION", "artifacts"))
    file = recipe["Manifests"][0]["Artifacts"][0]["URI"].rsplit("/", 1)[1]
    recipe["ComponentConfiguration"]["DefaultConfiguration"]["python"] = sys.executable
    system.publish(recipe, {file: (REPOSITORY / "components" / "patterns" / file).read_bytes()})
    return PREFIX + name


def deploy(system: systems.System, thing: str, components: Mapping[str, Mapping[str, Any] | None], **more: Any) -> str:
    """A deployment of version 1.0.0 (of built-ins 2.15.0) with a MERGE for each; returns its id."""
    wanted: dict[str, Any] = {}
    for name, merge in components.items():
        wanted[name] = {"componentVersion": "2.15.0" if name == MANAGER else "1.0.0"}
        if merge is not None:
            wanted[name]["configurationUpdate"] = {"merge": json.dumps(merge)}
    return system.deploy(target(thing), wanted, **more)


def succeeded(system: systems.System, thing: str, deployment: str) -> None:
    ended = system.wait(thing, deployment)
    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED", ended


def until(met: Callable[[], bool], what: str | Callable[[], str]) -> None:
    systems.wait_for(met, what, WAIT_S)


class Component:
    """What one component says about itself, asked as the device's user does, and its `state.json`."""

    def __init__(self, system: systems.System, thing: str, name: str) -> None:
        root = system.device(thing)
        self._user = json.loads(next((root / "cli_ipc_info").glob("user-*")).read_text())
        self._name = name
        self.work = root / "work" / name

    def configuration(self, *path: str) -> Any:
        with ipc.Client(self._user["domain_socket_path"], self._user["cli_auth_token"]) as user:
            try:
                return user.get_configuration(*path, component=self._name)
            except ipc.IPCError as error:
                if error.code != "ResourceNotFoundError":
                    raise
                return None

    def state(self) -> dict[str, Any]:
        path = self.work / "state.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def becomes(self, **wanted: Any) -> None:
        until(lambda: wanted.items() <= self.state().items(), lambda: f"{wanted} in {self.state()}")


def test_publisher_and_subscriber_when_deployed_then_every_reading_is_counted(
    system: systems.System, thing: str
) -> None:
    publisher, subscriber = publish(system, "SensorPublisher"), publish(system, "SensorSubscriber")
    succeeded(system, thing, deploy(system, thing, {subscriber: {"summaryEvery": 5}}))

    succeeded(system, thing, deploy(system, thing, {subscriber: None, publisher: {"intervalSeconds": 0.02}}))

    listening = Component(system, thing, subscriber)
    until(lambda: (listening.configuration("summaries", "boiler") or {}).get("count", 0) >= 20, "20 readings")
    found = listening.configuration("summaries", "boiler")
    assert found["count"] == found["last"]  # none was lost since the first
    assert found["highest"] == 23.0


def test_listener_when_busy_then_the_update_waits_and_a_new_setpoint_comes_without_restart(
    system: systems.System, thing: str
) -> None:
    name = publish(system, "SetpointListener")
    succeeded(system, thing, deploy(system, thing, {name: None}))
    listener = Component(system, thing, name)
    listener.becomes(setpoint=20)
    pid = listener.state()["pid"]
    (listener.work / "batch-running").touch()

    waiting = deploy(system, thing, {name: {"setpoint": 55}})
    until(lambda: listener.state()["deferred"] >= 2, "two deferrals")
    assert listener.state()["setpoint"] == 20
    assert system.effective(thing, waiting)["coreDeviceExecutionStatus"] == "IN_PROGRESS"
    (listener.work / "batch-running").unlink()

    succeeded(system, thing, waiting)
    listener.becomes(setpoint=55, agreed=1, pid=pid)

    refused = system.wait(thing, deploy(system, thing, {name: {"setpoint": 120}}))
    assert refused["coreDeviceExecutionStatus"] == "FAILED"
    assert "a setpoint above 90.0 would boil" in json.dumps(refused, default=str)
    listener.becomes(setpoint=55, refused=1, pid=pid)


def test_lamp_when_the_cloud_desires_light_then_the_device_reports_it(system: systems.System, thing: str) -> None:
    name = publish(system, "LampShadow")
    synchronised = {"synchronize": {"coreThing": {"classic": False, "namedShadows": ["lamp"]}}}
    prefix, app = jobs.shadow(thing, "lamp"), f"{thing}-app"
    cloud = devices.Device(system.cloud_root, app, devices.register(system.cloud_root, app, app))
    cloud.connect()
    cloud.subscribe(f"{prefix}/update/documents")
    try:
        succeeded(system, thing, deploy(system, thing, {name: None, MANAGER: synchronised}))
        assert _next(cloud, reported={"on": False, "brightness": 0})

        cloud.publish(f"{prefix}/update", {"state": {"desired": {"on": True, "brightness": 70}}})

        assert _next(cloud, reported={"on": True, "brightness": 70})
    finally:
        cloud.close()


def _next(cloud: Any, reported: dict[str, Any]) -> bool:
    """Waits for a document of the shadow with that report."""
    while True:
        _, document = cloud.heard.get(timeout=WAIT_S)
        if document.get("current", {}).get("state", {}).get("reported") == reported:
            return True
