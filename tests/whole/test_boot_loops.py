"""What takes a real nucleus down again and again, under its real loader: given up before the commit, SAFE_MODE after it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools import local_nucleus, machine
from tools import system as systems

pytestmark = pytest.mark.whole
GOOD, BAD = "com.example.Good", "com.example.Bad"
WITHIN_S = 60.0


@pytest.fixture
def device(tmp_path: Path) -> Iterator[machine.Machine]:
    found = machine.Machine(tmp_path / "root")
    try:
        yield found
    finally:
        found.close()


def log(device: machine.Machine) -> str:
    path = device.root / "logs" / "greengrass.log"
    return path.read_text() if path.exists() else ""


def until(device: machine.Machine, event: str, times: int) -> None:
    """Waits until the log tells an event so often; a loader that gave up is started again, as systemd does."""

    def told() -> bool:
        if device.loader.poll() is not None:
            device.loader = subprocess.Popen([device.root / "bin" / "loader"])
        return log(device).count(event) >= times

    systems.wait_for(told, f"{times} times {event}", WITHIN_S, 0.05)


def kill(device: machine.Machine) -> None:
    line = [one for one in log(device).splitlines() if "nucleus.starting" in one][-1]
    os.kill(int(line.partition("pid=")[2].split()[0].strip(",")), signal.SIGKILL)


def begin(device: machine.Machine, components: dict[str, str]) -> str:
    request = {
        "recipeDirectoryPath": str(device.root / "published" / "recipes"),
        "rootComponentVersionsToAdd": components,
        "failureHandlingPolicy": "ROLLBACK",
    }
    return str(device.call("aws.greengrass#CreateLocalDeployment", request)["deploymentId"])


def ended(device: machine.Machine, deployment_id: str) -> dict[str, Any]:
    request = {"deploymentId": deployment_id}
    found = device.call("aws.greengrass#GetLocalDeploymentStatus", request)["deployment"]
    assert isinstance(found, dict)
    return found


def test_preparation_when_the_nucleus_is_killed_in_it_three_times_then_failed_and_the_next_one_works(
    device: machine.Machine,
) -> None:
    device.publish(local_nucleus.recipe(GOOD, "exec sleep 1000"), {})
    until(device, "nucleus.started", 1)
    (device.root / "fault").write_text("pause-before-activation:1000")
    made = begin(device, {GOOD: "1.0.0"})
    for times in (1, 2, 3):
        until(device, "deployment.fault_switch", times)
        kill(device)
    until(device, "nucleus.started", 4)
    found = ended(device, made)
    (device.root / "fault").unlink()

    assert found["status"] == "FAILED"
    assert "died 3 times in the preparation" in str(found)
    assert device.deploy({GOOD: "1.0.0"})["status"] == "SUCCEEDED"


def test_way_back_when_it_is_killed_at_every_launch_then_safe_mode_and_a_deployment_leads_out_of_it(
    device: machine.Machine,
) -> None:
    device.publish(local_nucleus.recipe(GOOD, "exec sleep 1000"), {})
    lasting = {**local_nucleus.recipe(BAD, "exec sleep 1000"), "Manifests": [{"Lifecycle": {"Startup": "sleep 1000"}}]}
    stays = {**local_nucleus.recipe(BAD, "exec sleep 1000"), "ComponentVersion": "2.0.0"}
    slow = [{"Lifecycle": {"Startup": f"until test -e {device.root}/quick; do sleep 0.05; done"}}]
    device.publish({**stays, "Manifests": slow}, {})
    device.publish(lasting, {})
    (device.root / "quick").touch()
    assert device.deploy({GOOD: "1.0.0", BAD: "2.0.0"})["status"] == "SUCCEEDED"
    (device.root / "quick").unlink()
    begin(device, {BAD: "1.0.0"})
    until(device, "deployment.committed", 2)
    launches = 1
    while "nucleus.safe_mode" not in log(device):
        kill(device)
        launches += 1
        until(device, "nucleus.started", launches)
        assert launches < 12

    (device.root / "quick").touch()
    assert device.deploy({GOOD: "1.0.0", BAD: "2.0.0"})["status"] == "SUCCEEDED"
    before = log(device).count("nucleus.safe_mode")
    assert before
    kill(device)
    until(device, "nucleus.started", launches + 1)
    assert log(device).count("nucleus.safe_mode") == before
