"""judge(): waiting for what, done, or failed and why; the deadline and the watch window."""

from __future__ import annotations

from typing import Any

from nucleus.core import component, progress
from nucleus.core.lifecycle import Health, State


def health(name: str, state: State, **fields: Any) -> Health:
    fields = {"generation": 2, "settled": state in (State.RUNNING, State.FINISHED, State.BROKEN)} | fields
    return Health(name=name, version="1.0.0", state=state, **fields)


def expectation(**fields: Any) -> progress.Expectation:
    defaults: dict[str, Any] = {
        "generations": {"a": 2},
        "changed": frozenset({"a"}),
        "deadline_at": 100.0,
        "watch_s": 5.0,
    }
    return progress.Expectation(**(defaults | fields))


def test_judge_when_not_settled_then_says_for_what() -> None:
    starting = health("a", State.STARTING, waiting_for="Startup script, 12 s of 120 s")

    verdict = progress.judge(expectation(), {"a": starting}, None, 10.0)

    assert verdict == progress.Waiting("a STARTING: Startup script, 12 s of 120 s", None, 60.0)


def test_judge_when_an_older_generation_runs_then_still_waiting() -> None:
    verdict = progress.judge(expectation(), {"a": health("a", State.BROKEN, generation=1)}, None, 10.0)

    assert isinstance(verdict, progress.Waiting)


def test_judge_when_broken_then_failed_with_codes_and_reason() -> None:
    broken = health("a", State.BROKEN, status_code="RUN_ERROR", reason="exit code 7")

    verdict = progress.judge(expectation(), {"a": broken}, None, 10.0)

    assert verdict == progress.Failed(
        ("COMPONENT_UPDATE_ERROR", "COMPONENT_BROKEN"), "a 1.0.0 is BROKEN: RUN_ERROR exit code 7"
    )


def test_judge_when_excused_then_a_broken_one_does_not_matter() -> None:
    verdict = progress.judge(
        expectation(excused=frozenset({"a"}), watch_s=0.0), {"a": health("a", State.BROKEN)}, None, 1.0
    )

    assert isinstance(verdict, progress.Done)


def test_judge_when_the_deadline_is_reached_then_failed_and_names_it() -> None:
    verdict = progress.judge(expectation(), {"a": health("a", State.INSTALLED)}, None, 100.0)

    assert isinstance(verdict, progress.Failed)
    assert "deadline" in verdict.cause
    assert "a INSTALLED" in verdict.cause


def test_judge_when_no_deadline_then_waits_for_ever() -> None:
    verdict = progress.judge(expectation(deadline_at=0.0), {"a": health("a", State.INSTALLED)}, None, 1e9)

    assert isinstance(verdict, progress.Waiting)


def test_judge_when_settled_then_watches_and_is_done_after_the_window() -> None:
    running = {"a": health("a", State.RUNNING, failures=1)}

    first = progress.judge(expectation(), running, None, 10.0)
    assert isinstance(first, progress.Waiting)
    assert (first.watch, first.look_again_s) == (progress.Watch(15.0, {"a": 1}), 5.0)

    assert isinstance(progress.judge(expectation(), running, first.watch, 14.9), progress.Waiting)
    assert isinstance(progress.judge(expectation(), running, first.watch, 15.0), progress.Done)


def test_judge_when_a_changed_one_dies_in_the_window_then_failed() -> None:
    watch = progress.Watch(15.0, {"a": 1})
    errored = health("a", State.ERRORED, failures=2, settled=False, status_code="RUN_ERROR", reason="exit code 1")

    verdict = progress.judge(expectation(), {"a": errored}, watch, 11.0)

    assert isinstance(verdict, progress.Failed)
    assert "died within the watch window of 5 s: RUN_ERROR exit code 1" in verdict.cause


def test_judge_when_an_unchanged_one_dies_in_the_window_then_not_failed() -> None:
    expected = expectation(generations={"a": 2, "b": 1})
    states = {"a": health("a", State.RUNNING), "b": health("b", State.ERRORED, failures=1, settled=False)}

    assert isinstance(progress.judge(expected, states, progress.Watch(15.0, {"a": 0}), 11.0), progress.Waiting)


def test_judge_when_every_changed_one_ended_well_then_no_window() -> None:
    assert isinstance(progress.judge(expectation(), {"a": health("a", State.FINISHED)}, None, 10.0), progress.Done)


def test_watch_s_when_asked_local_or_run_then_as_specified() -> None:
    stays = {"a": component.Component(name="a", version="1.0.0", lifecycle={"run": "x"})}
    quiet = {"a": component.Component(name="a", version="1.0.0", lifecycle={"install": "x"})}

    assert progress.watch_s(stays, 7.0, local=False) == 7.0
    assert progress.watch_s(stays, -1.0, local=True) == 0.0
    assert progress.watch_s(stays, -1.0, local=False) == progress.WATCH_RUN_S
    assert progress.watch_s(quiet, -1.0, local=False) == 0.0
