"""The near end of a candidate's process (worker.py): started, timed, asked for answers, ended."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.optimise import candidates, samples, worker

Array = npt.NDArray[Any]
R = TypeVar("R", worker.Greeting, worker.Reply)
LOAD_WITHIN_S, REPLY_WITHIN_S = 120.0, 600.0


class BenchError(Exception):
    """A candidate cannot be measured: it does not load, fails, crashes or never answers."""


class Bench:
    """A folder with the evaluation inputs, from which processes are started; `size_bytes` of each model is its file's."""

    def __init__(self, held: samples.Samples, folder: Path) -> None:
        self._folder, self._inputs = folder, {}
        for at, (name, array) in enumerate(held.inputs.items()):
            path = folder / f"input{at}.npy"
            np.save(path, np.ascontiguousarray(array))
            self._inputs[name] = str(path)

    def start(self, candidate: candidates.Candidate, model: Path) -> Running:
        """Raises BenchError."""
        job = worker.Job(candidate.runtime, candidate.settings, str(model), self._inputs)
        return Running(job, model.stat().st_size, self._folder / "answers.npz")


class Running:
    """One candidate's process. Use it as a context manager."""

    def __init__(self, job: worker.Job, size_bytes: int, answers: Path) -> None:
        self.size_bytes, self._answers = size_bytes, answers
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cloud.optimise.worker", msgspec.json.encode(job).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            self.greeting = self._read(worker.Greeting, LOAD_WITHIN_S)
        except BaseException:
            self.close()
            raise

    def time(self, runs: int) -> tuple[float, ...]:
        """Milliseconds of that many calls, after one that is not counted. Raises BenchError."""
        return self._order(worker.Order(runs=runs)).ms

    def answer(self, begin: int, end: int) -> tuple[list[Mapping[str, Array]], bool]:
        """(the answers to samples begin to end - 1, whether all are finite). Raises BenchError."""
        reply = self._order(worker.Order(begin=begin, end=end, to=str(self._answers)))
        with np.load(self._answers, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        self._answers.unlink()
        return [{name: array[at] for name, array in arrays.items()} for at in range(end - begin)], reply.finite

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self, order: worker.Order) -> worker.Reply:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise BenchError("its process ended") from None
        return self._read(worker.Reply, REPLY_WITHIN_S)

    def _read(self, kind: type[R], within_s: float) -> R:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(within_s):
                raise BenchError(f"it has not answered within {within_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"its process ended with {self._process.wait()} (a runtime that crashes)")
        reply = msgspec.json.decode(line, type=kind)
        if reply.error:
            raise BenchError(reply.error)
        return reply
