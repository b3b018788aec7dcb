"""One question to the components that listen: may they be updated now? Who answers what decides when the update goes on.

The component update policy (spec/nucleus.md 5.10): every subscriber may answer with a time to ask again after; the longest
counts, then all are asked afresh, without limit. Who does not answer by the policy's timeout agrees. Two things are ours:
who has gone is not waited for, and who has deferred may answer again before its time is up.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

MAX_DEFERRAL_S = 366 * 86_400.0  # a bound for arithmetic, not a policy


class Round(Struct, frozen=True):
    """One time of asking; all times are monotonic seconds.

    `asked` are components, `until` is when silence counts as consent, `agreed` said "go on", `deferred` maps the others
    that answered to when they want to be asked again.
    """

    asked: frozenset[str]
    until: float
    agreed: frozenset[str] = frozenset()
    deferred: dict[str, float] = {}


class Waiting(Struct, frozen=True):
    """Answers are missing: from whom, until when at the latest."""

    components: tuple[str, ...]
    until: float


class Deferred(Struct, frozen=True):
    """All have answered, or were silent too long, and some want to be asked again: not before `until`."""

    components: tuple[str, ...]
    until: float


class AskAgain(Struct, frozen=True):
    """The longest deferral is over."""


class Agreed(Struct, frozen=True):
    """Nobody objects (any more)."""


Verdict = Waiting | Deferred | AskAgain | Agreed


def answer(current: Round, component: str, recheck_after_ms: int, now: float) -> Round:
    """The round after an answer; 0 or less means "go on". A later answer replaces an earlier one."""
    others = {name: at for name, at in current.deferred.items() if name != component}
    if recheck_after_ms <= 0:
        return msgspec.structs.replace(current, agreed=current.agreed | {component}, deferred=others)
    until = now + min(recheck_after_ms / 1000, MAX_DEFERRAL_S)
    agreed = current.agreed - {component}
    return msgspec.structs.replace(current, agreed=agreed, deferred={**others, component: until})


def join(current: Round, component: str) -> Round:
    """A component that subscribes while the question is open is asked too."""
    return msgspec.structs.replace(current, asked=current.asked | {component})


def leave(current: Round, component: str) -> Round:
    """A component without a subscription cannot answer any more; a deferral of its stays."""
    return msgspec.structs.replace(current, asked=current.asked - {component})


def judge(current: Round, now: float) -> Verdict:
    silent = tuple(sorted(current.asked - current.agreed - current.deferred.keys()))
    if silent and now < current.until:
        return Waiting(silent, current.until)
    if not current.deferred:
        return Agreed()
    until = max(current.deferred.values())
    if now < until:
        return Deferred(tuple(sorted(name for name, at in current.deferred.items() if at > now)), until)
    return AskAgain()
