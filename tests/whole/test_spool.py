"""IoT Core over IPC on a real device with a real broker, by the unmodified client: fields, filters, refusals, and the spool."""

from __future__ import annotations

import json
import queue
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
import yaml
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.ipc import client as ipc
from nucleus.store import spool as store
from tests.whole.test_faults import ports
from tools import system as systems

pytestmark = pytest.mark.whole

THING = "spooler"
WAIT_S = 40
BUILT_IN = "aws.greengrass.DiskSpooler"


@pytest.fixture(scope="module")
def own() -> Iterator[systems.System]:
    """A system whose service may be killed; its device keeps messages on the disk."""
    with tempfile.TemporaryDirectory(prefix="msp") as folder:
        one = systems.System(Path(folder))
        try:
            one.start_cloud()
            root = one.create_device(THING)
            config = yaml.safe_load((root / "config.yaml").read_text())
            nucleus = config["services"]["aws.greengrass.Nucleus"]["configuration"]
            nucleus["mqtt"]["spooler"] = {"storageType": "Disk"}
            (root / "config.yaml").write_text(yaml.safe_dump(config))
            one.start_nucleus(THING)
            yield one
        finally:
            one.close()


class Client:
    """The official client as the device's own user, which needs no policy."""

    def __init__(self, system: systems.System) -> None:
        folder = system.device(THING) / "cli_ipc_info"
        systems.wait_for(lambda: self._connect(folder), "the nucleus to answer", WAIT_S)
        self.events: queue.Queue[model.MQTTMessage] = queue.Queue()

    def _connect(self, folder: Path) -> bool:
        try:
            facts = json.loads(next(folder.glob("user-*")).read_text())
            made = awsiot.greengrasscoreipc.connect(
                ipc_socket=facts["domain_socket_path"], authtoken=facts["cli_auth_token"], timeout=5
            )
        except Exception:  # not there yet, or there no more: the client says so in many ways
            return False
        self.ipc = clientv2.GreengrassCoreIPCClientV2(client=made)
        return True

    def subscribe(self, filter_: str, taken: Callable[[model.MQTTMessage], None] | None = None) -> Any:
        deliver = taken or self.events.put
        return self.ipc.subscribe_to_iot_core(
            topic_name=filter_, qos="1", on_stream_event=lambda event: deliver(event.message)
        )[1]

    def publish(self, topic: str, payload: bytes, **fields: Any) -> None:
        self.ipc.publish_to_iot_core(topic_name=topic, qos="1", payload=payload, **fields)

    def is_connected(self) -> None:
        seen: queue.Queue[str] = queue.Queue()
        _, stream = self.ipc.subscribe_to_iot_core_connection_status(
            on_stream_event=lambda event: seen.put(event.connection_status_event.status)
        )
        while seen.get(timeout=WAIT_S) != "CONNECTED":
            pass
        stream.close().result(WAIT_S)


def attach(system: systems.System, name: str, statement: dict[str, str]) -> None:
    """A further policy of the device."""
    iot = system.client("iot")
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iot.create_policy(policyName=name, policyDocument=document)
    iot.attach_policy(policyName=name, target=iot.list_thing_principals(thingName=THING)["principals"][0])


@pytest.fixture
def client(own: systems.System) -> Iterator[Client]:
    one = Client(own)
    one.is_connected()
    yield one
    one.ipc.close()


def test_publish_when_all_fields_of_mqtt_5_are_given_then_they_come_back(client: Client) -> None:
    client.subscribe("fields/#")

    client.publish(
        "fields/a",
        b"\x00payload",
        user_properties=[model.UserProperty(key="k", value="v"), model.UserProperty(key="k", value="w")],
        message_expiry_interval_seconds=600,
        correlation_data=b"\xff\x00",
        response_topic="answers/here",
        payload_format="0",
        content_type="application/octet-stream",
    )

    got = client.events.get(timeout=WAIT_S)
    assert (got.topic_name, got.payload, got.retain) == ("fields/a", b"\x00payload", False)
    assert [(one.key, one.value) for one in got.user_properties] == [("k", "v"), ("k", "w")]
    assert 590 <= got.message_expiry_interval_seconds <= 600
    assert (got.correlation_data, got.response_topic) == (b"\xff\x00", "answers/here")
    assert (got.payload_format, got.content_type) == ("0", "application/octet-stream")


