"""Models in processes of their own: what crashes the runtime there takes down neither the agent nor other models.

One process for each model (agent_worker.py), 0.2 s and some 46 MB (spec ml.md 9). When it dies, the request that it was
computing gets a CrashedError, and it is started again: at once, then after BACKOFF_S, doubled each time. Meanwhile requests
get NotReadyError, which clients try again. After CRASHES_LIMIT crashes within CRASHES_WITHIN_S the model is taken for broken:
it answers with CrashedError until another version is offered. One request at a time goes to a process. One that computes longer
than agent_runs.patience_s hangs: the process is killed, which is a crash like any other.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent_check
import agent_engine
import agent_frames
import agent_runs
import agent_worker

CRASHES_LIMIT = 5
CRASHES_WITHIN_S = 600.0
BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
HUNG_S = 60.0  # a model that loads longer does not end any more
_REAPED_S = 2.0
_SECRETS = frozenset({"SVCUID", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_CREDENTIALS_FULL_URI"})
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class CrashedError(agent_check.InputError):
    """The model's process died or hung over this request, or is broken for good; asking again would not help."""

    code = "MODEL_CRASHED"


class Process:
    """One life of a model's process; `loaded` waits for it, `predict` may be called by many threads."""

    def __init__(self, package: int, memory_bytes: int, patience: agent_runs.Patience) -> None:
        """Starts it. Raises OSError."""
        self._patience = patience
        self._bound_s = HUNG_S
        self._given, self._taken = agent_worker.Area.make("marram-inputs"), agent_worker.Area.make("marram-outputs")
        self._socket, theirs = socket.socketpair()
        agent_frames.bound(self._socket, HUNG_S, HUNG_S)
        self._reader = agent_frames.Reader(self._socket)
        self._one_at_a_time = threading.Lock()
        self._closed = False
        self._fate = ""  # why it is over, as far as a request saw it
        numbers = (theirs.fileno(), package, self._given.descriptor, self._taken.descriptor)
        named = zip(("--socket", "--package", "--given", "--taken"), map(str, numbers), strict=True)
        words = [word for pair in named for word in pair]
        program = [sys.executable, str(Path(agent_worker.__file__)), *words, "--memory", str(memory_bytes)]
        with theirs:
            self.process = subprocess.Popen(
                program,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                env={key: value for key, value in os.environ.items() if key not in _SECRETS} | _ONE_THREAD,
                pass_fds=numbers,
            )

    def loaded(self) -> int:
        """What loading took in bytes, when it is ready. Raises RefusedError, CrashedError."""
        reply = self._reply("while it was loaded")
        if reply.get("ok") is not True:
            raise agent_check.RefusedError(str(reply.get("message")), str(reply.get("code")))
        return int(reply.get("memory_bytes", 0))

    def predict(self, inputs: Mapping[str, Any], lean: bool = False) -> dict[str, Any]:
        """What the model answers. Raises InputError, CrashedError, NotReadyError when the process was gone before."""
        with self._one_at_a_time:
            try:
                if self._closed or self._fate:
                    raise BrokenPipeError
                head = agent_frames.encode({"tensors": self._given.put(inputs), "lean": lean})
                if self._bound_s != self._patience.seconds:
                    self._bound_s = self._patience.seconds
                    agent_frames.bound(self._socket, self._bound_s, HUNG_S)
                begun = time.monotonic()
                agent_frames.write(self._socket, head, b"", HUNG_S)
            except agent_worker.AreaError as error:
                raise agent_check.InputError(str(error)) from error
            except OSError as error:
                raise agent_engine.NotReadyError(self.why("before it computed this")) from error
            reply = self._reply("while it computed this")
            self._patience.saw(time.monotonic() - begun)
            if reply.get("ok") is not True:
                raise agent_check.InputError(str(reply.get("message")))
            try:
                return {name: view.copy() for name, view in self._taken.views(reply.get("tensors")).items()}
            except agent_worker.AreaError as error:
                raise self._over(f"the model's process answered nonsense: {error}") from error

    def why(self, when: str) -> str:
        """How it ended, in words; it has ended or is about to."""
        if self._fate:
            return self._fate
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_REAPED_S)
        code = self.process.returncode
        if code is None:
            return f"the model's process does not answer any more ({when})"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        hint = "; the system kills with SIGKILL what takes too much memory" if code == -signal.SIGKILL else ""
        return f"the model's process ended {when} ({how}{hint})"

    def close(self) -> None:
        """Ends it; who computes in it gets a CrashedError."""
        self.process.kill()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._one_at_a_time:
            if not self._closed:
                self._closed = True
                self._socket.close()
                self._given.close()
                self._taken.close()
        self.process.wait()

    def _reply(self, when: str) -> dict[str, Any]:
        try:
            return agent_frames.decode(self._reader.frame(self._bound_s)[0])
        except (BlockingIOError, TimeoutError) as error:
            raise self._over(f"the model's process hung {when}: no answer within {self._bound_s:.3g} s") from error
        except (OSError, agent_frames.ClosedError, agent_frames.FrameError) as error:
            raise self._over(self.why(when)) from error

    def _over(self, fate: str) -> CrashedError:
        """Ends it: whoever waits behind this request is to ask the next process."""
        self._fate = fate
        self.process.kill()
        return CrashedError(fate)


