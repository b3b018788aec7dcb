"""The token exchange over real sockets, with a cloud of the test's own."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nucleus.actors import token_exchange
from nucleus.core import configuration, errors
from nucleus.host import logs
from nucleus.store import configuration as configuration_store

TOKEN = "GOODTOKEN"


def credentials(lifetime_s: int = 3600) -> tuple[int, bytes]:
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=lifetime_s)
    found = {"accessKeyId": "ASIA1", "secretAccessKey": "s", "sessionToken": "t"}
    return 200, json.dumps({"credentials": found | {"expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}}).encode()


class Exchange:
    """A running token exchange; `answers` are what the cloud says, the last one again and again."""

    def __init__(self, root: Path, upstream_s: float = 30.0) -> None:
        self.answers: list[tuple[int, bytes]] = [credentials()]
        self.asked = 0
        self.hang = asyncio.Event()
        self.hang.set()
        self.environment: dict[str, str] = {}
        self.ahead_s = 0.0  # of this device's clock
        self.store = configuration_store.ConfigurationStore(root)
        self.store.open()
        self.parts = token_exchange.TokenExchange(
            self._fetch,
            lambda token: "com.example.A" if token == TOKEN else None,
            self.store,
            self.environment,
            logs.Log("test", directory=root),
            upstream_s=upstream_s,
            clock=lambda: time.time() + self.ahead_s,
        )

    async def _fetch(self) -> tuple[int, bytes]:
        self.asked += 1
        await self.hang.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer[0] < 0:
            raise errors.NucleusError("NETWORK_ERROR", "no route")
        return answer

    def configure(self, **values: Any) -> None:
        _, changes = configuration.merge(
            self.store.tree, token_exchange.SETTINGS, values, self.store.now(), "deployment:d"
        )
        self.store.commit(changes)

    @property
    def uri(self) -> str:
        return self.environment[token_exchange.URI_VARIABLE]

    async def get(self, *, method: str = "GET", path: str = token_exchange.PATH, token: str = TOKEN) -> tuple[int, Any]:
        port = urlsplit(self.uri).port
        reading, writing = await asyncio.open_connection("127.0.0.1", port)
        writing.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            head, _, body = (await reading.read()).partition(b"\r\n\r\n")
        writing.close()
        await writing.wait_closed()
        return int(head.split()[1]), json.loads(body)


@asynccontextmanager
async def exchange(root: Path, upstream_s: float = 30.0, **settings: Any) -> AsyncIterator[Exchange]:
    one = Exchange(root, upstream_s)
    if settings:
        one.configure(**settings)
    await one.parts.start()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one.parts.run())
        await asyncio.sleep(0)  # run() has its group now
        try:
            yield one
        finally:
            task.cancel()


async def test_request_when_token_is_good_then_credentials_asked_for_once(tmp_path: Path) -> None:
    async with exchange(tmp_path) as one, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.get()) for _ in range(5)]

    found = [task.result() for task in tasks]
    assert {status for status, _ in found} == {200}
    assert set(found[0][1]) == {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    assert one.asked == 1


async def test_request_when_it_is_not_the_one_there_is_then_refused(tmp_path: Path) -> None:
    async with exchange(tmp_path) as one:
        assert (await one.get(method="POST"))[0] == 405
        assert (await one.get(path="/"))[0] == 400
        assert (await one.get(path=token_exchange.PATH + "x"))[0] == 400
        assert (await one.get(token="OTHER"))[0] == 403
        assert (await one.get(token=""))[0] == 403

    assert one.asked == 0


async def test_request_when_cloud_is_silent_then_504_and_its_answer_still_counts(tmp_path: Path) -> None:
    async with exchange(tmp_path, upstream_s=0.2) as one:
        one.hang.clear()
        status, body = await one.get()
        one.hang.set()
        assert (status, (await one.get())[0]) == (504, 200)

    assert "did not answer" in body["message"]
    assert one.asked == 1


async def test_failure_when_remembered_then_not_asked_again_until_the_connection_returns(tmp_path: Path) -> None:
    async with exchange(tmp_path) as one:
        one.answers = [(404, b"no such alias"), (-1, b""), credentials()]

        assert [(await one.get())[0] for _ in range(3)] == [404, 404, 404]
        assert one.asked == 1
        one.parts.forget_failure()
        assert (await one.get())[0] == 500
        one.parts.forget_failure()
        assert (await one.get())[0] == 200


async def test_credentials_when_in_their_last_minutes_and_cloud_is_away_then_still_given(tmp_path: Path) -> None:
    async with exchange(tmp_path) as one:
        one.answers = [credentials(120), (-1, b""), credentials(3600)]

        first, second, third = [(await one.get())[1] for _ in range(3)]

    assert first == second
    assert third["Expiration"] > first["Expiration"]


async def test_port_when_it_changes_then_new_starts_get_it_and_the_old_serves_on(tmp_path: Path) -> None:
    async with exchange(tmp_path) as one:
        before = one.uri
        spare = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = spare.sockets[0].getsockname()[1]
        spare.close()
        await spare.wait_closed()

        moved = asyncio.Event()
        one.store.watch((*token_exchange.SETTINGS, "activePort"), lambda _changes: moved.set())
        one.configure(port=port)
        async with asyncio.timeout(5):
            await moved.wait()

        assert one.uri == f"http://127.0.0.1:{port}{token_exchange.PATH}"
        assert (await one.get())[0] == 200
        one.environment[token_exchange.URI_VARIABLE] = before
        assert (await one.get())[0] == 200
        assert configuration.get(one.store.tree, (*token_exchange.SETTINGS, "activePort")) == port


async def test_start_when_port_is_taken_then_a_free_one(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    async with taken, exchange(tmp_path, port=taken.sockets[0].getsockname()[1]) as one:
        assert (await one.get())[0] == 200


async def test_request_when_head_is_endless_then_cut_off(tmp_path: Path) -> None:
    async with exchange(tmp_path) as one:
        reading, writing = await asyncio.open_connection("127.0.0.1", urlsplit(one.uri).port)
        writing.write(b"GET / HTTP/1.1\r\n" + b"x" * 9000)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await reading.read() == b""
        writing.close()
        assert (await one.get())[0] == 200


async def test_start_when_the_image_before_had_a_port_then_the_same_one_serves(tmp_path: Path) -> None:
    """Components that run on keep the address they were started with."""
    async with exchange(tmp_path) as before:
        uri = before.uri
        carried = {port: os.dup(descriptor) for port, descriptor in before.parts.carry().items()}
    before.store.close()
    after = Exchange(tmp_path)
    await after.parts.start(carried)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(after.parts.run())

        status, _ = await after.get()
        task.cancel()

    assert (after.uri, status) == (uri, 200)


async def test_request_when_the_clock_was_ten_years_ahead_then_its_fault_does_not_last_ten_years(
    tmp_path: Path,
) -> None:
    async with exchange(tmp_path) as one:
        one.ahead_s = 10 * 365 * 86_400.0
        wrong, told = await one.get()
        one.ahead_s = 0.0
        right, _ = await one.get()

    assert (wrong, right) == (500, 200)
    assert "check this device's clock" in told["message"]
