"""Component versions through unmodified boto3."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import botocore.exceptions
import pytest
import yaml

from cloud.store import components
from tests.cloud.api import service as running_service

NAME = "com.example.Hello"


def _refusal(call: Any, **arguments: Any) -> Any:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    return caught.value.response


def test_create_when_artifact_is_uploaded_then_digest_is_added_and_uri_kept(service: running_service.Service) -> None:
    data = b"print('hello')\n"

    made = service.publish(NAME, "1.0.0", data)
    got = service.client("greengrassv2").get_component(arn=made["arn"])

    assert made["arn"] == service.arn("greengrass", f"components:{NAME}:versions:1.0.0")
    assert made["status"]["componentState"] == "DEPLOYABLE"
    artifact = json.loads(got["recipe"])["Manifests"][0]["Artifacts"][0]
    assert artifact["Uri"] == f"s3://artifacts/{NAME}/1.0.0/hello.py"
    assert artifact["Digest"] == base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert artifact["Algorithm"] == "SHA-256"


def test_create_when_artifact_is_uploaded_then_devices_get_a_greengrass_uri(service: running_service.Service) -> None:
    data = b"print('hello')\n"

    service.publish(NAME, "1.0.0", data)

    with service.held.database.read() as tx:
        row = components.get(tx, NAME, "1.0.0")
    assert row is not None
    given = json.loads(row["device_recipe"])["Manifests"][0]["Artifacts"][0]
    identity = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    assert given["Uri"] == f"greengrass:{identity}/hello.py"


def test_create_when_artifact_is_replaced_later_then_the_version_keeps_its_bytes(
    service: running_service.Service,
) -> None:
    made = service.publish(NAME, "1.0.0", b"first")

    service.client("s3").put_object(Bucket="artifacts", Key=f"{NAME}/1.0.0/hello.py", Body=b"second")

    got = service.client("greengrassv2").get_component(arn=made["arn"])
    digest = json.loads(got["recipe"])["Manifests"][0]["Artifacts"][0]["Digest"]
    assert digest == base64.b64encode(hashlib.sha256(b"first").digest()).decode()


def test_create_when_artifact_is_missing_then_the_uri_is_named(service: running_service.Service) -> None:
    uri = f"s3://artifacts/{NAME}/1.0.0/hello.py"
    text = running_service.RECIPE.format(name=NAME, version="1.0.0", artifacts=f'[{{Uri: "{uri}"}}]')

    refused = _refusal(service.client("greengrassv2").create_component_version, inlineRecipe=text.encode())

    assert refused["Error"]["Code"] == "ValidationException"
    assert all(part in refused["Error"]["Message"] for part in (NAME, "1.0.0", uri, "upload it first"))
    assert refused["reason"] == "FIELD_VALIDATION_FAILED"
    assert refused["fields"][0]["name"] == "inlineRecipe"


def test_create_when_artifact_is_an_image_then_validation_exception(service: running_service.Service) -> None:
    text = running_service.RECIPE.format(name=NAME, version="1.0.0", artifacts='[{Uri: "docker:nginx:1"}]')

    refused = _refusal(service.client("greengrassv2").create_component_version, inlineRecipe=text.encode())

    assert refused["Error"]["Code"] == "ValidationException"
    assert "docker:nginx:1" in refused["Error"]["Message"]


def test_create_when_version_exists_then_conflict(service: running_service.Service) -> None:
    service.publish(NAME, "1.0.0")

    refused = _refusal(service.publish, name=NAME, version="1.0.0")

    assert refused["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert refused["Error"]["Code"] == "ConflictException"
    assert "already exists with state: [DEPLOYABLE]" in refused["Error"]["Message"]
    assert refused["resourceType"] == "component"


def test_create_when_token_is_repeated_then_the_answer_is_replayed(service: running_service.Service) -> None:
    client = service.client("greengrassv2")
    text = running_service.RECIPE.format(name=NAME, version="1.0.0", artifacts="[]").encode()
    first = client.create_component_version(inlineRecipe=text, clientToken="abc")

    again = client.create_component_version(inlineRecipe=text, clientToken="abc")

    assert (again["arn"], again["creationTimestamp"]) == (first["arn"], first["creationTimestamp"])


def test_create_when_recipe_is_too_long_then_refused(service: running_service.Service) -> None:
    text = running_service.RECIPE.format(name=NAME, version="1.0.0", artifacts="[]") + "#" * 16_000

    refused = _refusal(service.client("greengrassv2").create_component_version, inlineRecipe=text.encode())

    assert refused["Error"]["Code"] == "ValidationException"
    assert "16000" in refused["Error"]["Message"]


@pytest.mark.parametrize(
    "text", ["{", "[]", "RecipeFormatVersion: '2020-01-25'", "a: b: c", "\x00", "ComponentName: [x]"]
)
def test_create_when_recipe_is_unreadable_then_validation_exception(
    service: running_service.Service, text: str
) -> None:
    refused = _refusal(service.client("greengrassv2").create_component_version, inlineRecipe=text.encode())

    assert refused["Error"]["Code"] == "ValidationException"


def test_create_when_lambda_is_given_then_a_next_step_is_named(service: running_service.Service) -> None:
    function = {"lambdaArn": "arn:aws:lambda:us-east-1:123456789012:function:f:1"}

    refused = _refusal(service.client("greengrassv2").create_component_version, lambdaFunction=function)

    assert refused["Error"]["Code"] == "ValidationException"
    assert "write a recipe" in refused["Error"]["Message"]


def test_describe_when_created_then_metadata_and_tags(service: running_service.Service) -> None:
    client = service.client("greengrassv2")
    text = running_service.RECIPE.format(name=NAME, version="1.0.0", artifacts="[]").encode()
    arn = client.create_component_version(inlineRecipe=text, tags={"team": "wind"})["arn"]

    found = client.describe_component(arn=arn)

    assert (found["componentName"], found["componentVersion"]) == (NAME, "1.0.0")
    assert (found["publisher"], found["description"]) == ("Example", "says hello")
    assert found["platforms"] == [{"name": "Linux", "attributes": {"os": "linux"}}]
    assert found["tags"] == {"team": "wind"}


def test_get_when_yaml_is_wanted_then_yaml(service: running_service.Service) -> None:
    arn = service.publish(NAME, "1.0.0")["arn"]

    got = service.client("greengrassv2").get_component(arn=arn, recipeOutputFormat="YAML")

    assert got["recipeOutputFormat"] == "YAML"
    assert yaml.safe_load(got["recipe"])["ComponentName"] == NAME


def test_versions_when_component_is_unknown_then_empty(service: running_service.Service) -> None:
    found = service.client("greengrassv2").list_component_versions(arn=service.arn("greengrass", "components:nobody"))

    assert found["componentVersions"] == []


def test_versions_when_many_then_greatest_first_over_pages(service: running_service.Service) -> None:
    for version in ("1.0.0", "1.10.0", "1.2.0", "1.10.0-rc.1"):
        service.publish(NAME, version)

    pages = service.client("greengrassv2").get_paginator("list_component_versions")
    found = pages.paginate(arn=service.arn("greengrass", f"components:{NAME}"), PaginationConfig={"PageSize": 3})

    listed = [one["componentVersion"] for page in found for one in page["componentVersions"]]
    assert listed == ["1.10.0", "1.10.0-rc.1", "1.2.0", "1.0.0"]


def test_list_when_paged_then_each_once_with_latest(service: running_service.Service) -> None:
    for name in ("c.a", "c.b", "c.c"):
        service.publish(name, "1.0.0")
    service.publish("c.b", "2.0.0")

    pages = service.client("greengrassv2").get_paginator("list_components").paginate(PaginationConfig={"PageSize": 2})
    found = [one for page in pages for one in page["components"]]

    latest = [(one["componentName"], one["latestVersion"]["componentVersion"]) for one in found]
    assert latest == [("c.a", "1.0.0"), ("c.b", "2.0.0"), ("c.c", "1.0.0")]
    assert found[0]["arn"] == service.arn("greengrass", "components:c.a")


def test_delete_when_done_then_gone_and_name_is_free(service: running_service.Service) -> None:
    client = service.client("greengrassv2")
    arn = service.publish(NAME, "1.0.0", b"x")["arn"]

    client.delete_component(arn=arn)

    assert _refusal(client.describe_component, arn=arn)["Error"]["Code"] == "ResourceNotFoundException"
    assert service.publish(NAME, "1.0.0", b"x")["arn"] == arn


def test_tags_when_changed_then_listed(service: running_service.Service) -> None:
    client = service.client("greengrassv2")
    arn = service.publish(NAME, "1.0.0")["arn"]

    client.tag_resource(resourceArn=arn, tags={"a": "1", "b": "2"})
    client.tag_resource(resourceArn=arn, tags={"b": "3"})
    client.untag_resource(resourceArn=arn, tagKeys=["a", "zz"])

    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "3"}
    missing = service.arn("greengrass", "components:nobody:versions:1.0.0")
    assert _refusal(client.list_tags_for_resource, resourceArn=missing)["Error"]["Code"] == "ResourceNotFoundException"


def test_next_token_when_invented_then_validation_exception(service: running_service.Service) -> None:
    refused = _refusal(service.client("greengrassv2").list_components, nextToken="\u00e9!")

    assert refused["Error"]["Code"] == "ValidationException"
