"""Watches one wind turbine: replays its measurements, asks the model agent what to expect, raises alarms.

Run by its recipe in the component's work folder, where it keeps alarms.sqlite and counters.json. Rows are asked for in
batches, at `--rows-per-second`; after the last row the replay begins again (windows known by then raise no new alarm).
A restart goes on where the last one stopped. A model that is exchanged, an agent that restarts are waited for; a batch
the agent did not answer within ANSWER_S counts as failed predictions, and is asked for again.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import alarms
import model_client
import numpy as np
import publisher
import replay
import stopping
import windows

ALIAS = "power-curve"
ANSWER_S = 10.0
PATIENCE_S = 2.0  # one wait for the agent; between two it is looked whether to stop, and said what is waited for
BATCHES_PER_SECOND = 20
LARGEST_BATCH_ROWS = 256


class Monitor:
    """One turbine's replay and what came of it; `counters` may be read by another thread."""

    def __init__(self, rows: Sequence[replay.Row | None], turbine: str, store: alarms.Alarms, agent: str) -> None:
        self._rows = rows
        self._turbine = turbine
        self._store = store
        self._client = model_client.Client(agent)
        self._detector = windows.Detector()
        self._next, self._passes = store.progress(turbine)
        self._next %= len(rows)
        self._seen: dict[str, Any] = {
            "rows": 0,
            "predictions_ok": 0,
            "predictions_failed": 0,
            "tries_again": 0,
            "slowest_answer_ms": 0.0,
            "model_versions": {},
            "model_version": "",
            "alarms": store.count(),
            "last_row": "",
        }

    def counters(self) -> dict[str, Any]:
        """A copy of the counters."""
        return {**self._seen, "model_versions": dict(self._seen["model_versions"]), "passes": self._passes}

    def wait_for_model(self, stopped: threading.Event) -> None:
        """Returns when the first prediction came: a boot without a model yet is no failure."""
        probe = np.array([[8.0, 10.0]], dtype=np.float32)
        while not stopped.is_set():
            try:
                answer = self._client.predict(ALIAS, {"conditions": probe}, deadline_s=PATIENCE_S)
            except (model_client.UnansweredError, model_client.RejectedError) as error:
                print(f"waiting for a model: {error}", flush=True)
                stopped.wait(PATIENCE_S if isinstance(error, model_client.RejectedError) else 0.0)
            else:
                print(f"watching {self._turbine} with {answer.component} {answer.version}", flush=True)
                return

    def run(self, rows_per_second: float, stopped: threading.Event) -> None:
        """Replays until `stopped`, at an even pace."""
        size = max(1, min(LARGEST_BATCH_ROWS, round(rows_per_second / BATCHES_PER_SECOND)))
        due = saved_at = time.monotonic()
        while not stopped.wait(max(0.0, due - time.monotonic())):
            batch = self._rows[self._next : self._next + size]
            if self._watch(batch, stopped):
                self._advance(len(batch))
            due = max(due + len(batch) / rows_per_second, time.monotonic() - 1.0)  # a long wait is not caught up with
            if time.monotonic() - saved_at >= 1.0:
                saved_at = time.monotonic()
                self._save()
        self._save()

    def _watch(self, batch: Sequence[replay.Row | None], stopped: threading.Event) -> bool:
        """Judges one batch; False if there was no answer for it, so that it comes again."""
        complete = [row for row in batch if row is not None]
        expected: list[float] = []
        if complete:
            answer = self._expect(complete, stopped)
            if answer is None:
                return False
            expected = answer.outputs["power_kw"].reshape(-1).tolist()
            self._count(complete, answer)
        powers = iter(expected)
        for row in batch:
            power_kw = 0.0 if row is None else next(powers)
            window = self._detector.feed(row, power_kw, self._seen["model_version"])
            if window is not None and self._store.record(self._turbine, window):
                self._seen["alarms"] += 1
        self._seen["rows"] += len(batch)
        return True

    def _expect(self, rows: Sequence[replay.Row], stopped: threading.Event) -> model_client.Answer | None:
        """The model's answer for these rows, or None if none came in time or the monitor is to stop."""
        array = np.array([[row.wind_speed_m_s, row.outdoor_c] for row in rows], dtype=np.float32)
        asked = time.monotonic()
        while True:
            try:
                answer = self._client.predict(ALIAS, {"conditions": array}, deadline_s=PATIENCE_S)
            except (model_client.UnansweredError, model_client.RejectedError) as error:
                if stopped.is_set():
                    return None
                if isinstance(error, model_client.RejectedError) or time.monotonic() - asked >= ANSWER_S:
                    self._seen["predictions_failed"] += len(rows)
                    print(f"prediction failed: {error}", file=sys.stderr, flush=True)
                    return None
                self._seen["tries_again"] += 1
                continue
            took_ms = round((time.monotonic() - asked) * 1000, 1)
            self._seen["slowest_answer_ms"] = max(self._seen["slowest_answer_ms"], took_ms)
            self._seen["tries_again"] += answer.tries - 1
            return answer

    def _count(self, complete: Sequence[replay.Row], answer: model_client.Answer) -> None:
        versions = self._seen["model_versions"]
        self._seen["model_versions"] = {**versions, answer.version: versions.get(answer.version, 0) + len(complete)}
        self._seen["model_version"] = answer.version
        self._seen["predictions_ok"] += len(complete)
        self._seen["last_row"] = complete[-1].time

    def _advance(self, rows: int) -> None:
        self._next += rows
        if self._next >= len(self._rows):
            self._next = 0
            self._passes += 1
            self._detector = windows.Detector()
            print(f"all {len(self._rows)} rows of {self._turbine} replayed, beginning again", flush=True)

    def _save(self) -> None:
        # A restart in the middle of a low stretch must see its beginning again.
        self._store.save_progress(self._turbine, max(0, self._next - self._detector.open_rows), self._passes)


