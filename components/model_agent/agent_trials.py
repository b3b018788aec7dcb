"""All trials of one agent: begun for every candidate, kept over crashes, ended by promotion or refusal, and told.

`trials.json` in the store has one record for each trial that runs and the newest ENDED_LIMIT that ended. It is written every
agent_trial.SAVE_S while samples come, before each look counts, and at the end: what a crash takes are samples, and none is
counted twice. The end is written before it is acted on, and acted on again after a crash in between:

    decided (outcome in the record) -> a refusal into agent_verdicts.py -> agent_aliases promotes or drops -> reported -> acted

A candidate that is gone without an outcome (withdrawn, or another was offered) ends as SUPERSEDED. One that may not answer any
more (its key was revoked, a floor is above it) is refused without a verdict: for as long as that holds. A trial's time is the
agent's run time: a device that was off has seen nothing.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import agent_aliases
import agent_check
import agent_durable
import agent_engine
import agent_gate
import agent_predictions
import agent_report
import agent_settings
import agent_signature
import agent_trial
import agent_trial_records
import agent_trial_rules

ENDED_LIMIT = 32
Record = agent_trial_records.Record


class Trials:
    """A service, an observer, and the route of the engine; `disagreed` takes what a trial's model answers otherwise."""

    def __init__(
        self,
        aliases: agent_aliases.Aliases,
        reporter: agent_report.Publisher,
        disagreed: Callable[[agent_engine.Observation], None] = lambda observation: None,
    ) -> None:
        self._aliases = aliases
        self._reporter = reporter
        self._disagreed = disagreed
        self._path = aliases.gate.store / "trials.json"
        self._lock = threading.RLock()  # of the records and of their file
        self._running: dict[str, agent_trial.Trial] = {}
        self._records: dict[str, Record] = {}  # by alias: the one that runs
        self._ended: list[Record] = []
        self._lines: list[str] = []
        self._said = ""
        try:
            self._read(agent_durable.read(self._path))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._records, self._ended = {}, []
            self._lines.append(agent_durable.put_aside(self._path, error))

    # ---- the serving threads' part -----------------------------------------------------------------------------------

    def observe(self, observation: agent_engine.Observation) -> None:
        """Called by the engine after each answer."""
        trial = self._running.get(observation.alias)
        if trial is not None:
            trial.observe(observation)

    def route(self, alias: str, serving: Any) -> Any:
        """Who answers one request."""
        trial = self._running.get(alias)
        if trial is None or trial.ending or trial.terms.mode != agent_trial_rules.CANARY:
            return serving
        return trial.canary(serving)

    def fell_back(self, observation: agent_engine.Observation, why: str) -> None:
        """Called by the engine for a request that the candidate could not answer and the serving model did."""
        trial = self._running.get(observation.alias)
        if trial is not None:
            trial.fell_back(observation, why)

    # ---- the service -------------------------------------------------------------------------------------------------

    def tick(self) -> list[str]:
        """Begins trials of new candidates, ends those whose candidate is gone."""
        with self._lock:
            known = {row["alias"] for row in self._aliases.listed()} | set(self._records)
        for alias in sorted(known):
            self._follow(alias)
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    def close(self) -> None:
        """Stops them and keeps what they counted."""
        for trial in list(self._running.values()):
            trial.stop()
            if not trial.ending:
                self._save(trial)
        self._running = {}

    def answer(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """The operation `trial`: {"alias": one, or none for all} -> {"trials": [...]}, those that run first."""
        alias = agent_predictions.text(header, "alias") if "alias" in header else ""
        return {"ok": True, "trials": self.listed(alias)}

    def listed(self, alias: str = "") -> list[dict[str, Any]]:
        """What is known of trials, the running ones first, then the latest."""
        with self._lock:
            records = [*(self._current(each) for each in self._records.values()), *reversed(self._ended)]
        return [agent_trial_records.fields(each) for each in records if alias in ("", each.alias)]

    def _current(self, record: Record) -> Record:
        """With its counts of this moment; a trial runs until its end was acted on."""
        trial = self._running.get(record.alias)
        counts = record.counts if trial is None or record.outcome != agent_trial_records.RUNNING else trial.counts()
        return dataclasses.replace(
            record, counts=counts, outcome=agent_trial_records.RUNNING, code="", reason="", ended_at=0.0
        )

    # ---- one trial ---------------------------------------------------------------------------------------------------

    def _follow(self, alias: str) -> None:
        trial, record = self._running.get(alias), self._records.get(alias)
        candidate = self._aliases.candidate(alias)  # after them: one whose trial ends just now is not tried again
        if trial is not None and trial.ending:
            return  # its own thread is at it
        if record is not None and record.outcome != agent_trial_records.RUNNING:
            self._act(record)  # an earlier run was killed between the end and its consequences
            return
        if record is not None and not (record.of(candidate) or self._aliases.waits(alias, record.digest)):
            self._supersede(record)
            record = trial = None
        elif record is not None and (why := self._ruled_out(candidate)) is not None:
            self._rule_out(record, why)
            return
        if candidate is not None and trial is None:
            self._begin(alias, candidate, record)

    def _begin(self, alias: str, candidate: Any, known: Record | None) -> None:
        try:
            terms = agent_trial_rules.read(candidate.settings.trial)
        except agent_settings.SettingsError as error:  # refused at the offer; a store written by another agent
            self._say(f"trial of {alias} {candidate.version} cannot begin: {error}")
            return
        if terms is None:
            return
        record = known or Record(
            alias,
            candidate.component,
            candidate.version,
            candidate.digest,
            agent_settings.text(candidate.settings),
            agent_trial_rules.Counts(),
            time.time(),
        )
        trial = agent_trial.Trial(alias, candidate, terms, record.counts, self._aliases.serving)
        trial.save, trial.ended, trial.disagreed = self._save, self._end, self._disagreed
        with self._lock:
            self._records[alias] = record
            self._write()
            self._running[alias] = trial
        trial.start()
        what = "goes on with" if known else "begins with"
        self._say(f"trial: {terms.mode} of {alias} {what} {candidate.version} ({record.counts.samples} samples)")

    def _ruled_out(self, candidate: Any) -> agent_check.RefusedError | None:
        """Why it may not answer any more, not even a share of requests."""
        try:
            self._aliases.gate.admission.check_still(candidate)
        except agent_check.RefusedError as error:
            return error
        return None

    def _rule_out(self, record: Record, why: agent_check.RefusedError) -> None:
        """Raises OSError when the end could not be kept; until it is, the trial stands still."""
        trial = self._running.pop(record.alias, None)
        if trial is not None:
            trial.stop()
        reason = str(why).removeprefix(f"{why.code}: ")
        decided = self._decide(record, agent_trial_rules.End(agent_trial_rules.REFUSED, why.code, reason), trial)
        if decided is not None:
            self._act(decided)

    def _supersede(self, record: Record) -> None:
        trial = self._running.pop(record.alias, None)
        if trial is not None:
            trial.stop()
        known = self._records.get(record.alias)
        if known is None or not known.runs_as(record):
            return  # it ended in this moment
        if trial is not None:
            record = dataclasses.replace(record, counts=trial.counts())
        why = "its candidate is gone: another version was offered, it was withdrawn, or it may not be loaded again"
        ended = dataclasses.replace(
            record,
            outcome=agent_trial_records.SUPERSEDED,
            code=agent_trial_records.SUPERSEDED.upper(),
            reason=why,
            ended_at=time.time(),
            acted=True,
        )
        self._put_away(ended)
        self._say(f"trial of {record.alias} {record.version} ended: {why}")

    def _save(self, trial: agent_trial.Trial) -> None:
        with self._lock:
            record = self._records.get(trial.alias)
            if record is not None and record.outcome == agent_trial_records.RUNNING and record.of(trial.candidate):
                self._records[trial.alias] = dataclasses.replace(record, counts=trial.counts())
                self._write()

    def _end(self, trial: agent_trial.Trial, end: agent_trial_rules.End) -> None:
        """Called on the trial's own thread. Raises OSError when the end could not be kept: then it is none."""
        record = self._records.get(trial.alias)
        decided = self._decide(record, end, trial) if record is not None and record.of(trial.candidate) else None
        if decided is not None:
            self._act(decided)

    def _decide(self, known: Record, end: agent_trial_rules.End, trial: agent_trial.Trial | None) -> Record | None:
        """The record with its end, kept before anything follows from it; None if it has ended already. Raises OSError."""
        with self._lock:
            record = self._records.get(known.alias)
            if record is None or not record.runs_as(known):
                return None  # in this moment
            counts = record.counts if trial is None else trial.counts()
            ended = dataclasses.replace(record, outcome=end.outcome, code=end.code, reason=end.reason)
            decided = self._records[known.alias] = dataclasses.replace(ended, counts=counts, ended_at=time.time())
            try:
                self._write()
            except OSError:
                self._records[known.alias] = record
                raise
        return decided

    def _act(self, record: Record) -> None:
        """Does what was decided; may have happened already, in whole or in part, before a crash.

        Where it cannot be done just now (a full disk, another agent that takes over, a trust that cannot be read) the next
        tick tries again.
        """
        try:
            if record.outcome == agent_trial_rules.REFUSED and record.code not in agent_signature.KEPT_CODES:
                verdicts = self._aliases.gate.admission.verdicts
                verdicts.keep(
                    record.digest, agent_gate.RUNTIME, record.settings, False, code=record.code, reason=record.reason
                )
            record, line = self._consequence(record)
            self._put_away(dataclasses.replace(record, acted=True))
        except OSError as error:
            line = f"the trial of {record.alias} {record.version} ended as {record.outcome}; it waits to be acted on: {error}"
        finally:
            self._running.pop(record.alias, None)
        self._say(f"trial: {line}")

    def _consequence(self, record: Record) -> tuple[Record, str]:
        """What the end led to, and a line about it: who won but may not answer any more is refused, for as long as that holds."""
        alias, won = record.alias, record.outcome == agent_trial_rules.PROMOTED
        try:
            if won:
                reason = f"{record.version} won its trial: {record.reason}"
                return record, self._aliases.promote(alias, reason, record.digest)
            return record, self._aliases.drop_candidate(alias, record.code, record.reason, record.digest)
        except agent_check.RefusedError as error:
            if won and error.code == agent_signature.UNREADABLE:
                raise OSError(str(error)) from error
            if won and error.code in agent_signature.KEPT_CODES:
                reason = str(error).removeprefix(f"{error.code}: ")
                lost = dataclasses.replace(record, outcome=agent_trial_rules.REFUSED, code=error.code, reason=reason)
                return self._consequence(lost)
            ended = f"{alias}: the trial of {record.version} ended as {record.outcome}"
            return record, f"{ended}, and nothing was left to do: {error}"

    def _put_away(self, record: Record) -> None:
        self._reporter.publish(record.alias, "trial", agent_trial_records.fields(record))
        with self._lock:
            self._records.pop(record.alias, None)
            self._ended = [*self._ended, record][-ENDED_LIMIT:]
            self._write()

    # ---- disk --------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        agent_durable.write(self._path, agent_trial_records.written((*self._records.values(), *self._ended)))

    def _read(self, content: Any) -> None:
        for record in agent_trial_records.read(content):
            if record.acted:
                self._ended.append(record)
            else:
                self._records[record.alias] = record

    def _say(self, line: str) -> None:
        with self._lock:
            if line != self._said:  # what is tried again every second is told once
                self._lines.append(line)
            self._said = line
