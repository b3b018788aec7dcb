"""Reads the settings of Edge Manager's door: a flat JSON object, numbers and truth values in text allowed (pure).

Edge Manager's own files have numbers and truth values as text, the agent's recipe has them as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CORE = "sagemaker_edge_core_"
PROVIDER = "sagemaker_edge_provider_"
_TRUTH = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False, "": False}


class SettingsError(OSError):
    """The configuration of the door cannot be used; the message names the key."""


@dataclass(frozen=True)
class Settings:
    """What is configured; every question raises SettingsError for a value that means nothing."""

    given: Mapping[str, Any]

    def text(self, key: str, default: str) -> str:
        """A text, the default if it is empty."""
        value = self.given.get(key) or default
        if not isinstance(value, str) or "\0" in value:
            raise SettingsError(f"edgeManager: {key} must be a text")
        return value

    def flag(self, key: str) -> bool:
        """A truth value of this agent's own keys."""
        value = self.given.get(key, False)
        if not isinstance(value, bool):
            raise SettingsError(f"edgeManager: {key} must be true or false")
        return value

    def truth(self, key: str) -> bool:
        """A truth value of Edge Manager's keys, which may be a text."""
        found = _TRUTH.get(str(self.given.get(key, "")).lower())
        if found is None:
            raise SettingsError(f"edgeManager: {key} must be true or false")
        return found

    def number(self, key: str, default: int) -> int:
        """A whole number that is not negative."""
        value = self.given.get(key, default)
        text = str(value)
        if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 15:
            raise SettingsError(f"edgeManager: {key} must be a whole number")
        return int(text)


def read(given: str) -> Settings:
    """Raises SettingsError."""
    if given.startswith("{configuration:"):
        return Settings({})  # the nucleus left the placeholder: a configuration from before there was this door
    try:
        settings = json.loads(given) if given else {}
    except ValueError as error:
        raise SettingsError(f"edgeManager in the configuration is no JSON: {error}") from error
    if not isinstance(settings, dict):
        raise SettingsError("edgeManager in the configuration is no object")
    return Settings(settings)
