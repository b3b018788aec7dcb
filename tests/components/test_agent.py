"""The agent as a process: serving through exchanges, deaths, releases and bad requests."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_frames
import model_client
import numpy as np
import pytest

from nucleus.ipc import connection
from tests.components import parts
from tests.nucleus import fakes_ipc

BATCH = {"conditions": np.array([[8.0, 10.0], [11.0, 0.0]], dtype=np.float32)}


@pytest.fixture
def device() -> Iterator[parts.Device]:
    with parts.device() as made:
        yield made


@pytest.fixture
def client(device: parts.Device) -> Iterator[model_client.Client]:
    made = model_client.Client(str(device.socket))
    yield made
    made.close()


def predict(client: model_client.Client, deadline_s: float = 20.0) -> model_client.Answer:
    return client.predict("power-curve", BATCH, deadline_s=deadline_s)


def ask(device: parts.Device, header: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(20)
        one.connect(str(device.socket))
        agent_frames.send(one, header, body)
        return agent_frames.receive(one)[0]


def serving(device: parts.Device) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = ask(device, {"op": "list"})["models"]
    return models


class Load(threading.Thread):
    """Asks without a pause until told to end; keeps every answer and every error."""

    def __init__(self, device: parts.Device) -> None:
        super().__init__()
        self.answers: list[tuple[str, tuple[float, ...]]] = []
        self.errors: list[str] = []
        self.over = threading.Event()
        self._client = model_client.Client(str(device.socket))

    def run(self) -> None:
        while not self.over.is_set():
            try:
                answer = predict(self._client)
            except (TimeoutError, ValueError) as error:
                self.errors.append(str(error))
                return
            self.answers.append((answer.version, tuple(answer.outputs["power_kw"].reshape(-1).tolist())))
            self.over.wait(0.0005)  # two cores, shared by everyone
        self._client.close()

    def end(self) -> None:
        self.over.set()
        self.join(parts.WAIT_S)


def test_exchange_when_under_load_then_no_request_fails_and_each_says_its_version(device: parts.Device) -> None:
    device.start_agent()
    device.offer("1.0.0")
    loads = [Load(device) for _ in range(4)]
    for load in loads:
        load.start()

    for version in ("1.1.0", "1.0.0", "1.2.0", "1.1.0"):
        seen = len(loads[0].answers)
        device.offer(version)
        parts.until(lambda seen=seen: loads[0].errors or len(loads[0].answers) > seen + 5, "answers after an exchange")
    for load in loads:
        load.end()

    assert [load.errors for load in loads] == [[], [], [], []]
    answers = {answer for load in loads for answer in load.answers}
    assert {version for version, _ in answers} == {"1.0.0", "1.1.0"}
    assert len(answers) == 2  # one value for each version: never one model's answer under the other's name


def test_restart_when_killed_then_serves_before_any_offer(device: parts.Device, client: model_client.Client) -> None:
    first = device.start_agent()
    device.offer("1.1.0")
    first.send_signal(signal.SIGKILL)
    first.wait(parts.WAIT_S)

    device.start_agent()

    assert predict(client).version == "1.1.0"
    assert "restored: power-curve answers with" in device.log("marram.ModelAgent")


def test_restart_when_serving_copy_is_damaged_then_previous_serves(
    device: parts.Device, client: model_client.Client
) -> None:
    first = device.start_agent()
    device.offer("1.0.0")
    device.offer("1.1.0")
    first.terminate()
    assert first.wait(parts.WAIT_S) == 0
    store = device.work("marram.ModelAgent") / "registry"
    entry = json.loads((store / "registry.json").read_text())["aliases"]["power-curve"]
    copy = store / "models" / entry["serving"]["key"] / "power_curve.onnx"
    copy.write_bytes(copy.read_bytes()[:-1])

    device.start_agent()

    assert predict(client).version == "1.0.0"
    assert "1.1.0 cannot serve: its copy is damaged" in device.log("marram.ModelAgent")
    assert device.offer("1.1.0").returncode == 0
    assert predict(client).version == "1.1.0"


def test_restart_when_registry_is_torn_then_empty_and_kept_aside(device: parts.Device) -> None:
    first = device.start_agent()
    device.offer("1.1.0")
    first.terminate()
    first.wait(parts.WAIT_S)
    store = device.work("marram.ModelAgent") / "registry"
    (store / "registry.json").write_bytes(b'{"aliases": {"pow')

    device.start_agent()

    assert serving(device) == []
    assert (store / "registry.json.unreadable").exists()
    assert device.offer("1.1.0").returncode == 0


def test_second_agent_when_first_lives_then_it_ends_with_the_reason(device: parts.Device) -> None:
    first = device.start_agent()
    program = (
        "import sys, agent_registry as r, pathlib\n"
        "try: r.Registry.open(pathlib.Path('registry'), wait_s=0.1)\n"
        "except r.StoreError as error: sys.exit(str(error))"
    )
    second = subprocess.run(
        [sys.executable, "-c", program],
        cwd=device.work("marram.ModelAgent"),
        env={"PYTHONPATH": str(device.agent_files)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (second.returncode, second.stderr) == (1, "another model agent holds registry/lock\n")
    assert first.poll() is None


def test_release_when_model_serves_then_it_serves_on(device: parts.Device, client: model_client.Client) -> None:
    device.start_agent()
    device.offer("1.0.0")

    done = device.hand_over("release", "1.0.0")

    assert (done.returncode, "still answers with 1.0.0" in done.stdout) == (0, True)
    assert predict(client).version == "1.0.0"
    assert serving(device)[0]["released"] is True


def test_offer_when_released_before_then_release_is_over(device: parts.Device) -> None:
    device.start_agent()
    device.offer("1.0.0")
    device.hand_over("release", "1.0.0")

    device.offer("1.0.0")

    assert serving(device)[0]["released"] is False


def test_refusal_when_predecessor_was_released_then_it_stays_and_goes_with_its_component(
    device: parts.Device, client: model_client.Client
) -> None:
    device.start_agent()
    device.offer("1.1.0")
    device.hand_over("release", "1.1.0")

    refused = device.offer("1.2.0")

    assert refused.returncode == 1
    assert serving(device)[0] | {"previous": ""} == {
        "alias": "power-curve",
        "component": parts.MODEL_NAME,
        "version": "1.1.0",
        "previous": "",
        "ready": True,
        "released": False,
    }
    device.hand_over("withdraw", "1.2.0")
    assert serving(device) == []


@pytest.mark.parametrize("verb", ["release", "withdraw"])
def test_late_news_when_a_successor_serves_then_nothing_changes(
    device: parts.Device, client: model_client.Client, verb: str
) -> None:
    device.start_agent()
    device.offer("1.0.0")
    device.offer("1.1.0")

    done = device.hand_over(verb, "1.0.0")

    assert (done.returncode, "serves nothing here" in done.stdout) == (0, True)
    assert (predict(client).version, serving(device)[0]["released"]) == ("1.1.0", False)


def test_withdraw_when_component_is_gone_then_not_ready(device: parts.Device, client: model_client.Client) -> None:
    device.start_agent()
    device.offer("1.0.0")

    done = device.hand_over("withdraw", "1.0.0")

    assert done.returncode == 0
    assert ask(device, {"op": "predict", "alias": "power-curve", "tensors": []})["code"] == "NOT_READY"
    with pytest.raises(model_client.UnansweredError, match="NOT_READY: no model answers for power-curve yet"):
        predict(client, deadline_s=0.2)
    assert list((device.work("marram.ModelAgent") / "registry/models").iterdir()) == []


def test_lease_when_component_never_comes_back_then_alias_is_empty(device: parts.Device) -> None:
    device.start_agent("--lease-seconds", "0.1")
    device.offer("1.0.0")

    device.hand_over("release", "1.0.0")

    parts.until(lambda: serving(device) == [], "the lease to end")


@pytest.mark.parametrize("verb", ["release", "withdraw"])
def test_farewell_when_agent_is_gone_then_exits_0(device: parts.Device, verb: str) -> None:
    done = device.hand_over(verb, "1.0.0")

    assert (done.returncode, "the model agent was not told" in done.stdout) == (0, True)


@pytest.mark.parametrize("verb", ["release", "withdraw"])
def test_farewell_when_agent_hangs_then_exits_0(device: parts.Device, verb: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(device.socket))
        silent.listen(1)

        done = device.hand_over(verb, "1.0.0")

    assert (done.returncode, "the model agent was not told" in done.stdout) == (0, True)


def test_offer_when_agent_starts_later_then_waits_for_it(device: parts.Device, client: model_client.Client) -> None:
    words = device.words("offer", "1.0.0", "--artifacts", parts.MODEL / "1.0.0")
    offering = device.start(parts.MODEL_NAME, device.agent_files / "hand_over.py", *words)

    device.start_agent()

    assert offering.wait(parts.WAIT_S) == 0
    assert predict(client).version == "1.0.0"


def test_offer_when_no_agent_comes_then_says_so(device: parts.Device) -> None:
    done = device.hand_over("offer", "1.0.0", "--artifacts", parts.MODEL / "1.0.0", "--wait-seconds", "0.2")

    assert done.returncode == 3
    assert done.stderr.startswith(
        f"cannot offer {parts.MODEL_NAME} 1.0.0 to the model agent within 0.2 s: the agent at"
    )


def test_predict_when_agent_dies_and_returns_then_answered(device: parts.Device, client: model_client.Client) -> None:
    first = device.start_agent()
    device.offer("1.0.0")
    predict(client)
    first.send_signal(signal.SIGKILL)
    first.wait(parts.WAIT_S)
    waiting: list[model_client.Answer] = []
    thread = threading.Thread(target=lambda: waiting.append(predict(client, deadline_s=parts.WAIT_S)))
    thread.start()

    device.start_agent()

    thread.join(parts.WAIT_S)
    assert (waiting[0].version, waiting[0].tries > 1) == ("1.0.0", True)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"conditions": np.zeros((1, 2), dtype=np.float64)}, r"input conditions is float64 \[1, 2\]"),
        ({"conditions": np.zeros((1, 3), dtype=np.float32)}, r"this model takes float32 \[-1, 2\]"),
        ({"weather": np.zeros((1, 2), dtype=np.float32)}, "inputs are weather; this model takes conditions"),
        ({}, "inputs are none"),
        ({"conditions": np.zeros((3_000_000, 2), dtype=np.float32)}, "above the agent's limit"),
        ({"conditions": np.array(["a"])}, "is not one of float16"),
    ],
    ids=["dtype", "shape", "name", "none", "large", "text"],
)
def test_predict_when_inputs_do_not_fit_then_rejected(
    device: parts.Device, client: model_client.Client, inputs: dict[str, Any], reason: str
) -> None:
    device.start_agent()
    device.offer("1.0.0")

    with pytest.raises(model_client.RejectedError, match=reason):
        client.predict("power-curve", inputs, deadline_s=20)

    assert predict(client).version == "1.0.0"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({}, b""),
        ({"op": "dance"}, b""),
        ({"op": "predict", "alias": 3, "tensors": []}, b""),
        ({"op": "predict", "alias": "power-curve", "tensors": "x"}, b""),
        ({"op": "predict", "alias": "power-curve", "tensors": [3]}, b""),
        ({"op": "predict", "alias": "power-curve", "tensors": [{"name": "a", "dtype": "float32", "shape": [-1]}]}, b""),
        (
            {"op": "predict", "alias": "power-curve", "tensors": [{"name": "a", "dtype": "float32", "shape": [9]}]},
            b"12",
        ),
        ({"op": "predict", "alias": "power-curve", "tensors": []}, b"12"),
        ({"op": "offer", "component": "a"}, b""),
        ({"op": "release", "component": "", "version": "1"}, b""),
    ],
)
def test_request_when_it_makes_no_sense_then_answered_and_the_agent_lives(
    device_once: parts.Device, header: dict[str, Any], body: bytes
) -> None:
    reply = ask(device_once, header, body)

    assert (reply["ok"], reply["code"]) == (False, "INVALID_ARGUMENT")
    assert serving(device_once)[0]["version"] == "1.0.0"


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">II", 2**31, 0),
        struct.pack(">II", 2, 2**31) + b"{}",
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 2, 0) + b"{\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["header", "body", "list", "text", "http"],
)
def test_frame_when_it_is_none_then_told_and_closed(device_once: parts.Device, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(20)
        one.connect(str(device_once.socket))
        one.sendall(sent)

        assert agent_frames.receive(one)[0]["code"] == "INVALID_ARGUMENT"
        with contextlib.suppress(ConnectionResetError):  # how a close looks that leaves bytes unread
            assert one.recv(1) == b""


def test_frames_when_they_come_byte_by_byte_or_together_then_each_is_answered(device_once: parts.Device) -> None:
    text = json.dumps({"op": "list"}).encode()
    frame = agent_frames.PRELUDE.pack(len(text), 0) + text
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(20)
        one.connect(str(device_once.socket))
        for byte in frame:
            one.sendall(bytes([byte]))
        one.sendall(frame + frame)

        assert [agent_frames.receive(one)[0]["ok"] for _ in range(3)] == [True, True, True]


def test_connection_when_there_are_too_many_then_busy_until_one_is_gone(device_once: parts.Device) -> None:
    held = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(64)]
    for one in held:
        one.connect(str(device_once.socket))
    parts.until(lambda: ask_or_busy(device_once) == "BUSY", "the agent to be full")

    for one in held:
        one.close()

    parts.until(lambda: ask_or_busy(device_once) == "ok", "places to be free again")


def ask_or_busy(device: parts.Device) -> str:
    try:
        reply = ask(device, {"op": "list"})
    except OSError:  # it closed while we wrote
        return "BUSY"
    return str(reply.get("code", "ok"))


@pytest.fixture(scope="module")
def device_once() -> Iterator[parts.Device]:
    """One agent with 1.0.0 for all bad requests: none may harm it."""
    with parts.device() as made:
        made.start_agent()
        made.offer("1.0.0")
        yield made


def test_start_when_socket_path_is_a_file_then_ends_with_the_reason(device: parts.Device) -> None:
    (device.work("marram.ModelAgent") / "agent.sock").write_text("mine")

    process = device.start("marram.ModelAgent", device.agent_files / "agent.py")

    assert process.wait(parts.WAIT_S) == 1
    assert "cannot start the model agent: agent.sock exists and is no socket" in device.log("marram.ModelAgent")


def test_start_when_a_nucleus_started_it_then_it_reports_running(device: parts.Device) -> None:
    world = fakes_ipc.World(device.root / "ipc.socket", connection.Limits())
    with fakes_ipc.serving_in_thread(world):
        token = world.do(world.add, "marram.ModelAgent")
        environment = {"SVCUID": token, "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(world.path)}

        device.start_agent(environment=environment)

        parts.until(lambda: world.components.reports == [("marram.ModelAgent", "RUNNING")], "the report")


def test_hand_over_when_read_then_it_needs_only_the_standard_library() -> None:
    for name in ("hand_over.py", "agent_frames.py"):
        text = Path(parts.AGENT / name).read_text()
        imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
        ours = {"agent_frames"}
        assert {each.partition(".")[0] for each in imported} - ours <= sys.stdlib_module_names
