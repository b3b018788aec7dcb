"""When a trial ends, and how (pure): exact bounds of the agreement with an error that holds over all looks.

    {"mode": "shadow" or "canary",
     "share": 1.0          of the live inputs that are compared (shadow), or answered by the new model (canary)
     "cpuShare": 0.25      computing time of the comparison's thread against time that passes
     "measure", "tolerance", "output", "detections"      agent_agreement.py
     "minimum": 0.95       agreement that is required, below 1
     "confidence": 0.95    of promoting rightly, and of refusing rightly
     "minimumSamples": 100   before a promotion
     "maxSeconds": 86400   of the agent's own run time, over restarts
     "undecided": "refuse" or "promote",      when that is over
     "slowestMs": 0}       computing time of the new model above which a sample counts against it; 0: any

A sample agrees or does not; an error and a slow answer do not. With n samples of which k agree, the exact binomial
(Clopper-Pearson) decides: promoted when the lower bound of the agreement reaches `minimum`, refused when the upper bound is
below it. Exact and not Wilson's, because near an agreement of 1 Wilson's bound promotes too often. Live traffic is looked
at again and again, so a fixed level would promote nearly everything in the end: look number j (from 1) may spend
(1 - confidence) * 6 / (pi * j)^2, which sums to (1 - confidence) over any number of looks, and looks happen when n grew by a
quarter, so that their number grows with log n only and each stays strong. Promotions and refusals have a budget each; refusals
are looked for from FIRST_REFUSAL samples on. The bounds hold for samples that are independent; neighbouring frames of a
video are not, so a small `share` is better there than a short trial.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import agent_agreement
import agent_settings

SHADOW, CANARY = "shadow", "canary"
PROMOTED, REFUSED = "promoted", "refused"
DISAGREES, UNDECIDED = "TRIAL_DISAGREES", "UNDECIDED"
FIRST_REFUSAL = 20
GROWTH = 1.25
_YEAR_S = 366 * 86400.0
_WORDS = {"mode": (SHADOW, CANARY), "undecided": ("refuse", "promote")}
_BISECTIONS = 24


@dataclass(frozen=True)
class Terms:
    """What was declared; shares are 0 to 1."""

    mode: str
    measure: agent_agreement.Measure
    share: float = 1.0
    cpu_share: float = 0.25
    minimum: float = 0.95
    confidence: float = 0.95
    minimum_samples: int = 100
    max_s: float = 86400.0
    undecided: str = "refuse"
    slowest_ms: float = 0.0


@dataclass(frozen=True)
class Counts:
    """What a trial has seen; `dropped` had no room or no computing time and says nothing about the model."""

    agreed: int = 0
    disagreed: int = 0
    errors: int = 0
    slow: int = 0
    dropped: int = 0
    promotion_looks: int = 0
    refusal_looks: int = 0
    elapsed_s: float = 0.0
    serving_ms: float = 0.0  # sums over samples, of computing
    candidate_ms: float = 0.0

    @property
    def samples(self) -> int:
        """How many were compared."""
        return self.agreed + self.disagreed + self.errors + self.slow


@dataclass(frozen=True)
class End:
    """How a trial ended: PROMOTED or REFUSED, with a code and the figures as a line."""

    outcome: str
    code: str
    reason: str


def read(given: Mapping[str, Any]) -> Terms | None:
    """The terms in `trial` of a model's settings, None for no trial. Raises agent_settings.SettingsError."""
    if not given:
        return None
    words = {name: given.get(name, "" if name == "mode" else allowed[0]) for name, allowed in _WORDS.items()}
    for name, allowed in _WORDS.items():
        if words[name] not in allowed:
            raise agent_settings.SettingsError(
                f"settings: trial.{name} is {words[name]!r}, it must be one of {', '.join(allowed)}"
            )
    samples = _number(given, "minimumSamples", 100, 1, 1e9)
    return Terms(
        words["mode"],
        agent_agreement.read(given, "trial"),
        share=_number(given, "share", 1.0, 1e-6, 1),
        cpu_share=_number(given, "cpuShare", 0.25, 0.001, 1),
        minimum=_number(given, "minimum", 0.95, 0.01, 0.9999),
        confidence=_number(given, "confidence", 0.95, 0.5, 0.999999),
        minimum_samples=math.ceil(samples),
        max_s=_number(given, "maxSeconds", 86400, 0.001, _YEAR_S),
        undecided=words["undecided"],
        slowest_ms=_number(given, "slowestMs", 0, 0, 1e6),
    )


