"""The start's configuration file: below what deployments set, or in place of everything when it was given as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nucleus import settings, wiring
from nucleus.core import builtin, configuration, desired
from nucleus.host import logs
from nucleus.store import configuration as configuration_store

USER = (desired.SERVICES, builtin.NUCLEUS, "configuration", "runWithDefault", "posixUser")


class Starts:
    """Starts of one root: each reads a file and takes it over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = configuration_store.ConfigurationStore(root / "config")
        self.store.open()

    def start(self, file: Path) -> None:
        wiring.take_file(self.store, settings.read(file, self.root), logs.Log("test", directory=self.root))

    def deploy(self, path: configuration.Path, value: Any) -> None:
        self.store.commit((configuration.Change(path, value, self.store.now(), "deployment:d"),))

    def user(self) -> Any:
        return configuration.get(self.store.tree, USER)


def write(path: Path, user: str, comment: str = "") -> Path:
    nucleus = {"configuration": {"runWithDefault": {"posixUser": user}}}
    path.write_text(comment + yaml.safe_dump({"services": {builtin.NUCLEUS: nucleus}}))
    return path


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    return Starts(tmp_path)


def test_own_file_when_changed_on_a_root_that_has_run_then_taken_unless_a_deployment_has_set_the_value(
    starts: Starts,
) -> None:
    own = write(starts.root / settings.FILE, "one")
    starts.start(own)
    starts.start(write(own, "two"))
    assert starts.user() == "two"

    starts.deploy(USER, "deployed")
    starts.start(write(own, "three"))
    assert starts.user() == "deployed"


def test_given_file_when_another_one_then_it_replaces_everything(starts: Starts) -> None:
    starts.start(write(starts.root / settings.FILE, "one"))
    starts.deploy(USER, "deployed")
    starts.deploy((desired.SERVICES, "com.example.A", "componentType"), "aws.greengrass.generic")
    starts.deploy((*desired.GROUPS, "thinggroup/g", "com.example.A", "version"), "1.0.0")

    starts.start(write(starts.root / "given.yaml", "given"))

    assert starts.user() == "given"
    assert desired.installed(starts.store.tree) == {}
    assert desired.roots(starts.store.tree) == {}


def test_given_file_when_the_same_again_then_what_deployments_brought_stays(starts: Starts) -> None:
    given = write(starts.root / "given.yaml", "given")
    starts.start(given)
    starts.deploy(USER, "deployed")

    starts.start(write(given, "given", "# only a comment\n"))
    assert starts.user() == "deployed"

    starts.start(write(given, "other"))
    assert starts.user() == "other"