class Keeper:
    """Keeps a model's process alive, or takes the model for broken; `state` is loading, serving, restarting, broken or closed."""

    def __init__(self, name: str, package: int, memory_bytes: int, patience: agent_runs.Patience) -> None:
        self._name = name
        self.state, self.crashes, self.reason, self.loaded_bytes = "loading", 0, "", 0
        self._package = package
        self._memory_bytes = memory_bytes
        self._patience = patience
        self._recent: collections.deque[float] = collections.deque(maxlen=CRASHES_LIMIT)
        self._changed = threading.Condition()
        self._process = Process(package, memory_bytes, patience)

    def start(self) -> None:
        """Waits for the model, then watches over it. Raises RefusedError, CrashedError; both leave nothing behind."""
        try:
            self.loaded_bytes = self._process.loaded()
        except BaseException:
            self.close()
            raise

    def watch(self) -> None:
        """From here on a process that ends is started again."""
        self.state = "serving"
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process that serves now; 0 for none."""
        return self._process.process.pid if self.state in ("loading", "serving") else 0

    def process(self) -> Process:
        """The one to ask. Raises NotReadyError, CrashedError."""
        with self._changed:
            if self.state in ("loading", "serving"):
                return self._process
            if self.state != "broken":
                raise agent_engine.NotReadyError(f"its process is {self.state}: {self.reason}")
            raise CrashedError(
                f"the model is broken: {self.crashes} crashes, the last: {self.reason}; offer another version of it"
            )

    def close(self) -> None:
        """Ends the process for good."""
        with self._changed:
            if self.state == "closed":
                return
            self.state = "closed"
            self._changed.notify_all()
        self._process.close()
        os.close(self._package)

    def _watch(self) -> None:
        while True:
            self._process.process.wait()
            with self._changed:
                if self.state == "closed":
                    return
                pause_s = self._count()
            if pause_s is None:
                return
            if not self._again(pause_s):
                return

    def _count(self) -> float | None:
        """Notes a crash; the seconds to wait before the next start, None when that was the last."""
        now = time.monotonic()
        self.crashes += 1
        self._recent.append(now)
        self.reason = self._process.why("by itself")
        recent = sum(1 for at in self._recent if now - at <= CRASHES_WITHIN_S)
        broken = recent >= CRASHES_LIMIT
        self.state = "broken" if broken else "restarting"
        print(
            f"{self._name} in its own process: {self.reason}; {self.state} (crash {recent} of {CRASHES_LIMIT})",
            flush=True,
        )
        return None if broken else (min(BACKOFF_S * 2 ** (recent - 2), LONGEST_BACKOFF_S) if recent > 1 else 0.0)

    def _again(self, pause_s: float) -> bool:
        """Starts the next process; False when it is over. One that dies while it loads is the next crash."""
        with self._changed:
            self._changed.wait_for(lambda: self.state == "closed", pause_s)
            if self.state == "closed":
                return False
            old = self._process
            try:
                self._process = Process(self._package, self._memory_bytes, self._patience)
            except OSError as error:
                self.reason = f"cannot start a process: {error}"
                return True  # the old one has ended still: counted as one more crash
        old.close()
        with contextlib.suppress(CrashedError, agent_check.RefusedError):
            self._process.loaded()
            with self._changed:
                if self.state == "restarting":
                    self.state = "serving"
        return True


class IsolatedModel:
    """A model in a process of its own, to be used like agent_check.Model; it ends with `close` or with the last reference."""

    def __init__(self, manifest: agent_check.Manifest, keeper: Keeper) -> None:
        self.manifest = manifest
        self.loaded_bytes = keeper.loaded_bytes  # that the model alone took, without its process
        self._keeper = keeper
        self.close = weakref.finalize(self, keeper.close)

    @property
    def pid(self) -> int:
        """The process that computes now; 0 for none."""
        return self._keeper.pid

    @property
    def condition(self) -> dict[str, Any]:
        """For lists and metrics: state, pid, crashes since it was loaded, and the last crash in words."""
        keeper = self._keeper
        return {"state": keeper.state, "pid": keeper.pid, "crashes": keeper.crashes, "reason": keeper.reason}

    def predict(self, inputs: Mapping[str, Any], lean: bool = False) -> dict[str, Any]:
        """Raises InputError, CrashedError, agent_engine.NotReadyError; `lean` as agent_runs.Runs."""
        return self._keeper.process().predict(inputs, lean)


def load(manifest: agent_check.Manifest, model: bytes, memory_bytes: int = 0, hang_s: float = 0.0) -> IsolatedModel:
    """Loads and checks a model in a process of its own, `memory_bytes` of memory at most (0: no bound).

    `hang_s` as agent_runs.patience_s takes it.

    Raises RefusedError: MODEL_CRASHED for a native crash or a hang, RESOURCE_EXHAUSTED when the process could not be
    started or was killed from outside.
    """
    package = -1
    try:
        package = agent_worker.pack(manifest, model)
        keeper = Keeper(manifest.name, package, memory_bytes, agent_runs.Patience(hang_s))
    except OSError as error:
        if package >= 0:
            os.close(package)
        raise agent_check.RefusedError(f"cannot start its process: {error}", "RESOURCE_EXHAUSTED") from error
    try:
        keeper.start()
        loaded = IsolatedModel(manifest, keeper)
        agent_check.check_golden(loaded)
    except (CrashedError, agent_engine.NotReadyError, agent_check.RefusedError) as error:
        keeper.close()
        if isinstance(error, agent_check.RefusedError) and not isinstance(error.__cause__, CrashedError):
            raise
        killed = "(SIGKILL" in str(error)
        raise agent_check.RefusedError(str(error), "RESOURCE_EXHAUSTED" if killed else "MODEL_CRASHED") from error
    keeper.watch()
    return loaded
