"""What components may not send to the cloud's broker: it would close the connection of the whole device."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from nucleus.ipc import iotcore
from nucleus.testkit import standins
from nucleus.wire import rpc

LONG = "x" * 256


def publish(topic: str, **fields: Any) -> list[str]:
    """The topics that have reached the uplink."""
    uplink = standins.Uplink()
    one: Any = SimpleNamespace(ports=SimpleNamespace(uplink=uplink))
    asyncio.run(iotcore.publish(one, {"topicName": topic, "qos": "1", "payload": b"", **fields}))
    return [name for name, *_ in uplink.published]


@pytest.mark.parametrize(
    "topic", [LONG, "1/2/3/4/5/6/7/8", f"$aws/rules/{LONG}/{LONG}", "$aws/rules/r/1/2/3/4/5/6/7/8", f"$aws/{LONG}"]
)
def test_publish_when_the_topic_is_within_the_limits_then_sent(topic: str) -> None:
    assert publish(topic) == [topic]


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        (f"{LONG}x", "more than 256 bytes"),
        ("1/2/3/4/5/6/7/8/9", "more than 7 slashes"),
        (f"$aws/rules/r/{LONG}x", "more than 256 bytes"),
        ("$aws/rules/r/1/2/3/4/5/6/7/8/9", "more than 7 slashes"),
        ("$aws/rules/r/", "nothing follows"),
        ("$aws/rules/r", "nothing follows"),
        (f"$aws/{LONG}{LONG}", "more than 512 bytes"),
        ("a/+", "wildcards"),
    ],
)
def test_publish_when_the_topic_is_beyond_the_limits_then_refused(topic: str, why: str) -> None:
    with pytest.raises(rpc.OperationError, match=why) as refused:
        publish(topic)

    assert refused.value.shape == "InvalidArgumentsError"


@pytest.mark.parametrize(
    "fields",
    [
        {"responseTopic": "a/#"},
        {"messageExpiryIntervalSeconds": -1},
        {"messageExpiryIntervalSeconds": 2**32},
        {"contentType": "\ud800"},
        {"userProperties": [{"key": "k", "value": "v" * 65_536}]},
    ],
)
def test_publish_when_no_packet_can_be_made_of_a_field_then_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(rpc.OperationError, match="cannot publish to 'a'"):
        publish("a", **fields)