def decide(terms: Terms, counts: Counts) -> tuple[Counts, End | None]:
    """Looks if a look is due; the counts with that look spent, and how the trial ended or None while it goes on."""
    over = counts.elapsed_s >= terms.max_s
    n, new = counts.samples, counts
    if n >= terms.minimum_samples and (over or n >= look_at(terms.minimum_samples, counts.promotion_looks)):
        new = dataclasses.replace(new, promotion_looks=new.promotion_looks + 1)
        if at_least(n, counts.agreed, terms.minimum) <= level(terms, new.promotion_looks):
            return new, End(PROMOTED, "", line(terms, new))
    first = min(FIRST_REFUSAL, terms.minimum_samples)
    if n >= first and (over or n >= look_at(first, counts.refusal_looks)):
        new = dataclasses.replace(new, refusal_looks=new.refusal_looks + 1)
        if at_most(n, counts.agreed, terms.minimum) <= level(terms, new.refusal_looks):
            return new, End(REFUSED, DISAGREES, line(terms, new))
    if not over:
        return new, None
    why = f"not decided within {terms.max_s:g} s: {line(terms, new)}"
    return new, End(PROMOTED, "", why) if terms.undecided == "promote" else End(REFUSED, UNDECIDED, why)


def look_at(first: int, looks: int) -> int:
    """The number of samples at which the look after `looks` others is due."""
    return math.ceil(first * GROWTH**looks)


def level(terms: Terms, look: int) -> float:
    """What look number `look` (from 1) may spend of the error."""
    return (1.0 - terms.confidence) * 6.0 / (math.pi * max(look, 1)) ** 2


def bounds(terms: Terms, counts: Counts) -> tuple[float, float]:
    """One-sided bounds of the agreement, each at the level of its last look."""
    n, k = counts.samples, counts.agreed
    low = _bound(n, k, level(terms, counts.promotion_looks))
    return low, 1.0 - _bound(n, n - k, level(terms, counts.refusal_looks))


def figures(terms: Terms, counts: Counts) -> dict[str, Any]:
    """What reports and listings say of a trial."""
    low, high = bounds(terms, counts)
    n = counts.samples
    return {
        "mode": terms.mode,
        "measure": terms.measure.kind,
        "samples": n,
        "agreed": counts.agreed,
        "disagreed": counts.disagreed,
        "errors": counts.errors,
        "slow": counts.slow,
        "dropped": counts.dropped,
        "agreement": round(counts.agreed / n, 6) if n else None,
        "low": round(low, 6),
        "high": round(high, 6),
        "minimum": terms.minimum,
        "confidence": terms.confidence,
        "elapsedSeconds": round(counts.elapsed_s, 1),
        "maxSeconds": terms.max_s,
        "servingMs": round(counts.serving_ms / n, 3) if n else None,
        "candidateMs": round(counts.candidate_ms / n, 3) if n else None,
    }


def line(terms: Terms, counts: Counts) -> str:
    """The same for people."""
    low, high = bounds(terms, counts)
    n = counts.samples
    more = "".join(
        f", {count} {what}" for what, count in (("errors", counts.errors), ("too slow", counts.slow)) if count
    )
    share = f" = {counts.agreed / n:.2%}" if n else ""
    return (
        f"{counts.agreed} of {n} answers agree by {terms.measure.kind}{share} (between {low:.2%} and {high:.2%} at "
        f"{terms.confidence:g}, {terms.minimum:.2%} wanted{more})"
    )


def at_least(n: int, k: int, p: float) -> float:
    """The chance of `k` or more agreeing ones of `n` at an agreement of `p`; 1 where it is not small (k <= n * p)."""
    if k <= n * p:
        return 1.0
    term = math.exp(
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
    )
    total, odds = term, p / (1.0 - p)
    for each in range(k, n):
        term *= (n - each) / (each + 1) * odds
        total += term
        if term < total * 1e-15:
            break
    return min(total, 1.0)


def at_most(n: int, k: int, p: float) -> float:
    """The chance of `k` or fewer; 1 where it is not small."""
    return at_least(n, n - k, 1.0 - p)


def _bound(n: int, k: int, chance: float) -> float:
    """The p at which `k` or more of `n` have this chance (below 1/2)."""
    if k == 0:
        return 0.0
    high = k / n
    low = max(0.0, high - math.sqrt(math.log(1.0 / chance) / (2 * n)))  # Hoeffding's bound is lower
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if middle > 0.0 and at_least(n, k, middle) <= chance:
            low = middle
        else:
            high = middle
    return low


def _number(given: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    return agent_agreement.number(given, key, default, "trial", low, high)
