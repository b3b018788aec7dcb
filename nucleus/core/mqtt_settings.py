"""How messages to the cloud are kept and sent: the key `mqtt` of the nucleus's configuration (spec/nucleus.md 7.6, 7.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

PLUGIN = "aws.greengrass.DiskSpooler"
SPOOL_BYTES = 2_621_440
IN_FLIGHT, MOST_IN_FLIGHT = 32, 100  # the original's default is 5; more in flight costs memory, not order
RETRIES = 100
ENDLESS = -1
MESSAGE_BYTES, MOST_MESSAGE_BYTES = 131_072, 268_435_455  # AWS IoT's limit of a payload; MQTT's


class Settings(Struct, frozen=True, kw_only=True):
    """`problems` are sentences about what was left out; a number out of its bounds counts as the nearest in them."""

    disk: bool = False
    spool_bytes: int = SPOOL_BYTES
    keep_qos_0: bool = False
    in_flight: int = IN_FLIGHT
    retries: int = RETRIES  # ENDLESS or the attempts after the first one
    message_bytes: int = MESSAGE_BYTES
    problems: tuple[str, ...] = ()


def read(nucleus: Mapping[str, Any]) -> Settings:
    """Reads leniently: a setting that cannot be understood must not keep the device from its cloud."""
    mqtt = _members(_members(nucleus).get("mqtt"))
    spooler = _members(mqtt.get("spooler"))
    problems: list[str] = []
    storage = str(spooler.get("storagetype") or "Memory")
    if storage.lower() not in ("memory", "disk"):
        problems.append(f"mqtt.spooler.storageType must be Memory or Disk, not {storage!r}: Memory is used")
    plugin = spooler.get("pluginname")
    if plugin and plugin != PLUGIN:
        problems.append(f"mqtt.spooler.pluginName {plugin!r} is no part of this nucleus: {PLUGIN} is used")

    def number(found: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
        value = found.get(name.lower(), default)
        try:
            return min(max(int(value), least), most)
        except (TypeError, ValueError, OverflowError):
            problems.append(f"mqtt: {name} must be a number, not {str(value)[:40]!r}: {default} is used")
            return default

    return Settings(
        disk=storage.lower() == "disk",
        spool_bytes=number(spooler, "maxSizeInBytes", SPOOL_BYTES, 1, 2**50),
        keep_qos_0=str(spooler.get("keepqos0whenoffline", False)).lower() == "true",
        in_flight=number(mqtt, "maxInFlightPublishes", IN_FLIGHT, 1, MOST_IN_FLIGHT),
        retries=number(mqtt, "maxPublishRetry", RETRIES, ENDLESS, 2**31),
        message_bytes=number(mqtt, "maxMessageSizeInBytes", MESSAGE_BYTES, 1, MOST_MESSAGE_BYTES),
        problems=tuple(problems),
    )


def _members(value: Any) -> dict[str, Any]:
    return {str(key).lower(): one for key, one in value.items()} if isinstance(value, Mapping) else {}
