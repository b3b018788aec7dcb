"""Components under supervision: real scripts, real time-outs, real deaths."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nucleus.actors import supervisor
from nucleus.core.component import HARD, SOFT, Component
from nucleus.core.lifecycle import Effect, Health, State
from nucleus.host import descendants, logs, places

A, B, C = "com.example.A", "com.example.B", "com.example.C"
FOREVER = "exec sleep 1000"


class Bench:
    """A supervisor with files below `root`; `states` is what `on_change` heard, as "A RUNNING"."""

    def __init__(self, root: Path, *, user: str = str(os.getuid()), **options: Any) -> None:
        self.places = places.Places(root)
        for folder in (self.places.logs, self.places.processes):
            folder.mkdir(parents=True)
        self.states: list[str] = []
        environment = {"PATH": os.environ["PATH"], "COMMON": "nucleus", "LOW": "nucleus"}
        log = logs.Log("test", directory=self.places.logs)
        self.supervisor = supervisor.Supervisor(self.places, environment, user, log, self._heard, **options)

    def _heard(self, health: Health) -> None:
        self.states.append(f"{health.name.rpartition('.')[2]} {health.state.name}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[supervisor.Supervisor]:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self.supervisor.run())
            try:
                yield self.supervisor
            finally:
                self.supervisor.stop()
                await work

    async def until(self, name: str, met: Callable[[Health], bool]) -> Health:
        """Waits until a component's health is as wanted."""
        try:
            async with asyncio.timeout(20):
                while True:
                    seen = self.supervisor.revision
                    one = self.supervisor.health().get(name)
                    if one is not None and met(one):
                        return one
                    await self.supervisor.changed(seen)
        except TimeoutError:
            raise AssertionError(f"{self.supervisor.health().get(name)} after {self.states}\n{self.log()}") from None

    async def state(self, name: str, state: State) -> Health:
        return await self.until(name, lambda one: one.state is state)

    async def settled(self, name: str, state: State, generation: int = 0) -> Health:
        return await self.until(name, lambda one: one.settled and one.state is state and one.generation >= generation)

    async def gone(self, name: str) -> None:
        async with asyncio.timeout(20):
            while name in self.supervisor.health():
                await self.supervisor.changed(self.supervisor.revision)

    def work(self, name: str, file: str) -> str:
        return (self.places.work(name) / file).read_text()

    def log(self) -> str:
        return (self.places.logs / logs.DAEMON_FILE).read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "root")


def one(name: str, lifecycle: dict[str, Any], version: str = "1.0.0", **dependencies: str) -> Component:
    names = {key.replace("_", "."): kind for key, kind in dependencies.items()}
    return Component(name=name, version=version, lifecycle=lifecycle, dependencies=names)


def on_a(name: str, lifecycle: dict[str, Any], kind: str = HARD) -> Component:
    return Component(name=name, version="1.0.0", lifecycle=lifecycle, dependencies={A: kind})


def exists(pid: int) -> bool:
    """Whether it lives; a dead one that nobody has reaped yet does not."""
    member = descendants.Member(pid, descendants.start_time(pid) or -1)
    return member in descendants.find((member,), "-")


# ---- one component ---------------------------------------------------------------------------------------------------


async def test_adopt_when_one_shot_then_finished_with_its_output_in_its_log(bench: Bench) -> None:
    async with bench.running() as running:
        generation = running.adopt(
            one(A, {"install": "echo made > made", "run": "cat made; echo oops >&2"}), Effect.START
        )
        health = await bench.settled(A, State.FINISHED, generation)

    assert (health.failures, health.pids, health.status_code) == (0, (), "NONE")
    text = (bench.places.logs / f"{A}.log").read_text()
    assert f"[INFO] (main) {A}: stdout. made." in text
    assert f"[WARN] (main) {A}: stderr. oops." in text
    assert list(bench.places.processes.iterdir()) == []


async def test_environment_when_set_at_every_level_then_the_nearest_wins(bench: Bench) -> None:
    script = {
        "Script": 'echo "$COMMON $LOW $MIDDLE $HIGH $SVCUID $AWS_CONTAINER_AUTHORIZATION_TOKEN" > seen',
        "Setenv": {"HIGH": "step"},
    }
    setenv = {"LOW": "lifecycle", "MIDDLE": "lifecycle", "HIGH": "lifecycle"}
    async with bench.running() as running:
        running.adopt(one(A, {"setenv": setenv, "run": script}), Effect.START)
        await bench.settled(A, State.FINISHED)
        token = running.token(A)

    assert bench.work(A, "seen").split() == ["nucleus", "lifecycle", "lifecycle", "step", token, token]
    assert len(token) == 16
    assert token.isalpha()
    assert token.isupper()


