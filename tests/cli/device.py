"""A nucleus without cloud for tests of device verbs: a real process, components run as the user of the tests."""

from __future__ import annotations

import contextlib
import getpass
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cli import marram


@contextlib.contextmanager
def running(configuration: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """The root folder of a running nucleus; its path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="md") as folder:
        root = Path(folder) / "d"
        root.mkdir()
        values = {"runWithDefault": {"posixUser": getpass.getuser()}, **(configuration or {})}
        services = {"aws.greengrass.Nucleus": {"configuration": values}}
        (root / "config.yaml").write_text(yaml.safe_dump({"system": {}, "services": services}))
        ready = (root / "ipc.socket").exists
        with marram.running(Path(folder) / "log", ready, "nucleus", "run", "--root", root):
            yield root


def recipe(folder: Path, name: str, version: str, script: str, **more: Any) -> Path:
    """Writes a recipe with one Run script into `folder`, which it returns."""
    folder.mkdir(exist_ok=True)
    document = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "Manifests": [{"Lifecycle": {"Run": script}}],
        **more,
    }
    (folder / f"{name}-{version}.yaml").write_text(yaml.safe_dump(document))
    return folder


def deploy(root: Path, *arguments: str | Path) -> str:
    """Deploys locally and waits for the end; returns the status."""
    made = marram.run("deployment", "create", "--root", root, "-o", "json", *arguments)
    assert made.code == 0, made.err
    deployment_id = made.json["deploymentId"]
    last: list[str] = [""]

    def ended() -> bool:
        shown = marram.run("deployment", "status", "-i", deployment_id, "--root", root, "-o", "json")
        last[0] = shown.json["item"]["status"]
        return last[0] not in ("QUEUED", "IN_PROGRESS")

    marram.until(ended, lambda: f"{deployment_id} is {last[0]}")
    return last[0]
