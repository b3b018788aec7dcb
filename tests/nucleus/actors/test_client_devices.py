"""Who a client device is: by the cloud, by what it said before, and for how long; tokens and their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nucleus import vault
from nucleus.actors import client_devices
from nucleus.core import certificate
from nucleus.core import client_devices as words
from nucleus.host import logs
from nucleus.store import client_devices as store
from nucleus.uplink import dataplane


def _certificate() -> str:
    item = {"name": "device", "from": 0, "until": 2_000_000_000}
    return str(vault.authority({"items": [item]})["items"][0]["certificate"])


PEM, OTHER = _certificate(), _certificate()
ALL = {"operations": ["*"], "resources": ["*"]}


class Bench:
    """Client devices with a cloud, clocks and a configuration in the test's hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = logs.Log("test", directory=folder / "logs")
        self.cloud: dict[tuple[str, str], bool] | None = {}  # None: no answer
        self.asked = 0
        self.now_s, self.until_s = 1_000_000.0, 9_000_000.0
        groups = {"definitions": {"g": {"selectionRule": "thingName: *", "policyName": "p"}}}
        self.configuration: dict[str, Any] = {"deviceGroups": {**groups, "policies": {"p": {"s": ALL}}}}
        self.start()

    def start(self) -> None:
        """A process image of its own."""
        kept, read = store.ClientDeviceStore(self.folder / "kept"), lambda: words.read(self.configuration)
        clock = lambda: self.now_s  # noqa: E731
        self.devices = client_devices.ClientDevices(kept, self._ask, read, self.log, wall=clock, steady=clock)

    def configure(self, **changes: Any) -> None:
        self.configuration |= changes
        self.devices.changed()

    async def _ask(self, pem: str, thing: str) -> tuple[bool, float]:
        self.asked += 1
        if self.cloud is None:
            raise dataplane.Unavailable("NETWORK_ERROR", "the cloud is away")
        return self.cloud.get((pem, thing), False), self.until_s


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_verify_when_the_cloud_says_so_then_it_is_not_asked_again_for_a_minute(bench: Bench) -> None:
    bench.cloud = {(PEM, ""): True}

    assert await bench.devices.verify(PEM)
    bench.now_s += 59
    assert await bench.devices.verify(PEM)
    assert bench.asked == 1
    bench.now_s += 2
    assert await bench.devices.verify(PEM)
    assert bench.asked == 2


async def test_verify_when_it_is_no_certificate_or_unknown_then_no(bench: Bench) -> None:
    assert not await bench.devices.verify("no certificate")
    assert bench.asked == 0
    assert not await bench.devices.verify(PEM)


async def test_verify_when_the_cloud_is_away_then_who_was_verified_is_for_a_week_even_after_a_restart(
    bench: Bench,
) -> None:
    bench.cloud = {(PEM, "pump"): True}
    assert await bench.devices.verify(PEM, "pump")
    bench.cloud = None
    bench.start()

    bench.now_s += 168 * 3600
    assert await bench.devices.verify(PEM, "pump")
    for stranger in ((PEM, ""), (PEM, "other"), (OTHER, "pump")):
        with pytest.raises(dataplane.Unavailable, match="the cloud is away"):
            await bench.devices.verify(*stranger)
    bench.now_s += 1
    with pytest.raises(dataplane.Unavailable):
        await bench.devices.verify(PEM, "pump")


async def test_verify_when_the_cloud_is_away_then_it_is_not_asked_for_every_known_device(bench: Bench) -> None:
    bench.cloud = {(PEM, ""): True, (PEM, "pump"): True}
    assert await bench.devices.verify(PEM)
    assert await bench.devices.verify(PEM, "pump")
    bench.cloud, bench.now_s = None, bench.now_s + 100

    assert await bench.devices.verify(PEM)
    assert await bench.devices.verify(PEM, "pump")

    assert bench.asked == 3


