"""Where devices and listeners connect: hosts and ports from endpoints.json, or from DescribeEndpoint with AWS's ports."""

from __future__ import annotations

from pathlib import Path
from urllib import parse

from msgspec import Struct

from cloud.cli import session as sessions
from nucleus.cli import exits


class Endpoints(Struct, frozen=True):
    """`ca` is the certificate that devices trust, as PEM."""

    mqtt_host: str
    mqtt_port: int
    data_plane_host: str
    data_plane_port: int
    credentials_host: str
    ca: bytes


def find(session: sessions.Session, ca: Path | None) -> Endpoints:
    """Asks DescribeEndpoint for the hosts; ports are those of endpoints.json, otherwise AWS's 8883 and 8443."""
    iot = session.client("iot")
    data = iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    credentials = iot.describe_endpoint(endpointType="iot:CredentialProvider")["endpointAddress"]
    known = session.endpoints
    trusted = ca or (Path(known["ca"]) if "ca" in known else None)
    if trusted is None:
        raise exits.Failure("cannot tell what the device shall trust: give --ca FILE, the authority's certificate")
    device = parse.urlsplit(known.get("device", ""))
    return Endpoints(
        mqtt_host=data,
        mqtt_port=int(known.get("mqtt", {}).get("port", 8883)),
        data_plane_host=device.hostname or f"greengrass-ats.iot.{session.region}.amazonaws.com",
        data_plane_port=device.port or 8443,
        credentials_host=f"{credentials}:{device.port}" if device.port else credentials,
        ca=trusted.read_bytes(),
    )
