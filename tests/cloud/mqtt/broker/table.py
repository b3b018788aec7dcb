"""A broker without sockets: the real desk, router and journal, and clients whose wire is a list of packets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloud.mqtt import port
from cloud.mqtt.broker import control, conversation, journal, limits, link, principals, retained, router, session
from nucleus.wire import mqtt, mqtt_packets, mqtt_properties
from tests.cloud.mqtt import harness

V4, V5 = mqtt_packets.V311, mqtt_packets.V5
OPERATOR = "operator's fingerprint"
DEVICE = "device's fingerprint"


class Client:
    """The client's end of a link: says packets, and has what was said to it."""

    def __init__(self, table: Table, fingerprint: str, bounds: limits.Limits, *, service: bool = False) -> None:
        self.table = table
        self.link = link.Link(self, "192.0.2.1", fingerprint, bounds, service=service)
        self.said: list[mqtt_packets.Packet] = []
        self.reading = True
        self.closed = False
        self._decoder = mqtt.Decoder()

    def say(self, packet: mqtt_packets.Packet) -> list[mqtt_packets.Packet]:
        """What the broker answered in the same turn. A protocol error closes, as the connection would."""
        try:
            conversation.receive(self.table.desk, self.link, packet)
        except mqtt_properties.MQTTError as error:
            self.table.desk.router.disconnect(self.link, error.reason, "CLIENT_ERROR")
        return self.hear()

    def connect(self, client_id: str, *, version: int = V5, **fields: Any) -> mqtt_packets.Connack:
        self._decoder.version = version
        answer = self.say(mqtt_packets.Connect(client_id, version, **fields))[0]
        assert isinstance(answer, mqtt_packets.Connack)
        return answer

    def publish(
        self, topic: str, payload: bytes = b"", *, packet_id: int = 1, **fields: Any
    ) -> list[mqtt_packets.Packet]:
        qos = fields.pop("qos", 1)
        return self.say(mqtt_packets.Publish(topic, payload, qos, packet_id=packet_id if qos else 0, **fields))

    def subscribe(self, *filters: str, **options: Any) -> list[mqtt_packets.Packet]:
        qos = options.pop("qos", 1)
        requests = tuple(mqtt_packets.Request(each, qos, **options) for each in filters)
        return self.say(mqtt_packets.Subscribe(1, requests))

    def hear(self) -> list[mqtt_packets.Packet]:
        """Takes what the broker has written since the last time."""
        data = b"".join(self.link.output)
        self.link.output.clear()
        self.link.output_bytes = 0
        self.link.writable = True
        heard = list(self._decoder.receive(data))
        self.said += heard
        return heard

    def acknowledge(self) -> list[mqtt_packets.Publish]:
        """Acknowledges whatever comes until nothing comes; returns it."""
        got: list[mqtt_packets.Publish] = []
        while news := [each for each in self.hear() if isinstance(each, mqtt_packets.Publish)]:
            got += news
            for each in news:
                if each.qos:
                    conversation.receive(self.table.desk, self.link, mqtt_packets.Puback(each.packet_id))
        return got

    # ---- link.Wire
    def schedule_flush(self) -> None:
        pass

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True


class Table:
    """The broker, its clock moved by hand: `tick` is the sweep of one second or more."""

    def __init__(self, path: Path, totals: limits.Totals = limits.Totals()) -> None:  # noqa: B008 - a frozen record
        self.reports: list[str] = []
        self.journal = journal.Journal(path, self.reports.append)
        self.around = session.Surroundings(self.journal, totals, session.Counters(), now_ms=1_000_000, clock=1_000.0)
        stored, kept = self.journal.open()
        shelf = retained.Retained(self.journal, totals)
        shelf.restore(kept)
        self.router = router.Router(self.around, shelf)
        self.router.restore(stored)
        known = principals.Principals(self.reports.append)
        orders = control.Control(self.router, known, self.reports.append)
        self.desk = conversation.Desk(self.router, known, orders, self.reports.append)
        policies = {"device": harness.DEVICE_POLICY, "operator": harness.OPERATOR_POLICY}
        records = {DEVICE: harness.record("one", "two"), OPERATOR: harness.record(policies=("operator",))}
        known.replace(port.Snapshot(1, policies, records))

    def operator(self, client_id: str, **fields: Any) -> Client:
        client = Client(self, OPERATOR, limits.DEVICE)
        assert client.connect(client_id, **fields).reason == 0
        return client

    def device(self, client_id: str, **fields: Any) -> Client:
        client = Client(self, DEVICE, limits.DEVICE)
        assert client.connect(client_id, **fields).reason == 0
        return client

    def service(self) -> Client:
        client = Client(self, "", limits.SERVICE, service=True)
        assert client.connect(port.SERVICE_CLIENT_ID, properties=persistent()).reason == 0
        return client

    def tick(self, seconds: int = 1) -> None:
        self.around.now_ms += seconds * 1000
        self.around.clock += seconds
        self.router.sweep()
        self.router.retained.sweep(self.around.now_ms)

    async def commit(self) -> None:
        """Writes what was noted, as the journal does every 5 ms."""
        await self.journal._commit()


def persistent(**fields: Any) -> mqtt_properties.Properties:
    return mqtt_properties.Properties(session_expiry_s=3600, **fields)


def published(packets: list[mqtt_packets.Packet]) -> Iterator[mqtt_packets.Publish]:
    return (each for each in packets if isinstance(each, mqtt_packets.Publish))
