"""The admission gate: what an offered model must pass before it may serve, each step within a budget of time.

    1. signature      agent_signature.py, over the very bytes that are loaded
    2. certificate    agent_certificate.py, if there is one or the device demands it (requireCertificate)
    3. verdict        agent_verdicts.py: what was refused earlier is refused at once
    4. load, golden   agent_check.py, and agent_rows.py where requests are to be joined, within LOAD_S
    5. replay         agent_replay.py, if the settings ask for it, within REPLAY_S

Together with the requests that the old model may end (agent_room.DRAIN_S) they stay below 60 s, the time that hand_over.py
waits for the word and a recipe's Timeout must exceed. A step that runs out of time refuses with GATE_TIMEOUT, which is not
final. The runtime cannot be interrupted within one operator: a step that ran out goes on computing on its thread, and with
STUCK_LIMIT of those the gate takes nothing more until one ends.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import agent_certificate
import agent_check
import agent_drift
import agent_entry
import agent_replay
import agent_sampling
import agent_settings
import agent_signature
import agent_table
import agent_trial_rules
import agent_verdicts
import onnxruntime

LOAD_S = 33.0
REPLAY_S = 12.0
STUCK_LIMIT = 2
VARIABLE = "MARRAM_REQUIRE_CERTIFICATE"
RUNTIME = f"{agent_check.RUNTIME} {onnxruntime.__version__}"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Offer:
    """What is to be judged: `data` are the bytes of model.json, `digest` is agent_registry.digest of both files.

    `component` and `version` are those that the signed manifest must name.
    """

    component: str
    version: str
    folder: Path
    manifest: agent_check.Manifest
    data: bytes
    model: bytes
    digest: str
    settings: agent_settings.Settings


@dataclass(frozen=True)
class Examined:
    """What the certificate says ("" without one), and the id of the key that signed ("" where none is needed)."""

    certificate: str
    signer: str


class Kept(Protocol):
    """A model that passed the gate earlier: an agent_entry.Held, or an agent_loader.Serving."""

    @property
    def component(self) -> str:
        """Whose it is."""

    @property
    def version(self) -> str:
        """Which."""

    @property
    def signer(self) -> str:
        """The id of the key that signed it."""


class Gate:
    """`root` is the nucleus's (None: nobody is trusted). `captures` are the roots of capture stores, to be filled in."""

    def __init__(self, verdicts: agent_verdicts.Verdicts, root: Path | None) -> None:
        self.captures: list[Path] = []
        self.verdicts = verdicts
        self.require_certificate = False
        self._root = root
        self._target = agent_certificate.target()

    def examine(self, offer: Offer) -> Examined:
        """Steps 1 and 2. Raises agent_check.RefusedError."""
        return self._certificate(offer, self._read_certificate(offer.folder))

    def recall(self, offer: Offer, *, answered: bool) -> None:
        """Step 3, without what a model that `answered` before lost against another. Raises agent_check.RefusedError."""
        known = self.verdicts.find(offer.digest, RUNTIME, agent_settings.text(offer.settings))
        if known is not None and not known.accepted and not (answered and known.code in agent_verdicts.COMPARED):
            raise agent_check.RefusedError(f"{known.reason} {agent_verdicts.EARLIER}", known.code)

    def check_kept(self, held: Kept | None) -> None:
        """Raises agent_check.RefusedError for a kept model that may not answer (again)."""
        if held is None:
            return
        try:
            agent_signature.check_kept(held.component, held.version, held.signer, self._root)
        except agent_signature.UnsignedError as error:
            raise agent_check.RefusedError(f"{error.code}: {error}", error.code) from error

    def check_still(self, held: Kept | None) -> None:
        """As `check_kept`, for one that is at work: what cannot be read just now decides nothing yet."""
        try:
            self.check_kept(held)
        except agent_check.RefusedError as error:
            if error.code != agent_signature.UNREADABLE:
                raise

    def damaged(self, entry: agent_entry.Entry, key: str, reason: str) -> agent_table.Damaged:
        """What the damage of one of its copies means: with it, whoever may not take over, and why."""
        barred = dict[str, str]()
        for held in entry.kept() if entry.serving.key == key else ():
            try:
                self.check_kept(held if held.key != key else None)
            except agent_check.RefusedError as error:
                barred[held.key] = str(error)
                reason += f"; {held.version} may not answer in its place: {error}"
        return agent_table.Damaged(key, reason, barred)

    def replay(self, alias: str, settings: agent_settings.Settings, new: Any, serving: Any) -> str:
        """Step 5, of models with `manifest` and `predict`; the figures, "" without a replay. Raises RefusedError."""
        terms = agent_replay.read(settings.replay)
        if terms is None or serving is None:
            return ""
        until = time.monotonic() + REPLAY_S * 0.9
        found = bounded(
            "replay of captures",
            REPLAY_S,
            lambda: agent_replay.run(terms, tuple(dict.fromkeys(self.captures)), alias, new, serving, until),
        )
        if found is None:
            raise _too_long("replay of captures", REPLAY_S)
        if found.agreed < terms.minimum * found.records:
            raise agent_check.RefusedError(
                f"{found.line(terms)}, {terms.minimum:.2%} are wanted; the newest that does not: {found.first}",
                "REPLAY_DISAGREES",
            )
        return found.line(terms)

    def keep(self, offer: Offer, refusal: agent_check.RefusedError | None) -> None:
        """Remembers the verdict of steps 4 and 5: an acceptance, or a refusal that is final."""
        code, reason = (refusal.code, str(refusal)) if refusal is not None else ("", "")
        text = agent_settings.text(offer.settings)
        try:
            self.verdicts.keep(offer.digest, RUNTIME, text, refusal is None, code, reason)
        except OSError as error:  # it counts all the same; another offer is judged anew
            print(f"the verdict on {offer.component} {offer.version} is not kept: {error}", file=sys.stderr, flush=True)

    def _read_certificate(self, folder: Path) -> bytes | None:
        path = folder / agent_certificate.FILE
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
                data = file.read(agent_certificate.LIMIT_BYTES + 1) if plain else b""
        except FileNotFoundError:
            return None
        except OSError as error:
            raise agent_check.RefusedError(f"cannot read {path}: {error.strerror}", "CERTIFICATE_NOT_VALID") from error
        if not plain:
            raise agent_check.RefusedError(f"cannot read {path}: it is no plain file", "CERTIFICATE_NOT_VALID")
        if len(data) > agent_certificate.LIMIT_BYTES:
            raise agent_check.RefusedError(f"{path} is too large", "CERTIFICATE_NOT_VALID")
        return data

    def _certificate(self, offer: Offer, data: bytes | None) -> Examined:
        files = {"model.json": offer.data, offer.manifest.file: offer.model}
        if data is not None:
            files[agent_certificate.FILE] = data
        try:
            key = agent_signature.judge(offer.component, offer.version, files, offer.folder, self._root)
        except agent_signature.UnsignedError as error:
            raise agent_check.RefusedError(f"{error.code}: {error}", error.code) from error
        if data is None:
            if self.require_certificate:
                raise _certificate_refusal("MISSING", "it has no accuracy certificate, and this device demands one")
            return Examined("", key)
        if self.require_certificate and not key:
            raise _certificate_refusal("NOT_SIGNED", "nobody signed its certificate; trust a key, then sign it")
        try:
            found = agent_certificate.read(data)
            agent_certificate.judge(
                found, offer.manifest.sha256, agent_check.RUNTIME, onnxruntime.__version__, self._target
            )
        except agent_certificate.CertificateError as error:
            raise _certificate_refusal("NOT_VALID", f"its certificate does not count here: {error}") from error
        return Examined(found.line(), key)


