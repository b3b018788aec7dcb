"""Answers requests and captures a sample until it is killed; prints the id of each capture that was asked for and is safe."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import agent_capture_store
import agent_captures
import agent_engine
import agent_settings
import numpy as np

SETTINGS = agent_settings.Settings(capture={"rate": 0.5, "onRequest": True, "perMinute": 1000000})
SERVING = SimpleNamespace(
    model=SimpleNamespace(predict=lambda inputs: {"y": inputs["x"] * 2}),
    component="c",
    version="1.0.0",
    digest="d" * 64,
    settings=SETTINGS,
)


def ask(engine: agent_engine.Engine, captures: agent_captures.Captures, size: int) -> None:
    number = 0
    while True:
        number += 1
        engine.predict("a", {"x": np.full((1, size), number, np.float32)}, 1e12)
        with contextlib.suppress(agent_captures.RequestError):
            identity = captures.request("a")
            os.write(1, f"{identity}\n".encode())  # whole lines, whoever else writes


def main(folder: str, disk_bytes: int) -> None:
    where = agent_capture_store.Where(Path(folder), "default", "crane", disk_bytes)
    captures = agent_captures.Captures(where, lambda alias: SERVING)
    engine = agent_engine.Engine(lambda alias: SERVING, cores=4)
    engine.observers.append(captures.observe)
    for size in (4, 2000):  # within the line, and a file beside it
        threading.Thread(target=ask, args=(engine, captures, size)).start()


main(sys.argv[1], int(sys.argv[2]))
