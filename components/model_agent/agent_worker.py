"""A process of its own for one model: loads it, computes what the agent asks, and may die without harm to anybody else.

Run by agent_isolated.py as `agent_worker.py --socket FD --package FD --given FD --taken FD --memory BYTES`, each FD inherited.
The package is `manifest length u32 (big-endian), manifest (JSON, as `describe` makes it), model`. Frames go over the socket
(agent_frames.py, no bodies), tensors lie in the two areas, inputs in `given`, outputs in `taken`:

    -> {"ok": true, "memory_bytes"}    when the model is loaded, which took that, or {"ok": false, "code", "message"} and the end
    <- {"tensors": [{name, dtype, shape, at}], "lean": bool (agent_runs.Runs)}    one request at a time
    -> {"ok": true, "tensors": [the same]} or {"ok": false, "message"}

It ends when the agent closes the socket, or is gone, also in the middle of a computation.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import math
import mmap
import os
import resource
import select
import socket
import struct
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent_check
import agent_frames
import agent_memory
import agent_session
import numpy as np

Array = np.ndarray[Any, Any]
LENGTH = struct.Struct(">I")
AREA_LIMIT_BYTES = 1 << 30
REST_S = 60.0  # what began of a frame ends within this
_ALIGNMENT = 64
_GROW_BYTES = 1 << 20
_NAMES = {  # of the types that may travel; by type, because numpy makes a name anew each time
    np.dtype(name): name
    for name in (
        *("float16", "float32", "float64", "bool"),
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    )
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class AreaError(Exception):
    """Tensors that do not fit into an area, or descriptions that do not fit what is there."""


class Area:
    """Memory that two processes share and that only ever grows, so that neither is hurt by what the other does with it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._end = weakref.finalize(self, os.close, descriptor)  # also where the process could not be started
        self._map: mmap.mmap | None = None
        self._mapped = 0  # bytes

    @classmethod
    def make(cls, name: str) -> Area:
        """A new one, empty. Raises OSError."""
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return cls(descriptor)

    def close(self) -> None:
        """Ends it here, once; arrays that were read from it stay."""
        self._end()
        self.descriptor, self._map, self._mapped = -1, None, 0

    def put(self, arrays: Mapping[str, Array]) -> list[dict[str, Any]]:
        """Copies arrays into it and describes where they lie. Raises AreaError."""
        described: list[dict[str, Any]] = []
        end = 0
        for name, array in arrays.items():
            dtype = _NAMES.get(array.dtype)
            if dtype is None:
                raise AreaError(f"{name} has the type {array.dtype.name}")
            described.append({"name": name, "dtype": dtype, "shape": array.shape, "at": end})
            end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        if end > self._mapped:
            self._grow(end)
        for each, array in zip(described, arrays.values(), strict=True):
            self._view(each)[...] = array
        return described

    def views(self, described: Any) -> dict[str, Array]:
        """The arrays that lie there, until the next `put`. Raises AreaError."""
        try:
            return {str(each["name"]): self._view(each) for each in described}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise AreaError(f"a tensor is not described: {error}") from error

    def _view(self, each: Mapping[str, Any]) -> Array:
        shape, at, dtype = tuple(map(int, each["shape"])), int(each["at"]), _DTYPES.get(each["dtype"])
        if dtype is None or min((at, *shape)) < 0:
            raise AreaError(f"{each['name']} has no possible type or place")
        count = math.prod(shape)
        if count == 0:
            return np.zeros(shape, dtype)
        end = at + count * dtype.itemsize
        if end > self._mapped:
            self._map_again()
        if end > self._mapped:
            raise AreaError(f"{each['name']} ends beyond what is shared")
        return np.frombuffer(self._map, dtype, count, at).reshape(shape)  # type: ignore[arg-type]

    def _map_again(self) -> None:
        """Maps what is there by now: the other side may have let it grow."""
        size = os.fstat(self.descriptor).st_size
        if size > self._mapped:
            # The old mapping goes with the last array that lies in it.
            self._map, self._mapped = mmap.mmap(self.descriptor, size), size

    def _grow(self, size: int) -> None:
        if size > AREA_LIMIT_BYTES:
            raise AreaError(f"{size} bytes of tensors are above the limit of {AREA_LIMIT_BYTES}")
        if size > os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, -(-size // _GROW_BYTES) * _GROW_BYTES)
        self._map_again()


def describe(manifest: agent_check.Manifest) -> bytes:
    """What a process needs of a manifest; the golden samples are asked for by the agent."""
    sides = {side: [dataclasses.asdict(one) for one in getattr(manifest, side)] for side in ("inputs", "outputs")}
    plain = {name: getattr(manifest, name) for name in ("name", "version", "file", "sha256", "minimum_version")}
    return json.dumps(plain | sides | {"session": dataclasses.asdict(manifest.session)}).encode()


def pack(manifest: agent_check.Manifest, model: bytes) -> int:
    """Memory with manifest and model, kept for every start; sealed, so that no process of the model can change it."""
    described = describe(manifest)
    descriptor = os.memfd_create("marram-model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(LENGTH.pack(len(described)) + described)
        file.write(model)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def understand(data: bytes) -> agent_check.Manifest:
    """The reverse of `describe`."""
    given = json.loads(data)
    for side in ("inputs", "outputs"):
        given[side] = tuple(agent_check.Tensor(one["name"], one["dtype"], tuple(one["shape"])) for one in given[side])
    given["session"] = agent_session.Session(**given["session"])
    return agent_check.Manifest(**given, golden=(), absolute=0.0, relative=0.0)


def main(arguments: list[str]) -> int:
    """Serves until the agent is gone; returns the exit code."""
    parser = argparse.ArgumentParser(prog="agent_worker.py", description=__doc__.partition("\n")[0])
    for name in ("socket", "package", "given", "taken"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--memory", type=int, default=0, help="bytes it may allocate; 0 for no bound")
    parsed = parser.parse_args(arguments)
    _bound(parsed.memory)
    threading.Thread(target=_end_with_agent, args=(parsed.socket,), daemon=True).start()
    with socket.socket(fileno=parsed.socket) as agent, contextlib.suppress(OSError, agent_frames.ClosedError):
        try:
            manifest, model = _unpack(parsed.package)
            allocator = agent_memory.Allocator()
            gauge = agent_memory.Gauge(allocator)
            loaded = agent_check.load(manifest, model)
            del model
            allocator.trim()
        except agent_check.RefusedError as error:
            agent_frames.send(agent, {"ok": False, "code": error.code, "message": str(error)})
            return 1
        except MemoryError:
            what = f"it does not fit into {parsed.memory} bytes (workerMemoryBytes)"
            agent_frames.send(agent, {"ok": False, "code": "RESOURCE_EXHAUSTED", "message": what})
            return 1
        agent_frames.send(agent, {"ok": True, "memory_bytes": gauge.taken()})
        _serve(agent, loaded, Area(parsed.given), Area(parsed.taken))
    return 0


def _end_with_agent(descriptor: int) -> None:
    """Waits for the agent to close its end; a model that computes for hours would not notice otherwise."""
    watched = select.poll()
    watched.register(descriptor, select.POLLRDHUP)
    watched.poll()
    os._exit(0)


def _serve(agent: socket.socket, model: agent_check.Model, given: Area, taken: Area) -> None:
    reader = agent_frames.Reader(agent)
    while True:
        request = agent_frames.decode(reader.frame(REST_S)[0])
        try:
            answer = model.predict(given.views(request["tensors"]), lean=request.get("lean") is True)
            described = taken.put(answer)
            reply: dict[str, Any] = {"ok": True, "tensors": described}
        except (agent_check.InputError, AreaError, MemoryError) as error:
            reply = {"ok": False, "message": str(error) or "out of memory"}
        agent_frames.write(agent, agent_frames.encode(reply), b"", REST_S)


def _unpack(descriptor: int) -> tuple[agent_check.Manifest, bytes]:
    with os.fdopen(descriptor, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as package:
        begin = LENGTH.size + LENGTH.unpack_from(package)[0]
        return understand(package[LENGTH.size : begin]), package[begin:]


def _bound(memory_bytes: int) -> None:
    """No core files, no more shared memory than an area may have, and the first to go when the system runs out of memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (AREA_LIMIT_BYTES, AREA_LIMIT_BYTES))
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an orderly end would tear onnxruntime down for nothing
