"""The nucleus's configuration key `logging`, read leniently: what cannot be used counts as not given (spec/nucleus.md 4.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")
FORMS = ("TEXT", "JSON")
_NEAREST = {"TRACE": "DEBUG", "FATAL": "ERROR", "WARNING": "WARN"}


class LogSettings(Struct, frozen=True):
    """Sizes in KiB: of one file, and of all files of one log together."""

    level: str = "INFO"
    form: str = "TEXT"
    file_kb: int = 1024
    total_kb: int = 10_240


def read(nucleus: Mapping[str, Any]) -> LogSettings:
    found = nucleus.get("logging")
    given = {key.lower(): value for key, value in found.items()} if isinstance(found, Mapping) else {}
    level = str(given.get("level", "")).upper()
    form = str(given.get("format", "")).upper()
    usual = LogSettings()
    file_kb = _size(given.get("filesizekb"), usual.file_kb)
    return LogSettings(
        level=_NEAREST.get(level, level if level in LEVELS else usual.level),
        form=form if form in FORMS else usual.form,
        file_kb=file_kb,
        total_kb=max(file_kb, _size(given.get("totallogssizekb"), usual.total_kb)),
    )


def _size(value: Any, usual: int) -> int:
    try:
        size = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return usual
    return size if size > 0 else usual
