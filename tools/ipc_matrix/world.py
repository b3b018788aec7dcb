"""One device for one client: a real cloud, a real nucleus, driver components, and what scenarios may do to them.

With the marker `test-root` in the device's root folder the fault switch `ipc-service-error` has an effect
(nucleus/ARCHITECTURE.md, Faults on purpose).
"""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from nucleus.ipc import client
from tools import system as systems
from tools.ipc_matrix import control

FOLDER = Path(__file__).parent
MAIN, POOR, TARGET, EXTRA, CLOUD = (f"com.example.matrix.{one}" for one in ("Main", "Poor", "Target", "Extra", "Cloud"))
STREAM = "aws.greengrass.StreamManager"
NAMES = {"main": MAIN, "poor": POOR, "target": TARGET, "extra": EXTRA}
ROLES = {"main": MAIN, "poor": POOR, "stream": STREAM}
SERVICES = (
    "aws.greengrass.ipc.pubsub",
    "aws.greengrass.ipc.mqttproxy",
    "aws.greengrass.ipc.lifecycle",
    "aws.greengrass.ipc.componentmetric",
    "aws.greengrass.SecretManager",
    "aws.greengrass.ShadowManager",
    "aws.greengrass.Cli",
    "aws.greengrass.clientdevices.Auth",
)
ROLE_ALIAS = "MatrixAlias"
VALUES = {"nested": {"text": "hello", "number": 7, "list": [1, "two"]}, "watched": {"n": 0}, "deployed": {"n": 0}}


class Device:
    """A running nucleus with the drivers of one client; `values` are what `<name>` means in scenarios."""

    def __init__(self, system: systems.System, thing: str, command: list[str], values: Mapping[str, Any]) -> None:
        self.system, self.thing = system, thing
        self.root = system.device(thing)
        self.values: dict[str, Any] = {**NAMES, **values, "thing": thing, "user": getpass.getuser()}
        self._number = 0
        self.control = control.Control(self.root / "c")
        system.start_nucleus(thing)
        self._connect()
        self._start_drivers(command)

    def _connect(self) -> None:
        tokens = self.root / "cli_ipc_info"
        systems.wait_for(lambda: bool(list(tokens.glob("user-*"))), "the command line's token", 30)
        found = json.loads(next(tokens.glob("user-*")).read_text())
        systems.wait_for(lambda: _listens(found["domain_socket_path"]), "the nucleus's socket", 30)
        self.cli = client.Client(found["domain_socket_path"], found["cli_auth_token"], timeout_s=30)
        self.values["cli_token"] = found["cli_auth_token"]

    def _start_drivers(self, command: list[str]) -> None:
        recipes = self.root / "recipes"
        recipes.mkdir()
        self.values["recipes"] = str(recipes)
        policy = {"all": {"operations": ["*"], "resources": ["*"]}}
        access = {"accessControl": dict.fromkeys(SERVICES, policy)}
        for role, name in ROLES.items():
            run = "exec " + " ".join((*command, str(self.control.path), role))
            defaults = VALUES | access if role == "main" else {}
            _write(recipes, name, {"Run": _kept(run, self.root, role)}, defaults)
        _write(recipes, TARGET, {"Run": "exec sleep 100000"}, {})
        _write(recipes, EXTRA, {"Install": "true"}, {})
        wanted = dict.fromkeys((*ROLES.values(), TARGET), "1.0.0")
        self.wait_deployment(self._deploy({"rootComponentVersionsToAdd": wanted, "recipeDirectoryPath": str(recipes)}))
        for role in ROLES:
            self.control.wait(role)
        self.values["token"] = (self.root / "token-main").read_text().strip()

    def close(self) -> None:
        self.cli.close()
        self.control.close()
        self.system.kill(self.thing, 15)

    # ---- what scenarios do (steps.Do) ----------------------------------------------------------------------------

    def deploy_me(self) -> str:
        """A deployment that changes a value of main's configuration."""
        self._number += 1
        return self._deploy({"componentToConfiguration": {MAIN: {"MERGE": {"deployed": {"n": self._number}}}}})

    def deploy_from_cloud(self) -> str:
        """A deployment of the cloud to the device's group."""
        self._number += 1
        group = f"arn:aws:iot:us-east-1:123456789012:thinggroup/{self.thing}"
        update = {"merge": json.dumps({"n": self._number})}
        wanted = {"componentVersion": "1.0.0", "configurationUpdate": update}
        return self.system.deploy(group, {CLOUD: wanted})

    def wait_cloud(self, deployment: str) -> None:
        ended = self.system.wait(self.thing, deployment)
        if ended["coreDeviceExecutionStatus"] != "SUCCEEDED":
            raise RuntimeError(f"the deployment did not succeed: {ended}")

    def wait_deployment(self, deployment: str, status: str = "SUCCEEDED") -> None:
        seen: dict[str, Any] = {}

        def reached() -> bool:
            seen.update(self.cli.call("GetLocalDeploymentStatus", {"deploymentId": deployment})["deployment"])
            return bool(seen["status"] == status)

        systems.wait_for(reached, lambda: f"the deployment to be {status}: {seen}", 60)

    def wait_state(self, name: str, state: str) -> None:
        def reached() -> bool:
            found = self.cli.call("GetComponentDetails", {"componentName": name})["componentDetails"]
            return bool(found["state"] == state)

        systems.wait_for(reached, f"{name} to be {state}", 30)

    def fault(self, text: str = "") -> None:
        """Writes the fault switch; removed at the scenario's end."""
        if text:
            (self.root / "fault").write_text(text)
        else:
            (self.root / "fault").unlink(missing_ok=True)

    def cloud_down(self) -> None:
        self._ports = self.system.endpoints
        self.system.kill("cloud", 15)

    def cloud_up(self) -> None:
        ports = {name: int(str(self._ports[name]).rsplit(":", 1)[1]) for name in ("api", "device")}
        self.system.start_cloud(
            api_port=ports["api"], device_port=ports["device"], mqtt_port=self._ports["mqtt"]["port"]
        )

    def _deploy(self, request: Mapping[str, Any]) -> str:
        return str(self.cli.call("CreateLocalDeployment", dict(request))["deploymentId"])


