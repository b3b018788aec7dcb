"""TLS as a machine of bytes: what came from the peer goes in, plaintext and what must be sent comes out.

No sockets here: the broker and the device HTTPS server own those. asyncio's own `ssl=` allocates 256 KiB per connection
and hides the peer's certificate from us (spec/broker.md 5), so TLS is terminated over `ssl.MemoryBIO`.

Rules of use: after every `receive`, `send` and `close` - also after an error - write `outgoing()` to the socket: it may
hold handshake records, an alert or a close_notify.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence

_RECORD_BYTES = 16_384  # the largest plaintext of one TLS record: one `read` never returns more


def server_context(alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """A context that demands a client certificate; the caller loads its own certificate and the CA into it.

    `alpn` are the protocols we choose from; a client that offers others, or none, is served all the same.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    # No resumption: a resumed session would carry a certificate that may have been revoked since.
    context.num_tickets = 0
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Machine:
    """The server's end of one TLS connection.

    `peer_fingerprint` is the lower-case hexadecimal SHA-256 of the client certificate's DER ("" without one), known
    once `handshake_done`. `peer_closed` is true after the peer's close_notify.
    """

    __slots__ = ("_incoming", "_outgoing", "_tls", "handshake_done", "peer_closed", "peer_fingerprint")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.handshake_done = False
        self.peer_closed = False
        self.peer_fingerprint = ""

    def receive(self, data: bytes | memoryview) -> bytes:
        """Takes bytes from the socket and returns the plaintext they complete; raises ssl.SSLError on a bad peer."""
        self._incoming.write(data)
        if not self.handshake_done and not self._shake_hands():
            return b""
        plain = self._read()
        if not self._incoming.pending and not self._tls.pending():
            return plain
        chunks = [plain]
        while chunk := self._read():
            chunks.append(chunk)
        return b"".join(chunks)

    def send(self, data: bytes) -> None:
        """Encrypts plaintext for the peer; raises ssl.SSLError before the handshake is done or after `close`."""
        if data:
            self._tls.write(data)

    def outgoing(self) -> bytes:
        """What must be written to the socket now."""
        return self._outgoing.read()

    def close(self) -> None:
        """Queues our close_notify; the peer's own is not waited for."""
        if not self.handshake_done:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            return  # WANT_READ: the peer has not said goodbye yet, and need not

    def _shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.handshake_done = True
        certificate = self._tls.getpeercert(binary_form=True)
        if certificate:
            self.peer_fingerprint = hashlib.sha256(certificate).hexdigest()
        return True

    def _read(self) -> bytes:
        try:
            chunk = self._tls.read(_RECORD_BYTES)
        except ssl.SSLWantReadError:
            return b""
        if not chunk:  # an SSLObject answers a close_notify by an empty read
            self.peer_closed = True
        return chunk
