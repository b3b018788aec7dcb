"""Opens Edge Manager's door when the agent's configuration asks for it: `edgeManager` of the recipe, as JSON.

    socketPath                "" keeps it shut        messageBytes, models, memoryBytes    agent_edge.Rules
    allowUnauthenticatedLoad  false                   captureDiskBytes                     what captures may take

and the flat keys of Edge Manager's own configuration file that mean something here (each after `sagemaker_edge_core_`):
device_name, device_fleet_name, folder_prefix, capture_data_destination (Disk, Cloud), capture_data_disk_path,
capture_data_buffer_size, capture_data_batch_size, capture_data_base64_embed_limit. Its other keys are ignored.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent_aliases
import agent_engine

VARIABLE = "MARRAM_EDGE_MANAGER"
_CORE = "sagemaker_edge_core_"
_SOCKET_PATH_LIMIT_BYTES = 107
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")  # of a path
_EMBED_LIMIT_BYTES = 3072
_MIB = 1024 * 1024


class SettingsError(OSError):
    """The configuration of the door cannot be used; the message names the key."""


class Open:
    """The open door and its captures."""

    def __init__(self, door: Any, capture: Any, path: Path) -> None:
        self._door = door
        self._capture = capture
        self._path = path

    def close(self, grace_s: float) -> None:
        """Takes no more calls; what was captured is written."""
        self._door.close(grace_s)
        if self._capture is not None:
            self._capture.close()
        self._path.unlink(missing_ok=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The agent's option for this door."""
    parser.add_argument(
        "--edge-manager", default=os.environ.get(VARIABLE, ""), metavar="JSON", help="Edge Manager's gRPC door"
    )


def open_door(given: str, aliases: agent_aliases.Aliases, engine: agent_engine.Engine) -> Open | None:
    """The door that the JSON asks for, None for none or without its libraries. Raises OSError."""
    settings = _settings(given)
    path = _text(settings, "socketPath", "")
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
        _flag(settings, "allowUnauthenticatedLoad"),
        _number(settings, "messageBytes", 64 * _MIB),
        _number(settings, "models", 16),
        _number(settings, "memoryBytes", 512 * _MIB),
    )
    _make_way(path)
    capture = _capture(settings)
    if capture is not None:
        aliases.gate.admission.captures.append(_root(settings))
    service = edge.Service(aliases, engine, capture, rules)
    door = edge.Door(path, service, rules.message_bytes)
    print(f"edge manager: gRPC on {path}", flush=True)
    return Open(door, capture, Path(path))


def _capture(settings: Mapping[str, Any]) -> Any:
    destination = _text(settings, f"{_CORE}capture_data_destination", "Disk")
    if destination not in ("Disk", "Cloud"):
        raise SettingsError(f"edgeManager: {_CORE}capture_data_destination is {destination!r}: use Disk or Cloud")
    if destination == "Cloud":
        return None
    captures: Any = importlib.import_module("agent_capture")
    files: Any = importlib.import_module("agent_capture_files")
    device = _text(settings, f"{_CORE}device_name", os.environ.get("AWS_IOT_THING_NAME", "") or socket.gethostname())
    buffer = _number(settings, f"{_CORE}capture_data_buffer_size", 64)
    batch = _number(settings, f"{_CORE}capture_data_batch_size", max(buffer // 2, 1))
    embed = min(_number(settings, f"{_CORE}capture_data_base64_embed_limit", _EMBED_LIMIT_BYTES), _EMBED_LIMIT_BYTES)
    kept = files.Files(_root(settings), device, _number(settings, "captureDiskBytes", 256 * _MIB), embed)
    try:
        capture = captures.Capture(kept, captures.Bounds(buffer, batch))
    except ValueError as error:
        raise SettingsError(f"edgeManager: {error}") from error
    if capture.repaired:
        print(f"captures: {capture.repaired}", flush=True)
    return capture


def _root(settings: Mapping[str, Any]) -> Path:
    """Where captures go; below it are the models' folders."""
    root = Path(_text(settings, f"{_CORE}capture_data_disk_path", "captures"))
    prefix = [part for part in _text(settings, f"{_CORE}folder_prefix", "").split("/") if part]
    for part in (*prefix, _text(settings, f"{_CORE}device_fleet_name", "default")):
        if not _PART.fullmatch(part):
            raise SettingsError(
                f"edgeManager: {part!r} cannot be part of a path; see folder_prefix and device_fleet_name"
            )
        root /= part
    return root


def _make_way(path: str) -> None:
    """Removes the socket of a predecessor, and nothing else."""
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT_BYTES:
        raise SettingsError(f"the socket path {path} is longer than {_SOCKET_PATH_LIMIT_BYTES} bytes")
    place = Path(path)
    if place.exists() and not stat.S_ISSOCK(place.stat().st_mode):
        raise SettingsError(f"{path} exists and is no socket")
    place.unlink(missing_ok=True)


def _settings(given: str) -> Mapping[str, Any]:
    if given.startswith("{configuration:"):
        return {}  # the nucleus left the placeholder: a configuration from before there was this door
    try:
        settings = json.loads(given) if given else {}
    except ValueError as error:
        raise SettingsError(f"edgeManager in the configuration is no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise SettingsError("edgeManager in the configuration is no object")
    return settings


def _text(settings: Mapping[str, Any], key: str, default: str) -> str:
    value = settings.get(key) or default
    if not isinstance(value, str) or "\0" in value:
        raise SettingsError(f"edgeManager: {key} must be a text")
    return value


def _flag(settings: Mapping[str, Any], key: str) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise SettingsError(f"edgeManager: {key} must be true or false")
    return value


def _number(settings: Mapping[str, Any], key: str, default: int) -> int:
    value = settings.get(key, default)
    text = str(value)  # numbers come as text in Edge Manager's own files, too
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 15:
        raise SettingsError(f"edgeManager: {key} must be a whole number")
    return int(text)
