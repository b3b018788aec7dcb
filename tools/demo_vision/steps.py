"""The acts of the vision demo: each shows what it does, checks it, and returns the figures it measured."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from cloud.cli import demo_stage
from nucleus.cli import exits
from tools import vision_models
from tools.demo_vision import figures

Figures = list[tuple[str, str]]
THING, GROUP = "gate-camera", "cameras"
AGENT, CAMERA = "marram.ModelAgent", "com.example.vision.Camera"
MODEL, APPLICATION = "com.example.vision.DetectorModel", "com.example.vision.Detector"
FIRST, SMALL, DAMAGED = vision_models.VERSIONS
FRAMES_PER_SECOND = 12
ANSWERS = 100  # that are waited for from a version before the next act
SHOWN_EVERY = 15  # samples of the trial
_TRIAL_S = 180.0


class Demo:
    """One device's story; `marks` are the moments of it, (epoch seconds, what happened)."""

    def __init__(self, stage: demo_stage.Stage) -> None:
        self._stage = stage
        self._pids: dict[str, int] = {}
        self.marks: list[tuple[float, str]] = []

    @property
    def frames(self) -> Path:
        return self._work / "frames"

    @property
    def _work(self) -> Path:
        return self._stage.device(THING) / "work" / APPLICATION

    # ---- acts --------------------------------------------------------------------------------------------------------

    def start(self) -> Figures:
        """1: the service, a group, a device and its nucleus."""
        stage, root = self._stage, str(self._stage.cloud)
        stage.verb("cloud", "init", "--root", root)
        ports = ("--api-port", "0", "--device-port", "0", "--mqtt-port", "0")
        stage.start("cloud-run", "cloud", "run", "--root", root, *ports)
        stage.wait("the start of the service", lambda: (stage.cloud / "endpoints.json").exists(), 30)
        stage.verb("group", "create", GROUP, "--root", root)
        device = str(stage.device(THING))
        stage.verb("device", "create", THING, "--to", device, "--group", GROUP, "--root", root)
        stage.start(THING, "nucleus", "run", "--root", device)
        client = stage.session().client("greengrassv2")
        stage.wait("the first report of the device", lambda: client.list_core_devices()["coreDevices"], 30)
        return []

    def publish(self) -> Figures:
        """2: the models are made of the committed weights; everything goes to the service."""
        stage, components = self._stage, self._stage.repository / "components"
        models, began = stage.folder / "models", time.monotonic()
        vision_models.build(models)
        built_s = time.monotonic() - began
        sizes = {version: (models / version / vision_models.FILE).stat().st_size / 1e6 for version in (FIRST, SMALL)}
        for name, folder in (
            (f"{AGENT}-1.0.0", components / "model_agent"),
            (f"{CAMERA}-1.0.0", components / "vision"),
            (f"{APPLICATION}-1.0.0", components / "vision"),
            *((f"{MODEL}-{version}", models / version) for version in vision_models.VERSIONS),
        ):
            recipe = str(stage.repository / "recipes" / f"{name}.yaml")
            stage.verb("component", "publish", recipe, "--artifacts", str(folder), "--root", str(stage.cloud))
        return [
            ("three models built in", f"{built_s:.1f} s"),
            ("size of detector 1.0.0 and 2.0.0", f"{sizes[FIRST]:.1f} and {sizes[SMALL]:.1f} MB"),
        ]

    def deploy_all(self) -> Figures:
        """3: everything to the group; then pictures are answered by 1.0.0."""
        python: dict[str, Any] = {"python": sys.executable}  # the demo's components share its own environment
        merged = {name: {"MERGE": dict(python)} for name in (AGENT, CAMERA, MODEL, APPLICATION)}
        merged[CAMERA]["MERGE"]["framesPerSecond"] = FRAMES_PER_SECOND
        config = self._stage.folder / "configuration.json"
        config.write_text(json.dumps(merged))
        wanted = (f"{AGENT}=1.0.0", f"{CAMERA}=1.0.0", f"{MODEL}={FIRST}", f"{APPLICATION}=1.0.0")
        self._deploy(*wanted, "--config", str(config))
        self._await_answers(FIRST)
        self._pids = self._look_up_pids()
        self._stage.out.print(f"  answers come from {FIRST}; counted so far: {self._counters().get('counted')}")
        return []

    def change_the_model(self) -> Figures:
        """4: the deployment has succeeded when the trial begins; the swap comes when the trial is decided."""
        began = self._mark(f"{SMALL} deployed, on trial")
        self._deploy(f"{MODEL}={SMALL}")
        deployed_s = time.time() - began
        trial = self._follow_trial()
        self._await_answers(SMALL)
        swapped = next(line["at"] for line in figures.read(self._work) if line.get("version") == SMALL)
        self.marks.append((swapped, f"{SMALL} answers"))
        self._same_processes()
        return [
            (f"deployment of {SMALL} until SUCCEEDED", f"{deployed_s:.1f} s, {FIRST} answers meanwhile"),
            ("its trial on live pictures", trial),
            ("from the deployment to the swap", f"{swapped - began:.1f} s"),
            *self._told("around the swap (2 s before to 5 s after)", swapped - 2, swapped + 5),
        ]

    def refuse_the_damaged(self) -> Figures:
        """5: the damaged model is refused by the golden sample; the deployment goes back by itself."""
        began = self._mark(f"{DAMAGED} (damaged) deployed")
        self._deploy(f"{MODEL}={DAMAGED}", expect=exits.ROLLED_BACK)
        ended = self._mark("rolled back")
        self._await_answers(SMALL, after=ended)
        self._same_processes()
        versions = figures.span(figures.read(self._work), began, time.time()).versions
        _require(set(versions) == {SMALL}, f"answers came from {versions}")
        told = self._told("meanwhile", began, ended)
        return [(f"damaged {DAMAGED} until refused and rolled back", f"{ended - began:.1f} s"), *told]

    def sum_up(self) -> Figures:
        """The whole run's answers, and each version's speed."""
        lines = figures.read(self._work)
        whole = figures.span(lines, 0, time.time())
        _require(whole.failed == 0, f"{whole.failed} requests failed")
        speeds = {version: figures.speed(lines, version) for version in (FIRST, SMALL)}
        told = [
            (f"latency of {version}", f"p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms ({one.count} answers)")
            for version, one in speeds.items()
        ]
        ratio = speeds[FIRST].p50_ms / max(speeds[SMALL].p50_ms, 0.01)
        return [
            *told,
            ("faster by", f"{ratio:.1f} x"),
            ("all requests", f"{whole.answered} answered, {whole.failed} failed, {whole.passed} frames passed over"),
            (
                "tracks counted (the video repeats)",
                ", ".join(f"{count} {name}" for name, count in self._counters()["counted"].items()),
            ),
        ]

    # ---- parts -------------------------------------------------------------------------------------------------------

    def _deploy(self, *arguments: str, expect: int = exits.OK) -> None:
        self._stage.verb("deploy", "-t", GROUP, *arguments, "--root", str(self._stage.cloud), expect=(expect,))

    def _mark(self, what: str) -> float:
        self.marks.append((time.time(), what))
        return self.marks[-1][0]

    def _await_answers(self, version: str, after: float = 0.0) -> None:
        def enough() -> bool:
            return figures.speed(figures.read(self._work), version, after).count >= ANSWERS

        self._stage.wait(f"{ANSWERS} answers of {version}", enough, 120)

    def _follow_trial(self) -> str:
        """Shows the trial's figures until it has ended; returns the last ones."""
        shown = [-SHOWN_EVERY]

        def ended() -> dict[str, Any] | None:
            found = self._trial()
            samples = found.get("samples") or 0
            if found.get("outcome") == "running" and samples and samples >= shown[0] + SHOWN_EVERY:
                shown[0] = samples
                self._stage.out.print(f"  {describe_trial(found)}", markup=False)
            return found if found.get("outcome") not in (None, "running") else None

        last = self._stage.wait(f"the trial of {SMALL} to end", ended, _TRIAL_S)
        self._stage.verb("model", "trial", "--root", str(self._stage.device(THING)))
        _require(last["outcome"] == "promoted", f"the trial ended with {last}")
        return describe_trial(last)

    def _trial(self) -> dict[str, Any]:
        """What the agent says of the newest trial, {} while there is none."""
        frames = vision_models.component_module("agent_frames", "model_agent")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one, contextlib.suppress(OSError):
            one.settimeout(10)
            one.connect(str(self._stage.device(THING) / "work" / AGENT / "agent.sock"))
            frames.send(one, {"op": "trial", "alias": vision_models.ALIAS})
            found: list[dict[str, Any]] = frames.receive(one)[0]["trials"]
            return found[0] if found else {}
        return {}

    def _counters(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self._work / "counters.json").read_text())
        return read

    def _look_up_pids(self) -> dict[str, int]:
        names = (AGENT, CAMERA, APPLICATION)
        return {name: demo_stage.main_pid(self._stage.device(THING), name) for name in names}

    def _same_processes(self) -> None:
        now = self._look_up_pids()
        _require(now == self._pids and all(now.values()), f"a process restarted: {self._pids} became {now}")
        self._stage.out.print(f"  nobody restarted: {', '.join(f'{name} pid {pid}' for name, pid in now.items())}")

    def _told(self, what: str, begin: float, end: float) -> Figures:
        found = figures.span(figures.read(self._work), begin, end)
        _require(found.failed == 0, f"{found.failed} requests failed {what}")
        usual = 1000 / FRAMES_PER_SECOND
        text = f"{found.answered} answered, {found.failed} failed, longest gap {found.longest_gap_ms:.0f} ms"
        return [(f"requests {what}", f"{text} (a frame every {usual:.0f} ms)")]


def describe_trial(found: dict[str, Any]) -> str:
    """One line of a trial's figures as the agent tells them."""
    agreement = (
        f"{found['agreement']:.1%} agree, at least {found['low']:.1%} for certain ({found['minimum']:.0%} wanted)"
    )
    return f"{found['mode']} {found['outcome']}: {found['samples']} live pictures compared, {agreement}"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise exits.Failure(f"the demo saw what must not be: {otherwise}")
