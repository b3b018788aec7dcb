"""The secret manager against moto's server: what is fetched when, what stays through restarts, damage and new keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519
from msgspec import structs

from nucleus.actors import secrets, strongbox
from nucleus.core import errors
from nucleus.core import secrets as words
from nucleus.host import logs, vault
from nucleus.store import secrets as secrets_store
from nucleus.uplink import dataplane
from tests.nucleus import cloud_secrets


@pytest.fixture(scope="module")
def service() -> Iterator[cloud_secrets.Service]:
    with cloud_secrets.serving() as one:
        yield one


class World:
    """A device whose secret manager can be started again and again over the same folder."""

    def __init__(self, folder: Path, service: cloud_secrets.Service) -> None:
        self.service = service
        self.device = cloud_secrets.Device(folder, service.url)
        self.key = self.device.key
        self.folder = folder / "secrets"
        self.log = logs.Log("test", directory=folder)
        self.configuration: dict[str, Any] = {}
        self.reports: list[str] = []
        self.news = asyncio.Event()
        self.plain_s = 300.0
        self.every_s = 0.0  # between periodic refreshes, however short

    def configure(self, *arns: str, labels: tuple[str, ...] = (), **more: Any) -> None:
        self.configuration = {"cloudSecrets": [{"arn": arn, "labels": list(labels)} for arn in arns], **more}

    def _settings(self) -> words.Settings:
        found = words.read(self.configuration)
        return structs.replace(found, every_s=self.every_s) if self.every_s else found

    def _report(self, why: str) -> None:
        self.reports.append(why)
        self.news.set()

    async def told(self) -> str:
        """What the next full refresh reports."""
        async with asyncio.timeout(30):
            await self.news.wait()
        self.news.clear()
        return self.reports[-1]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[secrets.Secrets]:
        """The manager after its first refresh."""
        self.box = strongbox.Strongbox(secrets_store.SecretStore(self.folder), self.key, self.log, plain_s=self.plain_s)
        one = secrets.Secrets(self.box, self.device.fetch, self._settings, self.log, self._report)
        self.news.clear()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(one.run())
            try:
                await self.told()
                self.device.asked.clear()
                yield one
            finally:
                task.cancel()

    async def new_key(self, name: str) -> None:
        """As a renewal: another file, used from the next start on."""
        self.key = self.folder.parent / name
        self.key.write_text((await vault.call("csr"))["privateKey"])

    @property
    def file(self) -> Path:
        return self.folder / secrets_store.FILE


@pytest.fixture
async def world(tmp_path: Path, service: cloud_secrets.Service) -> AsyncIterator[World]:
    one = World(tmp_path, service)
    yield one
    await one.device.http.close()


async def test_get_when_configured_then_text_bytes_name_arn_and_part_of_it_work(world: World) -> None:
    text_name, text_arn = world.service.create("hällo")
    _, bytes_arn = world.service.create(b"\x00\xff")
    world.configure(text_arn, bytes_arn[:-7])

    async with world.running() as one:
        found = [await one.get(id_) for id_ in (text_arn, text_name, text_arn[:-7], bytes_arn)]
        resources = [await one.resource(id_) for id_ in (text_name, bytes_arn[:-7])]

    assert [value for _, value in found] == ["hällo".encode()] * 3 + [b"\x00\xff"]
    assert [version.is_binary for version, _ in found] == [False] * 3 + [True]
    assert resources == [text_arn, bytes_arn]
    assert world.reports == [""]
    assert world.device.asked == []


async def test_file_when_secrets_are_kept_then_it_holds_none_of_them(world: World) -> None:
    _, arn = world.service.create("a-very-secret-value")
    world.configure(arn)

    async with world.running() as one:
        await one.get(arn)

    for path in [path for path in world.folder.parent.rglob("*") if path.is_file()]:
        assert b"a-very-secret-value" not in path.read_bytes(), path


async def test_get_when_offline_after_a_restart_then_from_the_store_and_memory_is_let_go(world: World) -> None:
    _, arn = world.service.create("old")
    world.configure(arn)
    async with world.running():
        pass
    world.device.offline = True
    world.plain_s = 0.0

    async with world.running() as one:
        assert world.box.opened == 0
        assert (await one.get(arn))[1] == b"old"
        assert (await one.get(arn, refresh=True))[1] == b"old"
        for _ in range(3):
            await asyncio.sleep(0)  # the moment after which opened values go
        assert world.box.opened == 0
        assert (await one.get(arn))[1] == b"old"


async def test_get_when_versions_and_labels_are_asked_for_then_each_is_that_one(world: World) -> None:
    _, arn = world.service.create("one")
    first = (await world.device.fetch(words.Ask(arn, words.CURRENT))).version.id
    second = world.service.put(arn, "two")
    third = world.service.put(arn, "three", "blue")
    world.configure(arn, labels=("AWSPREVIOUS", "blue"))

    async with world.running() as one:
        asked = [{}, {"stage": "AWSPREVIOUS"}, {"stage": "blue"}, {"version_id": first}, {"version_id": third}]
        found = [await one.get(arn, **more) for more in asked]

    assert [(version.id, value) for version, value in found] == [
        (second, b"two"),
        (first, b"one"),
        (third, b"three"),
        (first, b"one"),
        (third, b"three"),
    ]


async def test_get_when_it_is_not_here_then_missing_with_its_reason(world: World) -> None:
    _, arn = world.service.create("one")
    _, other = world.service.create("other")
    world.configure(arn, arn.replace("secret-", "absent-"))

    async with world.running() as one:
        for id_, more, word in (
            (other, {}, "does not configure it"),
            ("nobody", {}, "does not configure it"),
            (arn, {"version_id": "v0"}, "no version v0"),
            (arn, {"stage": "green"}, "labelled green"),
            (arn.replace("secret-", "absent-"), {}, "ResourceNotFoundException"),
        ):
            with pytest.raises(words.MissingError, match=word):
                await one.get(id_, **more)
        with pytest.raises(errors.NucleusError, match="both given") as caught:
            await one.get(arn, "v1", "AWSCURRENT")

    assert not isinstance(caught.value, words.MissingError)
    assert "ResourceNotFoundException" in world.reports[0]
    assert other not in [ask.secret for ask in world.device.asked]


async def test_refresh_when_the_secret_changed_then_the_new_value_only_with_it(world: World) -> None:
    _, arn = world.service.create("old")
    world.configure(arn)

    async with world.running() as one:
        assert (await one.get(arn))[1] == b"old"
        world.service.put(arn, "new")

        assert (await one.get(arn))[1] == b"old"
        assert (await one.get(arn, refresh=True))[1] == b"new"
        assert (await one.get(arn))[1] == b"new"
        assert len(world.device.asked) == 1
    world.device.offline = True
    async with world.running() as one:
        assert (await one.get(arn))[1] == b"new"


async def test_refresh_when_many_ask_at_once_then_they_share_answers(world: World) -> None:
    _, arn = world.service.create("old")
    world.configure(arn)

    async with world.running() as one:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one.get(arn, refresh=True)) for _ in range(50)]

        assert {task.result()[1] for task in tasks} == {b"old"}
        assert len(world.device.asked) <= 2


async def test_get_when_the_cloud_was_away_at_first_then_it_is_fetched_for_the_request(world: World) -> None:
    name, arn = world.service.create("late")
    world.configure(arn)
    world.device.offline = True

    async with world.running() as one:
        with pytest.raises(words.MissingError, match="cannot get"):
            await one.get(name)
        world.device.offline = False

        assert (await one.get(name, refresh=True))[1] == b"late"
        assert world.reports == [""]  # not being connected is no fault of the secret manager


async def test_connected_when_something_could_not_be_asked_for_then_it_is_now(world: World) -> None:
    _, arn = world.service.create("late")
    world.configure(arn)
    world.device.offline = True

    async with world.running() as one:
        world.device.offline = False
        one.connected()
        await world.told()
        assert len(world.device.asked) == 1
        one.connected()  # nothing is open: no question
        assert (await one.get(arn))[1] == b"late"

    assert len(world.device.asked) == 1


async def test_changed_when_the_configuration_changes_then_new_ones_come_and_old_ones_go(world: World) -> None:
    _, old = world.service.create("old")
    _, new = world.service.create("new")
    world.configure(old)

    async with world.running() as one:
        world.configure(new)
        one.changed()
        await world.told()

        assert (await one.get(new))[1] == b"new"
        with pytest.raises(words.MissingError):
            await one.get(old)
        assert old not in world.file.read_text()
        world.configuration = {}
        one.changed()
        await world.told()

    assert not world.file.exists()


async def test_changed_when_offline_then_what_was_stored_can_come_back(world: World) -> None:
    _, arn = world.service.create("kept")
    world.configure(arn)
    async with world.running():
        pass
    _, other = world.service.create("other")
    world.device.offline = True

    async with world.running() as one:
        world.configure(other)
        one.changed()
        await world.told()
        with pytest.raises(words.MissingError):
            await one.get(arn)
        world.configure(arn)  # the deployment was rolled back
        one.changed()
        await world.told()

        assert (await one.get(arn))[1] == b"kept"


async def test_periodic_refresh_when_configured_then_new_values_come_by_themselves(world: World) -> None:
    _, arn = world.service.create("old")
    world.configure(arn)
    world.every_s = 0.01

    async with world.running() as one:
        new = world.service.put(arn, "new")
        while world.box.versions[0].id != new:
            await world.told()

        assert (await one.get(arn))[1] == b"new"


async def test_pause_when_the_cloud_is_away_then_longer_and_longer_up_to_a_bound(world: World) -> None:
    world.configure(world.service.create("x")[1])
    away = {words.Ask("x", "a"): dataplane.Unavailable("NETWORK_ERROR", "away")}

    async with world.running() as one:
        pauses = [one._pause(words.Settings(), away) for _ in range(8)]
        assert one._pause(words.Settings(), {}) == 0

    assert all(low <= found <= high for found, (low, high) in zip(pauses, [(8, 10), (16, 20), (32, 40)], strict=False))
    assert pauses[-1] <= secrets.LAST_AGAIN_S


@pytest.mark.parametrize("part", ["sealed", "nonce", "id", "arn"])
async def test_get_when_the_store_is_corrupted_then_it_is_fetched_again(world: World, part: str) -> None:
    _, arn = world.service.create("whole")
    _, other = world.service.create("other")
    world.configure(arn, other)
    async with world.running():
        pass
    contents = json.loads(world.file.read_text())
    entry = contents["entries"][0]
    if part in entry:
        entry[part] = entry[part][::-1] if part == "nonce" else "AAAA" + entry[part][4:]
    else:
        entry["version"][part] = other if part == "arn" else "another"
    world.file.write_text(json.dumps(contents))

    async with world.running() as one:
        found = [(await one.get(id_))[1] for id_ in (arn, other)]

    assert found == [b"whole", b"other"]


async def test_get_when_the_store_is_corrupted_and_the_cloud_away_then_missing_and_the_others_stay(
    world: World,
) -> None:
    _, arn = world.service.create("whole")
    _, other = world.service.create("other")
    world.configure(arn, other)
    async with world.running():
        pass
    contents = json.loads(world.file.read_text())
    contents["entries"][0]["sealed"] = "AAAA" + contents["entries"][0]["sealed"][4:]
    world.file.write_text(json.dumps(contents))
    world.device.offline = True

    async with world.running() as one:
        with pytest.raises(words.MissingError):
            await one.get(arn)
        assert (await one.get(other))[1] == b"other"


async def test_start_when_the_file_is_no_json_then_it_starts_and_fetches(world: World) -> None:
    _, arn = world.service.create("whole")
    world.configure(arn)
    world.folder.mkdir()
    world.file.write_bytes(b"\x00" * 500)

    async with world.running() as one:
        assert (await one.get(arn))[1] == b"whole"

    assert world.file.with_name("secrets.json.damaged").exists()


async def test_start_when_the_key_was_renewed_then_sealed_for_it_even_offline(world: World) -> None:
    _, arn = world.service.create("kept")
    world.configure(arn)
    async with world.running():
        pass
    old = world.key
    world.device.offline = True
    await world.new_key("device-2.key")
    async with world.running() as one:
        assert (await one.get(arn))[1] == b"kept"
    old.unlink()

    async with world.running() as one:  # the new key alone opens now
        assert (await one.get(arn))[1] == b"kept"


async def test_start_when_the_old_key_is_gone_then_put_aside_and_fetched_again(world: World) -> None:
    _, arn = world.service.create("again")
    world.configure(arn)
    async with world.running():
        pass
    world.key.unlink()
    await world.new_key("device-2.key")

    async with world.running() as one:
        assert (await one.get(arn))[1] == b"again"

    assert world.file.with_name("secrets.json.damaged").exists()


@pytest.mark.parametrize("new_version", [False, True])
async def test_start_when_the_keys_file_was_replaced_in_place_then_fetched_again(
    world: World, new_version: bool
) -> None:
    _, arn = world.service.create("again")
    _, other = world.service.create("other")
    world.configure(arn, other)
    async with world.running():
        pass
    await world.new_key(world.key.name)
    if new_version:
        world.service.put(arn, "again 2")

    async with world.running() as one:
        assert (await one.get(other))[1] == b"other"
        assert (await one.get(arn))[1].startswith(b"again")
    world.device.offline = True
    async with world.running() as one:
        assert (await one.get(arn))[1] == (b"again 2" if new_version else b"again")
        assert (await one.get(other))[1] == b"other"


async def test_get_when_the_key_cannot_be_read_then_a_fault_and_not_missing(world: World) -> None:
    _, arn = world.service.create("x")
    world.configure(arn)
    async with world.running():
        pass
    world.key.unlink()

    async with world.running() as one:
        with pytest.raises(errors.NucleusError, match="private key") as caught:
            await one.get(arn)

    assert not isinstance(caught.value, words.MissingError)
    assert world.file.exists()


async def test_open_when_there_are_many_then_one_process_serves_them_and_memory_is_bounded(world: World) -> None:
    made = [world.service.create(f"{number}" + "x" * 60_000)[1] for number in range(24)]
    world.configure(*made)

    async with world.running() as one:
        for number, arn in enumerate(made):
            assert (await one.get(arn))[1].decode().rstrip("x") == str(number)
            assert world.box.opened * 60_000 <= strongbox.PLAIN_BYTES + 120_000
        assert world.box.opened > 10


async def test_resource_when_only_a_part_of_the_arn_is_known_then_the_cloud_is_asked_for_the_whole(
    world: World,
) -> None:
    name, arn = world.service.create("x")
    world.configure(arn[:-7])
    world.device.offline = True

    async with world.running() as one:
        assert await one.resource(name) == arn[:-7]  # the cloud was asked a moment ago
        world.device.offline = False
        one._failed.clear()  # the moment is over
        assert await one.resource(name) == arn
        assert len(world.device.asked) == 1


async def test_get_when_secrets_cannot_be_sealed_then_missing_with_the_reason_and_told(world: World) -> None:
    _, arn = world.service.create("x")
    world.configure(arn)
    made = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    world.key = world.folder.parent / "odd.key"
    world.key.write_bytes(made)

    async with world.running() as one:
        with pytest.raises(words.MissingError, match="neither EC, RSA nor Ed25519"):
            await one.get(arn)

    assert "neither EC" in world.reports[0]
    assert not world.file.exists()


async def test_get_when_the_disk_takes_nothing_then_from_memory_and_written_with_the_next_refresh(world: World) -> None:
    _, arn = world.service.create("x")
    world.configure(arn)
    world.folder.write_text("in the way")

    async with world.running() as one:
        assert (await one.get(arn))[1] == b"x"
        world.folder.unlink()
        world.service.put(arn, "y")
        assert (await one.get(arn, refresh=True))[1] == b"y"

    assert world.file.exists()
