"""The whole service as a process, with boto3 as the operator and awscrt as the device."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud import settings
from nucleus.wire import jobs
from tests.cloud import device as devices

_RUN = """
import sys
from pathlib import Path
from cloud import app, log
sys.exit(app.run(Path(sys.argv[1]), app.Settings(api_port=0, device_port=0, mqtt_port=0), log.configure(json=True)))
"""
ACCOUNT = "arn:aws:iot:us-east-1:123456789012"


class Process:
    """The running service; its log goes to the test's output on failure."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", _RUN, str(root)], stderr=subprocess.PIPE, text=True)

    def wait_for(self, event: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            print(line, end="")
            if line.startswith("{") and (said := json.loads(line))["event"] == event:
                return dict(said)
        raise AssertionError(f"the service ended with {self.process.wait()} before {event}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=20)
        print(rest)
        return self.process.returncode


@pytest.fixture
def root(tmp_path: Path) -> Path:
    settings.init(tmp_path)
    return tmp_path


@pytest.fixture
def service(root: Path) -> Iterator[Process]:
    running = Process(root)
    try:
        running.wait_for("cloud.started")
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


@pytest.fixture
def device(root: Path, service: Process) -> Iterator[devices.Device]:
    files = devices.register(root, "T", "G")
    made = devices.Device(root, "T", files)
    made.connect()
    made.serve()
    yield made
    made.close()


def effective(root: Path) -> list[tuple[str, str, str]]:
    listed = devices.operator(root, "greengrassv2").list_effective_deployments(coreDeviceThingName="T")
    return [
        (one["deploymentId"], one["coreDeviceExecutionStatus"], one.get("reason", ""))
        for one in listed["effectiveDeployments"]
    ]


def report_status(device: devices.Device) -> None:
    status = {"ggcVersion": "2.15.0", "platform": "linux", "architecture": "amd64", "sequenceNumber": 1}
    device.publish(jobs.fleet_status("T"), {**status, "timestamp": 1_700_000_000_000, "messageType": "COMPLETE"})


def test_run_when_a_group_is_deployed_to_then_the_device_gets_it_and_its_result_comes_back(
    root: Path, device: devices.Device
) -> None:
    report_status(device)
    made = devices.operator(root, "greengrassv2").create_deployment(targetArn=f"{ACCOUNT}:thinggroup/G", components={})

    told = device.hear("/notify-namespace-aws-gg-deployment")
    device.publish(jobs.next_get("T"), {"jobId": "$next", "thingName": "T", "includeJobDocument": True})
    execution = device.hear("/get/accepted")["execution"]

    job_id = execution["jobId"]
    assert (job_id, told["jobs"]["QUEUED"][0]["jobId"]) == (made["iotJobId"], job_id)
    assert execution["jobDocument"]["deploymentId"] == made["deploymentId"]
    device.publish(jobs.update("T", job_id), {"status": "IN_PROGRESS", "clientToken": "jobs-nucleus-lite"})
    assert device.hear("/update/accepted")["clientToken"] == "jobs-nucleus-lite"
    details = {"detailed-deployment-status": "SUCCESSFUL"}
    device.publish(jobs.update("T", job_id), {"status": "SUCCEEDED", "statusDetails": details})
    device.hear("/update/accepted")

    assert device.hear("/notify-namespace-aws-gg-deployment")["jobs"] == {}
    assert effective(root) == [(made["deploymentId"], "SUCCEEDED", "SUCCESSFUL")]


def test_run_when_a_thing_is_deployed_to_then_it_travels_by_shadow(root: Path, device: devices.Device) -> None:
    report_status(device)
    made = devices.operator(root, "greengrassv2").create_deployment(targetArn=f"{ACCOUNT}:thing/T", components={})

    accepted = device.hear("/update/accepted")
    document = json.loads(accepted["state"]["desired"]["fleetConfig"])

    assert document["deploymentId"] == made["deploymentId"]
    reported = {"fleetConfigurationArnForStatus": document["configurationArn"], "status": "SUCCEEDED"}
    details = {"detailedStatus": "SUCCESSFUL"}
    shadow = f"{jobs.shadow('T')}/update"
    device.publish(
        shadow, {"version": accepted["version"], "state": {"reported": {**reported, "statusDetails": details}}}
    )
    device.hear("/update/accepted")
    assert effective(root) == [(made["deploymentId"], "COMPLETED", "SUCCESSFUL")]


def test_run_when_killed_and_started_again_then_what_was_owed_is_delivered(
    root: Path, service: Process, device: devices.Device
) -> None:
    report_status(device)
    devices.operator(root, "greengrassv2").create_deployment(targetArn=f"{ACCOUNT}:thinggroup/G", components={})
    device.hear("/notify-namespace-aws-gg-deployment")
    device.close()

    service.stop(signal.SIGKILL)
    again = Process(root)
    try:
        again.wait_for("cloud.started")
        files = {name: str(root / f"T.{name}.pem") for name in ("certificate", "key")}
        returned = devices.Device(root, "T", files)
        returned.connect()
        returned.serve()
        returned.publish(jobs.next_get("T"), {})
        assert returned.hear("/get/accepted")["execution"]["status"] == "QUEUED"
        returned.close()
    finally:
        assert again.stop() == 0


def test_run_when_asked_to_stop_then_it_ends_with_zero_and_takes_its_files_away(root: Path, service: Process) -> None:
    assert int((root / "cloud.pid").read_text()) == service.process.pid

    assert service.stop(signal.SIGINT) == 0

    assert not (root / "endpoints.json").exists()
    assert not (root / "cloud.pid").exists()


def test_run_when_one_runs_already_then_the_second_says_so_and_the_first_goes_on(root: Path, service: Process) -> None:
    second = subprocess.run([sys.executable, "-c", _RUN, str(root)], capture_output=True, text=True, check=False)

    assert second.returncode != 0
    assert "it is running already" in second.stderr
    assert (root / "endpoints.json").exists()
    os.kill(service.process.pid, 0)


def test_run_when_a_port_is_taken_then_it_says_which_and_leaves_nothing(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = _RUN.replace("api_port=0", f"api_port={taken.getsockname()[1]}")
        failed = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False)

    assert failed.returncode != 0
    assert "cannot listen for the operator's API on 127.0.0.1" in failed.stderr.splitlines()[-1]
    assert not (root / "endpoints.json").exists()


def test_init_when_a_service_is_there_then_it_is_not_replaced(root: Path) -> None:
    before = (root / "ca.pem").read_bytes()

    with pytest.raises(FileExistsError, match="there is one already"):
        settings.init(root)

    assert (root / "ca.pem").read_bytes() == before
    assert (root / "operator" / "credentials").stat().st_mode & 0o077 == 0
