"""The data plane with real client certificates over real TLS."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib import parse

import pytest

from cloud.api import device_server
from cloud.store import pki
from tests.cloud.api import service as running_service

NAME = "com.example.Hello"
LINUX = {"os": "linux", "architecture": "amd64"}
RESOLVE = "/greengrass/v2/resolveComponentCandidates"


def _ask(requirements: dict[str, str], name: str = NAME, platform: dict[str, str] = LINUX) -> bytes:
    candidate = {"componentName": name, "versionRequirements": requirements}
    return json.dumps({"platform": {"attributes": platform}, "componentCandidates": [candidate]}).encode()


def _download(device: running_service.Device, url: str, headers: dict[str, str] | None = None) -> Any:
    parts = parse.urlsplit(url)
    return device.request("GET", f"{parts.path}?{parts.query}", headers=headers)


def _presigned(service: running_service.Service, device: running_service.Device, data: bytes) -> str:
    arn = service.publish(NAME, "1.0.0", data)["arn"]
    status, _, body = device.request("POST", RESOLVE, _ask({"thinggroup/g": "=1.0.0"}))
    assert status == 200
    recipe = json.loads(base64.b64decode(json.loads(body)["resolvedComponentVersions"][0]["recipe"]))
    artifact = recipe["Manifests"][0]["Artifacts"][0]["Uri"].removeprefix("greengrass:")
    path = f"/greengrass/v2/components/{parse.quote(arn, safe='')}/artifacts/{artifact}?s3EndpointType=GLOBAL"
    status, _, body = device.request("GET", path)
    assert status == 200
    return str(json.loads(body)["preSignedUrl"])


def test_resolve_when_versions_fit_then_the_highest(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")
    for version in ("1.0.0", "1.5.0", "2.0.0"):
        service.publish(NAME, version, b"x")

    status, headers, body = device.request("POST", RESOLVE, _ask({"a": "^1.0.0", "b": ">=1.0.0"}))

    assert (status, headers["content-type"]) == (200, "application/json")
    (found,) = json.loads(body)["resolvedComponentVersions"]
    assert (found["componentName"], found["componentVersion"]) == (NAME, "1.5.0")
    assert found["arn"] == service.arn("greengrass", f"components:{NAME}:versions:1.5.0")
    recipe = json.loads(base64.b64decode(found["recipe"]))
    artifact = recipe["Manifests"][0]["Artifacts"][0]
    assert artifact["Uri"].startswith("greengrass:")
    assert artifact["Algorithm"] == "SHA-256"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (_ask({"a": "=9.0.0", "b": "^1.0.0"}), "no usable version"),
        (_ask({}, name="com.example.Nobody"), "no usable version"),
        (_ask({"a": "=1.0.0"}, platform={"os": "windows"}), "claim platform"),
    ],
)
def test_resolve_when_nothing_fits_then_404_with_the_parsed_text(
    service: running_service.Service, body: bytes, text: str
) -> None:
    device = running_service.device(service, "core1")
    service.publish(NAME, "1.0.0")

    status, headers, answer = device.request("POST", RESOLVE, body)

    assert (status, headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")
    assert text in json.loads(answer)["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"componentCandidates":[{}]}', _ask({"a": "not a range"})])
def test_resolve_when_body_is_wrong_then_400(service: running_service.Service, body: bytes) -> None:
    device = running_service.device(service, "core1")
    service.publish(NAME, "1.0.0")

    assert device.request("POST", RESOLVE, body)[0] == 400


def test_resolve_when_body_is_too_large_then_413(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")

    status, headers, _ = device.request("POST", RESOLVE, b" " * (device_server.LIMIT_BODY_BYTES + 1))

    assert (status, headers["connection"]) == (413, "close")


def test_resolve_when_policy_does_not_allow_then_403(service: running_service.Service) -> None:
    statement = {"Effect": "Allow", "Action": ["iot:*"], "Resource": ["*"]}
    device = running_service.device(service, "core1", policy=statement)
    service.publish(NAME, "1.0.0")

    status, _, body = device.request("POST", RESOLVE, _ask({}))

    assert status == 403
    assert "greengrass:ResolveComponentCandidates" in json.loads(body)["message"]


def test_download_when_presigned_then_whole_without_a_certificate(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")
    data = os.urandom(700_000)
    url = _presigned(service, device, data)
    anyone = running_service.Device("", "", "", running_service.trusting(service), device.port)

    status, headers, body = _download(anyone, url)

    assert (status, headers["content-length"]) == (200, "700000")
    assert body == data
    assert len(url) < 300  # nucleus lite reads the answer into 2,000 bytes


def test_download_when_resumed_then_the_rest(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")
    url = _presigned(service, device, b"0123456789")

    status, headers, body = _download(device, url, {"range": "bytes=4-"})

    assert (status, headers["content-range"], body) == (206, "bytes 4-9/10", b"456789")
    assert _download(device, url, {"range": "bytes=10-"})[0] == 416


def test_download_when_url_is_changed_or_old_then_403(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")
    url = _presigned(service, device, b"0123456789")

    assert _download(device, url.replace("hello.py", "other.py"))[0] == 403
    assert _download(device, url.partition("?")[0])[0] == 403
    assert _download(device, url.replace("?e=1", "?e=2"))[0] == 403
    service.tick_ms = 3_700_000
    assert _download(device, url)[0] == 403


def test_artifact_when_arn_is_raw_then_the_same_as_encoded(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")
    url = _presigned(service, device, b"x")
    arn = service.arn("greengrass", f"components:{NAME}:versions:1.0.0")
    name = parse.urlsplit(url).path.removeprefix("/a/")

    status, _, body = device.request("GET", f"/greengrass/v2/components/{arn}/artifacts/{name}")

    assert status == 200
    assert json.loads(body)["preSignedUrl"].startswith(service.held.endpoints.device)
    assert device.request("GET", f"/greengrass/v2/components/{arn}/artifacts/{name}x")[0] == 404


def test_thing_groups_when_own_then_with_lineage_and_of_others_403(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")
    iot = service.client("iot")
    iot.create_thing_group(thingGroupName="farm")
    iot.create_thing_group(thingGroupName="row", parentGroupName="farm")
    iot.add_thing_to_thing_group(thingGroupName="row", thingName="core1")

    status, _, body = device.request("GET", "/greengrass/v2/coreDevices/core1/thingGroups")
    other = device.request("GET", "/greengrass/v2/coreDevices/core2/thingGroups")[0]

    assert (status, other) == (200, 403)
    (group,) = json.loads(body)["thingGroups"]
    assert group["thingGroupName"] == "row"
    assert [one["thingGroupName"] for one in group["rootToParentThingGroups"]] == ["farm"]
    assert b": " not in body  # compact: nucleus lite has 2,048 bytes for it


def test_call_when_no_certificate_then_403(service: running_service.Service) -> None:
    port = int(service.held.endpoints.device.rpartition(":")[2])
    anyone = running_service.Device("", "", "", running_service.trusting(service), port)

    status, _, body = anyone.request("POST", RESOLVE, _ask({}))

    assert status == 403
    assert "client certificate" in json.loads(body)["message"]


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_call_when_certificate_is_not_active_then_403(service: running_service.Service, status: str) -> None:
    device = running_service.device(service, "core1")
    service.client("iot").update_certificate(certificateId=device.certificate_id, newStatus=status)

    assert device.request("GET", "/greengrass/v2/coreDevices/core1/thingGroups")[0] == 403


def test_call_when_certificate_is_ours_but_unknown_then_403(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")
    iot = service.client("iot")
    iot.detach_policy(policyName="policy-core1", target=device.certificate_arn)
    iot.detach_thing_principal(thingName="core1", principal=device.certificate_arn)
    iot.update_certificate(certificateId=device.certificate_id, newStatus="INACTIVE")
    iot.delete_certificate(certificateId=device.certificate_id)

    status, _, body = device.request("POST", RESOLVE, _ask({}))

    assert status == 403
    assert "not registered" in json.loads(body)["message"]


def test_call_when_certificate_is_of_another_authority_then_no_tls(
    service: running_service.Service, tmp_path: Path
) -> None:
    (tmp_path / "foreign").mkdir()
    made = pki.Authority.create(tmp_path / "foreign").issue_device()
    (tmp_path / "f.pem").write_text(made.pem)
    (tmp_path / "f.key").write_text(made.private_key)
    context = running_service.trusting(service)
    context.load_cert_chain(tmp_path / "f.pem", tmp_path / "f.key")
    port = int(service.held.endpoints.device.rpartition(":")[2])

    with pytest.raises((ssl.SSLError, ConnectionError)):
        running_service.Device("", "", "", context, port).request("POST", RESOLVE, _ask({}))


def test_connection_when_kept_then_many_requests(service: running_service.Service) -> None:
    device = running_service.device(service, "core1")
    service.publish(NAME, "1.0.0")
    connection = http.client.HTTPSConnection("localhost", device.port, context=device.context, timeout=10)

    with contextlib.closing(connection):
        seen = []
        for _ in range(3):
            connection.request("POST", RESOLVE, _ask({}))
            answer = connection.getresponse()
            answer.read()
            seen.append(answer.status)

    assert seen == [200, 200, 200]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b""])
def test_connection_when_no_tls_then_closed(service: running_service.Service, data: bytes) -> None:
    port = int(service.held.endpoints.device.rpartition(":")[2])

    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        plain.sendall(data)
        plain.shutdown(socket.SHUT_WR)
        plain.settimeout(10)
        while plain.recv(1000):
            pass


@pytest.mark.parametrize(
    "data", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"]
)
def test_connection_when_no_http_then_refused_and_closed(service: running_service.Service, data: bytes) -> None:
    port = int(service.held.endpoints.device.rpartition(":")[2])
    context = running_service.trusting(service)

    plain = socket.create_connection(("127.0.0.1", port), 10)
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        secure.sendall(data)
        answer = secure.recv(1000)

    assert b" 400 " in answer or b" 431 " in answer


@pytest.mark.parametrize(
    "path", ["/", "/greengrass/v2/components", "/things", "/a/x/y/z", "/greengrass/v2/components/a"]
)
def test_call_when_route_is_not_for_devices_then_404(service: running_service.Service, path: str) -> None:
    device = running_service.device(service, "core1")

    assert device.request("GET", path)[0] == 404
