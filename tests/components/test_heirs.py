"""One component in the place of another under one alias: it waits until that is gone, and no request finds nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import agent_check
import agent_engine
import agent_entry
import agent_settings
import agent_table
import pytest

from tests.components import parts
from tests.components.test_holds import INPUTS, Agent, C

B = "com.example.Successor"
REPLACES = agent_settings.read({"replaces": C})


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    made.offer(1)
    yield made
    made.close()


def test_offer_when_it_replaces_who_has_the_alias_then_it_waits(agent: Agent) -> None:
    told = agent.offer(2, REPLACES, component=B)

    assert told.startswith(f"{B} 2.0.0 answers for small as soon as {C} is gone (")
    assert agent.seen() == ("serving", "1.0.0", "1.0.0", "1.0.0")
    assert (agent.row()["heir"], agent.row()["component"]) == (f"{B} 2.0.0", C)


def test_offer_when_it_replaces_somebody_else_then_refused(agent: Agent) -> None:
    with pytest.raises(agent_check.RefusedError, match=f"belongs to {C}, which is running") as refusal:
        agent.offer(2, agent_settings.read({"replaces": "com.example.Other"}), component=B)

    assert refusal.value.code == "FAILED_PRECONDITION"
    assert agent.row()["heir"] == ""


def test_withdraw_when_another_one_waits_then_it_answers_and_no_request_fails(agent: Agent) -> None:
    agent.offer(2, REPLACES, component=B)
    engine, stop, answers = agent_engine.Engine(agent.aliases.serving), threading.Event(), list[str]()

    def ask() -> None:
        while not stop.is_set() or answers[-1] != "2.0.0":
            answers.append(engine.predict("small", INPUTS, time.monotonic() + 20).version)

    asking = threading.Thread(target=ask)
    asking.start()
    parts.until(lambda: len(answers) > 3, "the first answers")
    agent.aliases.release(C, "1.0.0")
    told = agent.aliases.withdraw(C, "1.0.0")
    stop.set()
    asking.join()

    assert told == f"{C} 1.0.0 was withdrawn; small now answers with {B} 2.0.0"
    assert (answers[0], answers[-1], set(answers)) == ("1.0.0", "2.0.0", {"1.0.0", "2.0.0"})
    assert agent.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")
    assert (agent.row()["component"], agent.row()["previous"], agent.row()["heir"]) == (B, "", "")


def test_restart_when_one_waits_then_it_still_does(agent: Agent) -> None:
    agent.offer(2, REPLACES, component=B)
    agent.restart()

    assert agent.offer(2, REPLACES, component=B) == f"{B} 2.0.0 answers for small as soon as {C} is gone"
    agent.aliases.withdraw(C, "1.0.0")
    assert agent.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")


def test_withdraw_when_who_waits_goes_first_then_nothing_changes(agent: Agent) -> None:
    agent.offer(2, REPLACES, component=B)

    assert agent.aliases.withdraw(B, "2.0.0") == f"{B} 2.0.0 was withdrawn; {B} waits for small no more"
    assert agent.row()["heir"] == ""
    assert agent.aliases.withdraw(C, "1.0.0") == f"{C} 1.0.0 was withdrawn; small answers no more"


def test_offer_when_the_one_before_is_updated_meanwhile_then_the_other_still_waits(agent: Agent) -> None:
    agent.offer(2, REPLACES, component=B)
    agent.offer(3)
    assert agent.seen() == ("serving", "3.0.0", "3.0.0", "3.0.0")

    agent.aliases.withdraw(C, "3.0.0")

    assert (agent.seen()[3], agent.row()["component"]) == ("2.0.0", B)


def test_withdraw_when_the_copy_of_who_waits_is_damaged_then_nobody_answers_and_it_is_told(agent: Agent) -> None:
    agent.offer(2, REPLACES, component=B)
    heir = agent.entry().heir
    assert heir is not None
    next((agent.folder / "store" / "models" / heir.key).glob("*.onnx")).write_bytes(b"damaged")

    told = agent.aliases.withdraw(C, "1.0.0")

    assert told.startswith(f"{C} 1.0.0 was withdrawn; small answers no more ({B} cannot take its place: ")
    assert agent.aliases.listed() == []


def test_table_when_what_serves_is_damaged_and_nothing_is_left_then_who_waits_answers() -> None:
    one, two = agent_entry.Held("1.0.0", "k1", C), agent_entry.Held("2.0.0", "k2", B)
    entry = None
    for event in (agent_table.Accepted(one), agent_table.Followed(two), agent_table.Damaged("k1", "torn")):
        entry = agent_table.step(entry, event)

    assert entry is not None
    assert (entry.component, entry.serving, entry.heir) == (B, two, None)