async def test_identify_when_the_token_is_known_then_the_component_until_it_is_removed(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER}), Effect.START)
        await bench.settled(A, State.RUNNING)
        token = running.token(A)
        assert running.identify(token) == A
        assert running.identify("NOBODY") is None

        running.remove(A)
        await bench.gone(A)

        assert running.identify(token) is None
        assert running.component(A) is None


async def test_run_when_it_dies_300_ms_after_its_start_then_the_failure_is_counted(bench: Bench) -> None:
    script = "test -e again && exec sleep 1000; touch again; sleep 0.3; echo no more >&2; exit 4"
    async with bench.running() as running:
        running.adopt(one(A, {"run": script}), Effect.START)
        first = await bench.settled(A, State.RUNNING)
        assert first.failures == 0

        health = await bench.until(A, lambda one: one.failures == 1 and one.state is State.ERRORED)
        assert health.status_code == "RUN_ERROR"
        assert health.reason == "Run script ended with exit code 4: no more"
        await bench.settled(A, State.RUNNING)


async def test_run_when_it_crashes_three_times_then_broken_with_the_reason(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": "echo because of this >&2; kill -SEGV $$"}), Effect.START)
        health = await bench.settled(A, State.BROKEN)

    assert health.failures == 3
    assert (health.status_code, health.reason) == ("RUN_ERROR", "Run script was killed by SIGSEGV: because of this")
    assert [state for state in bench.states if state in ("A ERRORED", "A BROKEN")] == [
        "A ERRORED",
        "A ERRORED",
        "A BROKEN",
    ]


async def test_startup_when_it_never_ends_then_timeout_and_broken_and_no_process_left(bench: Bench) -> None:
    script = {"Script": f"echo $$ >> pids; {FOREVER}", "Timeout": "0.2"}
    async with bench.running() as running:
        running.adopt(one(A, {"startup": script}), Effect.START)
        waiting = await bench.until(A, lambda one: one.state is State.STARTING and bool(one.pids))
        assert waiting.waiting_for == "Startup script, 0 s of 0 s"
        health = await bench.settled(A, State.BROKEN)

    assert health.status_code == "STARTUP_TIMEOUT"
    assert health.reason == "Startup script did not end within 0.2 s"
    pids = [int(pid) for pid in bench.work(A, "pids").split()]
    assert len(pids) == 3
    assert not any(exists(pid) for pid in pids)


async def test_run_when_longer_than_its_timeout_then_run_timeout(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": {"Script": FOREVER, "Timeout": 0.1}}), Effect.START)
        health = await bench.settled(A, State.BROKEN)

    assert health.status_code == "RUN_TIMEOUT"


async def test_startup_when_it_reports_running_then_it_may_stay_beyond_its_timeout(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"startup": {"Script": FOREVER, "Timeout": 0.5}}), Effect.START)
        await bench.until(A, lambda one: bool(one.pids))
        running.report(A, "RUNNING")
        health = await bench.settled(A, State.RUNNING)
        async with asyncio.timeout(20):
            while running.health()[A].state is State.RUNNING:
                try:
                    async with asyncio.timeout(1):
                        await running.changed(running.revision)
                except TimeoutError:
                    break
        assert running.health()[A].pids == health.pids

        os.kill(health.pids[0], 9)
        failed = await bench.until(A, lambda one: one.failures == 1)
        assert failed.status_code == "STARTUP_ERROR"


async def test_report_when_it_means_nothing_then_ignored_with_a_warning(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER}), Effect.START)
        await bench.settled(A, State.RUNNING)
        running.report(A, "RUNNING")
        running.report("com.example.Nobody", "RUNNING")
        running.report(A, "FINISHED")
        await bench.settled(A, State.FINISHED)

    assert "component.event_ignored" in bench.log()
    assert "component.report_dropped" in bench.log()


