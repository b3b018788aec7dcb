"""Reads one script of a component's lifecycle: text, deadline, condition, variables (spec/nucleus.md 1.6)."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from nucleus.core import component
from nucleus.core.lifecycle import Phase

# Seconds; Run has none (spec/nucleus.md 1.6).
TIMEOUTS_S = {
    Phase.INSTALL: 120.0,
    Phase.STARTUP: 120.0,
    Phase.SHUTDOWN: 15.0,
    Phase.RECOVER: 60.0,
    Phase.UNINSTALL: 120.0,
}
ERROR_RESET_S = 3600.0
_CONDITION = re.compile(r"(!?)\s*(exists|onpath) +(.+)", re.IGNORECASE)


class Skip(Struct, frozen=True):
    """`Skipif`: skip the script if `test` (onpath, exists) of `subject` is true, or with `negated` if it is not."""

    test: str
    subject: str
    negated: bool


class Script(Struct, frozen=True):
    """One script. `timeout_s` 0 means none; `environment` is `Lifecycle.Setenv` with the step's own on top."""

    text: str
    timeout_s: float
    skip: Skip | None
    environment: dict[str, str]
    privileged: bool


class NotValid(Exception):  # noqa: N818  the word says it
    """The step cannot be read; the text says what is wrong and where."""


def read(one: component.Component, phase: Phase) -> Script | None:
    """The script of a phase, None when there is nothing to run. Raises NotValid."""
    return read_step(one, phase.value, TIMEOUTS_S.get(phase, 0.0))


def read_step(one: component.Component, key: str, default_s: float) -> Script | None:
    """Like `read`, for any step of the lifecycle; `key` is its lower-case name, `default_s` its deadline if it names none."""
    if damage := one.lifecycle.get(component.UNREADABLE):
        raise NotValid(f"cannot read the record of {one.name}: {damage}; deploy it again")
    step = one.lifecycle.get(key)
    where = f"{key.capitalize()} of {one.name} {one.version}"
    common = _environment(one.lifecycle.get("setenv"), where)
    if step is None or isinstance(step, str):
        return Script(step, default_s, None, common, privileged=False) if step and step.strip() else None
    if not isinstance(step, dict):
        raise NotValid(f"cannot read {where}: it must be a script or an object with Script, not {type(step).__name__}")
    fields = {key.lower(): value for key, value in step.items()}
    text = fields.get("script")
    if text is None or not isinstance(text, str):
        raise NotValid(f"cannot read {where}: Script is missing or no text")
    if not text.strip():
        return None
    return Script(
        text=text,
        timeout_s=_seconds(fields.get("timeout"), default_s, f"Timeout in {where}"),
        skip=_skip(fields.get("skipif"), where),
        environment=common | _environment(fields.get("setenv"), where),
        privileged=str(fields.get("requiresprivilege", "false")).lower() == "true",
    )


def status_code(phase: Phase, what: str) -> str:
    """The status code (spec/nucleus.md 2.10) for ERROR, TIMEOUT, IO_ERROR or CONFIG_NOT_VALID of a phase.

    Shutdown and Uninstall have no codes for the last two: there it is the phase's ERROR.
    """
    has_all = phase in (Phase.INSTALL, Phase.STARTUP, Phase.RUN)
    return f"{phase.name}_{what if has_all or what == 'TIMEOUT' else 'ERROR'}"


def error_reset_s(one: component.Component) -> float:
    """`errorResetTime`: seconds after which earlier errors no longer count; 3600 when absent or not a number."""
    found = next((value for key, value in one.lifecycle.items() if key.lower() == "errorresettime"), None)
    try:
        return _seconds(found, ERROR_RESET_S, "errorResetTime")
    except NotValid:
        return ERROR_RESET_S


def _skip(value: Any, where: str) -> Skip | None:
    if value is None or value == "":
        return None
    found = _CONDITION.fullmatch(str(value).strip())
    if found is None:
        raise NotValid(f"cannot read Skipif of {where}: {value!r} is neither `onpath <program>` nor `exists <file>`")
    return Skip(found[2].lower(), found[3].strip(), found[1] == "!")


def _seconds(value: Any, default_s: float, where: str) -> float:
    if value is None or value == "":
        return default_s
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 < seconds < 10**9:
        raise NotValid(f"cannot read {where}: {value!r} is no number of seconds")
    return seconds


def _environment(value: Any, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NotValid(f"cannot read Setenv for {where}: it must be a mapping")
    found = {str(key): _text(one) for key, one in value.items()}
    for key, text in found.items():
        if not key or "=" in key or "\0" in key + text:
            raise NotValid(f"cannot read Setenv for {where}: {key!r} cannot be a variable of the environment")
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
