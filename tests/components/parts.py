"""Real processes of the components, laid out as a nucleus does: artifacts as their recipe names them, a work folder each."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_frames
import model_client
import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "recipes"
AGENT = REPOSITORY / "components/model_agent"
MODEL = REPOSITORY / "components/power_curve_model"
MONITOR = REPOSITORY / "components/turbine_monitor/1.0.0"
OURS = {
    "marram_ipc.py": REPOSITORY / "nucleus/ipc/client.py",
    "marram_signing.py": REPOSITORY / "nucleus/core/signing.py",
}
MODEL_NAME = "com.example.turbine.PowerCurveModel"
WAIT_S = 30.0
BATCH = {"conditions": np.array([[8.0, 10.0], [11.0, 0.0]], dtype=np.float32)}


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """The first true value of `condition`, looked at often; fails the test when WAIT_S passed."""
    end = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {WAIT_S:g} s in vain for {what or condition}"
        threading.Event().wait(0.01)
    return value


def artifact_names(recipe: str) -> list[str]:
    """The files a recipe of ours names."""
    manifest = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["Manifests"][0]
    return [artifact["URI"].rsplit("/", 1)[1] for artifact in manifest.get("Artifacts", ())]


def publish(recipe: str, source: Path, target: Path) -> Path:
    """Copies the artifacts of a recipe, and only those, as `marram component publish` finds them."""
    target.mkdir(parents=True)
    for name in artifact_names(recipe):
        shutil.copyfile(OURS.get(name, source / name), target / name)
    return target


class Device:
    """A root folder with short paths (a socket's path is bounded) and the processes started in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.agent_files = publish("marram.ModelAgent-1.0.0", AGENT, root / "packages/agent")
        self.socket = self.work("marram.ModelAgent") / "agent.sock"
        self.processes: list[subprocess.Popen[str]] = []

    def work(self, component: str) -> Path:
        folder = self.root / "work" / component
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self, component: str, *command: str | Path, environment: dict[str, str] | None = None) -> Any:
        """Starts a script of a component in its work folder; output goes to `<component>.log` below the root."""
        with (self.root / f"{component}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", *map(str, command)],
                cwd=self.work(component),
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.processes.append(process)
        return process

    def start_agent(self, *arguments: str, environment: dict[str, str] | None = None) -> Any:
        """The agent, listening."""
        before = self.log("marram.ModelAgent").count("listening on")
        process = self.start("marram.ModelAgent", self.agent_files / "agent.py", *arguments, environment=environment)
        until(
            lambda: process.poll() is not None or self.log("marram.ModelAgent").count("listening on") > before,
            "the agent to listen",
        )
        assert process.poll() is None, self.log("marram.ModelAgent")
        return process

    def log(self, component: str) -> str:
        path = self.root / f"{component}.log"
        return path.read_text() if path.exists() else ""

    def hand_over(self, verb: str, version: str, *more: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs the model's script to its end."""
        command = [sys.executable, self.agent_files / "hand_over.py", *self.words(verb, version, *more)]
        return subprocess.run(
            command, cwd=self.work(MODEL_NAME), capture_output=True, text=True, timeout=60, check=False
        )

    def words(self, verb: str, version: str, *more: str | Path) -> list[str | Path]:
        named = ["--component", MODEL_NAME, "--version", version]
        return [verb, *named, "--socket", "../marram.ModelAgent/agent.sock", *more]

    def offer(self, version: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Offers a model of the repository, or the one in `folder`, as this version."""
        return self.hand_over("offer", version, "--artifacts", folder or MODEL / version)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(WAIT_S)


def predict(client: model_client.Client, deadline_s: float = 20.0) -> model_client.Answer:
    """What the power curve answers for BATCH."""
    return client.predict("power-curve", BATCH, deadline_s=deadline_s)


def ask(device: Device, header: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
    """One request on a connection of its own; the header of its reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(20)
        one.connect(str(device.socket))
        agent_frames.send(one, header, body)
        reply: dict[str, Any] = agent_frames.receive(one)[0]
        return reply


def serving(device: Device) -> list[dict[str, Any]]:
    """What `list` says."""
    models: list[dict[str, Any]] = ask(device, {"op": "list"})["models"]
    return models


@contextlib.contextmanager
def device() -> Iterator[Device]:
    """A device whose processes are ended and whose files are removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="m"))
    made = Device(root)
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(root)


def changed_model(folder: Path, change: Callable[[dict[str, Any]], None], model: bytes | None = None) -> Path:
    """1.1.0's files in `folder`, model.json changed by `change` and the model replaced by `model`."""
    shutil.copytree(MODEL / "1.1.0", folder)
    described = json.loads((folder / "model.json").read_text())
    if model is not None:
        (folder / described["file"]).write_bytes(model)
    change(described)
    (folder / "model.json").write_text(json.dumps(described))
    return folder
