"""What the broker does with each packet of a client, in MQTT's and AWS IoT's words.

A denied publish or subscription: MQTT 5 gets reason 0x87 (PUBACK, SUBACK; with QoS 0, which has no answer, DISCONNECT);
an MQTT 3.1.1 connection is closed, as AWS does. Faults raise MQTTError; the connection says the reason and closes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec

from cloud.core import topics
from cloud.mqtt.broker import admission, control, link, messages, principals, router
from nucleus.wire import mqtt, mqtt_packets, mqtt_properties

_Reason = mqtt_packets.Reason


class Desk(msgspec.Struct):
    """What every conversation needs: where messages go, who the principals are, where orders of the service go."""

    router: router.Router
    principals: principals.Principals
    control: control.Control
    report: Callable[[str], None]


def receive(desk: Desk, of: link.Link, packet: mqtt_packets.Packet) -> None:
    """Handles one packet; raises MQTTError when the client broke the protocol."""
    if not of.connected:
        if not isinstance(packet, mqtt_packets.Connect):
            raise mqtt_properties.MQTTError(_Reason.PROTOCOL_ERROR, "the first packet is not CONNECT")
        _connect(desk, of, packet)
        return
    match packet:
        case mqtt_packets.Publish():
            _publish(desk, of, packet)
        case mqtt_packets.Puback():
            if of.session is not None:
                of.session.acknowledge(packet.packet_id)
        case mqtt_packets.Pingreq():
            of.packet(mqtt_packets.Pingresp())
        case mqtt_packets.Subscribe():
            _subscribe(desk, of, packet)
        case mqtt_packets.Unsubscribe():
            _unsubscribe(desk, of, packet)
        case mqtt_packets.Disconnect():
            _disconnect(desk, of, packet)
        case _:
            name = type(packet).__name__.upper()
            raise mqtt_properties.MQTTError(_Reason.PROTOCOL_ERROR, f"{name} is not expected from a client now")


def _connect(desk: Desk, of: link.Link, connect: mqtt_packets.Connect) -> None:
    of.version = connect.version
    around = desk.router.around
    record = desk.principals.find(of.principal)
    policy = desk.principals.policy(record) if record is not None else link.ALLOW_ALL
    applicant = admission.applicant(of, record, policy)
    verdict = admission.judge(connect, applicant, now_ms=around.now_ms, assigned_id=f"auto-{uuid.uuid4()}")
    if isinstance(verdict, admission.Admission) and desk.router.is_full(verdict.client_id):
        verdict = admission.Refusal(_Reason.QUOTA_EXCEEDED, "the broker keeps as many sessions as it may")
    if isinstance(verdict, admission.Refusal):
        around.counters.refused_connections += 1
        desk.report(f"cannot connect client {connect.client_id!r} of certificate {of.principal[:16]}: {verdict.why}")
        of.packet(mqtt_packets.Connack(False, verdict.reason, _why(verdict.why)))
        of.close()
        return
    of.client_id, of.grants, of.will = verdict.client_id, verdict.grants, verdict.will
    of.assigned = not connect.client_id
    of.session_id = str(uuid.uuid4())
    expiry_s = _agree(of, connect)
    old = desk.router.links.get(of.client_id)
    if old is not None:
        desk.router.disconnect(old, _Reason.SESSION_TAKEN_OVER, "DUPLICATE_CLIENTID")
    present = desk.router.attach(of, clean_start=connect.clean_start, expiry_s=expiry_s)
    of.connected = True
    of.packet(mqtt_packets.Connack(present, 0, _agreed(of, connect, expiry_s)))
    desk.router.resume(of)


def _agree(of: link.Link, connect: mqtt_packets.Connect) -> int:
    """Sets the bounds both sides accept; returns the session's expiry in seconds."""
    bounds, wanted = of.bounds, connect.properties
    of.keep_alive_s = min(connect.keep_alive_s or bounds.keep_alive_s, bounds.keep_alive_s)
    of.maximum_packet_bytes = wanted.maximum_packet_bytes or 0
    if connect.version == mqtt_packets.V311:
        of.in_flight = bounds.in_flight_v311
        return 0 if connect.clean_start else bounds.session_expiry_s
    of.in_flight = min(wanted.receive_maximum or 65_535, bounds.in_flight)
    return min(wanted.session_expiry_s or 0, bounds.session_expiry_s)


