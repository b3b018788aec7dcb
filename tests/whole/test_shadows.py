"""Synchronised shadows with the real broker and service: the device's side is the official IPC client, the cloud's an
MQTT client as an application has it. Behaviour 71 uses both, too (tests/conformance/test_shadow_sync.py)."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import msgspec
import pytest
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.wire import jobs
from tests.cloud import device as devices
from tests.whole.test_deployments import recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole

MANAGER = "aws.greengrass.ShadowManager"
SCRIPT = 'printf %s "$SVCUID" > new && mv new token && exec sleep 1000000'
ACCESS = {MANAGER: {"p": {"operations": ["*"], "resources": ["*"]}}}
NAME = "one"
REAL_TIME = {"synchronize": {"coreThing": {"classic": False, "namedShadows": [NAME]}}}
WAIT_S = 30
_numbers = itertools.count(1)


class Side:
    """What both sides can be asked: `state()` is None for no shadow."""

    def state(self) -> dict[str, Any] | None:
        raise NotImplementedError

    def becomes(self, wanted: Mapping[str, Any] | None) -> None:
        seen: list[Any] = [None]

        def met() -> bool:
            seen[0] = self.state()
            return bool(seen[0] == wanted)

        systems.wait_for(met, lambda: f"{type(self).__name__} to be {wanted}, now {seen[0]}", WAIT_S, 0.1)


class Here(Side):
    """The device's shadow, as a component sees it."""

    def __init__(self, system: systems.System, thing: str, component: str) -> None:
        token = system.device(thing) / "work" / component / "token"
        systems.wait_for(token.exists, "the component's token", WAIT_S)
        low = awsiot.greengrasscoreipc.connect(
            ipc_socket=str(system.device(thing) / "ipc.socket"), authtoken=token.read_text(), timeout=10
        )
        self._client = clientv2.GreengrassCoreIPCClientV2(client=low)
        self._shadow = {"thing_name": thing, "shadow_name": NAME}

    def state(self) -> dict[str, Any] | None:
        try:
            answer = self._client.get_thing_shadow(**self._shadow)
        except model.ResourceNotFoundError:
            return None
        return _sections(msgspec.json.decode(bytes(answer.payload)))

    def update(self, state: Mapping[str, Any]) -> None:
        self._client.update_thing_shadow(**self._shadow, payload=json.dumps({"state": state}).encode())

    def delete(self) -> None:
        self._client.delete_thing_shadow(**self._shadow)

    def close(self) -> None:
        self._client.close().result(10)


class There(Side):
    """The cloud's shadow, as an application sees it."""

    def __init__(self, system: systems.System, thing: str) -> None:
        name = f"app{next(_numbers)}"
        self._prefix = jobs.shadow(thing, NAME)
        self._device = devices.Device(system.cloud_root, name, devices.register(system.cloud_root, name, name))
        self._device.connect()
        self._device.subscribe(f"{self._prefix}/+/accepted", f"{self._prefix}/+/rejected")

    def _ask(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        token = f"t{next(_numbers)}"
        self._device.publish(f"{self._prefix}/{verb}", body | {"clientToken": token})
        while True:
            _, payload = self._device.heard.get(timeout=WAIT_S)
            if payload.get("clientToken") == token:
                return dict(payload)

    def state(self) -> dict[str, Any] | None:
        found = self._ask("get", {})
        return None if found.get("code") == 404 else _sections(found)

    def update(self, state: Mapping[str, Any]) -> None:
        assert "code" not in self._ask("update", {"state": state})

    def delete(self) -> None:
        assert "code" not in self._ask("delete", {})

    def close(self) -> None:
        self._device.close()


def _sections(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found["state"][name] for name in ("desired", "reported") if name in found["state"]}


def deploy(system: systems.System, thing: str, component: str, **update: Any) -> None:
    configured = {"componentVersion": "2.15.0", "configurationUpdate": update}
    deployment = system.deploy(target(thing), {component: "1.0.0", MANAGER: configured})
    ended = system.wait(thing, deployment)
    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED", ended


def start(system: systems.System, thing: str, component: str, configuration: Mapping[str, Any]) -> tuple[Here, There]:
    more = {"ComponentConfiguration": {"DefaultConfiguration": {"accessControl": ACCESS}}}
    system.publish(recipe(component, "1.0.0", SCRIPT, **more))
    deploy(system, thing, component, merge=json.dumps(configuration))
    return Here(system, thing, component), There(system, thing)


@pytest.fixture
def own() -> Iterator[systems.System]:
    """A system whose service may go away."""
    with tempfile.TemporaryDirectory(prefix="mw") as folder:
        one = systems.System(Path(folder))
        try:
            one.start_cloud()
            yield one
        finally:
            one.close()


def test_sync_when_the_service_was_away_and_the_device_was_killed_then_both_sides_edits_survive(
    own: systems.System, component: str
) -> None:
    own.create_group("dev")
    own.create_device("dev", "dev")
    own.start_nucleus("dev")
    here, there = start(own, "dev", component, REAL_TIME)
    here.update({"reported": {"a": 1, "gone": 1}, "desired": {"x": 1}})
    there.becomes({"reported": {"a": 1, "gone": 1}, "desired": {"x": 1}})
    token = own.device("dev") / "work" / component / "token"

    token.unlink()
    own.kill("dev")
    there.update({"desired": {"x": 5, "y": 1}, "reported": {"a": 9}})
    there.close()
    ports = own.endpoints
    own.kill("cloud", 15)
    own.start_nucleus("dev")
    again = Here(own, "dev", component)
    again.becomes({"reported": {"a": 1, "gone": 1}, "desired": {"x": 1}})
    again.update({"reported": {"a": 2, "gone": None}, "desired": {"x": 4}})
    own.start_cloud(
        api_port=int(ports["api"].rsplit(":", 1)[1]),
        device_port=int(ports["device"].rsplit(":", 1)[1]),
        mqtt_port=ports["mqtt"]["port"],
    )

    there = There(own, "dev")
    merged = {"reported": {"a": 2}, "desired": {"x": 5, "y": 1}}
    there.becomes(merged)
    again.becomes(merged)
    there.close()
    again.close()
