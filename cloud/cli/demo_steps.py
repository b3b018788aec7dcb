"""The steps of the demo, each one act of a story: it shows what it does, checks it, and returns the figures it measured."""

from __future__ import annotations

import functools
import json
import queue
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich import console

from cloud.cli import demo_stage, listen
from cloud.cli import progress as following
from cloud.cli import watch as watching
from nucleus.cli import exits, models

Figures = list[tuple[str, str]]
MODEL, AGENT, MONITOR = demo_stage.MODEL, demo_stage.AGENT, demo_stage.MONITOR
DEVICES, GROUP = demo_stage.DEVICES, demo_stage.GROUP

_ALIAS = "power-curve"
_ALARMS_SHOWN = 4
_PAUSE_S = 60  # how long the nucleus would wait before it activates; it is killed within it


def found_the_cloud(stage: demo_stage.Stage) -> Figures:
    """1: the service with embedded defaults, a thing group, two devices, a listener's certificate."""
    root = str(stage.cloud)
    stage.verb("cloud", "init", "--root", root)
    began = time.monotonic()
    stage.start(
        "cloud-run", "cloud", "run", "--root", root, "--api-port", "0", "--device-port", "0", "--mqtt-port", "0"
    )
    stage.wait("the start of the service", lambda: (stage.cloud / "endpoints.json").exists(), 20)
    started_s = time.monotonic() - began
    stage.verb("group", "create", GROUP, "--root", root)
    for thing in DEVICES:
        topic, to = f"turbines/{thing}/#", str(stage.device(thing))
        stage.verb("device", "create", thing, "--to", to, "--group", GROUP, "--topic", topic, "--root", root)
    to = str(stage.folder / "listener")
    stage.verb("operator", "certificate", "control_room", "--topic", "turbines/#", "--to", to, "--root", root)
    return [("service start until all ports listen", f"{started_s:.2f} s")]


def start_the_nuclei(stage: demo_stage.Stage) -> Figures:
    """2: two nuclei, each with its own root folder, thing and certificate."""
    began = time.monotonic()
    for thing in DEVICES:
        root = str(stage.device(thing))
        stage.start(thing, "nucleus", "run", "--root", root)
    client = stage.session().client("greengrassv2")
    known: set[str] = set()

    def connected() -> bool:
        known.update(one["coreDeviceThingName"] for one in client.list_core_devices()["coreDevices"])
        return known >= set(DEVICES)

    stage.wait("the first report of both devices", connected, 30)
    return [("two nuclei start until both reported", f"{time.monotonic() - began:.2f} s")]


def publish(stage: demo_stage.Stage) -> Figures:
    """3: the components, by the author's ordinary path."""
    began, count = time.monotonic(), 0
    for component, folder in _components():
        recipe = stage.repository / "recipes" / f"{component}.yaml"
        artifacts = str(stage.repository / "components" / folder)
        stage.verb("component", "publish", str(recipe), "--artifacts", artifacts, "--root", str(stage.cloud))
        count += 1
    return [(f"publish {count} component versions", f"{time.monotonic() - began:.2f} s")]


def deploy_all(stage: demo_stage.Stage, listener: listen.Listener) -> Figures:
    """4: everything to the group; then the first alarms, with the timestamps of the real data."""
    config = stage.folder / "python.json"
    python = {"MERGE": {"python": sys.executable}}  # design.md 4.2: the demo's components share its own environment
    config.write_text(json.dumps(dict.fromkeys((AGENT, MODEL, MONITOR), python)))
    wanted = [f"{AGENT}=1.0.0", f"{MODEL}=1.0.0", f"{MONITOR}=1.0.0"]
    began, began_at = time.monotonic(), time.time()
    _deploy(stage, *wanted, "--config", str(config))
    deployed_s = time.monotonic() - began
    stage.out.print("Alarms as the control room hears them (its certificate may hear turbines/# and nothing else):")
    heard_at = []
    for message in _alarms(stage, listener):
        heard_at.append(message.received_at)
        alarm = json.loads(message.payload)
        low = (
            f"{alarm['power_kw']:.0f} kW instead of {alarm['expected_kw']:.0f} kW at {alarm['wind_speed_m_s']:.1f} m/s"
        )
        stage.out.print(f"  {message.topic}  {alarm['started']}  {alarm['minutes']} min: {low}")
        if len(heard_at) == _ALARMS_SHOWN:
            break
    stage.verb("get", "devices", "--root", str(stage.cloud))
    stage.verb("get", "components", "--device", DEVICES[0], "--root", str(stage.cloud))
    return [
        ("3 components on 2 devices until SUCCEEDED", f"{deployed_s:.2f} s"),
        ("first alarm heard after the deployment began", f"{min(heard_at) - began_at:.2f} s"),
    ]


