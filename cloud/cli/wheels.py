"""Makes `wheels.zip`: everything a Python component needs, for devices without a network (design.md 4.2)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nucleus.cli import artifacts, exits

REQUIREMENTS = "requirements.txt"


def make(folders: Sequence[Path], target: Path) -> None:
    """Builds the wheels of the first requirements.txt with pip and archives them. Raises Failure with pip's words."""
    found = next((folder / REQUIREMENTS for folder in folders if (folder / REQUIREMENTS).is_file()), None)
    if found is None:
        where = ", ".join(str(folder) for folder in folders)
        raise exits.Failure(f"cannot make {artifacts.WHEELS}: there is no {REQUIREMENTS} in {where}")
    with tempfile.TemporaryDirectory(prefix="marram-wheels-") as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder, "--requirement", str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise exits.Failure(f"cannot make {artifacts.WHEELS} from {found}: {done.stderr.strip()}")
        artifacts.archive(Path(folder), target)
