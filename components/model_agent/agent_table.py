"""One alias as a state machine (pure): what answers, what should, who may change it, and every way in which it changes.

    EMPTY    nothing is known about the alias
    SERVING  the version that was accepted last answers
    TRIAL    a candidate is tried beside what answers
    HELD     the version before answers, because somebody decided so; ends with another version offered, or by release

`step` looks the event up in TABLE; one that does not belong to the state raises IllegalError and changes nothing.
`offered` (what should answer) and the version that serves differ only in TRIAL, in HELD, or with a `refusal` that says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import agent_entry


class IllegalError(Exception):
    """The event does not belong to this state; nothing changed. `code` says which rule, the message what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# ---- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accepted:
    """An offered model passed every check and answers from now on."""

    model: agent_entry.Held
    owner: str = agent_entry.DEPLOYMENT


@dataclass(frozen=True)
class TrialBegun:
    """An offered model passed every check and is to be tried beside what answers."""

    model: agent_entry.Held
    owner: str = agent_entry.DEPLOYMENT


@dataclass(frozen=True)
class Confirmed:
    """A model was offered that is here already, in whatever role; its settings may be new."""

    model: agent_entry.Held


@dataclass(frozen=True)
class Refused:
    """An offered model may not serve."""

    component: str
    version: str
    reason: str
    owner: str = agent_entry.DEPLOYMENT


@dataclass(frozen=True)
class Promoted:
    """The candidate won its trial."""

    reason: str = ""


@dataclass(frozen=True)
class Dropped:
    """The candidate lost its trial; `final` ones are not tried again."""

    reason: str
    final: bool = True


@dataclass(frozen=True)
class Postponed:
    """The candidate is kept, but not in memory; without a reason: it is again."""

    reason: str = ""


@dataclass(frozen=True)
class HoldBegun:
    """Somebody (`by`) wants the version before back."""

    by: str
    reason: str


@dataclass(frozen=True)
class HoldReleased:
    """What was withheld may answer again."""


@dataclass(frozen=True)
class Followed:
    """A model of a component that replaces this one passed every check; it answers as soon as this one is gone."""

    model: agent_entry.Held
    owner: str = agent_entry.DEPLOYMENT


@dataclass(frozen=True)
class HeirGone:
    """The component that waited is gone, or its model cannot be used."""


@dataclass(frozen=True)
class Released:
    """The component that offered was stopped."""


@dataclass(frozen=True)
class Withdrawn:
    """The component is gone."""


@dataclass(frozen=True)
class LeaseOver:
    """The component was stopped long ago and nothing came after it."""


@dataclass(frozen=True)
class Evicted:
    """The model left the memory; its copy stays."""


@dataclass(frozen=True)
class Reloaded:
    """The model is in memory again."""


@dataclass(frozen=True)
class Damaged:
    """The copy of what serves, of the candidate, or of what is withheld cannot be used any more.

    `barred` says by key why a kept model may not answer (again): when the one that serves is damaged, those leave, too.
    """

    key: str
    reason: str
    barred: Mapping[str, str] = field(default_factory=dict)


# ---- transitions -----------------------------------------------------------------------------------------------------


def _accepted(entry: agent_entry.Entry | None, event: Accepted) -> agent_entry.Entry:
    model = event.model
    past = agent_entry.succession(entry, model) if entry is not None and entry.owner == event.owner else {}
    heir = entry.heir if entry is not None and entry.component == model.component else None
    return agent_entry.Entry(model.component, model.version, model, owner=event.owner, heir=heir, **past)


def _trial(entry: agent_entry.Entry, event: TrialBegun) -> agent_entry.Entry:
    model = event.model
    return dataclasses.replace(
        _free(entry), component=model.component, offered=model.version, owner=event.owner, candidate=model
    )


def _confirmed(entry: agent_entry.Entry, event: Confirmed) -> agent_entry.Entry:
    model = event.model
    known = dataclasses.replace(entry, component=model.component, offered=model.version, released=False, refused=False)
    if model.same(entry.serving):
        return dataclasses.replace(_free(known), serving=_again(model, entry.serving))
    if model.same(entry.candidate):
        return dataclasses.replace(known, candidate=_again(model, entry.candidate), refusal="")
    if model.same(entry.withheld):
        return dataclasses.replace(known, withheld=_again(model, entry.withheld), refusal="")
    if model.same(entry.dropped):
        return known
    raise IllegalError("FAILED_PRECONDITION", f"{model.component} {model.version} is not here")


def _again(model: agent_entry.Held, known: agent_entry.Held | None) -> agent_entry.Held:
    """The model as it was offered again; who signed the same bytes before did so now."""
    return dataclasses.replace(model, signer=model.signer or (known.signer if known is not None else ""))


def _free(entry: agent_entry.Entry) -> agent_entry.Entry:
    """Without candidate, hold and reasons: something new was decided."""
    new = dataclasses.replace(entry, candidate=None, withheld=None, dropped=None, left=agent_entry.left_behind(entry))
    return dataclasses.replace(new, held_by="", reason="", refusal="", waits="", released=False, refused=False)


def _refused(entry: agent_entry.Entry, event: Refused) -> agent_entry.Entry:
    if (entry.component, entry.owner) != (event.component, event.owner):
        return entry
    return dataclasses.replace(entry, offered=event.version, released=False, refused=True, refusal=event.reason)


