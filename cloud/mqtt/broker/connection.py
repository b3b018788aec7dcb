"""One client's socket: bytes in and out, TLS, and the pacing of both directions.

Reading: all connections read into one shared buffer, so an idle one holds none. A handshake step costs about a millisecond,
so they queue up and only a few are made per turn of the loop. Writing: everything queued in one turn leaves in one write;
above the transport's high-water mark the link is not writable, and a client that takes nothing for long is cut off.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import cast

from cloud.core import tls
from cloud.mqtt.broker import conversation, limits, link, pacing, prompt
from nucleus.wire import mqtt, mqtt_packets, mqtt_properties

_HIGH_WATER_BYTES = 65_536
_HANDSHAKE_STEPS = 6  # TLS 1.2 and 1.3 need two or three
_SHARED = memoryview(bytearray(262_144))


class Floor:
    """What all connections of a broker share; `context` is None for the service's own socket."""

    __slots__ = ("connections", "context", "desk", "pacer", "totals")

    def __init__(
        self,
        desk: conversation.Desk,
        totals: limits.Totals,
        context: ssl.SSLContext | None,
        connections: set[Connection],
    ) -> None:
        self.desk = desk
        self.totals = totals
        self.context = context
        self.connections = connections
        self.pacer = pacing.Pacer(totals.handshake_steps_per_turn)


