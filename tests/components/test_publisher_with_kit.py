"""An example for component authors: the monitor's publisher under the test kit (components/README.md, "Testing").

The publisher runs in the test's own process with the identity and socket that the kit gives to the component.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import alarms
import publisher
import pytest
import windows

from nucleus.testkit import nucleus

NAME = "com.example.turbine.Monitor"
TOPIC = "turbines/turbine-1/alarms"


class Running:
    """A publisher in a thread of its own, with a database that the test fills."""

    def __init__(self, app: nucleus.Component) -> None:
        self._path = app.folder / "alarms.sqlite"
        alarms.Alarms(self._path).close()  # made before its threads begin, as the monitor does
        self._stopped = threading.Event()
        self.publisher = publisher.Publisher("turbine-1", app.folder, lambda: {"rows": 7})
        self._thread = threading.Thread(target=self.publisher.run, args=(self._stopped,))
        self._thread.start()

    def raise_alarm(self, started: str) -> None:
        store = alarms.Alarms(self._path)
        assert store.record("R80711", windows.Window(started, started, 3, 100.0, 900.0, 8.0, "1.0.0"))
        store.close()

    def untold(self) -> int:
        store = alarms.Alarms(self._path)
        found = len(store.unpublished())
        store.close()
        return found

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def running(marram_nucleus: nucleus.Nucleus, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    app = marram_nucleus.component(NAME)
    for variable, value in app.environment.items():
        monkeypatch.setenv(variable, value)
    one = Running(app)
    yield one
    one.stop()


def _in_cloud(marram_nucleus: nucleus.Nucleus) -> list[str]:
    found = list(marram_nucleus.iot_core.published)
    return [json.loads(payload)["started"] for topic, payload, _, _ in found if topic == TOPIC]


def test_alarm_when_raised_then_told_here_and_in_the_cloud(marram_nucleus: nucleus.Nucleus, running: Running) -> None:
    local = marram_nucleus.subscribe("turbines/+/alarms")
    running.raise_alarm("2015-01-01T00:00:00")

    topic, message = local.take()

    assert topic == TOPIC
    assert (message["turbine"], message["started"]) == ("R80711", "2015-01-01T00:00:00")
    marram_nucleus.until(lambda: _in_cloud(marram_nucleus) == ["2015-01-01T00:00:00"], "the message to the cloud")


def test_alarm_when_the_nucleus_refuses_for_a_while_then_kept_and_told_later(
    marram_nucleus: nucleus.Nucleus, running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    local = marram_nucleus.subscribe(TOPIC)
    marram_nucleus.faults.fail("PublishToTopic", "ServiceError", "the nucleus is busy")
    running.raise_alarm("2015-01-01T00:00:00")
    said: list[str] = []
    marram_nucleus.until(
        lambda: bool(said.append(capsys.readouterr().out)) or "the nucleus is busy" in "".join(said), "its complaint"
    )
    assert running.untold() == 1

    marram_nucleus.faults.clear()

    assert local.get()["started"] == "2015-01-01T00:00:00"
    marram_nucleus.until(lambda: running.untold() == 0, "the mark in its database")


def test_alarm_when_the_nucleus_restarts_then_it_connects_again(
    marram_nucleus: nucleus.Nucleus, running: Running
) -> None:
    local = marram_nucleus.subscribe(TOPIC)
    running.raise_alarm("2015-01-01T00:00:00")
    local.get()

    marram_nucleus.restart()
    running.raise_alarm("2015-01-01T01:00:00")

    started = local.get()["started"]
    while (
        started == "2015-01-01T00:00:00"
    ):  # at least once: the mark of the first may have been lost with the connection
        started = local.get()["started"]
    assert started == "2015-01-01T01:00:00"
    assert not running.publisher.broken
