"""Role aliases by boto3, credentials over mutual TLS, and what a device's temporary key may do."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore import exceptions

from tests.cloud.api import service as running_service

ALIAS = "CoreAlias"
PATH = f"/role-aliases/{ALIAS}/credentials"
ROLE = "arn:aws:iam::123456789012:role/CoreRole"


def _alias(service: running_service.Service, **more: Any) -> None:
    service.client("iot").create_role_alias(roleAlias=ALIAS, roleArn=ROLE, **more)


def _credentials(device: running_service.Device) -> dict[str, str]:
    status, _, body = device.request("GET", PATH, headers={"x-amzn-iot-thingname": device.thing})
    assert status == 200, body
    return dict(json.loads(body)["credentials"])


def _allowed(service: running_service.Service, thing: str) -> running_service.Device:
    device = running_service.device(service, thing)
    statement = {
        "Effect": "Allow",
        "Action": "iot:AssumeRoleWithCertificate",
        "Resource": service.arn("iot", f"rolealias/{ALIAS}"),
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    service.client("iot").create_policy(policyName="assume", policyDocument=document)
    service.client("iot").attach_policy(policyName="assume", target=device.certificate_arn)
    return device


def _as(service: running_service.Service, name: str, found: dict[str, str]) -> Any:
    return service.client(
        name,
        aws_access_key_id=found["accessKeyId"],
        aws_secret_access_key=found["secretAccessKey"],
        aws_session_token=found["sessionToken"],
    )


def test_role_alias_when_made_changed_and_deleted_then_boto3_sees_it(service: running_service.Service) -> None:
    iot = service.client("iot")
    _alias(service)

    iot.update_role_alias(roleAlias=ALIAS, credentialDurationSeconds=900)
    found = iot.describe_role_alias(roleAlias=ALIAS)["roleAliasDescription"]
    listed = iot.list_role_aliases()["roleAliases"]
    iot.delete_role_alias(roleAlias=ALIAS)

    assert (found["roleArn"], found["credentialDurationSeconds"], listed) == (ROLE, 900, [ALIAS])
    assert iot.list_role_aliases()["roleAliases"] == []


@pytest.mark.parametrize(("role", "seconds"), [("arn:aws:iam::123456789012:user/x", 3600), (ROLE, 43_201)])
def test_role_alias_when_not_valid_then_refused(service: running_service.Service, role: str, seconds: int) -> None:
    with pytest.raises(exceptions.ClientError, match="InvalidRequestException"):
        service.client("iot").create_role_alias(roleAlias=ALIAS, roleArn=role, credentialDurationSeconds=seconds)


def test_credentials_when_policy_allows_then_four_fields_that_read_objects(service: running_service.Service) -> None:
    _alias(service)
    device = _allowed(service, "core1")
    service.client("s3").create_bucket(Bucket="data")
    service.client("s3").put_object(Bucket="data", Key="a", Body=b"hello")

    found = _credentials(device)

    assert set(found) == {"accessKeyId", "secretAccessKey", "sessionToken", "expiration"}
    ends = datetime.datetime.fromisoformat(found["expiration"])
    left_s = (ends - datetime.datetime.now(datetime.UTC)).total_seconds()
    assert 3500 < left_s <= 3600
    assert _as(service, "s3", found).get_object(Bucket="data", Key="a")["Body"].read() == b"hello"
    assert _as(service, "sts", found).get_caller_identity()["Arn"].endswith("assumed-role/CoreRole/core1")


def test_credentials_when_used_to_write_or_administer_then_denied(service: running_service.Service) -> None:
    _alias(service)
    found = _credentials(_allowed(service, "core1"))
    service.client("s3").create_bucket(Bucket="data")
    s3, greengrass, iot = (_as(service, name, found) for name in ("s3", "greengrassv2", "iot"))

    refused: tuple[Callable[[], Any], ...] = (
        lambda: s3.put_object(Bucket="data", Key="b", Body=b"x"),
        lambda: s3.create_bucket(Bucket="mine"),
        lambda: greengrass.list_core_devices(),
        lambda: greengrass.create_deployment(targetArn=service.arn("iot", "thing/core1")),
        lambda: greengrass.get_core_device(coreDeviceThingName="core2"),
        lambda: iot.create_keys_and_certificate(setAsActive=True),
    )
    for call in refused:
        with pytest.raises(exceptions.ClientError, match="AccessDenied"):
            call()
    assert greengrass.list_components()["components"] == []


def test_credentials_when_objects_are_the_devices_own_then_put_and_nothing_else(
    service: running_service.Service,
) -> None:
    _alias(service)
    found = _credentials(_allowed(service, "core1"))
    s3 = service.client("s3")
    s3.create_bucket(Bucket="data")
    own = _as(service, "s3", found)

    own.put_object(Bucket="data", Key="things/core1/captures/a.jsonl", Body=b"{}")

    assert s3.get_object(Bucket="data", Key="things/core1/captures/a.jsonl")["Body"].read() == b"{}"
    refused: tuple[Callable[[], Any], ...] = (
        lambda: own.put_object(Bucket="data", Key="things/core2/a", Body=b"x"),
        lambda: own.put_object(Bucket="data", Key="things/core1", Body=b"x"),
        lambda: own.put_object(Bucket="data", Key="/things/core1/a", Body=b"x"),
        lambda: own.create_multipart_upload(Bucket="data", Key="things/core1/a"),
        lambda: own.delete_object(Bucket="data", Key="things/core1/captures/a.jsonl"),
    )
    for call in refused:
        with pytest.raises(exceptions.ClientError, match="AccessDenied"):
            call()


def test_credentials_when_objects_are_another_devices_then_not_read(service: running_service.Service) -> None:
    _alias(service)
    own = _as(service, "s3", _credentials(_allowed(service, "core1")))
    s3 = service.client("s3")
    s3.create_bucket(Bucket="data")
    for key in ("things/core1/a", "things/core10/a", "models/a"):
        s3.put_object(Bucket="data", Key=key, Body=b"{}")

    for key in ("things/core1/a", "models/a"):
        assert own.get_object(Bucket="data", Key=key)["Body"].read() == b"{}"
    with pytest.raises(exceptions.ClientError, match="AccessDenied"):
        own.get_object(Bucket="data", Key="things/core10/a")
    with pytest.raises(exceptions.ClientError, match="403"):
        own.head_object(Bucket="data", Key="things/core10/a")


def test_credentials_when_expired_or_token_is_wrong_then_refused(service: running_service.Service) -> None:
    _alias(service)
    found = _credentials(_allowed(service, "core1"))
    wrong = _as(service, "s3", found | {"sessionToken": "x"})

    with pytest.raises(exceptions.ClientError, match="ExpiredToken"):
        wrong.get_object(Bucket="data", Key="a")
    service.tick_ms = 3_601_000
    with pytest.raises(exceptions.ClientError, match="ExpiredToken"):
        _as(service, "s3", found).get_object(Bucket="data", Key="a")


def test_credentials_when_certificate_is_revoked_then_the_key_ends(service: running_service.Service) -> None:
    _alias(service)
    device = _allowed(service, "core1")
    found = _credentials(device)
    service.client("iot").update_certificate(certificateId=device.certificate_id, newStatus="REVOKED")

    with pytest.raises(exceptions.ClientError, match="ExpiredToken"):
        _as(service, "s3", found).get_object(Bucket="data", Key="a")


def test_credentials_when_not_allowed_then_403_and_404(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")  # its policy allows greengrass:* only

    assert device.request("GET", PATH, headers={"x-amzn-iot-thingname": "core1"})[0] == 404
    _alias(service)
    assert device.request("GET", PATH, headers={"x-amzn-iot-thingname": "core1"})[0] == 403
    assert device.request("GET", PATH, headers={"x-amzn-iot-thingname": "other"})[0] == 403
    assert device.request("GET", PATH)[0] == 403
