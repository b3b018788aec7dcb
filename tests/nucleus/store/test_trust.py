"""Whom a device trusts and what it has ruled out, changed by several processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nucleus.store import trust
from tests.nucleus.store import trust_writer

WRITERS = 2


def test_changes_when_made_by_several_processes_at_once_then_none_is_lost(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-m", trust_writer.__name__, str(tmp_path), str(number)])
        for number in range(WRITERS)
    ]

    assert [writer.wait(60) for writer in writers] == [0] * WRITERS
    floors = {f"component{number}.{at}": "1.0.0" for number in range(WRITERS) for at in range(trust_writer.CHANGES)}
    assert trust.floors(tmp_path) == floors
    revoked = {f"{number}-{at}" for number in range(WRITERS) for at in range(trust_writer.CHANGES)}
    assert trust.read(tmp_path).revoked == revoked
    assert (tmp_path / ".trust.lock").stat().st_mode & 0o777 == 0o600
