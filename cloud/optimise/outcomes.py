"""What is known of each candidate: the records of report.json (pure)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloud.optimise import candidates, gate, runtimes

SOURCE, ACCEPTED, REFUSED, PASSED_OVER = "source", "accepted", "refused", "passed over"


class Outcome(msgspec.Struct, frozen=True, rename="camel"):
    """`state` is one of the words above; "passed over" says why it was not measured further. Zero is: not measured.

    `ratio` is its latency as a part of the source's, both taken in turns; `latency_ms` that part of the source's median,
    `p99_ms` the 99th percentile of its own `runs` calls. `precision` is what it says, `effective` what it computes in.
    """

    name: str
    form: str
    kind: str
    runtime: str
    settings: runtimes.Settings
    state: str
    precision: str
    effective: str = ""
    runtime_version: str = ""
    provider: str = ""
    reasons: tuple[gate.Reason, ...] = ()
    size_bytes: int = 0
    load_ms: float = 0.0
    memory_bytes: int = 0
    ratio: float = 0.0
    latency_ms: float = 0.0
    p99_ms: float = 0.0
    runs: int = 0
    deviation: float = 0.0
    accuracy: gate.Accuracy | None = None

    def with_reasons(self, reasons: Sequence[gate.Reason]) -> Outcome:
        """Accepted if there are none, else refused."""
        found = (*self.reasons, *reasons)
        return msgspec.structs.replace(self, reasons=found, state=REFUSED if found else ACCEPTED)


class Figures(msgspec.Struct, frozen=True, rename="camel"):
    """What a search found; `best` is the name of the pick, "" when the source wins. Seconds are of the whole search."""

    outcomes: tuple[Outcome, ...]
    best: str
    against: str
    metric: str
    exhaustive: bool
    measured: int
    seconds: float

    def named(self, name: str) -> Outcome:
        """The outcome of a candidate. Raises KeyError."""
        return {one.name: one for one in self.outcomes}[name]

    @property
    def source(self) -> Outcome:
        """The source's own figures."""
        return next(one for one in self.outcomes if one.state == SOURCE)


def begun(candidate: candidates.Candidate) -> Outcome:
    """Nothing measured yet."""
    return Outcome(
        name=candidate.name,
        form=candidate.form.name,
        kind=candidate.form.kind,
        runtime=candidate.runtime,
        settings=candidate.settings,
        state=PASSED_OVER,
        precision=candidate.precision,
    )
