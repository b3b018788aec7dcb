"""Updates beside the old version: real processes of both, and what becomes of them and of those that need them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from nucleus.core.component import HARD, Component
from nucleus.core.lifecycle import Effect, Health, State
from nucleus.host import confine, logs, process
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.test_supervisor import FOREVER, A, B, Bench, exists, on_a, one

ASKED = {"update": {"overlap": True}}
WAITS = "echo $$ > {0}.pid; until test -e {0}.go; do sleep 0.02; done"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "root")


def version(text: str, startup: str = FOREVER, **lifecycle: Any) -> Component:
    return structs.replace(one(A, {"startup": startup, **lifecycle}, text), marram=ASKED)


async def begun(bench: Bench, first: Component) -> Health:
    """The first version, RUNNING by its own word."""
    bench.supervisor.adopt(first, Effect.START)
    await bench.until(A, lambda health: health.state is State.STARTING and bool(health.pids))
    bench.supervisor.report(A, "RUNNING")
    return await bench.settled(A, State.RUNNING)


async def beside(bench: Bench, second: Component) -> tuple[int, Health]:
    """Begins the update; returns when the second one's script runs."""
    generation = bench.supervisor.adopt(second, Effect.OVERLAP)
    health = await bench.until(A, lambda seen: len(seen.pids) == 2 and ": Startup script" in seen.waiting_for)
    assert health.generation == generation
    return generation, health


async def test_overlap_when_the_new_one_reports_running_then_the_old_is_stopped_with_its_own_shutdown(
    bench: Bench,
) -> None:
    async with bench.running() as running:
        old = await begun(bench, version("1.0.0", shutdown="echo 1.0.0 >> stopped"))
        token = running.token(A)
        generation, both = await beside(
            bench, version("1.0.1", install="echo 1.0.1 >> installed", shutdown="echo no >> stopped")
        )
        assert (both.state, both.settled, both.version) == (State.RUNNING, False, "1.0.1")
        assert "version 1.0.1 beside the old one: Startup script" in both.waiting_for
        assert exists(old.pids[0])
        with pytest.raises(confine.Unavailable):
            await running.pause(A)
        assert running.carry() is None
        running.report(A, "RUNNING")
        after = await bench.settled(A, State.RUNNING, generation)

        carried = running.carry()
        assert carried is not None
        assert [each.process_name for each in carried.runners] == [f"{A}~"]
        assert after.pids == (both.pids[1],)
        assert not exists(old.pids[0])
        assert exists(after.pids[0])
        assert running.token(A) == token
        assert bench.work(A, "stopped") == "1.0.0\n"
        assert bench.work(A, "installed") == "1.0.1\n"
        assert "A STOPPING" not in bench.states
    assert not exists(after.pids[0])
    assert list(bench.places.processes.iterdir()) == []


async def test_overlap_when_it_is_done_again_and_again_then_one_process_is_left_each_time(bench: Bench) -> None:
    async with bench.running() as running:
        seen = [(await begun(bench, version("1.0.0"))).pids[0]]
        for number in range(1, 4):
            generation, _ = await beside(bench, version(f"1.0.{number}"))
            running.report(A, "RUNNING")
            seen.append((await bench.settled(A, State.RUNNING, generation)).pids[0])
            assert [exists(pid) for pid in seen] == [False] * number + [True]


async def test_overlap_when_the_processes_are_daemons_then_only_the_old_ones_are_ended(bench: Bench) -> None:
    daemon = "setsid sleep 1000 >/dev/null 2>&1 & echo $! > {}.pid"
    async with bench.running() as running:
        running.adopt(version("1.0.0", daemon.format("old")), Effect.START)
        await bench.settled(A, State.RUNNING)
        generation = running.adopt(version("1.0.1", daemon.format("new")), Effect.OVERLAP)
        await bench.settled(A, State.RUNNING, generation)

        assert not exists(int(bench.work(A, "old.pid")))
        assert exists(int(bench.work(A, "new.pid")))


async def test_overlap_when_the_new_one_fails_for_good_then_broken_while_the_old_one_lives_and_the_way_back_keeps_it(
    bench: Bench,
) -> None:
    first = version("1.0.0")
    async with bench.running() as running:
        old = await begun(bench, first)
        generation = running.adopt(version("1.0.1", "echo no >&2; exit 3"), Effect.OVERLAP)
        broken = await bench.until(A, lambda health: health.state is State.BROKEN and health.settled)
        assert (broken.generation, broken.failures, broken.pids) == (generation, 3, old.pids)
        assert broken.reason == "Startup script ended with exit code 3: no (the version before it still runs)"

        back = running.adopt(first, Effect.REINSTALL)
        health = await bench.settled(A, State.RUNNING, back)

        assert health.pids == old.pids
        assert (health.version, health.status_code) == ("1.0.0", "NONE")
    assert bench.states.count("A STARTING") == 1


