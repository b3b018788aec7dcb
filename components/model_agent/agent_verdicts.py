"""What was decided about offered models, so that a refusal is final and a retry is answered at once.

A verdict belongs to (digest of the offer by agent_registry.digest, runtime with its version, text of the settings): with other
bytes, another runtime or other settings the model is judged anew. `verdicts.json` in the store holds the newest LIMIT:

    {"verdicts": [{"digest", "runtime", "settings", "accepted", "code", "reason", "at": epoch seconds}, ...]}   oldest first

Not every refusal is a verdict: those of NOT_FINAL say something about the moment or the caller, not about the model; and a
signature or certificate is judged anew each time, which costs nothing, because whom the device trusts can change.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import agent_durable

LIMIT = 256
EARLIER = "(decided earlier)"
NOT_FINAL = frozenset(
    (
        *("GATE_TIMEOUT", "RESOURCE_EXHAUSTED", "BUSY", "FAILED_PRECONDITION", "GAP_TOO_SHORT"),
        *("PERMISSION_DENIED", "REPLAY_IMPOSSIBLE"),
    )
)
COMPARED = frozenset(("TRIAL_DISAGREES", "UNDECIDED", "REPLAY_DISAGREES"))  # with what served then


@dataclass(frozen=True)
class Verdict:
    """`code` and `reason` are empty for an accepted model; `at` is epoch seconds."""

    accepted: bool
    code: str = ""
    reason: str = ""
    at: float = 0.0


_Key = tuple[str, str, str]


class Verdicts:
    """The verdicts kept in `folder`; any thread may ask and add.

    They are read when they are first asked for: until then a predecessor of this agent may still write (agent_takeover.py).
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._path = folder / "verdicts.json"
        self._limit = limit
        self._lock = threading.Lock()
        self._read: dict[_Key, Verdict] | None = None

    def find(self, digest: str, runtime: str, settings_text: str) -> Verdict | None:
        """What was decided about exactly this, or None."""
        with self._lock:
            return self._known().get((digest, runtime, settings_text))

    def keep(
        self, digest: str, runtime: str, settings_text: str, accepted: bool, code: str = "", reason: str = ""
    ) -> bool:
        """Durably keeps a verdict in place of an earlier one; returns False, and keeps none, for a code of NOT_FINAL."""
        if code in NOT_FINAL:
            return False
        key = (digest, runtime, settings_text)
        verdict = Verdict(accepted, code, reason, time.time())
        with self._lock:
            all_known = self._known()
            known = all_known.get(key)
            if known is not None and (known.accepted, known.code, known.reason) == (accepted, code, reason):
                return True
            new = {name: each for name, each in all_known.items() if name != key} | {key: verdict}
            for oldest in list(new)[: max(0, len(new) - self._limit)]:
                del new[oldest]
            agent_durable.write(self._path, {"verdicts": [_record(name, each) for name, each in new.items()]})
            self._read = new
            return True

    def _known(self) -> dict[_Key, Verdict]:
        if self._read is None:
            try:
                self._read = _verdicts(agent_durable.read(self._path))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                print(agent_durable.put_aside(self._path, error), file=sys.stderr, flush=True)
                self._read = {}
        return self._read


def _record(key: _Key, verdict: Verdict) -> dict[str, Any]:
    return {**dict(zip(("digest", "runtime", "settings"), key, strict=True)), **asdict(verdict)}


def _verdicts(content: Any) -> dict[_Key, Verdict]:
    found = {}
    for each in content["verdicts"] if content is not None else ():
        key = (str(each["digest"]), str(each["runtime"]), str(each["settings"]))
        found[key] = Verdict(bool(each["accepted"]), str(each["code"]), str(each["reason"]), float(each["at"]))
    return found
