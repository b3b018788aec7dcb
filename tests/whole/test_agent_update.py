"""The model agent is updated under an application that never stops asking: real nucleus, real agent, local deployments."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.components import parts
from tests.whole.test_handover import lives
from tools import local_nucleus
from tools import system as systems

pytestmark = pytest.mark.whole
WITHIN_S = 60
AGENT, MODEL, ASKER = "marram.ModelAgent", parts.MODEL_NAME, "com.example.Asker"
PROGRAM = """
import json, os, sys, time
import numpy
import model_client
client, answers, failed, longest = model_client.Client(sys.argv[1]), 0, [], 0.0
inputs = {"conditions": numpy.array([[8.0, 10.0]], dtype=numpy.float32)}
before = None
while True:
    try:
        client.predict("power-curve", inputs, deadline_s=60.0)
        now = time.monotonic()
        longest = max(longest, now - before) if before else 0.0
        answers, before = answers + 1, now
    except Exception as error:
        failed.append(repr(error))
    if answers % 20 == 1:
        with open("seen.new", "w") as file:
            json.dump({"pid": os.getpid(), "answers": answers, "failed": failed, "longest_ms": longest * 1000}, file)
        os.replace("seen.new", "seen.json")
"""


class Site:
    """A nucleus, folders of recipes and artifacts, and what the application has seen."""

    def __init__(self, folder: Path) -> None:
        self.recipes, self.artifacts = folder / "recipes", folder / "artifacts"
        self.recipes.mkdir()
        self.nucleus = local_nucleus.Nucleus(folder / "root")
        self.work = self.nucleus.root / "work"

    def publish(self, name: str, version: str, *, made_from: str = "1.0.0", **startup: str) -> None:
        """A recipe of the repository under another version; `prefix` goes before its Startup."""
        recipe = yaml.safe_load((parts.RECIPES / f"{name}-{made_from}.yaml").read_text())
        recipe["ComponentVersion"] = version
        recipe["ComponentConfiguration"]["DefaultConfiguration"]["python"] = sys.executable
        start = recipe["Manifests"][0]["Lifecycle"]["Startup"]
        start["Script"] = startup.get("prefix", "") + start["Script"].replace(made_from, version)
        self._put(recipe)
        source = parts.AGENT if name == AGENT else parts.MODEL / made_from
        parts.publish(f"{name}-{made_from}", source, self.artifacts / name / version)

    def publish_asker(self) -> None:
        recipe = local_nucleus.recipe(
            ASKER, f"exec {sys.executable} {{artifacts:path}}/asker.py ../{AGENT}/agent.sock", {}
        )
        soft = {"VersionRequirement": "*", "DependencyType": "SOFT"}
        recipe["ComponentDependencies"] = {AGENT: soft, MODEL: soft}
        names = ("asker.py", "model_client.py", "model_tensors.py", "agent_frames.py")
        recipe["Manifests"][0]["Artifacts"] = [{"URI": f"s3://BUCKET_NAME/{ASKER}/1.0.0/{one}"} for one in names]
        self._put(recipe)
        folder = self.artifacts / ASKER / "1.0.0"
        folder.mkdir(parents=True)
        (folder / "asker.py").write_text(PROGRAM)
        for one in names[1:]:
            shutil.copyfile(parts.AGENT / one, folder / one)

    def _put(self, recipe: dict[str, Any]) -> None:
        (self.recipes / f"{recipe['ComponentName']}-{recipe['ComponentVersion']}.yaml").write_text(
            yaml.safe_dump(recipe)
        )

    def begin(self, **versions: str) -> str:
        """Deploys; names without the dots that a keyword cannot have."""
        names = {"agent": AGENT, "model": MODEL, "asker": ASKER}
        request = {
            "recipeDirectoryPath": str(self.recipes),
            "artifactsDirectoryPath": str(self.artifacts),
            "rootComponentVersionsToAdd": {names[key]: version for key, version in versions.items()},
        }
        return str(self.nucleus.call("CreateLocalDeployment", request)["deploymentId"])

    def deploy(self, **versions: str) -> str:
        """The status at the end."""
        made, found = self.begin(**versions), dict[str, Any]()

        def ended() -> bool:
            found.update(self.nucleus.call("GetLocalDeploymentStatus", {"deploymentId": made})["deployment"])
            return found["status"] in systems.ENDED

        systems.wait_for(ended, lambda: f"the deployment to end: {found}\n{self.nucleus.log()}", WITHIN_S, 0.05)
        return str(found["status"])

    def pid(self, name: str) -> int:
        (found,) = local_nucleus.pids(self.nucleus.root)[name]
        return found

    def seen(self, more: int = 50) -> dict[str, Any]:
        """What the application saw, when it has had `more` answers than by now."""

        def read() -> dict[str, Any]:
            path = self.work / ASKER / "seen.json"
            return json.loads(path.read_text()) if path.exists() else {"answers": 0}

        until = read()["answers"] + more
        systems.wait_for(lambda: read()["answers"] > until, lambda: f"answers: {read()}", WITHIN_S, 0.02)
        return read()

    def said(self, name: str) -> str:
        return (self.nucleus.root / "logs" / f"{name}.log").read_text()


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="mu") as folder:  # short: socket paths end at 107 bytes
        made = Site(Path(folder))
        try:
            made.publish(AGENT, "1.0.0")
            made.publish(MODEL, "1.1.0", made_from="1.1.0")
            made.publish_asker()
            yield made
        finally:
            made.nucleus.close()


def test_agent_when_updated_the_nucleus_restarted_and_then_updated_badly_then_the_application_notices_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.deploy(agent="1.0.0", model="1.1.0", asker="1.0.0") == "SUCCEEDED", site.said(AGENT)
    first, agent = site.seen(), site.pid(AGENT)
    site.publish(AGENT, "1.0.1")
    assert site.deploy(agent="1.0.1") == "SUCCEEDED", site.said(AGENT)

    updated, successor = site.seen(), site.pid(AGENT)
    assert successor != agent
    assert not lives(agent)
    assert "took over after" in site.said(AGENT)
    assert "component.succeeded" in site.nucleus.log()

    site.nucleus.restart()
    assert site.pid(AGENT) == successor
    site.publish(AGENT, "1.0.2", prefix="echo it cannot >&2; exit 7; ")
    assert site.deploy(agent="1.0.2") == "FAILED"

    # This one takes the socket each time it is tried, and dies before it is RUNNING.
    site.publish(AGENT, "1.0.3")
    program = site.artifacts / AGENT / "1.0.3" / "agent.py"
    assert program.read_text().count("        report_running()\n") == 1
    program.write_text(program.read_text().replace("        report_running()\n", "        os._exit(9)\n"))
    assert site.deploy(agent="1.0.3") == "FAILED"
    assert site.said(AGENT).count("this agent serves again") == 3

    last = site.seen()
    assert site.pid(AGENT) == successor
    assert (first["pid"], first["failed"]) == (updated["pid"], updated["failed"]) == (last["pid"], last["failed"])
    assert last["failed"] == []
    assert last["pid"] == site.pid(ASKER)
    with capsys.disabled():
        print(f"\nagent updated, then badly: {last['answers']} answers, longest gap {last['longest_ms']:.0f} ms")


def test_nucleus_when_killed_in_the_middle_of_the_update_then_one_agent_is_left_and_answers(site: Site) -> None:
    assert site.deploy(agent="1.0.0", model="1.1.0", asker="1.0.0") == "SUCCEEDED", site.said(AGENT)
    site.seen()
    site.publish(AGENT, "1.0.1", prefix="until test -e go; do sleep 0.05; done; ")
    site.begin(agent="1.0.1")
    systems.wait_for(
        lambda: len(local_nucleus.pids(site.nucleus.root).get(AGENT, ())) == 2, "both agents", WITHIN_S, 0.02
    )
    both = local_nucleus.pids(site.nucleus.root)[AGENT]
    os.kill(site.nucleus.process.pid, signal.SIGKILL)
    site.nucleus.process.wait()
    (site.work / AGENT / "go").touch()
    site.nucleus.process = site.nucleus.start()

    site.seen()
    systems.wait_for(lambda: len(local_nucleus.pids(site.nucleus.root).get(AGENT, ())) == 1, "one agent", WITHIN_S)
    assert not any(lives(pid) for pid in both)
    systems.wait_for(lambda: not _deploying(site), lambda: site.nucleus.log(), WITHIN_S)
    assert lives(site.pid(AGENT))
    found = site.nucleus.call("ListComponents", {})["components"]
    assert next(one["version"] for one in found if one["componentName"] == AGENT) == "1.0.1"


def _deploying(site: Site) -> bool:
    listed = site.nucleus.call("ListLocalDeployments", {})["localDeployments"]
    return any(one["status"] not in systems.ENDED for one in listed)