def certificate_required() -> bool:
    """Whether the agent's configuration `requireCertificate`, which its recipe puts into VARIABLE, says so. Raises OSError."""
    given = os.environ.get(VARIABLE, "").strip().lower()
    if given.startswith("{configuration:"):
        return False  # the nucleus left the placeholder: a configuration from before there was this key
    if given not in ("", "true", "false"):
        raise OSError(f"requireCertificate is {given!r} in the configuration, it must be true or false")
    return given == "true"


def check_settings(settings: agent_settings.Settings) -> None:
    """Reads every section that means something to a module of its own; raises agent_settings.SettingsError."""
    agent_trial_rules.read(settings.trial)
    agent_replay.read(settings.replay)
    agent_sampling.read(settings.capture)
    agent_drift.read(settings.drift)


_stuck: list[threading.Thread] = []


def bounded(step: str, seconds: float, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises; RefusedError GATE_TIMEOUT after `seconds`, and what comes later is closed.

    RESOURCE_EXHAUSTED where STUCK_LIMIT earlier ones still compute.
    """
    _stuck[:] = [thread for thread in _stuck if thread.is_alive()]
    if len(_stuck) >= STUCK_LIMIT:
        raise agent_check.RefusedError(
            f"{len(_stuck)} models that took too long are still computing; restart the model agent to end them",
            "RESOURCE_EXHAUSTED",
        )
    job = _Job(work)
    thread = threading.Thread(target=job.run, name=step, daemon=True)
    thread.start()
    if not job.done.wait(seconds) and job.give_up():
        _stuck.append(thread)
        raise _too_long(step, seconds)
    if job.error is not None:
        raise job.error
    result: Result = job.result
    return result


class _Job:
    """Work on a thread that nobody may wait for any more."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._work: Callable[[], Any] | None = work
        self._lock = threading.Lock()
        self._given_up = False

    def run(self) -> None:
        """Does it."""
        work, self._work = self._work, None
        result, error = None, None
        try:
            result = work() if work is not None else None
        except BaseException as caught:  # it belongs to who waits
            error = caught
        with self._lock:
            if not self._given_up:
                self.result, self.error = result, error
                self.done.set()
                return
        if callable(close := getattr(result, "close", None)):
            close()

    def give_up(self) -> bool:
        """True, unless it ended in the last moment."""
        with self._lock:
            self._given_up = not self.done.is_set()
            return self._given_up


def _too_long(step: str, seconds: float) -> agent_check.RefusedError:
    return agent_check.RefusedError(
        f"its {step} took longer than {seconds:g} s; offer it again when the device is less busy", "GATE_TIMEOUT"
    )


def _certificate_refusal(what: str, why: str) -> agent_check.RefusedError:
    code = f"CERTIFICATE_{what}"
    return agent_check.RefusedError(f"{code}: {why}; see marram model optimise", code)