async def test_skipif_when_true_then_the_script_is_skipped(bench: Bench) -> None:
    install = {"Script": "echo x >> installed", "Skipif": "exists installed"}
    lifecycle = {"install": install, "startup": {"Script": "exit 1", "Skipif": "onpath sh"}, "run": "exit 0"}
    async with bench.running() as running:
        running.adopt(one(A, lifecycle), Effect.START)
        await bench.settled(A, State.FINISHED)
        generation = running.adopt(one(A, lifecycle), Effect.REINSTALL)
        await bench.settled(A, State.FINISHED, generation)

    assert bench.work(A, "installed") == "x\n"


async def test_skipif_when_broken_then_errored_with_config_not_valid(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"install": {"Script": "true", "Skipif": "whenever"}}), Effect.START)
        health = await bench.settled(A, State.BROKEN)

    assert health.status_code == "INSTALL_CONFIG_NOT_VALID"
    assert f"Install of {A} 1.0.0" in health.reason


async def test_start_when_the_work_folder_cannot_be_made_then_io_error_with_the_place(bench: Bench) -> None:
    (bench.places.root / "work").write_text("a file in the way")
    async with bench.running() as running:
        running.adopt(one(A, {"run": "true"}), Effect.START)
        health = await bench.settled(A, State.BROKEN)

    assert health.status_code == "RUN_IO_ERROR"
    assert str(bench.places.work(A)) in health.reason


async def test_recover_when_it_repairs_then_running_again(bench: Bench) -> None:
    lifecycle = {"run": f"test -e repaired || exit 1; {FOREVER}", "recover": "touch repaired"}
    async with bench.running() as running:
        running.adopt(one(A, lifecycle), Effect.START)
        health = await bench.until(A, lambda one: one.failures == 1 and one.state is State.RUNNING)

    assert health.settled


async def test_recover_when_it_hangs_then_broken_after_all_tries(bench: Bench) -> None:
    lifecycle = {"run": "exit 1", "recover": {"Script": FOREVER, "Timeout": 0.1}}
    async with bench.running() as running:
        running.adopt(one(A, lifecycle), Effect.START)
        await bench.settled(A, State.BROKEN)


async def test_stop_component_when_running_then_finished_and_restart_brings_it_back(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER}), Effect.START)
        before = (await bench.settled(A, State.RUNNING)).pids

        assert running.stop_component(A)
        await bench.settled(A, State.FINISHED)
        assert running.restart(A)
        after = (await bench.settled(A, State.RUNNING)).pids

        assert not exists(before[0])
        assert after != before


async def test_restart_when_unknown_or_broken_then_false(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": "exit 1"}), Effect.START)
        await bench.settled(A, State.BROKEN)

        assert not running.restart(A)
        assert not running.stop_component(A)
        assert not running.restart("com.example.Nobody")
        assert not running.stop_component("com.example.Nobody")


# ---- changes ---------------------------------------------------------------------------------------------------------


async def test_upgrade_when_the_version_changes_then_the_old_shutdown_runs_before_the_new_install(bench: Bench) -> None:
    def version(text: str) -> Component:
        lines = {phase: f"echo {text} {phase} >> ../seen" for phase in ("install", "startup", "shutdown")}
        return one(A, lines, version=text)

    async with bench.running() as running:
        running.adopt(version("1.0.0"), Effect.START)
        await bench.settled(A, State.RUNNING)
        generation = running.adopt(version("2.0.0"), Effect.REINSTALL)
        health = await bench.settled(A, State.RUNNING, generation)

    assert health.version == "2.0.0"
    assert (bench.places.root / "work" / "seen").read_text().splitlines() == [
        "1.0.0 install", "1.0.0 startup", "1.0.0 shutdown", "2.0.0 install", "2.0.0 startup", "2.0.0 shutdown",
    ]  # fmt: skip


async def test_change_when_kept_then_same_process_and_the_new_record_at_the_next_start(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER, "shutdown": "echo old > down"}), Effect.START)
        before = await bench.settled(A, State.RUNNING)

        generation = running.adopt(one(A, {"run": FOREVER, "shutdown": "echo new > down"}), Effect.KEEP)
        kept = await bench.settled(A, State.RUNNING, generation)
        assert kept.pids == before.pids

        running.restart(A)
        await bench.until(A, lambda one: one.settled and one.pids not in ((), before.pids))
        assert bench.work(A, "down") == "old\n"
    assert bench.work(A, "down") == "new\n"


