"""A nucleus without a cloud as a process of its own, driven over its IPC as the device's user does."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from nucleus.ipc import client
from tools import system

_numbers = itertools.count(1)


class Daemon:
    """Its files are below `root`; made by `running`."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes]) -> None:
        self.root = root
        self._process = process
        self.until(lambda: bool(list((root / "cli_ipc_info").glob("user-*"))), "the token of the CLI")
        body = json.loads(next((root / "cli_ipc_info").glob("user-*")).read_text())
        self.socket = Path(body["domain_socket_path"])
        self.until(self.socket.exists, "the socket")
        self._client = client.Client(str(self.socket), body["cli_auth_token"])

    def until(self, met: Callable[[], bool], what: str) -> None:
        system.wait_for(met, lambda: f"{what}; log:\n{self.log()[-3000:]}", 30)

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        path = self.root / "logs" / "greengrass.log"
        return path.read_text() if path.exists() else ""

    def call(self, operation: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._client.call(operation, dict(request or {}))

    def component(self, lifecycle: Mapping[str, Any], **more: Any) -> str:
        """Writes the recipe of a new component, version 1.0.0; returns its name."""
        name = f"com.example.P{next(_numbers)}"
        recipe = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": name,
            "ComponentVersion": "1.0.0",
            "Manifests": [{"Lifecycle": dict(lifecycle)}],
            **more,
        }
        (self.root / "authored").mkdir(exist_ok=True)
        (self.root / "authored" / f"{name}.json").write_text(json.dumps(recipe))
        return name

    def deploy_local(self, wanted: Mapping[str, str], **more: Any) -> str:
        """Creates a local deployment with every recipe written so far; returns its id."""
        request = {
            "rootComponentVersionsToAdd": dict(wanted),
            "recipeDirectoryPath": str(self.root / "authored"),
            **more,
        }
        return str(self.call("CreateLocalDeployment", request)["deploymentId"])

    def status(self, deployment_id: str) -> str:
        return str(self.call("GetLocalDeploymentStatus", {"deploymentId": deployment_id})["deployment"]["status"])

    def state(self, name: str) -> str:
        """The state of a component, "" if there is none."""
        found = self.call("ListComponents")["components"]
        return next((str(one["state"]) for one in found if one["componentName"] == name), "")

    def token(self, name: str) -> str:
        """Of the component whose script wrote it to `work/token`."""
        return (self.root / "work" / "token").read_text().strip()

    def pids(self, name: str) -> list[int]:
        """Processes that work in a component's folder."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if (entry / "cwd").readlink() == self.root / "work" / name:
                    found.append(int(entry.name))
        return found

    def kill_component(self, name: str) -> None:
        for pid in self.pids(name):
            os.kill(pid, signal.SIGKILL)

    def has_logged(self, word: str, name: str) -> bool:
        return any(word in line and name in line for line in self.log().splitlines())

    def close(self) -> None:
        """Ends it as a service manager does."""
        self._client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(40)


@contextlib.contextmanager
def running(
    root: Path,
    *,
    system: Mapping[str, Any] | None = None,
    services: Mapping[str, Any] | None = None,
    given: Path | None = None,
) -> Iterator[Daemon]:
    """Starts a nucleus in `root`; without `system` and `services` there is no configuration file at all.

    `given` is started with as --config.
    """
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "nucleus", "--root", str(root)]
    command += ["--config", str(given)] if given is not None else []
    if system is not None or services is not None:
        user = {"configuration": {"runWithDefault": {"posixUser": f"{os.getuid()}:{os.getgid()}"}}}
        content = {"system": dict(system or {}), "services": {"aws.greengrass.Nucleus": user} | dict(services or {})}
        (root / "config.yaml").write_text(yaml.safe_dump(content))
    for left in (root / "cli_ipc_info").glob("user-*"):
        left.unlink()  # of the run before: its token is not known any more
    with (root / "output").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        one = Daemon(root, process)
        yield one
        one.close()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
