"""What is kept and told of each trial (pure): `trials.json` is {"trials": [a record, ...]}."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import agent_settings
import agent_trial_rules

RUNNING, SUPERSEDED = "running", "superseded"


@dataclass(frozen=True)
class Record:
    """One trial on disk; `outcome` is RUNNING, SUPERSEDED or one of agent_trial_rules, times are epoch seconds."""

    alias: str
    component: str
    version: str
    digest: str
    settings: str
    counts: agent_trial_rules.Counts
    began_at: float
    outcome: str = RUNNING
    code: str = ""
    reason: str = ""
    ended_at: float = 0.0
    acted: bool = False

    def of(self, candidate: Any) -> bool:
        """Whether it is the trial of this candidate, with these settings."""
        return candidate is not None and (self.digest, self.version, self.settings) == (
            candidate.digest,
            candidate.version,
            agent_settings.text(candidate.settings),
        )

    def runs_as(self, known: Record) -> bool:
        """Whether it runs still, and is the trial that `known` was; counts may have gone on."""
        return self.outcome == RUNNING and self == dataclasses.replace(known, counts=self.counts)


def written(records: Iterable[Record]) -> dict[str, Any]:
    """What `read` takes."""
    return {"trials": [dataclasses.asdict(each) for each in records]}


def read(content: Any) -> list[Record]:
    """The records of a file, of none (None) no records. Raises ValueError, TypeError, KeyError or AttributeError."""
    return [
        Record(**{**given, "counts": agent_trial_rules.Counts(**given["counts"])})
        for given in (content["trials"] if content is not None else ())
    ]


def fields(record: Record) -> dict[str, Any]:
    """A record as reports and listings have it, without figures for terms that only another agent's release knows."""
    terms = None
    with contextlib.suppress(agent_settings.SettingsError):
        terms = agent_trial_rules.read(agent_settings.from_text(record.settings).trial)
    said = {
        "alias": record.alias,
        "component": record.component,
        "version": record.version,
        "outcome": record.outcome,
        "code": record.code,
        "reason": record.reason,
        "beganAt": record.began_at,
        "endedAt": record.ended_at,
    }
    return said if terms is None else said | agent_trial_rules.figures(terms, record.counts)
