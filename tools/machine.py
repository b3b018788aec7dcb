"""One root under its real loader, driven over the IPC: for the own update, and for killing it in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from nucleus.core import builtin
from nucleus.ipc import client
from tools import make_nucleus_zip
from tools import system as systems

WITHIN_S = 60


class Machine:
    """One root under its loader; `deploy` makes a local deployment over the IPC and waits until it has ended."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "bin" / "loader").exists():
            self._install()
        self.loader = subprocess.Popen([root / "bin" / "loader"])
        self.ends: list[int] = []  # exit codes of loaders that a service manager would have started again

    def _install(self) -> None:
        root = self.root
        nucleus = {"configuration": {"runWithDefault": {"posixUser": str(os.getuid())}}}
        config = root.parent / "config.yaml"
        config.write_text(yaml.safe_dump({"services": {"aws.greengrass.Nucleus": nucleus}}))
        command = [sys.executable, "-m", "nucleus.cli", "nucleus", "install", "--root", str(root), "--init", "shell"]
        subprocess.run([*command, "--config", str(config), "--no-start"], check=True, capture_output=True)

    def close(self) -> None:
        self.loader.terminate()
        try:
            self.loader.wait(WITHIN_S)
        finally:
            self.loader.kill()

    def publish(self, recipe: dict[str, Any], files: dict[str, bytes]) -> None:
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        recipes, artifacts = self.root / "published" / "recipes", self.root / "published" / "artifacts" / name / version
        for folder in (recipes, artifacts):
            folder.mkdir(parents=True, exist_ok=True)
        (recipes / f"{name}-{version}.yaml").write_text(yaml.safe_dump(recipe))
        for file_name, data in files.items():
            (artifacts / file_name).write_bytes(data)

    def publish_nucleus(self, version: str, changes: dict[str, bytes] | None = None) -> None:
        data = make_nucleus_zip.archive(version, changes)
        self.publish(make_nucleus_zip.recipe(version), {make_nucleus_zip.ARCHIVE: data})

    def deploy(self, components: dict[str, str]) -> dict[str, Any]:
        request = {
            "recipeDirectoryPath": str(self.root / "published" / "recipes"),
            "artifactsDirectoryPath": str(self.root / "published" / "artifacts"),
            "rootComponentVersionsToAdd": components,
            "failureHandlingPolicy": "ROLLBACK",
        }
        made = self.call("aws.greengrass#CreateLocalDeployment", request)["deploymentId"]
        found: dict[str, Any] = {}

        def ended() -> bool:
            nonlocal found
            found = self.call("aws.greengrass#GetLocalDeploymentStatus", {"deploymentId": made})["deployment"]
            return found["status"] in systems.ENDED

        systems.wait_for(ended, lambda: f"the deployment to end: {found}", WITHIN_S, 0.1)
        return found

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Tries again while the nucleus is between two launches."""
        until = time.monotonic() + WITHIN_S
        while True:
            if (code := self.loader.poll()) is not None:
                self.ends.append(code)
                self.loader = subprocess.Popen([self.root / "bin" / "loader"])
            try:
                facts = json.loads(next((self.root / "cli_ipc_info").glob("user-*")).read_bytes())
                with client.Client(socket_path=facts["domain_socket_path"], token=facts["cli_auth_token"]) as ipc:
                    return ipc.call(operation.partition("#")[2], request)
            except (OSError, StopIteration, client.IPCError):
                if time.monotonic() > until:
                    raise
                pause()

    def running(self) -> str:
        return (self.root / "alts" / "current").readlink().name

    def directories(self) -> set[str]:
        return {one.name for one in (self.root / "alts").iterdir() if one.is_dir() and not one.is_symlink()}

    def states(self) -> dict[str, tuple[str, str]]:
        found = self.call("aws.greengrass#ListComponents", {})["components"]
        theirs = [one for one in found if one["componentName"] != builtin.NUCLEUS]
        return {one["componentName"]: (one["version"], one["state"]) for one in theirs}


def pause() -> None:
    threading.Event().wait(0.05)