def prepare(system: systems.System, thing: str, services: Mapping[str, Any]) -> Path:
    """Makes the device in the cloud, and its root folder (returned), with more configuration of built-in components."""
    iot = system.client("iot")
    system.create_group(thing)
    folder = system.create_device(thing, thing)
    try:
        iot.create_role_alias(roleAlias=ROLE_ALIAS, roleArn="arn:aws:iam::123456789012:role/Core")
        statement = {"Effect": "Allow", "Action": "iot:AssumeRoleWithCertificate", "Resource": "*"}
        text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iot.create_policy(policyName="AssumeMatrix", policyDocument=text)
    except iot.exceptions.ResourceAlreadyExistsException:
        pass
    iot.attach_policy(policyName="AssumeMatrix", target=iot.list_thing_principals(thingName=thing)["principals"][0])
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["services"]["aws.greengrass.Nucleus"]["configuration"]["iotRoleAlias"] = ROLE_ALIAS
    config["services"] |= {name: {"configuration": dict(one)} for name, one in services.items()}
    path.write_text(yaml.safe_dump(config))
    return folder


def python_command(folder: Path) -> list[str]:
    """The driver of the official Python client."""
    return [sys.executable, "-u", str(FOLDER / "drivers" / "python_driver.py")]


def our_command(folder: Path) -> list[str]:
    """The driver of our client, with the one file beside it as an artifact has it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(FOLDER / "drivers" / "our_driver.py", folder / "our_driver.py")
    shutil.copyfile(Path(client.__file__), folder / "marram_ipc.py")
    return [sys.executable, "-u", str(folder / "our_driver.py")]


def now() -> float:
    return time.time()


def _kept(run: str, root: Path, role: str) -> str:
    """The script also leaves its token for scenarios that need one."""
    return f'echo "$SVCUID" > {root}/token-{role}; {run}'


def recipe(
    name: str, lifecycle: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": "1.0.0",
        "ComponentConfiguration": {"DefaultConfiguration": dict(defaults)},
        "Manifests": [{"Lifecycle": dict(lifecycle)}],
    }


def _write(folder: Path, name: str, lifecycle: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    (folder / f"{name}.json").write_text(json.dumps(recipe(name, lifecycle, defaults)))


def _listens(path: str) -> bool:
    """A socket's file is there a moment before somebody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        return one.connect_ex(path) == 0