def change_the_model(stage: demo_stage.Stage) -> Figures:
    """5: only the model; nobody restarts, no prediction fails."""
    before = {thing: _facts(stage, thing) for thing in DEVICES}
    began = time.monotonic()
    _deploy(stage, f"{MODEL}=1.1.0")
    took_s = time.monotonic() - began
    for thing in DEVICES:
        _wait_facts(stage, thing, "a prediction of 1.1.0", lambda facts: facts["model_version"] == "1.1.0")
    after = {thing: _facts(stage, thing) for thing in DEVICES}
    total = 0
    for thing in DEVICES:
        total += _compare(stage.out, thing, before[thing], after[thing])
    slowest_ms = max(facts["slowest_answer_ms"] for facts in after.values())
    return [
        ("model 1.0.0 -> 1.1.0 until SUCCEEDED", f"{took_s:.2f} s, nobody restarted"),
        ("predictions meanwhile", f"{total:,}, 0 failed, slowest {slowest_ms:.0f} ms"),
    ]


def refuse_a_damaged_model(stage: demo_stage.Stage) -> Figures:
    """6: right digest, damaged weights; refused by the agent, rolled back on both devices."""
    before = {thing: _facts(stage, thing) for thing in DEVICES}
    began = time.monotonic()
    _deploy(stage, f"{MODEL}=1.2.0", expect=exits.ROLLED_BACK)
    took_s = time.monotonic() - began
    total = 0
    for thing in DEVICES:
        counted = before[thing]["predictions_ok"]
        facts = _wait_facts(stage, thing, "further predictions", _more_than(counted))
        _require("1.2.0" not in facts["model_versions"], f"the damaged model answered on {thing}")
        total += _compare(stage.out, thing, before[thing], facts)
    return [
        ("damaged 1.2.0 until refused and rolled back", f"{took_s:.2f} s"),
        ("predictions meanwhile", f"{total:,}, 0 failed, all by 1.1.0"),
    ]


def look_at_the_stream(stage: demo_stage.Stage) -> Figures:
    """7: what the agents kept of the requests, and how a fortnight of them compares with what the model learned from."""

    def observed(thing: str) -> dict[str, Any]:
        asked = {"op": "observed", "alias": _ALIAS}
        found: dict[str, Any] = models.answer(stage.device(thing), asked).get("observed", {})
        return found if found.get("captures", {}).get("kept") and found.get("drift", {}).get("windows") else {}

    seen = {
        thing: stage.wait(f"captures and a window on {thing}", functools.partial(observed, thing), 20)
        for thing in DEVICES
    }
    stage.verb("model", "status", _ALIAS, "--root", str(stage.device(DEVICES[0])))
    kept = ", ".join(f"{thing} {one['captures']['kept']}" for thing, one in seen.items())
    stable = ", ".join(f"{thing} {_drift(one['drift'])}" for thing, one in seen.items())
    return [("requests kept as captures, 1 of 50", kept), ("fortnights of the stream that drifted", stable)]


def kill_a_nucleus(stage: demo_stage.Stage) -> Figures:
    """8: the monitor 1.1.0 from the last good revision; one nucleus dies between IN_PROGRESS and activation."""
    thing = DEVICES[1]
    device = stage.device(thing)
    fault = device / "fault"  # nucleus/ARCHITECTURE.md, Faults on purpose
    fault.write_text(f"pause-before-activation:{_PAUSE_S}")
    began = time.monotonic()
    _deploy(stage, f"{MONITOR}=1.1.0", "--from-last-good", "--no-wait")
    session = stage.session()
    deployment_id = _newest(session.client("greengrassv2"))

    def in_progress() -> bool:
        devices = following.read(session, deployment_id).devices
        return any(one.thing == thing and one.status == "IN_PROGRESS" for one in devices)

    stage.wait(f"IN_PROGRESS of {thing}", in_progress, 30)
    durable = any(path.is_file() for path in (device / "deployments").rglob("*"))
    _require(durable, f"{thing} says IN_PROGRESS without a record on disk")
    _require(_facts(stage, thing)["version"] == "1.0.0", f"{thing} had activated already")
    stage.kill(thing)
    left = sum(demo_stage.trees(device, name) for name in (AGENT, MONITOR))
    stage.out.print(f"kill -9 of the nucleus of {thing}, before activation; {left} component processes outlive it.")
    fault.unlink()
    killed = time.monotonic()
    stage.start(thing, "nucleus", "run", "--root", str(device))
    standing, code = watching.follow(session, deployment_id, stage.out, frozenset({MONITOR}), 60)
    _require(code == exits.OK, f"the deployment ended with {[one.line() for one in standing.devices]}")
    recovered_s = time.monotonic() - killed
    for name in DEVICES:
        _wait_facts(stage, name, "monitor 1.1.0", lambda facts: facts["version"] == "1.1.0")
        counts = {one: demo_stage.trees(stage.device(name), one) for one in (AGENT, MONITOR)}
        stage.out.print(f"  {name}: process trees {counts}")
        _require(set(counts.values()) == {1}, f"{name} has {counts} process trees, wanted one each")
    return [
        ("nucleus restarted after kill -9 until SUCCEEDED", f"{recovered_s:.2f} s"),
        ("that whole deployment, the crash included", f"{time.monotonic() - began:.2f} s"),
        ("process trees of each component afterwards", "1"),
    ]


