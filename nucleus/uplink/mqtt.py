"""The MQTT 5 connection to the cloud (awscrt), by the rule of design.md 4.4.

A callback on the CRT thread takes manual acknowledgement, appends to a bounded deque and makes one coalesced
`call_soon_threadsafe`; everything else happens on the event loop. When the deque is full a QoS 1 message is left without
PUBACK (the broker sends it again) and a QoS 0 message is dropped.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from typing import Any

from nucleus.core import errors, handover
from nucleus.host import logs
from nucleus.uplink import crt, packets, spool, subscriptions

INBOUND_LIMIT = 1000  # messages between the CRT thread and the loop
REFUSED = 0x80  # reason codes from here on
NOT_SENDABLE = 0x99  # as the broker would say: payload format invalid; the spool drops the message
_NEVER = frozenset({"AWS_ERROR_MQTT5_PACKET_VALIDATION", "AWS_ERROR_MQTT5_PUBLISH_OPTIONS_VALIDATION"})
OPERATION_TIMEOUT_S = 30.0  # `mqtt.operationTimeoutMs` of the original


Endpoint = packets.Endpoint
IncomingMessage = packets.IncomingMessage
Deliver = Callable[[IncomingMessage], None]


class Connection:
    """One client with its subscriptions and its spool; `run()` keeps it connected until cancelled."""

    def __init__(
        self, endpoint: Endpoint, outgoing: spool.Spool, log: logs.Log, carried: handover.Uplink | None = None
    ) -> None:
        self._endpoint = endpoint
        self._spool = outgoing
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._subscriptions = subscriptions.Subscriptions(carried.confirmed if carried else ())
        self._inbound: collections.deque[tuple[Any, Any]] = collections.deque()
        self._drain_scheduled = False
        self._on_connected: list[Callable[[], None]] = []
        self._on_status: list[Callable[[bool], None]] = []
        self._stopped: asyncio.Event | None = None
        self._lost = ""
        self._asked: list[str] = []  # filters whose SUBACK is waited for
        self.connected = False
        self._behavior = "REJOIN_POST_SUCCESS"
        if carried is not None:
            self._behavior = "REJOIN_ALWAYS"
            outgoing.take_over(carried.messages, online=carried.online)

    async def hold(self, within_s: float) -> None:
        """Sends nothing more of the spool, before `carry`."""
        await self._spool.hold(within_s)

    def carry(self) -> handover.Uplink:
        """What the next process image needs of it as it is in this moment."""
        return handover.Uplink(tuple(sorted(self._subscriptions.confirmed)), self._spool.carry(), self.connected)

    def on_connected(self, callback: Callable[[], None]) -> None:
        """Calls back on the loop after every (re)connection: notifications may have been missed."""
        self._on_connected.append(callback)

    def on_status(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Calls back on the loop when the connection comes (True) or goes, until the returned function is called."""
        self._on_status.append(callback)
        return lambda: self._on_status.remove(callback)

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._client = crt.mqtt5.Client(self._options())
        self._client.start()
        try:
            await self._spool.pump(self._send)
        finally:
            self._client.stop(
                crt.mqtt5.DisconnectPacket(reason_code=crt.mqtt5.DisconnectReasonCode.NORMAL_DISCONNECTION)
            )
            try:
                async with asyncio.timeout(2):
                    await self._stopped.wait()
            except TimeoutError:
                self._log.warning("mqtt.stop_timed_out")

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **properties: Any) -> None:
        """Puts a message in the spool. Raises NucleusError if it cannot be sent ever, or be kept (offline QoS 0, full)."""
        packets.check_topic(topic)
        self._spool.put(spool.Message(topic=topic, payload=payload, qos=qos, properties=properties))

    async def publish_kept(self, topic: str, payload: bytes, qos: int = 1, **properties: Any) -> None:
        """As `publish`, for a component: kept as the settings say; with QoS 1 on the disk when this returns."""
        packets.check_topic(topic)
        await self._spool.keep(spool.Message(topic=topic, payload=payload, qos=qos, properties=properties))

    async def publish_now(self, topic: str, payload: bytes) -> int:
        """Publishes past the spool, with QoS 1: for questions that are worth nothing later. Returns the PUBACK's reason.

        Raises NucleusError NETWORK_ERROR when it cannot be sent now.
        """
        why = "not connected"
        if self.connected:
            try:
                async with asyncio.timeout(OPERATION_TIMEOUT_S):
                    return await self._send(spool.Message(topic=topic, payload=payload, qos=1))
            except Exception as error:  # AwsCrtError: the connection went away; TimeoutError: no PUBACK
                why = str(error) or "no PUBACK in time"
        raise errors.NucleusError("NETWORK_ERROR", f"cannot publish to {topic}: {why}")

    async def subscribe(self, filter_: str, qos: int, deliver: Deliver) -> Callable[[], None]:
        """Delivers messages of a filter until the returned function is called.

        Waits for the SUBACK when connected; offline the subscription is made at the next connection. Raises
        NucleusError NETWORK_ERROR, and errors.Refused when the broker refuses it.
        """
        sink = (qos, deliver)
        self._subscriptions.add(filter_, sink)
        if self.connected and (wanted := self._subscriptions.request(filter_)) is not None:
            try:
                await self._subscribe_now(*wanted)
            except BaseException:
                self._drop(filter_, sink)
                raise
        return lambda: self._drop(filter_, sink)

    def filters_with(self, filter_: str) -> int:
        """How many filters the broker holds, or is to hold, when this one comes to them."""
        return self._subscriptions.count_with(filter_, self._asked)

    def _drop(self, filter_: str, sink: subscriptions.Sink) -> None:
        if self._subscriptions.remove(filter_, sink) and self.connected:
            self._subscribe_all()  # first: nothing must be missed in between
            self._tidy()

    def _subscribe_all(self) -> None:
        for filter_, qos in self._subscriptions.to_subscribe().items():
            self._subscribe_again(filter_, qos)

    def _tidy(self) -> None:
        """The broker forgets what is not needed any more."""
        for filter_ in self._subscriptions.to_unsubscribe():
            self._unsubscribe(filter_)

    def _unsubscribe(self, filter_: str) -> None:
        self._subscriptions.forget(filter_)
        self._client.unsubscribe(crt.mqtt5.UnsubscribePacket(topic_filters=[filter_]))

    async def _subscribe_now(self, filter_: str, qos: int) -> None:
        self._asked.append(filter_)
        try:
            async with asyncio.timeout(OPERATION_TIMEOUT_S):
                answer = await asyncio.wrap_future(self._client.subscribe(packets.subscribe(filter_, qos)))
        except TimeoutError:
            raise errors.NucleusError("NETWORK_ERROR", f"cannot subscribe to {filter_}: no SUBACK in time") from None
        except Exception as error:  # AwsCrtError: the connection went away; unconfirmed, the next one subscribes again
            self._log.info("mqtt.subscribe_interrupted", filter=filter_, why=str(error))
            return
        finally:
            self._asked.remove(filter_)
        reason = int(answer.reason_codes[0])
        if reason >= REFUSED:
            why = f"the broker answered {reason:#04x}; check the certificate's policy"
            raise errors.Refused(f"cannot subscribe to {filter_}: {why}", reason, answer.reason_string or "")
        self._confirmed(filter_, qos)

    def _confirmed(self, filter_: str, qos: int) -> None:
        self._subscriptions.confirm(filter_, qos)
        if self.connected:
            for needless in self._subscriptions.narrower(filter_):
                self._unsubscribe(needless)
            self._tidy()

    async def _send(self, message: spool.Message) -> int:
        """Publishes once; returns the PUBACK's reason code (0 for QoS 0). Raises when the connection is lost."""
        try:
            packet = crt.mqtt5.PublishPacket(
                topic=message.topic,
                payload=message.payload,
                qos=crt.mqtt5.QoS(message.qos),
                **packets.outgoing_fields(message.properties),
            )
            sending = self._client.publish(packet)
        except Exception as error:  # RuntimeError, ValueError, OverflowError, …: awscrt cannot make a packet of it
            self._log.error("mqtt.not_sendable", topic=message.topic, why=str(error))
            return NOT_SENDABLE
        try:
            completed = await asyncio.wrap_future(sending)
        except Exception as error:
            if getattr(error, "name", "") not in _NEVER:
                raise
            self._log.error("mqtt.not_sendable", topic=message.topic, why=str(error))
            return NOT_SENDABLE
        return int(completed.puback.reason_code) if completed.puback is not None else 0

    # ---- the CRT thread ----------------------------------------------------------------------------------------

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended: nobody is left to tell
            return

    def _receive(self, received: Any) -> None:
        packet = received.publish_packet
        if len(self._inbound) >= INBOUND_LIMIT and packet.qos == crt.mqtt5.QoS.AT_MOST_ONCE:
            return
        acquire = received.acquire_publish_acknowledgement_control
        control = acquire() if packet.qos == crt.mqtt5.QoS.AT_LEAST_ONCE and acquire is not None else None
        if len(self._inbound) >= INBOUND_LIMIT:
            return  # control taken and never used: no PUBACK, the broker will send it again
        self._inbound.append((packet, control))
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self._call(self._drain)

    def _has_stopped(self, _data: Any) -> None:
        if self._stopped is not None:
            self._call(self._stopped.set)

    # ---- the loop ------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._drain_scheduled = False
        while self._inbound:
            packet, control = self._inbound.popleft()
            message = packets.incoming(packet)
            for deliver in self._subscriptions.takers(message.topic):
                self._deliver(deliver, message)
            if control is not None:
                self._client.invoke_publish_acknowledgement(control)

    def _deliver(self, deliver: Deliver, message: IncomingMessage) -> None:
        try:
            deliver(message)
        except Exception as error:  # a message that one taker cannot read must not stop all that follow
            self._log.error("mqtt.not_taken", topic=message.topic, why=f"{type(error).__name__}: {error}")

    def _connection_up(self, session_present: bool) -> None:
        self.connected = True
        self._lost = ""
        self._log.info("mqtt.connected", host=self._endpoint.host, session_present=session_present)
        self._subscriptions.connected(session_present=session_present)
        self._subscribe_all()
        self._tidy()
        self._spool.online(True)
        for callback in self._on_connected:
            callback()
        for status in list(self._on_status):
            status(True)

    def _subscribe_again(self, filter_: str, qos: int) -> None:
        def answered(future: Any) -> None:  # on the CRT thread
            if future.exception() is None:
                self._call(self._subscribed, filter_, qos, int(future.result().reason_codes[0]))

        self._client.subscribe(packets.subscribe(filter_, qos)).add_done_callback(answered)

    def _subscribed(self, filter_: str, qos: int, reason: int) -> None:
        if reason < REFUSED:
            self._confirmed(filter_, qos)
        else:
            self._log.error("mqtt.subscription_refused", filter=filter_, reason=f"{reason:#04x}")
            self._subscriptions.refuse(filter_)
            self._subscribe_all()

    def _connection_down(self, why: str) -> None:
        was = self.connected
        self.connected = False
        self._spool.online(False)
        if why != self._lost:  # said once, not at each of a thousand attempts
            self._lost = why
            self._log.warning("mqtt.disconnected" if was else "mqtt.connect_failed", why=why)
        if was:
            for status in list(self._on_status):
                status(False)

    def _options(self) -> Any:
        return packets.client_options(
            self._endpoint,
            self._behavior,
            on_publish_callback_fn=self._receive,
            on_lifecycle_event_connection_success_fn=lambda data: self._call(
                self._connection_up, bool(data.connack_packet.session_present)
            ),
            on_lifecycle_event_connection_failure_fn=lambda data: self._call(
                self._connection_down, packets.reason(data)
            ),
            on_lifecycle_event_disconnection_fn=lambda data: self._call(self._connection_down, packets.reason(data)),
            on_lifecycle_event_stopped_fn=self._has_stopped,
        )
