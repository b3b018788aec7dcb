"""Settings as values, and the lines of the log."""

from __future__ import annotations

import io
import json

import pytest

from cloud import log, settings


@pytest.mark.parametrize(
    ("names", "advertised", "served"),
    [
        ((), "localhost", ("localhost", "127.0.0.1")),
        (("cloud.example", "10.0.0.5"), "cloud.example", ("cloud.example", "10.0.0.5", "localhost", "127.0.0.1")),
        (("localhost",), "localhost", ("localhost", "127.0.0.1")),
    ],
)
def test_names_when_given_or_not_then_loopback_is_always_served(
    names: tuple[str, ...], advertised: str, served: tuple[str, ...]
) -> None:
    chosen = settings.Settings(names=names)

    assert chosen.advertised() == advertised
    assert chosen.served_names() == served


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.0.5.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_is_local_when_the_host_is_loopback_then_only_this_machine_reaches_it(host: str, local: bool) -> None:
    assert settings.Settings(host=host).is_local() is local


def test_configure_when_json_is_asked_for_then_each_event_is_a_line() -> None:
    stream = io.StringIO()
    logger = log.configure(json=True, stream=stream, level="warning")

    logger.info("device.seen", thing="T")
    logger.warning("outbox.delayed", waiting=3)
    log.configure()

    (line,) = stream.getvalue().splitlines()
    assert {"event": "outbox.delayed", "level": "warning", "waiting": 3}.items() <= json.loads(line).items()


def test_configure_when_the_level_is_unknown_then_it_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        log.configure(level="loud")
