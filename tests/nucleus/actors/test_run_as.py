"""Components that run as another user: real users, real files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from nucleus.core import document
from nucleus.core.component import Component, RunWith
from nucleus.core.lifecycle import Effect, State
from tests.nucleus.actors import device as devices
from tests.nucleus.actors.test_supervisor import A, Bench, one

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may switch users")
WHO = 'echo "$(id -un):$(id -gn) $HOME $USER" > who; id -G > groups'


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that everybody may pass: pytest's own are private."""
    found = Path(tempfile.mkdtemp(prefix="marram-users-"))
    found.chmod(0o755)
    yield found / "root"
    shutil.rmtree(found)


def as_user(user: str, record: Component) -> Component:
    return structs.replace(record, run_with=RunWith(posix_user=user))


async def test_run_when_a_default_user_is_set_then_it_runs_as_that_one_with_its_home(root: Path) -> None:
    bench = Bench(root, user="nobody")
    async with bench.running() as running:
        running.adopt(one(A, {"run": WHO}), Effect.START)
        await bench.settled(A, State.FINISHED)

    assert bench.work(A, "who").split() == ["nobody:nogroup", "/nonexistent", "nobody"]
    assert bench.work(A, "groups").split() == ["65534"]  # none of root's
    assert bench.places.work(A).stat().st_uid == 65534


async def test_run_when_the_deployment_names_numbers_then_these_are_taken(root: Path) -> None:
    bench = Bench(root, user="nobody")
    async with bench.running() as running:
        running.adopt(as_user("45678:45679", one(A, {"run": 'echo "$(id -u):$(id -g) $HOME" > who'})), Effect.START)
        await bench.settled(A, State.FINISHED)

    assert bench.work(A, "who").split() == ["45678:45679", str(bench.places.work(A))]


async def test_run_when_a_step_requires_privilege_then_that_one_runs_as_the_nucleus(root: Path) -> None:
    install = {"Script": "id -un > installed", "RequiresPrivilege": True}
    bench = Bench(root, user="nobody")
    async with bench.running() as running:
        running.adopt(one(A, {"install": install, "run": "cat installed; id -un > ran"}), Effect.START)
        await bench.settled(A, State.FINISHED)

    assert (bench.work(A, "installed"), bench.work(A, "ran")) == ("root\n", "nobody\n")


async def test_run_when_artifacts_are_private_then_the_user_gets_them(root: Path) -> None:
    bench = Bench(root, user="nobody")
    artifacts = bench.places.artifacts(A, "1.0.0")
    artifacts.mkdir(parents=True)
    (bench.places.root / "packages").chmod(0o700)
    (artifacts / "tool").write_text("echo made > made\n")
    (artifacts / "tool").chmod(0o700)
    async with bench.running() as running:
        running.adopt(one(A, {"run": f"sh {artifacts}/tool"}), Effect.START)
        await bench.settled(A, State.FINISHED)

    assert bench.work(A, "made") == "made\n"


async def test_run_when_nobody_is_named_then_errored_with_the_code_of_each_phase(root: Path) -> None:
    bench = Bench(root, user="")
    async with bench.running() as running:
        running.adopt(one(A, {"run": "touch ran"}), Effect.START)
        health = await bench.settled(A, State.BROKEN)
        newer = running.adopt(one(A, {"install": "touch ran"}, version="2.0.0"), Effect.REINSTALL)
        again = await bench.settled(A, State.BROKEN, newer)

    assert health.status_code == "RUN_MISSING_DEFAULT_RUNWITH"
    assert "set runWith.posixUser" in health.reason
    assert again.status_code == "INSTALL_MISSING_DEFAULT_RUNWITH"
    assert not (bench.places.work(A) / "ran").exists()


async def test_run_when_the_user_does_not_exist_then_errored_and_it_says_so(root: Path) -> None:
    bench = Bench(root, user="no-such-user")
    async with bench.running() as running:
        running.adopt(one(A, {"run": "true"}), Effect.START)
        health = await bench.settled(A, State.BROKEN)

    assert health.status_code == "RUN_CONFIG_NOT_VALID"
    assert "no user no-such-user" in health.reason


async def test_run_when_a_parent_of_the_root_is_private_then_the_folder_is_named(root: Path) -> None:
    root.parent.chmod(0o700)
    bench = Bench(root, user="nobody")
    async with bench.running() as running:
        running.adopt(one(A, {"run": "true"}), Effect.START)
        health = await bench.settled(A, State.BROKEN)

    assert health.status_code == "RUN_IO_ERROR"
    assert f"user nobody may not pass {root.parent}" in health.reason


async def test_stop_when_it_runs_as_another_user_then_all_of_it_ends(root: Path) -> None:
    bench = Bench(root, user="nobody")
    async with bench.running() as running:
        running.adopt(
            one(A, {"run": "(trap '' TERM; exec sleep 1000) & echo $! > child; exec sleep 1000"}), Effect.START
        )
        await bench.settled(A, State.RUNNING)
        running.stop_component(A)
        health = await bench.settled(A, State.FINISHED)

    assert health.pids == ()


async def test_deploy_when_its_user_does_not_exist_then_refused_and_nothing_changes(tmp_path: Path) -> None:
    device = devices.Device(tmp_path / "root")
    device.publish(devices.recipe(A, "1.0.0", {"Run": "true"}))
    async with device.running():
        wish = document.Wish(version="1.0.0", run_with=RunWith(posix_user="no-such-user"))
        result = await device.deploy({A: wish})

    assert result.detailed == "FAILED_NO_STATE_CHANGE"
    assert result.stack == ("DEPLOYMENT_FAILURE", "RUN_WITH_CONFIG_NOT_VALID")
    assert f"cannot run {A} 1.0.0" in result.cause
