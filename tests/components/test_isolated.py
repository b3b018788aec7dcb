"""Models in processes of their own: real crashes, by real signals and by a real model, harm nobody else."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_check
import agent_engine
import agent_frames
import agent_isolated
import agent_worker
import model_client
import numpy as np
import psutil
import pytest

from tests.components import crashing, parts

ISOLATED = {"isolated": True}


def offer(
    device: parts.Device, component: str, folder: Path, version: str = "1.0.0", **settings: Any
) -> dict[str, Any]:
    """The agent's reply to an offer of a model that shall run in a process of its own."""
    request = {"op": "offer", "component": component, "version": version, "artifacts": str(folder)}
    return parts.ask(device, request | {"settings": ISOLATED | settings})


def process(device: parts.Device, alias: str) -> dict[str, Any]:
    """What `list` says of the model's process; nothing of one inside the agent."""
    found: dict[str, Any] = next(row.get("process", {}) for row in parts.serving(device) if row["alias"] == alias)
    return found


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


class Scene:
    """An isolated model under an alias that no other test has, in an agent that serves the power curve inside of it."""

    def __init__(self, device: parts.Device, client: model_client.Client, folder: Path) -> None:
        self.device, self.client = device, client
        self.alias = f"labor{len(parts.serving(device))}"
        self.component = f"com.example.{self.alias}"
        self._folder = folder
        made = self.offer("1.0.0")
        assert made["ok"], made

    def offer(self, version: str, golden_size: int = 3, **settings: Any) -> dict[str, Any]:
        folder = crashing.laborer(self._folder / version, self.alias, golden_size)
        return offer(self.device, self.component, folder, version, **settings)

    @property
    def process(self) -> dict[str, Any]:
        return process(self.device, self.alias)

    def labor(self, rounds: int, size: int = 1) -> float:
        given = {"rounds": np.array([rounds]), "size": np.array([size])}
        return float(self.client.predict(self.alias, given, deadline_s=20.0).outputs["y"][0])

    def others_answer(self) -> bool:
        """Whether the model inside the agent answers, and the agent is the process that it was."""
        return parts.predict(self.client).version == "1.0.0" and self.device.processes[0].poll() is None


@pytest.fixture(scope="module")
def agent() -> Iterator[parts.Device]:
    """One agent for all crashes of this module: none may end it."""
    with parts.device() as made:
        made.start_agent()
        assert made.offer("1.0.0").returncode == 0
        yield made
        pids = [row.get("process", {}).get("pid", 0) for row in parts.serving(made)]
        made.end()
        parts.until(lambda: all(gone(pid) for pid in pids if pid), "the models' processes to end with their agent")


@pytest.fixture
def scene(agent: parts.Device, tmp_path: Path) -> Iterator[Scene]:
    client = model_client.Client(str(agent.socket))
    yield Scene(agent, client, tmp_path)
    client.close()


class Asking(threading.Thread):
    """A request that computes until its process is stopped; `error` is what became of it."""

    def __init__(self, device: parts.Device, alias: str) -> None:
        super().__init__()
        self.error = ""
        self._alias = alias
        self._client = model_client.Client(str(device.socket))

    def run(self) -> None:
        given = {"rounds": np.array([1 << 40]), "size": np.array([1])}
        try:
            self._client.predict(self._alias, given, deadline_s=20.0)
        except (model_client.RejectedError, model_client.UnansweredError) as error:
            self.error = str(error)
        self._client.close()


