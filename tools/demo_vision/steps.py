"""The acts of the vision demo: each shows what it does, checks it, and returns the figures it measured."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from cloud.cli import demo_stage
from nucleus.cli import exits, models
from tools import vision_models
from tools.demo_vision import figures, releases

Figures = list[tuple[str, str]]
THING, GROUP = "gate-camera", "cameras"
AGENT, CAMERA = "marram.ModelAgent", "com.example.vision.Camera"
MODEL, APPLICATION = releases.MODEL, "com.example.vision.Detector"
FIRST, SMALL, DAMAGED = vision_models.VERSIONS
SHOWN_EVERY = 15  # samples of the trial
_TRIAL_S = 180.0


class Pace(Struct, frozen=True):
    """How much of everything: what a demo takes its time for, a test has not.

    `answers` are waited for from a version before the next act; `forms` are what optimise tries, `calibration` and
    `evaluation` the frames it does it with, `margin` the loss it may accept; `trial` changes keys of the trial's settings.
    """

    frames_per_second: int = 12
    answers: int = 60
    calibration: int = 20
    evaluation: int = 90
    margin: float = 0.05
    forms: tuple[str, ...] = ("INT8 per-channel U8S8", vision_models.FORM)
    trial: dict[str, Any] = {}


PACE = Pace()


class Demo:
    """One device's story; `marks` are the moments of it, (epoch seconds, what happened)."""

    def __init__(self, stage: demo_stage.Stage, pace: Pace = PACE) -> None:
        self._stage = stage
        self._pace = pace
        self._releases = releases.Folder(stage.folder / "models")
        self._pids: dict[str, int] = {}
        self.marks: list[tuple[float, str]] = []

    @property
    def frames(self) -> Path:
        return self._work / "frames"

    @property
    def _key(self) -> Path:
        return self._stage.folder / "keys" / "publisher.key"

    @property
    def _work(self) -> Path:
        return self._stage.device(THING) / "work" / APPLICATION

    def acts(self) -> tuple[tuple[str, Callable[[], Figures]], ...]:
        """All of the story, in order: titles, and what is played."""
        return (
            ("A deployment service, a device with a camera, and a key that the device trusts", self.start),
            ("marram model optimise makes detector 2.0.0 of 1.0.0; all are certified and signed", self.make_the_models),
            ("Camera, model agent, detector 1.0.0 (32-bit floats), application", self.deploy_all),
            ("Detector 2.0.0 without its signature: refused before it runs", self.refuse_the_unsigned),
            ("Detector 2.0.0, signed: a trial on live pictures, then the swap", self.change_the_model),
            ("Detector 3.0.0, signed but damaged: refused and rolled back", self.refuse_the_damaged),
        )

    # ---- acts --------------------------------------------------------------------------------------------------------

    def start(self) -> Figures:
        """The service, a group, a device that trusts its publisher's key, and its nucleus."""
        stage, root = self._stage, str(self._stage.cloud)
        stage.verb("cloud", "init", "--root", root)
        ports = ("--api-port", "0", "--device-port", "0", "--mqtt-port", "0")
        stage.start("cloud-run", "cloud", "run", "--root", root, *ports)
        stage.wait("the start of the service", lambda: (stage.cloud / "endpoints.json").exists(), 30)
        stage.verb("group", "create", GROUP, "--root", root)
        device = str(stage.device(THING))
        stage.verb("device", "create", THING, "--to", device, "--group", GROUP, "--root", root)
        stage.verb("key", "create", self._key.stem, "--out", str(self._key.parent))
        stage.verb("key", "trust", str(self._key.with_suffix(".pub")), "--root", device)
        stage.start(THING, "nucleus", "run", "--root", device)
        client = stage.session().client("greengrassv2")
        stage.wait("the first report of the device", lambda: client.list_core_devices()["coreDevices"], 30)
        return []

    def make_the_models(self) -> Figures:
        """2.0.0 is what `marram model optimise` makes of 1.0.0; both have a certificate and a signature, 3.0.0 as well."""
        made, pace = self._releases, self._pace
        releases.given(made, pace.calibration, pace.evaluation)
        began = time.monotonic()
        sets = ("--calibration", str(made.calibration), "--evaluation", str(made.evaluation))
        judged = ("--target", str(made.target), "--metric", "detections", "--margin", str(pace.margin))
        named = ("--component", f"{MODEL}={SMALL}", "--alias", vision_models.ALIAS)
        forms = [word for form in pace.forms for word in ("--form", form)]
        written = ("--key", str(self._key), "--out", str(made.optimised))
        self._stage.verb("model", "optimise", str(made.model(FIRST)), *sets, *judged, *named, *forms, *written)
        optimised_s = time.monotonic() - began
        releases.original(made)
        releases.damaged(made)
        for version in (FIRST, DAMAGED):
            artifacts = ("--artifacts", str(made.artifacts(version)))
            self._stage.verb("component", "sign", str(made.recipe(version)), "--key", str(self._key), *artifacts)
        sizes = [f"{made.model(version).stat().st_size / 1e6:.1f}" for version in (FIRST, SMALL)]
        return [
            (f"marram model optimise, {FIRST} to {SMALL}", f"{optimised_s:.1f} s"),
            (f"size of detector {FIRST} and {SMALL}", f"{' and '.join(sizes)} MB"),
        ]

    def deploy_all(self) -> Figures:
        """Everything to the group; then pictures are answered by 1.0.0."""
        components = self._stage.repository / "components"
        for name, folder in ((AGENT, "model_agent"), (CAMERA, "vision"), (APPLICATION, "vision")):
            self._publish(self._stage.repository / "recipes" / f"{name}-1.0.0.yaml", components / folder)
        self._publish(self._releases.recipe(FIRST), self._releases.artifacts(FIRST))
        python: dict[str, Any] = {"python": sys.executable}  # the demo's components share its own environment
        merged = {name: {"MERGE": dict(python)} for name in (AGENT, CAMERA, MODEL, APPLICATION)}
        merged[CAMERA]["MERGE"]["framesPerSecond"] = self._pace.frames_per_second
        merged[AGENT]["MERGE"]["requireCertificate"] = True
        wanted = (f"{AGENT}=1.0.0", f"{CAMERA}=1.0.0", f"{MODEL}={FIRST}", f"{APPLICATION}=1.0.0")
        self._deploy(*wanted, "--config", self._config("all", merged))
        self._await_answers(FIRST)
        self._pids = self._look_up_pids()
        self._stage.out.print(f"  answers come from {FIRST}; counted so far: {self._counters().get('counted')}")
        return []

    def refuse_the_unsigned(self) -> Figures:
        """2.0.0 without its signature is refused before any script of it runs; then it is withdrawn from the registry."""
        began = self._mark(f"{SMALL} unsigned: refused")
        self._publish(releases.unsigned(self._releases), self._releases.artifacts(SMALL))
        self._deploy(f"{MODEL}={SMALL}", expect=exits.UNSATISFIED)
        ended = time.time()
        self._require_failure("SIGNATURE_MISSING")
        self._same_processes()
        session = self._stage.session()
        arn = f"arn:aws:greengrass:{session.region}:{session.account}:components:{MODEL}:versions:{SMALL}"
        self._stage.out.print(f"[bold]$ aws greengrassv2 delete-component --arn {arn}[/]")
        session.client("greengrassv2").delete_component(arn=arn)
        return [(f"{SMALL} without a signature until refused", f"{ended - began:.1f} s, SIGNATURE_MISSING")]

    def change_the_model(self) -> Figures:
        """Signed; the deployment has succeeded when the trial begins; the swap comes when the trial is decided."""
        self._publish(self._releases.recipe(SMALL), self._releases.artifacts(SMALL))
        began = self._mark(f"{SMALL} deployed, on trial")
        settings = releases.trial()
        settings["trial"] |= self._pace.trial
        config = self._config("trial", {MODEL: {"MERGE": {"model": settings}}})
        self._deploy(f"{MODEL}={SMALL}", "--from-last-good", "--config", config)
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
        """The damaged model, signed and certified, is refused by its answers; the deployment goes back by itself."""
        self._publish(self._releases.recipe(DAMAGED), self._releases.artifacts(DAMAGED))
        began = self._mark(f"{DAMAGED} (damaged) deployed")
        self._deploy(f"{MODEL}={DAMAGED}", expect=exits.ROLLED_BACK)
        ended = self._mark("rolled back")
        self._require_failure("GOLDEN_MISMATCH")
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

    def _publish(self, recipe: Path, artifacts: Path) -> None:
        where = ("--artifacts", str(artifacts), "--root", str(self._stage.cloud))
        self._stage.verb("component", "publish", str(recipe), *where)

    def _config(self, name: str, updates: dict[str, Any]) -> str:
        path = self._stage.folder / f"{name}.json"
        path.write_text(json.dumps(updates, indent=1))
        return str(path)

    def _require_failure(self, code: str) -> None:
        """That the device's last deployment failed for this reason, as the service knows it."""
        client = self._stage.session().client("greengrassv2")
        found = client.list_effective_deployments(coreDeviceThingName=THING)["effectiveDeployments"]
        last = max(found, key=lambda one: one["modifiedTimestamp"])
        _require(code in last.get("reason", ""), f"the deployment ended with {last.get('reason')}, not {code}")

    def _mark(self, what: str) -> float:
        self.marks.append((time.time(), what))
        return self.marks[-1][0]

    def _await_answers(self, version: str, after: float = 0.0) -> None:
        def enough() -> bool:
            return figures.speed(figures.read(self._work), version, after).count >= self._pace.answers

        self._stage.wait(f"{self._pace.answers} answers of {version}", enough, 120)

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
        told = models.answer(self._stage.device(THING), {"op": "trial", "alias": vision_models.ALIAS})
        found: list[dict[str, Any]] = told.get("trials", [])
        return found[0] if found else {}

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
        usual = 1000 / self._pace.frames_per_second
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
