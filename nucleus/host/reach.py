"""Tries an endpoint as the daemon will use it: name, TCP, TLS with the device certificate, and for HTTPS a request."""

from __future__ import annotations

import email.utils
import socket
import ssl
from pathlib import Path

TIMEOUT_S = 5.0
ALERT_S = 0.3  # a TLS 1.3 server tells only after the handshake that it refuses the client's certificate


class Unreachable(Exception):  # noqa: N818  the word says it
    """`code` is UNKNOWN_NAME, REFUSED, TIMED_OUT, UNTRUSTED, CERTIFICATE_REFUSED, FORBIDDEN or BROKEN; `fix` says what to do."""

    def __init__(self, code: str, why: str, fix: str) -> None:
        super().__init__(why)
        self.code = code
        self.fix = fix


def context(certificate: Path, private_key: Path, root_ca: Path) -> ssl.SSLContext:
    """Raises OSError (ssl.SSLError is one): a file cannot be read, or key and certificate do not belong together."""
    made = ssl.create_default_context(cafile=str(root_ca))
    made.load_cert_chain(certificate, private_key)
    return made


def handshake(host: str, port: int, tls: ssl.SSLContext, *, path: str = "", thing: str = "") -> float:
    """Connects; with `path` also asks for it over HTTP and returns the server's time (epoch seconds; 0: it tells none).

    Raises Unreachable.
    """
    try:
        plain = socket.create_connection((host, port), TIMEOUT_S)
        with plain, tls.wrap_socket(plain, server_hostname=host) as secure:
            return _ask(secure, host, path, thing) if path else _listen(secure)
    except socket.gaierror as error:
        why = f"cannot find the address of {host}: {error.strerror}"
        raise Unreachable("UNKNOWN_NAME", why, "check the endpoint's name and this device's DNS") from None
    except ConnectionRefusedError:
        why = f"{host}:{port} refuses connections"
        raise Unreachable("REFUSED", why, "check the port, and that the service runs") from None
    except TimeoutError:
        why = f"{host}:{port} does not answer within {TIMEOUT_S:.0f} s"
        raise Unreachable("TIMED_OUT", why, f"let outgoing TCP to port {port} through the firewall") from None
    except ssl.SSLCertVerificationError as error:
        why = f"the certificate of {host}:{port} cannot be trusted: {error.verify_message}"
        raise Unreachable(
            "UNTRUSTED", why, "compare rootCaPath with the service's authority, and the endpoint's name"
        ) from None
    except ssl.SSLError as error:
        why = f"{host}:{port} ended the TLS handshake: {error.reason or error}"
        raise Unreachable(
            "CERTIFICATE_REFUSED", why, "check that the device certificate is active in the cloud"
        ) from None
    except OSError as error:
        why = f"cannot talk to {host}:{port}: {error}"
        raise Unreachable("BROKEN", why, "check the network and what listens there") from None


def _listen(secure: ssl.SSLSocket) -> float:
    """Waits a moment for an alert; a server that waits for us is what we want."""
    secure.settimeout(ALERT_S)
    try:
        if not secure.recv(1):
            raise ConnectionResetError("it closes the connection after the handshake")
    except TimeoutError:
        pass
    return 0.0


def _ask(secure: ssl.SSLSocket, host: str, path: str, thing: str) -> float:
    own = f"Host: {host}\r\nx-amzn-iot-thingname: {thing}\r\nConnection: close\r\n"
    secure.sendall(f"GET {path} HTTP/1.1\r\n{own}\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data and len(data) < 65_536 and (piece := secure.recv(4096)):
        data += piece
    if not data.startswith(b"HTTP/"):
        raise ConnectionResetError("it does not speak HTTP")
    if data.split(b" ", 2)[1] in (b"401", b"403"):
        why = f"{host} answers {thing} with {data.split(b' ', 2)[1].decode()} for {path}"
        raise Unreachable(
            "FORBIDDEN", why, "check that the certificate is active, attached to the thing, and has a policy"
        )
    for line in data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "date":
            return email.utils.parsedate_to_datetime(value.strip()).timestamp()
    return 0.0
