"""A component process reads a secret through the unmodified official client; then everything but the device is gone."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from pathlib import Path

import pytest

from nucleus import identity
from tests.nucleus import cloud_secrets
from tests.whole.test_deployments import recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole

MANAGER = "aws.greengrass.SecretManager"
ALIAS = "SecretsAlias"
READER = """
import json, os, sys, threading
from awsiot.greengrasscoreipc import clientv2, model
client = clientv2.GreengrassCoreIPCClientV2()
found = client.get_secret_value(secret_id=sys.argv[1])
try:
    client.get_secret_value(secret_id=sys.argv[2])
    refused = ""
except model.UnauthorizedError as error:
    refused = error.message
text = json.dumps([found.secret_id, found.version_stage, found.secret_value.secret_string, refused])
open("new", "w").write(text)
os.rename("new", "read")
threading.Event().wait()
"""


def _device(system: systems.System, thing: str) -> Path:
    """A device whose role alias gives its nucleus credentials."""
    iot = system.client("iot")
    iot.create_role_alias(roleAlias=ALIAS, roleArn="arn:aws:iam::123456789012:role/Core")
    statement = {"Effect": "Allow", "Action": "iot:AssumeRoleWithCertificate", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iot.create_policy(policyName="AssumeSecrets", policyDocument=document)
    system.create_group(thing)
    folder = system.create_device(thing, thing)
    iot.attach_policy(policyName="AssumeSecrets", target=iot.list_thing_principals(thingName=thing)["principals"][0])
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("iotCredEndpoint:", f"iotRoleAlias: {ALIAS}\n      iotCredEndpoint:"))
    return folder


def _renew(system: systems.System, folder: Path) -> None:
    """Another certificate with another key, as a renewal leaves it for the next start."""
    made = system.client("iot").create_keys_and_certificate(setAsActive=True)
    (folder / "device-2.pem").write_text(made["certificatePem"])
    (folder / "device-2.key").write_text(made["keyPair"]["PrivateKey"])
    names = {"certificateFilePath": str(folder / "device-2.pem"), "privateKeyPath": str(folder / "device-2.key")}
    replaces = hashlib.sha256((folder / "device.pem").read_bytes()).hexdigest()
    identity.save(folder, {"system": names, "nucleus": {}, "replaces": replaces})


def _deploy(system: systems.System, thing: str, component: str, url: str, *secrets: str) -> str:
    """The reader, which may have the first of two secrets (name and ARN each), and the secret manager with both."""
    name, arn, other, other_arn = secrets
    policy = {"operations": ["aws.greengrass#GetSecretValue"], "resources": [arn]}
    script = f"exec {sys.executable} {{artifacts:path}}/secret_reader.py {name} {other}"
    more = {"ComponentConfiguration": {"DefaultConfiguration": {"accessControl": {MANAGER: {"p": policy}}}}}
    wanted = recipe(component, "1.0.0", script, {"Uri": "s3://artifacts/secret_reader.py"}, **more)
    wanted["ComponentDependencies"] = {MANAGER: {"VersionRequirement": "^2.0.0"}}
    system.publish(wanted, {"secret_reader.py": READER.encode()})
    merge = {"cloudSecrets": [{"arn": arn}, {"arn": other_arn}], "marram": {"secretsEndpoint": url}}
    configured = {"componentVersion": "2.15.0", "configurationUpdate": {"merge": json.dumps(merge)}}
    return system.deploy(target(thing), {component: "1.0.0", MANAGER: configured})


def test_component_when_it_asks_for_a_secret_then_it_gets_it_even_after_a_crash_with_a_new_key_and_no_cloud(
    system: systems.System, component: str
) -> None:
    thing = f"sec{component[-1]}"
    folder = _device(system, thing)
    read = folder / "work" / component / "read"
    with cloud_secrets.serving() as service:
        name, arn = service.create("the-value")
        other, other_arn = service.create("not-for-you")
        system.start_nucleus(thing)
        deployment = _deploy(system, thing, component, service.url, name, arn, other, other_arn)

        ended = system.wait(thing, deployment)
        assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED", ended
        systems.wait_for(read.exists, "the component to read its secret", 30)
        refusal = (
            f"Principal {component} is not authorized to perform {MANAGER}:aws.greengrass#GetSecretValue on resource "
        )
        assert json.loads(read.read_text()) == [arn, ["AWSCURRENT"], "the-value", refusal + other_arn]
    system.kill(thing, signal.SIGKILL)
    read.unlink()
    _renew(system, folder)
    (folder / "ca.pem").write_text((folder / "device.pem").read_text())  # the cloud is a stranger from now on

    system.start_nucleus(thing)

    systems.wait_for(read.exists, "the component to read its secret from the device", 40)
    assert json.loads(read.read_text())[:3] == [arn, ["AWSCURRENT"], "the-value"]
    system.kill(thing, 15)
    assert json.loads((folder / "secrets" / "secrets.json").read_text())["key_file"] == str(folder / "device-2.key")
    kept = [path for path in folder.rglob("*") if path.is_file() and path != read]
    assert not [path for path in kept if b"the-value" in path.read_bytes()]
