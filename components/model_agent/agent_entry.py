"""What is known about one alias, and who may change it (pure); how it changes is agent_table.py's."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OWNERS = {"marram:repository": "local", "door:edge-manager": "local"}  # no component can be called so
DEPLOYMENT, LOCAL, BUNDLE = "deployment", "local", "bundle"
ADVICE = {
    DEPLOYMENT: "change it by a deployment",
    LOCAL: "unload it there first",
    BUNDLE: "apply a newer bundle, or give it back first (marram bundle release)",
}


class State(enum.StrEnum):
    """What an alias is in."""

    EMPTY = "empty"
    SERVING = "serving"
    TRIAL = "trial"
    HELD = "held"


@dataclass(frozen=True)
class Held:
    """A model the agent keeps a copy of: its component's version, the copy's key, whose it is, its settings, its folder.

    `signer` is the id of the key that signed it; "" for none, or for one that an older release did not note.
    """

    version: str
    key: str
    component: str = ""
    settings: str = ""
    source: str = ""
    signer: str = ""

    def same(self, other: Held | None) -> bool:
        """Whether `other` is the same bytes offered as the same version of the same component."""
        return other is not None and (self.version, self.key, self.component) == (
            other.version,
            other.key,
            other.component,
        )


@dataclass(frozen=True)
class Entry:
    """What is known about one alias.

    `component` offered last, `offered` is that version, accepted or not: only its release and withdrawal count, and it is
    the version that should answer. `previous` takes over when `serving` is held or its copy is damaged. `withheld` is what
    a hold keeps from answering, `dropped` a candidate whose trial was lost. `released`: the component was stopped, or the
    bundle given back.
    `evicted` is of this run only: the model is not in memory until somebody asks.
    """

    component: str
    offered: str
    serving: Held
    previous: Held | None = None
    released: bool = False
    owner: str = DEPLOYMENT
    candidate: Held | None = None
    withheld: Held | None = None
    dropped: Held | None = None
    held_by: str = ""
    reason: str = ""
    refusal: str = ""
    evicted: bool = False

    @property
    def why(self) -> str:
        """Why the version that should answer does not; empty when it does."""
        return "; ".join(part for part in (self.reason if self.held_by else "", self.refusal) if part)

    def kept(self) -> tuple[Held, ...]:
        """The models whose copies must stay."""
        return tuple(h for h in (self.serving, self.previous, self.candidate, self.withheld) if h is not None)


def owner(component: str) -> str:
    """Whose an alias of this component is, where nobody said otherwise."""
    return OWNERS.get(component, DEPLOYMENT)


def state(entry: Entry | None) -> State:
    """The state of an alias."""
    if entry is None:
        return State.EMPTY
    if entry.held_by:
        return State.HELD
    return State.TRIAL if entry.candidate is not None else State.SERVING


def objection(alias: str, entry: Entry | None, component: str, writer: str) -> str:
    """Why this writer may not change the alias, naming the owner and what to do; empty if it may."""
    if entry is None or (entry.component, entry.owner) == (component, writer):
        return ""
    if entry.released and entry.owner in (DEPLOYMENT, BUNDLE) and writer in (DEPLOYMENT, entry.owner):
        return ""
    if entry.owner == writer == DEPLOYMENT:
        return f"the alias {alias} belongs to {entry.component}, which is running; remove that component first"
    return f"the alias {alias} belongs to {entry.component} ({entry.owner}); {ADVICE[entry.owner]}"


def offered(
    aliases: Mapping[str, Entry], component: str, version: str, only: str = "", writer: str = ""
) -> tuple[str, ...]:
    """The aliases for which this component offered this version last; of those the one that is `only`, if that is told."""
    wanted = (component, version, writer or owner(component))
    mine = (alias for alias, each in aliases.items() if (each.component, each.offered, each.owner) == wanted)
    return tuple(alias for alias in mine if only in ("", alias))


def leased(entry: Entry | None) -> bool:
    """Whether its time runs: who was stopped and does not come back is gone. A bundle given back waits for a deployment."""
    return entry is not None and entry.released and entry.owner != BUNDLE


def row(alias: str, entry: Entry) -> dict[str, Any]:
    """The alias as `list` shows it; versions, and empty texts for what there is none of."""
    return {
        "alias": alias,
        "component": entry.component,
        "version": entry.serving.version,
        "offered": entry.offered,
        "desired": entry.offered,
        "serving": entry.serving.version,
        "previous": entry.previous.version if entry.previous else "",
        "candidate": entry.candidate.version if entry.candidate else "",
        "held_by": entry.held_by,
        "reason": entry.why,
        "state": "evicted" if entry.evicted else str(state(entry)),
        "released": entry.released,
        "owner": entry.owner,
        "source": entry.serving.source,
    }
