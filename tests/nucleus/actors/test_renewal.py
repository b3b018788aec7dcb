"""The renewal against a cloud of the test's own: when it acts, what it proves first, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cloud.store import pki
from nucleus.actors import renewal
from nucleus.host import logs


class Cloud:
    """Signs what it is asked to; `proof` is what the new certificate is answered. `heard` are the calls."""

    def __init__(self, root: Path, lifetime_days: int = 10) -> None:
        self.root = root
        self.authority = pki.Authority.create(root)
        made = self.authority.issue_device(lifetime_s=lifetime_days * 86_400)
        self.old = root / "device.pem"
        self.old.write_text(made.pem)
        self.proof = 200
        self.heard: list[tuple[str, bool]] = []
        self.saved: list[renewal.Pair] = []
        self.confirmed = 0
        self.news = asyncio.Event()

    async def call(self, method: str, path: str, body: bytes, pair: renewal.Pair | None) -> tuple[int, bytes]:
        self.heard.append((path, pair is not None))
        if path == renewal.RENEW:
            made = self.authority.issue_from_csr(json.loads(body)["certificateSigningRequest"])
            return 200, json.dumps({"certificateId": made.id, "certificatePem": made.pem}).encode()
        self.news.set()
        return self.proof, b"{}"

    def save(self, pair: renewal.Pair) -> None:
        self.saved.append(pair)
        self.news.set()

    def confirm(self) -> None:
        self.confirmed += 1

    @asynccontextmanager
    async def device(self, **more: Any) -> AsyncIterator[renewal.Renewal]:
        wanted: dict[str, Any] = {"proof": "/proof", "before_days": 30, "unconfirmed": False}
        one = renewal.Renewal(
            self.old,
            self.root,
            self.call,
            self.save,
            logs.Log("test", directory=self.root),
            confirmed=self.confirm,
            **{"begin_again": self.news.set} | wanted | more,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(one.run())
            yield one
            task.cancel()

    async def until_news(self) -> None:
        async with asyncio.timeout(20):
            await self.news.wait()
        self.news.clear()


async def test_certificate_when_soon_to_end_then_new_key_proof_and_only_then_saved(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)

    async with cloud.device():
        async with asyncio.timeout(20):
            while not cloud.saved:
                await cloud.until_news()

    (pair,) = cloud.saved
    assert cloud.heard == [(renewal.RENEW, False), ("/proof", True)]
    assert pair.private_key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE KEY" in pair.private_key.read_bytes()
    assert cloud.old.exists()


async def test_certificate_when_the_new_one_is_not_accepted_then_the_old_one_stays(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    cloud.proof = 403

    async with cloud.device():
        await cloud.until_news()

    assert cloud.saved == []


async def test_certificate_when_good_for_long_then_nothing_is_asked(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, lifetime_days=3650)

    async with cloud.device():
        await asyncio.sleep(0.05)

    assert cloud.heard == []


async def test_new_certificate_when_first_connected_then_confirmed_once(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, lifetime_days=3650)

    async with cloud.device(unconfirmed=True) as one:
        await asyncio.sleep(0)
        assert cloud.heard == []
        one.connected()
        await cloud.until_news()
        await asyncio.sleep(0)

    assert cloud.heard == [(renewal.CONFIRM, False)]
    assert cloud.confirmed == 1


async def test_certificate_when_the_clock_is_ten_years_ahead_then_renewed_but_nothing_begins_again(
    tmp_path: Path,
) -> None:
    cloud = Cloud(tmp_path)
    began_again: list[bool] = []

    def clock() -> float:
        return time.time() + 10 * 365 * 86_400.0

    async with cloud.device(clock=clock, begin_again=lambda: began_again.append(True)) as one:
        async with asyncio.timeout(20):
            while not cloud.saved:
                await cloud.until_news()
        await one.look()

    assert began_again == []
    assert "certificate.clock_is_wrong" in "".join(path.read_text() for path in tmp_path.glob("*.log"))


async def test_certificate_when_the_clock_is_at_1970_then_left_alone(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)

    async with cloud.device(clock=lambda: 0.0) as one:
        await one.look()

    assert cloud.heard == []
