"""The daemon's start options, read from the field's own configuration file (spec/cloud.md 4.3, spec/nucleus.md 4.6)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from nucleus import identity
from nucleus.core import errors

FILE = "config.yaml"
MAX_BYTES = 1024 * 1024
NUCLEUS_NAMES = ("aws.greengrass.Nucleus", "aws.greengrass.NucleusLite")


class Cloud(Struct, frozen=True, kw_only=True):
    """How to reach the cloud; paths are PEM files."""

    thing: str
    certificate: Path
    private_key: Path
    root_ca: Path
    mqtt_host: str
    mqtt_port: int
    data_plane_url: str
    credentials_url: str  # of the role alias, "" if the file names none


class Settings(Struct, frozen=True, kw_only=True):
    """`cloud` is None on a device without cloud settings. `nucleus` is the nucleus's configuration of the file."""

    cloud: Cloud | None
    thing: str
    socket: str
    nucleus: dict[str, Any]
    services: dict[str, Any]
    provisioning: dict[str, Any] | None = None  # how to get an identity (identity.order)
    fallback_user: str = ""  # of components for which nobody names a user
    given: str = ""  # digest of what a file says that is not the root folder's own: it replaces the whole configuration


def read(path: Path, root: Path) -> Settings:
    """Raises NucleusError DEVICE_CONFIG_NOT_VALID_FOR_ARTIFACT_DOWNLOAD naming file, key and what to do.

    Without its own file in the root folder the nucleus runs without a cloud, and components run as whoever started it.
    """
    if path == root / FILE and not path.exists():
        return Settings(cloud=None, thing="", socket="", nucleus={}, services={}, fallback_user=str(os.getuid()))
    data = _load(path)
    system = _mapping(path, data, "system")
    services = _mapping(path, data, "services")
    name = next((one for one in NUCLEUS_NAMES if one in services), NUCLEUS_NAMES[0])
    nucleus = _mapping(path, _mapping(path, services, name), "configuration")
    system, nucleus = identity.overlay(system, nucleus, root)
    thing = str(system.get("thingName") or "")
    return Settings(
        provisioning=None if thing else identity.order(nucleus, services, root),
        cloud=_cloud(path, root, system, nucleus) if thing and nucleus.get("iotDataEndpoint") else None,
        thing=thing,
        socket=str(system.get("ipcSocketPath") or ""),
        nucleus=nucleus,
        given="" if path == root / FILE else _digest(data),
        services={other: one for other, one in services.items() if other not in NUCLEUS_NAMES},
    )


def detect_platform(override: Any) -> dict[str, str]:
    """The device's attributes for manifests (spec/nucleus.md 1.4); `platformOverride` wins or adds.

    A deployment may have written anything there: what is no mapping is left out, so that the nucleus starts anyway.
    """
    machine = platform.machine().lower()
    architecture = {"x86_64": "amd64", "amd64": "amd64", "i386": "x86", "i686": "x86", "x86": "x86"}.get(machine)
    if architecture is None:
        architecture = "aarch64" if machine == "aarch64" else "arm" if "arm" in machine else "unknown"
    found = {"os": "linux" if Path("/proc").exists() else platform.system().lower(), "architecture": architecture}
    if machine in {"armv6l", "armv7l", "armv8l", "armv6b", "armv7b", "armv8b"}:
        found["architecture.detail"] = machine
    return found | ({key: str(value) for key, value in override.items()} if isinstance(override, dict) else {})


def _cloud(path: Path, root: Path, system: dict[str, Any], nucleus: dict[str, Any]) -> Cloud:
    def file(key: str) -> Path:
        found = root / str(system.get(key) or "")
        if not system.get(key) or not os.access(found, os.R_OK):
            raise _invalid(path, f"system.{key}", f"must name a readable PEM file (found {str(found)!r})")
        return found

    host = str(nucleus["iotDataEndpoint"])
    port = _port(path, "greengrassDataPlanePort", nucleus.get("greengrassDataPlanePort") or 8443)
    return Cloud(
        thing=str(system["thingName"]),
        certificate=file("certificateFilePath"),
        private_key=file("privateKeyPath"),
        root_ca=file("rootCaPath"),
        mqtt_host=host,
        mqtt_port=_port(path, "mqtt.port", _mapping(path, nucleus, "mqtt").get("port") or 8883),
        data_plane_url=_data_plane(str(nucleus.get("greengrassDataPlaneEndpoint") or ""), host, port, nucleus),
        credentials_url=_credentials(nucleus),
    )


def _credentials(nucleus: dict[str, Any]) -> str:
    """Where the role alias gives credentials (spec/cloud.md 5)."""
    host, alias = str(nucleus.get("iotCredEndpoint") or ""), str(nucleus.get("iotRoleAlias") or "")
    return f"https://{host.removeprefix('https://')}/role-aliases/{alias}/credentials" if host and alias else ""


def _data_plane(endpoint: str, host: str, port: int, nucleus: dict[str, Any]) -> str:
    """Rules of spec/cloud.md 2.1: empty is AWS's regional host, `iotdata` the IoT host; a port in the value wins."""
    if not endpoint:
        endpoint = f"greengrass-ats.iot.{nucleus.get('awsRegion') or 'us-east-1'}.amazonaws.com"
    if endpoint == "iotdata":
        endpoint = host
    bare = endpoint.removeprefix("https://")
    return f"https://{bare}" if ":" in bare else f"https://{bare}:{port}"


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _invalid(path, "the file", f"is larger than {MAX_BYTES} bytes")
        data = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  safe
    except OSError as error:
        raise _invalid(
            path, "the file", f"cannot be read ({error.strerror}); `marram device create` writes one"
        ) from error
    except yaml.YAMLError as error:
        raise _invalid(path, "the file", f"is no YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise _invalid(path, "the file", "must be a mapping with `system` and `services`")
    return data


def _digest(data: dict[str, Any]) -> str:
    """Of what a file says: comments and order do not count."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def _mapping(path: Path, data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise _invalid(path, key, "must be a mapping")
    return value


def _port(path: Path, key: str, value: Any) -> int:
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):
        found = 0
    if not 0 < found < 65_536:
        raise _invalid(path, key, f"must be a port (found {value!r})")
    return found


def _invalid(path: Path, key: str, why: str) -> errors.NucleusError:
    return errors.NucleusError(
        "DEVICE_CONFIG_NOT_VALID_FOR_ARTIFACT_DOWNLOAD", f"cannot start with {path}: {key} {why}"
    )
