"""The process of one candidate: loads its model, tells what that took, then times and answers as told (near end: bench.py).

`python -m cloud.optimise.worker JOB` with JOB = {"runtime", "settings", "model", "inputs": {name: .npy}}. Lines of JSON:
a greeting {"load_ms", "memory_bytes", "inputs", "outputs", "version", "provider"} or {"error"}; then for
{"time": runs} -> {"ms": [...]}, for {"answer": [begin, end], "to": file.npz} -> {"finite": true}. Ends with its input.
Memory is what the process has grown by from before the load to after the first call. A candidate that crashes natively
ends this process and nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt
import psutil

from cloud.optimise import runtimes

Array = npt.NDArray[Any]
_TIMED = 8  # different samples that a timing takes turns over


class Job(msgspec.Struct, frozen=True):
    """What one process is for; `inputs` are files of [samples, …] arrays."""

    runtime: str
    settings: runtimes.Settings
    model: str
    inputs: dict[str, str]


class Greeting(msgspec.Struct, frozen=True):
    """What loading and the first call took; `error` is "" unless that failed."""

    error: str = ""
    load_ms: float = 0.0
    memory_bytes: int = 0
    inputs: tuple[runtimes.Tensor, ...] = ()
    outputs: tuple[runtimes.Tensor, ...] = ()
    version: str = ""
    provider: str = ""


class Order(msgspec.Struct, frozen=True):
    """One line to the process: `runs` calls to be timed, or samples `begin` to `end` - 1 to be answered into `to`."""

    runs: int = 0
    begin: int = 0
    end: int = 0
    to: str = ""


class Reply(msgspec.Struct, frozen=True):
    """`ms` of each call that was timed; `finite` tells that no answer held NaN or infinity."""

    error: str = ""
    ms: tuple[float, ...] = ()
    finite: bool = True


def main() -> None:
    """Runs until its standard input ends."""
    job = msgspec.json.decode(sys.argv[1], type=Job)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a runtime prints goes to the errors
    inputs = {name: np.load(path, mmap_mode="r") for name, path in job.inputs.items()}
    try:
        session, greeting = _load(job, inputs)
    except Exception as error:  # runtimes raise what they like
        _say(out, Greeting(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
        return
    _say(out, greeting)
    for line in sys.stdin.buffer:
        _say(out, _obey(session, inputs, msgspec.json.decode(line, type=Order)))


def _load(job: Job, inputs: Mapping[str, Array]) -> tuple[runtimes.Session, Greeting]:
    runtime, process = runtimes.find(job.runtime), psutil.Process()
    sample = _sample(inputs, 0)
    before = process.memory_info().rss
    began = time.perf_counter()
    session = runtime.load(Path(job.model), job.settings)
    load_ms = (time.perf_counter() - began) * 1000
    session.run(sample)
    grown = max(0, process.memory_info().rss - before)
    greeting = Greeting("", load_ms, grown, session.inputs, session.outputs, runtime.version, runtime.provider)
    return session, greeting


def _obey(session: runtimes.Session, inputs: Mapping[str, Array], order: Order) -> Reply:
    try:
        if order.runs:
            return Reply(ms=_timed(session, inputs, order.runs))
        return Reply(finite=_answered(session, inputs, order))
    except Exception as error:  # runtimes raise what they like
        return Reply(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _timed(session: runtimes.Session, inputs: Mapping[str, Array], runs: int) -> tuple[float, ...]:
    count = min(_TIMED, len(next(iter(inputs.values()))))
    given = [_sample(inputs, at) for at in range(count)]
    session.run(given[0])  # the caches were another candidate's
    took = []
    for at in range(runs):
        began = time.perf_counter()
        session.run(given[at % count])
        took.append((time.perf_counter() - began) * 1000)
    return tuple(took)


def _answered(session: runtimes.Session, inputs: Mapping[str, Array], order: Order) -> bool:
    answers = [session.run(_sample(inputs, at)) for at in range(order.begin, order.end)]
    stacked = {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    np.savez(order.to, **stacked)  # type: ignore[arg-type, unused-ignore]
    return all(bool(np.isfinite(array).all()) for array in stacked.values() if array.dtype.kind == "f")


def _sample(inputs: Mapping[str, Array], at: int) -> dict[str, Array]:
    return {name: np.array(array[at]) for name, array in inputs.items()}


def _say(out: IO[bytes], what: Greeting | Reply) -> None:
    out.write(msgspec.json.encode(what) + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