def test_publish_when_retained_then_a_later_subscriber_gets_it_marked(own: systems.System, client: Client) -> None:
    attach(own, "MayRetain", {"Effect": "Allow", "Action": "iot:RetainPublish", "Resource": "*"})
    found: list[model.MQTTMessage] = []

    def is_retained() -> bool:
        """A publish that comes before the broker knows the policy is refused, and gone."""
        client.publish("retained/a", b"kept", retain=True)
        stream = client.subscribe("retained/a", found.append)
        stream.close().result(WAIT_S)
        return any(one.retain for one in found)

    systems.wait_for(is_retained, "the retained message", WAIT_S)
    assert {one.payload for one in found} == {b"kept"}


def test_subscribe_when_filters_overlap_then_each_stream_gets_each_message_once(client: Client) -> None:
    wide, narrow, exact = (list[bytes]() for _ in range(3))
    over = client.subscribe("site/#", lambda message: wide.append(message.payload))
    client.subscribe("site/+/temperature", lambda message: narrow.append(message.payload))
    client.subscribe("site/a/temperature", lambda message: exact.append(message.payload))
    client.subscribe("end")

    client.publish("site/a/temperature", b"1")
    client.publish("end", b"")
    client.events.get(timeout=WAIT_S)
    assert (wide, narrow, exact) == ([b"1"], [b"1"], [b"1"])

    over.close().result(WAIT_S)  # the narrower ones are the broker's business again
    client.subscribe("end/2")
    client.publish("site/a/temperature", b"2")
    client.publish("end/2", b"")
    client.events.get(timeout=WAIT_S)
    assert (wide, exact[1:]) == ([b"1"], [b"2"])
    assert set(narrow) == {b"1", b"2"}


def test_subscribe_when_there_are_more_than_the_broker_takes_then_told_and_a_covered_one_is_taken(
    client: Client,
) -> None:
    streams = []
    refusals = []
    for number in range(51):
        try:
            streams.append(client.subscribe(f"many/{number}"))
        except model.ServiceError as error:
            refusals.append(error.message)
    assert len(streams) > 20
    assert "the most of one connection; subscribe with a wider filter" in refusals[0]

    client.subscribe("many/0")  # the broker has it
    for stream in streams[1:]:
        stream.close().result(WAIT_S)
    client.subscribe("many/again")


def test_subscribe_when_the_broker_refuses_then_service_error_with_its_reason(
    own: systems.System, client: Client
) -> None:
    resource = "arn:aws:iot:*:*:topicfilter/forbidden/*"
    attach(own, "NoForbidden", {"Effect": "Deny", "Action": "iot:Subscribe", "Resource": resource})
    refusals: list[model.ServiceError] = []

    def is_refused() -> bool:
        try:
            client.subscribe("forbidden/x").close().result(WAIT_S)
        except model.ServiceError as error:
            refusals.append(error)
        return bool(refusals)

    systems.wait_for(is_refused, "the broker to know the policy", WAIT_S)
    assert "the broker answered 0x87" in refusals[0].message
    assert refusals[0].context["reasonCode"] == "135"


def test_publish_when_the_cloud_is_away_and_the_nucleus_is_killed_then_nothing_acknowledged_is_lost(
    own: systems.System, client: Client
) -> None:
    same = ports(own)
    own.kill("cloud")
    (own.cloud_root / "endpoints.json").unlink()
    for number in range(150):
        client.publish("out/x", b"%d" % number)
    client.ipc.close()

    own.kill(THING)
    own.start_nucleus(THING)
    again = Client(own)
    for number in range(150, 200):
        again.publish("out/x", b"%d" % number)
    again.subscribe("out/#")
    own.start_cloud(**same)

    assert [int(again.events.get(timeout=WAIT_S).payload) for _ in range(200)] == list(range(200))
    again.ipc.close()
    spool = own.device(THING) / "work" / BUILT_IN / store.FILE
    own.kill(THING, 15)
    one = store.SpoolStore(spool.parent)
    assert one.open()[0].count == 0
    one.close()
    own.start_nucleus(THING)


def test_publish_when_the_daemon_is_replaced_meanwhile_then_each_message_comes_once_and_in_order(
    own: systems.System, client: Client
) -> None:
    client.subscribe("replaced")
    facts = json.loads(next((own.device(THING) / "cli_ipc_info").glob("user-*")).read_text())

    for number in range(120):
        if number == 40:
            with ipc.Client(facts["domain_socket_path"], facts["cli_auth_token"]) as user:
                user.call("marram#RestartNucleus", {})
        client.publish("replaced", b"%d" % number)

    assert [int(client.events.get(timeout=WAIT_S).payload) for _ in range(120)] == list(range(120))
    assert "nucleus.taken_over" in (own.device(THING) / "logs" / "greengrass.log").read_text()
