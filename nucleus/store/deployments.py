"""Facts about deployments, one durable record each (design.md principle 2: facts are kept, decisions are recomputed).

`deployments/<safe id>/record.json`. Whether the configuration of a deployment is in force is not written here: it is the
leaf COMMITTED of the configuration itself, changed in the same atomic commit.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from msgspec import Struct

from nucleus.core import component, configuration, document, errors, status
from nucleus.host import files, places

COMMITTED = ("services", "DeploymentService", "runtime", "committed")  # id of the deployment whose changes are in force
KEEP_FINISHED = 10  # records of finished deployments kept for `list`

JOB, SHADOW, LOCAL = "job", "shadow", "local"


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why a deployment that was committed has to be planned back; durable before the way back begins."""

    stack: tuple[str, ...]
    cause: str


class Record(Struct, kw_only=True, omit_defaults=True):
    """Everything that must survive a crash about one deployment. `carrier` is the job id or the shadow version."""

    document: document.Document
    source: str
    carrier: str = ""
    queued_ms: int = 0
    caller: str = ""
    taken: tuple[tuple[str, str], ...] = ()  # recipes that came with a local deployment: kept while it is open
    resolved: dict[str, str] = {}  # component -> version
    groups: tuple[str, ...] | None = None  # thing groups this device was in when it asked; None: not known
    previous: dict[str, component.Component] | None = None  # set before the commit: what a way back leads to
    broken: tuple[str, ...] = ()  # components that were BROKEN before
    undo: tuple[configuration.Change, ...] = ()
    failure: Failure | None = None
    activations: int = 0
    result: status.Result | None = None
    reported: bool = False

    @property
    def id(self) -> str:
        return self.document.deployment_id


class DeploymentStore:
    """Records of deployments, in the order in which they were accepted."""

    def __init__(self, where: places.Places) -> None:
        self._folder = where.deployments

    def save(self, record: Record) -> None:
        """Durable when it returns. Raises NucleusError IO_WRITE_ERROR (disk full, …)."""
        folder = self._folder / _safe(record.id)
        try:
            files.make_directory(self._folder, 0o700)
            files.make_directory(folder, 0o700)
            files.write_durably(folder / "record.json", msgspec.json.encode(record))
        except OSError as error:
            raise errors.NucleusError("IO_WRITE_ERROR", f"cannot record deployment {record.id}: {error}") from error

    def load(self) -> tuple[list[Record], list[str]]:
        """All readable records, oldest first, and a sentence for each that could not be read."""
        found, bad = [], []
        for path in sorted(self._folder.glob("*/record.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (OSError, msgspec.MsgspecError) as error:
                bad.append(f"cannot read {path}: {error}")
        return sorted(found, key=lambda one: (one.queued_ms, one.document.created_ms)), bad

    def prune(self, records: list[Record]) -> None:
        """Drops the oldest finished and reported records beyond KEEP_FINISHED."""
        finished = [one for one in records if one.result is not None and one.reported]
        for record in finished[:-KEEP_FINISHED]:
            shutil.rmtree(self._folder / _safe(record.id), ignore_errors=True)

    def path(self, record: Record) -> Path:
        return self._folder / _safe(record.id)


def _safe(deployment_id: str) -> str:
    """The directory name of a deployment id: `:` becomes `.`, `/` becomes `+` (spec/nucleus.md 5.9)."""
    safe = deployment_id.replace(":", ".").replace("/", "+")
    if safe in ("", ".", "..") or "\0" in safe or len(safe) > 200:
        raise errors.NucleusError("DEPLOYMENT_DOCUMENT_NOT_VALID", f"cannot use {deployment_id!r} as a deployment id")
    return safe
