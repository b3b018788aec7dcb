"""`marram pubsub` and `marram iotcore` against a running nucleus."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nucleus.cli import exits
from tests.cli import device, marram


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with device.running() as made:
        yield made


def test_messages_when_published_then_the_subscriber_prints_them(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    listen = ("pubsub", "sub", "-t", "news/#", "-n", "3", "-o", "json", "--root", root)
    with marram.running(log, lambda: "listening to news/#" in log.read_text(), *listen) as subscriber:
        for message in ('{"a": 1}', "plain text", "[1"):
            assert marram.run("pubsub", "pub", "-t", "news/1", "-m", message, "--root", root).code == exits.OK
        assert subscriber.wait(20) == exits.OK

    lines = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    assert [one["message"] for one in lines] == [{"a": 1}, "plain text", "[1"]
    assert {one["topic"] for one in lines} == {"news/1"}


def test_subscription_when_nothing_comes_in_time_then_code_4(root: Path) -> None:
    began = time.monotonic()
    shown = marram.run("pubsub", "sub", "-t", "silence", "--timeout", "0.05", "--root", root)

    assert shown.code == exits.TIMED_OUT
    assert "no (further) message within 0.05 s" in shown.err
    assert time.monotonic() - began >= 0.05


def test_cloud_when_the_device_has_none_then_the_error_says_so(root: Path) -> None:
    shown = marram.run("iotcore", "pub", "-t", "a", "-m", "b", "--root", root)

    assert shown.code == exits.ERROR
    assert "cloud" in shown.err


def test_debug_password_when_asked_for_then_user_password_and_time(root: Path) -> None:
    first, second = (marram.run("get-debug-password", "--root", root, "-o", "json").json["item"] for _ in range(2))
    shown = marram.run("get-debug-password", "--root", root)

    assert first["username"] == "debug"
    assert len(first["password"]) >= 24
    assert first["password"] != second["password"]
    assert shown.out.startswith("Username: debug\nPassword: ")
