"""What must happen between a deployment's preparation and its activation: Bootstrap steps, restart, reboot.

Facts are kept (what each Bootstrap returned, what was asked for when), the next act is computed from them; so carrying on
after a restart, a reboot or a crash is asking again. Source: spec/nucleus.md 2.8 and 5.9. All Bootstrap steps run before
one restart or reboot for all of them; unlike the original, no restart follows when each returned 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct

from nucleus.core import component, graph

NOTHING, RESTART, REBOOT = 0, 100, 101  # exit codes of a Bootstrap step and of the daemon itself
PHASE = "bootstrap"
TIMEOUT_S = 120.0  # spec/nucleus.md 1.6
MAX_STARTS = 3  # a Bootstrap that takes the nucleus down this often will not return the next time either
MAX_ASKS = 2  # a reboot that did not happen is asked for once more

# Keys of the nucleus's configuration that count only after a restart (spec/nucleus.md 2.8).
RESTART_KEYS = (
    ("networkProxy",),
    ("runWithDefault", "posixUser"),
    ("runWithDefault", "posixShell"),
    ("mqtt", "version"),
    ("fipsMode",),
)


class Fact(Struct, frozen=True, omit_defaults=True):
    """About one component's Bootstrap in one deployment. `starts` is durable before each start, `exit_code` after the end."""

    version: str
    starts: int = 0
    exit_code: int | None = None


class Asked(Struct, frozen=True):
    """That the nucleus went down on purpose: for what, from which launch of it, in which boot of the machine."""

    code: int
    launch: str
    boot: str
    times: int = 1


class OwnUpdate(Struct, frozen=True):
    """Another version of the nucleus itself, ready in the launch directory `directory`; `old` runs until the switch."""

    old: str
    new: str
    directory: str


class Facts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of one deployment; the way back keeps its own. `restart_keys`: changed keys that count only after a restart."""

    forward: dict[str, Fact] = {}
    back: dict[str, Fact] = {}
    asked: Asked | None = None
    asked_back: Asked | None = None
    own: OwnUpdate | None = None
    alone: bool = False  # nothing but the nucleus itself changes
    restart_keys: tuple[str, ...] = ()


class Task(Struct, frozen=True):
    """A Bootstrap step to run; `reason` is a phrase for people."""

    component: component.Component
    reason: str


def needed(old: component.Component | None, new: component.Component) -> str:
    """Why the Bootstrap step of `new` must run, or "" (no step, or nothing about it changed)."""
    step = new.lifecycle.get(PHASE)
    if not _has_script(step):
        return ""
    if old is None:
        return "new"
    if old.version != new.version:
        return f"version {old.version} becomes {new.version}"
    return "its Bootstrap changed" if _fold(old.lifecycle.get(PHASE)) != _fold(step) else ""


def forward(previous: Mapping[str, component.Component], target: Mapping[str, component.Component]) -> tuple[Task, ...]:
    """The Bootstrap steps of a deployment, dependencies first."""
    tasks = {name: Task(one, needed(previous.get(name), one)) for name, one in target.items()}
    return tuple(tasks[name] for name in _order(target) if tasks[name].reason)


def backward(
    previous: Mapping[str, component.Component], resolved: Mapping[str, str], ran: Collection[str]
) -> tuple[Task, ...]:
    """The Bootstrap steps of a way back: `BootstrapOnRollback` components that the deployment changed.

    `resolved` are the versions the deployment wanted, `ran` the components whose Bootstrap it began.
    """

    def reason(one: component.Component) -> str:
        if not _on_rollback(one.lifecycle.get(PHASE)):
            return ""
        other = resolved.get(one.name, one.version)
        return f"back from version {other}" if other != one.version or one.name in ran else ""

    tasks = {name: Task(one, reason(one)) for name, one in previous.items()}
    return tuple(tasks[name] for name in _order(previous) if tasks[name].reason)


def pending(tasks: tuple[Task, ...], facts: Mapping[str, Fact]) -> tuple[Task, ...]:
    """Those that have not returned yet."""

    def returned(task: Task) -> bool:
        fact = facts.get(task.component.name)
        return fact is not None and fact.version == task.component.version and fact.exit_code is not None

    return tuple(task for task in tasks if not returned(task))


def begun(facts: Mapping[str, Fact], one: component.Component) -> Fact:
    """The fact to make durable before the step of `one` is started (again)."""
    fact = facts.get(one.name)
    starts = fact.starts if fact is not None and fact.version == one.version else 0
    return Fact(one.version, starts + 1)


def owed(facts: Mapping[str, Fact], *, restart: bool) -> int:
    """REBOOT if a step asked for it, else RESTART if one did or `restart` (configuration, own update), else NOTHING."""
    codes = {fact.exit_code for fact in facts.values()}
    if REBOOT in codes:
        return REBOOT
    return RESTART if restart or RESTART in codes else NOTHING


def may_hand_over(facts: Facts) -> bool:
    """Whether the nucleus's own update is all a restart is for: then components may go on running under the new one."""
    return facts.own is not None and facts.alone and owed(facts.forward, restart=bool(facts.restart_keys)) == NOTHING


def still_owed(code: int, asked: Asked | None, *, launch: str, boot: str) -> int:
    """What of `code` has not happened yet: a restart has in another launch, a reboot in another boot of the machine.

    A reboot that was asked for MAX_ASKS times and did not happen is given up: going on beats going round.
    """
    if code == NOTHING or asked is None or asked.code < code:
        return code
    if asked.launch == launch:
        return code  # asked for, and we are still here: the way down is under way
    if code == REBOOT and asked.boot == boot and asked.times < MAX_ASKS:
        return code
    return NOTHING


def restart_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Changed keys of the nucleus's configuration that count only after a restart, as dotted words."""
    return tuple(".".join(path) for path in RESTART_KEYS if _at(before, path) != _at(after, path))


def _order(components: Mapping[str, component.Component]) -> tuple[str, ...]:
    return graph.order({name: [d for d in one.dependencies if d in components] for name, one in components.items()})


def _has_script(step: Any) -> bool:
    if isinstance(step, dict):
        step = _fold(step).get("script")
    return isinstance(step, str) and bool(step.strip())


def _on_rollback(step: Any) -> bool:
    return (
        isinstance(step, dict) and _has_script(step) and str(_fold(step).get("bootstraponrollback")).lower() == "true"
    )


def _fold(step: Any) -> Any:
    """Keys compare without regard to case; scripts do not: `rm -r` and `rm -R` may differ."""
    if isinstance(step, dict):
        return {str(key).lower(): _fold(value) for key, value in step.items()}
    return step


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path, names without regard to case; None for what is absent or empty."""
    found: Any = values
    for name in path:
        if not isinstance(found, Mapping):
            return None
        found = next((value for key, value in found.items() if key.lower() == name.lower()), None)
    return found or None