async def test_overlap_when_the_new_one_has_failed_then_the_old_one_serves_who_starts_and_the_next_version_comes_beside(
    bench: Bench,
) -> None:
    async with bench.running() as running:
        old = await begun(bench, version("1.0.0"))
        running.adopt(version("1.0.1", "sleep 0.1; exit 3"), Effect.OVERLAP)
        running.adopt(on_a(B, {"run": FOREVER}), Effect.START)
        await bench.until(A, lambda health: health.state is State.BROKEN and health.settled)
        served = await bench.settled(B, State.RUNNING)

        generation, both = await beside(bench, version("1.0.2"))
        assert both.pids[0] == old.pids[0]
        assert both.state is State.RUNNING
        running.report(A, "RUNNING")
        health = await bench.settled(A, State.RUNNING, generation)

        assert (health.version, health.pids) == ("1.0.2", both.pids[1:])
        assert running.health()[B].pids == served.pids


async def test_overlap_when_the_component_is_broken_as_a_whole_then_it_is_installed_anew(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(version("1.0.0", "exit 3"), Effect.START)
        await bench.settled(A, State.BROKEN)
        generation = running.adopt(version("1.0.1", "true"), Effect.OVERLAP)
        assert (await bench.settled(A, State.RUNNING, generation)).version == "1.0.1"


async def test_overlap_when_taken_back_under_way_then_the_new_one_is_ended_and_the_old_one_stays(bench: Bench) -> None:
    first = version("1.0.0")
    async with bench.running() as running:
        old = await begun(bench, first)
        _, both = await beside(bench, version("1.0.1"))

        back = running.adopt(first, Effect.OVERLAP)
        health = await bench.settled(A, State.RUNNING, back)

        assert health.pids == old.pids
        assert not exists(both.pids[1])


async def test_overlap_when_the_old_one_dies_meanwhile_then_the_new_one_is_the_component(bench: Bench) -> None:
    async with bench.running() as running:
        await begun(bench, version("1.0.0", "echo $$ > old.pid; until test -e die; do sleep 0.02; done; exit 5"))
        generation, both = await beside(bench, version("1.0.1"))
        (bench.places.work(A) / "die").touch()
        await bench.state(A, State.STARTING)
        running.report(A, "RUNNING")
        health = await bench.settled(A, State.RUNNING, generation)

        assert health.pids == (both.pids[1],)
        assert health.failures == 0


async def test_overlap_when_the_old_one_ends_well_then_the_new_one_goes_on(bench: Bench) -> None:
    async with bench.running() as running:
        await begun(bench, version("1.0.0", WAITS.format("old")))
        generation, both = await beside(bench, version("1.0.1"))
        (bench.places.work(A) / "old.go").touch()
        await bench.until(A, lambda health: health.pids == (both.pids[1],))
        running.report(A, "RUNNING")
        assert (await bench.settled(A, State.RUNNING, generation)).pids == (both.pids[1],)


@pytest.mark.parametrize("what", ["stop", "restart", "remove", "stop all"])
async def test_overlap_when_something_else_is_asked_for_meanwhile_then_that_holds_and_nothing_is_left(
    bench: Bench, what: str
) -> None:
    async with bench.running() as running:
        old = await begun(bench, version("1.0.0"))
        generation, both = await beside(bench, version("1.0.1", f"echo once >> starts; {FOREVER}"))
        if what == "stop":
            assert running.stop_component(A)
            await bench.settled(A, State.FINISHED, generation)
        elif what == "restart":
            assert running.restart(A)
            again = await bench.until(A, lambda health: health.state is State.STARTING and bool(health.pids))
            assert not set(again.pids) & set(both.pids)
            running.report(A, "RUNNING")
            assert (await bench.settled(A, State.RUNNING, generation)).version == "1.0.1"
        elif what == "remove":
            running.remove(A)
            await bench.gone(A)
    assert not any(exists(pid) for pid in (*old.pids, *both.pids))


async def test_overlap_when_another_version_comes_meanwhile_then_it_starts_when_both_have_ended(bench: Bench) -> None:
    async with bench.running() as running:
        await begun(bench, version("1.0.0"))
        _, both = await beside(bench, version("1.0.1", f"trap 'sleep 0.5; exit' TERM; {FOREVER[5:]} & wait"))
        generation = running.adopt(version("1.0.2"), Effect.OVERLAP)
        await bench.until(A, lambda health: health.state is State.STARTING and bool(health.pids))
        assert not any(exists(pid) for pid in both.pids)
        running.report(A, "RUNNING")
        assert (await bench.settled(A, State.RUNNING, generation)).version == "1.0.2"


async def test_dependents_when_updated_beside_then_who_runs_stays_and_who_starts_waits(bench: Bench) -> None:
    async with bench.running() as running:
        await begun(bench, version("1.0.0"))
        running.adopt(on_a(B, {"run": FOREVER}), Effect.START)
        stayed = await bench.settled(B, State.RUNNING)
        generation, _ = await beside(bench, version("1.0.1"))
        late = "com.example.Late"
        running.adopt(on_a(late, {"run": FOREVER}), Effect.START)
        waits = await bench.state(late, State.INSTALLED)
        assert "com.example.A (an update beside the old version)" in waits.waiting_for
        running.restart(B)
        await bench.until(B, lambda health: health.state is State.INSTALLED)
        running.report(A, "RUNNING")
        await bench.settled(A, State.RUNNING, generation)
        await bench.settled(late, State.RUNNING)
        again = await bench.settled(B, State.RUNNING)
        assert again.pids != stayed.pids


async def test_dependents_when_updated_beside_and_nothing_else_then_their_processes_stay(bench: Bench) -> None:
    async with bench.running() as running:
        await begun(bench, version("1.0.0"))
        running.adopt(on_a(B, {"run": FOREVER}), Effect.START)
        stayed = await bench.settled(B, State.RUNNING)
        generation, _ = await beside(bench, version("1.0.1"))
        running.report(A, "RUNNING")
        await bench.settled(A, State.RUNNING, generation)
        await asyncio.sleep(0)
        assert running.health()[B].pids == stayed.pids
        assert bench.states.count("B STARTING") == 1


async def test_survivors_when_the_nucleus_is_killed_in_the_middle_then_both_are_ended(bench: Bench) -> None:
    async with bench.running():
        await begun(bench, version("1.0.0"))
        _, both = await beside(bench, version("1.0.1"))
        # What the next launch does; this one's supervisor only sees its processes die.
        ended = await asyncio.to_thread(process.end_survivors, bench.places.processes, logs.Log("test"))

        assert ended == 2
        assert not any(exists(pid) for pid in both.pids)


# ---- through a deployment --------------------------------------------------------------------------------------------


def recipe(text: str, startup: str, **more: Any) -> dict[str, Any]:
    return devices.recipe(
        A, text, {"Startup": startup}, ComponentConfiguration={"DefaultConfiguration": {"marram": ASKED}}, **more
    )


async def test_deployment_when_the_new_version_fails_beside_the_old_then_rolled_back_without_touching_it(
    tmp_path: Path,
) -> None:
    device = devices.Device(tmp_path / "root")
    needs = devices.recipe(
        B, "1.0.0", {"Run": FOREVER}, ComponentDependencies={A: {"VersionRequirement": "*", "DependencyType": HARD}}
    )
    daemon = "sleep 1000 >/dev/null 2>&1 & echo $! >> pids"
    device.publish(recipe("1.0.0", daemon), recipe("1.0.1", "echo worse >&2; exit 1"), recipe("1.0.2", daemon), needs)
    async with device.running():
        assert (await device.deploy({A: "1.0.0", B: "1.0.0"})).status == "SUCCEEDED"
        pids = device.supervisor.health()[B].pids

        failed = await device.deploy({A: "1.0.1", B: "1.0.0"})

        assert failed.detailed == "FAILED_ROLLBACK_COMPLETE"
        assert (
            "com.example.A 1.0.1 is BROKEN: STARTUP_ERROR Startup script ended with exit code 1: worse" in failed.cause
        )
        (first,) = (device.places.work(A) / "pids").read_text().split()
        assert exists(int(first))
        assert device.supervisor.health()[A].version == "1.0.0"

        assert (await device.deploy({A: "1.0.2", B: "1.0.0"})).status == "SUCCEEDED"

        _, second = (device.places.work(A) / "pids").read_text().split()
        assert (exists(int(first)), exists(int(second))) == (False, True)
        assert device.supervisor.health()[B].pids == pids


@pytest.mark.parametrize("asks", [True, False], ids=["opted in", "not"])
async def test_deployment_when_a_dependents_script_names_the_updated_component_then_it_follows_beside_if_it_asks_to(
    tmp_path: Path, asks: bool
) -> None:
    """The model agent, a model whose script lies in the agent's artifacts, and an application that cannot run without it."""
    device = devices.Device(tmp_path / "root")
    model, hard = "com.example.Model", {"VersionRequirement": "*", "DependencyType": HARD}
    daemon = "sleep 1000 >/dev/null 2>&1 & echo $! >> pids"
    device.publish(
        recipe("1.0.0", daemon),
        recipe("1.0.1", f"sleep 0.2; {daemon}"),
        devices.recipe(
            model,
            "1.0.0",
            {"Startup": f"echo {{{A}:artifacts:path}} >> offered", "Shutdown": "echo released >> offered"},
            ComponentConfiguration={"DefaultConfiguration": {"marram": ASKED if asks else {}}},
            ComponentDependencies={A: hard},
        ),
        devices.recipe(B, "1.0.0", {"Run": FOREVER}, ComponentDependencies={model: hard}),
    )
    async with device.running():
        assert (await device.deploy({A: "1.0.0", B: "1.0.0", model: "1.0.0"})).status == "SUCCEEDED"
        pids = device.supervisor.health()[B].pids

        assert (await device.deploy({A: "1.0.1", B: "1.0.0", model: "1.0.0"})).status == "SUCCEEDED"

        lines = (device.places.work(model) / "offered").read_text().split()
        order = ["1.0.0", "1.0.1", "released"] if asks else ["1.0.0", "released", "1.0.1"]
        assert [Path(line).name for line in lines] == order
        assert (device.supervisor.health()[B].pids == pids) is asks
