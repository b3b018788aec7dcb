"""How far a deployment had come before its commit when the nucleus died, and when it must not be tried again.

The counterpart for what is committed is the count of activations (actors/standing).
"""

from __future__ import annotations

from msgspec import Struct

PREPARATION = "preparation"  # resolving, downloading, consent, validation: nothing has changed
BOOTSTRAP = "bootstrap"  # a Bootstrap step has begun: the machine may have changed
MAX_LAUNCHES = 3  # the third launch that finds it dead in the same stage gives it up


class Reached(Struct, frozen=True):
    """The furthest stage, how often the nucleus died in it, and the boot of the machine in which it was last seen."""

    stage: str
    launches: int
    boot: str


def at_launch(known: Reached, *, bootstrapping: bool, orderly: bool, boot: str) -> Reached:
    """What a launch finds. An orderly stop does not count, nor does a machine that lost its power meanwhile."""
    stage = BOOTSTRAP if bootstrapping else known.stage
    launches = known.launches if stage == known.stage else 0
    if stage and not orderly and boot == known.boot:
        launches += 1
    return Reached(stage, launches, boot)


def why_given_up(reached: Reached) -> str:
    """A sentence, or "": it may be tried again. A Bootstrap step has a bound of its own, which names the step: it is first."""
    if reached.launches < MAX_LAUNCHES + (reached.stage == BOOTSTRAP):
        return ""
    return (
        f"the nucleus died {reached.launches} times in the {reached.stage} of this deployment, before it was in force; "
        "look into its log for what killed it, then deploy something else"
    )
