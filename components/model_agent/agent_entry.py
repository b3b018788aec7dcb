"""What is known about one alias, and who may change it (pure); how it changes is agent_table.py's."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OWNERS = {"marram:repository": "local", "door:edge-manager": "local"}  # no component can be called so
DEPLOYMENT, LOCAL, BUNDLE = "deployment", "local", "bundle"
MEMORY = 8  # models that answered and are remembered, to go back to, and left behind
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
    a hold keeps from answering, `dropped` a candidate whose trial was lost, `heir` another component's model that answers as
    soon as this component is gone. `released`: the component was stopped, or the bundle given back; `refused`: what it offered
    last may not serve. `before` answered before what serves, the last one last: each of them may answer again at once. `left`
    are those that answered until the alias went back to an older one: they are tried like new ones, but losing is not final.
    Of both only who they are is kept, no copy.
    `evicted` is of this run only: the model is not in memory until somebody asks; so is `waits`: why `candidate` is not.
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
    heir: Held | None = None
    held_by: str = ""
    reason: str = ""
    refusal: str = ""
    evicted: bool = False
    before: tuple[Held, ...] = ()
    left: tuple[Held, ...] = ()
    waits: str = ""
    refused: bool = False

    @property
    def why(self) -> str:
        """Why the version that should answer does not; empty when it does."""
        waits = self.waits if self.candidate is not None else ""
        return "; ".join(part for part in (self.reason if self.held_by else "", self.refusal, waits) if part)

    def kept(self) -> tuple[Held, ...]:
        """The models whose copies must stay."""
        held = (self.serving, self.previous, self.candidate, self.withheld, self.heir)
        return tuple(each for each in held if each is not None)

    def returns(self, model: Held, owner: str) -> bool:
        """Whether the alias would go back with `model`, to what was accepted before what serves."""
        return self.owner == owner and _among(model, self.before)

    def answered(self, model: Held) -> bool:
        """Whether `model` answered before."""
        return _among(model, self.before) or _among(model, self.left)


def succession(entry: Entry, model: Held) -> dict[str, Any]:
    """The fields `before`, `left` and `previous` once `model` answers instead of what serves.

    Going back to one of `before` leaves what came after it, also as `previous`: a hold must not lead there again.
    """
    before, left = entry.before, left_behind(entry)
    at = next((place for place, each in enumerate(before) if model.same(each)), None)
    if at is not None:
        before, left = before[:at], (entry.serving, *reversed(before[at + 1 :]), *left)
    elif not model.same(entry.serving):
        before = (*before, entry.serving)
    last = next((each for each in reversed(before) if each.key != model.key), None)
    kept = [each for each in entry.kept() if each.same(last) and each.component == model.component]
    left = tuple(each for each in left if not model.same(each) and not _among(each, before))
    return {"before": before[-MEMORY:], "left": left[:MEMORY], "previous": kept[0] if kept else None}


def vacated(entry: Entry) -> Entry | None:
    """The alias without its component: the one that waits has it, or nobody."""
    heir = entry.heir
    return None if heir is None else Entry(heir.component, heir.version, heir, owner=entry.owner)


def without(entry: Entry, key: str, reason: str, barred: Mapping[str, str]) -> Entry | None:
    """The alias when the copy `key` cannot be used. If it was what serves, the next that can and may (not `barred`) answers.

    That is the version before, the candidate, what was withheld, what waits for the component to go; nobody: EMPTY.
    """
    serves = entry.serving.key == key
    useless = {key, *(barred if serves else ())}
    keep: dict[str, Any] = {
        name: None if (held := getattr(entry, name)) is None or held.key in useless else held
        for name in ("previous", "candidate", "withheld", "heir")
    }
    roles = [name for name in ("serving", *keep) if (held := getattr(entry, name)) and held.key == key]
    new = dataclasses.replace(entry, refusal=entry.refusal if roles == ["previous"] else reason, **keep)
    name = next((name for name in keep if keep[name] is not None), "")
    if not serves:
        return new
    if name in ("", "heir"):
        return vacated(new)
    values: dict[str, Any] = succession(new, keep[name]) | {"previous": None, name: None}
    if name == "withheld":
        values |= {"held_by": "", "reason": ""}
    return dataclasses.replace(new, serving=keep[name], evicted=False, **values)


def left_behind(entry: Entry) -> tuple[Held, ...]:
    """`left` when a hold ends without what it held back."""
    return entry.left if entry.withheld is None else (entry.withheld, *entry.left)[:MEMORY]


def _among(model: Held, models: tuple[Held, ...]) -> bool:
    return any(model.same(each) for each in models)


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
        what = f"the alias {alias} belongs to {entry.component}, which is running"
        return (
            f"{what}; remove that component first, or with the same deployment and `replaces` in the model's settings"
        )
    return f"the alias {alias} belongs to {entry.component} ({entry.owner}); {ADVICE[entry.owner]}"


def may_follow(entry: Entry | None, writer: str, replaces: str) -> bool:
    """Whether a component that `replaces` another one may wait until that is gone."""
    return entry is not None and entry.owner == writer == DEPLOYMENT and replaces == entry.component


def waiting(aliases: Mapping[str, Entry], component: str, version: str) -> tuple[str, ...]:
    """The aliases that this version of the component is to answer for once another component is gone."""
    wanted = (component, version)
    return tuple(
        name for name, each in aliases.items() if each.heir and (each.heir.component, each.heir.version) == wanted
    )


def offered(
    aliases: Mapping[str, Entry], component: str, version: str, only: str = "", writer: str = ""
) -> tuple[str, ...]:
    """The aliases for which this component offered this version last; of those the one that is `only`, if that is told."""
    wanted = (component, version, writer or owner(component))
    mine = (alias for alias, each in aliases.items() if (each.component, each.offered, each.owner) == wanted)
    return tuple(alias for alias in mine if only in ("", alias))


def owned(aliases: Mapping[str, Entry], component: str, writer: str) -> tuple[str, ...]:
    """The aliases of this component."""
    return tuple(alias for alias, each in aliases.items() if (each.component, each.owner) == (component, writer))


def leased(entry: Entry | None) -> bool:
    """Whether its time runs: who was stopped and does not come back is gone.

    A bundle given back waits for a deployment. Who was refused is stopped for that (BROKEN), and there all the same.
    """
    return entry is not None and entry.released and entry.owner != BUNDLE and not entry.refused


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
        "heir": f"{entry.heir.component} {entry.heir.version}" if entry.heir else "",
        "held_by": entry.held_by,
        "reason": entry.why,
        "state": "evicted" if entry.evicted else str(state(entry)),
        "released": entry.released,
        "owner": entry.owner,
        "source": entry.serving.source,
    }
