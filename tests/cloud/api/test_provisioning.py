"""Provisioning templates and claims by boto3."""

from __future__ import annotations

import json
import time

import pytest
from botocore import exceptions

from cloud.store import principals
from tests.cloud.api import service as running_service
from tests.cloud.core import test_provisioning_template as templates

ROLE = "arn:aws:iam::123456789012:role/Provisioning"


def _make(service: running_service.Service, body: str, **more: bool) -> None:
    service.client("iot").create_provisioning_template(
        templateName="Fleet", templateBody=body, provisioningRoleArn=ROLE, **more
    )


def test_template_when_made_turned_on_and_deleted_then_boto3_sees_it(service: running_service.Service) -> None:
    iot = service.client("iot")
    _make(service, json.dumps(templates.BODY))

    before = iot.describe_provisioning_template(templateName="Fleet")
    iot.update_provisioning_template(templateName="Fleet", enabled=True)
    (listed,) = iot.list_provisioning_templates()["templates"]
    iot.delete_provisioning_template(templateName="Fleet")

    assert (before["enabled"], json.loads(before["templateBody"])) == (False, templates.BODY)
    assert (listed["templateName"], listed["enabled"]) == ("Fleet", True)
    assert iot.list_provisioning_templates()["templates"] == []


def test_template_when_it_cannot_be_carried_out_then_refused_naming_the_place(
    service: running_service.Service,
) -> None:
    with pytest.raises(exceptions.ClientError, match=r"Nobody is no parameter"):
        _make(service, templates.changed("Resources/thing/Properties/ThingName", {"Ref": "Nobody"}))


def test_claim_when_made_then_five_minutes_for_this_template_only(service: running_service.Service) -> None:
    _make(service, json.dumps(templates.BODY), enabled=True)

    made = service.client("iot").create_provisioning_claim(templateName="Fleet")
    again = service.client("iot").create_provisioning_claim(templateName="Fleet")

    assert 290 < made["expiration"].timestamp() - time.time() <= 300
    assert made["certificateId"] != again["certificateId"]
    with service.held.database.read() as tx:
        found = principals.principal(tx, made["certificateId"])
    assert found is not None
    service.tick_ms = 301_000
    service.client("iot").create_provisioning_claim(templateName="Fleet")
    listed = service.client("iot").list_targets_for_policy(policyName="provisioning-claim-Fleet")["targets"]
    assert len(listed) == 1  # those that expired are forgotten
    assert (found.active, found.things, found.policies) == (True, (), ("provisioning-claim-Fleet",))
