"""Unmodified clients against the running system: the aws CLI as operator, the official IPC client in components."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.whole.test_deployments import recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole

PUBLISHER = """
import sys, time
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from awsiot.greengrasscoreipc.model import JsonMessage, PublishMessage
client = GreengrassCoreIPCClientV2()
message = PublishMessage(json_message=JsonMessage(message={"n": 7}))
while True:
    client.publish_to_topic(topic="greetings/one", publish_message=message)
    client.publish_to_iot_core(topic_name="cloud/greetings", qos="1", payload=b"hello cloud")
    time.sleep(0.2)
"""

SUBSCRIBER = """
import datetime, threading
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
heard, from_cloud = threading.Event(), threading.Event()
def on_event(event):
    assert event.json_message.message == {"n": 7}, event
    heard.set()
def on_cloud(event):
    assert bytes(event.message.payload) == b"hello cloud", event
    from_cloud.set()
client = GreengrassCoreIPCClientV2()
client.subscribe_to_topic(topic="greetings/+", on_stream_event=on_event)
client.subscribe_to_iot_core(topic_name="cloud/#", qos="1", on_stream_event=on_cloud)
assert client.get_configuration(key_path=["word"]).value == {"word": "hello"}
client.update_configuration(key_path=["heard"], timestamp=datetime.datetime.now(), value_to_merge={"yes": True})
heard.wait(); from_cloud.wait()
open("heard", "w").write("both")
threading.Event().wait()
"""


def access(service: str, **resources: list[str]) -> dict[str, Any]:
    policies = {
        f"p{number}": {"operations": [f"aws.greengrass#{operation}"], "resources": allowed}
        for number, (operation, allowed) in enumerate(resources.items())
    }
    return {service: policies}


def test_awsiotsdk_when_two_components_talk_then_locally_and_through_the_cloud(
    system: systems.System, thing: str, component: str
) -> None:
    publisher, subscriber = f"{component}.Pub", f"{component}.Sub"
    may_publish = {
        **access("aws.greengrass.ipc.pubsub", PublishToTopic=["greetings/*"]),
        **access("aws.greengrass.ipc.mqttproxy", PublishToIoTCore=["cloud/#"]),
    }
    may_subscribe = {
        **access("aws.greengrass.ipc.pubsub", SubscribeToTopic=["greetings/+"]),
        **access("aws.greengrass.ipc.mqttproxy", SubscribeToIoTCore=["cloud/#"]),
    }
    files = {f"{publisher}.py": PUBLISHER.encode(), f"{subscriber}.py": SUBSCRIBER.encode()}
    for name, policies in ((publisher, may_publish), (subscriber, may_subscribe)):
        defaults = {"ComponentConfiguration": {"DefaultConfiguration": {"word": "hello", "accessControl": policies}}}
        script = f"exec {sys.executable} -u {{artifacts:path}}/{name}.py"
        system.publish(recipe(name, "1.0.0", script, {"Uri": f"s3://artifacts/{name}.py"}, **defaults), files)

    deployment = system.deploy(target(thing), {publisher: "1.0.0", subscriber: "1.0.0"})

    ended = system.wait(thing, deployment)
    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED", ended["reason"] + _tail(system.device(thing), subscriber)
    heard = system.device(thing) / "work" / subscriber / "heard"
    systems.wait_for(heard.exists, lambda: f"the messages; {_tail(system.device(thing), subscriber)}", 30)


def _tail(root: Path, component: str) -> str:
    return "".join((root / "logs" / f"{component}.log").read_text().splitlines(keepends=True)[-10:])


def test_aws_cli_when_it_lists_and_deploys_then_the_device_follows(
    system: systems.System, thing: str, component: str
) -> None:
    system.publish(recipe(component, "1.0.0", "true"))
    wanted = json.dumps({component: {"componentVersion": "1.0.0"}})

    created = aws(system, "create-deployment", "--target-arn", target(thing), "--components", wanted)
    system.wait(thing, created["deploymentId"])
    devices = aws(system, "list-core-devices")
    effective = aws(system, "list-effective-deployments", "--core-device-thing-name", thing)

    assert thing in {one["coreDeviceThingName"] for one in devices["coreDevices"]}
    assert effective["effectiveDeployments"][0]["deploymentId"] == created["deploymentId"]
    assert effective["effectiveDeployments"][0]["coreDeviceExecutionStatus"] == "SUCCEEDED"


def aws(system: systems.System, *arguments: str) -> dict[str, Any]:
    """`aws greengrassv2 …` with the operator's key in the environment; the user's own files are not read."""
    credentials = configparser.ConfigParser()
    credentials.read(system.cloud_root / "operator" / "credentials")
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": system.endpoints["api"],
        "AWS_DEFAULT_REGION": system.endpoints["region"],
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **{key.upper(): value for key, value in credentials["default"].items()},
    }
    command = [str(Path(sys.executable).with_name("aws")), "greengrassv2", *arguments, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found
