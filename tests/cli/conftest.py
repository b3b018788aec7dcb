"""One running service for all tests of operator verbs in a process, made and reached by `marram` alone."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import marram

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def service() -> Iterator[Path]:
    """The root folder of a running service."""
    with tempfile.TemporaryDirectory(prefix="mc") as folder:
        root = Path(folder) / "cloud"
        assert marram.run("cloud", "init", "--root", root).code == 0
        ports = ("--api-port", "0", "--device-port", "0", "--mqtt-port", "0")
        ready = (root / "endpoints.json").exists
        with marram.running(Path(folder) / "log", ready, "cloud", "run", "--root", root, *ports):
            yield root


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MARRAM_ROOT", "MARRAM_DEVICE_ROOT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"name{next(_numbers)}"
