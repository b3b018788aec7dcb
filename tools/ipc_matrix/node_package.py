"""The official JavaScript client: found, or installed by npm into a cache folder outside the repository.

    python -m tools.ipc_matrix.node_package        installs it and says where


Its prebuilt binary lies inside the package, so npm's install scripts are not needed and not run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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


def declared_errors(where: Path) -> dict[str, list[str]]:
    """The errors that the package declares for each operation it knows, by their short names."""
    script = (
        "const model = require('aws-iot-device-sdk-v2/dist/greengrasscoreipc/model_utils').makeServiceModel();"
        "const short = (name) => name.split('#')[1];"
        "const rows = [...model.operations].map(([name, one]) => [short(name), [...one.errorShapes].map(short)]);"
        "console.log(JSON.stringify(Object.fromEntries(rows)));"
    )
    environment = os.environ | {"NODE_PATH": str(where / "node_modules")}
    done = subprocess.run(
        ["node", "-e", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    try:
        print(find(install=True))
    except Absent as reason:
        sys.exit(str(reason))
