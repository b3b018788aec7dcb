"""What the nucleus was given by provisioning or renewal: `identity.json` below its root, laid over the configuration file.

Who writes a thing into config.yaml decides: then only a renewal of the very certificate named there counts (`replaces`).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from nucleus.core import errors
from nucleus.host import files

FILE = "identity.json"
CLAIM = "aws.greengrass.FleetProvisioningByClaim"
GROUP = "marram.provisioning"


def overlay(system: dict[str, Any], nucleus: dict[str, Any], root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`system` and the nucleus's configuration of the file, completed by what provisioning gave."""
    try:
        found = load(root)
        if not found or (system.get("thingName") and found.get("replaces") != _digest(root, system)):
            return system, nucleus
        given, values = dict(found["system"]), dict(found["nucleus"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"cannot read {root / FILE}: {error}; delete it to provision this device again"
        raise errors.NucleusError("IO_ERROR", why) from error
    if isinstance(values.get("mqtt"), dict) and isinstance(nucleus.get("mqtt"), dict):
        values["mqtt"] = nucleus["mqtt"] | values["mqtt"]
    return system | given, nucleus | values


def load(root: Path) -> dict[str, Any]:
    """The file's content, {} without one. Raises OSError and ValueError."""
    path = root / FILE
    found = json.loads(path.read_bytes()) if path.exists() else {}
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def renewed(root: Path, old: Path, certificate: Path, private_key: Path) -> None:
    """The pair that counts from the next start on; `old` is the certificate in use."""
    found = load(root)
    if not found or found["system"].get("certificateFilePath") != str(old):
        found = {"system": {}, "nucleus": {}, "replaces": hashlib.sha256(old.read_bytes()).hexdigest()}
    found["system"] |= {"certificateFilePath": str(certificate), "privateKeyPath": str(private_key)}
    save(root, found | {"unconfirmed": True})


def is_unconfirmed(root: Path, certificate: Path) -> bool:
    """Whether the certificate in use is a renewed one that the cloud has not heard of in use."""
    found = load(root)
    return bool(found.get("unconfirmed")) and found["system"].get("certificateFilePath") == str(certificate)


def confirm(root: Path) -> None:
    save(root, load(root) | {"unconfirmed": False})


def save(root: Path, found: dict[str, Any]) -> None:
    files.write_durably(root / FILE, json.dumps(found).encode(), 0o600)


def order(nucleus: dict[str, Any], services: dict[str, Any], root: Path) -> dict[str, Any] | None:
    """How a device without an identity gets one; None if nobody says so.

    Raises NucleusError when there are two ways: guessing could make two things of one device.
    """
    ways: list[dict[str, Any]] = []
    by_claim = services.get(CLAIM)
    if isinstance(by_claim, dict):
        ways.append({"root": str(root), "claim": by_claim.get("configuration") or {}})
    ours = nucleus.get("marram")
    settings = ours.get("provisioning") if isinstance(ours, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    named = [str(settings["plugin"])] if settings.get("plugin") else []
    plugins = [*named, *_entry_points()]
    ways += [{"root": str(root), "plugin": one, "parameters": settings.get("parameters") or {}} for one in plugins]
    if len(ways) > 1:
        names = ", ".join(["fleet provisioning by claim"] * ("claim" in ways[0]) + plugins)
        raise errors.NucleusError("BAD_REQUEST", f"cannot start: more than one way to provision ({names}); keep one")
    return ways[0] if ways else None


def _digest(root: Path, system: dict[str, Any]) -> str:
    """Of the certificate that the configuration file names, "" if it cannot be read."""
    try:
        return hashlib.sha256((root / str(system.get("certificateFilePath") or "")).read_bytes()).hexdigest()
    except OSError:
        return ""


def _entry_points() -> list[str]:
    """Plug-ins of installed packages; importlib.metadata would cost 45 ms."""
    found: set[str] = set()
    for folder in sys.path:
        for file in Path(folder).glob("*.*-info/entry_points.txt"):
            text = file.read_text(encoding="utf-8", errors="replace")  # a stranger's file must not end the launch
            section = text.partition(f"[{GROUP}]")[2].partition("[")[0]
            found |= {line.partition("=")[2].strip() for line in section.splitlines() if "=" in line}
    return sorted(found)
