"""A broker process with its own CA and folder, and clients of other makers that connect to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cloud.mqtt import harness


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[harness.Bench]:
    """A running broker in a child process; things `one` and `two` and an operator are known to it."""
    async with harness.running(tmp_path) as running:
        yield running
