"""Whether a CONNECT is let in: certificate, client id, policy, will. A decision without effects.

Rules: spec/broker.md 2 (client ids `<thing>` and `<thing>#N`, username without password is ignored) and design.md 4.6 row 6.
"""

from __future__ import annotations

import re

import msgspec

from cloud.core import access, topics
from cloud.mqtt import port
from cloud.mqtt.broker import limits, link, messages
from nucleus.wire import mqtt_packets

_Reason = mqtt_packets.Reason
_SUFFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")  # `#2`, and `#endpoint-switch` of the Java nucleus


class Refusal(msgspec.Struct, frozen=True):
    reason: int
    why: str


class Admission(msgspec.Struct, frozen=True):
    """What the connection may do, and its will with the delay in seconds."""

    client_id: str
    grants: access.Grants
    will: tuple[messages.Message, int] | None


class Applicant(msgspec.Struct, frozen=True):
    """Who asks: the certificate's record and policy, None for an unknown certificate; the service has no record."""

    fingerprint: str
    record: port.PrincipalRecord | None
    policy: access.Policy
    service: bool
    bounds: limits.Limits


def judge(connect: mqtt_packets.Connect, applicant: Applicant, *, now_ms: int, assigned_id: str) -> Admission | Refusal:
    """`assigned_id` is the id of a client that brings none."""
    if connect.properties.authentication_method is not None:
        return Refusal(_Reason.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not supported")
    client_id = connect.client_id or assigned_id
    refusal = _judge_id(connect, client_id, applicant)
    if refusal is not None:
        return refusal
    thing = "" if applicant.service else _judge_certificate(client_id, applicant, now_ms)
    if isinstance(thing, Refusal):
        return thing
    grants = access.Grants(applicant.policy, _variables(client_id, thing))
    if not grants.allows("iot:Connect", f"client/{client_id}"):
        return Refusal(_Reason.NOT_AUTHORIZED, f"no policy allows iot:Connect as client {client_id!r}")
    will = _judge_will(connect, client_id, applicant, grants)
    return will if isinstance(will, Refusal) else Admission(client_id, grants, will)


def fault_of_record(record: port.PrincipalRecord | None, now_ms: int) -> str:
    """Why the certificate is not good, or ""."""
    if record is None:
        return "the certificate is not known"
    if not record.active:
        return "the certificate is not active"
    return "the certificate has expired" if record.not_after_ms <= now_ms else ""


def _judge_id(connect: mqtt_packets.Connect, client_id: str, applicant: Applicant) -> Refusal | None:
    if not connect.client_id and connect.version == mqtt_packets.V311 and not connect.clean_start:
        return Refusal(_Reason.CLIENT_ID_NOT_VALID, "an empty client id needs a clean session")
    if len(client_id.encode()) > applicant.bounds.client_id_bytes:
        return Refusal(
            _Reason.CLIENT_ID_NOT_VALID, f"the client id has more than {applicant.bounds.client_id_bytes} bytes"
        )
    if client_id.startswith("$") and not applicant.service:
        return Refusal(_Reason.CLIENT_ID_NOT_VALID, "client ids that begin with '$' belong to the service")
    return None


def _judge_certificate(client_id: str, applicant: Applicant, now_ms: int) -> str | Refusal:
    """The thing the connection stands for; "" for a certificate without things, which may use any id."""
    record = applicant.record
    fault = fault_of_record(record, now_ms)
    if record is None or fault:
        return Refusal(_Reason.NOT_AUTHORIZED, fault)
    if not record.things:
        return ""
    thing, mark, suffix = client_id.partition("#")
    if thing not in record.things or (mark and _SUFFIX.fullmatch(suffix) is None):
        return Refusal(
            _Reason.NOT_AUTHORIZED, f"client id {client_id!r} is neither <thing> nor <thing>#N of its certificate"
        )
    return thing


def _variables(client_id: str, thing: str) -> dict[str, str]:
    attached = "true" if thing else "false"
    return {access.CLIENT_ID: client_id, access.THING_NAME: thing, access.IS_ATTACHED: attached}


def _judge_will(
    connect: mqtt_packets.Connect, client_id: str, applicant: Applicant, grants: access.Grants
) -> tuple[messages.Message, int] | Refusal | None:
    will = connect.will
    if will is None:
        return None
    if will.qos > 1:
        return Refusal(_Reason.QOS_NOT_SUPPORTED, "the will has QoS 2")
    fault = topics.fault_of_topic(will.topic)
    if fault:
        return Refusal(_Reason.TOPIC_NAME_INVALID, f"the will's topic: {fault}")
    if len(will.payload) > applicant.bounds.payload_bytes:
        return Refusal(_Reason.PACKET_TOO_LARGE, f"the will has more than {applicant.bounds.payload_bytes} bytes")
    if not applicant.service and not may_publish(grants, will.topic, retain=will.retain):
        return Refusal(_Reason.NOT_AUTHORIZED, f"no policy allows the will on {will.topic!r}")
    kept = msgspec.structs.replace(will.properties, will_delay_s=None)
    message = messages.Message(will.topic, will.payload, will.qos, will.retain, kept, client_id, applicant.fingerprint)
    return message, will.properties.will_delay_s or 0


def may_publish(grants: access.Grants, topic: str, *, retain: bool) -> bool:
    """A policy must allow it, and topics of the service are closed to everyone else, whatever a policy says."""
    resource = f"topic/{topic}"
    if not grants.allows("iot:Publish", resource) or topics.is_service_owned(topic):
        return False
    return not retain or grants.allows("iot:RetainPublish", resource)


def renew(to: link.Link, record: port.PrincipalRecord, policy: access.Policy) -> bool:
    """Gives a connection the rights of a new snapshot; False if it may not be connected any more."""
    thing = to.client_id.partition("#")[0] if record.things else ""
    if thing and thing not in record.things:
        return False
    variables = _variables(to.client_id, thing)
    if not to.grants.same(policy, variables):
        to.grants = access.Grants(policy, variables)
    return to.grants.allows("iot:Connect", f"client/{to.client_id}")


def applicant(of: link.Link, record: port.PrincipalRecord | None, policy: access.Policy) -> Applicant:
    chosen = link.ALLOW_ALL if of.service else policy
    return Applicant(of.principal, record, chosen, of.service, of.bounds)
