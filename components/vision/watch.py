"""Watches a camera: asks the model behind the alias `detector` about each frame, follows what it finds, counts, draws.

Run by its recipe in the component's work folder, where it keeps answers.jsonl and counters.json (record.py) and annotated
frames in frames/, the newest FRAMES_KEPT. Nothing here knows which model answers; each answer says its version. A boot
without camera or model, an agent that restarts and a model that is exchanged are waited for: a frame fails only when
ANSWER_S passed without an answer.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_frames
import model_client
import pictures
import record
import ssd
import stopping
import tracks

ALIAS = "detector"
ANSWER_S = 10.0
CAMERA_S = 10.0  # a camera that shows nothing for so long is dialled again
FRAMES_KEPT = 400
FAINT = 0.3  # score of objects that are looked at; tracks.py says which of them begin a track


class Watch:
    """One camera's frames and what is in them."""

    def __init__(self, agent: str, folder: Path, facts: dict[str, Any], save_every: int) -> None:
        self._client = model_client.Client(agent)
        self._record = record.Record(folder, facts)
        self._tracks = tracks.Tracks()
        self._frames = folder / "frames"
        self._frames.mkdir(exist_ok=True)
        self._save_every = save_every
        self._saved = 0
        self._place = -1
        self._version = ""

    def look(self, header: dict[str, Any], jpeg: bytes) -> None:
        """Takes one frame; raises ValueError for one that is no picture."""
        picture = pictures.read(jpeg)
        image = pictures.tensor(picture)
        if int(header["place"]) <= self._place:
            self._tracks.cut()
        self._place = int(header["place"])
        begun = time.perf_counter()
        try:
            answer = self._client.predict(ALIAS, {"image": image}, deadline_s=ANSWER_S)
        except (model_client.UnansweredError, model_client.RejectedError) as error:
            self._record.failure(int(header["number"]), str(error))
            print(f"no answer for frame {header['number']}: {error}", file=sys.stderr, flush=True)
            return
        took_ms = (time.perf_counter() - begun) * 1000
        outputs = answer.outputs
        objects = ssd.decode(outputs["box_encodings"], outputs["class_predictions"], least=FAINT)
        found = self._tracks.feed(objects)
        self._record.answer(int(header["number"]), took_ms, answer.version, answer.tries, len(found))
        self._record.tell(version=answer.version, counted=dict(self._tracks.total), frame=header["number"])
        self._keep(picture, found, answer.version, took_ms)

    def _keep(self, picture: Any, found: tuple[tracks.Track, ...], version: str, took_ms: float) -> None:
        """Saves every n-th frame, and the first of each version."""
        new, self._version = version != self._version, version
        self._saved += 1
        if new:
            print(f"answers come from version {version}", flush=True)
        if not new and self._saved % self._save_every:
            return
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self._tracks.total.items()))
        words = f"model {version}   {took_ms:.1f} ms   in view: {len(found)}   counted: {counts or 'nothing yet'}"
        name = f"{self._saved:07d}-{version}.jpg"
        pictures.save(pictures.annotate(picture, found, words), self._frames / name)
        for old in sorted(self._frames.glob("*.jpg"))[:-FRAMES_KEPT]:
            old.unlink()


def frames(path: str, stopped: threading.Event) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What the camera shows until stopped; a camera that is not there yet, or goes, is dialled again."""
    said = ""
    while not stopped.is_set():
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(CAMERA_S)
                connection.connect(path)
                said = ""
                while not stopped.is_set():
                    yield agent_frames.receive(connection)
        except (OSError, agent_frames.ClosedError, agent_frames.FrameError) as error:
            if str(error) != said:
                said = str(error)
                print(f"waiting for the camera at {path}: {error}", flush=True)
            stopped.wait(0.2)


def main(arguments: list[str]) -> int:
    """Watches until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="watch.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--component-version", default="")
    parser.add_argument("--camera", default="../com.example.vision.Camera/camera.sock")
    parser.add_argument("--agent", default="../marram.ModelAgent/agent.sock")
    parser.add_argument("--save-every", type=int, default=10, help="frames")
    given = parser.parse_args(arguments)
    if given.save_every < 1:
        parser.error("--save-every must be 1 or more")
    stopped = stopping.stop_signals()
    facts = {"pid": os.getpid(), "component": given.component_version, "started_at": round(time.time(), 3)}
    watch = Watch(given.agent, Path(), facts, given.save_every)
    for header, jpeg in frames(given.camera, stopped):
        try:
            watch.look(header, jpeg)
        except (ValueError, KeyError) as error:
            print(f"passed over a frame: {error}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
