"""A device as the field has it: awscrt's MQTT 5 client with a certificate of its own, made through boto3."""

from __future__ import annotations

import json
import queue
from pathlib import Path
from typing import Any

import boto3
import msgspec
from awscrt import mqtt5
from awsiot import mqtt5_client_builder

from nucleus.wire import jobs

_WAIT_S = 20.0


def operator(root: Path, service: str) -> Any:
    """A boto3 client with the operator's key of the running service in `root`."""
    endpoints = json.loads((root / "endpoints.json").read_text())
    lines = (root / "operator" / "credentials").read_text().splitlines()
    key = dict(line.split(" = ") for line in lines if " = " in line)
    return boto3.client(
        service,
        endpoint_url=endpoints["api"],
        region_name=endpoints["region"],
        aws_access_key_id=key["aws_access_key_id"],
        aws_secret_access_key=key["aws_secret_access_key"],
    )


def register(root: Path, thing: str, group: str) -> dict[str, str]:
    """Makes a thing in a new group, its certificate and a policy for all; returns paths of certificate and key."""
    iot = operator(root, "iot")
    iot.create_thing(thingName=thing)
    iot.create_thing_group(thingGroupName=group)
    iot.add_thing_to_thing_group(thingGroupName=group, thingName=thing)
    made = iot.create_keys_and_certificate(setAsActive=True)
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
    iot.create_policy(policyName=f"policy-{thing}", policyDocument=json.dumps(document))
    iot.attach_policy(policyName=f"policy-{thing}", target=made["certificateArn"])
    iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
    files = {"certificate": made["certificatePem"], "key": made["keyPair"]["PrivateKey"]}
    for name, text in files.items():
        (root / f"{thing}.{name}.pem").write_text(text)
    return {name: str(root / f"{thing}.{name}.pem") for name in files}


class Device:
    """One connection; `heard` are the messages of all subscriptions, in order."""

    def __init__(self, root: Path, thing: str, files: dict[str, str]) -> None:
        endpoints = json.loads((root / "endpoints.json").read_text())
        self.thing = thing
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._connected: queue.Queue[str] = queue.Queue()
        self._stopped: queue.Queue[str] = queue.Queue()
        self._client: Any = mqtt5_client_builder.mtls_from_path(
            files["certificate"],
            files["key"],
            endpoint=endpoints["mqtt"]["host"],
            port=endpoints["mqtt"]["port"],
            ca_filepath=endpoints["ca"],
            client_id=thing,
            on_publish_received=self._hear,
            on_lifecycle_connection_success=lambda _: self._connected.put("connected"),
            on_lifecycle_connection_failure=lambda data: self._connected.put(str(data.exception)),
            on_lifecycle_stopped=lambda _: self._stopped.put("stopped"),
        )

    def connect(self) -> None:
        self._client.start()
        assert self._connected.get(timeout=_WAIT_S) == "connected"

    def subscribe(self, *filters: str) -> None:
        subscriptions = [mqtt5.Subscription(topic, mqtt5.QoS.AT_LEAST_ONCE) for topic in filters]
        acknowledged = self._client.subscribe(mqtt5.SubscribePacket(subscriptions)).result(_WAIT_S)
        assert all(code.value <= 1 for code in acknowledged.reason_codes), acknowledged.reason_codes

    def publish(self, topic: str, payload: Any) -> None:
        packet = mqtt5.PublishPacket(msgspec.json.encode(payload), mqtt5.QoS.AT_LEAST_ONCE, topic=topic)
        self._client.publish(packet).result(_WAIT_S)

    def hear(self, suffix: str) -> Any:
        """The next message on a topic that ends so; others before it are dropped."""
        while True:
            topic, payload = self.heard.get(timeout=_WAIT_S)
            if topic.endswith(suffix):
                return payload

    def serve(self) -> None:
        """Subscribes to what a nucleus subscribes to."""
        prefix = jobs.jobs_prefix(self.thing)
        self.subscribe(jobs.notify(self.thing), f"{jobs.next_get(self.thing)}/+", f"{prefix}/+/+/update/+")
        self.subscribe(f"{jobs.shadow(self.thing)}/update/accepted", f"{jobs.shadow(self.thing)}/get/+")

    def close(self) -> None:
        """A second time is harmless."""
        if self._client is None:
            return
        self._client.stop()
        self._stopped.get(timeout=_WAIT_S)
        self._client = None

    def _hear(self, data: mqtt5.PublishReceivedData) -> None:
        packet = data.publish_packet
        self.heard.put((packet.topic, msgspec.json.decode(packet.payload or b"null")))
