"""The fault switch of the IPC, for tests: `ipc-service-error:<Operation>` in the file `<root>/fault`.

It has an effect only in a test root, a root folder with a file named `test-root` when the nucleus starts; elsewhere there
is no switch at all, and a fault file that asks for it is told and refused (nucleus/ARCHITECTURE.md, Faults on purpose).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nucleus.host import logs

MARKER = "test-root"
FILE = "fault"
IPC_SERVICE_ERROR = "ipc-service-error"


def service_errors(root: Path, log: logs.Log) -> Callable[[str], bool] | None:
    """Says of an operation whether it must fail now; None outside a test root."""
    file = root / FILE
    if not (root / MARKER).exists():
        if _named(file):
            log.warning(
                "fault.refused", switch=IPC_SERVICE_ERROR, why=f"{root} is no test root: it has no file {MARKER}"
            )
        return None
    log.warning(
        "fault.test_root", why=f"{root} has a file {MARKER}: {IPC_SERVICE_ERROR} in {FILE} makes operations fail"
    )
    return lambda operation: _named(file) == operation


def _named(file: Path) -> str:
    """The operation that the switch names, "" if none."""
    try:
        name, _, operation = file.read_text().strip().partition(":")
    except (OSError, UnicodeDecodeError):
        return ""
    return operation if name == IPC_SERVICE_ERROR else ""
