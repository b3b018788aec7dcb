"""What the connection refuses before it can do harm; connections themselves are tested with the broker (tests/whole)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nucleus.core import errors
from nucleus.host import logs
from nucleus.uplink import mqtt, spool


@pytest.fixture
def kept(tmp_path: Path) -> spool.Spool:
    return spool.Spool(logs.Log("test", directory=tmp_path))


@pytest.fixture
def connection(tmp_path: Path, kept: spool.Spool) -> mqtt.Connection:
    none = tmp_path / "none.pem"
    endpoint = mqtt.Endpoint(host="h", port=1, client_id="t1", certificate=none, private_key=none, root_ca=none)
    return mqtt.Connection(endpoint, kept, logs.Log("test", directory=tmp_path))


@pytest.mark.parametrize("topic", ["", "a/#", "+/b", "a\0b", "x" * 70_000])
async def test_publish_when_it_is_no_topic_then_refused_at_once(
    connection: mqtt.Connection, kept: spool.Spool, topic: str
) -> None:
    """In the spool it would be tried again at every connection, in front of everything else."""
    with pytest.raises(errors.NucleusError, match="it is no topic"):
        await connection.publish(topic, b"x")

    assert len(kept) == 0


async def test_publish_when_offline_then_kept(connection: mqtt.Connection, kept: spool.Spool) -> None:
    await connection.publish("a/b", b"x", 1, contentType="text/plain")

    assert len(kept) == 1


async def test_publish_now_when_offline_then_refused_and_not_kept(
    connection: mqtt.Connection, kept: spool.Spool
) -> None:
    with pytest.raises(errors.NucleusError, match="not connected"):
        await connection.publish_now("a/b", b"x")

    assert len(kept) == 0


async def test_receive_when_one_taker_fails_then_the_others_and_the_next_messages_are_served(
    connection: mqtt.Connection,
) -> None:
    seen: list[str] = []

    def breaks(message: mqtt.IncomingMessage) -> None:
        raise ValueError("cannot read it")

    await connection.subscribe("a/+", 1, breaks)
    await connection.subscribe("a/#", 1, lambda message: seen.append(message.topic))
    for name in ("a/1", "a/2"):
        packet = SimpleNamespace(topic=name, payload=b"", retain=False, payload_format_indicator=None)
        connection._inbound.append((SimpleNamespace(**vars(packet), user_properties=None), None))

    connection._drain()

    assert seen == ["a/1", "a/2"]