def weigh(stage: demo_stage.Stage) -> Figures:
    """The memory of the daemons while everything runs."""
    sizes = [demo_stage.pss_mib(stage.pid(thing)) for thing in DEVICES]
    return [("memory of a nucleus (PSS)", ", ".join(f"{size:.1f} MiB" for size in sizes))]


def _components() -> Iterator[tuple[str, str]]:
    yield f"{AGENT}-1.0.0", "model_agent"
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        yield f"{MODEL}-{version}", f"power_curve_model/{version}"
    for version in ("1.0.0", "1.1.0"):
        yield f"{MONITOR}-{version}", f"turbine_monitor/{version}"


def _deploy(stage: demo_stage.Stage, *arguments: str, expect: int = exits.OK) -> None:
    stage.verb("deploy", "-t", GROUP, *arguments, "--root", str(stage.cloud), expect=(expect,))


def _newest(client: Any) -> str:
    return str(client.list_deployments(historyFilter="LATEST_ONLY")["deployments"][0]["deploymentId"])


def _alarms(stage: demo_stage.Stage, listener: listen.Listener) -> Iterator[listen.Message]:
    """Alarms in the order heard; counters, which come on the same filter, are left out."""

    def next_alarm() -> listen.Message | None:
        while True:
            try:
                message = listener.heard.get_nowait()
            except queue.Empty:
                return None
            if message.topic.endswith("/alarms"):
                return message

    while True:
        yield stage.wait("an alarm", next_alarm, 30)


def _facts(stage: demo_stage.Stage, thing: str) -> dict[str, Any]:
    """The monitor's counters with the pids of monitor and agent."""
    device: Path = stage.device(thing)
    counters = stage.wait(f"the monitor's counters on {thing}", lambda: demo_stage.counters(device), 30)
    return {
        **counters,
        "agent_pid": demo_stage.main_pid(device, AGENT),
        "monitor_pid": demo_stage.main_pid(device, MONITOR),
    }


def _wait_facts(
    stage: demo_stage.Stage, thing: str, what: str, wanted: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The facts of a device once they are as wanted."""

    def look() -> dict[str, Any] | None:
        facts = _facts(stage, thing)
        return facts if wanted(facts) else None

    return stage.wait(f"{what} on {thing}", look, 20)


def _drift(found: dict[str, Any]) -> str:
    """One device's windows, and the stability index that is nearest its limit in the last one."""
    worst = f"{found['psiOf']} {found['psi']:.2f} of {found['psiLimit']:.2f}"
    return f"{found['drifted']} of {found['windows']} ({worst})"


def _more_than(counted: int) -> Callable[[dict[str, Any]], bool]:
    return lambda facts: bool(facts["predictions_ok"] > counted)


def _compare(out: console.Console, thing: str, before: dict[str, Any], after: dict[str, Any]) -> int:
    """Tells and checks that nobody restarted and no prediction failed; returns the number of predictions in between."""
    made = int(after["predictions_ok"] - before["predictions_ok"])
    failed = int(after["predictions_failed"] - before["predictions_failed"])
    pids = {name: (before[name], after[name]) for name in ("monitor_pid", "agent_pid")}
    told = ", ".join(f"{name.partition('_')[0]} pid {old} -> {new}" for name, (old, new) in pids.items())
    out.print(
        f"  {thing}: {told}; {made:,} predictions, {failed} failed; model {after['model_version']}", highlight=False
    )
    _require(all(old == new != 0 for old, new in pids.values()), f"a process restarted on {thing}: {told}")
    _require(failed == 0, f"{failed} predictions failed on {thing}")
    _require(made > 0, f"predictions stopped on {thing}")
    return made


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise exits.Failure(f"the demo saw what must not be: {otherwise}")
