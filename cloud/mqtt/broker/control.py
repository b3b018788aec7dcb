"""Orders of the service, published on `$marram/broker/…`: new principals, kick a client, tell the statistics."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cloud.core import topics
from cloud.mqtt import port
from cloud.mqtt.broker import admission, messages, principals, router
from nucleus.wire import mqtt_packets, mqtt_properties

_decode_snapshot = msgspec.json.Decoder(port.Snapshot).decode


class Control:
    """Orders change nothing but the principals and who is connected."""

    def __init__(self, to: router.Router, known: principals.Principals, report: Callable[[str], None]) -> None:
        self._router = to
        self._principals = known
        self._report = report

    def order(self, topic: str, payload: bytes) -> None:
        """Carries out one order; what cannot be read is reported and changes nothing."""
        match topic:
            case port.CONTROL_PRINCIPALS:
                self._take_principals(payload)
            case port.CONTROL_KICK:
                self._kick(payload.decode(errors="replace"))
            case port.CONTROL_STATISTICS:
                self._tell_statistics()
            case _:
                self._report(f"cannot carry out {topic}: it is no order (known below {topics.CONTROL}broker/)")

    def expel(self) -> None:
        """Ends the connections whose certificate has expired, is gone or inactive."""
        now_ms = self._router.around.now_ms
        for to in list(self._router.links.values()):
            if to.service:
                continue
            fault = admission.fault_of_record(self._principals.find(to.principal), now_ms)
            if fault:
                self._report(f"disconnected client {to.client_id!r}: {fault}")
                self._router.disconnect(to, mqtt_packets.Reason.NOT_AUTHORIZED, "AUTH_ERROR")

    def _take_principals(self, payload: bytes) -> None:
        try:
            snapshot = _decode_snapshot(payload)
        except msgspec.DecodeError as error:
            self._report(f"cannot take principals: {error}")
            return
        self._principals.replace(snapshot)
        self.expel()
        self._renew_grants()

    def _renew_grants(self) -> None:
        """Applies changed things and policies to those who are connected."""
        for to in list(self._router.links.values()):
            if to.service:
                continue
            record = self._principals.find(to.principal)
            if record is not None and not admission.renew(to, record, self._principals.policy(record)):
                self._router.disconnect(to, mqtt_packets.Reason.NOT_AUTHORIZED, "FORBIDDEN_ACCESS")

    def _kick(self, client_id: str) -> None:
        to = self._router.links.get(client_id)
        if to is not None:
            self._router.disconnect(to, mqtt_packets.Reason.ADMINISTRATIVE_ACTION, "SERVER_INITIATED_DISCONNECT")

    def _tell_statistics(self) -> None:
        told = msgspec.structs.asdict(self._router.around.counters) | {
            "sessions": len(self._router.sessions),
            "connections": len(self._router.links),
            "principals_version": self._principals.version,
        }
        message = messages.Message(port.STATISTICS, msgspec.json.encode(told), 1, False, mqtt_properties.NONE, "", "")
        self._router.publish(message)
