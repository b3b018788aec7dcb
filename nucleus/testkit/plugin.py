"""The pytest plug-in (entry point `pytest11`): one fixture."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.testkit import nucleus


@pytest.fixture
def marram_nucleus() -> Iterator[nucleus.Nucleus]:
    """A nucleus for one test; see nucleus/testkit/__init__.py. Its folder is short, because a socket's path must be."""
    with tempfile.TemporaryDirectory(prefix="marram-") as folder:
        one = nucleus.Nucleus(Path(folder))
        one.start()
        try:
            yield one
        finally:
            one.close()
