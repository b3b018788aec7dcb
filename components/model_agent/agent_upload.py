"""Uploads closed captures to S3 when a link and the day's budget allow it, and removes them here only then.

There may be several stores, each with its Uploads; they share the day's budget. Sampled captures are sent when their hour is
over; those of Edge Manager's door every few seconds (agent_edge_captures.py), which also asks whether there is a link at all.

The configuration `captureUpload` of the agent's recipe, as JSON in MARRAM_CAPTURE_UPLOAD; without a bucket nothing is sent:

    {"bucket": "captures", "prefix": "things/{thing}", "endpoint": "", "region": "", "bytesPerDay": 104857600}

`endpoint` empty is AWS's own; with one, `<endpoint>/<bucket>/<key>` is asked. `{thing}` in the prefix is the thing's name, so
that a policy can bind a device to its own keys (`${credentials-iot:ThingName}`). Credentials are the component's, from the
token exchange of its nucleus. A unit is its tensors and then the lines that name them, each under a key that never changes:

    <prefix>/<fleet>/<model>/<YYYY>/<MM>/<DD>/<HH>/<thing>-<store>-<number>.jsonl     and <number>.tensors/... beside it

so that sending again overwrites the same object. What was sent of a unit, and the bytes of the day (UTC), are on disk before the
next file: an agent that is killed goes on where it was. A file counts from the moment its sending begins. One that is larger
than a whole day's budget is sent on a day that has sent nothing else. A device without a link keeps what fits its disk
bound, the newest.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import agent_capture
import agent_credentials
import agent_s3
import agent_settings
import agent_upload_state

BYTES_PER_DAY = 100 * 1024 * 1024
LOOK_S = 30.0
_FIRST_LOOK_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 900.0
_LAST_S = 2.0


@dataclass(frozen=True)
class Source:
    """What is sent, and where to. `store` gives the open store or None; `folder` is the store's, which keys are relative to.

    `push_s` above 0: all that is there is closed and sent that often. `thing` is in the names of objects.
    """

    destination: agent_s3.Destination
    folder: Path
    thing: str
    store: Callable[[], agent_capture.Capture | None]
    push_s: float = 0.0
    credentials: agent_credentials.Source = agent_credentials.exchanged


class Uploads:
    """A service that sends what one source has."""

    def __init__(
        self, source: Source, budget: agent_upload_state.Budget, clock: Callable[[], float] = time.time
    ) -> None:
        self._source = source
        self._bucket = agent_s3.Bucket(source.destination, clock, source.credentials)
        self._prefix = source.destination.prefix.replace("{thing}", source.thing)
        self._budget = budget
        self._clock = clock
        self._link: str | None = None  # why there is none, "" if there is one; None before the first try
        self._failed_at: float | None = None  # monotonic, of the last try if that failed
        budget.join(self._state())
        self._random = random.Random()  # noqa: S311 spreads the tries of many devices
        self._changed = threading.Condition()
        self._closed = False
        self._recording = threading.Lock()  # of the state's file and the removal of units, against the end
        self._looks = 0  # how often somebody asked to look now
        self._seen = 0  # of these, when the last look began
        self._figures: dict[str, Any] = {"units": 0, "bytes": 0, "waitingUnits": 0, "today": 0, "error": ""}
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def figures(self, alias: str) -> dict[str, Any]:
        """Of all models together: units and bytes sent since the agent started, units that wait, bytes of the day, the error."""
        del alias
        with self._changed:
            return dict(self._figures)

    def no_link(self, wait_s: float) -> str:
        """Why nothing can be sent, as the last try found; "" if something can. Waits so long for the first try.

        A link is credentials and a connection; what the other side says of an object is another matter.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._link is not None or self._closed, wait_s)
            return "it was not tried yet" if self._link is None else self._link

    def hurry(self) -> None:
        """Looks now; after a failure only if that was some seconds ago."""
        with self._changed:
            if self._failed_at is None or time.monotonic() - self._failed_at >= _FIRST_PAUSE_S:
                self._failed_at = None
                self._looks += 1
                self._changed.notify_all()

    def look(self) -> None:
        """Ends a pause: there may be something to do, or a link again."""
        with self._changed:
            self._looks += 1
            self._changed.notify_all()

    def tick(self) -> list[str]:
        """Lines for the log."""
        with self._changed:
            lines, self._lines = self._lines, []
        return lines

    def close(self) -> None:
        """Ends; what was begun goes on with the next agent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with self._recording:  # after this nothing is changed on disk, even if a request is still under way
            self._bucket.close()
        self._thread.join(_LAST_S)

    def _run(self) -> None:
        usual_s = self._source.push_s or LOOK_S
        pause_s, failures = 0.0 if self._source.push_s else _FIRST_LOOK_S, 0
        while not self._closes_within(pause_s):
            pause_s = pause_s or _FIRST_LOOK_S
            store = self._source.store()
            if store is None:
                continue
            try:
                self._send_all(store)
                pause_s, failures = usual_s, 0
                self._note(error="")
            except Exception as error:  # of a network, a disk, a file: none may end the uploads for good
                failures += 1
                pause_s = pause_after(failures, self._random.random())
                self._note(error=f"{type(error).__name__}: {error}"[:300])
            finally:
                self._bucket.close()  # the other side would, before we look again

    def _send_all(self, store: agent_capture.Capture) -> None:
        """Sends what is closed, the oldest first, until all is sent or the day's budget is used."""
        state = self._state()
        self._budget.join(state)
        pushes = self._source.push_s > 0
        if pushes and self._link != "":
            self._connect()  # somebody asks whether there is a link
        # What is open is closed only when nothing older waits: without a link, thousands of small units would come to be.
        for everything in (False, True) if pushes else (False,):
            closed = store.closed(everything=everything)
            self._note(waitingUnits=len(closed), today=state.spent(self._clock()))
            if not self._send_units(closed, state, store):
                return

    def _send_units(
        self, closed: Sequence[Path], state: agent_upload_state.State, store: agent_capture.Capture
    ) -> bool:
        """Whether all of them are there, and no more here."""
        for place, lines in enumerate(closed):
            try:
                if not self._send_unit(lines, state):
                    return False
            except FileNotFoundError:
                if lines.exists():
                    raise  # something else is missing, as a file of certificates
                continue  # the oldest go when the disk bound is reached, whoever reads them
            with self._recording:
                if self._closed:
                    return False
                store.remove(lines)
            self._note(waitingUnits=len(closed) - place - 1, units=1)
        return True

    def _is_ending(self) -> bool:
        """Asked again: `close` comes from another thread while a file is being sent."""
        return self._closed

    def _state(self) -> agent_upload_state.State:
        return agent_upload_state.State.open(self._source.folder / "upload.json")

    def _send_unit(self, lines: Path, state: agent_upload_state.State) -> bool:
        """Whether all of the unit is there; False when the budget is used up or the agent ends."""
        tensors = lines.with_suffix(".tensors")
        files = [*sorted(tensors.iterdir()), lines] if tensors.is_dir() else [lines]
        with self._recording:
            if self._closed:
                return False
            state.begin(lines.relative_to(self._source.folder).as_posix())
        return all(path.name in state.sent or self._send_file(path, lines, state) for path in files)

    def _send_file(self, path: Path, lines: Path, state: agent_upload_state.State) -> bool:
        """Whether the file is there; False when the budget is used up or the agent ends."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if self._closed or not self._budget.allows(state, size, self._clock()):
                return False
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            self._connect()
            with self._recording:
                if self._closed or not self._budget.take(state, size, self._clock()):
                    return False
            self._note(today=state.spent(self._clock()))
            self._put(self._key(path, lines, state.store), file, size, digest)
        with self._recording:
            if self._is_ending():
                return False  # the next agent sends it again, to the same place
            state.done(path.name)
        self._note(sent_bytes=size)
        return True

    def _connect(self) -> None:
        try:
            self._bucket.connect()
        except Exception as error:
            self._tell_link(f"{error}" or repr(error))
            raise
        self._tell_link("")

    def _put(self, key: str, file: IO[bytes], size: int, digest: str) -> None:
        try:
            self._bucket.put(key, file, size, digest)
        except OSError as error:  # not S3Error: then there was an answer
            self._tell_link(f"{error}" or repr(error))
            raise

    def _tell_link(self, why_none: str) -> None:
        with self._changed:
            self._link = why_none
            self._changed.notify_all()

    def _key(self, path: Path, lines: Path, store: str) -> str:
        folder = path.parent.relative_to(self._source.folder).as_posix()
        name = f"{self._source.thing}-{store}-{path.name}" if path == lines else path.name
        return "/".join(filter(None, (self._prefix, folder, name)))

    def _note(self, *, error: str | None = None, units: int = 0, sent_bytes: int = 0, **values: int) -> None:
        with self._changed:
            self._figures.update(values)
            self._figures["units"] += units
            self._figures["bytes"] += sent_bytes
            if error is not None:
                self._failed_at = time.monotonic() if error else None
            if error is not None and error != self._figures["error"]:
                self._figures["error"] = error
                self._lines.append(f"captures: not uploaded for now: {error}" if error else "captures: uploading again")

    def _closes_within(self, seconds: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._looks != self._seen, seconds)
            self._seen = self._looks
            return self._closed


def pause_after(failures: int, chance: float) -> float:
    """Seconds until the next try after so many failures in a row; `chance` (0 to 1) spreads it between half and all."""
    longest = min(_FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), _LONGEST_PAUSE_S)
    return longest * (0.5 + chance / 2)


def read(given: Mapping[str, Any]) -> tuple[agent_s3.Destination | None, int]:
    """The destination, None without a bucket, and the bytes per day. Raises agent_settings.SettingsError."""
    destination = agent_s3.read(given)
    bytes_per_day = given.get("bytesPerDay", BYTES_PER_DAY)
    if isinstance(bytes_per_day, bool) or not isinstance(bytes_per_day, int | float) or not 0 < bytes_per_day <= 2**50:
        raise agent_settings.SettingsError(
            f"captureUpload: bytesPerDay is {bytes_per_day!r}, it must be a number of bytes"
        )
    return destination, int(bytes_per_day)