def _agreed(of: link.Link, connect: mqtt_packets.Connect, expiry_s: int) -> mqtt_properties.Properties:
    bounds = of.bounds
    changed = of.keep_alive_s != connect.keep_alive_s
    return mqtt_properties.Properties(
        session_expiry_s=expiry_s if expiry_s != (connect.properties.session_expiry_s or 0) else None,
        receive_maximum=bounds.receive_maximum,
        maximum_qos=1,
        maximum_packet_bytes=bounds.packet_bytes,
        assigned_client_id=of.client_id if of.assigned else None,
        topic_alias_maximum=bounds.topic_aliases,
        server_keep_alive_s=of.keep_alive_s if changed else None,
    )


def _publish(desk: Desk, of: link.Link, packet: mqtt_packets.Publish) -> None:
    topic = _topic(of, packet)
    if packet.qos > 1:
        raise mqtt_properties.MQTTError(_Reason.QOS_NOT_SUPPORTED, "QoS 2 is not supported")
    if len(packet.payload) > of.bounds.payload_bytes:
        raise mqtt_properties.MQTTError(
            _Reason.PACKET_TOO_LARGE, f"a payload has more than {of.bounds.payload_bytes} bytes"
        )
    if of.version == mqtt_packets.V5 and of.receipts and len(of.receipts) >= of.bounds.receive_maximum and packet.qos:
        raise mqtt_properties.MQTTError(_Reason.RECEIVE_MAXIMUM_EXCEEDED, "more publishes than the receive maximum")
    if not of.service and not admission.may_publish(of.grants, topic, retain=packet.retain):
        _deny(desk, of, packet, topic)
        return
    receipt = of.owe(packet.packet_id) if packet.qos else None
    if of.service and topic.startswith(topics.CONTROL):
        desk.control.order(topic, packet.payload)
        if receipt is not None:
            receipt.release()
        return
    properties, expiry_s = packet.properties, packet.properties.message_expiry_s
    if properties.topic_alias is not None:
        properties = msgspec.structs.replace(properties, topic_alias=None)
    expires_at_ms = desk.router.around.now_ms + expiry_s * 1000 if expiry_s is not None else 0
    desk.router.publish(
        messages.Message(
            topic, packet.payload, packet.qos, packet.retain, properties, of.client_id, of.principal, expires_at_ms
        ),
        receipt,
    )


def _topic(of: link.Link, packet: mqtt_packets.Publish) -> str:
    """The topic, by its alias if it has one; raises if it is not valid."""
    alias, topic = packet.properties.topic_alias, packet.topic
    if alias is not None:
        if alias > of.bounds.topic_aliases:
            raise mqtt_properties.MQTTError(_Reason.TOPIC_ALIAS_INVALID, f"topic alias {alias} is beyond the maximum")
        if of.aliases is None:
            of.aliases = {}
        if not topic:
            topic = of.aliases.get(alias, "")
        of.aliases[alias] = topic
    fault = topics.fault_of_topic(topic)
    if fault:
        raise mqtt_properties.MQTTError(_Reason.TOPIC_NAME_INVALID, f"a topic is not valid: {fault}")
    return topic


def _deny(desk: Desk, of: link.Link, packet: mqtt_packets.Publish, topic: str) -> None:
    desk.router.around.counters.dropped_denied += 1
    desk.report(f"cannot publish to {topic!r} as client {of.client_id!r}: its policy does not allow it")
    if of.version == mqtt_packets.V5 and packet.qos:
        receipt = of.owe(packet.packet_id)
        receipt.reason = _Reason.NOT_AUTHORIZED
        receipt.release()
        return
    desk.router.disconnect(of, _Reason.NOT_AUTHORIZED, "FORBIDDEN_ACCESS")


