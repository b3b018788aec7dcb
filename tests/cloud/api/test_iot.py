"""The `iot` operations through unmodified boto3, whose models check the shapes."""

from __future__ import annotations

import json
import ssl
from typing import Any

import botocore.exceptions
import pytest

from cloud.store import principals
from tests.cloud.api import service as running_service

POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'


def _code(call: Any, **arguments: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_thing_when_created_then_described_changed_and_deleted(service: running_service.Service) -> None:
    iot = service.client("iot")

    made = iot.create_thing(thingName="t:1", attributePayload={"attributes": {"site": "a"}})
    again = iot.create_thing(thingName="t:1", attributePayload={"attributes": {"site": "a"}})
    iot.update_thing(thingName="t:1", attributePayload={"attributes": {"row": "2"}, "merge": True})
    found = iot.describe_thing(thingName="t:1")
    iot.delete_thing(thingName="t:1", expectedVersion=2)

    assert made["thingId"] == again["thingId"] == found["thingId"]
    assert made["thingArn"] == service.arn("iot", "thing/t:1")
    assert (found["attributes"], found["version"]) == ({"site": "a", "row": "2"}, 2)
    assert _code(iot.describe_thing, thingName="t:1") == "ResourceNotFoundException"


def test_thing_when_it_exists_otherwise_then_refused(service: running_service.Service) -> None:
    iot = service.client("iot")
    iot.create_thing(thingName="t1")

    code = _code(iot.create_thing, thingName="t1", attributePayload={"attributes": {"a": "b"}})

    assert code == "ResourceAlreadyExistsException"
    assert _code(iot.delete_thing, thingName="t1", expectedVersion=9) == "VersionConflictException"


def test_things_when_paged_and_filtered_then_each_once(service: running_service.Service) -> None:
    iot = service.client("iot")
    for number in range(5):
        iot.create_thing(thingName=f"t{number}", attributePayload={"attributes": {"even": str(number % 2 == 0)}})

    pages = iot.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 2})
    even = iot.list_things(attributeName="even", attributeValue="True")["things"]

    assert [one["thingName"] for page in pages for one in page["things"]] == ["t0", "t1", "t2", "t3", "t4"]
    assert [one["thingName"] for one in even] == ["t0", "t2", "t4"]


def test_groups_when_nested_then_lineage_and_members(service: running_service.Service) -> None:
    iot = service.client("iot")
    iot.create_thing(thingName="t1")
    iot.create_thing_group(thingGroupName="farm", thingGroupProperties={"thingGroupDescription": "all"})
    iot.create_thing_group(thingGroupName="row", parentGroupName="farm", tags=[{"Key": "a", "Value": "b"}])
    iot.add_thing_to_thing_group(thingGroupName="row", thingArn=service.arn("iot", "thing/t1"))
    iot.add_thing_to_thing_group(thingGroupName="row", thingName="t1")

    found = iot.describe_thing_group(thingGroupName="row")

    metadata = found["thingGroupMetadata"]
    assert metadata["rootToParentThingGroups"] == [
        {"groupName": "farm", "groupArn": service.arn("iot", "thinggroup/farm")}
    ]
    assert iot.list_things_in_thing_group(thingGroupName="row")["things"] == ["t1"]
    assert iot.list_things_in_thing_group(thingGroupName="farm")["things"] == []
    assert iot.list_things_in_thing_group(thingGroupName="farm", recursive=True)["things"] == ["t1"]
    groups = iot.list_thing_groups_for_thing(thingName="t1")["thingGroups"]
    assert [one["groupName"] for one in groups] == ["row"]
    assert [one["groupName"] for one in iot.list_thing_groups()["thingGroups"]] == ["farm", "row"]
    assert [one["groupName"] for one in iot.list_thing_groups(parentGroup="farm")["thingGroups"]] == ["row"]


def test_group_when_it_has_children_then_not_deleted(service: running_service.Service) -> None:
    iot = service.client("iot")
    iot.create_thing_group(thingGroupName="farm")
    iot.create_thing_group(thingGroupName="row", parentGroupName="farm")

    code = _code(iot.delete_thing_group, thingGroupName="farm")
    iot.delete_thing_group(thingGroupName="row")
    iot.delete_thing_group(thingGroupName="farm")

    assert code == "InvalidRequestException"
    assert iot.list_thing_groups()["thingGroups"] == []


def test_membership_when_ended_then_the_thing_is_out(service: running_service.Service) -> None:
    iot = service.client("iot")
    iot.create_thing(thingName="t1")
    iot.create_thing_group(thingGroupName="g")
    iot.add_thing_to_thing_group(thingGroupName="g", thingName="t1")

    iot.remove_thing_from_thing_group(thingGroupName="g", thingName="t1")

    assert iot.list_things_in_thing_group(thingGroupName="g")["things"] == []
    missing = {"thingGroupName": "nobody", "thingName": "t1"}
    assert _code(iot.add_thing_to_thing_group, **missing) == "ResourceNotFoundException"


def test_group_when_name_has_a_colon_then_refused(service: running_service.Service) -> None:
    # A colon would break the configuration ARN of the group's deployments.
    assert _code(service.client("iot").create_thing_group, thingGroupName="a:b") == "InvalidRequestException"


def test_certificate_when_created_then_signed_by_our_authority(service: running_service.Service) -> None:
    iot = service.client("iot")

    made = iot.create_keys_and_certificate(setAsActive=True)
    found = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]

    assert found["status"] == "ACTIVE"
    assert found["certificateArn"] == made["certificateArn"] == service.arn("iot", f"cert/{made['certificateId']}")
    assert "PRIVATE KEY" in made["keyPair"]["PrivateKey"]
    assert len(ssl.PEM_cert_to_DER_cert(made["certificatePem"])) > 0
    assert found["validity"]["notAfter"].year - found["validity"]["notBefore"].year in (9, 10)


