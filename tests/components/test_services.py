"""What goes on beside the requests: a fault in one service is its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import agent
import agent_aliases
import agent_beside
import agent_engine
import agent_farewells
import agent_registry
import agent_services
import pytest


class Service:
    """Fails with what it is given, then works."""

    def __init__(self, *faults: Exception) -> None:
        self.faults, self.turns = list(faults), 0

    def tick(self) -> list[str]:
        self.turns += 1
        if self.faults:
            raise self.faults.pop(0)
        return [f"turn {self.turns}"]

    def close(self) -> None:
        pass


def test_tick_when_one_service_fails_then_told_once_per_reason_and_the_others_have_their_turns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = Service(OSError("disk full"), OSError("disk full"), KeyError("x"), OSError("disk full"))
    good = Service()
    services = agent_services.Services((bad, good), {})

    for _ in range(5):
        agent_services.tick(services)

    told = capsys.readouterr()
    assert [line.partition(";")[0] for line in told.err.splitlines()] == [
        "Service cannot do its part: OSError('disk full')",
        "Service cannot do its part: KeyError('x')",
        "Service cannot do its part: OSError('disk full')",
    ]
    assert told.out.splitlines() == ["turn 1", "turn 2", "turn 3", "turn 4", "turn 5", "turn 5"]


def test_open_when_a_successor_has_everything_already_then_nothing_writes_until_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent answers before all of its doors are open, so another one may take over in between."""
    monkeypatch.chdir(tmp_path)  # its work folder
    registry = agent_registry.Registry.open(tmp_path / "store")
    aliases = agent_aliases.Aliases(registry, 0)
    farewells = agent_farewells.Farewells(aliases, registry.changes)
    server: Any = SimpleNamespace(operations={}, farewells=farewells)
    beside = agent_beside.Beside(agent.read_arguments([]), aliases, agent_engine.Engine(aliases.serving), server)
    beside.let_go()

    beside.open(alone=True)

    assert server.operations == {}
    beside.go_on()
    assert "trial" in server.operations
    beside.close()
    registry.close()
