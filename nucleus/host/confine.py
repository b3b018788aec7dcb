"""Bounds memory and processor time of a component's processes and freezes them, by control groups (spec/nucleus.md 2.11).

Version 2 where `cgroup.controllers` lies in the root of the tree and version 2 has the controllers; else version 1, a tree for
each controller. Whether a controller is there is seen by its files in the group that was made: making a folder succeeds on
any file system. Files are never created, only written. The group of a component is `<parent>/<component>`; each nucleus
has a parent of its own, so that two on one machine do not limit each other.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable
from pathlib import Path

from nucleus.core import run_as

ROOT = Path("/sys/fs/cgroup")
MEMORY, CPU, FREEZER = "memory", "cpu", "freezer"
PERIOD_US = 100_000  # the kernel's default
_FILES = {  # what shows that a controller is there: in version 2, in version 1
    MEMORY: ("memory.max", "memory.limit_in_bytes"),
    CPU: ("cpu.max", "cpu.cfs_quota_us"),
    FREEZER: ("cgroup.freeze", "freezer.state"),
}


class Unavailable(Exception):  # noqa: N818  the word says it
    """This device does not let the nucleus do it; the text says why and what to do."""


def parent(owner: str) -> str:
    """The name of one nucleus's group; `owner` is its mark (host/process.py)."""
    return f"greengrass-{owner[:8]}"


class Groups:
    """The control groups of one nucleus. All calls are short writes to the kernel."""

    def __init__(self, parent: str, root: Path = ROOT) -> None:
        self._parent = parent
        self._root = root
        self._two = (root / "cgroup.controllers").exists()

    def limit(self, component: str, limits: run_as.Limits) -> None:
        """Sets the bounds; 0 lifts one. Raises Unavailable when a bound that is asked for cannot be set."""
        if limits.memory_kb or self._exists(component, MEMORY):
            folder = self._open(component, MEMORY)
            size = limits.memory_kb * 1024
            name = _FILES[MEMORY][0 if self._two else 1]
            self._write(folder / name, str(size) if size else ("max" if self._two else "-1"))
        if limits.cpus or self._exists(component, CPU):
            self._limit_cpus(self._open(component, CPU), limits.cpus)

    def add(self, component: str, pids: Iterable[int]) -> None:
        """Puts processes into the groups the component has; those that ended meanwhile are skipped."""
        for folder in self._existing(component):
            for pid in pids:
                self._add(folder, pid)

    def freeze(self, component: str) -> None:
        """Begins to freeze what is in the component's group and makes one if there is none. Raises Unavailable."""
        self._write(*self._freezer(self._open(component, FREEZER), frozen=True))

    def is_frozen(self, component: str) -> bool:
        """Whether all processes of the group stand still now."""
        folder = self._folder(component, FREEZER)
        with contextlib.suppress(OSError):
            if self._two:
                return "frozen 1" in (folder / "cgroup.events").read_text()
            return (folder / "freezer.state").read_text().strip() == "FROZEN"
        return False

    def thaw(self, component: str) -> None:
        """Raises Unavailable. A component without a group is not frozen."""
        if self._exists(component, FREEZER):
            self._write(*self._freezer(self._folder(component, FREEZER), frozen=False))

    def thaw_all(self) -> None:
        """Lets everything go on that a killed predecessor left frozen: what is frozen cannot end."""
        above = self._folder("x", FREEZER).parent
        for folder in above.iterdir() if above.is_dir() else ():
            if folder.is_dir():
                with contextlib.suppress(Unavailable):
                    self._write(*self._freezer(folder, frozen=False))

    def remove(self, component: str) -> None:
        """Removes the component's groups if no process is in them any more, and the parent with the last one."""
        for folder in self._existing(component):
            with contextlib.suppress(OSError):
                folder.rmdir()
                folder.parent.rmdir()

    def has(self, component: str) -> bool:
        return bool(self._existing(component))

    # ---- folders -------------------------------------------------------------------------------------------------

    def _folder(self, component: str, controller: str) -> Path:
        top = self._root if self._two else self._root / controller
        return top / self._parent / component

    def _exists(self, component: str, controller: str) -> bool:
        name = _FILES[controller][0 if self._two else 1]
        return (self._folder(component, controller) / name).exists()

    def _existing(self, component: str) -> list[Path]:
        found = {self._folder(component, controller) for controller in (MEMORY, CPU, FREEZER)}
        return sorted(folder for folder in found if (folder / "cgroup.procs").exists())

    def _open(self, component: str, controller: str) -> Path:
        """The component's folder for a controller, made if need be. Raises Unavailable."""
        folder = self._folder(component, controller)
        if self._exists(component, controller):
            return folder
        top = folder.parent.parent
        if not (top / "cgroup.procs").exists():
            raise Unavailable(f"this system has no control group controller {controller} below {top}")
        try:
            if self._two:
                self._hand_down(top, controller)
            folder.parent.mkdir(exist_ok=True)
            if self._two:
                self._hand_down(folder.parent, controller)
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise Unavailable(f"cannot make control group {folder}: {error.strerror}{_hint(error)}") from error
        if not self._exists(component, controller):
            raise Unavailable(f"the control groups below {top} have no controller {controller}")
        return folder

    def _hand_down(self, folder: Path, controller: str) -> None:
        """Version 2: lets the groups below a folder use a controller; freezing needs none."""
        control = folder / "cgroup.subtree_control"
        if controller != FREEZER and controller not in control.read_text().split():
            self._write(control, f"+{controller}")

    # ---- writes --------------------------------------------------------------------------------------------------

    def _limit_cpus(self, folder: Path, cpus: float) -> None:
        if self._two:
            fields = (folder / "cpu.max").read_text().split()
            period = int(fields[1]) if len(fields) > 1 else PERIOD_US
            quota = str(max(round(period * cpus), 1)) if cpus else "max"
            self._write(folder / "cpu.max", f"{quota} {period}")
            return
        period = int((folder / "cpu.cfs_period_us").read_text())
        self._write(folder / "cpu.cfs_quota_us", str(max(round(period * cpus), 1)) if cpus else "-1")

    def _freezer(self, folder: Path, *, frozen: bool) -> tuple[Path, str]:
        if self._two:
            return folder / "cgroup.freeze", "1" if frozen else "0"
        return folder / "freezer.state", "FROZEN" if frozen else "THAWED"

    def _add(self, folder: Path, pid: int) -> None:
        try:
            _write(folder / "cgroup.procs", str(pid))
        except OSError as error:
            if error.errno != errno.ESRCH:  # it has ended
                raise Unavailable(f"cannot put process {pid} into {folder}: {error.strerror}") from error

    def _write(self, path: Path, text: str) -> None:
        try:
            _write(path, text)
        except OSError as error:
            raise Unavailable(f"cannot write {text!r} to {path}: {error.strerror}{_hint(error)}") from error


def _write(path: Path, text: str) -> None:
    """Without creating: a file that is not there is no control file."""
    with path.open("r+") as file:
        file.write(text)


def _hint(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "; run the nucleus as root with a writable /sys/fs/cgroup"
    return ""
