"""The environment variables that all components of a nucleus have in common (spec/nucleus.md 2.7)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucleus import settings
from nucleus.core import status
from nucleus.host import places

PATH_ALWAYS = ("/bin", "/usr/bin", "/sbin", "/usr/sbin")


def common(found: settings.Settings, nucleus: Mapping[str, Any], socket_path: Path) -> dict[str, str]:
    """`nucleus` is the nucleus's configuration, `socket_path` that of the IPC."""
    path = os.environ.get("PATH", "")
    missing = [one for one in PATH_ALWAYS if one not in path.split(":")]
    region = str(nucleus.get("awsRegion") or "us-east-1")
    socket = str(socket_path)
    short = len(socket.encode()) <= places.SOCKET_PATH_LIMIT
    made = {
        "PATH": ":".join(part for part in (path, *missing) if part),
        "HOME": os.environ.get("HOME", "/"),
        "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH": socket,
        "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": socket if short else "../../ipc.socket",
        "AWS_IOT_THING_NAME": found.thing,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "GGC_VERSION": status.VERSION,
    }
    if found.cloud is not None:
        made["GG_ROOT_CA_PATH"] = str(found.cloud.root_ca)
    return made
