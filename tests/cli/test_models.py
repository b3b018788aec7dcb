"""`marram model …` on a device with a real agent, and on one without."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.cli import exits
from tests.cli import marram
from tests.components import models, parts

ALIAS = "power-curve"


@pytest.fixture
def device() -> Iterator[parts.Device]:
    with parts.device() as made:
        yield made


def held(device: parts.Device) -> None:
    """An agent whose 1.1.0 drifted: 1.0.0 answers."""
    device.start_agent()
    assert device.offer("1.0.0").returncode == 0
    folder = device.root / "model"

    def watch(described: dict[str, object]) -> None:
        column = {"edges": [1.0], "shares": [1.0, 0.0]}
        described["reference"] = {"inputs": {"conditions": [column, column]}}

    parts.changed_model(folder, watch)
    settings = {"drift": {"windowSamples": 100, "consecutive": 1, "action": "rollback"}}
    done = device.hand_over("offer", "1.1.0", "--artifacts", folder, "--settings", json.dumps(settings))
    assert done.returncode == 0, done.stderr
    client = parts.model_client.Client(str(device.socket))
    for _ in range(60):
        parts.predict(client)
    client.close()
    parts.until(lambda: parts.serving(device)[0]["held_by"] == "drift", "the hold")


def test_models_when_one_is_held_then_listed_so_and_released_by_name(device: parts.Device) -> None:
    held(device)

    listed = marram.run("model", "list", "--root", device.root, "-o", "json")
    table = marram.run("model", "list", "--root", device.root)
    status = marram.run("model", "status", ALIAS, "--root", device.root, "-o", "json")
    released = marram.run("model", "release", ALIAS, "--root", device.root)

    (row,) = listed.json["items"]
    assert (row["serving"], row["desired"], row["held_by"], row["state"]) == ("1.0.0", "1.1.0", "drift", "held")
    assert row["requests"] == 60
    heading, line = table.out.splitlines()
    assert heading.split("  ")[0] == "ALIAS"
    assert line.split()[:6] == [ALIAS, "1.0.0", "1.1.0", row["previous"] or "-", "held", "drift"]
    assert "population stability index" in status.json["item"]["reason"]
    assert (released.code, "1.1.0" in released.out) == (exits.OK, True)
    (after,) = parts.serving(device)
    assert (after["serving"], after["held_by"], after["state"]) == ("1.1.0", "", "serving")


def test_status_when_a_model_is_watched_then_its_captures_and_its_drift_are_told(device: parts.Device) -> None:
    device.start_agent()
    settings = {"capture": {"rate": 1.0}, "drift": {"windowSamples": 100}}
    offered = device.hand_over(
        "offer", "1.1.0", "--artifacts", parts.MODEL / "1.1.0", "--settings", json.dumps(settings)
    )
    assert offered.returncode == 0, offered.stderr
    before = marram.run("model", "status", ALIAS, "--root", device.root, "-o", "json").json["item"]
    client = parts.model_client.Client(str(device.socket))
    for _ in range(50):
        parts.predict(client)
    client.close()

    def told() -> dict[str, dict[str, int]]:
        item = marram.run("model", "status", ALIAS, "--root", device.root, "-o", "json").json["item"]
        return item if item.get("captures", {}).get("kept") == 50 and item["drift"]["windows"] == 1 else {}

    item = parts.until(told, "50 captures and a window")
    assert before.keys() & {"captures", "drift", "uploads"} == set()
    assert (item["drift"]["drifted"], item["drift"]["psi"] > item["drift"]["psiLimit"]) == (1, True)


def test_models_when_there_are_more_than_fit_a_header_then_all_are_listed(device: parts.Device) -> None:
    device.start_agent()
    for number in range(120):
        alias = f"{'a' * 200}{number}"
        folder = models.identity(device.root / f"model-{number}", alias, {"x": "float32"})
        header = {"op": "offer", "component": "c" * 120 + str(number), "version": "1.0.0", "artifacts": str(folder)}
        assert parts.ask(device, header)["ok"] is True

    listed = marram.run("model", "list", "--root", device.root, "-o", "json").json["items"]

    assert len(listed) == len(parts.serving(device)) == 120
    assert len(json.dumps(parts.serving(device))) > parts.agent_frames.HEADER_LIMIT_BYTES


def test_trial_when_a_version_is_tried_then_shown_with_its_figures(device: parts.Device) -> None:
    device.start_agent()
    assert device.offer("1.0.0").returncode == 0
    terms = {"mode": "shadow", "share": 1.0, "measure": "close", "tolerance": 1000.0, "maxSeconds": 3600}
    settings = json.dumps({"trial": terms | {"minimumSamples": 100000}})
    done = device.hand_over("offer", "1.1.0", "--artifacts", parts.MODEL / "1.1.0", "--settings", settings)
    assert done.returncode == 0, done.stderr

    parts.until(lambda: parts.ask(device, {"op": "trial"})["trials"], "the trial to begin")
    shown = marram.run("model", "trial", ALIAS, "--root", device.root, "-o", "json")
    table = marram.run("model", "trial", "--root", device.root)
    other = marram.run("model", "trial", "another", "--root", device.root)

    (trial,) = shown.json["items"]
    assert (trial["alias"], trial["version"], trial["mode"], trial["outcome"]) == (ALIAS, "1.1.0", "shadow", "running")
    assert table.out.splitlines()[1].split()[:4] == [ALIAS, "1.1.0", "shadow", "running"]
    assert other.out == "No trials.\n"
    row = marram.run("model", "status", ALIAS, "--root", device.root, "-o", "json").json["item"]
    assert (row["serving"], row["desired"], row["state"]) == ("1.0.0", "1.1.0", "trial")


def test_models_when_there_are_none_then_said_so(device: parts.Device) -> None:
    device.start_agent()

    assert marram.run("model", "list", "--root", device.root).out == "No models.\n"
    refused = marram.run("model", "release", ALIAS, "--root", device.root)
    assert (refused.code, "the model agent refused" in refused.err) == (exits.ERROR, True)
    unknown = marram.run("model", "status", ALIAS, "--root", device.root)
    assert (unknown.code, "no model has this alias" in unknown.err) == (exits.ERROR, True)


def test_models_when_no_agent_runs_then_the_cure_is_told(tmp_path: Path) -> None:
    shown = marram.run("model", "list", "--root", tmp_path)

    assert shown.code == exits.ERROR
    assert "is marram.ModelAgent deployed and running?" in shown.err


@pytest.mark.parametrize(
    "answer",
    [b"", struct.pack(">II", 5, 0) + b"[1,2]", struct.pack(">II", 1 << 31, 0), struct.pack(">II", 9, 0) + b"{"],
    ids=["nothing", "no object", "too long", "cut"],
)
def test_models_when_the_other_side_is_no_agent_then_refused(tmp_path: Path, answer: bytes) -> None:
    folder = tmp_path / ("long" * 30) / "work/marram.ModelAgent"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        descriptor = os.open(folder, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{descriptor}/agent.sock")
        os.close(descriptor)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        shown = marram.run("model", "list", "--root", folder.parents[1])
        thread.join(20)

    assert shown.code == exits.ERROR
    assert "cannot reach the model agent at" in shown.err
