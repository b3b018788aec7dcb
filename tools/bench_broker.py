"""Measures the embedded broker as devices meet it: mutual TLS, policies and bounds on, 1,000 clients, QoS 1 both ways.

Fan-in: every client publishes 512 bytes to its own `$aws/things/…/jobs/x/update`, one at a time, and waits for the PUBACK;
the service takes all of it over its Unix socket and acknowledges. Fan-out: the service publishes one message to each client.
Load and broker share the machine, so the figures are floors. `python -m tools.bench_broker` prints them.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cloud.mqtt import child, port, socket_port
from cloud.store import pki
from nucleus.wire import mqtt, mqtt_packets

CLIENTS = 1_000
MESSAGES = 20
_PAYLOAD = b"x" * 512
_PARALLEL_CONNECTS = 50
_CERTIFICATES = 50
_DEADLINE_S = 120.0
_POLICY = {
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": "arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}*",
        },
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": "arn:aws:iot:*:*:topic/$aws/things/${iot:Connection.Thing.ThingName}/*",
        },
        {
            "Effect": "Allow",
            "Action": "iot:Subscribe",
            "Resource": "arn:aws:iot:*:*:topicfilter/$aws/things/${iot:Connection.Thing.ThingName}/*",
        },
    ]
}


def measure(clients: int = CLIENTS, messages: int = MESSAGES) -> dict[str, float]:
    """Figures by name; takes about ten seconds."""
    with tempfile.TemporaryDirectory(prefix="marram-bench-") as directory:
        return asyncio.run(_measure(Path(directory), clients, messages))


class Device(asyncio.Protocol):
    """The least a device can be: TLS over memory, CONNECT, SUBSCRIBE, publishes one after the other."""

    def __init__(self, context: ssl.SSLContext, thing: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._secure = False
        self._decoder = mqtt.Decoder(version=mqtt_packets.V5)
        self._thing = thing
        self._frame = mqtt.encode(
            mqtt_packets.Publish(f"$aws/things/{thing}/jobs/x/update", _PAYLOAD, 1, packet_id=1), mqtt_packets.V5
        )
        self._left = 0
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.published: asyncio.Future[None] = loop.create_future()
        self.heard: asyncio.Future[None] = loop.create_future()

    def publish(self, count: int) -> None:
        """Publishes `count` times; `published` is done with the last PUBACK."""
        self._left = count
        self._send(self._frame)

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if not self._secure:
            self._shake_hands()
        while self._secure:
            try:
                plain = self._tls.read(65_536)
            except ssl.SSLWantReadError:
                return
            if not plain:
                return
            for packet in self._decoder.receive(plain):
                self._receive(packet)

    def connection_lost(self, error: Exception | None) -> None:
        for each in (self.ready, self.published, self.heard):
            if not each.done():
                each.set_exception(ConnectionError(f"the broker dropped {self._thing}: {error}"))
                each.exception()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._transport.write(self._outgoing.read())
            return
        self._secure = True
        self._send(mqtt.encode(mqtt_packets.Connect(self._thing, keep_alive_s=600), mqtt_packets.V5))

    def _receive(self, packet: mqtt_packets.Packet) -> None:
        match packet:
            case mqtt_packets.Connack():
                request = mqtt_packets.Request(f"$aws/things/{self._thing}/jobs/notify", 1)
                self._send(mqtt.encode(mqtt_packets.Subscribe(1, (request,)), mqtt_packets.V5))
            case mqtt_packets.Suback():
                self.ready.set_result(None)
            case mqtt_packets.Publish():
                self._send(mqtt.puback(packet.packet_id, 0, mqtt_packets.V5))
                self.heard.set_result(None)
            case mqtt_packets.Puback():
                self._left -= 1
                if self._left:
                    self._send(self._frame)
                else:
                    self.published.set_result(None)

    def _send(self, data: bytes) -> None:
        self._tls.write(data)
        self._transport.write(self._outgoing.read())


class _Log:
    """Keeps the broker's pid."""

    pid = 0

    def info(self, event: str, **fields: Any) -> None:
        self.pid = fields.get("pid", self.pid)

    warning = info


