"""Going back to what answered before, offers that are refused, and candidates that find no room at a restart."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_aliases
import agent_check
import agent_gate
import agent_registry
import agent_settings
import agent_trials
import pytest

from tests.components import doubling, models, parts
from tests.components.test_attacks import GOOD, OFFERED, OURS, THEIRS, Kept, Scene
from tests.components.test_holds import TRIAL, Agent, C, refused
from tests.components.test_trials import ENDLESS, Recorder


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.close()


@pytest.fixture
def promoted(agent: Agent) -> Agent:
    """2.0.0 won its trial against 1.0.0; the settings of both ask for one."""
    agent.offer(1, TRIAL)
    agent.offer(2, TRIAL)
    agent.aliases.promote("small", "100 of 100 agree")
    return agent


# ---- back to what answered before ------------------------------------------------------------------------------------


def test_offer_when_it_answered_before_then_it_answers_at_once_without_another_trial(promoted: Agent) -> None:
    promoted.restart()
    promoted.aliases.release(C, "2.0.0")

    line = promoted.offer(1, TRIAL)

    assert line.startswith(f"small now answers with {C} 1.0.0 again (before: {C} 2.0.0; checked in ")
    assert promoted.seen() == ("serving", "1.0.0", "1.0.0", "1.0.0")
    assert promoted.row()["released"] is False


def test_offer_when_a_newer_one_came_without_a_trial_then_back_to_the_promoted_one_whatever_it_lost_since(
    promoted: Agent,
) -> None:
    promoted.offer(9)
    key = promoted.entry().before[-1].key
    lost = ("TRIAL_DISAGREES", "7 of 10 agree")  # what a release before this one kept
    verdicts, text = promoted.aliases.gate.admission.verdicts, agent_settings.text(TRIAL)
    verdicts.keep(key, agent_gate.RUNTIME, text, False, *lost)

    promoted.offer(2, TRIAL)
    promoted.restart()

    assert promoted.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")
    assert [each.version for each in promoted.entry().before] == ["1.0.0"]


def test_offer_when_a_trial_is_running_then_back_to_the_one_before_ends_it(promoted: Agent) -> None:
    promoted.offer(3, TRIAL)

    promoted.offer(1, TRIAL)

    assert promoted.seen() == ("serving", "1.0.0", "1.0.0", "1.0.0")
    assert promoted.aliases.candidate("small") is None


def test_offer_when_the_alias_went_back_from_it_then_tried_anew_and_losing_is_not_final(promoted: Agent) -> None:
    promoted.offer(1, TRIAL)
    first = promoted.offer(2, TRIAL)
    promoted.aliases.drop_candidate("small", "TRIAL_DISAGREES", "7 of 10")
    dropped = (promoted.seen(), promoted.row()["reason"])
    promoted.restart()

    again = promoted.offer(2, TRIAL)

    assert dropped == (("serving", "2.0.0", "1.0.0", "1.0.0"), "TRIAL_DISAGREES: 7 of 10")
    for line in (first, again):
        assert line.startswith(f"{C} 2.0.0 was accepted for a shadow trial; small answers with 1.0.0")


def test_offer_when_what_it_goes_back_to_was_replayed_then_not_compared_with_what_it_replaces(
    device: parts.Device,
) -> None:
    replay = {"records": 50, "minimum": 0.9, "measure": "close", "tolerance": 0.01}
    scene = doubling.Scene(device, capture={"rate": 1.0, "perMinute": 10_000}, replay=replay)
    other = scene.offer("2.0.0", scene.model("2.0.0", wrong=60), capture={"rate": 1.0, "perMinute": 10_000})
    scene.ask(100)
    store = device.work("marram.ModelAgent") / "samples"
    parts.until(lambda: sum(len(file.read_text().splitlines()) for file in store.rglob("*.jsonl")) == 100)

    done = scene.offer("1.0.0", device.root / "offered-1.0.0", replay=replay)
    new = scene.offer("3.0.0", scene.model("3.0.0", wrong=60), replay=replay)
    scene.close()

    assert (other.returncode, done.returncode) == (0, 0), done.stderr
    assert "now answers with" in done.stdout
    assert new.returncode == 1  # what never answered is compared


@pytest.mark.parametrize("versions", [(1, 2, 1), (1, 2, 3, 2), (1, 2, 3, 1)], ids=["1 2 1", "1 2 3 2", "1 2 3 1"])
def test_hold_when_the_alias_went_back_then_never_to_what_it_left(agent: Agent, versions: tuple[int, ...]) -> None:
    for number in versions:
        agent.offer(number)
    agent.restart()

    with refused("NO_PREVIOUS"):
        agent.aliases.hold("small", "drift", "psi")

    assert agent.row()["serving"] == f"{versions[-1]}.0.0"


def test_hold_when_a_newer_version_came_after_going_back_then_to_the_one_that_answered_before_it(agent: Agent) -> None:
    for number in (1, 2, 1, 3):
        agent.offer(number)

    agent.aliases.hold("small", "drift", "psi")

    assert agent.seen() == ("held", "3.0.0", "1.0.0", "1.0.0")


# ---- refusals --------------------------------------------------------------------------------------------------------


def offered(agent: Agent, case: str) -> tuple[Path, Any]:
    """A folder and settings that are refused."""
    folder = agent.folder / "bad"
    match case:
        case "settings":
            return agent.model(2), {"swap": "foo"}
        case "section":
            return agent.model(2), {"drift": {"action": "x"}}
        case "no settings":
            return agent.model(2), ["swap"]
        case "no manifest":
            folder.mkdir()
        case "no JSON":
            folder.mkdir()
            (folder / "model.json").write_text("{")
        case "no model":
            models.weighty(folder, "small", 2, 0.1)
            (folder / "weighty.onnx").unlink()
        case "another's alias":
            models.weighty(folder, "large", 2, 0.1)
        case "a new alias":
            models.weighty(folder, "new", 2, 0.1)
            (folder / "weighty.onnx").write_bytes(b"")
    return folder, {}


CASES = ["settings", "section", "no settings", "no manifest", "no JSON", "no model", "another's alias", "a new alias"]


@pytest.mark.parametrize("case", CASES)
def test_offer_when_it_is_refused_for_whatever_reason_then_the_component_is_alive_and_the_reason_is_listed(
    agent: Agent, case: str
) -> None:
    agent.aliases.offer("com.example.Large", "1.0.0", models.weighty(agent.folder / "large", "large", 1, 0.1))
    agent.offer(1)
    agent.aliases.release(C, "1.0.0")
    assert agent.row(1)["released"] is True
    folder, settings = offered(agent, case)

    with pytest.raises(agent_check.RefusedError) as caught:
        agent.aliases.offer(C, "2.0.0", folder, settings)

    row = agent.row(1)
    assert (row["released"], row["desired"], row["serving"]) == (False, "2.0.0", "1.0.0")
    assert row["reason"].startswith(f"{caught.value.code}: ")
    assert (agent.row()["desired"], agent.row()["reason"]) == ("1.0.0", "")  # of another component


def test_offer_when_its_settings_mean_nothing_then_no_lease_runs_though_the_component_is_stopped_for_that(
    device: parts.Device, tmp_path: Path
) -> None:
    device.start_agent("--lease-seconds", "1")
    header = {"component": C, "version": "1.0.0"}
    folder = models.weighty(tmp_path / "1", "small", 1, 0.1)
    assert parts.ask(device, {"op": "offer", "artifacts": str(folder), **header})["ok"] is True
    parts.ask(device, {"op": "release", **header})

    bad = {"op": "offer", **header, "version": "2.0.0", "artifacts": str(folder), "settings": {"swap": "foo"}}
    reply = parts.ask(device, bad)
    parts.ask(device, {"op": "release", **header, "version": "2.0.0"})  # a nucleus stops what is BROKEN
    other = models.weighty(tmp_path / "2", "other", 1, 0.1)  # its lease ends: time enough has passed
    header = {"component": "com.example.Other", "version": "1.0.0"}
    parts.ask(device, {"op": "offer", "artifacts": str(other), **header})
    parts.ask(device, {"op": "release", **header})
    parts.until(lambda: len(parts.serving(device)) == 1, "the other's lease")

    assert reply["code"] == "INVALID_ARGUMENT"
    assert "swap is 'foo', it must be one of" in reply["message"]
    row = parts.serving(device)[0]
    assert (row["alias"], row["released"], row["serving"]) == ("small", True, "1.0.0")
    assert row["reason"].startswith("INVALID_ARGUMENT: settings: swap is 'foo'")


# ---- signatures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(device: parts.Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.syspath_prepend(device.agent_files)  # where marram_signing.py lies
    scene = Scene(device)
    (device.root / "trust.json").unlink()
    made = Kept(scene, tmp_path / "store")
    yield made
    made.close()


def test_offer_when_a_key_is_trusted_by_now_then_what_serves_unsigned_is_refused_and_answers_on(kept: Kept) -> None:
    folder = kept.scene.model(OFFERED)
    assert "already answers" in kept.aliases.offer(parts.MODEL_NAME, OFFERED, folder)
    keys = {one.id: {"name": "k", "publicKey": base64.b64encode(one.der).decode()} for one in (OURS, THEIRS)}
    kept.scene.trust(keys=keys)

    for _ in range(2):
        with refused("SIGNATURE_MISSING"):
            kept.aliases.offer(parts.MODEL_NAME, OFFERED, folder)
        row = kept.aliases.listed()[0]
        assert (row["serving"], row["released"], row["ready"]) == (OFFERED, False, True)
        assert row["reason"].startswith("SIGNATURE_MISSING: ")
        kept.restart()

    assert "already answers" in kept.offer(OFFERED, THEIRS)  # signed later, and by whom is noted
    assert kept.aliases.listed()[0]["reason"] == ""
    stored = json.loads((kept.folder / "registry.json").read_bytes())["aliases"]["power-curve"]
    assert stored["serving"]["signer"] == THEIRS.id


def test_offer_when_what_is_held_back_has_lost_its_key_then_refused(kept: Kept) -> None:
    kept.scene.trust()
    kept.offer(GOOD)
    kept.offer(OFFERED)
    kept.aliases.hold("power-curve", "drift", "the weather")
    kept.rule_out("SIGNING_KEY_REVOKED")

    with refused("SIGNING_KEY_REVOKED"):
        kept.offer(OFFERED)

    assert kept.aliases.listed()[0]["state"] == "held"


def test_offer_when_what_answered_before_is_below_the_floor_by_now_then_it_does_not_answer_again(kept: Kept) -> None:
    kept.scene.trust()
    kept.rule_out("BELOW_SECURITY_FLOOR")

    with refused("BELOW_SECURITY_FLOOR"):
        kept.offer(GOOD)

    assert kept.aliases.listed()[0]["serving"] == OFFERED


# ---- candidates without room -----------------------------------------------------------------------------------------


@pytest.fixture
def cramped(agent: Agent) -> Agent:
    """2.0.0 is tried beside 1.0.0, and after a restart there is not quite room for both."""
    agent.megabytes = 3
    agent.offer(1)
    agent.offer(2, TRIAL)
    agent.restart(memory_bytes=agent.row()["memory_bytes"] * 3 // 2)
    return agent


def test_restart_when_the_candidate_finds_no_room_then_kept_with_the_reason_and_what_serves_answers(
    cramped: Agent,
) -> None:
    assert cramped.restored[0].startswith(f"small answers with {C} 1.0.0; 2.0.0 cannot be tried: ")
    for _ in range(2):
        row = cramped.row()
        assert cramped.aliases.wake("small", time.monotonic() + parts.WAIT_S) == ""
        assert cramped.seen() == ("trial", "2.0.0", "1.0.0", "1.0.0")
        assert (row["candidate"], cramped.aliases.candidate("small")) == ("2.0.0", None)
        assert row["reason"].startswith("2.0.0 cannot be tried yet: no ")
        cramped.restart(memory_bytes=row["memory_bytes"] * 3 // 2)
    assert cramped.aliases.again() == []

    cramped.restart()

    assert cramped.restored == [f"small answers with {C} 1.0.0, 2.0.0 is being tried"]
    assert cramped.row()["reason"] == ""


def test_candidate_when_there_is_room_again_then_it_is_tried_without_a_restart(agent: Agent) -> None:
    agent.megabytes = 3
    agent.offer(1)
    agent.offer(2, TRIAL)
    large = models.weighty(agent.folder / "large", "large", 1, 6)
    agent.aliases.offer("com.example.Large", "1.0.0", large, agent_settings.Settings(pinned=True))
    figures = {row["alias"]: row["memory_bytes"] for row in agent.aliases.listed()}
    agent.restart(memory_bytes=figures["large"] + figures["small"] * 3 // 2)
    assert agent.aliases.candidate("small") is None

    agent.aliases.withdraw("com.example.Large", "1.0.0")
    agent.aliases.expire()  # what left gives its memory back
    said = agent.aliases.again()

    candidate = agent.aliases.candidate("small")
    assert candidate is not None
    assert (said, candidate.version) == (["small: 2.0.0 is being tried again"], "2.0.0")
    assert (agent.seen(), agent.row()["reason"]) == (("trial", "2.0.0", "1.0.0", "1.0.0"), "")


def test_promote_when_the_candidate_is_out_of_memory_then_it_answers(cramped: Agent) -> None:
    cramped.aliases.promote("small", "it won before the restart")

    assert cramped.aliases.wake("small", time.monotonic() + parts.WAIT_S) == ""
    assert cramped.seen() == ("serving", "2.0.0", "2.0.0", "2.0.0")


def test_offer_when_the_candidate_waits_for_room_then_the_trial_stays_or_is_over(cramped: Agent) -> None:
    with refused("RESOURCE_EXHAUSTED"):
        cramped.offer(2, TRIAL)
    assert (cramped.row()["state"], cramped.row()["candidate"]) == ("trial", "2.0.0")

    cramped.offer(1)

    assert cramped.seen() == ("serving", "1.0.0", "1.0.0", "1.0.0")
    assert (cramped.row()["candidate"], cramped.row()["reason"]) == ("", "")


def test_trial_when_its_candidate_waits_for_room_then_it_stands_still_and_goes_on_later(tmp_path: Path) -> None:
    settings = agent_settings.read({"trial": ENDLESS})
    budgets, outcomes = [0, 1, 0], []
    for place, budget in enumerate(budgets):
        registry = agent_registry.Registry.open(tmp_path / "registry")
        least = max((cost.memory_bytes for cost in registry.costs.values()), default=0)
        aliases = agent_aliases.Aliases(registry, 0, memory_bytes=least * budget)
        aliases.restore()
        if place == 0:
            for version in ("1.0.0", "2.0.0"):
                folder = doubling.table(tmp_path / version, version, [2.0 * x for x in range(doubling.TABLE)])
                aliases.offer("c", version, folder, settings)
        trials = agent_trials.Trials(aliases, Recorder())
        lines = trials.tick()
        outcomes.append((trials.listed()[0]["outcome"], aliases.candidate(doubling.ALIAS) is not None, "".join(lines)))
        trials.close()
        registry.close()

    assert outcomes == [
        ("running", True, "trial: shadow of numbers begins with 2.0.0 (0 samples)"),
        ("running", False, ""),
        ("running", True, "trial: shadow of numbers goes on with 2.0.0 (0 samples)"),
    ]
