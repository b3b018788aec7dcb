"""How long one run of a model may take, and the end of those that take longer: a model that hangs must not keep a core.

A model in a process of its own is killed with it (agent_isolated.py). One inside the agent is ended by the runtime's own flag,
which onnxruntime looks at between two operators, each round of a loop included; a single operator cannot be interrupted. The
flag belongs to the options of a run, so runs that begin within the same TURN_S share theirs, and a thread looks once per turn
which are still in use: that costs a request nothing.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

import onnxruntime

LONGEST_S = 60.0  # nobody waits for an answer longer (agent_predictions.LONGEST_S)
LEAST_S = 5.0
TIMES_SLOWEST = 20  # inputs differ, and so does what else the device does meanwhile
TURN_S = 1.0


def patience_s(given_s: float, slowest_s: float) -> float:
    """How long a run may take: `given_s` (hangSeconds), or, at 0, by the slowest that came to its end; 0 for none yet."""
    if given_s:
        return given_s
    return min(max(TIMES_SLOWEST * slowest_s, LEAST_S), LONGEST_S) if slowest_s else LONGEST_S


class Patience:
    """What `patience_s` says of one model's runs up to now, in `seconds`."""

    def __init__(self, given_s: float = 0.0) -> None:
        self.seconds = patience_s(given_s, 0.0)
        self._given_s = given_s
        self._slowest_s = 0.0

    def saw(self, took_s: float) -> None:
        """A run came to its end."""
        if took_s > self._slowest_s:
            self._slowest_s = took_s
            self.seconds = patience_s(self._given_s, took_s)


class Runs:
    """The runs of one model inside the agent: each is given the `options` of the moment, and must hold them to its end."""

    def __init__(self, longest_s: float = LONGEST_S, lean: bool = False) -> None:
        """`lean`: onnxruntime gives back what a run allocated, and keeps nothing for the next."""
        self.longest_s = longest_s
        self._lean = lean
        self.options = self._made()
        self._older: list[tuple[float, weakref.ref[Any]]] = []  # until when runs may have begun with them
        with _known:
            _all.add(self)

    def turn(self, now: float) -> int:
        """Ends runs that began `longest_s` before `now` (time.monotonic()) or earlier.

        Returns how many options of earlier turns are in use still.
        """
        before, self.options = self.options, self._made()
        self._older.append((now, weakref.ref(before)))
        del before
        self._older = [(until, each) for until, each in self._older if each() is not None]
        for until, each in self._older:
            options = each()
            if options is not None and now - until >= self.longest_s:
                options.terminate = True
        return len(self._older)

    def _made(self) -> Any:
        made = onnxruntime.RunOptions()
        if self._lean:
            made.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return made


_all: weakref.WeakSet[Runs] = weakref.WeakSet()
_known = threading.Lock()  # nobody may come while somebody looks through all
_watching = threading.Lock()  # held for good by the one who starts the thread


def watch() -> None:
    """From now on a thread of this process ends the runs of all its models that take too long."""
    if _watching.acquire(blocking=False):
        threading.Thread(target=_watch, name="runs", daemon=True).start()


def _watch() -> None:
    turn = threading.Event()
    while not turn.wait(TURN_S):
        _turn_all()


def _turn_all() -> None:
    with _known:
        found = list(_all)
    for runs in found:
        runs.turn(time.monotonic())
