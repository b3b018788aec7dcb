"""Health checks, readiness and pauses of real components."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from nucleus.core import document
from nucleus.core.component import Component
from nucleus.core.lifecycle import Effect, State
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.test_supervisor import FOREVER, A, Bench, one

FAST = {"intervalSeconds": 0.1, "timeoutSeconds": 2, "failureThreshold": 2}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "root")


def caring(lifecycle: dict[str, Any], **marram: Any) -> Component:
    return structs.replace(one(A, lifecycle), marram=marram)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def broken_reason(bench: Bench, record: Component) -> str:
    async with bench.running() as running:
        running.adopt(record, Effect.START)
        health = await bench.settled(A, State.BROKEN)
    assert (health.status_code, health.failures) == ("RUN_ERROR", 3)
    return health.reason


async def test_health_when_its_script_fails_then_errored_errored_broken_with_its_words(bench: Bench) -> None:
    check = FAST | {"exec": "echo stuck >&2; exit 4"}

    reason = await broken_reason(bench, caring({"run": FOREVER}, healthCheck=check))

    assert reason == "health check exec failed 2 times in a row: it ended with exit code 4: stuck"
    assert bench.states.count("A ERRORED") == 2


async def test_health_when_its_script_hangs_then_it_is_ended_and_counts(bench: Bench) -> None:
    check = {"intervalSeconds": 0.1, "timeoutSeconds": 0.1, "failureThreshold": 1, "exec": "exec sleep 1000"}

    reason = await broken_reason(bench, caring({"run": FOREVER}, healthCheck=check))

    assert reason == "health check exec failed once: it did not end within 0.1 s"


async def test_health_when_nobody_listens_then_tcp_and_http_say_so(bench: Bench) -> None:
    port = free_port()
    check = FAST | {"tcp": f"127.0.0.1:{port}"}

    reason = await broken_reason(bench, caring({"run": FOREVER}, healthCheck=check))

    assert reason.startswith(f"health check tcp 127.0.0.1:{port} failed 2 times in a row: ")


async def test_health_when_http_answers_an_error_then_the_answer_is_told(bench: Bench) -> None:
    port = free_port()
    run = f"exec {sys.executable} -m http.server --bind 127.0.0.1 {port}"
    check = FAST | {"http": f"http://127.0.0.1:{port}/healthy", "startPeriodSeconds": 60}
    (bench.places.work(A)).mkdir(parents=True)
    (bench.places.work(A) / "healthy").touch()
    async with bench.running() as running:
        running.adopt(
            caring({"run": run}, healthCheck=check, readiness={"http": f"http://127.0.0.1:{port}/"}), Effect.START
        )
        await bench.settled(A, State.RUNNING)
        await said(bench, '"GET /healthy HTTP/1.1" 200')
        (bench.places.work(A) / "healthy").unlink()
        health = await bench.until(A, lambda found: found.failures == 1)

    assert "it answered 404 File not found" in bench.log()
    assert health.failures == 1


async def test_health_when_the_heartbeat_stops_then_errored_and_while_it_beats_not(bench: Bench) -> None:
    check = {"heartbeat": True, "intervalSeconds": 0.3, "failureThreshold": 1}
    async with bench.running() as running:
        running.adopt(caring({"run": FOREVER}, healthCheck=check), Effect.START)
        await bench.settled(A, State.RUNNING)
        for _ in range(12):
            running.report(A, "RUNNING")
            await asyncio.sleep(0.05)
        assert "A ERRORED" not in bench.states
        await bench.until(A, lambda found: found.failures == 1)

    assert "health check heartbeat failed once: no UpdateState RUNNING for" in bench.log()
    assert "component.event_ignored" not in bench.log()


async def test_health_when_its_record_changes_then_the_new_check_counts_at_once(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(caring({"run": FOREVER}, healthCheck=FAST | {"exec": "true"}), Effect.START)
        (pid,) = (await bench.until(A, lambda found: found.settled and len(found.pids) == 1)).pids
        running.adopt(caring({"run": FOREVER}, healthCheck=FAST | {"exec": "exit 3"}), Effect.KEEP)
        await bench.until(A, lambda found: found.failures == 1)

    assert pid
    assert "it ended with exit code 3" in bench.log()


async def test_readiness_when_slow_then_starting_until_the_check_succeeds(bench: Bench) -> None:
    ready = {"exec": "test -e go", "intervalSeconds": 0.1}
    async with bench.running() as running:
        running.adopt(caring({"run": FOREVER}, readiness=ready), Effect.START)
        health = await bench.until(A, lambda found: "readiness check exec" in found.waiting_for)
        assert health.state is State.STARTING
        (bench.places.work(A) / "go").touch()
        await bench.settled(A, State.RUNNING)


@pytest.mark.parametrize(("phase", "code"), [("run", "RUN_TIMEOUT"), ("startup", "STARTUP_TIMEOUT")])
async def test_readiness_when_it_never_comes_then_timeout(bench: Bench, phase: str, code: str) -> None:
    ready = {"exec": "exit 1", "intervalSeconds": 0.1, "deadlineSeconds": 0.3}
    script = FOREVER if phase == "run" else "true"
    async with bench.running() as running:
        running.adopt(caring({phase: script}, readiness=ready), Effect.START)
        health = await bench.settled(A, State.BROKEN)

    assert health.status_code == code
    assert "readiness check exec had no success within 0.3 s: it ended with exit code 1" in health.reason


async def test_readiness_when_run_ends_well_before_then_finished(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(caring({"run": "true"}, readiness={"exec": "exit 1"}), Effect.START)
        await bench.settled(A, State.FINISHED)


async def test_restart_policy_when_it_fails_then_it_pauses_and_may_fail_more_often(bench: Bench) -> None:
    policy = {"backoffSeconds": 0.2, "maxBackoffSeconds": 0.3, "maxFailures": 5}
    async with bench.running() as running:
        running.adopt(caring({"run": "exit 1"}, restartPolicy=policy), Effect.START)
        await bench.until(A, lambda found: found.waiting_for.startswith("a pause of"))
        health = await bench.settled(A, State.BROKEN)

    assert health.failures == 5
    assert bench.states.count("A ERRORED") == 4


async def test_restart_policy_when_stopped_in_the_pause_then_it_stops_and_starts_nothing(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(caring({"run": "echo >> runs; exit 1"}, restartPolicy={"backoffSeconds": 100}), Effect.START)
        await bench.until(A, lambda found: found.waiting_for.startswith("a pause of"))
        running.stop_component(A)
        await bench.settled(A, State.FINISHED)

    assert bench.work(A, "runs") == "\n"


async def test_deploy_when_unhealthy_in_the_watch_window_then_rolled_back_and_the_check_is_named(
    tmp_path: Path,
) -> None:
    device = devices.Device(tmp_path / "root")
    settings = {"marram": {"healthCheck": FAST | {"exec": "exit 5"}}}
    device.publish(
        devices.recipe(A, "1.0.0", {"Run": FOREVER}),
        devices.recipe(A, "2.0.0", {"Run": FOREVER}, ComponentConfiguration={"DefaultConfiguration": settings}),
    )
    async with device.running():
        assert (await device.deploy({A: "1.0.0"})).status == "SUCCEEDED"
        result = await device.deploy({A: "2.0.0"}, watch_s=-1.0)
        assert device.supervisor.health()[A].version == "1.0.0"

    assert result.detailed == "FAILED_ROLLBACK_COMPLETE"
    assert "health check exec failed 2 times in a row" in result.cause


async def test_deploy_when_its_check_cannot_be_read_then_refused_and_the_key_is_named(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(devices.recipe(A, "1.0.0", {"Run": FOREVER}))
    async with device.running():
        merge = {"marram": {"healthCheck": {"tcp": "nowhere"}}}
        result = await device.deploy({A: document.Wish(version="1.0.0", merge=merge)})

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert result.stack[-1] == "COMPONENT_CONFIGURATION_NOT_VALID"
    assert "marram.healthCheck.tcp" in result.cause


async def said(bench: Bench, text: str) -> None:
    """Waits until the component has printed a text."""
    path = bench.places.logs / f"{A}.log"
    async with asyncio.timeout(20):
        while not path.exists() or text not in path.read_text():  # noqa: ASYNC110  a file tells nobody
            await asyncio.sleep(0.02)
