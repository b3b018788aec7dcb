"""What the broker's contract tests share: a running broker, its certificates and principals."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from cloud.mqtt import child, port, socket_port
from tests.cloud import certificates
from tests.cloud.mqtt import clients

FAR_MS = 4_102_444_800_000  # the year 2100
DEVICE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": "arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}*",
        },
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive", "iot:RetainPublish"],
            "Resource": [
                "arn:aws:iot:*:*:topic/$aws/things/${iot:Connection.Thing.ThingName}/*",
                "arn:aws:iot:*:*:topic/shared/*",
            ],
        },
        {
            "Effect": "Allow",
            "Action": "iot:Subscribe",
            "Resource": [
                "arn:aws:iot:*:*:topicfilter/$aws/things/${iot:Connection.Thing.ThingName}/*",
                "arn:aws:iot:*:*:topicfilter/shared/*",
            ],
        },
    ],
}
OPERATOR_POLICY = {"Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}}


class Events:
    """The log of the child, kept for failures."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(f"{event} {fields}")

    warning = info


class Bench:
    """A broker with its port, its CA and the clients a test made; `stop_clients` ends them."""

    def __init__(self, directory: Path, authority: certificates.Authority) -> None:
        self.authority = authority
        self.directory = directory
        self.events = Events()
        self.port: socket_port.SocketPort
        self.number = 0
        self.principals: dict[str, port.PrincipalRecord] = {}
        self.version = 0
        self.clients: list[clients.Crt | clients.Paho] = []

    def device(self, *things: str, policies: tuple[str, ...] = ("device",), **fields: Any) -> certificates.Pair:
        """A new certificate, known to the broker after the next `push`."""
        pair = self.authority.device(f"device-{len(self.principals)}")
        self.principals[pair.fingerprint] = record(*things, policies=policies, **fields)
        return pair

    async def push(self) -> None:
        self.version += 1
        policies = {"device": DEVICE_POLICY, "operator": OPERATOR_POLICY}
        await self.port.push(port.Snapshot(self.version, policies, dict(self.principals)))

    def crt(self, pair: certificates.Pair, client_id: str, **options: Any) -> clients.Crt:
        client = clients.Crt(self, pair, client_id, **options)
        self.clients.append(client)
        return client

    def paho(self, pair: certificates.Pair, client_id: str, **options: Any) -> clients.Paho:
        client = clients.Paho(self, pair, client_id, **options)
        self.clients.append(client)
        return client

    def raw_context(self, pair: certificates.Pair) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.pair.certificate_path))
        context.load_cert_chain(pair.certificate_path, pair.key_path)
        return context

    async def inbound(self, topic: str) -> port.Inbound:
        """The next message for the service on this topic; others are passed over, all are not acknowledged."""
        async with asyncio.timeout(clients.WAIT_S):
            async for message in self.port.inbound:
                if message.topic == topic:
                    return message
        raise AssertionError(topic)

    def broker_pid(self) -> int:
        listening = [each for each in self.events.lines if each.startswith("broker.listening")]
        return int(listening[-1].partition("'pid': ")[2].rstrip("}"))

    async def kill_broker(self) -> None:
        """SIGKILL, and waits until a new process listens."""
        pid = self.broker_pid()
        os.kill(pid, signal.SIGKILL)
        await clients.until(lambda: self.broker_pid() != pid, "a new broker")

    async def statistics(self) -> dict[str, int]:
        """The broker's counters, heard by an operator."""
        operator = self.crt(self.device(policies=("operator",)), "statistician")
        await self.push()
        await operator.connect()
        await operator.subscribe(port.STATISTICS)
        await self.port.publish(port.CONTROL_STATISTICS, b"")
        told: dict[str, int] = msgspec.json.decode((await operator.heard(1))[0][1])
        return told

    async def stop_clients(self) -> None:
        for client in self.clients:
            await asyncio.to_thread(client.stop)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Bench]:
    authority = certificates.Authority(directory)
    authority.server()
    bench = Bench(directory, authority)
    async with child.broker(directory, host="127.0.0.1", port=0, log=bench.events) as (to, number):
        bench.port, bench.number = to, number
        await bench.push()
        try:
            yield bench
        finally:
            await bench.stop_clients()


def record(*things: str, policies: tuple[str, ...] = ("device",), **fields: Any) -> port.PrincipalRecord:
    known = {"active": True, "not_after_ms": FAR_MS} | fields
    return port.PrincipalRecord(things, policies, **known)