async def test_broken_when_a_new_record_works_then_running(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"install": "exit 1"}), Effect.START)
        await bench.settled(A, State.BROKEN)

        generation = running.adopt(one(A, {"run": FOREVER}), Effect.RESTART)
        health = await bench.settled(A, State.RUNNING, generation)

    assert health.failures == 0


async def test_adopt_twice_when_the_first_is_still_installing_then_the_last_one_runs(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"install": FOREVER, "run": FOREVER}), Effect.START)
        await bench.until(A, lambda one: bool(one.pids))
        generation = running.adopt(one(A, {"run": "echo second > seen"}, version="2.0.0"), Effect.REINSTALL)
        await bench.settled(A, State.FINISHED, generation)

    assert bench.work(A, "seen") == "second\n"


async def test_remove_when_uninstall_is_given_then_it_runs_with_the_version_and_nothing_is_left(bench: Bench) -> None:
    script = "echo $GREENGRASS_COMPONENT_VERSION > ../removed; exit 9"
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER, "uninstall": script}), Effect.START)
        pids = (await bench.settled(A, State.RUNNING)).pids
        running.remove(A)
        await bench.gone(A)

        assert not exists(pids[0])
    assert (bench.places.root / "work" / "removed").read_text() == "1.0.0\n"
    assert bench.states[-2:] == ["A UNINSTALLING", "A UNINSTALLED"]


# ---- dependencies ----------------------------------------------------------------------------------------------------


async def test_start_when_a_hard_dependency_is_slow_then_the_dependent_waits_and_says_so(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(on_a(B, {"run": FOREVER}), Effect.START)
        waiting = await bench.state(B, State.INSTALLED)
        assert waiting.waiting_for == f"hard dependency {A} (not here)"

        running.adopt(one(A, {"startup": "while ! test -e go; do sleep 0.02; done"}), Effect.START)
        await bench.state(A, State.STARTING)
        assert running.health()[B].waiting_for == f"hard dependency {A} (STARTING)"
        (bench.places.work(A) / "go").touch()
        await bench.settled(B, State.RUNNING)

    assert bench.states.index("A RUNNING") < bench.states.index("B STARTING")


@pytest.mark.parametrize(("kind", "restarts"), [(HARD, True), (SOFT, False)])
@pytest.mark.parametrize("event", ["restart", "reinstall", "error"])
async def test_dependency_when_it_restarts_reinstalls_or_fails_then_only_hard_dependents_restart(
    bench: Bench, kind: str, restarts: bool, event: str
) -> None:
    first = one(A, {"run": FOREVER})
    async with bench.running() as running:
        running.adopt(first, Effect.START)
        running.adopt(on_a(B, {"run": FOREVER}, kind), Effect.START)
        on_b = Component(name=C, version="1.0.0", lifecycle={"run": FOREVER}, dependencies={B: HARD})
        running.adopt(on_b, Effect.START)
        for name in (A, B, C):
            await bench.settled(name, State.RUNNING)
        before = {name: one.pids for name, one in running.health().items()}

        if event == "restart":
            running.restart(A)
        elif event == "reinstall":
            running.adopt(first, Effect.REINSTALL)
        else:
            os.kill(before[A][0], 9)
        await bench.until(A, lambda one: one.settled and one.pids not in ((), before[A]))
        for name in (B, C):
            await bench.until(name, lambda one: one.settled and (one.pids != before[one.name]) is restarts)


async def test_dependency_when_it_is_only_stopped_then_the_dependent_keeps_running(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER}), Effect.START)
        running.adopt(on_a(B, {"run": FOREVER}), Effect.START)
        before = (await bench.settled(B, State.RUNNING)).pids

        running.stop_component(A)
        await bench.settled(A, State.FINISHED)

        assert running.health()[B].pids == before


async def test_dependency_when_taken_off_the_list_then_it_can_be_removed_without_a_restart(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER}), Effect.START)
        running.adopt(on_a(B, {"run": FOREVER}), Effect.START)
        before = (await bench.settled(B, State.RUNNING)).pids

        running.adopt(one(B, {"run": FOREVER}), Effect.KEEP)
        running.remove(A)
        await bench.gone(A)

        assert running.health()[B].pids == before


