"""Memory that a model took is given back: to the system, and whatever became of the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import agent_memory
import model_client
import numpy as np
import psutil
import pytest

from tests.components import models, parts

MB = 1_000_000
TIMES, SIZE = 100, 20  # MB
INPUTS = {"x": np.ones((16, 64), np.float32)}


def resident(process: Any) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)


def offer(device: parts.Device, folder: Path) -> dict[str, Any]:
    header = {"op": "offer", "component": "com.example.Large", "version": "1.0.0", "artifacts": str(folder)}
    return parts.ask(device, header)


@pytest.mark.timeout(300)  # a third of a second each time on a free machine, a second on a full one
def test_memory_when_a_model_of_20_mb_was_loaded_and_unloaded_100_times_then_it_is_given_back(
    device: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    folder = models.weighty(tmp_path / "large", "large", 1, SIZE)
    process = device.start_agent()
    device.offer("1.0.0")  # another model, so that everything is there that stays
    parts.predict(client)
    before = resident(process)

    for _ in range(TIMES):
        assert offer(device, folder)["ok"] is True
        for _ in range(3):
            assert client.predict("large", INPUTS, deadline_s=20.0).outputs["y"][0].round(3) == 1
        assert parts.ask(device, {"op": "withdraw", "component": "com.example.Large", "version": "1.0.0"})["ok"] is True
    parts.until(lambda: resident(process) <= before + 20 * MB, f"{before} bytes and 20 MB, now {resident(process)}")

    print(f"agent: {before / MB:.1f} MB before, {resident(process) / MB:.1f} MB after {TIMES} times {SIZE} MB")


def test_memory_when_a_load_is_refused_then_it_is_given_back(device: parts.Device, tmp_path: Path) -> None:
    folder = models.weighty(tmp_path / "large", "large", 1, 40)
    described = json.loads((folder / "model.json").read_text())
    described["golden"]["samples"][0]["outputs"]["y"] = [2]
    (folder / "model.json").write_text(json.dumps(described))
    process = device.start_agent()
    device.offer("1.0.0")
    before = resident(process)

    reply = offer(device, folder)

    assert "golden sample 1 of 1" in reply["message"]
    parts.until(lambda: resident(process) <= before + 20 * MB, f"{before} bytes and 20 MB, now {resident(process)}")


def test_own_bytes_when_memory_is_taken_then_they_are_seen() -> None:
    """In a process of its own: this one may have freed memory that it takes again."""
    measured = (
        "import agent_memory; before = agent_memory.own_bytes(); taken = b'1' * 64_000_000;"
        "print(agent_memory.own_bytes() - before, agent_memory.resident_bytes() - agent_memory.own_bytes())"
    )
    command = [sys.executable, "-c", measured]
    done = subprocess.run(command, cwd=parts.AGENT, capture_output=True, text=True, timeout=60, check=True)
    seen, rest = map(int, done.stdout.split())

    assert 64 * MB * 0.9 < seen < 64 * MB * 1.5
    assert rest > 0


def test_process_bytes_when_it_is_gone_then_none() -> None:
    assert agent_memory.process_bytes(2**22 + 1) == 0
