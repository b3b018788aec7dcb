"""The nucleus replaces itself: the real loader, real daemons, ZIPs of wheels from the working tree, local deployments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.core import release
from tools import local_nucleus
from tools import system as systems
from tools.machine import WITHIN_S, Machine

pytestmark = pytest.mark.whole
HELLO, KILLER = "com.example.Hello", "com.example.Killer"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "root")
    try:
        hello = {"RecipeFormatVersion": "2020-01-25", "ComponentName": HELLO, "ComponentVersion": "1.0.0"}
        made.publish(hello | {"Manifests": [{"Lifecycle": {"Run": "exec sleep 100000"}}]}, {})
        yield made
    finally:
        made.close()


def test_own_update_when_deployed_then_the_new_version_runs_and_a_downgrade_reads_its_store(machine: Machine) -> None:
    machine.publish_nucleus("0.9.0")
    machine.publish_nucleus("0.0.9")

    up = machine.deploy({release.COMPONENT: "0.9.0", HELLO: "1.0.0"})
    after_up = (machine.running(), machine.states())
    processes = local_nucleus.pids(machine.root)
    down = machine.deploy({release.COMPONENT: "0.0.9"})
    after_down = (machine.running(), machine.states())

    assert [one["status"] for one in (up, down)] == ["SUCCEEDED"] * 2
    assert after_up[1] == {release.COMPONENT: ("0.9.0", "FINISHED"), HELLO: ("1.0.0", "RUNNING")}
    assert after_down[1] == {release.COMPONENT: ("0.0.9", "FINISHED"), HELLO: ("1.0.0", "RUNNING")}
    assert len({"init", after_up[0], after_down[0]}) == 3
    assert local_nucleus.pids(machine.root) == processes  # where only the nucleus changes, its components run on
    # Thousands of files: they go after the deployment has ended.
    # The one before stays as long as success may be regretted.
    kept = {"init", after_up[0], after_down[0]}
    systems.wait_for(lambda: machine.directories() == kept, lambda: f"{kept}: {machine.directories()}", WITHIN_S)


def test_own_update_when_the_new_version_does_not_start_then_the_old_one_reports_it(machine: Machine) -> None:
    """The self-test passes, the daemon does not start: three strikes of the loader, then back."""
    machine.publish_nucleus("0.9.0", {"nucleus/__main__.py": b"raise SystemExit('cannot start on purpose')\n"})

    ended = machine.deploy({release.COMPONENT: "0.9.0", HELLO: "1.0.0"})

    assert ended["status"] == "FAILED"
    assert "NUCLEUS_RESTART_FAILURE" in json.dumps(ended)
    assert "cannot start on purpose" in json.dumps(ended)
    assert machine.running() == "init"
    assert machine.states() == {}
    fixed = machine.deploy({HELLO: "1.0.0"})
    assert fixed["status"] == "SUCCEEDED", fixed


def test_own_update_when_the_new_version_fails_to_take_over_then_components_run_once_under_the_old_one(
    machine: Machine,
) -> None:
    """The old program is replaced, the new one ends at once; the loader starts it twice more, then the old one."""
    machine.deploy({HELLO: "1.0.0"})
    before = local_nucleus.pids(machine.root)
    machine.publish_nucleus("0.9.0", {"nucleus/__main__.py": b"raise SystemExit('cannot start on purpose')\n"})

    ended = machine.deploy({release.COMPONENT: "0.9.0"})

    assert "NUCLEUS_RESTART_FAILURE" in json.dumps(ended)
    assert machine.running() == "init"
    systems.wait_for(lambda: machine.states().get(HELLO) == ("1.0.0", "RUNNING"), "the component", WITHIN_S)
    after = local_nucleus.pids(machine.root)
    assert (len(after[HELLO]), after != before) == (1, True)


def test_launches_when_a_component_kills_the_nucleus_then_it_is_planned_back(machine: Machine) -> None:
    """No boot loops: a component that kills the daemon one second after its start."""
    killer = {"RecipeFormatVersion": "2020-01-25", "ComponentName": KILLER, "ComponentVersion": "1.0.0"}
    machine.publish(killer | {"Manifests": [{"Lifecycle": {"Startup": "sleep 1; kill -KILL $PPID; sleep 1000"}}]}, {})
    machine.deploy({HELLO: "1.0.0"})

    ended = machine.deploy({KILLER: "1.0.0"})

    assert ended["status"] == "FAILED"
    assert "NUCLEUS_RESTART_FAILURE" in json.dumps(ended)
    assert "3 times" in json.dumps(ended)
    assert machine.states() == {HELLO: ("1.0.0", "RUNNING")}
    assert machine.ends == [137]  # the loader gave up once: there was no older nucleus to go back to


def test_own_update_when_the_selftest_fails_then_no_state_change(machine: Machine) -> None:
    machine.publish_nucleus(
        "0.9.0", {"nucleus/selftest.py": b"raise ImportError('this release needs another library')\n"}
    )

    ended = machine.deploy({release.COMPONENT: "0.9.0"})

    assert ended["status"] == "FAILED"
    assert "FAILED_NO_STATE_CHANGE" in json.dumps(ended)
    assert "this release needs another library" in json.dumps(ended)
    assert machine.running() == "init"


def test_own_update_when_a_component_of_it_breaks_afterwards_then_nucleus_and_component_go_back(
    machine: Machine,
) -> None:
    """The deployment had succeeded; within its regret window what it changed breaks."""
    go = machine.root.parent / "go"
    script = f"while ! test -e {go}; do sleep 0.05; done; exit 1"
    late = {"RecipeFormatVersion": "2020-01-25", "ComponentName": "com.example.Late", "ComponentVersion": "1.0.0"}
    machine.publish(late | {"Manifests": [{"Lifecycle": {"Run": script}}]}, {})
    machine.publish_nucleus("0.9.0")
    machine.deploy({HELLO: "1.0.0"})

    ended = machine.deploy({release.COMPONENT: "0.9.0", HELLO: "1.0.0", "com.example.Late": "1.0.0"})
    new = machine.running()
    go.touch()

    assert ended["status"] == "SUCCEEDED", ended
    assert new != "init"
    systems.wait_for(
        lambda: (machine.running(), machine.states()) == ("init", {HELLO: ("1.0.0", "RUNNING")}),
        lambda: f"the way back: {machine.running()} {machine.states()}",
        WITHIN_S,
    )
