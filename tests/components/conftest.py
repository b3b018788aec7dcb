"""Devices for the tests of the components."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import model_client
import pytest

from tests.components import parts
from tools import vision_models


@pytest.fixture
def device() -> Iterator[parts.Device]:
    """A device on which nothing runs yet."""
    with parts.device() as made:
        yield made


@pytest.fixture(scope="module")
def unharmed() -> Iterator[parts.Device]:
    """One agent that serves 1.0.0, for all bad offers and requests of a module: none of them may change it."""
    with parts.device() as made:
        made.start_agent()
        made.offer("1.0.0")
        yield made


@pytest.fixture
def client(device: parts.Device) -> Iterator[model_client.Client]:
    """A client of the device's agent."""
    made = model_client.Client(str(device.socket))
    yield made
    made.close()


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vision demo's models, built once for each worker: a folder for each version."""
    folder = tmp_path_factory.mktemp("detector")
    vision_models.build(folder)
    return folder
