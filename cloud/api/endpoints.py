"""Where devices find the service, and the certificate of its authority."""

from __future__ import annotations

from typing import Any
from urllib import parse

from cloud.api import calls, errors

_MQTT = ("iot:Data-ATS", "iot:Data", "iot:Jobs")


def describe(call: calls.Call) -> dict[str, Any]:
    """DescribeEndpoint: a bare host, as the clients expect; ports are in `all_of_them`."""
    kind, found = call.first("endpointType", "iot:Data"), call.services.endpoints
    if kind in _MQTT:
        return {"endpointAddress": found.mqtt_host}
    if kind == "iot:CredentialProvider":
        return {"endpointAddress": parse.urlsplit(found.device).hostname or found.mqtt_host}
    raise errors.invalid_request(
        f"cannot give endpoint {kind!r}: not one of {', '.join(_MQTT)}, iot:CredentialProvider"
    )


def all_of_them(call: calls.Call) -> dict[str, Any]:
    """GET /marram/v1/endpoints: with ports; open to all, like the certificate: who asks has nothing yet."""
    found = call.services.endpoints
    return {
        "api": found.api,
        "device": found.device,
        "mqtt": {"host": found.mqtt_host, "port": found.mqtt_port},
        "account": call.services.account,
        "region": call.services.region,
    }


def ca(call: calls.Call) -> calls.Answer:
    """GET /marram/v1/ca: the authority's certificate, the root that devices trust."""
    return calls.Answer(200, {"content-type": "application/x-pem-file"}, call.services.pki.pem.encode())