def _subscribe(desk: Desk, of: link.Link, packet: mqtt_packets.Subscribe) -> None:
    session = of.session
    if session is None:
        return
    if len(packet.requests) > of.bounds.filters_per_subscribe:
        raise mqtt_properties.MQTTError(_Reason.QUOTA_EXCEEDED, "a SUBSCRIBE names too many filters")
    judged = [(request, _judge(of, request)) for request in packet.requests]
    if of.version == mqtt_packets.V311 and any(reason == _Reason.NOT_AUTHORIZED for _, reason in judged):
        desk.report(f"cannot subscribe client {of.client_id!r}: its policy does not allow it")
        desk.router.disconnect(of, 0, "FORBIDDEN_ACCESS")
        return
    identifier = packet.properties.subscription_identifiers[0] if packet.properties.subscription_identifiers else 0
    reasons: list[int] = []
    granted: list[mqtt_packets.Request] = []
    for request, reason in judged:
        if reason < 0x80 and not _has_room(of, request.filter, granted):
            reason = _Reason.QUOTA_EXCEEDED
        reasons.append(int(reason))
        if reason < 0x80:
            granted.append(msgspec.structs.replace(request, qos=int(reason)))

    def answer() -> None:
        of.packet(mqtt_packets.Suback(packet.packet_id, tuple(reasons)))

    # A subscription that was promised must outlive a SIGKILL; only what nobody keeps is answered at once.
    if session.expiry_s and granted:
        desk.router.around.journal.after_commit(answer)
    else:
        answer()
    for request in granted:
        desk.router.subscribe(session, request, identifier, version=of.version)


def _has_room(of: link.Link, key: str, granted: list[mqtt_packets.Request]) -> bool:
    known = of.session.subscriptions if of.session is not None else {}
    new = sum(each.filter not in known for each in granted)
    return key in known or len(known) + new < of.bounds.subscriptions


def _judge(of: link.Link, request: mqtt_packets.Request) -> int:
    """The granted QoS or the reason why not."""
    parts = topics.split_share(request.filter)
    if parts is None or topics.fault_of_filter(parts[1]):
        return _Reason.TOPIC_FILTER_INVALID
    if parts[0] and request.no_local:
        raise mqtt_properties.MQTTError(_Reason.PROTOCOL_ERROR, "no local is not allowed on a shared subscription")
    if not of.service and not of.grants.allows("iot:Subscribe", f"topicfilter/{parts[1]}"):
        return _Reason.NOT_AUTHORIZED
    return min(request.qos, 1)


def _unsubscribe(desk: Desk, of: link.Link, packet: mqtt_packets.Unsubscribe) -> None:
    session = of.session
    if session is None:
        return
    found = [desk.router.unsubscribe(session, each) for each in packet.filters]
    reasons = tuple(int(_Reason.SUCCESS if each else _Reason.NO_SUBSCRIPTION_EXISTED) for each in found)
    of.packet(mqtt_packets.Unsuback(packet.packet_id, reasons))


def _disconnect(desk: Desk, of: link.Link, packet: mqtt_packets.Disconnect) -> None:
    session, expiry_s = of.session, packet.properties.session_expiry_s
    if session is not None and expiry_s is not None:
        if expiry_s and not session.expiry_s:
            raise mqtt_properties.MQTTError(_Reason.PROTOCOL_ERROR, "a session that ends now cannot be prolonged")
        if session.expiry_s and not expiry_s:
            desk.router.around.journal.forget_session(session.client_id, session.undelivered())
        session.expiry_s = min(expiry_s, of.bounds.session_expiry_s)
    if packet.reason != _Reason.DISCONNECT_WITH_WILL:
        of.will = None
    desk.router.disconnect(of, 0, "CLIENT_INITIATED_DISCONNECT")


def _why(text: str) -> mqtt_properties.Properties:
    return mqtt_properties.Properties(reason=text)


def refuse(of: link.Link, reason: int) -> None:
    """Answers a CONNECT that could not be read, as far as its version is known."""
    of.send(mqtt.encode(mqtt_packets.Connack(False, reason), of.version or mqtt_packets.V311))
    of.close()
