"""tritonclient, unmodified and in its own process, against the agent's doors: each test reads one part of what it said."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.components import models, parts

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tritonclient") is None or importlib.util.find_spec("grpc") is None,
    reason="tritonclient[grpc,http] and grpcio are not installed (pip install -e '.[all,dev]')",
)
POWER = [855.487, 1561.003]
NOT_FOUND = {"grpc": "StatusCode.NOT_FOUND", "http": "404"}
INVALID = {"grpc": "StatusCode.INVALID_ARGUMENT", "http": "400"}
UNIMPLEMENTED = {"grpc": "StatusCode.UNIMPLEMENTED", "http": "501"}
DENIED = {"grpc": "StatusCode.PERMISSION_DENIED", "http": "401"}
FOREIGN = {"grpc": "StatusCode.FAILED_PRECONDITION", "http": "400"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[parts.Device, Path]]:
    """An agent with both doors, two models of components and two in its repository; and files of one to send."""
    with parts.device() as device:
        repository = device.work("marram.ModelAgent") / "repository"
        models.identity(repository / "stored", "stored", {"x": "float32"}, "2.0.0")
        models.identity(repository / "twin", "twin", {"x": "float32"}, "2.0.0")
        models.identity(repository / "damaged", "damaged", {"x": "float32"})
        (repository / "damaged/identity.onnx").write_bytes(b"no model")
        device.start_agent("--oip-http", "127.0.0.1:0", "--oip-grpc", "127.0.0.1:0")
        folder = tmp_path_factory.mktemp("models")
        device.offer("1.1.0")
        every = models.identity(folder / "every", "every", {f"in_{dtype}": dtype for dtype in models.DTYPES})
        assert device.offer("1.0.0", every).returncode == 0
        yield device, models.identity(folder / "sent", "sent", {"x": "float32"}, "3.0.0")


@pytest.fixture(scope="module", params=["grpc", "http"])
def said(request: pytest.FixtureRequest, served: tuple[parts.Device, Path]) -> tuple[str, dict[str, Any]]:
    """What the client of one kind found."""
    device, files = served
    found = re.findall(r"(gRPC|REST) on (\S+)", device.log("marram.ModelAgent"))
    addresses = {"grpc": dict(found)["gRPC"], "http": dict(found)["REST"]}
    token = (device.work("marram.ModelAgent") / "oip.token").read_text()
    script = Path(__file__).with_name("triton_client.py")
    ran = subprocess.run(
        [sys.executable, script, request.param, addresses[request.param], token, files],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return request.param, json.loads(ran.stdout)


def test_server_when_asked_then_live_ready_and_described(said: tuple[str, dict[str, Any]]) -> None:
    told = said[1]["told"]

    assert told["live"] is told["ready"] is True
    assert told["server"]["name"] == "marram.ModelAgent"
    assert "model_repository" in told["server"]["extensions"]


def test_model_when_asked_then_described_by_its_component(said: tuple[str, dict[str, Any]]) -> None:
    told = said[1]["told"]
    metadata, config = told["metadata"], told["config"].get("config", told["config"])

    assert (told["model_ready"], told["unknown_ready"]) == ([True, True, False], False)
    assert (metadata["name"], metadata["versions"]) == ("power-curve", ["1.1.0"])
    assert [int(size) for size in metadata["inputs"][0]["shape"]] == [-1, 2]
    assert (metadata["inputs"][0]["name"], metadata["outputs"][0]["datatype"]) == ("conditions", "FP32")
    assert (config["backend"], config["input"][0]["data_type"]) == ("onnxruntime", "TYPE_FP32")
    assert config["parameters"]["component"]["string_value"] == parts.MODEL_NAME


def test_index_when_asked_then_what_answers_and_what_could(said: tuple[str, dict[str, Any]]) -> None:
    index = said[1]["told"]["index"]
    listed = index["models"] if isinstance(index, dict) else index
    rows = {row["name"]: (row.get("version", ""), row["state"]) for row in listed}

    assert rows == {
        "power-curve": ("1.1.0", "READY"),
        "every": ("1.0.0", "READY"),
        "stored": ("", "UNAVAILABLE"),
        "twin": ("", "UNAVAILABLE"),
        "damaged": ("", "UNAVAILABLE"),
    }


def test_inference_when_asked_in_any_way_then_answered_with_its_version(said: tuple[str, dict[str, Any]]) -> None:
    inferred = said[1]["inferred"]

    assert inferred["plain"] == {"version": "1.1.0", "id": "7", "values": POWER}
    for how in ("by_version", "chosen", "zipped"):
        assert inferred[how] == {"version": "1.1.0", "id": "", "values": POWER}
    assert inferred["background"] == inferred["asyncio"] == POWER


def test_inference_when_of_any_data_type_then_the_same_comes_back(said: tuple[str, dict[str, Any]]) -> None:
    inferred = said[1]["inferred"]

    assert inferred["every_dtype"] == {f"in_{dtype}": True for dtype in models.DTYPES}
    assert inferred["every_dtype_json"] == inferred["every_dtype"]


@pytest.mark.parametrize(
    ("case", "codes", "words"),
    [
        ("unknown model", NOT_FOUND, "Request for unknown model: 'unknown' is not found"),
        ("other version", NOT_FOUND, "Request for unknown model: 'power-curve' version 9 is not found"),
        ("no input", INVALID, "expected 1 inputs but got 0 inputs for model 'power-curve'"),
        ("other input", INVALID, "unexpected inference input 'other' for model 'power-curve'"),
        ("other type", INVALID, "data-type is 'INT32', but model 'power-curve' expects 'FP32'"),
        ("other shape", INVALID, "unexpected shape for input 'conditions' for model 'power-curve'. Expected [-1, 2]"),
        ("other output", INVALID, "unexpected inference output 'other' for model 'power-curve'"),
        ("bytes", INVALID, "unsupported datatype 'BYTES' for input 'conditions'"),
        ("bf16", INVALID, "unsupported datatype 'BF16' for input 'conditions'"),
        ("classification", UNIMPLEMENTED, "the classification extension is not supported"),
        ("sequence", INVALID, "models of this agent have no sequences"),
        ("metadata", NOT_FOUND, "Request for unknown model: 'unknown' is not found"),
        ("config", NOT_FOUND, "Request for unknown model: 'unknown' is not found"),
        ("statistics", NOT_FOUND, "Request for unknown model: 'unknown' is not found"),
        ("shared memory", NOT_FOUND, "Unable to find shared memory region: 'unknown'"),
        ("shared memory without token", DENIED, "marram-token"),
    ],
)
def test_request_when_it_cannot_be_answered_then_told_as_triton_does(
    said: tuple[str, dict[str, Any]], case: str, codes: dict[str, str], words: str
) -> None:
    kind, found = said

    status, _, message = found["refusals"][case].partition(": ")

    assert status == codes[kind]
    assert words in message


@pytest.mark.parametrize(
    ("step", "codes", "words"),
    [
        ("load without token", DENIED, "need marram-token"),
        ("load with a wrong token", DENIED, "need marram-token"),
        ("unload without token", DENIED, "need marram-token"),
        ("unload another's", FOREIGN, f"it belongs to {parts.MODEL_NAME}"),
        ("load another's", FOREIGN, f"it belongs to {parts.MODEL_NAME}"),
        ("load unknown", NOT_FOUND, "failed to load 'unknown', failed to poll from model repository"),
        ("unload unknown", NOT_FOUND, "failed to unload 'unknown'"),
        ("load damaged", INVALID, "failed to load 'damaged', identity.onnx has SHA-256"),
        ("sent as another", INVALID, "failed to load 'other', its model.json is that of 'sent'"),
        ("sent elsewhere", INVALID, "is no file name"),
    ],
)
def test_repository_when_it_may_not_change_then_refused(
    said: tuple[str, dict[str, Any]], step: str, codes: dict[str, str], words: str
) -> None:
    kind, found = said

    status, _, message = found["repository"][step].partition(": ")

    assert status == codes[kind]
    assert words in message


def test_repository_when_it_may_change_then_models_come_and_go(said: tuple[str, dict[str, Any]]) -> None:
    steps = said[1]["repository"]

    for step in ("load", "load its twin", "load again", "unload", "unload its twin", "unload again", "load sent"):
        assert steps[step] == "answered: None"
    assert steps["load what answers"] == "answered: None"
    assert (steps["loaded"], steps["unloaded"], steps["its twin"], steps["sent"]) == (True, False, True, True)


def test_shared_memory_when_registered_then_tensors_travel_there(said: tuple[str, dict[str, Any]]) -> None:
    shared = said[1]["shared"]
    told = json.dumps(shared["status"])

    assert (shared["shape"], shared["values"]) == ([2, 1], POWER)
    assert "region" in told
    assert "64" in told


@pytest.mark.parametrize(
    ("step", "codes", "words"),
    [
        (
            "again",
            {"grpc": "StatusCode.ALREADY_EXISTS", "http": "400"},
            "shared memory region 'region' already in manager",
        ),
        ("too large", INVALID, "has 64 bytes, not 10000"),
        ("no segment", INVALID, "Unable to open shared memory region"),
        ("escape", INVALID, "a region needs a name, a key"),
        ("outside", INVALID, "Invalid offset + byte size for shared memory region: 'region'"),
        ("small", INVALID, "for output 'power_kw' (4 bytes) should be at least 8 bytes to hold the results"),
        ("no token", DENIED, "marram-token"),
        ("cut", INVALID, "ends after 4 bytes of the tensor"),
        ("cut output", INVALID, "became too small for output 'power_kw'"),
        ("gone", NOT_FOUND, "Unable to find shared memory region: 'region'"),
    ],
)
def test_shared_memory_when_it_does_not_fit_then_refused(
    said: tuple[str, dict[str, Any]], step: str, codes: dict[str, str], words: str
) -> None:
    kind, found = said

    status, _, message = found["shared"][step].partition(": ")

    assert status == codes[kind]
    assert words in message


def test_statistics_when_asked_then_what_was_counted(said: tuple[str, dict[str, Any]]) -> None:
    (one,) = said[1]["statistics"]["model_stats"]

    assert (one["name"], one["version"]) == ("power-curve", "1.1.0")
    assert int(one["inference_count"]) >= 6
    assert int(one["inference_stats"]["success"]["ns"]) > 0


def test_token_when_made_then_for_this_user_only(served: tuple[parts.Device, Path]) -> None:
    path = served[0].work("marram.ModelAgent") / "oip.token"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_model_when_sent_then_it_answers_after_a_restart_too(served: tuple[parts.Device, Path], tmp_path: Path) -> None:
    with parts.device() as device:
        repository = device.work("marram.ModelAgent") / "repository"
        shutil.copytree(served[1], repository / "sent")
        process = device.start_agent("--oip-http", "unix:oip.sock", "--oip-grpc", "unix:oip-grpc.sock")
        token = (device.work("marram.ModelAgent") / "oip.token").read_text()

        loaded = _load_over_unix(device.work("marram.ModelAgent"), token)
        process.terminate()
        process.wait(parts.WAIT_S)
        device.start_agent("--oip-http", "unix:oip.sock")

        assert loaded
        assert [(each["alias"], each["component"], each["ready"]) for each in parts.serving(device)] == [
            ("sent", "marram:repository", True)
        ]
        assert (device.work("marram.ModelAgent") / "oip.token").read_text() == token


def _load_over_unix(folder: Path, token: str) -> bool:
    text = (
        "import sys, tritonclient.grpc\n"
        "client = tritonclient.grpc.InferenceServerClient(sys.argv[1])\n"
        "client.load_model('sent', headers={'marram-token': sys.argv[2]})\n"
        "print(client.is_model_ready('sent'))\n"
    )
    address = f"unix:{folder / 'oip-grpc.sock'}"
    ran = subprocess.run(
        [sys.executable, "-c", text, address, token], capture_output=True, text=True, timeout=60, check=False
    )
    return ran.stdout.strip() == "True"
