"""The nucleus replaces itself: the real loader, real daemons, ZIPs of wheels from the working tree, local deployments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nucleus.core import builtin, release
from nucleus.ipc import client
from tools import local_nucleus, make_nucleus_zip
from tools import system as systems

pytestmark = pytest.mark.whole
WITHIN_S = 60
HELLO, KILLER = "com.example.Hello", "com.example.Killer"


class Machine:
    """One root under its loader; `deploy` makes a local deployment over the IPC and waits until it has ended."""

    def __init__(self, root: Path) -> None:
        self.root = root
        nucleus = {"configuration": {"runWithDefault": {"posixUser": str(os.getuid())}}}
        config = root.parent / "config.yaml"
        config.write_text(yaml.safe_dump({"services": {"aws.greengrass.Nucleus": nucleus}}))
        command = [sys.executable, "-m", "nucleus.cli", "nucleus", "install", "--root", str(root), "--init", "shell"]
        subprocess.run([*command, "--config", str(config), "--no-start"], check=True, capture_output=True)
        self.loader = subprocess.Popen([root / "bin" / "loader"])
        self.ends: list[int] = []  # exit codes of loaders that a service manager would have started again

    def close(self) -> None:
        self.loader.terminate()
        try:
            self.loader.wait(WITHIN_S)
        finally:
            self.loader.kill()

    def publish(self, recipe: dict[str, Any], files: dict[str, bytes]) -> None:
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        recipes, artifacts = self.root / "published" / "recipes", self.root / "published" / "artifacts" / name / version
        for folder in (recipes, artifacts):
            folder.mkdir(parents=True, exist_ok=True)
        (recipes / f"{name}-{version}.yaml").write_text(yaml.safe_dump(recipe))
        for file_name, data in files.items():
            (artifacts / file_name).write_bytes(data)

    def publish_nucleus(self, version: str, changes: dict[str, bytes] | None = None) -> None:
        data = make_nucleus_zip.archive(version, changes)
        self.publish(make_nucleus_zip.recipe(version), {make_nucleus_zip.ARCHIVE: data})

    def deploy(self, components: dict[str, str]) -> dict[str, Any]:
        request = {
            "recipeDirectoryPath": str(self.root / "published" / "recipes"),
            "artifactsDirectoryPath": str(self.root / "published" / "artifacts"),
            "rootComponentVersionsToAdd": components,
            "failureHandlingPolicy": "ROLLBACK",
        }
        made = self.call("aws.greengrass#CreateLocalDeployment", request)["deploymentId"]
        found: dict[str, Any] = {}

        def ended() -> bool:
            nonlocal found
            found = self.call("aws.greengrass#GetLocalDeploymentStatus", {"deploymentId": made})["deployment"]
            return found["status"] in systems.ENDED

        systems.wait_for(ended, lambda: f"the deployment to end: {found}", WITHIN_S, 0.1)
        return found

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Tries again while the nucleus is between two launches."""
        until = time.monotonic() + WITHIN_S
        while True:
            if (code := self.loader.poll()) is not None:
                self.ends.append(code)
                self.loader = subprocess.Popen([self.root / "bin" / "loader"])
            try:
                facts = json.loads(next((self.root / "cli_ipc_info").glob("user-*")).read_bytes())
                with client.Client(socket_path=facts["domain_socket_path"], token=facts["cli_auth_token"]) as ipc:
                    return ipc.call(operation.partition("#")[2], request)
            except (OSError, StopIteration, client.IPCError):
                if time.monotonic() > until:
                    raise
                pause()

    def running(self) -> str:
        return (self.root / "alts" / "current").readlink().name

    def directories(self) -> set[str]:
        return {one.name for one in (self.root / "alts").iterdir() if one.is_dir() and not one.is_symlink()}

    def states(self) -> dict[str, tuple[str, str]]:
        found = self.call("aws.greengrass#ListComponents", {})["components"]
        theirs = [one for one in found if one["componentName"] != builtin.NUCLEUS]
        return {one["componentName"]: (one["version"], one["state"]) for one in theirs}


def pause() -> None:
    systems.threading.Event().wait(0.05)


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
    systems.wait_for(lambda: machine.directories() == {"init", after_down[0]}, "old launch directories to go", WITHIN_S)


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
