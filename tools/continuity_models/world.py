"""A service, a device and its nucleus with everything published that the events deploy; one for each column of the table."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import yaml

from tools import bench_model, local_nucleus, vision_models
from tools import system as systems
from tools.continuity_models import models

REPOSITORY = Path(__file__).resolve().parents[2]
THING = "dev"
AGENT, CAMERA, APPLICATION = "marram.ModelAgent", "com.example.vision.Camera", "com.example.vision.Detector"
DETECTOR, CNN, OTHER_CNN = "com.example.vision.DetectorModel", "com.example.Cnn", "com.example.OtherCnn"
BROKEN = "com.example.Broken"
WITHIN_S = 120.0
ALIASES = {DETECTOR: models.DETECTOR, CNN: models.CNN, OTHER_CNN: models.CNN}


class World:
    """Below one folder with a short path; `close` ends every process of it."""

    def __init__(self, folder: Path, built: Path) -> None:
        self.folder = folder
        self.built = built
        self.log = folder / "log"
        self.log.mkdir(parents=True)
        self._system = systems.System(folder / "s")
        self._system.start_cloud()
        self._system.create_device(THING)
        self.nucleus = local_nucleus.Nucleus(self._system.device(THING))
        self._recipes, self._artifacts = folder / "recipes", folder / "artifacts"
        self._recipes.mkdir()
        self.agent_files = bench_model.publish(folder / "agent")
        self.client: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.nucleus.root / "work" / AGENT / "agent.sock"

    def close(self) -> None:
        """Ends the client first: what a closing device does to it is no finding."""
        if self.client is not None:
            self.stop_client()
        try:
            self.nucleus.close()
        finally:
            self._system.close()
            for process in _inside(self.folder):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    # ---- publishing --------------------------------------------------------------------------------------------------

    def publish_ours(self) -> None:
        """The agent in two versions, an application in two, the models in all."""
        for version in ("1.0.0", "1.0.1"):
            self._publish(AGENT, version, self._ours(f"{AGENT}-1.0.0"), self.agent_files)
        for name, versions in ((CAMERA, ("1.0.0",)), (APPLICATION, ("1.0.0", "1.1.0"))):
            for version in versions:
                self._publish(name, version, self._ours(f"{name}-1.0.0"), REPOSITORY / "components/vision")
        text = (REPOSITORY / "recipes/com.example.vision.DetectorModel-1.0.0.yaml").read_text()
        for name, alias in ALIASES.items():
            for folder in sorted((self.built / alias).iterdir()):
                changed = text.replace("com.example.vision.DetectorModel", name).replace("1.0.0", folder.name)
                recipe = _with_python(yaml.safe_load(changed.replace(f">={folder.name} <2.0.0", ">=1.0.0 <2.0.0")))
                if name == OTHER_CNN:
                    recipe["ComponentConfiguration"]["DefaultConfiguration"]["model"] = {"replaces": CNN}
                self._publish(name, folder.name, recipe, folder)
        self._publish(BROKEN, "1.0.0", local_nucleus.recipe(BROKEN, "exit 0", Startup="exit 1"), None)

    def publish_sample(self, configuration: Path) -> None:
        """Models that are nothing but files, and an application whose run command names theirs; 2.0.0 that of another one."""
        for name, alias in ALIASES.items():
            for folder in sorted((self.built / alias).iterdir()):
                recipe = local_nucleus.recipe(name, "exit 0")
                recipe["Manifests"] = [{"Artifacts": [{"URI": f"s3://x/{vision_models.FILE}"}], "Lifecycle": {}}]
                self._publish(name, folder.name, recipe, folder)
        program = f"cd {REPOSITORY} && exec {sys.executable} -m tools.continuity_models.sample"
        for version, cnn in (("1.0.0", CNN), ("1.1.0", CNN), ("2.0.0", OTHER_CNN)):
            files = " ".join(f"{{{name}:artifacts:path}}/{vision_models.FILE}" for name in (DETECTOR, cnn))
            recipe = local_nucleus.recipe(APPLICATION, f"{program} {files} {configuration}")
            hard = {"VersionRequirement": ">=1.0.0", "DependencyType": "HARD"}
            recipe["ComponentDependencies"] = {name: dict(hard) for name in (DETECTOR, cnn)}
            self._publish(APPLICATION, version, recipe, None)
        self._publish(BROKEN, "1.0.0", local_nucleus.recipe(BROKEN, "exit 0", Startup="exit 1"), None)

    def _ours(self, stem: str) -> dict[str, Any]:
        return _with_python(yaml.safe_load((REPOSITORY / "recipes" / f"{stem}.yaml").read_text()))

    def _publish(self, name: str, version: str, recipe: dict[str, Any], files: Path | None) -> None:
        recipe = json.loads(json.dumps(recipe))
        recipe["ComponentName"], recipe["ComponentVersion"] = name, version
        (self._recipes / f"{name}-{version}.yaml").write_text(yaml.safe_dump(recipe))
        target = self._artifacts / name / version
        target.mkdir(parents=True)
        for artifact in recipe["Manifests"][0].get("Artifacts", ()) if files else ():
            file = artifact["URI"].rpartition("/")[2]
            assert files is not None
            shutil.copyfile(files / file, target / file)

    # ---- deploying ---------------------------------------------------------------------------------------------------

    def deploy(self, components: dict[str, str], *, remove: tuple[str, ...] = (), expect: str = "SUCCEEDED") -> None:
        """A local deployment, to its end. Raises RuntimeError for another end than `expect`."""
        request = {
            "recipeDirectoryPath": str(self._recipes),
            "artifactsDirectoryPath": str(self._artifacts),
            "rootComponentVersionsToAdd": components,
            "rootComponentsToRemove": list(remove),
            "failureHandlingPolicy": "ROLLBACK",
        }
        made = self.nucleus.call("CreateLocalDeployment", request)["deploymentId"]
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.nucleus.call("GetLocalDeploymentStatus", {"deploymentId": made})["deployment"])
            return found["status"] in systems.ENDED

        systems.wait_for(ended, lambda: f"the deployment of {components} to end: {found}", WITHIN_S, 0.05)
        if found["status"] != expect:
            details = found.get("deploymentStatusDetails", {})
            why = details.get("deploymentFailureCause") or details.get("detailedDeploymentStatus") or found
            raise RuntimeError(f"the deployment of {components} ended with {found['status']}: {why}")

    # ---- breaking ----------------------------------------------------------------------------------------------------

    def pids(self, component: str) -> list[int]:
        return list(local_nucleus.pids(self.nucleus.root).get(component, ()))

    def kill_component(self, component: str) -> None:
        """SIGKILL to all its processes, and waits until it has others."""
        before = self.pids(component)
        for pid in before:
            with contextlib.suppress(psutil.NoSuchProcess):
                main = psutil.Process(pid)
                for process in (*main.children(recursive=True), main):
                    process.send_signal(signal.SIGKILL)
        systems.wait_for(
            lambda: set(self.pids(component)) - set(before), f"{component} to be started again", WITHIN_S, 0.05
        )

    def kill_nucleus(self) -> None:
        """SIGKILL, and at once the next one."""
        self.nucleus.process.kill()
        self.nucleus.process.wait()
        starts = self.nucleus.starts()
        self.nucleus.process = self.nucleus.start()
        systems.wait_for(lambda: self.nucleus.starts() > starts, "the nucleus to start", WITHIN_S, 0.05)
        self.nucleus.call("ListComponents", {})

    def without_service(self, seconds: float) -> None:
        """The service and its broker are away for so long; they come back on the same ports."""
        endpoints = self._system.endpoints
        ports = {
            "api_port": int(endpoints["api"].rsplit(":", 1)[1]),
            "device_port": int(endpoints["device"].rsplit(":", 1)[1]),
            "mqtt_port": int(endpoints["mqtt"]["port"]),
        }
        self._system.kill("cloud")
        threading.Event().wait(seconds)
        self._system.start_cloud(**ports)

    # ---- the client --------------------------------------------------------------------------------------------------

    def start_client(self, streams: dict[str, dict[str, float]]) -> None:
        given = {
            "files": str(self.agent_files),
            "socket": str(self.socket),
            "known": str(self.built / "known.npz"),
            "log": str(self.log),
            "streams": streams,
        }
        command = [sys.executable, "-m", "tools.continuity_models.stream", json.dumps(given)]
        with (self.folder / "client.log").open("ab") as log:
            self.client = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)

    def stop_client(self) -> None:
        (self.log / "stop").touch()
        assert self.client is not None
        try:
            self.client.wait(WITHIN_S)
        finally:
            self.client.kill()
            self.client = None
            (self.log / "stop").unlink()

    def serving(self) -> dict[str, str]:
        """Alias -> version, as the agent lists it."""
        frames = vision_models.component_module("agent_frames", "model_agent")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.settimeout(10)
            one.connect(str(self.socket))
            frames.send(one, {"op": "list"})
            return {row["alias"]: row["version"] for row in frames.receive(one)[0]["models"]}


def _with_python(recipe: dict[str, Any]) -> dict[str, Any]:
    default = recipe["ComponentConfiguration"]["DefaultConfiguration"]
    default["python"] = sys.executable
    if "framesPerSecond" in default:
        default["framesPerSecond"] = 1  # the application is there to be updated, not to be a load of its own
    return dict(recipe)


def _inside(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.cwd().startswith(str(folder)):
                found.append(process)
    return found
