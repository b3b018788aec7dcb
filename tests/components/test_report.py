"""Reports of the model agent over a real IPC: order, reconnecting, the bound, refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import agent_report
import pytest

from nucleus.ipc import client
from nucleus.testkit import nucleus

NAME = "marram.ModelAgent"
WITHIN_S = 20.0


@pytest.fixture
def app(marram_nucleus: nucleus.Nucleus, monkeypatch: pytest.MonkeyPatch) -> nucleus.Component:
    made = marram_nucleus.component(NAME)
    for variable, value in made.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "marram_ipc", client)  # published under that name
    return made


@pytest.fixture
def reporter(app: nucleus.Component) -> Iterator[agent_report.Publisher]:
    made = agent_report.open_reporter()
    yield made
    made.close(WITHIN_S)


def in_cloud(marram_nucleus: nucleus.Nucleus) -> list[tuple[str, dict[str, Any]]]:
    return [(topic, json.loads(payload)) for topic, payload, _, _ in list(marram_nucleus.iot_core.published)]


def test_report_when_published_then_on_both_topics_with_who_and_when(
    marram_nucleus: nucleus.Nucleus, reporter: agent_report.Publisher
) -> None:
    local = marram_nucleus.subscribe("marram/models/+/+")

    reporter.publish("power-curve", "trial", {"outcome": "promoted"})

    topic, message = local.take()
    assert topic == "marram/models/power-curve/trial"
    assert (message["alias"], message["thing"], message["outcome"]) == ("power-curve", "test-thing", "promoted")
    assert (message["schemaVersion"], message["at"] > 1.7e9) == (1, True)
    marram_nucleus.until(lambda: len(in_cloud(marram_nucleus)) == 1, "the message to the cloud")
    assert in_cloud(marram_nucleus) == [("marram/things/test-thing/models/power-curve/trial", message)]
    marram_nucleus.until(lambda: reporter.counts()["sent"] == 2, "both counted")


def test_report_when_only_for_this_device_then_not_in_the_cloud(
    marram_nucleus: nucleus.Nucleus, reporter: agent_report.Publisher
) -> None:
    local = marram_nucleus.subscribe("marram/models/#")

    reporter.publish("a", "metrics", {"n": 1}, cloud=False)
    reporter.publish("a", "status", {"n": 2})

    assert [local.get()["n"], local.get()["n"]] == [1, 2]
    marram_nucleus.until(lambda: bool(in_cloud(marram_nucleus)), "the message to the cloud")
    assert [message["n"] for _, message in in_cloud(marram_nucleus)] == [2]


def test_report_when_the_nucleus_restarts_then_sent_afterwards_in_order(
    marram_nucleus: nucleus.Nucleus, reporter: agent_report.Publisher
) -> None:
    local = marram_nucleus.subscribe("marram/models/#")
    reporter.publish("a", "status", {"n": 0})
    assert local.get()["n"] == 0

    marram_nucleus.restart()
    for number in range(1, 6):
        reporter.publish("a", "status", {"n": number})

    found: list[int] = []
    while not found or found[-1] < 5:
        found.append(local.get()["n"])
    assert sorted(set(found)) == [number for number in range(6) if number in found]
    assert set(found) >= {1, 2, 3, 4, 5}
    assert found == sorted(found)


def test_report_when_the_nucleus_refuses_the_topic_then_said_once_and_the_others_go_on(
    marram_nucleus: nucleus.Nucleus, reporter: agent_report.Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    marram_nucleus.faults.deny("PublishToIoTCore")
    local = marram_nucleus.subscribe("marram/models/#")

    for number in range(3):
        reporter.publish("a", "status", {"n": number})

    assert [local.get()["n"] for _ in range(3)] == [0, 1, 2]
    marram_nucleus.until(lambda: reporter.counts()["refused"] == 3, "the refusals")
    assert capsys.readouterr().err.count("UnauthorizedError") == 1
    assert in_cloud(marram_nucleus) == []


def test_queue_when_full_then_the_oldest_metrics_go_first_and_are_counted(
    marram_nucleus: nucleus.Nucleus, reporter: agent_report.Publisher
) -> None:
    marram_nucleus.faults.drop("PublishToTopic")
    reporter.publish("a", "status", {"n": "in flight"}, cloud=False)
    reporter.publish("a", "trial", {"n": "first"}, cloud=False)
    for number in range(agent_report.QUEUE_LIMIT):
        reporter.publish("a", "metrics", {"n": number}, cloud=False)
    counts = reporter.counts()
    local = marram_nucleus.subscribe("marram/models/#")

    marram_nucleus.faults.clear()
    marram_nucleus.restart()  # the call that was never answered ends with its connection

    found = [local.get()["n"] for _ in range(agent_report.QUEUE_LIMIT)]
    assert (counts["dropped"], counts["waiting"]) == (2, agent_report.QUEUE_LIMIT)
    assert found == ["in flight", "first", *range(2, agent_report.QUEUE_LIMIT)]


def test_report_when_too_large_then_refused_with_its_size(reporter: agent_report.Publisher) -> None:
    with pytest.raises(ValueError, match="cannot report metrics of a"):
        reporter.publish("a", "metrics", {"n": "x" * agent_report.PAYLOAD_LIMIT_BYTES})


def test_reporter_when_started_by_hand_then_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SVCUID", raising=False)

    assert agent_report.open_reporter() is agent_report.NONE
