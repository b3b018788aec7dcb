"""What requests keep in memory beyond what was measured when their model was loaded, and how it is given back.

onnxruntime keeps what a run allocates for the next one, so one large request may leave hundreds of megabytes with a small model
(160 MB for one of 512 KB to a model of 6 MB). A run larger than any before is measured and counts for its model from then on.
Where the budget has no room for it agent_space.py lets it be given back; runs from that size on then leave nothing behind,
which makes them slower (up to six times, where most of the time is memory), until there is room again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import agent_memory

UNBOUND = sys.maxsize
# Held while something is measured: what others allocate or give back meanwhile would be measured as its own. A run that
# finds it held leaves nothing behind instead, so that nobody waits for a model that hangs.
measuring = threading.Lock()


@contextlib.contextmanager
def undisturbed(wait_s: float = 1.0) -> Iterator[None]:
    """Nothing else is measured or given back meanwhile, unless that takes longer than `wait_s`."""
    held = measuring.acquire(timeout=wait_s)
    try:
        yield
    finally:
        if held:
            measuring.release()


class Growth:
    """That of one loaded model; without `gauge`, which starts to measure it, nothing is ever looked at.

    Requests of up to `plain_bytes` of inputs are nothing new; `grown_bytes` is kept now. `costly` is (bytes of inputs from which
    on a run leaves nothing behind, what it would keep), empty for none.
    """

    def __init__(
        self,
        gauge: Callable[[Any], Callable[[], int]] | None = None,
        known_bytes: int = UNBOUND,
        costly: tuple[int, ...] = (),
    ) -> None:
        self.plain_bytes = known_bytes
        self.grown_bytes = 0
        self.costly = costly
        self._known_bytes = known_bytes
        self._unsure = False  # given back once, while others computed
        self._gauge = gauge
        self._lock = threading.Lock()

    def predict(self, model: Any, inputs: Mapping[str, Any], size: int) -> dict[str, Any]:
        """What the model answers to more than `plain_bytes`; raises what it raises."""
        costly = self.costly
        if self._gauge is None or (costly and costly[0] <= size) or not measuring.acquire(blocking=False):
            return dict(model.predict(inputs, lean=True))
        taken, answer = self._gauge(model), dict[str, Any]()
        try:
            answer |= model.predict(inputs)
            return answer
        finally:  # one that failed may have made it keep something, too
            kept = taken() - total_bytes(answer)
            measuring.release()
            with self._lock:
                self.grown_bytes += max(0, kept)
                self.plain_bytes = max(self.plain_bytes, size)

    def relieve(self, model: Any, small: Mapping[str, Any], alone: Callable[[], bool]) -> None:
        """Gives back what is kept, by a run of `small` inputs; raises what the model raises.

        Where others compute with the model (not `alone`) they may hold some of it: it counts until the next time.
        """
        if not self.grown_bytes or not measuring.acquire(blocking=False):
            return
        try:
            with self._lock:
                if self.plain_bytes > self._known_bytes:
                    self.costly, self.plain_bytes = (self.plain_bytes, self.grown_bytes), self._known_bytes
                self._unsure = not self._unsure and not alone()
            model.predict(small, lean=True)
        finally:
            measuring.release()
        if not self._unsure:
            self.grown_bytes = 0

    def allow(self, free_bytes: int) -> None:
        """Large runs may keep what they allocate again, if that much is free."""
        if self.costly and self.costly[1] <= free_bytes:
            self.costly = ()


def total_bytes(arrays: Mapping[str, Any]) -> int:
    """What arrays take."""
    return sum(array.nbytes for array in arrays.values())


def smallest(golden: tuple[tuple[dict[str, Any], dict[str, Any]], ...]) -> dict[str, Any]:
    """The inputs of the golden sample that is quickest to compute."""
    return min((inputs for inputs, _ in golden), key=total_bytes)


def gauge(allocator: agent_memory.Allocator) -> Callable[[Any], Callable[[], int]]:
    """Starts to measure a model, in its own process where it has one; what that returns says what it took since then."""

    def started(model: Any) -> Callable[[], int]:
        pid = getattr(model, "pid", 0)
        if not pid:
            return agent_memory.Gauge(allocator).taken
        before = agent_memory.process_bytes(pid)
        return lambda: agent_memory.process_bytes(pid) - before

    return started
