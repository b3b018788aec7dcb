"""Figures of the device core: starts, local and cloud deployments, slow links, large graphs, idle costs."""

from __future__ import annotations

import datetime
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import yaml

from nucleus.core import negotiate
from nucleus.core import recipe as recipes
from nucleus.ipc import client
from tools import slow_link, system

THING = "bench-2"
GROUP = "bench-2"
Row = tuple[str, str, str]


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="mb") as folder:
        one = system.System(Path(folder))
        try:
            one.start_cloud()
            one.create_group(GROUP)
            one.create_device(THING, GROUP)
            return [*_starts(one), *_deployments(one), *_slow(one), _graph()]
        finally:
            one.close()


def recipe(name: str, version: str, run: str, *needs: str) -> dict[str, Any]:
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "ComponentDependencies": {other: {"VersionRequirement": "*", "DependencyType": "SOFT"} for other in needs},
        "Manifests": [{"Lifecycle": {"Run": run}}],
    }


def target() -> str:
    return f"arn:aws:iot:us-east-1:123456789012:thinggroup/{GROUP}"


# ---- starts -------------------------------------------------------------------------------------------------------------


def _starts(one: system.System) -> list[Row]:
    """Ten components, then the daemon stopped and started, and killed and started."""
    names = [f"com.example.Bench{number}" for number in range(10)]
    for name in names:
        one.publish(recipe(name, "1.0.0", "exec sleep 100000"))
    one.start_nucleus(THING)
    deployment = one.deploy(target(), dict.fromkeys(names, "1.0.0"), tags={"marram:watch_s": "0"})
    one.wait(THING, deployment)
    one.kill(THING, 15)
    cold = _until_running(one, 10)
    process = psutil.Process(one.processes[THING].pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    system.wait_for(lambda: time.monotonic() - began >= 20, "20 s of rest", 30, 0.5)
    idle = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
    one.kill(THING, 9)
    after_kill = _until_running(one, 10)
    return [
        (
            "cold start until 10 components RUNNING",
            f"{cold:.2f} s",
            "spawn of the daemon to the tenth RUNNING in its log",
        ),
        ("after SIGKILL until 10 components RUNNING", f"{after_kill:.2f} s", "survivors are ended first"),
        ("idle CPU of the daemon, connected", f"{idle * 100:.2f} %", "over 20 s, with 10 components"),
    ]


def _until_running(one: system.System, count: int) -> float:
    log = one.device(THING) / "logs" / "greengrass.log"
    before = log.read_text().count("state=RUNNING")
    began = time.monotonic()
    one.start_nucleus(THING)
    system.wait_for(lambda: log.read_text().count("state=RUNNING") >= before + count, "all RUNNING", 60, 0.005)
    return time.monotonic() - began


# ---- deployments --------------------------------------------------------------------------------------------------------


def _deployments(one: system.System) -> list[Row]:
    name = "com.example.Local"
    times = []
    for number in range(5):
        folder = one.root / f"authored{number}"
        folder.mkdir()
        (folder / "r.json").write_text(json.dumps(recipe(name, f"1.0.{number}", "true")))
        times.append(_local(one, name, f"1.0.{number}", folder))
    return [("local deployment created -> SUCCEEDED", f"{statistics.median(times):.3f} s", "median of 5, over the IPC")]


def _local(one: system.System, name: str, version: str, folder: Path) -> float:
    token = next((one.device(THING) / "cli_ipc_info").iterdir())
    info = json.loads(token.read_text())
    ipc = client.Client(socket_path=info["domain_socket_path"], token=info["cli_auth_token"])
    try:
        began = time.monotonic()
        request = {"rootComponentVersionsToAdd": {name: version}, "recipeDirectoryPath": str(folder)}
        wanted = ipc.call("CreateLocalDeployment", request)["deploymentId"]

        def ended() -> bool:
            return bool(_status(ipc, wanted) == "SUCCEEDED")

        system.wait_for(ended, "the local deployment", 30, 0.002)
        return time.monotonic() - began
    finally:
        ipc.close()


def _status(ipc: client.Client, deployment: str) -> str:
    found: dict[str, Any] = ipc.call("GetLocalDeploymentStatus", {"deploymentId": deployment})
    return str(found["deployment"]["status"])


# ---- slow links ---------------------------------------------------------------------------------------------------------


def _slow(one: system.System) -> list[Row]:
    one.publish(recipe("com.example.OneShot", "1.0.0", "true"))
    one.publish(recipe("com.example.OneShot", "1.0.1", "true"))
    parts = [f"com.example.Part{number}" for number in range(30)]
    for number, name in enumerate(parts):
        one.publish(recipe(name, "1.0.0", "true", *(parts[5 * number + 1 : 5 * number + 6] if number < 6 else ())))
    return [_over(one, 0.3, {"com.example.OneShot": "1.0.1"}), _over(one, 0.6, {parts[0]: "1.0.0"}, count=30)]


def _over(one: system.System, round_trip_s: float, wanted: dict[str, str], count: int = 1) -> Row:
    """Restarts the nucleus behind slow links and deploys; the log's stamps give the time of the resolution."""
    config = one.device(THING) / "config.yaml"
    plain = config.read_text()
    if THING in one.processes:
        one.kill(THING, 15)
    with ExitStack() as links:
        settings = yaml.safe_load(plain)
        nucleus = settings["services"]["aws.greengrass.Nucleus"]["configuration"]
        for place, key in ((nucleus, "greengrassDataPlanePort"), (nucleus["mqtt"], "port")):
            place[key] = links.enter_context(slow_link.slow_link(int(place[key]), round_trip_s))
        config.write_text(yaml.safe_dump(settings))
        log = one.device(THING) / "logs" / "greengrass.log"
        seen = log.read_text().count("mqtt.connected")
        one.start_nucleus(THING)
        system.wait_for(lambda: log.read_text().count("mqtt.connected") > seen, "the slow connection", 60)
        began = time.monotonic()
        done = one.wait(THING, one.deploy(target(), wanted, tags={"marram:watch_s": "0"}), 120)
        took = time.monotonic() - began
        one.kill(THING, 15)
    config.write_text(plain)
    state = done["coreDeviceExecutionStatus"]
    what = "one-shot" if count == 1 else f"{count} components, none known"
    method = f"created -> {state}, {took / round_trip_s:.1f} round trips; {_prepared(log):.2f} s to resolve and prepare"
    return (f"{what} over a {round_trip_s * 1000:.0f} ms link", f"{took:.2f} s", method)


def _prepared(log: Path) -> float:
    """Seconds between `deployment.started` and `deployment.committed` of the last deployment in a log."""
    found = {}
    for line in log.read_text().splitlines():
        for event in ("deployment.started", "deployment.committed"):
            if f" {event}." in line:
                found[event] = datetime.datetime.fromisoformat(line.split(" ", 1)[0])
    return (found["deployment.committed"] - found["deployment.started"]).total_seconds()


def _graph() -> Row:
    """500 components, each needing up to three later ones."""
    names = [f"c{number}" for number in range(500)]
    known = {
        name: negotiate.Candidate(
            name,
            "1.0.0",
            recipes.Recipe(
                name=name,
                version="1.0.0",
                dependencies={other: recipes.Dependency("^1.0.0") for other in names[number + 1 : number + 4]},
                manifests=(recipes.Manifest(),),
            ),
        )
        for number, name in enumerate(names)
    }
    answers: dict[negotiate.Ask, negotiate.Candidate] = {}
    state = negotiate.begin({"thinggroup/g": dict.fromkeys(names, "1.0.0")})
    began, rounds = time.perf_counter(), 0
    while isinstance(step := negotiate.step(state, answers), negotiate.Need):
        answers |= {ask: known[ask.name] for ask in step.asks}
        rounds += 1
    took = time.perf_counter() - began
    return (
        "500-component graph resolved",
        f"{took * 1000:.0f} ms",
        f"{type(step).__name__} in {rounds} rounds, no network",
    )