async def test_dependency_when_only_its_type_changes_then_no_restart(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER}), Effect.START)
        running.adopt(on_a(B, {"run": FOREVER}, SOFT), Effect.START)
        await bench.settled(A, State.RUNNING)
        before = (await bench.settled(B, State.RUNNING)).pids

        for kind in (HARD, SOFT):
            generation = running.adopt(on_a(B, {"run": FOREVER}, kind), Effect.KEEP)
            assert (await bench.settled(B, State.RUNNING, generation)).pids == before


async def test_remove_when_it_is_wanted_back_during_uninstall_then_it_comes_back(bench: Bench) -> None:
    lifecycle = {"run": FOREVER, "uninstall": "touch ../going; sleep 0.1"}
    async with bench.running() as running:
        running.adopt(one(A, lifecycle), Effect.START)
        await bench.settled(A, State.RUNNING)
        running.remove(A)
        await bench.state(A, State.UNINSTALLING)

        generation = running.adopt(one(A, lifecycle), Effect.START)
        await bench.settled(A, State.RUNNING, generation)


async def test_remove_when_dependents_leave_too_then_they_are_closed_first(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER, "shutdown": "echo A >> ../order"}), Effect.START)
        running.adopt(on_a(B, {"run": FOREVER, "shutdown": "sleep 0.1; echo B >> ../order"}), Effect.START)
        await bench.settled(B, State.RUNNING)

        running.remove(A)
        running.remove(B)
        await bench.gone(A)
        await bench.gone(B)

    assert (bench.places.root / "work" / "order").read_text().split() == ["B", "A"]


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_stop_when_there_are_dependents_then_they_close_first_and_nobody_restarts(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER, "shutdown": "echo A >> ../order"}), Effect.START)
        running.adopt(on_a(B, {"run": FOREVER, "shutdown": "sleep 0.1; echo B >> ../order"}), Effect.START)
        await bench.settled(B, State.RUNNING)
        pids = [pid for health in running.health().values() for pid in health.pids]

    assert (bench.places.root / "work" / "order").read_text().split() == ["B", "A"]
    assert not any(exists(pid) for pid in pids)


async def test_stop_when_a_dependent_is_not_even_started_then_its_dependency_closes_too(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER}), Effect.START)
        both = Component(name=B, version="1.0.0", lifecycle={"run": FOREVER}, dependencies={A: HARD, C: HARD})
        running.adopt(both, Effect.START)
        await bench.settled(A, State.RUNNING)
        await bench.state(B, State.INSTALLED)

    assert "supervisor.stop_timed_out" not in bench.log()


async def test_stop_when_a_shutdown_hangs_then_its_timeout_ends_it(bench: Bench) -> None:
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER, "shutdown": {"Script": FOREVER, "Timeout": 0.1}}), Effect.START)
        await bench.settled(A, State.RUNNING)

    assert bench.states[-2:] == ["A ERRORED", "A FINISHED"]


async def test_stop_when_shutdowns_take_longer_than_allowed_then_everything_is_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root", stop_s=0.2)
    async with bench.running() as running:
        running.adopt(one(A, {"run": FOREVER, "shutdown": f"echo $$ > down; {FOREVER}"}), Effect.START)
        pids = (await bench.settled(A, State.RUNNING)).pids

    assert "supervisor.stop_timed_out" in bench.log()
    assert not exists(pids[0])
    assert not exists(int(bench.work(A, "down")))


async def test_cancel_when_components_run_then_all_processes_are_gone(bench: Bench) -> None:
    script = "trap '' TERM; setsid sleep 1000 & echo $! > pid; wait"
    async with asyncio.TaskGroup() as group:
        work = group.create_task(bench.supervisor.run())
        bench.supervisor.adopt(one(A, {"run": script, "shutdown": "touch ../asked"}), Effect.START)
        pids = (await bench.settled(A, State.RUNNING)).pids
        async with asyncio.timeout(20):
            while not (bench.places.work(A) / "pid").exists() or not bench.work(A, "pid").strip():
                await asyncio.to_thread(os.sched_yield)

        work.cancel()

    assert not exists(pids[0])
    assert not exists(int(bench.work(A, "pid")))
    assert not (bench.places.root / "work" / "asked").exists()


async def test_adopt_when_stopped_already_then_ignored(bench: Bench) -> None:
    async with bench.running() as running:
        running.stop()
        running.adopt(one(A, {"run": FOREVER}), Effect.START)

    assert bench.supervisor.health() == {}