def _promoted(entry: agent_entry.Entry, event: Promoted) -> agent_entry.Entry:
    model = entry.candidate
    assert model is not None  # TRIAL
    refusal = "" if entry.offered == model.version else entry.refusal
    past = agent_entry.succession(entry, model)
    new = dataclasses.replace(entry, serving=model, candidate=None, evicted=False, **past)
    return dataclasses.replace(new, reason=event.reason, refusal=refusal)


def _dropped(entry: agent_entry.Entry, event: Dropped) -> agent_entry.Entry:
    model = entry.candidate
    gone = model if event.final and model is not None and not entry.answered(model) else None
    return dataclasses.replace(entry, candidate=None, dropped=gone, refusal=event.reason)


def _postponed(entry: agent_entry.Entry, event: Postponed) -> agent_entry.Entry:
    return dataclasses.replace(entry, waits=event.reason)


def _hold(entry: agent_entry.Entry, event: HoldBegun) -> agent_entry.Entry:
    if entry.previous is None:
        raise IllegalError("NO_PREVIOUS", f"there is no version before {entry.serving.version} to go back to")
    past = agent_entry.succession(entry, entry.previous)
    back = dataclasses.replace(entry, serving=entry.previous, withheld=entry.serving, evicted=False, **past)
    return dataclasses.replace(back, left=entry.left, held_by=event.by, reason=event.reason)


def _hold_released(entry: agent_entry.Entry, _: HoldReleased) -> agent_entry.Entry:
    if entry.withheld is None:
        raise IllegalError("COPY_DAMAGED", f"the copy of {entry.offered} is damaged; deploy it again")
    past = agent_entry.succession(entry, entry.withheld)
    back = dataclasses.replace(entry, serving=entry.withheld, withheld=None, evicted=False, **past)
    return dataclasses.replace(back, held_by="", reason="")


def _damaged(entry: agent_entry.Entry, event: Damaged) -> agent_entry.Entry | None:
    return agent_entry.without(entry, event.key, event.reason, event.barred)


def _put(**values: Any) -> Callable[[agent_entry.Entry, Any], agent_entry.Entry]:
    return lambda entry, _: dataclasses.replace(entry, **values)


def _vacated(entry: agent_entry.Entry, _: Any) -> agent_entry.Entry | None:
    return agent_entry.vacated(entry)


def _followed(entry: agent_entry.Entry, event: Followed) -> agent_entry.Entry:
    return dataclasses.replace(entry, heir=event.model)


def _stay(entry: agent_entry.Entry | None, _: Any) -> agent_entry.Entry | None:
    return entry


_CANNOT = {
    TrialBegun: "there is nothing to try it against",
    Promoted: "there is no candidate to promote",
    Dropped: "there is no candidate to drop",
    HoldBegun: "it cannot be held",
    HoldReleased: "nothing is held",
}
_SAID = {
    agent_entry.State.EMPTY: "nothing answers",
    agent_entry.State.SERVING: "the version that was accepted last answers",
    agent_entry.State.TRIAL: "a trial is running, end it first",
    agent_entry.State.HELD: "it is held, release it first",
}
_EMPTY, _SERVING, _TRIAL, _HELD = agent_entry.State
TABLE: dict[type[Any], dict[agent_entry.State, Callable[[Any, Any], agent_entry.Entry | None]]] = {
    Accepted: dict.fromkeys(agent_entry.State, _accepted),
    TrialBegun: dict.fromkeys((_SERVING, _TRIAL, _HELD), _trial),
    Confirmed: dict.fromkeys((_SERVING, _TRIAL, _HELD), _confirmed),
    Refused: {_EMPTY: _stay, **dict.fromkeys((_SERVING, _TRIAL, _HELD), _refused)},
    Promoted: {_TRIAL: _promoted},
    Dropped: {_TRIAL: _dropped},
    Postponed: {_TRIAL: _postponed},
    HoldBegun: {_SERVING: _hold},
    HoldReleased: {_HELD: _hold_released},
    Released: dict.fromkeys((_SERVING, _TRIAL, _HELD), _put(released=True)),
    Followed: dict.fromkeys((_SERVING, _TRIAL, _HELD), _followed),
    HeirGone: dict.fromkeys((_SERVING, _TRIAL, _HELD), _put(heir=None)),
    Withdrawn: dict.fromkeys((_SERVING, _TRIAL, _HELD), _vacated),
    LeaseOver: dict.fromkeys((_SERVING, _TRIAL, _HELD), _vacated),
    Evicted: dict.fromkeys((_SERVING, _HELD), _put(evicted=True)),
    Reloaded: dict.fromkeys((_SERVING, _TRIAL, _HELD), _put(evicted=False)),
    Damaged: dict.fromkeys((_SERVING, _TRIAL, _HELD), _damaged),
}


def step(entry: agent_entry.Entry | None, event: Any) -> agent_entry.Entry | None:
    """The alias after `event` (None: empty); raises IllegalError."""
    now = agent_entry.state(entry)
    transition = TABLE[type(event)].get(now)
    if transition is None:
        what = _CANNOT.get(type(event), f"{type(event).__name__} does not belong here")
        raise IllegalError("FAILED_PRECONDITION", f"{what}: {_SAID[now]}")
    return transition(entry, event)
