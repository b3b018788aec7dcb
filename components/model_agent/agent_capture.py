"""Captures of what models saw and answered, kept on disk in Edge Manager's layout; no door's messages in here.

    <folder>/<prefix>/<fleet>/<model>/<YYYY>/<MM>/<DD>/<HH>/<number>.jsonl      one line for each capture (UTC of the inference)
                                                       .../<number>.tensors/    what was too large for a line, one file each

    {"eventMetadata": {"eventId", "deviceId", "modelName", "inferenceTime"},
     "deviceFleetInputs": [{"name", "observedContentType", "encoding", "data"} or {..., "file": "<number>.tensors/..."}],
     "deviceFleetOutputs": [the same]}

A record that `submit` took is on disk, whole: callers wait together for one fsync of all that came meanwhile. What a crash
left half is cut off at the next start. The store holds `disk_bytes` at most; the oldest units (a .jsonl and its folder) go first.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import agent_capture_files
import agent_capture_ids

IDS_LIMIT = 100_000  # of which the status is known
AHEAD_S = 1.0  # a time this far in the future is still now: clocks are read at two places
FAILED, SAVED, UNDER_WAY = "FAILURE", "SUCCESS", "IN_PROGRESS"

Item = agent_capture_files.Item
Record = agent_capture_files.Record


class CaptureError(Exception):
    """A record that is not kept: `code` has the name of a gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Bounds:
    """`buffer` records wait at most, `batch` of them share one fsync."""

    buffer: int = 64
    batch: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.batch <= self.buffer:
            raise ValueError(f"a batch of {self.batch} does not fit a buffer of {self.buffer} captures")


class _Waiting:
    def __init__(self, record: Record) -> None:
        self.record = record
        self.done = threading.Event()
        self.error = ""


class Capture:
    """Takes records from many threads, writes them on one; `files` is where.

    `here` is the status of a record in the store: SAVED, or UNDER_WAY where it is SAVED only when it was removed from here.
    `sent` remembers those that were removed, None for nobody asks.
    """

    def __init__(
        self,
        files: agent_capture_files.Files,
        bounds: Bounds = Bounds(),
        clock: Callable[[], float] = time.time,
        *,
        here: str = SAVED,
        sent: agent_capture_ids.Ids | None = None,
    ) -> None:
        self._files = files
        self._bounds = bounds
        self._clock = clock
        self._here = here
        self._sent = sent
        self._storing = threading.Lock()  # of the files
        self._changed = threading.Condition()
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._writing = 0
        self._statuses: collections.OrderedDict[str, str] = collections.OrderedDict()
        self._closed = False
        for identity in sent.read() if sent is not None else ():
            self._note(identity, SAVED)  # before those that are here: one may be both, if it was killed between
        self.repaired = files.open(self._known)
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def submit(self, record: Record) -> None:
        """Returns when the record is safe; raises CaptureError ALREADY_EXISTS, OUT_OF_RANGE, RESOURCE_EXHAUSTED."""
        if record.at > self._clock() + AHEAD_S:
            raise CaptureError("OUT_OF_RANGE", "the time of the inference is in the future")
        waiting = _Waiting(record)
        with self._changed:
            if self._statuses.get(record.identity, FAILED) != FAILED:
                raise CaptureError("ALREADY_EXISTS", f"there is a capture {record.identity} already")
            if self._closed or len(self._waiting) + self._writing >= self._bounds.buffer:
                raise CaptureError(
                    "RESOURCE_EXHAUSTED", f"{self._bounds.buffer} captures wait for the disk; send it again later"
                )
            self._note(record.identity, UNDER_WAY)
            self._waiting.append(waiting)
            self._changed.notify_all()
        waiting.done.wait()
        if waiting.error:
            raise CaptureError("RESOURCE_EXHAUSTED", f"the capture was not kept: {waiting.error}")

    def status(self, identity: str) -> str | None:
        """FAILED, SAVED or UNDER_WAY; None for an id nobody knows (any more)."""
        with self._changed:
            return self._statuses.get(identity)

    def closed(self, *, everything: bool = False) -> list[Path]:
        """The lines of units that nothing is added to any more, the oldest first; each may go by the bound at any time.

        `everything` closes the others, too.
        """
        with self._storing:
            return self._files.closed(self._clock(), everything=everything)

    def remove(self, path: Path) -> None:
        """Removes a closed unit: it is somewhere else now. Raises OSError."""
        if self._sent is None:
            with self._storing:
                self._files.remove(path)
            return
        identities = agent_capture_files.identities(path)
        with self._storing:
            self._sent.add(identities)
            self._files.remove(path)
        with self._changed:
            for identity in identities:
                self._note(identity, SAVED)

    def used_bytes(self) -> int:
        """What the store takes now."""
        with self._storing:
            return self._files.used_bytes()

    def close(self) -> None:
        """Takes nothing more and writes what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                count = min(len(self._waiting), self._bounds.batch)
                if not count:
                    return
                batch = [self._waiting.popleft() for _ in range(count)]
                self._writing = count
            errors = self._write(batch)
            with self._changed:
                self._writing = 0
                for each, error in zip(batch, errors, strict=True):
                    self._note(each.record.identity, FAILED if error else self._here)
                    each.error = error
                    each.done.set()

    def _write(self, batch: list[_Waiting]) -> list[str]:
        try:
            with self._storing:
                return self._files.write([each.record for each in batch])
        except Exception as error:  # no record may end this thread: the others wait for it
            return [f"{type(error).__name__}: {error}"] * len(batch)

    def _known(self, identity: str) -> None:
        self._note(identity, self._here)

    def _note(self, identity: str, status: str) -> None:
        self._statuses[identity] = status
        self._statuses.move_to_end(identity)
        if len(self._statuses) > IDS_LIMIT:
            self._statuses.popitem(last=False)
