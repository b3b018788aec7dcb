"""Deployments through unmodified boto3."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest

from cloud.store import deployments
from tests.cloud.api import service as running_service

NAME = "com.example.Hello"


@pytest.fixture
def group(service: running_service.Service) -> str:
    """A thing group with one thing, and one published component; its ARN."""
    iot = service.client("iot")
    service.publish(NAME, "1.0.0")
    iot.create_thing(thingName="t1")
    arn = str(iot.create_thing_group(thingGroupName="turbines")["thingGroupArn"])
    iot.add_thing_to_thing_group(thingGroupName="turbines", thingName="t1")
    return arn


def _refusal(call: Any, **arguments: Any) -> Any:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    return caught.value.response


def _document(service: running_service.Service, deployment_id: str) -> Any:
    with service.held.database.read() as tx:
        row = deployments.get(tx, deployment_id)
    assert row is not None
    return json.loads(row["document"])


def test_create_when_group_then_job_and_document(service: running_service.Service, group: str) -> None:
    client = service.client("greengrassv2")
    update = {"merge": '{"interval": 5}', "reset": ["/old"]}
    wish = {"componentVersion": "1.0.0", "configurationUpdate": update, "runWith": {"posixUser": "nobody"}}

    made = client.create_deployment(targetArn=group, deploymentName="first", components={NAME: wish})

    assert made["iotJobArn"] == service.arn("iot", f"job/{made['iotJobId']}")
    assert made["iotJobId"] != made["deploymentId"]
    document = _document(service, made["deploymentId"])
    configuration = service.arn("greengrass", "configuration:thinggroup/turbines:1")
    assert document["configurationArn"] == configuration
    assert document["components"][NAME] == {
        "version": "1.0.0",
        "configurationUpdate": {"merge": {"interval": 5}, "reset": ["/old"]},
        "runWith": {"posixUser": "nobody"},
    }
    assert document["failureHandlingPolicy"] == "ROLLBACK"
    assert service.notified > 0


def test_get_when_created_then_what_was_asked_for(service: running_service.Service, group: str) -> None:
    client = service.client("greengrassv2")
    policies = {
        "failureHandlingPolicy": "DO_NOTHING",
        "componentUpdatePolicy": {"timeoutInSeconds": 30, "action": "SKIP_NOTIFY_COMPONENTS"},
        "configurationValidationPolicy": {"timeoutInSeconds": 20},
    }
    made = client.create_deployment(
        targetArn=group,
        components={NAME: {"componentVersion": "1.0.0"}},
        deploymentPolicies=policies,
        iotJobConfiguration={"timeoutConfig": {"inProgressTimeoutInMinutes": 5}},
        tags={"team": "wind"},
    )

    got = client.get_deployment(deploymentId=made["deploymentId"])

    assert got["deploymentPolicies"] == policies
    assert got["components"] == {NAME: {"componentVersion": "1.0.0"}}
    assert got["iotJobConfiguration"] == {"timeoutConfig": {"inProgressTimeoutInMinutes": 5}}
    assert (got["deploymentStatus"], got["revisionId"], got["isLatestForTarget"]) == ("ACTIVE", "1", True)
    assert got["tags"] == {"team": "wind"}


def test_create_when_revised_then_number_and_time_grow_and_the_old_is_inactive(
    service: running_service.Service, group: str
) -> None:
    client = service.client("greengrassv2")
    first = client.create_deployment(targetArn=group, components={})["deploymentId"]
    service.tick_ms = -60_000  # a clock that was set back

    second = client.create_deployment(targetArn=group, components={})["deploymentId"]

    old, new = client.get_deployment(deploymentId=first), client.get_deployment(deploymentId=second)
    assert (old["deploymentStatus"], old["isLatestForTarget"]) == ("INACTIVE", False)
    assert (new["revisionId"], new["isLatestForTarget"]) == ("2", True)
    assert _document(service, second)["creationTimestamp"] > _document(service, first)["creationTimestamp"]


def test_create_when_thing_then_no_job(service: running_service.Service, group: str) -> None:
    client = service.client("greengrassv2")

    made = client.create_deployment(targetArn=service.arn("iot", "thing/t1"), components={})

    assert set(made) == {"deploymentId", "ResponseMetadata"}
    arn = service.arn("greengrass", "configuration:thing/t1:1")
    assert _document(service, made["deploymentId"])["configurationArn"] == arn


def test_create_when_version_is_unknown_then_component_and_version_are_named(
    service: running_service.Service, group: str
) -> None:
    wish = {NAME: {"componentVersion": "9.0.0"}}

    refused = _refusal(service.client("greengrassv2").create_deployment, targetArn=group, components=wish)

    assert refused["Error"]["Code"] == "ResourceNotFoundException"
    assert all(part in refused["Error"]["Message"] for part in (NAME, "9.0.0", "1.0.0"))


def test_create_when_component_is_built_in_then_taken(service: running_service.Service, group: str) -> None:
    wish = {"aws.greengrass.Nucleus": {"componentVersion": "2.15.0"}}

    made = service.client("greengrassv2").create_deployment(targetArn=group, components=wish)

    assert made["deploymentId"]


@pytest.mark.parametrize("merge", ["{", "[1]", '{"a": NaN}'])
def test_create_when_merge_is_no_json_object_then_validation_exception(
    service: running_service.Service, group: str, merge: str
) -> None:
    wish = {NAME: {"componentVersion": "1.0.0", "configurationUpdate": {"merge": merge}}}

    refused = _refusal(service.client("greengrassv2").create_deployment, targetArn=group, components=wish)

    assert refused["Error"]["Code"] == "ValidationException"
    assert refused["fields"][0]["name"] == f"components.{NAME}.configurationUpdate.merge"


@pytest.mark.parametrize("tail", ["thinggroup/nobody", "thing/nobody"])
def test_create_when_target_is_unknown_then_not_found(service: running_service.Service, tail: str) -> None:
    refused = _refusal(service.client("greengrassv2").create_deployment, targetArn=service.arn("iot", tail))

    assert refused["Error"]["Code"] == "ResourceNotFoundException"


def test_create_when_target_is_of_another_account_then_validation_exception(service: running_service.Service) -> None:
    arn = "arn:aws:iot:us-east-1:999999999999:thinggroup/turbines"

    refused = _refusal(service.client("greengrassv2").create_deployment, targetArn=arn)

    assert refused["Error"]["Code"] == "ValidationException"


def test_create_when_body_has_wrong_types_then_the_member_is_named(
    service: running_service.Service, group: str
) -> None:
    client = service.client("greengrassv2", config={"parameter_validation": False})

    refused = _refusal(client.create_deployment, targetArn=group, components={NAME: {"componentVersion": 5}})

    assert refused["Error"]["Code"] == "ValidationException"
    assert "componentVersion" in refused["fields"][0]["name"]


def test_create_when_token_is_repeated_then_one_revision(service: running_service.Service, group: str) -> None:
    client = service.client("greengrassv2")

    first = client.create_deployment(targetArn=group, clientToken="same")
    again = client.create_deployment(targetArn=group, clientToken="same")

    assert first["deploymentId"] == again["deploymentId"]


def test_list_when_history_is_wanted_then_all_newest_first(service: running_service.Service, group: str) -> None:
    client = service.client("greengrassv2")
    ids = [client.create_deployment(targetArn=group)["deploymentId"] for _ in range(3)]

    pages = client.get_paginator("list_deployments")
    found = pages.paginate(targetArn=group, historyFilter="ALL", PaginationConfig={"PageSize": 2})
    latest = client.list_deployments()["deployments"]

    assert [one["deploymentId"] for page in found for one in page["deployments"]] == ids[::-1]
    assert [one["deploymentId"] for one in latest] == [ids[-1]]


def test_cancel_when_active_then_canceled_and_may_be_deleted(service: running_service.Service, group: str) -> None:
    client = service.client("greengrassv2")
    deployment_id = client.create_deployment(targetArn=group)["deploymentId"]
    early = _refusal(client.delete_deployment, deploymentId=deployment_id)

    answer = client.cancel_deployment(deploymentId=deployment_id)
    again = client.cancel_deployment(deploymentId=deployment_id)
    status = client.get_deployment(deploymentId=deployment_id)["deploymentStatus"]
    client.delete_deployment(deploymentId=deployment_id)

    assert early["Error"]["Code"] == "ConflictException"
    assert answer["message"] == again["message"] == "SUCCESS"
    assert status == "CANCELED"
    gone = _refusal(client.get_deployment, deploymentId=deployment_id)
    assert gone["Error"]["Code"] == "ResourceNotFoundException"


def test_create_when_the_newest_was_deleted_then_its_number_is_not_used_again(
    service: running_service.Service, group: str
) -> None:
    client = service.client("greengrassv2")
    deployment_id = client.create_deployment(targetArn=group)["deploymentId"]
    client.cancel_deployment(deploymentId=deployment_id)
    client.delete_deployment(deploymentId=deployment_id)

    made = client.create_deployment(targetArn=group)["deploymentId"]

    assert client.get_deployment(deploymentId=made)["revisionId"] == "2"


def test_effective_deployments_when_queued_then_listed(service: running_service.Service, group: str) -> None:
    client = service.client("greengrassv2")
    made = client.create_deployment(targetArn=group)

    found = client.list_effective_deployments(coreDeviceThingName="t1")["effectiveDeployments"]

    assert [(one["deploymentId"], one["coreDeviceExecutionStatus"]) for one in found] == [
        (made["deploymentId"], "QUEUED")
    ]


def test_list_when_token_is_of_another_list_then_validation_exception(service: running_service.Service) -> None:
    refused = _refusal(service.client("greengrassv2").list_deployments, nextToken="YWJj")

    assert refused["Error"]["Code"] == "ValidationException"


# ---- sub-deployments ---------------------------------------------------------------------------------------------------


@pytest.fixture
def family(service: running_service.Service, group: str) -> dict[str, str]:
    """ARNs of the group `turbines` and of two more groups."""
    iot = service.client("iot")
    made = {name: str(iot.create_thing_group(thingGroupName=name)["thingGroupArn"]) for name in ("retry", "again")}
    return {"turbines": group, **made}


def test_create_when_on_behalf_of_a_parent_then_the_document_acts_for_it(
    service: running_service.Service, family: dict[str, str]
) -> None:
    client = service.client("greengrassv2")
    components = {NAME: {"componentVersion": "1.0.0"}}
    root = client.create_deployment(targetArn=family["turbines"], components=components)

    made = client.create_deployment(
        targetArn=family["retry"], parentTargetArn=family["turbines"], components=components
    )

    document = _document(service, made["deploymentId"])
    assert document["parentTargetArn"] == document["onBehalfOf"] == family["turbines"]
    assert document["requiredCapabilities"] == ["SUB_DEPLOYMENTS"]
    assert document["configurationArn"] == service.arn("greengrass", "configuration:thinggroup/retry:1")
    assert document["creationTimestamp"] > _document(service, root["deploymentId"])["creationTimestamp"]
    assert client.get_deployment(deploymentId=made["deploymentId"])["parentTargetArn"] == family["turbines"]
    listed = client.list_deployments(parentTargetArn=family["turbines"])["deployments"]
    assert [one["deploymentId"] for one in listed] == [made["deploymentId"]]


def test_create_when_sub_deployments_are_nested_then_they_act_for_the_topmost_parent(
    service: running_service.Service, family: dict[str, str]
) -> None:
    client = service.client("greengrassv2")
    client.create_deployment(targetArn=family["retry"], parentTargetArn=family["turbines"], components={})

    made = client.create_deployment(targetArn=family["again"], parentTargetArn=family["retry"], components={})

    document = _document(service, made["deploymentId"])
    assert (document["parentTargetArn"], document["onBehalfOf"]) == (family["retry"], family["turbines"])


def test_create_when_parent_or_target_does_not_fit_then_refused_with_the_member(
    service: running_service.Service, family: dict[str, str]
) -> None:
    client = service.client("greengrassv2")
    thing = service.arn("iot", "thing/t1")
    client.create_deployment(targetArn=family["retry"], parentTargetArn=family["turbines"], components={})

    def refused(target: str, parent: str) -> Any:
        return _refusal(client.create_deployment, targetArn=target, parentTargetArn=parent, components={})

    assert refused(thing, family["turbines"])["fields"][0]["name"] == "targetArn"
    assert refused(family["again"], thing)["fields"][0]["name"] == "parentTargetArn"
    other = refused(family["retry"], family["again"])
    assert other["Error"]["Code"] == "ValidationException"
    assert f"the parent of retry is {family['turbines']}, and a group has one only" in other["Error"]["Message"]
    assert "its own parent" in refused(family["turbines"], family["retry"])["Error"]["Message"]
    unknown = refused(family["again"], service.arn("iot", "thinggroup/nobody"))
    assert unknown["Error"]["Code"] == "ResourceNotFoundException"
