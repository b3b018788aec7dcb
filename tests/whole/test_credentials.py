"""A component process that reads an S3 object with credentials of the token exchange, through plain boto3."""

from __future__ import annotations

import json
import sys

import pytest

from tests.whole.test_deployments import recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole

ALIAS = "WholeAlias"
READER = """
import os, sys
import boto3
s3 = boto3.client("s3", endpoint_url=sys.argv[1])
found = s3.get_object(Bucket="settings", Key="greeting")["Body"].read()
try:
    s3.put_object(Bucket="settings", Key="greeting", Body=b"mine")
except s3.exceptions.ClientError as refused:
    found += b" " + refused.response["Error"]["Code"].encode()
open("read", "wb").write(found)
import threading
threading.Event().wait()
"""


def _prepare(system: systems.System) -> None:
    iot, s3 = system.client("iot"), system.client("s3")
    iot.create_role_alias(roleAlias=ALIAS, roleArn="arn:aws:iam::123456789012:role/Core")
    statement = {"Effect": "Allow", "Action": "iot:AssumeRoleWithCertificate", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iot.create_policy(policyName="AssumeRole", policyDocument=document)
    s3.create_bucket(Bucket="settings")
    s3.put_object(Bucket="settings", Key="greeting", Body=b"hello")


def test_component_when_it_uses_boto3s_container_provider_then_it_reads_objects_and_writes_none(
    system: systems.System, component: str
) -> None:
    _prepare(system)
    thing = f"tes{component[-1]}"
    system.create_group(thing)
    folder = system.create_device(thing, thing)
    iot = system.client("iot")
    principal = iot.list_thing_principals(thingName=thing)["principals"][0]
    iot.attach_policy(policyName="AssumeRole", target=principal)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("iotCredEndpoint:", f"iotRoleAlias: {ALIAS}\n      iotCredEndpoint:"))
    system.start_nucleus(thing)
    script = f"exec {sys.executable} {{artifacts:path}}/reader.py {system.endpoints['api']}"
    dependency = {"aws.greengrass.TokenExchangeService": {"VersionRequirement": "^2.0.0", "DependencyType": "HARD"}}
    wanted = recipe(component, "1.0.0", script, {"Uri": "s3://artifacts/reader.py"}, ComponentDependencies=dependency)
    system.publish(wanted, {"reader.py": READER.encode()})

    deployment = system.deploy(target(thing), {component: "1.0.0"})
    ended = system.wait(thing, deployment)

    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED", ended
    read = folder / "work" / component / "read"
    systems.wait_for(read.exists, "the component to read its object", 30)
    systems.wait_for(lambda: read.read_bytes() == b"hello AccessDenied", lambda: f"{read.read_bytes()!r}", 10)
    system.kill(thing, 15)
