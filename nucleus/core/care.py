"""What a component asks for under its configuration key `marram`: health check, readiness, restarts, state to bring
back, update beside the old version.

```
marram:
  healthCheck:   {exec: <script> | http: http://127.0.0.1:8080/health | tcp: 127.0.0.1:8080 | heartbeat: true,
                  intervalSeconds: 10, timeoutSeconds: 5, failureThreshold: 3, startPeriodSeconds: 0}
  readiness:     {exec | http | tcp, intervalSeconds: 1, timeoutSeconds: 5, deadlineSeconds: 120}
  restartPolicy: {backoffSeconds: 0, maxBackoffSeconds: 300, maxFailures: 3, resetSeconds: 3600}
  rollbackState: {paths: [data, settings.json], maxBytes: 268435456}
  update:        {overlap: false}
```

The original has nothing like it: a component that hangs stays RUNNING there. Numbers may be text, as in every configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

KEY = "marram"
EXEC, HTTP, TCP, HEARTBEAT = "exec", "http", "tcp", "heartbeat"
MAX_BYTES = 256 * 1024 * 1024
MAX_SECONDS = 24 * 3600.0


class Probe(Struct, frozen=True):
    """One way to ask. `target` is a script, a URL or `host:port`. `deadline_s` bounds readiness, the rest is health's."""

    kind: str
    target: str
    interval_s: float
    timeout_s: float = 5.0
    failure_threshold: int = 3
    start_period_s: float = 0.0
    deadline_s: float = 120.0

    def __str__(self) -> str:
        return self.kind if self.kind in (EXEC, HEARTBEAT) else f"{self.kind} {self.target}"


class RestartPolicy(Struct, frozen=True):
    """The pause doubles with each error in a row; `reset_s` None: `errorResetTime` of the recipe."""

    backoff_s: float = 0.0
    max_backoff_s: float = 300.0
    max_failures: int = 3
    reset_s: float | None = None


class RollbackState(Struct, frozen=True):
    """Paths below the work folder that a rollback brings back, unless they hold more than `max_bytes`."""

    paths: tuple[str, ...]
    max_bytes: int = MAX_BYTES


class Care(Struct, frozen=True):
    """All of it; None for what is not asked for. `overlap`: a new version starts beside the old one (core/overlap.py)."""

    health_check: Probe | None = None
    readiness: Probe | None = None
    restart: RestartPolicy = RestartPolicy()
    rollback_state: RollbackState | None = None
    overlap: bool = False


class NotValid(Exception):  # noqa: N818  the word says it
    """The text names the key and what may stand there."""


def read(data: Any) -> Care:
    """Reads what stands under KEY; other keys there are not ours and ignored. Raises NotValid."""
    found = _mapping(data, KEY)
    return Care(
        health_check=_probe(found, "healthCheck", (EXEC, HTTP, TCP, HEARTBEAT), interval_s=10.0),
        readiness=_probe(found, "readiness", (EXEC, HTTP, TCP), interval_s=1.0),
        restart=_restart(_mapping(found.get("restartPolicy"), f"{KEY}.restartPolicy")),
        rollback_state=_rollback_state(found),
        overlap=_flag(_mapping(found.get("update"), f"{KEY}.update"), "overlap", f"{KEY}.update"),
    )


def pause_s(policy: RestartPolicy, errors: Mapping[Any, tuple[float, ...]], now: float) -> float:
    """How long to wait before the next try; `errors` are the times of errors in each state since the last success."""
    failures = max((len(times) for times in errors.values()), default=0)
    if not failures or not policy.backoff_s:
        return 0.0
    last = max(max(times) for times in errors.values() if times)
    return max(last + min(policy.backoff_s * 2.0 ** min(failures - 1, 60), policy.max_backoff_s) - now, 0.0)


def _probe(data: Mapping[str, Any], key: str, kinds: tuple[str, ...], *, interval_s: float) -> Probe | None:
    if data.get(key) is None:
        return None
    where = f"{KEY}.{key}"
    found = _mapping(data[key], where)
    named = [kind for kind in kinds if found.get(kind)]
    if len(named) != 1:
        raise NotValid(f"{where} must have exactly one of {', '.join(kinds)}")
    kind = named[0]
    return Probe(
        kind=kind,
        target=_target(kind, found[kind], f"{where}.{kind}"),
        interval_s=_number(found, "intervalSeconds", where, interval_s, least=0.1),
        timeout_s=_number(found, "timeoutSeconds", where, 5.0, least=0.1),
        failure_threshold=int(_number(found, "failureThreshold", where, 3, least=1)),
        start_period_s=_number(found, "startPeriodSeconds", where, 0.0),
        deadline_s=_number(found, "deadlineSeconds", where, 120.0, least=0.1),
    )


def _target(kind: str, value: Any, where: str) -> str:
    if kind == HEARTBEAT:
        return ""
    text = str(value).strip()
    if kind == EXEC:
        return text
    try:
        parts = urlsplit(text if kind == HTTP else f"tcp://{text}")
        fine = bool(parts.hostname) and (parts.port is not None or kind == HTTP)
    except ValueError:
        fine = False
    if not fine or (kind == HTTP and parts.scheme != "http") or any(sign.isspace() for sign in text):
        raise NotValid(f"{where} must be {'http://host:port/path' if kind == HTTP else 'host:port'}, not {text!r}")
    return text


def _restart(found: Mapping[str, Any]) -> RestartPolicy:
    where = f"{KEY}.restartPolicy"
    reset = found.get("resetSeconds")
    return RestartPolicy(
        backoff_s=_number(found, "backoffSeconds", where, 0.0),
        max_backoff_s=_number(found, "maxBackoffSeconds", where, 300.0),
        max_failures=int(_number(found, "maxFailures", where, 3, least=1)),
        reset_s=None if reset is None else _number(found, "resetSeconds", where, 0.0, least=0.1),
    )


def _rollback_state(data: Mapping[str, Any]) -> RollbackState | None:
    if data.get("rollbackState") is None:
        return None
    where = f"{KEY}.rollbackState"
    found = _mapping(data["rollbackState"], where)
    paths = found.get("paths")
    if not isinstance(paths, list) or not paths:
        raise NotValid(f"{where}.paths must be a list of paths below the work folder")
    names = tuple(dict.fromkeys(_inside(path, where) for path in paths))
    nested = [path for path in names for other in names if path.startswith(f"{other}/")]
    if nested:
        raise NotValid(f"{where}.paths: {nested[0]!r} lies in another of the paths")
    return RollbackState(paths=names, max_bytes=int(_number(found, "maxBytes", where, MAX_BYTES, most=2**62)))


def _inside(path: Any, where: str) -> str:
    """A path below the work folder without superfluous parts. Raises NotValid."""
    parts = [part for part in path.split("/") if part not in ("", ".")] if isinstance(path, str) else []
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise NotValid(f"{where}.paths: {path!r} is not a path below the work folder")
    return "/".join(parts)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise NotValid(f"{where} must be an object")
    return value


def _flag(found: Mapping[str, Any], key: str, where: str) -> bool:
    """False without the key; text counts as in every configuration."""
    value = found.get(key, False)
    if str(value).lower() not in ("true", "false"):
        raise NotValid(f"{where}.{key} must be true or false, not {value!r}")
    return str(value).lower() == "true"


def _number(
    found: Mapping[str, Any], key: str, where: str, default: float, *, least: float = 0.0, most: float = MAX_SECONDS
) -> float:
    value = found.get(key, default)
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not least <= number <= most:
        raise NotValid(f"{where}.{key} must be a number from {least:g} to {most:g}, not {value!r}")
    return number
