"""The broker without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cloud.mqtt.broker import table as tables


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[tables.Table]:
    made = tables.Table(tmp_path / "broker.db")
    yield made
    made.journal.stop()
    await made.journal.run()
