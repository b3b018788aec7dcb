"""The client process: asks the models of one agent at steady rates and writes down each answer.

    python -m tools.continuity_models.stream '{"files": agent's artifacts, "socket": path, "known": known.npz, "log": folder,
      "streams": {alias: {"rate": requests a second, or 0 for as quick as answers come, "threads": n}}}'

It ends when `<log>/stop` is there. Request number i is due at begin + i / rate, whatever became of the earlier ones, and its
time counts from then. `<log>/<alias>.csv` has lines `due,done,version,what` by time.monotonic(), which all processes of a
machine share; `what` is ok, wrong (not what that version must answer) or failed.
"""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

DEADLINE_S = 15.0
CLOSE = 1e-2
Array = np.ndarray[Any, Any]


class Known:
    """Inputs by alias, and what each version answers first for them."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self._arrays = {name: file[name] for name in file.files}

    def inputs(self, alias: str) -> list[Array]:
        return [self._arrays[f"{alias} {number}"] for number in range(len(self._arrays)) if self._has(alias, number)]

    def is_right(self, alias: str, number: int, version: str, answer: Array) -> bool:
        """Whether this is what the version answers; unknown versions answer nothing right."""
        want = self._arrays.get(f"{alias} {number} {version}")
        return want is not None and want.shape == answer.shape and bool(np.abs(want - answer).max() < CLOSE)

    def _has(self, alias: str, number: int) -> bool:
        return f"{alias} {number}" in self._arrays


class Log:
    """One line for each request, from many threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def write(self, due: float, version: str, what: str) -> None:
        line = f"{due:.6f},{time.monotonic():.6f},{version},{what}\n"
        with self._lock:
            self._file.write(line)


class Stream:
    """Requests for one alias from several threads, each with a connection of its own."""

    def __init__(self, alias: str, given: dict[str, Any], client: Any, known: Known, log: Log) -> None:
        self._alias, self._rate, self._threads = alias, float(given["rate"]), int(given["threads"])
        self._client, self._known, self._log = client, known, log
        self._inputs = known.inputs(alias)
        self._numbers = itertools.count()
        self._begin = time.monotonic() + 0.1

    def start(self, socket_path: str, stopped: threading.Event) -> list[threading.Thread]:
        made = [
            threading.Thread(target=self._ask, args=(self._client.Client(socket_path), stopped))
            for _ in range(self._threads)
        ]
        for one in made:
            one.start()
        return made

    def _ask(self, client: Any, stopped: threading.Event) -> None:
        while not stopped.is_set():
            number = next(self._numbers)  # one step of the interpreter: no two threads get the same
            due = self._begin + number / self._rate if self._rate else time.monotonic()
            if (early := due - time.monotonic()) > 0:
                stopped.wait(early)
            if stopped.is_set():
                return
            which = number % len(self._inputs)
            try:
                answer = client.predict(self._alias, {"image": self._inputs[which]}, deadline_s=DEADLINE_S)
            except (self._client.UnansweredError, self._client.RejectedError) as error:
                self._log.write(due, "", "failed")
                print(f"{self._alias}: {error}", file=sys.stderr, flush=True)
                continue
            first = next(iter(answer.outputs.values()))
            right = self._known.is_right(self._alias, which, answer.version, first)
            self._log.write(due, answer.version, "ok" if right else "wrong")


def main(given: dict[str, Any]) -> None:
    sys.path.insert(0, given["files"])
    client = importlib.import_module("model_client")
    folder, known = Path(given["log"]), Known(Path(given["known"]))
    stopped, pause = threading.Event(), threading.Event()
    threads = []
    for alias, each in given["streams"].items():
        stream = Stream(alias, each, client, known, Log(folder / f"{alias}.csv"))
        threads += stream.start(given["socket"], stopped)
    while not (folder / "stop").exists():
        pause.wait(0.05)
    stopped.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
