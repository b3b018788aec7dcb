"""The launch directories of the nucleus itself, `<root>/alts/<name>/`, and the links that say which one runs.

A launch directory holds `python`, one line: the interpreter to run (relative to the directory, or absolute). It is written
last, so a directory without it is not finished. Links are `current`, `old`, `new`, `broken` (spec/nucleus.md 5.9); every
change is the rename of a fresh link. `nucleus/launch/loader.sh` reads the links and repairs what a crash left between two.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from nucleus.core import errors
from nucleus.host import files

INSTALL_S = 600.0  # for the virtual environment and pip, on a slow card
SELFTEST_S = 60.0
LINKS = ("current", "old", "new", "broken")
INIT = "init"  # the launch directory that `marram nucleus install` makes
LOADER_VARIABLE = "MARRAM_LOADER"  # set by the loader in the environment of the nucleus
_TOLD = 400  # characters of a failed program's last words


class Launches:
    """Everything below `<root>/alts`. `under_loader`: this process was started by the loader, so a switch has an effect."""

    def __init__(self, root: Path, *, under_loader: bool) -> None:
        self._root = root
        self._alts = root / "alts"
        self._under_loader = under_loader

    def directory(self, name: str) -> Path:
        return files.join(self._alts, name)

    def current(self) -> str:
        """The name of the directory that `current` leads to; "" when it leads nowhere."""
        return self._target("current")

    def interpreter(self) -> str:
        """The Python that runs this nucleus after a restart: what the loader would start, else the one that runs now."""
        name = self.current()
        return self._python(name) if self._under_loader and name else sys.executable

    def why_fixed(self) -> str:
        """Why another version cannot be launched here, or ""."""
        if not self._under_loader:
            return "this nucleus was not started by its loader; run `marram nucleus install` and start it as it says"
        return "" if self.current() else f"{self._alts}/current leads nowhere"

    def make_first(self) -> None:
        """The launch directory of the program that is running now; `current` leads to it unless it leads somewhere."""
        self._write(INIT, sys.executable)
        if not self.current():
            self._point("current", INIT)

    def install(self, name: str, wheels: Path, requirement: str) -> None:
        """Installs wheels (a folder) offline into a new launch directory; returns at once if that is finished already.

        Blocks for seconds. Raises NucleusError COMPONENT_BOOTSTRAP_ERROR, IO_WRITE_ERROR, DISK_SPACE_CRITICAL.
        """
        target = self.directory(name)
        if (target / "python").exists():
            return
        shutil.rmtree(target, ignore_errors=True)
        files.make_directory(self._alts, 0o700)
        files.make_directory(target, 0o700)
        environment = target / "venv"
        python = environment / "bin" / "python"
        _run([sys.executable, "-I", "-m", "venv", "--without-pip", str(environment)], "make a virtual environment")
        # pip comes with the wheels: neither this environment nor the system need have one.
        own = sorted(wheels.glob("pip-*.whl"))
        pip = (
            [str(python), "-I", f"{own[-1]}/pip"]
            if own
            else [sys.executable, "-I", "-m", "pip", "--python", str(python)]
        )
        options = [
            "--isolated",
            "--no-index",
            "--no-cache-dir",
            "--no-compile",
            "--disable-pip-version-check",
            "--quiet",
        ]
        _run([*pip, "install", *options, "--find-links", str(wheels), requirement], f"install {requirement}")
        os.sync()  # thousands of files: one barrier before the file that says they are complete
        self._write(name, "venv/bin/python")

    def selftest(self, name: str) -> str:
        """Lets the version in a launch directory test itself against this root; returns the version it says it is.

        Blocks. Raises NucleusError COMPONENT_BOOTSTRAP_ERROR with its last words.
        """
        python = self._python(name)
        said = _run(
            [python, "-I", "-m", "nucleus.cli", "selftest", "--root", str(self._root)], "pass `marram selftest`"
        )
        return said.splitlines()[-1].strip() if said.strip() else ""

    def switch(self, name: str) -> None:
        """`current` leads to `name` from now on, `old` to what was current; doing it twice changes nothing."""
        before = self.current()
        if before == name:
            self._drop("new")
            return
        if not self._is_finished(name):
            raise _corrupted(f"{self.directory(name)} is not finished")
        self._drop("broken")
        self._point("new", name)
        self._point("old", before)
        self._point("current", name)
        self._drop("new")

    def back(self) -> bool:
        """`current` leads to what `old` did, `broken` to what was current; False when there is no `old`."""
        old = self._target("old")
        if not old:
            return False
        self._drop("new")
        self._point("broken", self.current() or old)
        self._point("current", old)
        self._drop("old")
        return True

    def tidy(self, keep: Collection[str]) -> None:
        """For when everything is decided: drops the links of the last switch and the directories nothing needs."""
        for link in ("new", "old", "broken"):
            self._drop(link)
        needed = {self.current(), INIT, *keep}
        for path in self._alts.iterdir() if self._alts.is_dir() else ():
            if path.is_dir() and not path.is_symlink() and path.name not in needed:
                shutil.rmtree(path, ignore_errors=True)

    def panic(self) -> str:
        """The loader's note that it went back to `old` because `current` did not start; "" if there is none."""
        try:
            return (self._alts / "panic").read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def forget_panic(self) -> None:
        self._drop("panic")

    def set_reboot_command(self, command: str) -> None:
        """What the loader runs when the nucleus asks for a reboot; "" is the loader's default."""
        files.make_directory(self._alts, 0o700)
        files.write_durably(self._alts / "reboot-command", f"{command}\n".encode() if command else b"")

    def _target(self, link: str) -> str:
        try:
            name = (self._alts / link).readlink().name
        except OSError:
            return ""
        return name if self._is_finished(name) else ""

    def _is_finished(self, name: str) -> bool:
        return (self._alts / name / "python").is_file()

    def _python(self, name: str) -> str:
        """The interpreter of a launch directory. The path must not lead through `current`, which moves."""
        target = self.directory(name)
        return str(target / (target / "python").read_text().strip())

    def _write(self, name: str, python: str) -> None:
        files.make_directory(self._alts, 0o700)
        files.make_directory(self.directory(name), 0o700)
        files.write_durably(self.directory(name) / "python", f"{python}\n".encode())

    def _point(self, link: str, name: str) -> None:
        fresh = self._alts / f".{link}.new"
        with files.writing(self._alts / link):
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(name)
            fresh.replace(self._alts / link)
            files.sync_directory(self._alts)

    def _drop(self, name: str) -> None:
        path = self._alts / name
        if not path.is_symlink() and not path.exists():
            return
        with files.writing(path):
            path.unlink()
            files.sync_directory(self._alts)


def loader_text() -> bytes:
    """The loader as it is installed: once, and never replaced by an update."""
    return (Path(__file__).parents[1] / "launch" / "loader.sh").read_bytes()


def _run(command: list[str], what: str) -> str:
    """Runs one program to its end; returns its standard output. Raises NucleusError with its last words."""
    limit_s = SELFTEST_S if "selftest" in command else INSTALL_S
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_"))}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(what, f"it did not end within {limit_s:g} s") from None
    except OSError as error:
        raise _failed(what, str(error)) from error
    if done.returncode != 0:
        words = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise _failed(what, f"exit code {done.returncode}: {' / '.join(words[-3:])[-_TOLD:]}")
    return done.stdout


def _failed(what: str, why: str) -> errors.NucleusError:
    return errors.NucleusError("COMPONENT_BOOTSTRAP_ERROR", f"the new nucleus could not {what}: {why}")


def _corrupted(why: str) -> errors.NucleusError:
    return errors.NucleusError("LAUNCH_DIRECTORY_CORRUPTED", f"cannot switch to another nucleus: {why}")