@pytest.mark.parametrize("moved_s", [-301.0, 8_000_001.0])
async def test_verify_when_the_clock_was_set_back_or_the_certificate_is_over_then_not_by_memory(
    bench: Bench, moved_s: float
) -> None:
    bench.configure(marram={"offlineTrustHours": 10_000})
    bench.cloud = {(PEM, ""): True}
    assert await bench.devices.verify(PEM)
    bench.cloud = None
    bench.now_s += moved_s

    with pytest.raises(dataplane.Unavailable):
        await bench.devices.verify(PEM)


async def test_verify_when_the_cloud_denies_then_memory_and_tokens_are_gone(bench: Bench) -> None:
    bench.cloud = {(PEM, ""): True, (PEM, "pump"): True}
    token = await bench.devices.token("pump", PEM)
    bench.now_s += 61
    bench.cloud = {}
    assert not await bench.devices.verify(PEM)

    with pytest.raises(words.InvalidTokenError):
        bench.devices.authorize(token, "mqtt:publish", "mqtt:topic:a")
    bench.cloud = None
    bench.start()
    with pytest.raises(dataplane.Unavailable):
        await bench.devices.verify(PEM, "pump")


async def test_verify_when_the_kept_file_is_damaged_then_it_begins_anew(bench: Bench) -> None:
    (bench.folder / "kept").mkdir()
    (bench.folder / "kept" / "verified.json").write_text("{")
    bench.start()
    bench.cloud = {(PEM, ""): True}

    assert await bench.devices.verify(PEM)
    kept = store.ClientDeviceStore(bench.folder / "kept").verified()
    assert [one.certificate_id for one in kept] == [certificate.fingerprint(PEM)]
    assert (bench.folder / "kept" / "verified.json").stat().st_mode & 0o777 == 0o600


async def test_token_when_asked_twice_then_the_same_and_it_ends_after_a_day(bench: Bench) -> None:
    bench.cloud = {(PEM, "pump"): True}
    token = await bench.devices.token("pump", PEM)

    assert await bench.devices.token("pump", PEM) == token
    assert bench.devices.authorize(token, "mqtt:publish", "mqtt:topic:a")
    bench.now_s += client_devices.TOKEN_LIFE_S + 1
    with pytest.raises(words.InvalidTokenError, match="unknown or too old"):
        bench.devices.authorize(token, "mqtt:publish", "mqtt:topic:a")
    assert await bench.devices.token("pump", PEM) != token


async def test_token_when_there_are_too_many_then_the_oldest_go(bench: Bench) -> None:
    bench.configure(performance={"maxActiveAuthTokens": 2})
    bench.cloud = {(PEM, name): True for name in "abc"}
    tokens = [await bench.devices.token(name, PEM) for name in "abac"]

    assert tokens[0] == tokens[2]
    with pytest.raises(words.InvalidTokenError):
        bench.devices.authorize(tokens[1], "mqtt:publish", "mqtt:topic:a")
    assert all(bench.devices.authorize(tokens[at], "mqtt:publish", "mqtt:topic:a") for at in (2, 3))
    bench.configure(performance={"maxActiveAuthTokens": 1})
    with pytest.raises(words.InvalidTokenError):
        bench.devices.authorize(tokens[0], "mqtt:publish", "mqtt:topic:a")


@pytest.mark.parametrize(("cloud", "why"), [({}, "no thing pump of this account"), (None, "the cloud is away")])
async def test_token_when_the_device_cannot_be_verified_then_the_reason(bench: Bench, cloud: Any, why: str) -> None:
    bench.cloud = cloud

    with pytest.raises(words.InvalidCredentialError, match=why):
        await bench.devices.token("pump", PEM)


async def test_authorize_when_the_configuration_changes_then_it_counts_for_open_tokens(bench: Bench) -> None:
    bench.cloud = {(PEM, "pump"): True}
    token = await bench.devices.token("pump", PEM)
    assert bench.devices.authorize(token, "mqtt:publish", "mqtt:topic:a")

    bench.configure(deviceGroups={})

    assert not bench.devices.authorize(token, "mqtt:publish", "mqtt:topic:a")
