"""A seeded slice of `make crash`: kills and losses of power in every scenario end as they must."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tools.crash import runner

SEED = 20261124


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_device_when_killed_or_without_power_at_any_write_then_it_ends_as_it_must() -> None:
    with tempfile.TemporaryDirectory(prefix="mc") as folder:
        tried, wrong = runner.run(Path(folder), seed=SEED, kills=2, disks=3, updates=1)

    assert tried >= 18
    assert not wrong
