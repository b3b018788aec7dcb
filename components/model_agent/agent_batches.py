"""Joins requests for one alias that wait at the same time into one run of its model (off unless its settings ask for it).

The first request of a batch leads: it waits for a core as every request does (and, if told, a little longer), and others of the
same names, types and row shapes join meanwhile; once it may compute, the batch is closed, its rows are computed at once, and
each request gets its own. So nothing waits longer for being joined unless `wait_s` says so. Only models all of whose inputs and
outputs have rows (a first dimension of any size) are joined. Whatever goes wrong with a batch, each of its requests is then
answered for itself: a bad one harms nobody else, nor a canary that was picked for it and could not answer it.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]


class Terms(Protocol):
    """agent_settings.Batching: at most so many rows, and how many seconds to wait for more though a core is free."""

    max_rows: int
    wait_s: float


@dataclass(frozen=True)
class Run:
    """What one run of the model gave (an agent_engine.Answer), from whom, and why not from who was picked."""

    answer: Any
    serving: Any
    why: str = ""


@dataclass(eq=False)
class _Member:
    inputs: Mapping[str, Array]
    rows: int
    begun: float
    told: threading.Event = field(default_factory=threading.Event)
    run: Run | None = None  # None when told: it is to be answered for itself, or to try again


class _Batch:
    def __init__(self, layout: Layout, first: _Member) -> None:
        self.layout = layout
        self.members = [first]
        self.rows = first.rows
        self.closed = False  # nobody joins or leaves any more
        self.taken = False  # it had a core
        self.full = threading.Event()

    def joined(self) -> dict[str, Array]:
        """The rows of all, in their order; a single member's own arrays."""
        if len(self.members) == 1:
            return dict(self.members[0].inputs)
        return {name: np.concatenate([one.inputs[name] for one in self.members]) for name, _, _ in self.layout}


class Batches:
    """`run(alias, take, deadline)` computes what `take` returns once it may; `late(alias, why)` makes the error of a deadline."""

    def __init__(
        self,
        run: Callable[[str, Callable[[], Mapping[str, Array]], float], Run],
        late: Callable[[str, str], Exception],
    ) -> None:
        self._run = run
        self._late = late
        self._lock = threading.Lock()
        self._forming: dict[str, _Batch] = {}
        self._following: dict[str, int] = {}

    def predict(self, alias: str, inputs: Mapping[str, Array], deadline: float, terms: Terms) -> tuple[Run, bool]:
        """The run for these inputs, and whether another request led it. Raises as `run`."""
        layout, rows = layout_of(inputs)
        if not 0 < rows < terms.max_rows:
            return self._run(alias, lambda: inputs, deadline), False
        while True:
            member = _Member(inputs, rows, time.monotonic())
            batch = self._join(alias, layout, member, terms)
            if batch is None:
                return self._lead(alias, self._begin(alias, layout, member), deadline, terms), False
            try:
                found = self._follow(alias, batch, member, deadline)
            finally:
                with self._lock:
                    self._following[alias] -= 1
                    if not self._following[alias]:
                        del self._following[alias]
            if found is not None:
                return found, True
            if batch.taken:  # it went wrong for all
                return self._run(alias, lambda: inputs, deadline), False
            # Its leader gave up before it had a core: another one leads.

    def waiting(self, alias: str) -> int:
        """Requests that wait for one that leads their batch."""
        return self._following.get(alias, 0)

    def _join(self, alias: str, layout: Layout, member: _Member, terms: Terms) -> _Batch | None:
        with self._lock:
            batch = self._forming.get(alias)
            if batch is None or batch.layout != layout or batch.rows + member.rows > terms.max_rows:
                return None
            batch.members.append(member)
            self._following[alias] = self._following.get(alias, 0) + 1
            batch.rows += member.rows
            if batch.rows == terms.max_rows:
                batch.full.set()
            return batch

    def _begin(self, alias: str, layout: Layout, member: _Member) -> _Batch:
        with self._lock:
            batch = self._forming[alias] = _Batch(layout, member)
        return batch

    def _lead(self, alias: str, batch: _Batch, deadline: float, terms: Terms) -> Run:
        if terms.wait_s:
            batch.full.wait(min(terms.wait_s, max(0.0, deadline - time.monotonic())))
        try:
            run = self._run(alias, lambda: self._take(alias, batch), deadline)
        except Exception:  # whatever it was, those who joined are answered by themselves
            first, *others = self._close(alias, batch)
            for one in others:
                one.told.set()
            if not others or not batch.taken:
                raise
            return self._run(alias, lambda: first.inputs, deadline)
        return self._share(alias, batch, run, deadline)

    def _share(self, alias: str, batch: _Batch, run: Run, deadline: float) -> Run:
        """Each member's rows, in memory of their own: who keeps some must not keep those of all."""
        first, *others = batch.members
        if not others:
            return run
        outputs = run.answer.outputs
        good = not run.why and all(each.ndim and each.shape[0] == batch.rows for each in outputs.values())
        begun, start = time.monotonic() - run.answer.computed_ms / 1000, first.rows
        for one in others:
            if good:
                own = {name: each[start : start + one.rows].copy() for name, each in outputs.items()}
                queued_ms = max(0.0, begun - one.begun) * 1000
                one.run = Run(dataclasses.replace(run.answer, outputs=own, queued_ms=queued_ms), run.serving)
            start += one.rows
            one.told.set()
        if not good:
            return self._run(alias, lambda: first.inputs, deadline)
        own = {name: each[: first.rows].copy() for name, each in outputs.items()}
        return Run(dataclasses.replace(run.answer, outputs=own), run.serving)

    def _follow(self, alias: str, batch: _Batch, member: _Member, deadline: float) -> Run | None:
        if member.told.wait(max(0.0, deadline - time.monotonic())):
            return member.run
        with self._lock:
            if not batch.closed:
                batch.members.remove(member)
                batch.rows -= member.rows
        if member.told.is_set():  # it came in the moment we gave up
            return member.run
        raise self._late(alias, "the deadline passed before its batch was computed")

    def _take(self, alias: str, batch: _Batch) -> Mapping[str, Array]:
        self._close(alias, batch)
        batch.taken = True
        return batch.joined()

    def _close(self, alias: str, batch: _Batch) -> list[_Member]:
        """Lets nobody join any more; its members, who stay as they are from now on."""
        with self._lock:
            batch.closed = True
            if self._forming.get(alias) is batch:
                del self._forming[alias]
        return batch.members


def is_possible(manifest: Any) -> bool:
    """Whether requests for this model (agent_check.Manifest) can be joined: every input and output has rows of any number."""
    return all(each.shape and each.shape[0] == -1 for each in (*manifest.inputs, *manifest.outputs))


def layout_of(inputs: Mapping[str, Array]) -> tuple[Layout, int]:
    """What requests must have in common to be joined, and the rows of these; 0 if they have none in common."""
    rows = {each.shape[0] if each.ndim else 0 for each in inputs.values()}
    layout = tuple(sorted((name, each.dtype.str, each.shape[1:]) for name, each in inputs.items()))
    return layout, rows.pop() if len(rows) == 1 else 0