def main(arguments: list[str]) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    given = _parse(arguments)
    try:
        publisher.require_nucleus()
        if not given.rows_per_second > 0:
            raise ValueError(f"cannot replay {given.rows_per_second} rows per second: give a number above 0")
        data = Path(__file__).with_name("scada.csv.gz")
        turbine = replay.choose_turbine(given.thing, given.turbine, replay.turbines(data))
        monitor = Monitor(replay.read(data, turbine), turbine, alarms.Alarms(Path("alarms.sqlite")), given.agent)
    except (OSError, ValueError, sqlite3.Error) as error:
        print(f"cannot start the monitor: {error}", file=sys.stderr, flush=True)
        return 1
    return _run(monitor, turbine, given)


def _run(monitor: Monitor, turbine: str, given: argparse.Namespace) -> int:
    stopped = stopping.stop_signals()
    who = {"thing": given.thing, "turbine": turbine, "version": given.component_version, "pid": os.getpid()}
    who["started_at"] = round(time.time(), 3)

    def counters() -> dict[str, Any]:
        return {**who, "at": round(time.time(), 3), **monitor.counters()}

    told = publisher.Publisher(given.thing, Path(), counters)
    teller = threading.Thread(target=told.run, args=(stopped,))
    teller.start()
    try:
        monitor.wait_for_model(stopped)
        monitor.run(given.rows_per_second, stopped)
    except sqlite3.Error as error:
        print(f"cannot go on watching {turbine}: alarms.sqlite: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        stopped.set()
        teller.join()
    return 1 if told.broken else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="monitor.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--thing", required=True)
    parser.add_argument("--turbine", default=replay.AUTO)
    parser.add_argument("--component-version", default="")
    parser.add_argument("--rows-per-second", type=float, default=500.0)
    parser.add_argument("--agent", default="../marram.ModelAgent/agent.sock")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
