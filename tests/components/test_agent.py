"""The agent as a process: serving through exchanges, deaths and damage."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import model_client

from nucleus.ipc import connection
from tests.components import parts
from tests.nucleus import fakes_ipc


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
                answer = parts.predict(self._client)
            except (TimeoutError, ValueError) as error:
                self.errors.append(str(error))
                return
            self.answers.append((answer.version, tuple(answer.outputs["power_kw"].reshape(-1).tolist())))
            self.over.wait(0.0005)  # two cores, shared by everyone
        self._client.close()

    def end(self) -> None:
        self.over.set()
        self.join(parts.WAIT_S)


def more_answers(load: Load) -> Callable[[], bool]:
    least = len(load.answers) + 5
    return lambda: bool(load.errors) or len(load.answers) >= least


def test_exchange_when_under_load_then_no_request_fails_and_each_says_its_version(device: parts.Device) -> None:
    device.start_agent()
    device.offer("1.0.0")
    loads = [Load(device) for _ in range(4)]
    for load in loads:
        load.start()

    for version in ("1.1.0", "1.0.0", "1.2.0", "1.1.0"):
        device.offer(version)
        parts.until(more_answers(loads[0]), "answers after an exchange")
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

    assert parts.predict(client).version == "1.1.0"
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

    assert parts.predict(client).version == "1.0.0"
    assert "1.1.0 cannot serve: its copy is damaged" in device.log("marram.ModelAgent")
    assert device.offer("1.1.0").returncode == 0
    assert parts.predict(client).version == "1.1.0"


def test_restart_when_registry_is_torn_then_empty_and_kept_aside(device: parts.Device) -> None:
    first = device.start_agent()
    device.offer("1.1.0")
    first.terminate()
    first.wait(parts.WAIT_S)
    store = device.work("marram.ModelAgent") / "registry"
    (store / "registry.json").write_bytes(b'{"aliases": {"pow')

    device.start_agent()

    assert parts.serving(device) == []
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


def test_predict_when_agent_dies_and_returns_then_answered(device: parts.Device, client: model_client.Client) -> None:
    first = device.start_agent()
    device.offer("1.0.0")
    parts.predict(client)
    first.send_signal(signal.SIGKILL)
    first.wait(parts.WAIT_S)
    waiting: list[model_client.Answer] = []
    thread = threading.Thread(target=lambda: waiting.append(parts.predict(client, deadline_s=parts.WAIT_S)))
    thread.start()

    device.start_agent()

    thread.join(parts.WAIT_S)
    assert (waiting[0].version, waiting[0].tries > 1) == ("1.0.0", True)


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
        parts.until(lambda: not world.do(lambda: world.server._connections), "the connection to end")
