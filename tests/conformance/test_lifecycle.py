"""Behaviours 13.1 of the specification: what becomes of a component's processes, with real scripts."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from nucleus.actors import bootstrap_step
from nucleus.core import configuration, desired, document, errors, run_as
from nucleus.core.component import HARD, SOFT, Component, RunWith
from nucleus.core.lifecycle import Effect, State
from nucleus.host import confine, process
from nucleus.store import configuration as configuration_store
from tests.conformance import daemon
from tests.nucleus.actors import device as devices
from tests.nucleus.actors import test_supervisor as supervision
from tests.nucleus.actors.device import recipe

A, B, C = "com.example.A", "com.example.B", "com.example.C"
FOREVER = "exec sleep 1000"
STAYS = {"Run": FOREVER}


@pytest.fixture
def bench(tmp_path: Path) -> supervision.Bench:
    return supervision.Bench(tmp_path / "root")


@pytest.fixture
def device(tmp_path: Path) -> devices.Device:
    return devices.Device(tmp_path / "root")


def one(name: str, lifecycle: dict[str, Any], version: str = "1.0.0", **kinds: str) -> Component:
    """A component; `A=HARD` makes it depend on com.example.A."""
    dependencies = {f"com.example.{letter}": kind for letter, kind in kinds.items()}
    return Component(name=name, version=version, lifecycle=lifecycle, dependencies=dependencies)


def needs(**kinds: str) -> dict[str, Any]:
    return {
        "ComponentDependencies": {
            f"com.example.{letter}": {"VersionRequirement": "*", "DependencyType": kind}
            for letter, kind in kinds.items()
        }
    }


def errors_of(bench: supervision.Bench) -> list[str]:
    return [state for state in bench.states if state in ("A ERRORED", "A BROKEN")]


async def test_01_start_when_a_hard_dependency_starts_slowly_then_the_dependent_stays_installed_until_it_runs(
    bench: supervision.Bench,
) -> None:
    async with bench.running() as running:
        running.adopt(one(B, {"run": FOREVER}, A=HARD), Effect.START)
        running.adopt(one(A, {"startup": "while ! test -e ../../go; do sleep 0.02; done"}), Effect.START)
        await bench.state(A, State.STARTING)
        await bench.state(B, State.INSTALLED)
        (bench.places.root / "go").touch()
        await bench.settled(B, State.RUNNING)

    assert bench.states.index("A RUNNING") < bench.states.index("B STARTING")


async def test_02_deploy_when_a_hard_dependency_is_dropped_then_the_dependent_runs_on_and_the_dependency_is_gone(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", STAYS, **needs(A=HARD)), recipe(C, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({B: "1.0.0"})
        before = device.supervisor.health()
        # The same version without the dependency, as a local author may give it.
        device.publish(recipe(B, "1.0.0", STAYS))
        result = await device.deploy({B: "1.0.0"})

        assert result.status == "SUCCEEDED"
        assert set(device.supervisor.health()) == {B}
        assert device.supervisor.health()[B].pids == before[B].pids
    assert not supervision.exists(before[A].pids[0])


@pytest.mark.parametrize("kind", [HARD, SOFT])
async def test_03_deploy_when_a_dependency_is_added_then_the_dependent_restarts(
    device: devices.Device, kind: str
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({B: "1.0.0"})
        before = device.supervisor.health()[B].pids
        device.publish(recipe(B, "1.0.0", STAYS, **needs(A=kind)))
        await device.deploy({B: "1.0.0"})

        assert device.supervisor.health()[A].state is State.RUNNING
        assert device.supervisor.health()[B].pids not in ((), before)


async def _dependency_moves(bench: supervision.Bench, kind: str, event: str) -> bool:
    """A is made to restart, reinstall, fail or stop; whether its dependent B got new processes."""
    first = one(A, {"run": FOREVER})
    async with bench.running() as running:
        running.adopt(first, Effect.START)
        running.adopt(one(B, {"run": FOREVER}, A=kind), Effect.START)
        before = {name: (await bench.settled(name, State.RUNNING)).pids for name in (A, B)}
        if event == "restarted":
            running.restart(A)
        elif event == "reinstalled":
            running.adopt(first, Effect.REINSTALL)
        elif event == "stopped":
            running.stop_component(A)
            await bench.settled(A, State.FINISHED)
        elif event == "removed":
            running.adopt(one(B, {"run": FOREVER}), Effect.KEEP)
            running.remove(A)
            await bench.gone(A)
        else:
            os.kill(before[A][0], 9)
        if event not in ("stopped", "removed"):
            await bench.until(A, lambda health: health.settled and health.pids not in ((), before[A]))
        health = await bench.settled(B, State.RUNNING)
        return health.pids != before[B]


@pytest.mark.parametrize(
    ("event", "restarts"), [("errored", True), ("restarted", True), ("reinstalled", True), ("stopped", False)]
)
async def test_04_hard_dependency_when_it_moves_then_the_dependent_restarts_unless_it_was_only_stopped(
    bench: supervision.Bench, event: str, restarts: bool
) -> None:
    assert await _dependency_moves(bench, HARD, event) is restarts


@pytest.mark.parametrize("event", ["errored", "restarted", "reinstalled", "stopped", "removed"])
async def test_05_soft_dependency_when_it_moves_then_the_dependent_is_untouched(
    bench: supervision.Bench, event: str
) -> None:
    assert not await _dependency_moves(bench, SOFT, event)


async def test_06_deploy_when_only_the_type_of_a_dependency_changes_then_nothing_restarts(
    device: devices.Device,
) -> None:
    device.publish(recipe(A, "1.0.0", STAYS), recipe(B, "1.0.0", STAYS, **needs(A=HARD)))
    async with device.running():
        await device.deploy({B: "1.0.0"})
        before = {name: health.pids for name, health in device.supervisor.health().items()}
        for kind in (SOFT, HARD):
            device.publish(recipe(B, "1.0.0", STAYS, **needs(A=kind)))
            await device.deploy({B: "1.0.0"})
            installed = desired.installed(device.configuration.tree)

            assert installed[B].dependencies == {A: kind}
            assert {name: health.pids for name, health in device.supervisor.health().items()} == before


async def test_07_nucleus_stops_when_there_are_dependents_then_they_close_first_and_errors_restart_nobody(
    bench: supervision.Bench,
) -> None:
    down = {"Script": "echo A >> ../order; exit 1"}
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER, "shutdown": down}), Effect.START)
        running.adopt(
            one(B, {"run": f"echo up >> ups; {FOREVER}", "shutdown": "sleep 0.1; echo B >> ../order"}, A=HARD),
            Effect.START,
        )
        await bench.settled(B, State.RUNNING)

    assert (bench.places.root / "work" / "order").read_text().split() == ["B", "A"]
    assert "A ERRORED" in bench.states
    assert bench.work(B, "ups") == "up\n"


@pytest.mark.parametrize("phase", ["install", "startup", "run"])
async def test_08_skipif_when_it_is_broken_then_config_not_valid_and_when_true_then_skipped(
    bench: supervision.Bench, phase: str
) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {phase: {"Script": "true", "Skipif": "perhaps"}}), Effect.START)
        health = await bench.settled(A, State.BROKEN)
        assert health.status_code == f"{phase.upper()}_CONFIG_NOT_VALID"

        skipped = {phase: {"Script": "touch ran; exit 1", "Skipif": "onpath sh"}}
        generation = running.adopt(one(A, skipped, version="1.0.1"), Effect.REINSTALL)
        await bench.settled(A, State.FINISHED, generation)

    assert not (bench.places.work(A) / "ran").exists()


@pytest.mark.parametrize("phase", ["startup", "run"])
async def test_09_script_when_longer_than_its_timeout_then_errored_with_the_timeout_code(
    bench: supervision.Bench, phase: str
) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {phase: {"Script": FOREVER, "Timeout": 0.1}}), Effect.START)
        health = await bench.until(A, lambda health: health.failures > 0)

    assert health.status_code == f"{phase.upper()}_TIMEOUT"
    assert "A ERRORED" in bench.states


async def test_10_recover_when_it_repairs_then_running_and_when_it_cannot_then_errored_errored_broken(
    bench: supervision.Bench,
) -> None:
    repaired = {"run": f"test -e repaired || exit 1; {FOREVER}", "recover": "touch repaired"}
    async with bench.running() as running:
        running.adopt(one(A, repaired), Effect.START)
        await bench.until(A, lambda health: health.failures == 1 and health.state is State.RUNNING)
        bench.states.clear()

        generation = running.adopt(one(A, {"run": "exit 1", "recover": "true"}, "2.0.0"), Effect.REINSTALL)
        await bench.settled(A, State.BROKEN, generation)
        assert errors_of(bench) == ["A ERRORED", "A ERRORED", "A BROKEN"]
        bench.states.clear()

        hangs = {"run": "exit 1", "recover": {"Script": FOREVER, "Timeout": 0.05}}
        generation = running.adopt(one(A, hangs, "3.0.0"), Effect.REINSTALL)
        await bench.settled(A, State.BROKEN, generation)
        assert errors_of(bench) == ["A ERRORED", "A ERRORED", "A BROKEN"]


async def test_11_shutdown_when_longer_than_its_timeout_then_the_component_still_closes(
    bench: supervision.Bench,
) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER, "shutdown": {"Script": FOREVER, "Timeout": 0.1}}), Effect.START)
        pids = (await bench.settled(A, State.RUNNING)).pids
        running.stop_component(A)
        await bench.settled(A, State.FINISHED)

        assert not supervision.exists(pids[0])


async def test_12_deploy_when_only_configuration_changes_then_no_restart(device: devices.Device) -> None:
    device.publish(recipe(A, "1.0.0", STAYS))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        before = device.supervisor.health()[A].pids
        await device.deploy({A: document.Wish(version="1.0.0", merge={"speed": 7})})

        assert device.supervisor.health()[A].pids == before
        assert device.configuration.component(A) == {"speed": 7}


BASE = {"Install": "echo install >> ../seen", "Run": FOREVER, "Shutdown": "echo old shutdown >> ../seen"}


@pytest.mark.parametrize(
    ("change", "version", "expected"),
    [
        ({"Install": "echo install again >> ../seen"}, "1.0.0", ["install", "old shutdown", "install again"]),
        ({"Shutdown": "true"}, "2.0.0", ["install", "old shutdown", "install"]),
        ({"Run": "exec sleep 1001"}, "1.0.0", ["install", "old shutdown"]),
        ({"Setenv": {"MODE": "fast"}}, "1.0.0", ["install", "old shutdown"]),
    ],
    ids=["install", "version", "run", "setenv"],
)
async def test_13_deploy_when_the_lifecycle_changes_then_reinstalled_or_restarted_with_the_old_shutdown(
    device: devices.Device, change: dict[str, Any], version: str, expected: list[str]
) -> None:
    device.publish(recipe(A, "1.0.0", BASE))
    async with device.running():
        await device.deploy({A: "1.0.0"})
        before = device.supervisor.health()[A].pids
        device.publish(recipe(A, version, BASE | change))
        await device.deploy({A: version})

        assert device.supervisor.health()[A].state is State.RUNNING
        assert device.supervisor.health()[A].pids != before
        assert (device.places.root / "work" / "seen").read_text().splitlines() == expected


async def test_14_bootstrap_when_it_ends_then_its_exit_code_and_when_it_does_not_then_a_timeout(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root")
    steps = bootstrap_step.Steps(
        device.places, {"PATH": os.environ["PATH"]}, lambda: run_as.defaults({}, str(os.getuid()))
    )

    assert await steps.run(one(A, {"bootstrap": "exit 147"})) == 147
    with pytest.raises(errors.NucleusError) as caught:
        await steps.run(one(A, {"bootstrap": {"Script": FOREVER, "Timeout": 1}}))
    assert caught.value.code == "COMPONENT_BOOTSTRAP_TIMEOUT"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may switch users")
async def test_15_user_when_a_default_is_set_then_it_runs_as_that_and_when_missing_then_its_own_status_code() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be passed by its owner only
        Path(folder).chmod(0o755)
        bench = supervision.Bench(Path(folder) / "root", user="nobody")
        async with bench.running() as running:
            running.adopt(one(A, {"run": "id -un > who"}), Effect.START)
            await bench.settled(A, State.FINISHED)
            running.set_defaults(run_as.Defaults())
            running.adopt(one(B, {"install": "touch done"}), Effect.START)
            health = await bench.settled(B, State.BROKEN)

        assert bench.work(A, "who") == "nobody\n"
        assert health.status_code == "INSTALL_MISSING_DEFAULT_RUNWITH"


async def test_16_limits_when_they_change_then_applied_live_and_pause_freezes_until_resume(
    bench: supervision.Bench,
) -> None:
    record = structs.replace(one(A, {"run": "while :; do echo >> beats; done"}), run_with=RunWith(memory_kb=200_000))
    async with bench.running() as running:
        running.adopt(record, Effect.START)
        (pid,) = (await bench.settled(A, State.RUNNING)).pids
        if "component.not_limited" in bench.log():
            pytest.skip("no control groups can be written here")
        running.adopt(structs.replace(record, run_with=RunWith(memory_kb=100_000, cpus=0.5)), Effect.KEEP)
        await bench.until(A, lambda health: health.generation == 2)
        assert (await bench.settled(A, State.RUNNING)).pids == (pid,)
        assert _memory_limit(bench) == 100_000 * 1024

        await running.pause(A)
        size = (bench.places.work(A) / "beats").stat().st_size
        assert (bench.places.work(A) / "beats").stat().st_size == size
        await running.resume(A)
        async with asyncio.timeout(10):
            while (bench.places.work(A) / "beats").stat().st_size == size:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
        await running.pause(A)  # and what is frozen can still be ended

    assert bench.supervisor.health()[A].state is State.FINISHED


def _memory_limit(bench: supervision.Bench) -> int:
    group = confine.parent(process.owner(bench.places.processes))
    places = (confine.ROOT / "memory" / group / A / "memory.limit_in_bytes", confine.ROOT / group / A / "memory.max")
    return next(int(path.read_text()) for path in places if path.exists())


async def test_17_health_when_errored_and_when_broken_then_code_and_reason_are_kept(bench: supervision.Bench) -> None:
    async with bench.running() as running:
        script = "test -e twice && exit 3; test -e once && touch twice; touch once; echo first >&2; exit 2"
        running.adopt(one(A, {"run": script, "recover": "sleep 0.1"}), Effect.START)
        errored = await bench.state(A, State.ERRORED)
        broken = await bench.settled(A, State.BROKEN)

    assert (errored.status_code, errored.reason) == ("RUN_ERROR", "Run script ended with exit code 2: first")
    assert (broken.status_code, broken.reason) == ("RUN_ERROR", "Run script ended with exit code 3")


@pytest.mark.parametrize("phase", ["install", "startup"])
async def test_18_script_when_it_always_fails_then_broken_and_once_then_running_and_fixed_then_running(
    bench: supervision.Bench, phase: str
) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {phase: "test -e tried || { touch tried; exit 1; }", "run": FOREVER}), Effect.START)
        await bench.until(A, lambda health: health.failures == 1 and health.state is State.RUNNING)

        running.adopt(one(B, {phase: "exit 1"}), Effect.START)
        await bench.settled(B, State.BROKEN)
        generation = running.adopt(one(B, {phase: "true", "run": FOREVER}, "1.0.1"), Effect.REINSTALL)
        await bench.settled(B, State.RUNNING, generation)


async def test_20_restart_when_in_the_same_root_then_components_and_configuration_are_as_before(tmp_path: Path) -> None:
    first = devices.Device(tmp_path / "root")
    first.publish(recipe(A, "1.0.0", STAYS))
    async with first.running():
        await first.deploy({A: document.Wish(version="1.0.0", merge={"speed": 7})})
    first.configuration.close()

    second = devices.Device(tmp_path / "root")
    async with second.running():
        await second.until(A, "RUNNING")
        assert second.configuration.component(A) == {"speed": 7}
    assert second.configuration.tree == first.configuration.tree


def test_20_restart_when_a_configuration_is_given_then_it_replaces_everything(tmp_path: Path) -> None:
    root, given = tmp_path / "root", tmp_path / "given.yaml"
    given.write_text("services: {com.example.Given: {configuration: {speed: 8}}}\n")
    with daemon.running(root, services={}) as device:
        name = device.component(STAYS)
        device.deploy_local({name: "1.0.0"})
        device.until(lambda: device.state(name) == "RUNNING", "the component")
    with daemon.running(root) as device:
        device.until(lambda: device.state(name) == "RUNNING", "the component of before")
    with daemon.running(root, given=given) as device:
        assert device.state(name) == ""
        assert device.pids(name) == []
    store = configuration_store.ConfigurationStore(root / "config")
    store.open()

    assert store.component("com.example.Given") == {"speed": 8}
    assert desired.roots(store.tree) == {}


def test_21_journal_when_written_anew_then_it_replays_to_the_tree_in_memory_and_to_the_whole_history(
    tmp_path: Path,
) -> None:
    stores = [configuration_store.ConfigurationStore(tmp_path / name, clock=lambda: 1.0) for name in ("long", "short")]
    for store in stores:
        store.open()
        for number in range(200):
            path = ("services", A, "configuration", f"key{number % 17}")
            change = configuration.Change(path, number, store.now(), f"component:{A}", removed=number % 5 == 0)
            store.commit((change,))
            if store is stores[1] and number % 50 == 49:
                store.compact()
        store.close()
    again = [configuration_store.ConfigurationStore(tmp_path / name) for name in ("long", "short")]
    repaired = [store.open() for store in again]

    assert repaired == ["", ""]
    assert stores[1].tree == again[1].tree == again[0].tree == stores[0].tree
    assert (tmp_path / "short/configuration.journal").stat().st_size < (
        tmp_path / "long/configuration.journal"
    ).stat().st_size
    for store in again:
        store.close()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"Script": 'echo "$MODE $GREENGRASS_COMPONENT_VERSION" > ../removed', "Setenv": {"MODE": "gone"}}, None),
        ({"Script": 'echo "$MODE $GREENGRASS_COMPONENT_VERSION" > ../removed; exit 9'}, "UNINSTALL_ERROR"),
        (
            {"Script": f'echo "$MODE $GREENGRASS_COMPONENT_VERSION" > ../removed; {FOREVER}', "Timeout": 0.2},
            "UNINSTALL_TIMEOUT",
        ),
    ],
    ids=["works", "fails", "hangs"],
)
async def test_22_uninstall_when_removed_then_it_runs_and_whatever_it_does_the_component_goes(
    bench: supervision.Bench, script: dict[str, Any], code: str | None
) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"setenv": {"MODE": "any"}, "run": FOREVER, "uninstall": script}), Effect.START)
        await bench.settled(A, State.RUNNING)
        running.remove(A)
        await bench.gone(A)

    mode = "gone" if code is None else "any"
    assert (bench.places.root / "work" / "removed").read_text() == f"{mode} 1.0.0\n"
    assert bench.states[-2:] == ["A UNINSTALLING", "A UNINSTALLED"]
    assert code is None or code in bench.log()


async def test_23_launch_when_one_component_cannot_be_loaded_then_it_alone_is_broken(tmp_path: Path) -> None:
    first = devices.Device(tmp_path / "root")
    first.publish(
        recipe(A, "1.0.0", {"Run": "exec ../../tools/serve"}), recipe(B, "1.0.0", STAYS), recipe(C, "1.0.0", STAYS)
    )
    tools = tmp_path / "root" / "tools"
    tools.mkdir()
    (tools / "serve").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tools / "serve").chmod(0o755)
    async with first.running():
        result = await first.deploy({A: "1.0.0", B: "1.0.0", C: "1.0.0"}, regret_s=0.0)  # else BROKEN leads back
        assert result.status == "SUCCEEDED"
    (tools / "serve").unlink()
    record = ("services", C, "dependencies")  # a record that nobody can read: damaged by hand, or of the future
    first.configuration.commit((configuration.Change(record, "not a mapping", first.configuration.now(), "file"),))
    first.configuration.close()

    second = devices.Device(tmp_path / "root")
    async with second.running():
        await second.until(A, "BROKEN")
        await second.until(B, "RUNNING")
        await second.until(C, "BROKEN")
        broken = second.supervisor.health()[C]
        assert "cannot read the record of com.example.C" in broken.reason

        assert (await second.deploy({B: "1.0.0", C: "1.0.0"})).status == "SUCCEEDED"
        assert second.supervisor.health()[C].state is State.RUNNING