def _computing(pid: int) -> bool:
    """Whether the process uses its processor: the state behind the name in brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL], ids=lambda each: each.name)
def test_crash_when_a_request_computes_then_it_is_told_and_nobody_else_notices(
    scene: Scene, number: signal.Signals
) -> None:
    before = scene.process["pid"]
    asking = Asking(scene.device, scene.alias)
    asking.start()
    parts.until(lambda: _computing(before), "the model to compute")

    os.kill(before, number)

    asking.join(parts.WAIT_S)
    assert f"MODEL_CRASHED: the model's process ended while it computed this ({number.name}" in asking.error
    assert scene.labor(3) == 4.0  # it was started again
    assert scene.others_answer()
    after = scene.process
    assert (after["state"], after["crashes"], after["pid"] != before) == ("serving", 1, True)


def test_crash_when_nobody_asks_then_the_next_request_is_answered(scene: Scene) -> None:
    for crash in (1, 2):
        os.kill(scene.process["pid"], signal.SIGSEGV)
        parts.until(lambda crash=crash: scene.process["crashes"] == crash, "the crash to be noticed")

        assert scene.labor(5) == 6.0


def test_crash_when_it_comes_again_and_again_then_broken_until_another_version_comes(scene: Scene) -> None:
    def kill() -> bool:
        now = scene.process
        if now["state"] == "serving":
            with contextlib.suppress(ProcessLookupError):  # killed, and not noticed yet
                os.kill(now["pid"], signal.SIGKILL)
        return bool(now["state"] == "broken")

    parts.until(kill, "the model to be taken for broken")

    with pytest.raises(model_client.RejectedError, match="MODEL_CRASHED: the model is broken: 5 crashes"):
        scene.labor(1)
    assert scene.others_answer()
    assert scene.offer("1.1.0", 4)["ok"]
    assert scene.labor(1) == 2.0
    assert scene.process["crashes"] == 0


def test_offer_when_the_model_crashes_the_runtime_then_refused_for_good_and_the_one_before_answers(
    scene: Scene, tmp_path: Path
) -> None:
    bad = crashing.stack_breaker(tmp_path / "bad", scene.alias)
    before = scene.process["pid"]

    reply, again = (offer(scene.device, scene.component, bad, "2.0.0") for _ in range(2))

    assert (reply["ok"], reply["code"], again["code"]) == (False, "MODEL_CRASHED", "MODEL_CRASHED")
    assert "SIGSEGV" in reply["message"]
    assert "decided earlier" in again["message"]
    assert (scene.labor(1), scene.process["pid"]) == (2.0, before)
    assert scene.others_answer()


def test_model_when_it_is_said_to_crash_the_runtime_then_it_really_does(tmp_path: Path) -> None:
    bad = crashing.stack_breaker(tmp_path / "bad", "deep")
    program = (
        "import sys, pathlib, agent_check; folder = pathlib.Path(sys.argv[1]); "
        "agent_check.load(agent_check.read_manifest((folder / 'model.json').read_bytes()), (folder / 'model.onnx').read_bytes())"
    )

    done = subprocess.run([sys.executable, "-c", program, bad], cwd=parts.AGENT, timeout=60, check=False)

    assert done.returncode == -signal.SIGSEGV


MEMORY_BYTES = 400 << 20


def test_memory_when_a_request_needs_more_than_allowed_then_it_fails_alone(scene: Scene) -> None:
    assert scene.offer("1.1.0", 4, workerMemoryBytes=MEMORY_BYTES)["ok"]

    with pytest.raises(model_client.RejectedError, match=r"INVALID_ARGUMENT: the model failed|MODEL_CRASHED"):
        scene.labor(1, size=MEMORY_BYTES)  # four times as many bytes

    assert scene.labor(1, size=1000) == 1001.0
    assert scene.others_answer()


def test_offer_when_it_needs_more_memory_than_allowed_then_refused(scene: Scene) -> None:
    reply = scene.offer("1.1.0", MEMORY_BYTES, workerMemoryBytes=MEMORY_BYTES)

    assert not reply["ok"]
    assert scene.labor(1) == 2.0


def test_exchange_when_isolated_then_the_old_process_ends_and_settings_decide_anew(scene: Scene) -> None:
    old = scene.process["pid"]

    assert scene.offer("1.1.0", 5)["ok"]
    parts.until(lambda: gone(old), "the old model's process to end")
    second = scene.process["pid"]
    inside = scene.offer("1.2.0", 6, isolated=False)

    assert inside["ok"], inside
    assert (scene.labor(2), scene.process) == (3.0, {})
    parts.until(lambda: gone(second), "the second process to end")


def test_agent_when_killed_while_a_model_computes_then_the_models_process_ends_and_comes_back_with_it(
    device: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    device.start_agent()
    scene = Scene(device, client, tmp_path)
    pid = scene.process["pid"]
    asking = Asking(device, scene.alias)
    asking.start()
    parts.until(lambda: _computing(pid), "the model to compute")

    device.end()

    parts.until(lambda: gone(pid), "the model's process to end")
    device.start_agent()
    again = scene.process["pid"]
    parts.until(lambda: _computing(again), "the request to be asked again, as an application's are")
    os.kill(again, signal.SIGKILL)
    asking.join(parts.WAIT_S)
    assert "MODEL_CRASHED" in asking.error
    assert scene.labor(3) == 4.0


def test_process_when_started_then_it_answers_as_one_inside_does_and_knows_no_token(
    device: parts.Device, client: model_client.Client
) -> None:
    device.start_agent(environment={"AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret"})
    device.offer("1.0.0")
    inside = parts.predict(client).outputs["power_kw"]

    done = device.hand_over("offer", "1.0.0", "--artifacts", parts.MODEL / "1.0.0", "--settings", json.dumps(ISOLATED))

    assert done.returncode == 0, done.stderr
    assert np.array_equal(parts.predict(client).outputs["power_kw"], inside)
    pid = process(device, "power-curve")["pid"]
    assert pid not in (0, device.processes[0].pid)
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    with pytest.raises(model_client.RejectedError, match="INVALID_ARGUMENT: inputs are nonsense"):
        client.predict("power-curve", {"nonsense": np.zeros(1)}, deadline_s=5)


def test_area_when_tensors_grow_then_both_sides_see_them_and_lies_are_told_apart() -> None:
    ours = agent_worker.Area.make("test")
    theirs = agent_worker.Area(os.dup(ours.descriptor))
    for size in (0, 10, 3_000_000):
        given = {"a": np.arange(size, dtype=np.float32), "b": np.array([[True, False]]), "c": np.array(7, np.int64)}
        described = ours.put(given)
        found = theirs.views(described)
        assert all(np.array_equal(found[name], array) for name, array in given.items())
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(theirs.descriptor, 0)
    for lie in (
        {"at": 1 << 30},
        {"shape": [-1]},
        {"dtype": "object"},
        {"shape": [1 << 62, 4]},
        {"at": "x"},
        {"shape": 5},
    ):
        with pytest.raises(agent_worker.AreaError):
            theirs.views([described[0] | lie])
    for nothing in (None, 5, [{}], ["x"]):
        with pytest.raises(agent_worker.AreaError):
            theirs.views(nothing)
    with pytest.raises(agent_worker.AreaError):
        ours.put({"text": np.array(["x"])})
    ours.close()
    theirs.close()


def test_model_when_closed_or_forgotten_then_no_process_no_descriptor_and_no_thread_is_left(tmp_path: Path) -> None:
    folder = crashing.laborer(tmp_path / "labor", "labor")
    manifest, data = (
        agent_check.read_manifest((folder / "model.json").read_bytes()),
        (folder / "model.onnx").read_bytes(),
    )
    given = {"rounds": np.array([1]), "size": np.array([1])}
    pids = []

    for number in range(3):
        model = agent_isolated.load(manifest, data)
        pids.append(model.pid)
        assert float(model.predict(given)["y"][0]) == 2.0
        if number:
            model.close()
            with pytest.raises(agent_engine.NotReadyError):
                model.predict(given)
        del model  # the first one is only forgotten

    assert [gone(pid) for pid in pids] == [True] * 3
    assert not [link for link in _descriptors() if "memfd:marram-model" in link or "memfd:marram-inputs" in link]
    parts.until(lambda: not [each for each in threading.enumerate() if "_watch" in each.name], "the watchers to end")


def test_agent_when_it_is_stopped_while_a_model_is_loaded_then_it_does_not_wait_for_that(
    device: parts.Device, tmp_path: Path
) -> None:
    agent, folder = device.start_agent(), crashing.laborer(tmp_path / "labor", "labor")
    header = {"op": "offer", "component": "com.example.labor", "version": "1.0.0", "artifacts": str(folder)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.connect(str(device.socket))
        agent_frames.send(one, {**header, "settings": ISOLATED})
        model = parts.until(psutil.Process(agent.pid).children, "the model's process")[0]
        model.suspend()
        parts.until(lambda: model.status() == psutil.STATUS_STOPPED, "it to be stopped")
        threading.Event().wait(1.2)  # a turn of every service begins meanwhile

        agent.terminate()

        assert agent.wait(parts.WAIT_S / 2) == 0
    model.kill()


def test_offer_when_its_process_cannot_be_started_then_no_descriptor_is_left(
    device: parts.Device, tmp_path: Path
) -> None:
    agent, folder = device.start_agent(), crashing.laborer(tmp_path / "labor", "labor")
    before = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    few, code = len(list(_descriptors(agent.pid))) + 4, ""  # one for the request; then they end at each step of a start
    codes = []

    while code != "ok":
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (few, before[1]))
        code = offer(device, "com.example.labor", folder).get("code", "ok")
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, before)
        codes.append(code)
        few += 1

    assert "RESOURCE_EXHAUSTED" in codes
    parts.ask(device, {"op": "withdraw", "component": "com.example.labor", "version": "1.0.0"})
    assert not [link for link in _descriptors(agent.pid) if "memfd:marram" in link]


def test_manifest_when_a_process_gets_it_then_all_that_decides_how_it_computes_is_there(tmp_path: Path) -> None:
    folder = crashing.laborer(tmp_path / "labor", "labor")
    described = json.loads((folder / "model.json").read_bytes())
    described["runtime"] |= {"minimumVersion": "1.2", "session": {"threads": 2, "level": "basic"}}
    manifest = agent_check.read_manifest(json.dumps(described).encode())

    found = agent_worker.understand(agent_worker.describe(manifest))

    assert manifest.session.threads == 2
    assert found == dataclasses.replace(manifest, golden=(), absolute=0.0, relative=0.0, reference=())
    named = {*json.loads(agent_worker.describe(manifest)), "golden", "absolute", "relative", "reference"}
    assert named == {field.name for field in dataclasses.fields(manifest)}  # a new one must be thought of here


def _descriptors(pid: int | str = "self") -> Iterator[str]:
    """What this process, or another, has open."""
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            yield str(each.readlink())
