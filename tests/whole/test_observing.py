"""A model agent on a real device of a real cloud: its metrics arrive there, its captures by the token exchange's credentials."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud.cli import listen
from tests.cli import marram
from tests.components import parts
from tests.whole.test_deployments import target
from tools import system as systems

pytestmark = pytest.mark.whole
WITHIN_S = 60
ROLE, BUCKET, ALIAS = "ObservingAlias", "captures", "power-curve"
AGENT = "marram.ModelAgent"


def _recipe(
    name: str, source: Path, configuration: dict[str, Any], settings: str = ""
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The repository's recipe with another configuration, and its artifacts by the names that it then has."""
    recipe = yaml.safe_load((parts.RECIPES / f"{name}-1.0.0.yaml").read_text())
    recipe["ComponentConfiguration"]["DefaultConfiguration"] |= {"python": sys.executable, **configuration}
    manifest = recipe["Manifests"][0]
    manifest["Lifecycle"]["Startup"]["Script"] += settings
    files = {}
    for artifact in manifest["Artifacts"]:
        file = artifact["URI"].rsplit("/", 1)[1]
        files[f"{name}/{file}"] = parts.OURS.get(file, source / file).read_bytes()
        artifact["URI"] = f"s3://artifacts/{name}/{file}"
    return recipe, files


def _prepare(system: systems.System, thing: str) -> Path:
    """A device whose certificate gives credentials, and the bucket."""
    iot = system.client("iot")
    iot.create_role_alias(roleAlias=ROLE, roleArn="arn:aws:iam::123456789012:role/Core")
    statement = {"Effect": "Allow", "Action": "iot:AssumeRoleWithCertificate", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iot.create_policy(policyName="AssumeForCaptures", policyDocument=document)
    system.client("s3").create_bucket(Bucket=BUCKET)
    system.create_group(thing)
    folder = system.create_device(thing, thing)
    principal = iot.list_thing_principals(thingName=thing)["principals"][0]
    iot.attach_policy(policyName="AssumeForCaptures", target=principal)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("iotCredEndpoint:", f"iotRoleAlias: {ROLE}\n      iotCredEndpoint:"))
    return folder


def _publish(system: systems.System) -> None:
    configuration = {
        "metrics": {"localSeconds": 0, "cloudSeconds": 1},
        "captures": {"directory": "samples", "diskBytes": 64 * 1024},  # units of 4 KiB, so that one is closed soon
        "captureUpload": {
            "bucket": BUCKET,
            "prefix": "things/{thing}",
            "endpoint": system.endpoints["api"],
            "bytesPerDay": 1 << 20,
        },
    }
    recipe, files = _recipe(AGENT, parts.AGENT, configuration)
    exchange = {"VersionRequirement": "^2.0.0", "DependencyType": "HARD"}
    recipe["ComponentDependencies"] = {"aws.greengrass.TokenExchangeService": exchange}
    system.publish(recipe, files)
    settings = f" --settings '{json.dumps({'capture': {'onRequest': True}})}'"
    system.publish(*_recipe(parts.MODEL_NAME, parts.MODEL / "1.0.0", {}, settings))


def _asked(folder: Path, header: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(WITHIN_S)
        one.connect(str(folder / "work" / AGENT / "agent.sock"))
        parts.agent_frames.send(one, header, body)
        reply: dict[str, Any] = parts.agent_frames.receive(one)[0]
        return reply


def _captured(folder: Path) -> str:
    """The id of a capture of 300 rows; its line is some 5 KB."""
    tensor = {"name": "conditions", "dtype": "float32", "shape": [300, 2]}
    assert _asked(folder, {"op": "predict", "alias": ALIAS, "tensors": [tensor]}, bytes(2400))["ok"]
    reply = _asked(folder, {"op": "capture", "alias": ALIAS})
    assert reply["ok"], reply
    return str(reply["id"])


def test_agent_when_models_are_asked_then_metrics_and_captures_reach_the_cloud(
    system: systems.System, tmp_path: Path
) -> None:
    thing, certificate = "observed", tmp_path / "certificate"
    topic = f"marram/things/{thing}/models/{ALIAS}/metrics"
    made = marram.run(
        "operator", "certificate", "watcher", "--topic", topic, "--to", certificate, "--root", system.cloud_root
    )
    assert made.code == 0, made.err
    folder = _prepare(system, thing)
    _publish(system)
    system.start_nucleus(thing)

    ended = system.wait(thing, system.deploy(target(thing), {parts.MODEL_NAME: "1.0.0"}), 120)
    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED", ended
    wanted = {_captured(folder) for _ in range(4)}

    s3 = system.client("s3")

    def uploaded() -> set[str]:
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"things/{thing}/default/{ALIAS}/").get("Contents", [])
        bodies = [s3.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in listed]
        return {json.loads(line)["eventMetadata"]["eventId"] for body in bodies for line in body.splitlines()}

    log = folder / "logs" / f"{AGENT}.log"
    systems.wait_for(lambda: len(uploaded()) >= 2, lambda: log.read_text()[-3000:], WITHIN_S)
    assert uploaded() < wanted  # the last unit is open
    with listen.connect(certificate) as listener:
        listener.subscribe(topic)
        message = json.loads(listener.heard.get(timeout=WITHIN_S).payload)
    assert (message["version"], message["total"]["count"], message["captures"]["kept"]) == ("1.0.0", 4, 4)
    system.kill(thing, 15)
