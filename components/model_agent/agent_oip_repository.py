"""Loading and unloading models over the Open Inference Protocol: the operator's repository, and who may.

Whoever reaches a door may ask for predictions. Loading and unloading need the agent's token: the text in the file
`oip.token` of the agent's work folder (mode 0600, made once), sent as gRPC metadata or HTTP header `marram-token`. It is
readable by the user the agent runs as, so by the components of that user and by root. A component may send its own token
(SVCUID) instead, whichever user it runs as, where the nucleus tells the agent whose a token is (agent_identity.py).

Load takes `<repository>/<name>/` (model.json beside its file, and its signature where one is needed) or files of that kind
that came with the request; the gate is that of a model component's offer. Models that came this way belong to OWNER. An
alias that a component brought is changed by a deployment, here it is FAILED_PRECONDITION.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent_aliases
import agent_check
import agent_identity
import agent_oip

OWNER = "marram:repository"  # no component can be called so
TOKEN_FILE, TOKEN_HEADER = "oip.token", "marram-token"
_TOKEN_CHARACTERS = 64
_FILES_LIMIT = 8
_OWN_CODES = frozenset({"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"})  # of a refusal; any other is INVALID_ARGUMENT
_FILE = re.compile(
    r"(?:[0-9]+/)?([A-Za-z0-9_][A-Za-z0-9._-]{0,127})"
)  # Triton's clients put a version's number before it


class Repository:
    """Models in `folder` and those that come with a request; methods may be called by many threads, and raise OipError."""

    def __init__(self, aliases: agent_aliases.Aliases, token: str, folder: Path) -> None:
        self._aliases = aliases
        self._token = token
        self._folder = folder
        self._callers = agent_identity.callers(aliases.listed)

    def index(self, only_ready: bool = False) -> list[dict[str, str]]:
        """Every alias, and the models of the repository that are not loaded."""
        listed = {each["alias"]: each for each in self._aliases.listed()}
        rows = [_row(name, each["version"], bool(each["ready"])) for name, each in listed.items()]
        rows += [_row(name, "", False) for name in self._stored() if name not in listed]
        return [row for row in rows if row["state"] == "READY"] if only_ready else rows

    def authorize(self, token: str) -> None:
        """Raises OipError unless `token` is the agent's, or a component's of this device."""
        if not hmac.compare_digest(token.encode(), self._token.encode()) and not self._callers.known(token):
            raise agent_oip.OipError(
                "PERMISSION_DENIED",
                f"loading and unloading need {TOKEN_HEADER}: the text in the agent's {TOKEN_FILE}, or a component's own token",
            )

    def load(self, name: str, token: str, files: Mapping[str, bytes]) -> None:
        """Loads a model from the repository or from `files` (`file:<name>` -> content)."""
        self.authorize(token)
        entry, stored = self._entry(name), name in self._stored()
        if entry and entry["component"] != OWNER:
            if entry["ready"] and not files and not stored:
                return  # clients load what they are going to use
            raise _foreign("load", name, entry["component"])
        if files:
            with tempfile.TemporaryDirectory(prefix="oip-") as folder:
                _write(Path(folder), files)
                self._offer(name, Path(folder))
        elif stored:
            self._offer(name, self._folder / name)
        else:
            raise agent_oip.OipError(
                "NOT_FOUND", f"failed to load '{name[:256]}', failed to poll from model repository"
            )

    def unload(self, name: str, token: str) -> None:
        """Empties an alias that was filled by `load`; what lies in the repository stays."""
        self.authorize(token)
        entry = self._entry(name)
        if entry is None:
            if name in self._stored():
                return  # unloaded already
            raise agent_oip.OipError("NOT_FOUND", f"failed to unload '{name[:256]}': no such model")
        if entry["component"] != OWNER:
            raise _foreign("unload", name, entry["component"])
        print(f"unload: {self._aliases.withdraw(OWNER, entry['offered'], name)}", flush=True)

    def _offer(self, name: str, folder: Path) -> None:
        try:
            manifest = agent_check.read_manifest(_manifest(folder))
            if manifest.name != name:
                raise agent_check.RefusedError(f"its model.json is that of '{manifest.name}'")
            print(f"load: {self._aliases.load(OWNER, name, folder, replace=True)}", flush=True)
        except agent_check.RefusedError as error:
            print(f"refused {OWNER} {name}: {error}", flush=True)
            if error.code in _OWN_CODES:
                raise agent_oip.OipError(error.code, f"failed to load '{name}', {error}") from None
            raise agent_oip.wrong(f"failed to load '{name}', {error}") from None

    def _entry(self, name: str) -> dict[str, Any] | None:
        return next((each for each in self._aliases.listed() if each["alias"] == name), None)

    def _stored(self) -> list[str]:
        with contextlib.suppress(OSError):
            return sorted(each.name for each in self._folder.iterdir() if (each / "model.json").is_file())
        return []


def token(folder: Path) -> str:
    """The text in the token file, made when there is none or a cut one; raises OSError."""
    path = folder / TOKEN_FILE
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            os.fchmod(descriptor, 0o600)
            text = file.read(1024).decode("ascii").strip()
        if len(text) >= _TOKEN_CHARACTERS:
            return text
    made = secrets.token_hex(_TOKEN_CHARACTERS // 2)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as written:
        written.write(made)
    new.replace(path)
    return made


def _manifest(folder: Path) -> bytes:
    try:
        with (folder / "model.json").open("rb") as file:
            return file.read(agent_aliases.MANIFEST_LIMIT_BYTES)
    except OSError as error:
        raise agent_check.RefusedError(f"cannot read model.json: {error.strerror}") from error


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    if len(files) > _FILES_LIMIT:
        raise agent_oip.wrong(f"a load may bring {_FILES_LIMIT} files")
    for path, content in files.items():
        found = _FILE.fullmatch(path.removeprefix("file:"))
        if found is None:
            raise agent_oip.wrong(f"failed to load: {path[:100]!r} is no file name")
        (folder / found[1]).write_bytes(content)


def _foreign(verb: str, name: str, owner: str) -> agent_oip.OipError:
    message = f"failed to {verb} '{name}': it belongs to {owner}; what it answers with is changed by a deployment"
    return agent_oip.OipError("FAILED_PRECONDITION", message)


def _row(name: str, version: str, ready: bool) -> dict[str, str]:
    state, reason = ("READY", "") if ready else ("UNAVAILABLE", "unloaded")
    return {"name": name, "version": version, "state": state, "reason": reason}