def test_certificate_when_active_or_attached_then_not_deleted(service: running_service.Service) -> None:
    iot = service.client("iot")
    made = iot.create_keys_and_certificate(setAsActive=True)
    identity, arn = made["certificateId"], made["certificateArn"]
    iot.create_policy(policyName="p", policyDocument=POLICY)
    iot.attach_policy(policyName="p", target=arn)

    active = _code(iot.delete_certificate, certificateId=identity)
    iot.update_certificate(certificateId=identity, newStatus="INACTIVE")
    attached = _code(iot.delete_certificate, certificateId=identity)
    iot.delete_certificate(certificateId=identity, forceDelete=True)

    assert (active, attached) == ("CertificateStateException", "DeleteConflictException")
    assert iot.list_certificates()["certificates"] == []
    assert iot.list_targets_for_policy(policyName="p")["targets"] == []


def test_certificates_when_paged_then_each_once(service: running_service.Service) -> None:
    iot = service.client("iot")
    made = {iot.create_keys_and_certificate()["certificateId"] for _ in range(3)}

    pages = list(iot.get_paginator("list_certificates").paginate(PaginationConfig={"PageSize": 2}))

    found = [one["certificateId"] for page in pages for one in page["certificates"]]
    assert len(pages) == 2
    assert (set(found), len(found)) == (made, 3)


def test_policy_when_created_then_attached_listed_and_detached(service: running_service.Service) -> None:
    iot = service.client("iot")
    arn = iot.create_keys_and_certificate(setAsActive=True)["certificateArn"]

    made = iot.create_policy(policyName="p", policyDocument=POLICY)
    iot.attach_policy(policyName="p", target=arn)
    attached = iot.list_attached_policies(target=arn)["policies"]
    busy = _code(iot.delete_policy, policyName="p")
    iot.detach_policy(policyName="p", target=arn)
    iot.delete_policy(policyName="p")

    assert made["policyArn"] == service.arn("iot", "policy/p")
    assert attached == [{"policyName": "p", "policyArn": made["policyArn"]}]
    assert busy == "DeleteConflictException"
    assert _code(iot.get_policy, policyName="p") == "ResourceNotFoundException"


@pytest.mark.parametrize(
    "document", ["{", "[]", '{"Statement":[{"Effect":"Maybe"}]}', '{"Statement":[{"Effect":"Allow"}]}']
)
def test_policy_when_document_is_malformed_then_refused(service: running_service.Service, document: str) -> None:
    code = _code(service.client("iot").create_policy, policyName="p", policyDocument=document)

    assert code == "MalformedPolicyException"


def test_policy_when_read_then_as_written(service: running_service.Service) -> None:
    iot = service.client("iot")
    iot.create_policy(policyName="p", policyDocument=POLICY)

    got = iot.get_policy(policyName="p")

    assert json.loads(got["policyDocument"]) == json.loads(POLICY)
    assert _code(iot.create_policy, policyName="p", policyDocument=POLICY) == "ResourceAlreadyExistsException"
    assert [one["policyName"] for one in iot.list_policies()["policies"]] == ["p"]


def test_principal_when_attached_then_both_ways_listed(service: running_service.Service) -> None:
    iot = service.client("iot")
    arn = iot.create_keys_and_certificate(setAsActive=True)["certificateArn"]
    iot.create_thing(thingName="t1")

    iot.attach_thing_principal(thingName="t1", principal=arn)
    things = iot.list_principal_things(principal=arn)["things"]
    principals_of = iot.list_thing_principals(thingName="t1")["principals"]
    busy = _code(iot.delete_thing, thingName="t1")
    iot.detach_thing_principal(thingName="t1", principal=arn)

    assert (things, principals_of) == (["t1"], [arn])
    assert busy == "InvalidRequestException"
    assert iot.list_thing_principals(thingName="t1")["principals"] == []


def test_snapshot_when_policies_come_by_group_then_included(service: running_service.Service) -> None:
    iot = service.client("iot")
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_thing(thingName="t1")
    iot.attach_thing_principal(thingName="t1", principal=made["certificateArn"])
    for name, parent in (("farm", None), ("row", "farm")):
        iot.create_thing_group(thingGroupName=name, **({"parentGroupName": parent} if parent else {}))
        iot.create_policy(policyName=f"of-{name}", policyDocument=POLICY)
        iot.attach_policy(policyName=f"of-{name}", target=service.arn("iot", f"thinggroup/{name}"))
    iot.add_thing_to_thing_group(thingGroupName="row", thingName="t1")

    with service.held.database.read() as tx:
        snapshot = principals.snapshot(tx)
        one = principals.principal(tx, made["certificateId"])

    assert sorted(snapshot["principals"][made["certificateId"]]["policies"]) == ["of-farm", "of-row"]
    assert one is not None
    assert (sorted(one.policies), one.things, one.active) == (["of-farm", "of-row"], ("t1",), True)


def test_endpoint_when_described_then_a_bare_host(service: running_service.Service) -> None:
    iot = service.client("iot")

    assert iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"] == "localhost"
    assert iot.describe_endpoint(endpointType="iot:CredentialProvider")["endpointAddress"] == "localhost"
    assert _code(iot.describe_endpoint, endpointType="iot:Else") == "InvalidRequestException"
