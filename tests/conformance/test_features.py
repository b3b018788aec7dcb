"""Behaviours 19, 65, 69 and 70 of the specification: a nucleus of its own, artifacts, and the features of everyday use."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from awscrt import io, mqtt5

from nucleus.core import local
from tests.conformance import daemon as daemons
from tests.nucleus.actors import device as devices
from tests.whole.conftest import component, system, thing  # noqa: F401  fixtures
from tests.whole.test_deployments import recipe, target
from tools import system as systems

A = "com.example.A"


def test_19_nucleus_when_it_is_given_no_configuration_then_it_runs_and_deploys(tmp_path_factory: Any) -> None:
    root = tmp_path_factory.mktemp("n")
    with daemons.running(root) as one:
        assert not (root / "config.yaml").exists()
        assert one.state("com.example.None") == ""
        name = one.component({"Run": "echo up > up"})
        deployment = one.deploy_local({name: "1.0.0"})
        one.until(lambda: one.status(deployment) == "SUCCEEDED", "the deployment's success")
        one.until((root / "work" / name / "up").exists, "the component's file")


ZIPPED = (("inner/data.txt", b"data"), ("tool.sh", b"#!/bin/sh\n"))
PERMISSIONS = [
    ({}, 0o440),
    ({"Read": "NONE"}, 0o400),
    ({"Read": "ALL"}, 0o444),
    ({"Read": "NONE", "Execute": "OWNER"}, 0o550),
    ({"Read": "OWNER", "Execute": "ALL"}, 0o555),
]


@pytest.mark.parametrize(("permission", "bits"), PERMISSIONS)
async def test_65_artifacts_when_installed_then_unpacked_and_with_the_permissions_of_the_recipe(
    tmp_path: Path, permission: dict[str, str], bits: int
) -> None:
    recipes, folder = tmp_path / "recipes", tmp_path / "artifacts" / A / "1.0.0"
    recipes.mkdir()
    folder.mkdir(parents=True)
    (folder / "plain.txt").write_text("plain")
    with zipfile.ZipFile(folder / "z.zip", "w") as zipped:
        for name, data in ZIPPED:
            zipped.writestr(name, data)
    artifacts = [
        {"Uri": "s3://bucket/plain.txt", "Permission": permission},
        {"Uri": "s3://bucket/z.zip", "Unarchive": "ZIP", "Permission": permission},
    ]
    made = devices.recipe(A, "1.0.0", {}) | {"Manifests": [{"Artifacts": artifacts, "Lifecycle": {"Run": "true"}}]}
    (recipes / "r.json").write_text(json.dumps(made))
    device = devices.Device(tmp_path / "root")
    async with device.running():
        request = local.LocalRequest(
            add={A: "1.0.0"}, recipe_directory=str(recipes), artifacts_directory=str(tmp_path / "artifacts")
        )
        result = await device.end_of(await device.deployer.create_local(request, "cli"))

    assert result.status == "SUCCEEDED", result.cause
    unpacked = device.places.unarchived(A, "1.0.0") / "z"
    for name, data in ZIPPED:
        assert (unpacked / name).read_bytes() == data
    for path in (device.places.artifacts(A, "1.0.0") / "plain.txt", unpacked / "inner/data.txt"):
        # The owner may also write: a nucleus that is not root has to clean up.
        assert stat.S_IMODE(path.stat().st_mode) & ~stat.S_IWUSR == bits
    assert stat.S_IMODE((unpacked / "inner").stat().st_mode) == 0o755


ECHO = """
import threading
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
client, heard = GreengrassCoreIPCClientV2(), threading.Event()
def back(event):
    open("heard", "wb").write(bytes(event.message.payload))
    heard.set()
