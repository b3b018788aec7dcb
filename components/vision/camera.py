"""A camera: shows frames at a steady rate to whoever connects to its Unix socket, here from a video file.

Each viewer gets frames of agent_frames.py, header `{"number", "at": epoch seconds, "place": index in the source, "source"}`
and a JPEG as body, without asking; one that is slow misses frames and never holds up the others. Where the pictures come
from is a Source; a file `source.json` in the work folder replaces the configured one while it is there:

    {"file": "/path/of/another.mjpeg", "framesPerSecond": 5}
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import agent_frames
import mjpeg
import stopping

VIEWERS_LIMIT = 16
SEND_S = 10.0
RATE_LIMIT = 1000.0


class Source(Protocol):
    """Where pictures come from: a file here, a device or a stream elsewhere."""

    name: str
    rate: float  # frames per second

    def take(self, number: int) -> tuple[int, bytes]:
        """The JPEG to show as frame `number`, with its index in the source."""
        ...


class Video:
    """A Motion JPEG file (or one JPEG), again and again."""

    def __init__(self, path: Path, rate: float) -> None:
        """Raises OSError or ValueError if it cannot be played."""
        if not 0 < rate <= RATE_LIMIT:
            raise ValueError(
                f"cannot play {path} at {rate} frames per second: it must be above 0, at most {RATE_LIMIT:g}"
            )
        self.name = path.name
        self.rate = rate
        self._frames = mjpeg.read(path)

    def take(self, number: int) -> tuple[int, bytes]:
        place = number % len(self._frames)
        return place, self._frames[place]


class Chooser:
    """The configured source, or the one of the override file while that is there and readable."""

    def __init__(self, configured: Source, override: Path) -> None:
        self.source = configured
        self._configured = configured
        self._override = override
        self._seen: tuple[int, int] | None = None

    def look(self) -> str:
        """Follows the override file; returns what changed, or an empty text."""
        try:
            found = self._override.stat()
        except FileNotFoundError:
            if self._seen is None:
                return ""
            self._seen, self.source = None, self._configured
            return f"{self._override} is gone; showing {self.source.name}"
        if (state := (found.st_mtime_ns, found.st_size)) == self._seen:
            return ""
        self._seen = state
        try:
            given = json.loads(self._override.read_bytes())
            self.source = Video(Path(given["file"]), float(given.get("framesPerSecond", self._configured.rate)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{self._override} is no source: {error}; still showing {self.source.name}"
        return f"{self._override} says to show {self.source.name}"


@dataclass(frozen=True)
class Frame:
    """What is being shown."""

    number: int
    header: dict[str, object]
    jpeg: bytes


class Stage:
    """Holds the newest frame for all viewers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None

    def show(self, frame: Frame) -> None:
        with self._changed:
            self._frame = frame
            self._changed.notify_all()

    def after(self, number: int) -> Frame:
        """Waits for a frame after this one; the newest."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None and self._frame.number > number)
            assert self._frame is not None
            return self._frame


def play(chooser: Chooser, stage: Stage, stopped: threading.Event) -> None:
    """Shows frames at the source's rate until stopped; a late moment is not caught up with."""
    due, number, looked_at = time.monotonic(), 0, 0.0
    while not stopped.wait(max(0.0, due - time.monotonic())):
        if time.monotonic() - looked_at >= 1.0:
            looked_at = time.monotonic()
            if said := chooser.look():
                print(said, flush=True)
        source = chooser.source
        place, jpeg = source.take(number)
        number += 1
        stage.show(Frame(number, {"number": number, "at": time.time(), "place": place, "source": source.name}, jpeg))
        due = max(due + 1 / source.rate, time.monotonic() - 1 / source.rate)


def serve(listener: socket.socket, stage: Stage) -> None:
    """Takes viewers until the listener is closed."""
    places = threading.BoundedSemaphore(VIEWERS_LIMIT)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if not places.acquire(blocking=False):
            connection.close()
            continue
        threading.Thread(target=_show, args=(connection, stage, places), daemon=True).start()


def _show(connection: socket.socket, stage: Stage, places: threading.BoundedSemaphore) -> None:
    number = 0
    try:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(SEND_S)
            while True:
                frame = stage.after(number)
                number = frame.number
                agent_frames.send(connection, frame.header, frame.jpeg)
    finally:
        places.release()


def listen(path: Path) -> socket.socket:
    """A socket for this user only; takes the place of one left by a predecessor."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(VIEWERS_LIMIT)
    return listener


def main(arguments: list[str]) -> int:
    """Shows until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="camera.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", type=Path, default=Path("camera.sock"))
    parser.add_argument("--video", type=Path, default=Path(__file__).with_name("walkers.mjpeg"))
    parser.add_argument("--override", type=Path, default=Path("source.json"))
    parser.add_argument("--frames-per-second", type=float, default=10.0)
    given = parser.parse_args(arguments)
    stopped = stopping.stop_signals()
    try:
        chooser = Chooser(Video(given.video, given.frames_per_second), given.override)
        listener = listen(given.socket)
    except (OSError, ValueError) as error:
        print(f"cannot start the camera: {error}", file=sys.stderr, flush=True)
        return 1
    stage = Stage()
    threading.Thread(target=serve, args=(listener, stage), daemon=True).start()
    print(f"showing {chooser.source.name} at {chooser.source.rate:g} frames per second on {given.socket}", flush=True)
    play(chooser, stage, stopped)
    listener.close()
    given.socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
