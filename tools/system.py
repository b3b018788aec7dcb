"""A whole system for tests and benchmarks: the service and nuclei as real processes on loopback, driven by plain boto3."""

from __future__ import annotations

import configparser
import getpass
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from cloud import settings

POLICY = "CorePolicy"
ENDED = frozenset({"SUCCEEDED", "COMPLETED", "FAILED", "REJECTED", "CANCELED", "TIMED_OUT"})


class System:
    """Everything below one folder; `close()` ends every process it started."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.cloud_root = self.root / "cloud"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    # ---- processes -----------------------------------------------------------------------------------------------

    def start_cloud(self, *, api_port: int = 0, device_port: int = 0, mqtt_port: int = 0) -> None:
        if not (self.cloud_root / "cloud.json").exists():
            self.cloud_root.mkdir(parents=True, exist_ok=True)
            settings.init(self.cloud_root)
        ports = ("--api-port", api_port, "--device-port", device_port, "--mqtt-port", mqtt_port)
        self._start("cloud", [sys.executable, "-m", "cloud", "--root", str(self.cloud_root), *map(str, ports)])
        wait_for(lambda: (self.cloud_root / "endpoints.json").exists(), "the service to listen", 60)

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.cloud_root / "endpoints.json").read_text())
        return found

    def start_nucleus(self, thing: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "nucleus", "--root", str(self.device(thing))]
        return self._start(thing, command, **environment)

    def _start(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)
        self.processes[name] = process
        return process

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(40)

    def close(self) -> None:
        for name in sorted(self.processes, key=lambda one: one == "cloud"):
            self.processes[name].terminate()
        for process in self.processes.values():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.processes.clear()

    # ---- operator ------------------------------------------------------------------------------------------------

    def client(self, service: str, **keys: str) -> Any:
        credentials = configparser.ConfigParser()
        credentials.read(self.cloud_root / "operator" / "credentials")
        found = dict(credentials["default"]) | keys
        return boto3.client(
            service,
            endpoint_url=self.endpoints["api"],
            region_name=self.endpoints["region"],
            aws_access_key_id=found["aws_access_key_id"],
            aws_secret_access_key=found["aws_secret_access_key"],
            config=Config(retries={"max_attempts": 2}),
        )

    def create_group(self, name: str) -> str:
        return str(self.client("iot").create_thing_group(thingGroupName=name)["thingGroupArn"])

    def device(self, thing: str) -> Path:
        return self.root / thing

    def create_device(self, thing: str, *groups: str) -> Path:
        """A thing with a certificate, and a root folder whose config.yaml names both."""
        iot = self.client("iot")
        iot.create_thing(thingName=thing)
        keys = iot.create_keys_and_certificate(setAsActive=True)
        self._policy(iot)
        iot.attach_policy(policyName=POLICY, target=keys["certificateArn"])
        iot.attach_thing_principal(thingName=thing, principal=keys["certificateArn"])
        for group in groups:
            iot.add_thing_to_thing_group(thingGroupName=group, thingName=thing)
        folder = self.device(thing)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "device.pem").write_text(keys["certificatePem"])
        (folder / "device.key").write_text(keys["keyPair"]["PrivateKey"])
        (folder / "device.key").chmod(0o600)
        (folder / "ca.pem").write_text(Path(self.endpoints["ca"]).read_text())
        self.write_config(thing)
        return folder

    def _policy(self, iot: Any) -> None:
        actions = ["iot:Connect", "iot:Publish", "iot:Subscribe", "iot:Receive", "greengrass:*"]
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        try:
            iot.get_policy(policyName=POLICY)
        except iot.exceptions.ResourceNotFoundException:
            document = {"Version": "2012-10-17", "Statement": [statement]}
            iot.create_policy(policyName=POLICY, policyDocument=json.dumps(document))

    def write_config(self, thing: str) -> None:
        folder, endpoints = self.device(thing), self.endpoints
        system = {
            "certificateFilePath": str(folder / "device.pem"),
            "privateKeyPath": str(folder / "device.key"),
            "rootCaPath": str(folder / "ca.pem"),
            "rootpath": str(folder),
            "thingName": thing,
        }
        nucleus = {
            "awsRegion": endpoints["region"],
            "iotDataEndpoint": endpoints["mqtt"]["host"],
            "iotCredEndpoint": endpoints["device"].removeprefix("https://"),
            "greengrassDataPlaneEndpoint": "iotdata",
            "greengrassDataPlanePort": int(endpoints["device"].rsplit(":", 1)[1]),
            "mqtt": {"port": endpoints["mqtt"]["port"]},
            "runWithDefault": {"posixUser": getpass.getuser()},
        }
        config = {"system": system, "services": {"aws.greengrass.Nucleus": {"configuration": nucleus}}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    def publish(self, recipe: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> None:
        """Uploads `files` and creates the component version; artifacts of the recipe name `s3://artifacts/<file>`."""
        s3 = self.client("s3")
        if files:
            s3.create_bucket(Bucket="artifacts")
        for name, data in (files or {}).items():
            s3.put_object(Bucket="artifacts", Key=name, Body=data)
        self.client("greengrassv2").create_component_version(inlineRecipe=json.dumps(recipe).encode())

    def deploy(self, target: str, components: Mapping[str, Any], **more: Any) -> str:
        """Creates a deployment; a component may be a version or the full request value. Returns the deployment's id."""
        wanted = {name: {"componentVersion": one} if isinstance(one, str) else one for name, one in components.items()}
        created = self.client("greengrassv2").create_deployment(targetArn=target, components=wanted, **more)
        return str(created["deploymentId"])

    def effective(self, thing: str, deployment_id: str) -> dict[str, Any]:
        """The effective deployment of a device, {} while it is not listed."""
        found = self.client("greengrassv2").list_effective_deployments(coreDeviceThingName=thing)[
            "effectiveDeployments"
        ]
        return next((dict(one) for one in found if one["deploymentId"] == deployment_id), {})

    def wait(self, thing: str, deployment_id: str, timeout_s: float = 60) -> dict[str, Any]:
        """Waits until the deployment has ended on a device; returns the effective deployment."""
        seen: list[dict[str, Any]] = [{}]

        def ended() -> bool:
            seen[0] = self.effective(thing, deployment_id)
            return seen[0].get("coreDeviceExecutionStatus") in ENDED

        wait_for(ended, lambda: f"{deployment_id} on {thing} to end (now {seen[0]})", timeout_s)
        return seen[0]


def wait_for(
    condition: Callable[[], bool], what: str | Callable[[], str], timeout_s: float, pause_s: float = 0.02
) -> None:
    """Polls a condition of another process. Raises TimeoutError naming what was waited for."""
    until = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {timeout_s:g} s for {what() if callable(what) else what}")
        pause.wait(pause_s)
