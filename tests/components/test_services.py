"""What goes on beside the requests: a fault in one service is its own."""

from __future__ import annotations

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