class Connection(asyncio.BufferedProtocol):
    """Implements `link.Wire`. `opened_at` starts the time a client has for TLS and CONNECT."""

    __slots__ = (
        "_decoder",
        "_floor",
        "_held",
        "_loop",
        "_steps",
        "_tls",
        "_transport",
        "closing_at",
        "link",
        "opened_at",
        "stuck_at",
    )

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._tls = tls.Machine(floor.context) if floor.context is not None else None
        self._held: list[bytes] | None = None  # plaintext that waits until the certificate is known
        self._decoder = mqtt.Decoder()
        self.link: link.Link | None = None
        self.opened_at = self._loop.time()
        self._steps = 0
        self.stuck_at = 0.0  # since when the socket takes nothing; 0 = it does
        self.closing_at = 0.0  # since when we wait for the last bytes to leave

    # ---- called by asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._floor.connections) >= self._floor.totals.connections:
            self._floor.desk.router.around.counters.refused_connections += 1
            self._transport.abort()
            return
        self._floor.connections.add(self)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        if self._tls is None:
            self._begin("", limits.SERVICE, service=True)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _SHARED

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(_SHARED[:nbytes])
        if self._tls is None:
            self._receive(data)
            return
        prompt.acknowledge(self._transport)
        if not self._tls.handshake_done:
            self.pause()
            self._floor.pacer.add(self, data)
            return
        self._decrypt(self._tls, data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._floor.connections.discard(self)
        self._floor.desk.principals.forget(self)
        self._transport = None
        if self.link is not None:
            self._floor.desk.router.detach(self.link, "CONNECTION_LOST")
            self.link.closed = True

    def pause_writing(self) -> None:
        self.stuck_at = self._loop.time()
        if self.link is not None:
            self.link.writable = False
            self.link.hold()  # who does not read our answers shall not make us write more of them

    def resume_writing(self) -> None:
        self.stuck_at = 0.0
        if self.link is not None:
            self.link.writable = True
            self.link.release()
            self._fill()

    # ---- link.Wire
    def schedule_flush(self) -> None:
        self._loop.call_soon(self._flush)

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        self._flush()
        if self._transport is None:
            return
        self.closing_at = self._loop.time()
        if self._tls is not None:
            self._tls.close()
            self._transport.write(self._tls.outgoing())
        self._transport.close()

    # ---- TLS
    def shake_hands(self, data: bytes) -> None:
        """One step of the handshake, in its turn."""
        machine = self._tls
        if self._transport is None or machine is None or self._transport.is_closing():
            return
        if self._steps < _HANDSHAKE_STEPS:
            self.opened_at = self._loop.time()  # in a storm of reconnects it was we who kept the client waiting
        self._steps += 1
        self.resume()
        self._decrypt(machine, data)

    def _decrypt(self, machine: tls.Machine, data: bytes) -> None:
        try:
            plain = machine.receive(data)
        except ssl.SSLError as error:
            self._give_up(machine, f"TLS: {error.reason or error}")
            return
        if self._transport is not None:
            self._transport.write(machine.outgoing())
        if machine.handshake_done and self.link is None and self._held is None:
            self._identify(machine.peer_fingerprint)
        if plain:
            self._receive(plain)
        if machine.peer_closed and self._transport is not None:
            self._transport.close()

    def _give_up(self, machine: tls.Machine, why: str) -> None:
        self._floor.desk.report(f"cannot serve a connection from {self._peer()}: {why}")
        if self._transport is not None:
            self._transport.write(machine.outgoing())  # the alert that tells the client why
            self._transport.close()

    def _identify(self, fingerprint: str) -> None:
        """Begins, or waits a moment for a certificate that was issued just now."""
        principals = self._floor.desk.principals
        if principals.find(fingerprint) is not None:
            self._begin(fingerprint, limits.DEVICE, service=False)
            return
        self._held = []
        timer = self._loop.call_later(self._floor.totals.principal_wait_s, self._recognise, fingerprint)

        def known() -> None:
            timer.cancel()
            self._recognise(fingerprint)

        principals.wait(self, fingerprint, known)
        self.pause()

    def _recognise(self, fingerprint: str) -> None:
        """The certificate is known now, or will be refused at CONNECT."""
        self._floor.desk.principals.forget(self)
        held, self._held = self._held, None
        if self._transport is None or self._transport.is_closing():
            return
        self._begin(fingerprint, limits.DEVICE, service=False)
        self.resume()
        self._receive(b"".join(held or ()))

    # ---- MQTT
    def _begin(self, fingerprint: str, bounds: limits.Limits, *, service: bool) -> None:
        self.link = link.Link(self, self._peer(), fingerprint, bounds, service=service)
        self._decoder.maximum_bytes = bounds.packet_bytes

    def _receive(self, data: bytes) -> None:
        to = self.link
        if to is None:
            if self._held is not None:
                self._held.append(data)
            return
        around = self._floor.desk.router.around
        around.clock = to.heard_at = self._loop.time()
        around.now_ms = time.time_ns() // 1_000_000
        try:
            for packet in self._decoder.receive(data):
                conversation.receive(self._floor.desk, to, packet)
                if to.closed:
                    return
        except mqtt_properties.MQTTError as error:
            self._refuse(to, error)

    def _refuse(self, to: link.Link, error: mqtt_properties.MQTTError) -> None:
        name = to.client_id or self._peer()
        self._floor.desk.report(f"cannot go on with client {name!r}: {error.detail}")
        if not to.connected:
            conversation.refuse(to, error.reason)
            return
        self._floor.desk.router.disconnect(to, error.reason, "CLIENT_ERROR")

    def _flush(self) -> None:
        to = self.link
        if to is None or not to.output:
            return
        data = b"".join(to.output)
        to.output.clear()
        to.output_bytes = 0
        if self._transport is None:
            return
        if self._tls is not None:
            try:
                self._tls.send(data)
            except ssl.SSLError:
                self._abort("TLS is broken")
                return
            data = self._tls.outgoing()
        self._transport.write(data)
        if not to.writable and not self.stuck_at and not to.closed:
            to.writable = True
            self._fill()

    def _fill(self) -> None:
        if self.link is not None and self.link.session is not None:
            self.link.session.pump()

    # ---- called every second
    def check(self, now: float) -> None:
        """Ends what is silent, stuck, or never came to its CONNECT."""
        to = self.link
        bounds = to.bounds if to is not None else limits.DEVICE
        if self.closing_at:
            if now - self.closing_at > bounds.connect_timeout_s:
                self._abort("it does not take the last bytes")
        elif self.stuck_at and now - self.stuck_at > bounds.stuck_s:
            self._abort("it takes no data")
        elif to is None or not to.connected:
            if now - self.opened_at > bounds.connect_timeout_s:
                self._abort("no CONNECT in time")
        elif not to.service and not to.holds and now - to.heard_at > to.keep_alive_s * 1.5:
            self._floor.desk.report(f"disconnected client {to.client_id!r}: silent for {now - to.heard_at:.0f} s")
            self._floor.desk.router.disconnect(to, mqtt_packets.Reason.KEEP_ALIVE_TIMEOUT, "MQTT_KEEP_ALIVE_TIMEOUT")

    def _abort(self, why: str) -> None:
        name = self.link.client_id if self.link is not None else ""
        self._floor.desk.report(f"disconnected {name or self._peer()}: {why}")
        if self._transport is not None:
            self._transport.abort()

    def _peer(self) -> str:
        address = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(address[0]) if isinstance(address, tuple) else ""
