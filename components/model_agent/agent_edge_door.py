"""Opens Edge Manager's door when the agent's configuration asks for it: `edgeManager` of the recipe, as JSON.

    socketPath                "" keeps it shut        messageBytes, models, memoryBytes    agent_edge.Rules
    allowUnauthenticatedLoad  false                   captureDiskBytes                     what captures may take

and the flat keys of Edge Manager's own configuration file that mean something here, after `sagemaker_edge_core_`: device_name,
device_fleet_name, iot_thing_name, region, folder_prefix, and, after `sagemaker_edge_core_capture_data_`: destination (Disk,
Cloud), disk_path, buffer_size, batch_size, push_period_seconds, base64_embed_limit, periodic_upload,
periodic_upload_period_seconds; after `sagemaker_edge_provider_`: s3_bucket_name, aws_ca_cert_file, aws_cert_file,
aws_cert_pk_file, aws_iot_cred_endpoint (agent_edge_captures.py has what they do). Its other keys are ignored.
"""

from __future__ import annotations

import argparse
import importlib
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent_aliases
import agent_edge_settings
import agent_engine

VARIABLE = "MARRAM_EDGE_MANAGER"
_SOCKET_PATH_LIMIT_BYTES = 107
_MIB = 1024 * 1024


class Open:
    """The open door and its captures."""

    def __init__(self, door: Any, captures: Any, path: Path) -> None:
        self._door = door
        self.captures = captures
        self._path = path

    def close(self, grace_s: float) -> None:
        """Takes no more calls; what was captured is written."""
        self._door.close(grace_s)
        self.captures.close()
        self._path.unlink(missing_ok=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The agent's option for this door."""
    parser.add_argument(
        "--edge-manager", default=os.environ.get(VARIABLE, ""), metavar="JSON", help="Edge Manager's gRPC door"
    )


def open_door(
    given: str, aliases: agent_aliases.Aliases, engine: agent_engine.Engine, upload: Mapping[str, Any]
) -> Open | None:
    """The door that the JSON asks for, None for none or without its libraries. Raises OSError.

    `upload` is the agent's section `captureUpload`.
    """
    settings = agent_edge_settings.read(given)
    path = settings.text("socketPath", "")
    if not path:
        return None
    try:
        # Only here: an agent whose door stays closed does not carry its modules, and runs without its libraries.
        edge: Any = importlib.import_module("agent_edge")
    except ImportError as error:
        print(
            f"edge manager: no door, {error}; install grpcio and protobuf for the agent's Python",
            file=sys.stderr,
            flush=True,
        )
        return None
    token = importlib.import_module("agent_oip_repository").token(Path())
    rules = edge.Rules(
        token,
        settings.flag("allowUnauthenticatedLoad"),
        settings.number("messageBytes", 64 * _MIB),
        settings.number("models", 16),
        settings.number("memoryBytes", 512 * _MIB),
    )
    _make_way(path)
    captures: Any = importlib.import_module("agent_edge_captures").open_captures(settings, upload)
    aliases.gate.admission.captures.append(captures.root)
    door = edge.Door(path, edge.Service(aliases, engine, captures, rules), rules.message_bytes)
    print(f"edge manager: gRPC on {path}", flush=True)
    return Open(door, captures, Path(path))


def _make_way(path: str) -> None:
    """Removes the socket of a predecessor, and nothing else."""
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT_BYTES:
        raise agent_edge_settings.SettingsError(
            f"the socket path {path} is longer than {_SOCKET_PATH_LIMIT_BYTES} bytes"
        )
    place = Path(path)
    if place.exists() and not stat.S_ISSOCK(place.stat().st_mode):
        raise agent_edge_settings.SettingsError(f"{path} exists and is no socket")
    place.unlink(missing_ok=True)
