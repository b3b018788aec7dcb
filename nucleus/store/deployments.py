"""Facts about deployments, one durable record each (design.md principle 2: facts are kept, decisions are recomputed).

`deployments/<safe id>/record.json`. Whether the configuration of a deployment is in force is not written here: it is the
leaf COMMITTED of the configuration itself, changed in the same atomic commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from pathlib import Path

import msgspec
from msgspec import Struct

from nucleus.core import bootstrap, component, configuration, document, errors, local, status
from nucleus.host import files, places

COMMITTED = ("services", "DeploymentService", "runtime", "committed")  # id of the deployment whose changes are in force
KEEP_FINISHED = 10  # records of finished deployments kept for `list`

_ORDERLY = "ended-orderly"

JOB, SHADOW, LOCAL = "job", "shadow", "local"


class Failure(Struct, frozen=True, omit_defaults=True):
    """Why a deployment that was committed has to be planned back; durable before the way back begins."""

    stack: tuple[str, ...]
    cause: str


class Answer(Struct, frozen=True):
    """What the cloud answered for a component and all that was required of it by (requirer, range)."""

    name: str
    requirements: tuple[tuple[str, str], ...]
    version: str


class Record(Struct, kw_only=True, omit_defaults=True):
    """Everything that must survive a crash about one deployment. `carrier` is the job id or the shadow version."""

    document: document.Document
    source: str
    carrier: str = ""
    number: int = 0  # counts up as they are accepted: the order of work, whatever the clocks say
    queued_ms: int = 0
    caller: str = ""
    request: local.LocalRequest | None = None  # of a local deployment: its document is made when it begins
    taken: tuple[tuple[str, str], ...] = ()  # recipes that came with a local deployment: kept while it is open
    answers: tuple[Answer, ...] = ()  # of the cloud, while it is prepared
    resolved: dict[str, str] = {}  # component -> version
    groups: tuple[str, ...] | None = None  # thing groups this device was in when it asked; None: not known
    previous: dict[str, component.Component] | None = None  # set before the commit: what a way back leads to
    broken: tuple[str, ...] = ()  # components that were BROKEN before
    undo: tuple[configuration.Change, ...] = ()
    failure: Failure | None = None
    cancelled: str = ""  # why it was cancelled; what had changed by then is restored
    changed: tuple[str, ...] = ()  # components that the deployment started, restarted or reinstalled
    regret_until_ms: int = (
        0  # wall clock: until then a changed component that becomes BROKEN leads back (actors/regret)
    )
    regrets: str = ""  # id of the deployment that this one takes back
    activations: int = 0
    returns: int = 0  # launches that found it on its way back
    stage: str = ""  # core/stages: how far it has come before its commit
    stage_launches: int = 0  # launches that found the nucleus dead in this stage
    stage_boot: str = ""  # boot id of the machine at the last of them, or when it began
    bootstrap: bootstrap.Facts = bootstrap.Facts()
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
        except (ValueError, OSError) as error:  # text that is no UTF-8
            raise errors.NucleusError("IO_WRITE_ERROR", f"cannot record deployment {record.id}: {error}") from error

    def load(self) -> tuple[list[Record], list[str]]:
        """All readable records, oldest first, and a sentence for each that could not be read; it is put aside."""
        found, bad = [], []
        for path in sorted(self._folder.glob("*/record.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
                bad.append(f"cannot read {path}: {error}; the cloud sends it again if it waits for it")
                with contextlib.suppress(OSError):
                    path.replace(path.with_name("record.json.damaged"))
        return sorted(found, key=lambda one: (one.number, one.queued_ms, one.document.created_ms)), bad

    def prune(self, records: list[Record]) -> None:
        """Drops the oldest finished and reported records beyond KEEP_FINISHED."""
        finished = [one for one in records if one.result is not None and one.reported]
        for record in finished[:-KEEP_FINISHED]:
            shutil.rmtree(self._folder / _safe(record.id), ignore_errors=True)

    def mark_orderly(self) -> None:
        """The daemon ends because it was asked to. A disk that does not take it makes that look like a crash."""
        with contextlib.suppress(OSError, errors.NucleusError):
            files.make_directory(self._folder, 0o700)
            files.write_durably(self._folder / _ORDERLY, b"")

    def take_orderly(self) -> bool:
        """Whether the daemon before this one ended orderly; says it once."""
        try:
            (self._folder / _ORDERLY).unlink()
        except OSError:
            return False
        return True

    def path(self, record: Record) -> Path:
        return self._folder / _safe(record.id)

    def origin(self, record: Record) -> Path:
        """The folder of the deployment that changed what this one leads back from, if it does, else its own."""
        return self._folder / _safe(record.regrets or record.id)


def _safe(deployment_id: str) -> str:
    """The directory name of a deployment id: `:` becomes `.`, `/` becomes `+` (spec/nucleus.md 5.9); a digest for odd ones."""
    if re.fullmatch(r"[A-Za-z0-9_+:/-][A-Za-z0-9_.+:/-]{0,199}", deployment_id):
        return deployment_id.replace(":", ".").replace("/", "+")
    return hashlib.sha256(deployment_id.encode(errors="surrogatepass")).hexdigest()