async def _measure(root: Path, clients: int, messages: int) -> dict[str, float]:
    authority = pki.Authority.create(root)
    authority.issue_server(["localhost", "127.0.0.1"])
    contexts, snapshot = _identities(root, authority, clients)
    log = _Log()
    async with asyncio.timeout(_DEADLINE_S), child.broker(root, host="127.0.0.1", port=0, log=log) as (to, number):
        await to.push(snapshot)
        before = _resident_kib(log.pid)
        began = time.monotonic()
        devices = await _connect(contexts, number, clients)
        connected_s = time.monotonic() - began
        kib = (_resident_kib(log.pid) - before) / clients
        rate_in, cpu_us = await _fan_in(to, devices, messages, log.pid)
        rate_out = await _fan_out(to, devices)
        for each in devices:
            each.close()
    return {
        "connects/s (mutual TLS)": clients / connected_s,
        "KiB per connection": kib,
        "fan-in msg/s": rate_in,
        "broker CPU us per fan-in message": cpu_us,
        "fan-out msg/s": rate_out,
    }


def _identities(root: Path, authority: pki.Authority, clients: int) -> tuple[list[ssl.SSLContext], port.Snapshot]:
    contexts, principals = [], {}
    for index in range(_CERTIFICATES):
        certificate = authority.issue_device()
        both = root / f"device-{index}.pem"
        both.write_text(certificate.pem + certificate.private_key)
        context = ssl.create_default_context(cafile=str(root / "ca.pem"))
        context.load_cert_chain(both)
        contexts.append(context)
        things = tuple(f"thing-{each}" for each in range(index, clients, _CERTIFICATES))
        principals[certificate.id] = port.PrincipalRecord(things, ("device",), True, certificate.not_after_ms)
    return contexts, port.Snapshot(1, {"device": _POLICY}, principals)


async def _connect(contexts: list[ssl.SSLContext], number: int, clients: int) -> list[Device]:
    gate = asyncio.Semaphore(_PARALLEL_CONNECTS)
    loop = asyncio.get_running_loop()

    async def one(index: int) -> Device:
        device = Device(contexts[index % len(contexts)], f"thing-{index}")
        async with gate:
            await loop.create_connection(lambda: device, "127.0.0.1", number)
            await device.ready
        return device

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(index)) for index in range(clients)]
    return [each.result() for each in tasks]


async def _fan_in(to: socket_port.SocketPort, devices: list[Device], messages: int, pid: int) -> tuple[float, float]:
    total = len(devices) * messages
    await _drain(to, len(devices), lambda topic: "/presence/" in topic)
    cpu, began = _cpu_s(pid), time.monotonic()
    for each in devices:
        each.publish(messages)
    async with asyncio.TaskGroup() as group:
        group.create_task(_drain(to, total, lambda topic: topic.endswith("/update")))
        for each in devices:
            group.create_task(_wait(each.published))
    return total / (time.monotonic() - began), (_cpu_s(pid) - cpu) / total * 1e6


async def _fan_out(to: socket_port.SocketPort, devices: list[Device]) -> float:
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for index, device in enumerate(devices):
            group.create_task(to.publish(f"$aws/things/thing-{index}/jobs/notify", _PAYLOAD))
            group.create_task(_wait(device.heard))
    return len(devices) / (time.monotonic() - began)


async def _drain(to: socket_port.SocketPort, count: int, counts: Callable[[str], bool]) -> None:
    messages = to.inbound
    while count:
        message = await anext(messages)
        message.done()
        count -= counts(message.topic)


async def _wait(future: asyncio.Future[None]) -> None:
    await future


def _resident_kib(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:40} {value:12,.1f}")
