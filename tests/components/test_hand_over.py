"""Offers that wait, releases, withdrawals and leases: when an alias is emptied, and when it never is."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import model_client
import pytest

from tests.components import models, parts


def test_release_when_model_serves_then_it_serves_on(device: parts.Device, client: model_client.Client) -> None:
    device.start_agent()
    device.offer("1.0.0")

    done = device.hand_over("release", "1.0.0")

    assert (done.returncode, "still answers with 1.0.0" in done.stdout) == (0, True)
    assert parts.predict(client).version == "1.0.0"
    assert parts.serving(device)[0]["released"] is True


def test_offer_when_released_before_then_release_is_over(device: parts.Device) -> None:
    device.start_agent()
    device.offer("1.0.0")
    device.hand_over("release", "1.0.0")

    device.offer("1.0.0")

    assert parts.serving(device)[0]["released"] is False


def test_refusal_when_predecessor_was_released_then_it_stays_and_goes_with_its_component(
    device: parts.Device, client: model_client.Client
) -> None:
    device.start_agent()
    device.offer("1.1.0")
    device.hand_over("release", "1.1.0")

    refused = device.offer("1.2.0")

    assert refused.returncode == 1
    row = parts.serving(device)[0]
    assert row.pop("reason").startswith("GOLDEN_MISMATCH: golden sample 1 of 8: power_kw is ")
    assert row.pop("memory_bytes") > 0
    assert row == {
        "alias": "power-curve",
        "component": parts.MODEL_NAME,
        "version": "1.1.0",
        "offered": "1.2.0",
        "desired": "1.2.0",
        "serving": "1.1.0",
        "previous": "",
        "candidate": "",
        "heir": "",
        "held_by": "",
        "state": "serving",
        "pinned": False,
        "ready": True,
        "released": False,
        "owner": "deployment",
        "source": str(parts.MODEL / "1.1.0"),
    }
    device.hand_over("withdraw", "1.2.0")
    assert parts.serving(device) == []


@pytest.mark.parametrize("verb", ["release", "withdraw"])
def test_late_news_when_a_successor_serves_then_nothing_changes(
    device: parts.Device, client: model_client.Client, verb: str
) -> None:
    device.start_agent()
    device.offer("1.0.0")
    device.offer("1.1.0")

    done = device.hand_over(verb, "1.0.0")

    assert (done.returncode, "serves nothing here" in done.stdout) == (0, True)
    assert (parts.predict(client).version, parts.serving(device)[0]["released"]) == ("1.1.0", False)


def test_withdraw_when_component_is_gone_then_not_ready(device: parts.Device, client: model_client.Client) -> None:
    device.start_agent()
    device.offer("1.0.0")

    done = device.hand_over("withdraw", "1.0.0")

    assert done.returncode == 0
    assert parts.ask(device, {"op": "predict", "alias": "power-curve", "tensors": []})["code"] == "NOT_READY"
    with pytest.raises(model_client.UnansweredError, match="NOT_READY: no model answers for power-curve yet"):
        parts.predict(client, deadline_s=0.2)
    assert list((device.work("marram.ModelAgent") / "registry/models").iterdir()) == []


def test_lease_when_component_never_comes_back_then_alias_is_empty(device: parts.Device) -> None:
    device.start_agent("--lease-seconds", "0.1")
    device.offer("1.0.0")

    device.hand_over("release", "1.0.0")

    parts.until(lambda: parts.serving(device) == [], "the lease to end")


def ask(device: parts.Device, verb: str, component: str, *more: Path) -> dict[str, Any]:
    artifacts = {"artifacts": str(more[0])} if more else {}
    return parts.ask(device, {"op": verb, "component": component, "version": "1.0.0", **artifacts})


@pytest.mark.parametrize(
    ("verb", "words", "left"),
    [
        ("release", "was released; left still answers with 1.0.0; right still answers with 1.0.0", [True, True]),
        ("withdraw", "was withdrawn; left answers no more; right answers no more", []),
    ],
)
def test_farewell_when_the_component_has_several_aliases_then_all_of_them(
    device: parts.Device, tmp_path: Path, verb: str, words: str, left: list[bool]
) -> None:
    device.start_agent()
    for alias in ("left", "right"):
        assert ask(device, "offer", "com.example.Both", models.identity(tmp_path / alias, alias, {"x": "float32"}))[
            "ok"
        ]
    other = models.identity(tmp_path / "other", "right", {"x": "float64"})
    assert ask(device, "offer", "com.example.Other", other)["code"] == "FAILED_PRECONDITION"

    said = ask(device, verb, "com.example.Both")

    assert said == {"ok": True, "message": f"com.example.Both 1.0.0 {words}"}
    assert [row["released"] for row in parts.serving(device)] == left
    assert ask(device, "offer", "com.example.Other", other)["ok"]


def test_lease_when_the_component_has_several_aliases_then_all_end(device: parts.Device, tmp_path: Path) -> None:
    device.start_agent("--lease-seconds", "0.1")
    for alias in ("left", "right"):
        ask(device, "offer", "com.example.Both", models.identity(tmp_path / alias, alias, {"x": "float32"}))

    ask(device, "release", "com.example.Both")

    parts.until(lambda: parts.serving(device) == [], "both leases to end")


def test_bundle_when_given_back_then_it_answers_over_restarts_until_a_deployment_takes_its_place(
    device: parts.Device, client: model_client.Client, tmp_path: Path
) -> None:
    agent = device.start_agent("--lease-seconds", "0.1")
    bundle = {"op": "apply_bundle", "component": parts.MODEL_NAME, "version": "1.0.0"}
    assert parts.ask(device, bundle | {"artifacts": str(parts.MODEL / "1.0.0")})["ok"]
    gone = models.identity(tmp_path / "gone", "gone", {"x": "float32"})  # its lease shows that leases end meanwhile

    assert parts.ask(device, {"op": "release_bundle", "component": parts.MODEL_NAME})["ok"]
    for _ in range(2):
        ask(device, "offer", "com.example.Gone", gone)
        ask(device, "release", "com.example.Gone")
        parts.until(lambda: len(parts.serving(device)) == 1, "the other's lease to end")
        answered = parts.predict(client)
        assert (answered.component, answered.version) == (parts.MODEL_NAME, "1.0.0")
        agent.kill()
        agent.wait(parts.WAIT_S)
        agent = device.start_agent("--lease-seconds", "0.1")

    more = ("--artifacts", parts.MODEL / "1.1.0", "--component", "com.example.Other")
    assert device.hand_over("offer", "1.1.0", *more).returncode == 0
    assert [(row["component"], row["owner"], row["released"]) for row in parts.serving(device)] == [
        ("com.example.Other", "deployment", False)
    ]


@pytest.mark.parametrize("verb", ["release", "withdraw"])
def test_farewell_when_agent_is_gone_then_exits_0(device: parts.Device, verb: str) -> None:
    done = device.hand_over(verb, "1.0.0")

    assert (done.returncode, "the model agent was not told" in done.stdout) == (0, True)


@pytest.mark.parametrize("verb", ["release", "withdraw"])
def test_farewell_when_agent_hangs_then_exits_0(device: parts.Device, verb: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(device.socket))
        silent.listen(1)

        done = device.hand_over(verb, "1.0.0")

    assert (done.returncode, "the model agent was not told" in done.stdout) == (0, True)


def test_offer_when_agent_starts_later_then_waits_for_it(device: parts.Device, client: model_client.Client) -> None:
    words = device.words("offer", "1.0.0", "--artifacts", parts.MODEL / "1.0.0")
    offering = device.start(parts.MODEL_NAME, device.agent_files / "hand_over.py", *words)

    device.start_agent()

    assert offering.wait(parts.WAIT_S) == 0
    assert parts.predict(client).version == "1.0.0"


def test_offer_when_no_agent_comes_then_says_so(device: parts.Device) -> None:
    done = device.hand_over("offer", "1.0.0", "--artifacts", parts.MODEL / "1.0.0", "--wait-seconds", "0.2")

    assert done.returncode == 3
    assert done.stderr.startswith(
        f"cannot offer {parts.MODEL_NAME} 1.0.0 to the model agent within 0.2 s: the agent at"
    )


def test_hand_over_when_read_then_it_needs_only_the_standard_library() -> None:
    for name in ("hand_over.py", "agent_frames.py"):
        text = Path(parts.AGENT / name).read_text()
        imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
        ours = {"agent_frames"}
        assert {each.partition(".")[0] for each in imported} - ours <= sys.stdlib_module_names
