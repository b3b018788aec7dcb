"""Models in processes of their own: real crashes, by real signals and by a real model, harm nobody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_worker
import model_client
import numpy as np
import pytest

from tests.components import crashing, parts

LABOR, LABORER = "labor", "com.example.Laborer"
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


def labor(client: model_client.Client, rounds: int, size: int = 1, deadline_s: float = 20.0) -> float:
    given = {"rounds": np.array([rounds]), "size": np.array([size])}
    return float(client.predict(LABOR, given, deadline_s=deadline_s).outputs["y"][0])


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def running(device: parts.Device, tmp_path: Path) -> Iterator[parts.Device]:
    """An agent with a model inside of it and an isolated one beside."""
    device.start_agent()
    assert device.offer("1.0.0").returncode == 0
    made = offer(device, LABORER, crashing.laborer(tmp_path / "labor", LABOR))
    assert made["ok"], made
    yield device
    pids = [row.get("process", {}).get("pid", 0) for row in parts.serving(device)]
    device.end()
    parts.until(lambda: all(gone(pid) for pid in pids if pid), "the models' processes to end with their agent")


class Asking(threading.Thread):
    """A request that computes until its process is stopped; `error` is what became of it."""

    def __init__(self, device: parts.Device) -> None:
        super().__init__()
        self.error = ""
        self._client = model_client.Client(str(device.socket))

    def run(self) -> None:
        try:
            labor(self._client, 1 << 40)
        except model_client.RejectedError as error:
            self.error = str(error)
        self._client.close()


def _computing(pid: int) -> bool:
    """Whether the process uses its processor: user and system time in ticks, after the name in brackets."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0] == "R"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL], ids=lambda each: each.name)
def test_crash_when_a_request_computes_then_it_is_told_and_nobody_else_notices(
    running: parts.Device, client: model_client.Client, number: signal.Signals
) -> None:
    agent, before = running.processes[0].pid, process(running, LABOR)
    asking = Asking(running)
    asking.start()
    parts.until(lambda: _computing(before["pid"]), "the model to compute")

    os.kill(before["pid"], number)

    asking.join(parts.WAIT_S)
    assert f"MODEL_CRASHED: the model's process ended while it computed this ({number.name}" in asking.error
    assert labor(client, 3) == 4.0  # it was started again
    assert parts.predict(client).version == "1.0.0"
    after = process(running, LABOR)
    assert (after["state"], after["crashes"], after["pid"] != before["pid"]) == ("serving", 1, True)
    assert running.processes[0].poll() is None
    assert running.processes[0].pid == agent


def test_crash_when_nobody_asks_then_the_next_request_is_answered(
    running: parts.Device, client: model_client.Client
) -> None:
    for crash in (1, 2):
        os.kill(process(running, LABOR)["pid"], signal.SIGSEGV)
        parts.until(lambda crash=crash: process(running, LABOR)["crashes"] == crash, "the crash to be noticed")

        assert labor(client, 5) == 6.0


def test_crash_when_it_comes_again_and_again_then_broken_until_another_version_comes(
    running: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    def kill() -> bool:
        now = process(running, LABOR)
        if now["state"] == "serving":
            os.kill(now["pid"], signal.SIGKILL)
        return bool(now["state"] == "broken")

    parts.until(kill, "the model to be taken for broken")

    with pytest.raises(model_client.RejectedError, match="MODEL_CRASHED: the model is broken: 5 crashes"):
        labor(client, 1)
    assert parts.predict(client).version == "1.0.0"
    assert offer(running, LABORER, crashing.laborer(tmp_path / "new", LABOR, 4), "1.1.0")["ok"]
    assert labor(client, 1) == 2.0
    assert process(running, LABOR)["crashes"] == 0


def test_offer_when_the_model_crashes_the_runtime_then_refused_and_the_one_before_answers(
    running: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    bad = crashing.stack_breaker(tmp_path / "bad", LABOR)
    before = process(running, LABOR)["pid"]

    reply = offer(running, LABORER, bad, "2.0.0")

    again = offer(running, LABORER, bad, "2.0.0")
    assert (reply["ok"], reply["code"], again["code"]) == (False, "MODEL_CRASHED", "MODEL_CRASHED")
    assert "SIGSEGV" in reply["message"]
    assert "decided earlier" in again["message"]
    assert (labor(client, 1), process(running, LABOR)["pid"]) == (2.0, before)
    assert parts.predict(client).version == "1.0.0"


def test_model_when_it_is_said_to_crash_the_runtime_then_it_really_does(tmp_path: Path) -> None:
    bad = crashing.stack_breaker(tmp_path / "bad", LABOR)
    program = (
        "import sys, pathlib, agent_check; folder = pathlib.Path(sys.argv[1]); "
        "agent_check.load(agent_check.read_manifest((folder / 'model.json').read_bytes()), (folder / 'model.onnx').read_bytes())"
    )

    done = subprocess.run([sys.executable, "-c", program, bad], cwd=parts.AGENT, timeout=60, check=False)

    assert done.returncode == -signal.SIGSEGV


MEMORY_BYTES = 400 << 20


def test_memory_when_a_request_needs_more_than_allowed_then_it_fails_alone(
    running: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    bounded = crashing.laborer(tmp_path / "bounded", LABOR, 4)
    assert offer(running, LABORER, bounded, "1.1.0", workerMemoryBytes=MEMORY_BYTES)["ok"]

    with pytest.raises(model_client.RejectedError, match=r"INVALID_ARGUMENT: the model failed|MODEL_CRASHED"):
        labor(client, 1, size=MEMORY_BYTES)  # four times as many bytes

    assert labor(client, 1, size=1000) == 1001.0
    assert parts.predict(client).version == "1.0.0"


def test_offer_when_it_needs_more_memory_than_allowed_then_refused(
    running: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    greedy = crashing.laborer(tmp_path / "greedy", LABOR, MEMORY_BYTES)

    reply = offer(running, LABORER, greedy, "1.1.0", workerMemoryBytes=MEMORY_BYTES)

    assert not reply["ok"]
    assert labor(client, 1) == 2.0


def test_exchange_when_isolated_then_the_old_process_ends_and_settings_decide_anew(
    running: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    old = process(running, LABOR)["pid"]

    assert offer(running, LABORER, crashing.laborer(tmp_path / "b", LABOR, 5), "1.1.0")["ok"]
    parts.until(lambda: gone(old), "the old model's process to end")
    second = process(running, LABOR)["pid"]
    inside = offer(running, LABORER, crashing.laborer(tmp_path / "c", LABOR, 6), "1.2.0", isolated=False)

    assert inside["ok"], inside
    assert (labor(client, 2), process(running, LABOR)) == (3.0, {})
    parts.until(lambda: gone(second), "the second process to end")


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
