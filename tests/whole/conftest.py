"""One running system (service and group) for all whole-system tests; each test makes its own device."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import system as systems

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def system() -> Iterator[systems.System]:
    with tempfile.TemporaryDirectory(prefix="mw") as folder:  # short: socket paths end at 107 bytes
        one = systems.System(Path(folder))
        try:
            one.start_cloud()
            yield one
        finally:
            one.close()


@pytest.fixture
def thing(system: systems.System) -> Iterator[str]:
    """A running device in a group of its own name; ended by the fixture."""
    name = f"dev{next(_numbers)}"
    system.create_group(name)
    system.create_device(name, name)
    system.start_nucleus(name)
    yield name
    if name in system.processes:
        system.kill(name, 15)


@pytest.fixture
def component() -> str:
    """A component name that no other test uses."""
    return f"com.example.C{next(_numbers)}"
