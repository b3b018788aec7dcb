"""The life of one component: scripts of conversations, one for each conformance row, and a random walk with invariants."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleus.core import lifecycle, scripts, transitions
from nucleus.core.lifecycle import Effect, Event, KillProcesses, Kind, Life, Phase, RunScript, State
from tools import lifecycle_diagram

K, P, S = Kind, Phase, State


class Play:
    """`play(K.START, K.READY) << P.INSTALL >> K.INSTALL_DONE << P.STARTUP`: events in, the script begun last out."""

    def __init__(self, life: Life | None = None) -> None:
        self.life = life if life is not None else Life(ready=True)
        self.now = 0.0
        self.states: list[str] = []
        self._begun: list[Phase | None] = []
        self._told: list[str] = []

    def __rshift__(self, what: Kind | Event) -> Play:
        event = what if isinstance(what, Event) else Event(what)
        before = self.life.state
        self.life, commands = transitions.step(self.life, event, self.now)
        if self.life.state is not before:
            self.states.append(self.life.state.name)
        self._begun = [_begun(command) for command in commands if isinstance(command, RunScript | KillProcesses)]
        self._told.append(f"{event.kind.value} -> {self.life.state.name} {self._begun}")
        return self

    def __lshift__(self, phase: Phase | None) -> Play:
        begun = self._begun[-1] if self._begun else None
        conversation = "\n".join(self._told)
        assert begun is phase, f"expected {phase}, not {begun}:\n{conversation}"
        return self

    def later(self, seconds: float) -> Play:
        self.now += seconds
        return self

    def is_in(self, state: State, *, settled: bool | None = None) -> Play:
        conversation = "\n".join(self._told)
        assert self.life.state is state, f"expected {state.name}, not {self.life.state.name}:\n{conversation}"
        if settled is not None:
            assert lifecycle.settled(self.life) is settled
        return self


def _begun(command: RunScript | KillProcesses) -> Phase:
    return command.phase if isinstance(command, RunScript) else P.KILL


def started() -> Play:
    return Play() >> K.START << P.INSTALL


def starting() -> Play:
    return started() >> K.INSTALL_DONE << P.STARTUP


def serving() -> Play:
    """RUNNING with a Startup script that has ended."""
    return (starting() >> K.STARTUP_DONE << None).is_in(S.RUNNING, settled=True)


def running() -> Play:
    """RUNNING with a Run script."""
    return (starting() >> K.STARTUP_NOTHING << P.RUN >> K.RUN_SPAWNED << None).is_in(S.RUNNING, settled=True)


def crash(play: Play) -> Play:
    """Run fails; up to the next Run if there is one."""
    play >> Event(K.RUN_FAILED, "RUN_ERROR", "exit code 1")
    if play.life.state is S.BROKEN:
        return play << P.SHUTDOWN >> K.SHUTDOWN_DONE << P.KILL >> K.KILLED << None
    play.is_in(S.ERRORED) << P.RECOVER >> K.RECOVER_ENDED << P.SHUTDOWN >> K.SHUTDOWN_DONE << P.KILL
    return play >> K.KILLED << P.STARTUP >> K.STARTUP_NOTHING << P.RUN >> K.RUN_SPAWNED


# ---- start ---------------------------------------------------------------------------------------------------------


def test_start_when_run_ends_with_0_then_finished_through_stopping() -> None:
    play = running() >> K.RUN_DONE << P.SHUTDOWN >> K.SHUTDOWN_DONE << P.KILL >> K.KILLED << None

    play.is_in(S.FINISHED, settled=True)
    assert play.states == ["STARTING", "RUNNING", "STOPPING", "FINISHED"]


def test_start_when_there_is_nothing_to_run_then_finished() -> None:
    play = starting() >> K.STARTUP_NOTHING << P.RUN >> K.RUN_NOTHING << None

    play.is_in(S.FINISHED, settled=True)


def test_start_when_a_dependency_is_not_ready_then_it_waits_in_installed() -> None:
    play = (Play(Life()) >> K.START << P.INSTALL >> K.INSTALL_DONE << None).is_in(S.INSTALLED, settled=False)

    (play >> K.READY << P.STARTUP).is_in(S.STARTING)


def test_startup_when_it_reports_running_and_stays_then_running_without_its_deadline() -> None:
    play = starting()

    life, commands = transitions.step(play.life, Event(K.REPORTED_RUNNING), 0.0)

    assert (life.state, commands) == (S.RUNNING, (lifecycle.DropStartupDeadline(),))


def test_startup_when_it_dies_after_reporting_running_then_errored_with_startup_error() -> None:
    play = starting() >> K.REPORTED_RUNNING >> Event(K.STARTUP_FAILED, "STARTUP_ERROR", "exit code 3")

    play.is_in(S.ERRORED)
    assert (play.life.code, play.life.reason) == ("STARTUP_ERROR", "exit code 3")


def test_startup_when_it_ends_with_0_after_reporting_running_then_it_stays_running() -> None:
    (starting() >> K.REPORTED_RUNNING >> K.STARTUP_DONE).is_in(S.RUNNING, settled=True)


# ---- errors --------------------------------------------------------------------------------------------------------


def test_run_when_it_crashes_three_times_then_errored_errored_broken() -> None:
    play = crash(crash(crash(running())))

    play.is_in(S.BROKEN, settled=True)
    assert [state for state in play.states if state in ("ERRORED", "BROKEN")] == ["ERRORED", "ERRORED", "BROKEN"]
    assert (play.life.code, play.life.failures) == ("RUN_ERROR", 3)


def test_run_when_the_last_error_is_an_hour_old_then_it_does_not_count() -> None:
    play = crash(crash(running())).later(3600)

    crash(play).is_in(S.RUNNING)
    crash(crash(play)).is_in(S.BROKEN)


def test_errors_when_the_reset_time_is_shorter_then_it_counts() -> None:
    play = running()
    play.life = lifecycle.with_error_rules(play.life, 10.0, 3)

    for _ in range(5):
        crash(play).later(10)

    play.is_in(S.RUNNING)


def test_install_when_it_fails_three_times_then_broken_without_shutdown() -> None:
    play = started()
    for _ in range(2):
        play = play >> K.INSTALL_FAILED << P.RECOVER >> K.RECOVER_ENDED << P.KILL >> K.KILLED << P.INSTALL
    play = play >> Event(K.INSTALL_FAILED, "INSTALL_ERROR") << P.KILL >> K.KILLED << None

    play.is_in(S.BROKEN, settled=True)


def test_install_when_it_fails_once_then_works_then_running_and_errors_forgotten() -> None:
    play = started() >> K.INSTALL_FAILED >> K.RECOVER_ENDED >> K.KILLED << P.INSTALL >> K.INSTALL_DONE << P.STARTUP

    (play >> K.STARTUP_DONE).is_in(S.RUNNING)
    assert play.life.errors == {}
    assert play.life.failures == 1


def test_startup_when_it_fails_twice_then_works_then_its_errors_are_forgotten() -> None:
    play = starting()
    for _ in range(2):
        play = play >> K.STARTUP_FAILED >> K.RECOVER_ENDED >> K.SHUTDOWN_DONE >> K.KILLED << P.STARTUP

    (play >> K.STARTUP_DONE).is_in(S.RUNNING)
    assert play.life.errors == {}


def test_broken_when_reinstalled_then_counters_begin_anew() -> None:
    play = crash(crash(crash(running()))) >> Event(K.REINSTALL, generation=2) << P.INSTALL

    play = play >> K.INSTALL_DONE >> K.STARTUP_NOTHING >> K.RUN_SPAWNED
    crash(crash(play)).is_in(S.RUNNING)
    assert (play.life.failures, play.life.generation) == (2, 2)


def test_broken_when_reinstalled_during_its_shutdown_then_it_is_not_seen_as_broken() -> None:
    play = crash(crash(running())) >> K.RUN_FAILED << P.SHUTDOWN

    play = (play >> K.REINSTALL << None).is_in(S.STOPPING)
    assert play.life.doing is P.SHUTDOWN
    (play >> K.SHUTDOWN_DONE << P.KILL >> K.KILLED << P.INSTALL).is_in(S.NEW)


@pytest.mark.parametrize("kind", [K.START, K.RESTART, K.REPORTED_RUNNING, K.REPORTED_ERRORED, K.REPORTED_FINISHED])
def test_broken_when_anything_but_reinstall_or_removal_then_illegal(kind: Kind) -> None:
    play = crash(crash(crash(running())))

    with pytest.raises(lifecycle.Illegal):
        play >> kind


@pytest.mark.parametrize("effect", [Effect.START, Effect.RESTART, Effect.REINSTALL])
def test_broken_when_adopted_then_every_effect_reinstalls(effect: Effect) -> None:
    assert lifecycle.request(crash(crash(crash(running()))).life, effect) is K.REINSTALL


def test_shutdown_when_it_fails_then_errored_and_still_on_to_finished() -> None:
    play = running() >> K.STOP << P.SHUTDOWN >> Event(K.SHUTDOWN_FAILED, "SHUTDOWN_TIMEOUT", "15 s") << P.KILL
    play = (play >> K.KILLED << P.RECOVER).is_in(S.ERRORED)
    assert play.life.code == "SHUTDOWN_TIMEOUT"

    play = play >> K.RECOVER_ENDED << P.KILL >> K.KILLED
    play.is_in(S.FINISHED, settled=True)


# ---- requests ------------------------------------------------------------------------------------------------------


def test_restart_when_running_then_through_installed_without_install() -> None:
    play = serving() >> K.RESTART << P.SHUTDOWN >> K.SHUTDOWN_DONE << P.KILL >> K.KILLED << P.STARTUP

    (play >> K.STARTUP_DONE).is_in(S.RUNNING, settled=True)


def test_reinstall_when_running_then_old_shutdown_before_the_new_record_is_taken() -> None:
    play = serving()

    life, first = transitions.step(play.life, Event(K.REINSTALL), 0.0)
    life, second = transitions.step(life, Event(K.SHUTDOWN_DONE), 0.0)
    _, third = transitions.step(life, Event(K.KILLED), 0.0)

    assert first == (RunScript(P.SHUTDOWN),)
    assert second == (KillProcesses(),)
    assert third == (lifecycle.TakeRecord(), RunScript(P.INSTALL))


def test_reinstall_when_install_runs_then_it_is_ended_and_begun_again() -> None:
    play = started() >> K.REINSTALL << P.KILL >> K.KILLED << P.INSTALL

    (play >> K.INSTALL_DONE << P.STARTUP >> K.STARTUP_DONE).is_in(S.RUNNING)


def test_restart_when_new_is_pending_then_install_still_comes_first() -> None:
    play = serving() >> K.REINSTALL >> K.RESTART >> K.SHUTDOWN_DONE >> K.KILLED << P.INSTALL

    assert play.life.desired == (S.RUNNING,)


@pytest.mark.parametrize("play", [serving(), crash(crash(running())) >> K.RUN_FAILED])
def test_start_when_a_reinstallation_is_under_way_then_install_still_comes_first(play: Play) -> None:
    play = Play(play.life) >> K.REINSTALL >> K.START >> K.SHUTDOWN_DONE << P.KILL >> K.KILLED << P.INSTALL

    play.is_in(S.NEW)


def test_stop_when_install_runs_then_finished_and_the_next_start_installs() -> None:
    play = (started() >> K.STOP << P.KILL >> K.KILLED << None).is_in(S.FINISHED, settled=True)

    play >> K.START << P.INSTALL


def test_uninstall_when_running_then_stopped_uninstalled_and_gone() -> None:
    play = running() >> K.UNINSTALL << P.SHUTDOWN >> K.SHUTDOWN_DONE << P.KILL >> K.KILLED << P.UNINSTALL

    play >> Event(K.UNINSTALL_FAILED, "UNINSTALL_ERROR") << P.KILL >> K.KILLED << None
    assert play.states[-3:] == ["STOPPING", "UNINSTALLING", "UNINSTALLED"]


def test_uninstall_when_broken_then_without_another_stop() -> None:
    play = crash(crash(crash(running()))) >> K.UNINSTALL << P.UNINSTALL

    (play >> K.UNINSTALL_DONE >> K.KILLED).is_in(S.UNINSTALLED)


def test_uninstall_when_it_was_broken_and_comes_back_then_its_errors_are_forgotten() -> None:
    play = crash(crash(crash(running()))) >> K.UNINSTALL >> K.UNINSTALL_DONE >> K.KILLED >> K.START << P.INSTALL

    (play >> K.INSTALL_FAILED).is_in(S.ERRORED)
    assert play.life.errors == {S.NEW: (0.0,)}


def test_uninstall_when_wanted_back_meanwhile_then_installed_again() -> None:
    play = running() >> K.UNINSTALL
    assert lifecycle.request(play.life, Effect.KEEP) is K.REINSTALL

    play >> K.REINSTALL >> K.SHUTDOWN_DONE >> K.KILLED << P.INSTALL


def test_dependency_when_no_longer_ready_then_the_dependent_stops_and_waits() -> None:
    play = running() >> K.NOT_READY << P.SHUTDOWN >> K.SHUTDOWN_DONE >> K.KILLED << None

    (play.is_in(S.INSTALLED) >> K.READY << P.STARTUP).is_in(S.STARTING)


@pytest.mark.parametrize("play", [running(), serving()])
def test_ready_when_stopping_in_order_then_yes_but_not_after_an_error(play: Play) -> None:
    stopping = Play(play.life) >> K.STOP
    failed = Play(play.life) >> K.REPORTED_ERRORED
    after = Play(failed.life) >> K.RECOVER_ENDED

    assert [lifecycle.is_ready(one.life) for one in (play, stopping, failed, after)] == [True, True, False, False]
    assert after.life.state is S.STOPPING


# ---- reports -------------------------------------------------------------------------------------------------------

REPORTS = (K.REPORTED_RUNNING, K.REPORTED_ERRORED, K.REPORTED_FINISHED)
# spec/nucleus.md 2.9
ALLOWED = {
    S.NEW: {K.REPORTED_ERRORED},
    S.STARTING: set(REPORTS),
    S.RUNNING: {K.REPORTED_ERRORED, K.REPORTED_FINISHED},
    S.STOPPING: {K.REPORTED_ERRORED, K.REPORTED_FINISHED},
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", REPORTS)
def test_report_when_state_allows_it_then_taken_else_illegal(state: State, kind: Kind) -> None:
    life = Life(state=state, doing=P.INSTALL if state is S.NEW else None)

    try:
        transitions.step(life, Event(kind), 0.0)
        taken = True
    except lifecycle.Illegal:
        taken = False

    assert taken is (kind in ALLOWED.get(state, set()))


def test_report_errored_when_install_is_being_ended_then_illegal() -> None:
    play = started() >> K.STOP

    with pytest.raises(lifecycle.Illegal):
        play >> K.REPORTED_ERRORED


# ---- the table as a whole ------------------------------------------------------------------------------------------


def test_diagram_when_the_table_changes_then_the_committed_one_must_too() -> None:
    committed = Path(lifecycle.__file__).with_name("lifecycle.mmd").read_text()

    assert committed == lifecycle_diagram.diagram(), "python -m tools.lifecycle_diagram > nucleus/core/lifecycle.mmd"


# spec/nucleus.md 2.10, without those for a missing user
CODES = """INSTALL_ERROR INSTALL_CONFIG_NOT_VALID INSTALL_IO_ERROR INSTALL_TIMEOUT
    STARTUP_ERROR STARTUP_CONFIG_NOT_VALID STARTUP_IO_ERROR STARTUP_TIMEOUT
    RUN_ERROR RUN_CONFIG_NOT_VALID RUN_IO_ERROR RUN_TIMEOUT
    SHUTDOWN_ERROR SHUTDOWN_TIMEOUT UNINSTALL_TIMEOUT UNINSTALL_ERROR"""


def test_status_codes_when_made_for_every_phase_then_in_the_original_s_list() -> None:
    phases = (P.INSTALL, P.STARTUP, P.RUN, P.SHUTDOWN, P.UNINSTALL)

    made = {
        scripts.status_code(phase, what)
        for phase in phases
        for what in ("ERROR", "TIMEOUT", "IO_ERROR", "CONFIG_NOT_VALID")
    }

    assert made == set(CODES.split())


ENDS = {
    P.INSTALL: (K.INSTALL_DONE, K.INSTALL_FAILED),
    P.STARTUP: (K.STARTUP_DONE, K.STARTUP_NOTHING, K.STARTUP_FAILED),
    P.RUN: (K.RUN_DONE, K.RUN_NOTHING, K.RUN_FAILED),
    P.SHUTDOWN: (K.SHUTDOWN_DONE, K.SHUTDOWN_FAILED),
    P.RECOVER: (K.RECOVER_ENDED,),
    P.UNINSTALL: (K.UNINSTALL_DONE, K.UNINSTALL_FAILED),
    P.KILL: (K.KILLED,),
}
REQUESTED = (K.START, K.REINSTALL, K.RESTART, K.STOP, K.UNINSTALL, K.KEEP, K.READY, K.NOT_READY)


class World:
    """A life and what a runner would be doing for it."""

    def __init__(self, errors: dict[State, tuple[float, ...]]) -> None:
        self.life = Life(errors=errors)
        self.running: set[Phase] = set()
        self.installed = False
        self.spawned = False
        self.now = 0.0

    def feed(self, event: Event) -> None:
        self.now += 1
        self.installed = self.installed or (event.kind is K.INSTALL_DONE and self.life.state is S.NEW)
        self.life, commands = transitions.step(self.life, event, self.now)
        for command in commands:
            if isinstance(command, KillProcesses):
                assert P.KILL not in self.running
                self.running = {P.KILL}
            if isinstance(command, RunScript):
                assert self.installed or command.phase is not P.STARTUP, "started without a successful Install"
                self.installed = self.installed and command.phase is not P.INSTALL
                assert command.phase not in self.running
                self.running.add(command.phase)
                self.spawned = self.spawned and command.phase is not P.RUN
        self.check()

    def end(self, phase: Phase, kind: Kind) -> None:
        if phase is P.RUN and not self.spawned and kind is not K.RUN_NOTHING:
            self.spawned = True
            self.feed(Event(K.RUN_SPAWNED))
            return
        if phase is P.RUN and self.spawned and kind is K.RUN_NOTHING:
            kind = K.RUN_DONE
        self.running.discard(phase)
        self.feed(Event(kind))

    def check(self) -> None:
        life = self.life
        assert life.doing is None or life.doing in self.running, "waits for something that nobody does"
        assert (P.KILL in self.running) == (life.doing is P.KILL)
        if life.doing is None and life.desired:
            assert life.state is S.INSTALLED, "something is desired and nothing happens"
            assert not life.ready
        if life.state in (S.FINISHED, S.UNINSTALLED) or (life.state is S.INSTALLED and not life.doing):
            assert not self.running, "a script of a component that does not run"
        assert all(len(times) <= 3 for times in life.errors.values())
        assert not (lifecycle.settled(life) and life.desired)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_walk_when_events_are_random_then_no_illegal_state_and_it_can_always_be_stopped(data: st.DataObject) -> None:
    nearly_broken = dict.fromkeys((S.NEW, S.STARTING, S.RUNNING), (0.0, 0.0))
    world = World(nearly_broken if data.draw(st.booleans()) else {})
    for _ in range(data.draw(st.integers(0, 40))):
        ends = [(phase, kind) for phase in sorted(world.running) for kind in ENDS[phase]]
        choice = data.draw(st.sampled_from([*ends, *ends, *REQUESTED, *REPORTS]))
        before = world.life
        try:
            if isinstance(choice, tuple):
                world.end(*choice)
            else:
                world.feed(Event(choice))
        except lifecycle.Illegal:
            assert not isinstance(choice, tuple), "the end of a script must always have a meaning"
            assert world.life is before

    world.feed(Event(K.STOP))
    for _ in range(40):
        if lifecycle.closed(world.life):
            break
        phase = world.life.doing
        assert phase is not None
        world.end(phase, data.draw(st.sampled_from(ENDS[phase])))
    assert lifecycle.closed(world.life)
