"""The official JavaScript client: found, or installed by npm into a cache folder outside the repository.

Its prebuilt binary lies inside the package, so npm's install scripts are not needed and not run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tools.ipc_matrix import world

PACKAGE = "aws-iot-device-sdk-v2"
VERSION = "1.28.0"
_INSTALL_S = 300


class Absent(Exception):  # noqa: N818  a reason to skip
    """There is no node, or the package is not there and cannot be installed; the text says which and what to do."""


def folder() -> Path:
    """Where the package is kept; MARRAM_NODE_CACHE names another place."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marram" / "ipc-matrix"
    return Path(os.environ.get("MARRAM_NODE_CACHE") or usual)


def find(*, install: bool) -> Path:
    """The folder whose node_modules has the package. Raises Absent."""
    where = folder()
    if shutil.which("node") is None:
        raise Absent("node is not installed (Debian: apt-get install nodejs npm)")
    if (where / "node_modules" / PACKAGE / "package.json").exists():
        return where
    if not install:
        raise Absent(f"{PACKAGE} is not in {where}; `make ipc-matrix` puts it there")
    if shutil.which("npm") is None:
        raise Absent(f"{PACKAGE} is not in {where} and npm is not installed (Debian: apt-get install npm)")
    where.mkdir(parents=True, exist_ok=True)
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(where)]
    done = subprocess.run(
        ["npm", "install", *options, f"{PACKAGE}@{VERSION}"], capture_output=True, text=True, timeout=_INSTALL_S
    )
    if done.returncode:
        raise Absent(f"npm cannot install {PACKAGE}: {done.stderr.strip()[-300:]}")
    return where


def command(where: Path) -> list[str]:
    """The driver of the JavaScript client."""
    return ["env", f"NODE_PATH={where / 'node_modules'}", "node", str(world.FOLDER / "drivers" / "js_driver.js")]
