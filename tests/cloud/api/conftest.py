"""The service that the tests of this folder call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.api import service as running_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[running_service.Service]:
    with running_service.running(tmp_path) as running:
        yield running
