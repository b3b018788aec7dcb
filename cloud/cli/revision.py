"""The full revision that a change of a few components makes: pure, from the target's earlier revision to its next.

A document that named only the changed component would remove the rest (spec/cloud.md 1.6), so everything else is carried
over. Components are in the shape of CreateDeployment.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct

Components = Mapping[str, Mapping[str, Any]]

ADD, CHANGE, CONFIGURE, REMOVE = "add", "change", "configure", "remove"


class Step(Struct, frozen=True):
    """One line of the plan; `before` and `after` are versions, empty for none."""

    action: str
    component: str
    before: str
    after: str

    def __str__(self) -> str:
        match self.action:
            case "add":
                return f"+ {self.component} {self.after}"
            case "remove":
                return f"- {self.component} {self.before}"
            case "configure":
                return f"~ {self.component} {self.after} (configuration)"
            case _:
                return f"~ {self.component} {self.before} -> {self.after}"


class Plan(Struct, frozen=True):
    """`components` is the whole next revision; `unchanged` are the names carried over as they are."""

    components: dict[str, dict[str, Any]]
    steps: tuple[Step, ...]
    unchanged: tuple[str, ...]

    def removes(self) -> bool:
        return any(step.action == REMOVE for step in self.steps)


def plan(
    earlier: Components,
    wanted: Mapping[str, str],
    updates: Mapping[str, Mapping[str, Any]],
    removed: Collection[str],
    running: Components | None = None,
) -> Plan:
    """The next revision: `earlier` with `wanted` versions, configuration `updates` (MERGE, RESET) and without `removed`.

    `running` is the newest revision if `earlier` is not: the steps then tell the way from what was last asked for.
    Raises ValueError naming a component that cannot be removed or configured because the revision does not have it.
    """
    strangers = sorted(set(removed) - set(earlier))
    if strangers:
        raise ValueError(f"cannot remove {', '.join(strangers)}: the target's revision does not have it")
    both = sorted(set(removed) & set(wanted))
    if both:
        raise ValueError(f"cannot both deploy and remove {', '.join(both)}")
    made = {name: dict(one) for name, one in earlier.items() if name not in removed}
    for name, version in wanted.items():
        made[name] = {**made.get(name, {}), "componentVersion": version}
    for name, update in updates.items():
        if name not in made:
            raise ValueError(f"cannot configure {name}: it is not deployed; name a version as {name}=VERSION")
        made[name]["configurationUpdate"] = combine(made[name].get("configurationUpdate", {}), update)
    base = running if running is not None else earlier
    steps = tuple(step for name in sorted({*base, *made}) if (step := _step(name, base.get(name), made.get(name))))
    touched = {step.component for step in steps}
    return Plan(made, steps, tuple(sorted(set(made) - touched)))


def combine(earlier: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """A component's configuration update after a further one, in CreateDeployment's shape.

    A device that joins later gets only the last revision, so earlier merges stay unless the update resets or overwrites
    them. `merge` is JSON in a string.
    """
    merged = json.loads(earlier.get("merge") or "{}")
    for pointer in update.get("RESET", ()):
        merged = _without(merged, _parts(pointer))
    merged = _merge(merged, update.get("MERGE", {}))
    resets = list(dict.fromkeys([*earlier.get("reset", ()), *update.get("RESET", ())]))
    combined: dict[str, Any] = {"merge": json.dumps(merged)} if merged else {}
    return combined | ({"reset": resets} if resets else {})


def _step(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Step | None:
    old = str(before["componentVersion"]) if before else ""
    new = str(after["componentVersion"]) if after else ""
    if not before:
        return Step(ADD, name, old, new)
    if not after:
        return Step(REMOVE, name, old, new)
    if old != new:
        return Step(CHANGE, name, old, new)
    return None if dict(before) == dict(after) else Step(CONFIGURE, name, old, new)


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _without(value: Any, path: list[str]) -> Any:
    if not path:
        return {}
    if not isinstance(value, dict) or path[0] not in value:
        return value
    if len(path) == 1:
        return {key: one for key, one in value.items() if key != path[0]}
    return {**value, path[0]: _without(value[path[0]], path[1:])}


def _merge(value: Any, update: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(update, Mapping):
        return update
    return {**value, **{key: _merge(value.get(key), one) for key, one in update.items()}}
