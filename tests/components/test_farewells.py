"""Releases and withdrawals that cannot be done just now: the agent does them later, unless the component is back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import agent_changes
import agent_farewells
import agent_takeover
import pytest

from tests.components import parts


class Table:
    """Stands for the aliases: notes what was done, while its disk takes anything."""

    def __init__(self) -> None:
        self.full = True
        self.done: list[str] = []

    def release(self, component: str, version: str) -> str:
        return self._write(f"{component} {version} was released")

    def withdraw(self, component: str, version: str) -> str:
        return self._write(f"{component} {version} was withdrawn")

    def _write(self, line: str) -> str:
        if self.full:
            raise OSError("no space left")
        self.done.append(line)
        return line


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def changes() -> agent_changes.Changes:
    return agent_changes.Changes()


@pytest.fixture
def farewells(table: Table, changes: agent_changes.Changes) -> agent_farewells.Farewells:
    return agent_farewells.Farewells(table, changes)


def refused(farewells: agent_farewells.Farewells, verb: str, version: str = "1.0.0") -> None:
    with pytest.raises(OSError, match="no space left"):
        farewells.take(verb, "a", version)


def test_farewell_when_it_could_not_be_done_then_done_once_later(
    farewells: agent_farewells.Farewells, table: Table
) -> None:
    refused(farewells, "release")
    refused(farewells, "withdraw")
    with pytest.raises(OSError, match="no space left"):
        farewells.tick()
    table.full = False

    lines = [farewells.tick(), farewells.tick()]

    assert table.done == ["a 1.0.0 was released", "a 1.0.0 was withdrawn"]
    assert lines == [
        [
            "release, which could not be done before: a 1.0.0 was released",
            "withdraw, which could not be done before: a 1.0.0 was withdrawn",
        ],
        [],
    ]


def test_farewell_when_asked_again_with_success_then_not_done_twice(
    farewells: agent_farewells.Farewells, table: Table
) -> None:
    refused(farewells, "withdraw")
    table.full = False

    assert farewells.take("withdraw", "a", "1.0.0") == "a 1.0.0 was withdrawn"

    assert farewells.tick() == []
    assert len(table.done) == 1


def test_farewell_when_the_component_offers_again_then_forgotten(
    farewells: agent_farewells.Farewells, table: Table
) -> None:
    refused(farewells, "withdraw")
    farewells.offered("a")
    table.full = False

    assert farewells.tick() == []
    assert table.done == []


def test_farewell_when_an_offer_is_under_way_then_not_done_behind_it(
    farewells: agent_farewells.Farewells, table: Table, changes: agent_changes.Changes
) -> None:
    refused(farewells, "withdraw")
    table.full = False
    with changes:  # the offer
        ticking = threading.Thread(target=farewells.tick)
        ticking.start()
        farewells.offered("a")
    ticking.join(parts.WAIT_S)

    assert table.done == []


def test_farewells_when_too_many_wait_then_the_first_ones_do(
    farewells: agent_farewells.Farewells, table: Table
) -> None:
    for number in range(agent_farewells.LIMIT + 10):
        refused(farewells, "withdraw", str(number))
    table.full = False

    assert len(farewells.tick()) == agent_farewells.LIMIT


@pytest.fixture
def frozen(device: parts.Device) -> Iterator[agent_takeover.Predecessor]:
    """An agent that serves 1.0.0 and changes nothing, because somebody takes over, as long as that is not closed."""
    device.start_agent()
    device.offer("1.0.0")
    found = agent_takeover.find(str(device.socket))
    assert found is not None
    found.freeze()
    yield found
    found.close()


@pytest.mark.parametrize(("verb", "left"), [("release", [True]), ("withdraw", [])])
def test_farewell_when_nothing_could_be_changed_and_nobody_asks_again_then_done_all_the_same(
    device: parts.Device, frozen: agent_takeover.Predecessor, verb: str, left: list[bool]
) -> None:
    asked = {"op": verb, "component": parts.MODEL_NAME, "version": "1.0.0"}
    assert parts.ask(device, asked)["code"] == "BUSY"
    assert [row["released"] for row in parts.serving(device)] == [False]

    frozen.close()

    parts.until(lambda: [row["released"] for row in parts.serving(device)] == left, f"the {verb} to be done")
    assert f"{verb}, which could not be done before: {parts.MODEL_NAME} 1.0.0 was" in device.log("marram.ModelAgent")
