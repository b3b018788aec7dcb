"""A loaded model that can be taken out of memory: counts who computes with it, and ends when the last of them is done.

Everything that answers, tries or watches goes through the same count, so no request ever loses its model in the middle,
and a model that was closed is really let go, whoever still holds a reference.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import agent_growth


class GoneError(Exception):
    """The model is not in memory (any more, or just now); nothing was computed. Ask for what serves the alias and try again."""


class Guard:
    """`model` as agent_load.load returned it: has `manifest`, `predict(inputs)`, and may have `close()`."""

    def __init__(self, model: Any, growth: agent_growth.Growth | None = None) -> None:
        self.manifest = model.manifest
        self.growth = growth or agent_growth.Growth()  # what requests keep beyond what loading it took
        self.used_at = time.monotonic()
        self._model = model
        self._lock = threading.Lock()  # plain: every request takes it twice
        self._changed = threading.Condition(self._lock)
        self._under_way = 0
        self._closing = False

    @classmethod
    def parked(cls, manifest: Any) -> Guard:
        """One that is not in memory: only its manifest is known."""
        made = cls(_Parked(manifest))
        made.retire()
        return made

    @property
    def closed(self) -> bool:
        """Whether it takes no requests; the last ones may still compute."""
        return self._closing

    @property
    def gone(self) -> bool:
        """Whether it is out of memory."""
        return self._model is None

    @property
    def process(self) -> dict[str, Any]:
        """`process`: how that of a model that runs in its own is (agent_isolated.py); empty for the others."""
        found = getattr(self._model, "condition", None)
        return {"process": found} if found else {}

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the model answers; raises GoneError and what the model raises."""
        with self._lock:
            if self._closing:
                raise GoneError(f"{self.manifest.name} is not in memory")
            self._under_way += 1
            model = self._model
        try:
            size = 0
            for array in inputs.values():  # a sum() over them takes twice the time, of every request
                size += array.nbytes
            if size > self.growth.plain_bytes:
                return self.growth.predict(model, inputs, size)
            answer: dict[str, Any] = model.predict(inputs)
            return answer
        finally:
            del model  # or this frame would keep it
            self.used_at = time.monotonic()
            with self._lock:
                self._under_way -= 1
                if self.closed and not self._under_way:  # may have changed meanwhile
                    self._end()

    def relieve(self) -> None:
        """Lets it give back what large requests left with it, by a small one; raises GoneError and what the model raises."""
        with self._lock:
            if self._closing:
                raise GoneError(f"{self.manifest.name} is not in memory")
            self._under_way += 1
            model = self._model
        try:
            small = agent_growth.smallest(model.manifest.golden)
            self.growth.relieve(model, small, lambda: self._under_way == 1)
        finally:
            del model
            with self._lock:
                self._under_way -= 1
                if self.closed and not self._under_way:
                    self._end()

    def retire(self) -> None:
        """Takes no more requests; those under way finish, the last one lets the model go."""
        with self._changed:
            self._closing = True
            if not self._under_way:
                self._end()

    def wait(self, seconds: float) -> bool:
        """Whether a retired model was let go within this time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._model is None, seconds)

    def drain(self, seconds: float) -> bool:
        """Takes requests out: True when it is out of memory; False, and it takes requests again, when it took too long."""
        self.retire()
        with self._changed:
            if self._changed.wait_for(lambda: self._model is None, seconds):
                return True
            self._closing = False
            return False

    def _end(self) -> None:
        model, self._model = self._model, None
        close = getattr(model, "close", None)
        if close is not None:
            close()
        self._changed.notify_all()


class _Parked:
    """Stands for a model that was never loaded."""

    def __init__(self, manifest: Any) -> None:
        self.manifest = manifest
