"""Orderly restarts of a real daemon: components and their connections stay; and what happens when that cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nucleus.host import launch
from tools import continuity, local_nucleus
from tools import system as systems

pytestmark = pytest.mark.whole
WITHIN_S = 30
SLEEPER, STARTER = "com.example.Sleeper", "com.example.Starter"


@pytest.fixture
def nucleus(tmp_path: Path) -> Iterator[local_nucleus.Nucleus]:
    made = local_nucleus.Nucleus(tmp_path / "root")
    try:
        yield made
    finally:
        made.close()


def state(nucleus: local_nucleus.Nucleus, name: str) -> str:
    found = nucleus.call("ListComponents", {})["components"]
    return str(next(one["state"] for one in found if one["componentName"] == name))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_restart_when_two_clients_are_under_load_then_nothing_is_lost_or_doubled_and_processes_stay() -> None:
    found = continuity.measure(2, 500)

    assert found.is_good(), found
    assert found.sent > 500
    assert found.log.count("nucleus.taken_over") == 2
    assert "ipc.connection_closed" not in found.log


def test_restart_when_messages_go_through_the_cloud_then_none_is_lost() -> None:
    found = continuity.measure(2, 50, cloud=True)

    assert found.is_good(), found
    assert found.log.count("nucleus.taken_over") == 2
    assert found.log.count("session_present=True") == 2


def test_restart_when_a_startup_script_runs_then_it_is_waited_for_by_the_next_image(
    nucleus: local_nucleus.Nucleus, tmp_path: Path
) -> None:
    (tmp_path / "go").mkdir()
    script = f"echo started; until [ -e {tmp_path}/go/on ]; do sleep 0.05; done; exit 0"
    made = local_nucleus.recipe(STARTER, "", {}, Startup=script)
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / f"{STARTER}-1.0.0.yaml").write_text(json.dumps(made))
    request = {"recipeDirectoryPath": str(folder), "rootComponentVersionsToAdd": {STARTER: "1.0.0"}}
    made_id = nucleus.call("CreateLocalDeployment", request)["deploymentId"]
    systems.wait_for(lambda: bool(local_nucleus.pids(nucleus.root)), "the script to start", WITHIN_S)
    before = local_nucleus.pids(nucleus.root)

    nucleus.restart()
    during = (local_nucleus.pids(nucleus.root), state(nucleus, STARTER))
    (tmp_path / "go" / "on").touch()

    assert during == (before, "STARTING")
    systems.wait_for(lambda: state(nucleus, STARTER) == "RUNNING", "the component to run", WITHIN_S)
    wanted = {"deploymentId": made_id}
    systems.wait_for(
        lambda: nucleus.call("GetLocalDeploymentStatus", wanted)["deployment"]["status"] == "SUCCEEDED",
        "the deployment to end",
        WITHIN_S,
    )
    assert nucleus.log().count("component.script_started") == 1


def test_restart_when_a_component_ends_then_the_next_image_hears_of_it_and_of_its_last_words(
    nucleus: local_nucleus.Nucleus, tmp_path: Path
) -> None:
    run = f"printf 'half a '; until [ -e {tmp_path}/end ]; do sleep 0.05; done; echo sentence; exit 7"
    nucleus.deploy([local_nucleus.recipe(SLEEPER, run)])
    command = [sys.executable, "-m", "nucleus.cli", "nucleus", "restart", "--root", str(nucleus.root)]

    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    systems.wait_for(lambda: "nucleus.taken_over" in nucleus.log(), "the next image", WITHIN_S)
    (tmp_path / "end").touch()

    systems.wait_for(lambda: "Run script ended with exit code 7: half a sentence" in nucleus.log(), "its end", WITHIN_S)
    assert "restarts under its components" in said


def test_restart_when_a_component_dies_or_is_restarted_then_it_runs_once(nucleus: local_nucleus.Nucleus) -> None:
    """A death just before the restart may be heard by the old image, by the new one, or wait for it."""
    nucleus.deploy(
        [local_nucleus.recipe(SLEEPER, "exec sleep 100000"), local_nucleus.recipe(STARTER, "exec sleep 100000")]
    )
    before = local_nucleus.pids(nucleus.root)

    os.kill(before[SLEEPER][0], signal.SIGKILL)
    nucleus.restart()
    nucleus.call("RestartComponent", {"componentName": STARTER})

    def anew() -> bool:
        found = local_nucleus.pids(nucleus.root)
        return all(len(found.get(name, ())) == 1 and found[name] != before[name] for name in before)

    systems.wait_for(anew, lambda: f"new processes of both: {local_nucleus.pids(nucleus.root)}", WITHIN_S)
    systems.wait_for(lambda: state(nucleus, SLEEPER) == "RUNNING", "the component to run", WITHIN_S)
    assert not lives(before[STARTER][0])


def test_restart_when_a_probe_runs_and_a_daemon_writes_then_one_ends_and_the_other_goes_on(
    nucleus: local_nucleus.Nucleus, tmp_path: Path
) -> None:
    probe = f"[ -e {tmp_path}/sick ] && exit 1; [ -e {tmp_path}/again ] && exit 0; echo $$ >{tmp_path}/probe; exec sleep 50000"
    check = {"exec": probe, "intervalSeconds": 0.1, "timeoutSeconds": 600, "failureThreshold": 1}
    startup = "(while :; do echo tick; sleep 0.05; done) & exit 0"
    made = local_nucleus.recipe(STARTER, "", {}, Startup=startup)
    made["ComponentConfiguration"]["DefaultConfiguration"]["marram"] = {"healthCheck": check}
    nucleus.deploy([made])
    systems.wait_for(lambda: (tmp_path / "probe").exists(), "the probe", WITHIN_S)
    hanging = int((tmp_path / "probe").read_text() or 0)
    log = nucleus.root / "logs" / f"{STARTER}.log"

    (tmp_path / "again").touch()
    nucleus.restart()
    ticks = log.read_text().count("tick")

    systems.wait_for(lambda: not lives(hanging), "the hanging probe to end", WITHIN_S)
    systems.wait_for(lambda: log.read_text().count("tick") > ticks + 3, "the daemon to write on", WITHIN_S)
    (tmp_path / "sick").touch()
    systems.wait_for(lambda: "component.unhealthy" in nucleus.log(), "the next image's own probe", WITHIN_S)


def test_restart_when_it_is_asked_to_stop_meanwhile_then_it_stops(nucleus: local_nucleus.Nucleus) -> None:
    nucleus.deploy([local_nucleus.recipe(SLEEPER, "exec sleep 100000")])
    before = local_nucleus.pids(nucleus.root)

    nucleus.call("marram#RestartNucleus", {})
    nucleus.process.terminate()

    assert nucleus.process.wait(WITHIN_S) == 0
    assert not lives(before[SLEEPER][0])


def test_restart_when_the_state_cannot_be_read_then_the_ordinary_way(nucleus: local_nucleus.Nucleus) -> None:
    nucleus.deploy([local_nucleus.recipe(SLEEPER, "exec sleep 100000")])
    before = local_nucleus.pids(nucleus.root)
    nucleus.process.kill()
    nucleus.process.wait(WITHIN_S)
    program = (
        "import sys; from pathlib import Path; from nucleus.host import lock, reexec; held = lock.take(Path(sys.argv[1]));"
        "reexec.execute([sys.executable, '-m', 'nucleus', '--root', sys.argv[1]], b'{\"format\": 0}', [held])"
    )

    nucleus.process = subprocess.Popen([sys.executable, "-c", program, str(nucleus.root)])

    systems.wait_for(lambda: "this version reads format" in nucleus.log(), "the ordinary start", WITHIN_S)
    systems.wait_for(lambda: state(nucleus, SLEEPER) == "RUNNING", "the component to run", WITHIN_S)
    after = local_nucleus.pids(nucleus.root)
    assert after.keys() == before.keys()
    assert after != before
    assert not lives(before[SLEEPER][0])


def test_restart_when_the_next_image_is_killed_then_no_component_runs_twice(tmp_path: Path) -> None:
    root = tmp_path / "root"
    stuck = tmp_path / "stuck"
    stuck.write_text("#!/bin/sh\nexec sleep 100000\n")
    stuck.chmod(0o755)
    os.environ[launch.LOADER_VARIABLE] = "1"
    try:
        nucleus = local_nucleus.Nucleus(root)
    finally:
        del os.environ[launch.LOADER_VARIABLE]
    try:
        nucleus.deploy([local_nucleus.recipe(SLEEPER, "exec sleep 100000")])
        before = local_nucleus.pids(root)
        (root / "alts" / "init").mkdir(parents=True)
        (root / "alts" / "init" / "python").write_text(f"{stuck}\n")
        (root / "alts" / "current").symlink_to("init")

        nucleus.call("marram#RestartNucleus", {})
        image = psutil.Process(nucleus.process.pid)
        systems.wait_for(lambda: image.name() == "sleep", "the image that does not take over", WITHIN_S)
        assert lives(before[SLEEPER][0])
        os.kill(nucleus.process.pid, signal.SIGKILL)
        nucleus.process.wait(WITHIN_S)
        nucleus.process = nucleus.start()

        systems.wait_for(lambda: state(nucleus, SLEEPER) == "RUNNING", "the component to run", WITHIN_S)
        assert not lives(before[SLEEPER][0])
        assert len(local_nucleus.pids(root)[SLEEPER]) == 1
    finally:
        nucleus.close()


def test_restart_when_the_deputy_dies_then_components_start_anew(nucleus: local_nucleus.Nucleus) -> None:
    """What clients had sent to it is unknown: no component may go on with half a conversation."""
    nucleus.deploy([local_nucleus.recipe(SLEEPER, "exec sleep 100000")])
    before = local_nucleus.pids(nucleus.root)
    image = psutil.Process(nucleus.process.pid)

    nucleus.call("marram#RestartNucleus", {})
    systems.wait_for(lambda: any(_is_deputy(one, image) for one in image.children()), "the deputy", WITHIN_S, 0.001)
    next(one for one in image.children() if _is_deputy(one, image)).kill()

    systems.wait_for(lambda: "everything starts anew" in nucleus.log(), "the next image", WITHIN_S)
    systems.wait_for(lambda: local_nucleus.pids(nucleus.root).keys() == before.keys(), "the component", WITHIN_S)
    systems.wait_for(lambda: state(nucleus, SLEEPER) == "RUNNING", "the component to run", WITHIN_S)
    assert not lives(before[SLEEPER][0])
    assert local_nucleus.pids(nucleus.root) != before


def _is_deputy(one: psutil.Process, image: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return one.pid not in (0, image.pid) and one.name() == image.name() and one.status() != psutil.STATUS_ZOMBIE
    return False
