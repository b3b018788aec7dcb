"""A real daemon without a cloud, driven over its IPC: for tools and tests that look at what restarts do to components."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from nucleus.core import overlap
from nucleus.host import places
from nucleus.ipc import client
from tools import system as systems

WITHIN_S = 60
_ROOT = Path(__file__).resolve().parent.parent
_pause = threading.Event()


class Nucleus:
    """A real daemon without a cloud below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with (self.root.parent / "nucleus.log").open("ab") as output:
            command = [sys.executable, "-m", "nucleus", "--root", str(self.root)]
            return subprocess.Popen(command, stdout=output, stderr=output, cwd=_ROOT)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(40)
        finally:
            self.process.kill()

    def log(self) -> str:
        return (self.root / "logs" / "greengrass.log").read_text()

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Raises TimeoutError when nobody answers."""
        until = time.monotonic() + WITHIN_S
        while True:
            try:
                facts = json.loads(next((self.root / "cli_ipc_info").glob("user-*")).read_bytes())
                with client.Client(socket_path=facts["domain_socket_path"], token=facts["cli_auth_token"]) as ipc:
                    return ipc.call(operation, request)
            except (OSError, StopIteration, client.IPCError) as error:
                if time.monotonic() > until:
                    raise TimeoutError(f"no answer to {operation}: {error}") from error
                _pause.wait(0.05)

    def deploy(self, recipes: list[dict[str, Any]]) -> None:
        """Deploys components and waits until they run."""
        folder = self.root.parent / "recipes"
        folder.mkdir(exist_ok=True)
        for recipe in recipes:
            name, version = recipe["ComponentName"], recipe["ComponentVersion"]
            (folder / f"{name}-{version}.yaml").write_text(yaml.safe_dump(recipe))
        wanted = {recipe["ComponentName"]: recipe["ComponentVersion"] for recipe in recipes}
        request = {"recipeDirectoryPath": str(folder), "rootComponentVersionsToAdd": wanted}
        made = self.call("CreateLocalDeployment", request)["deploymentId"]
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.call("GetLocalDeploymentStatus", {"deploymentId": made})["deployment"])
            return found["status"] in systems.ENDED

        systems.wait_for(ended, lambda: f"the deployment to end: {found}", WITHIN_S, 0.1)
        if found["status"] != "SUCCEEDED":
            raise RuntimeError(f"cannot deploy: {found}")

    def restart(self) -> None:
        """Restarts it and returns when the next image has taken over, however it did."""
        before = self.starts()
        self.call("marram#RestartNucleus", {})
        systems.wait_for(lambda: self.starts() > before, "the nucleus to come back", WITHIN_S, 0.01)

    def starts(self) -> int:
        return self.log().count("nucleus.started")


def recipe(name: str, run: str, access: dict[str, Any] | None = None, **lifecycle: Any) -> dict[str, Any]:
    """A component with a Run script and a policy for local publish/subscribe."""
    operations = {"operations": ["*"], "resources": ["*"]}
    services = ("aws.greengrass.ipc.pubsub", "aws.greengrass.ipc.mqttproxy")
    policy = {one: {f"{name}:{one}": operations} for one in services} if access is None else access
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": "1.0.0",
        "ComponentConfiguration": {"DefaultConfiguration": {"accessControl": policy}},
        "Manifests": [{"Lifecycle": {"Run": run, **lifecycle}}],
    }


def pids(root: Path) -> dict[str, tuple[int, ...]]:
    """Processes of each component by the records that the daemon keeps of them; without those that are being started."""
    found: dict[str, list[int]] = {}
    for path in places.Places(root).processes.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):  # it goes, or is being written
            fact = json.loads(path.read_bytes())
            name = fact["component"].removesuffix(overlap.SUFFIX)  # after an update beside the old version
            found.setdefault(name, []).append(fact["pid"])
    return {name: tuple(sorted(many)) for name, many in sorted(found.items()) if all(many)}
