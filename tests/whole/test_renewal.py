"""A device whose certificate is soon to end renews it, and uses it from its next start on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.whole.test_deployments import recipe, target
from tools import system as systems

pytestmark = pytest.mark.whole


def test_certificate_when_soon_to_end_then_renewed_and_the_old_one_off_after_the_next_start(
    system: systems.System, component: str
) -> None:
    thing, iot = "renewing", system.client("iot")
    system.create_group(thing)
    folder = system.create_device(thing, thing)
    old = iot.list_thing_principals(thingName=thing)["principals"][0].rpartition("/")[2]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["services"]["aws.greengrass.Nucleus"]["configuration"]["marram"] = {"certificateRenewalDays": 5000}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))

    system.start_nucleus(thing)
    systems.wait_for((folder / "identity.json").exists, "the renewal", 60)
    assert iot.describe_certificate(certificateId=old)["certificateDescription"]["status"] == "ACTIVE"
    system.kill(thing, 15)
    config["services"]["aws.greengrass.Nucleus"]["configuration"]["marram"] = {}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    system.start_nucleus(thing)

    def off() -> bool:
        return bool(iot.describe_certificate(certificateId=old)["certificateDescription"]["status"] == "INACTIVE")

    systems.wait_for(off, "the old certificate to be turned off", 60)
    found = json.loads((folder / "identity.json").read_text())
    assert Path(found["system"]["privateKeyPath"]).stat().st_mode & 0o777 == 0o600
    system.publish(recipe(component, "1.0.0", "sleep 1000"))
    deployment = system.deploy(target(thing), {component: "1.0.0"})
    assert system.wait(thing, deployment)["coreDeviceExecutionStatus"] == "SUCCEEDED"
    system.kill(thing, 15)
