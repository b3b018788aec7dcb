"""A new device that has nothing but a claim certificate: it gets its identity, comes online and takes a deployment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.whole.test_deployments import recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole

GROUP = "claimed"
CORE = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["iot:*", "greengrass:*"], "Resource": "*"}],
}
TEMPLATE: dict[str, Any] = {
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {"ThingName": {"Fn::Sub": "claimed-${SerialNumber}"}, "ThingGroups": [GROUP]},
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": CORE}},
    },
}


def _prepare(system: systems.System, folder: Path) -> None:
    """What an operator and a factory do: a group, a template, a claim on the device's disk."""
    iot, endpoints = system.client("iot"), system.endpoints
    system.create_group(GROUP)
    iot.create_provisioning_template(
        templateName="Fleet",
        templateBody=json.dumps(TEMPLATE),
        enabled=True,
        provisioningRoleArn="arn:aws:iam::123456789012:role/Provisioning",
    )
    claim = iot.create_provisioning_claim(templateName="Fleet")
    folder.mkdir()
    (folder / "claim.pem").write_text(claim["certificatePem"])
    (folder / "claim.key").write_text(claim["keyPair"]["PrivateKey"])
    (folder / "ca.pem").write_text(Path(endpoints["ca"]).read_text())
    by_claim = {
        "provisioningTemplate": "Fleet",
        "claimCertificatePath": str(folder / "claim.pem"),
        "claimCertificatePrivateKeyPath": str(folder / "claim.key"),
        "rootCaPath": str(folder / "ca.pem"),
        "iotDataEndpoint": endpoints["mqtt"]["host"],
        "iotCredentialEndpoint": endpoints["device"].removeprefix("https://"),
        "mqttPort": endpoints["mqtt"]["port"],
        "awsRegion": endpoints["region"],
        "templateParameters": {"SerialNumber": "4711"},
    }
    nucleus = {
        "runWithDefault": {"posixUser": str(os.getuid())},
        "greengrassDataPlaneEndpoint": "iotdata",
        "greengrassDataPlanePort": int(endpoints["device"].rsplit(":", 1)[1]),
    }
    services = {
        "aws.greengrass.Nucleus": {"configuration": nucleus},
        "aws.greengrass.FleetProvisioningByClaim": {"configuration": by_claim},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"services": services}))


def test_device_when_it_comes_with_a_claim_then_it_is_provisioned_and_takes_its_groups_deployment(
    system: systems.System, component: str
) -> None:
    folder = system.device("newcomer")
    _prepare(system, folder)
    system.publish(recipe(component, "1.0.0", "echo $AWS_IOT_THING_NAME > name; sleep 1000"))
    deployment = system.deploy(target(GROUP), {component: "1.0.0"})

    system.start_nucleus("newcomer")
    greengrass = system.client("greengrassv2")

    def reported() -> bool:
        return "claimed-4711" in [one["coreDeviceThingName"] for one in greengrass.list_core_devices()["coreDevices"]]

    systems.wait_for(reported, "the new device to report", 60)
    ended = system.wait("claimed-4711", deployment)

    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED", ended
    assert (folder / "work" / component / "name").read_text().strip() == "claimed-4711"
    assert (folder / "device.key").stat().st_mode & 0o777 == 0o600
    system.kill("newcomer", 15)
    system.start_nucleus("newcomer")  # from identity.json: no second thing is made
    again = system.deploy(target(GROUP), {component: "1.0.0"})
    assert system.wait("claimed-4711", again)["coreDeviceExecutionStatus"] == "SUCCEEDED"
    things = [one["thingName"] for one in system.client("iot").list_things()["things"]]
    assert [one for one in things if one.startswith("claimed-")] == ["claimed-4711"]
    system.kill("newcomer", 15)
