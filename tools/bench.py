"""`make bench`: the figures of the issue, each with its method in a line. Ratios and medians of one run on this machine."""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools import bench_batching, bench_broker, bench_device, bench_ipc, bench_ipc_raw, bench_model, system

GROUP = "bench"
THING = "bench-1"
ONE_SHOT = "com.example.OneShot"


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the figures of the benchmarks.")
    parser.add_argument("names", nargs="*", help="only these: system device ipc broker cli model batching")
    chosen = parser.parse_args().names or list(BENCHES)
    for name in chosen:
        for figure, value, method in BENCHES[name]():
            print(f"{figure:<52} {value:>16}   {method}", flush=True)


Row = tuple[str, str, str]


def bench_system() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="mb") as folder:
        one = system.System(Path(folder))
        try:
            return _measure_system(one)
        finally:
            one.close()


def _measure_system(one: system.System) -> list[Row]:
    one.start_cloud()
    target = one.create_group(GROUP)
    one.create_device(THING, GROUP)
    starts = [_start(one) for _ in range(3)]
    for number in range(6):
        one.publish(recipe(f"1.0.{number}"))
    times = [_deploy(one, target, f"1.0.{number}") for number in range(6)][1:]
    time.monotonic()
    pss = _idle_pss_mib(one.processes[THING].pid)
    median = statistics.median(times)
    window = "0 s for a one-shot that ended 0; 5 s when a changed component has a Run that stays"
    return [
        (
            "daemon start -> connected",
            f"{statistics.median(starts):.2f} s",
            "3 starts; spawn to `mqtt.connected` in its log",
        ),
        (
            "one-shot deployment created -> SUCCEEDED",
            f"{median:.2f} s",
            f"median of 5; best {min(times):.2f}; boto3, loopback",
        ),
        ("  its watch window", "0 s", window),
        ("idle PSS of the daemon", f"{pss:.1f} MiB", "/proc/PID/smaps_rollup, connected, after 6 deployments"),
    ]


def recipe(version: str) -> dict[str, Any]:
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": ONE_SHOT,
        "ComponentVersion": version,
        "Manifests": [{"Lifecycle": {"Run": f"echo {version}"}}],
    }


def _start(one: system.System) -> float:
    log = one.device(THING) / "logs" / "greengrass.log"
    if THING in one.processes:
        one.kill(THING, 15)
    before = _count(log, "mqtt.connected")
    began = time.monotonic()
    one.start_nucleus(THING)
    system.wait_for(lambda: _count(log, "mqtt.connected") > before, "the nucleus to connect", 30, 0.002)
    return time.monotonic() - began


def _count(path: Path, word: str) -> int:
    return path.read_text().count(word) if path.exists() else 0


def _deploy(one: system.System, target: str, version: str) -> float:
    client = one.client("greengrassv2")
    began = time.monotonic()
    deployment = client.create_deployment(targetArn=target, components={ONE_SHOT: {"componentVersion": version}})
    wanted = deployment["deploymentId"]

    def ended() -> bool:
        found = client.list_effective_deployments(coreDeviceThingName=THING)["effectiveDeployments"]
        return any(
            each["deploymentId"] == wanted and each["coreDeviceExecutionStatus"] == "SUCCEEDED" for each in found
        )

    system.wait_for(ended, "the deployment to succeed", 60, 0.005)
    return time.monotonic() - began


def _idle_pss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def bench_ipc_rate() -> list[Row]:
    rate = bench_ipc.stand_alone()
    in_turn, cpu_us = bench_ipc.requests_in_turn()
    p50, p99, paced_us = bench_ipc.paced()
    raw = [
        (f"IPC raw: {row.name}", f"{row.rate:,.0f} /s", f"server {row.cpu_us:.1f} us a message; frames made in advance")
        for row in bench_ipc_raw.rows()
    ]
    return [
        (
            "IPC publish -> subscriber, official client",
            f"{rate:,.0f} msg/s",
            "awsiotsdk, two processes, 100-byte messages",
        ),
        ("IPC GetConfiguration, one blocking client", f"{in_turn:,.0f} /s", f"awsiotsdk; server {cpu_us:.0f} us each"),
        (
            "IPC GetConfiguration, 20 clients x 20/s",
            f"p50 {p50:.2f} p99 {p99:.2f} ms",
            f"awsiotsdk, 20 processes, random moments; server {paced_us:.0f} us each",
        ),
        *raw,
    ]


def bench_broker_rate() -> list[Row]:
    found = bench_broker.measure()
    return [
        (f"broker: {key}", f"{value:,.1f}", "1,000 clients, ACL and bounds on, one process, QoS 1")
        for key, value in found.items()
    ]


def bench_cli() -> list[Row]:
    bare = _median_run(["-c", "pass"])
    help_ = _median_run(["-m", "nucleus.cli", "--help"])
    return [
        ("marram --help", f"{help_ / bare:.1f} starts", f"bare interpreter start {bare * 1000:.0f} ms, medians of 9")
    ]


def _median_run(arguments: list[str]) -> float:
    import subprocess
    import sys

    def once() -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.monotonic() - began

    return statistics.median(once() for _ in range(9))


BENCHES: dict[str, Callable[[], list[Row]]] = {
    "system": bench_system,
    "device": bench_device.measure,
    "ipc": bench_ipc_rate,
    "broker": bench_broker_rate,
    "cli": bench_cli,
    "model": bench_model.measure,
    "batching": bench_batching.measure,
}

if __name__ == "__main__":
    print(f"# {os.cpu_count()} cores, {json.dumps(os.uname().release)}, load {os.getloadavg()[0]:.1f}")
    main()