client.subscribe_to_iot_core(topic_name="round/trip", qos="1", on_stream_event=back)
client.publish_to_iot_core(topic_name="round/trip", qos="1", payload=b"there and back")
heard.wait()
"""


@pytest.mark.whole
def test_69_mqtt_when_another_connection_has_the_device_s_id_then_each_new_one_ends_the_old_and_the_device_works_on(
    system: systems.System,  # noqa: F811
    thing: str,  # noqa: F811
    component: str,  # noqa: F811
) -> None:
    root = system.device(thing)
    log = root / "logs" / "greengrass.log"
    systems.wait_for(lambda: log.exists() and "mqtt.connected" in log.read_text(), "the nucleus to connect", 30)
    context = io.TlsContextOptions.create_client_with_mtls_from_path(str(root / "device.pem"), str(root / "device.key"))
    context.override_default_trust_store_from_path(None, str(root / "ca.pem"))
    connected, ended = threading.Event(), threading.Event()
    other = mqtt5.Client(
        mqtt5.ClientOptions(
            host_name=system.endpoints["mqtt"]["host"],
            port=system.endpoints["mqtt"]["port"],
            tls_ctx=io.ClientTlsContext(context),
            connect_options=mqtt5.ConnectPacket(client_id=thing),
            min_reconnect_delay_ms=600_000,
            max_reconnect_delay_ms=600_000,
            on_lifecycle_event_connection_success_fn=lambda _: connected.set(),
            on_lifecycle_event_disconnection_fn=lambda _: ended.set(),
        )
    )
    other.start()
    assert connected.wait(20)
    systems.wait_for(lambda: "mqtt.disconnected" in log.read_text(), "the end of the device's old session", 20)
    assert ended.wait(30), "the device did not take its id back"
    other.stop()

    system.publish(recipe(component, "1.0.0", "true"))
    ended_well = system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}))

    assert ended_well["coreDeviceExecutionStatus"] == "SUCCEEDED"


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["thing", "thinggroup"])
def test_70_cloud_component_when_deployed_then_its_manifest_for_this_platform_runs_and_mqtt_makes_a_round_trip(
    system: systems.System,  # noqa: F811
    thing: str,  # noqa: F811
    component: str,  # noqa: F811
    kind: str,
) -> None:
    access = {
        "aws.greengrass.ipc.mqttproxy": {
            "p1": {
                "operations": ["aws.greengrass#PublishToIoTCore", "aws.greengrass#SubscribeToIoTCore"],
                "resources": ["round/trip"],
            }
        }
    }
    artifact = f"{component}.py"
    made = recipe(component, "1.0.0", "")
    made["ComponentConfiguration"] = {"DefaultConfiguration": {"accessControl": access}}
    made["Manifests"] = [
        {"Platform": {"os": "windows"}, "Lifecycle": {"Run": "exit 9"}},
        {
            "Platform": {"os": "linux"},
            "Lifecycle": {"Run": f"{sys.executable} {{artifacts:path}}/{artifact}"},
            "Artifacts": [{"Uri": f"s3://artifacts/{artifact}"}],
        },
    ]
    system.publish(made, {artifact: ECHO.encode()})
    arn = target(thing) if kind == "thinggroup" else f"arn:aws:iot:us-east-1:123456789012:thing/{thing}"

    ended = system.wait(thing, system.deploy(arn, {component: "1.0.0"}))

    assert ended["coreDeviceExecutionStatus"] in ("SUCCEEDED", "COMPLETED")
    heard = system.device(thing) / "work" / component / "heard"
    systems.wait_for(lambda: heard.exists() and heard.read_bytes() == b"there and back", "the round trip", 20)


def test_70_local_component_when_deployed_by_the_cli_then_the_manifest_for_this_platform_runs(
    tmp_path_factory: Any,
) -> None:
    root = tmp_path_factory.mktemp("n")
    with daemons.running(root) as one:
        name = one.component({})
        path = root / "authored" / f"{name}.json"
        made = json.loads(path.read_text())
        made["Manifests"] = [
            {"Platform": {"os": "darwin"}, "Lifecycle": {"Run": "echo darwin > seen"}},
            {"Platform": {"os": "linux"}, "Lifecycle": {"Run": "echo linux > seen"}},
        ]
        path.write_text(json.dumps(made))
        command = [sys.executable, "-m", "nucleus.cli", "deployment", "create", "--root", str(root)]
        command += ["--recipeDir", str(path.parent), "--merge", f"{name}=1.0.0"]

        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        assert done.returncode == 0, done.stdout + done.stderr
        one.until(lambda: one.state(name) == "FINISHED", "FINISHED")
        assert (root / "work" / name / "seen").read_text() == "linux\n"
