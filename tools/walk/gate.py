"""What stands between a deployment's preparation and its commit: consent and validation, answered at random.

Mirrors actors/consent.py and actors/validation.py around core/consent.py and core/validation.py; every `yield` is time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator

from nucleus.core import consent, errors, validation

ROUNDS_OF_ANSWERS = 30  # after them nobody answers any more, so that a sequence ends
TIMEOUT_S = 20.0


def agree(chance: random.Random, now: Callable[[], float], listening: frozenset[str]) -> Generator[str, None, None]:
    """Asks until nobody objects; components agree, defer, change their mind, come, go and are silent."""
    left, asking = ROUNDS_OF_ANSWERS, True
    while asking:
        current = consent.Round(listening if left > 0 else frozenset(), now() + TIMEOUT_S)
        while isinstance(verdict := consent.judge(current, now()), consent.Waiting | consent.Deferred):
            assert verdict.until > now(), "waits for a moment that has passed"
            yield "asking"
            left -= 1
            if listening and left > 0:
                current = _one_answer(chance, current, now(), chance.choice(sorted(listening)))
        overdue = all(at <= now() for at in current.deferred.values())
        assert overdue, "goes on while a component defers"
        silent = current.asked - current.agreed - current.deferred.keys()
        assert not silent or now() >= current.until, "goes on before a silent component's time is up"
        asking = isinstance(verdict, consent.AskAgain)


def _one_answer(chance: random.Random, current: consent.Round, now: float, component: str) -> consent.Round:
    dice = chance.random()
    if dice < 0.1:
        return consent.leave(current, component)
    if dice < 0.2:
        return consent.join(current, component)
    if dice < 0.6:
        return consent.answer(current, component, chance.choice((0, 0, 1_000, 30_000)), now)
    return current


def validate(chance: random.Random, asked: frozenset[str]) -> Generator[str, None, None]:
    """Raises NucleusError COMPONENT_CONFIGURATION_NOT_VALID if the answers, or silence that counts, forbid the change."""
    if not asked:
        return
    yield "validating"
    outcomes = {name: chance.choice((True, True, True, False, None)) for name in sorted(asked)}
    answers = {name: validation.Answer(said) for name, said in outcomes.items() if said is not None}
    strict = chance.random() < 0.3
    why = validation.objection(asked, answers, silence_fails=strict, timeout_s=TIMEOUT_S)
    refused = False in outcomes.values() or (strict and None in outcomes.values())
    assert bool(why) == refused, why
    if why:
        raise errors.NucleusError("COMPONENT_CONFIGURATION_NOT_VALID", why)
