"""The TLS machine against OpenSSL's client side, both in memory."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest

from cloud.core import tls
from tests.cloud import certificates


class Peer:
    """A client in memory that speaks to a Machine until both are quiet."""

    def __init__(self, authority: certificates.Authority, pair: certificates.Pair | None) -> None:
        context = ssl.create_default_context(cafile=str(authority.pair.certificate_path))
        if pair is not None:
            context.load_cert_chain(pair.certificate_path, pair.key_path)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def shake_hands(self, machine: tls.Machine) -> bytes:
        received = b""
        for _ in range(6):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            received += self.exchange(machine)
        return received

    def exchange(self, machine: tls.Machine) -> bytes:
        try:
            return machine.receive(self.outgoing.read())
        finally:
            self.incoming.write(machine.outgoing())


@pytest.fixture
def authority(tmp_path: Path) -> certificates.Authority:
    return certificates.Authority(tmp_path)


@pytest.fixture
def machine(authority: certificates.Authority) -> tls.Machine:
    server = authority.server()
    context = tls.server_context()
    context.load_cert_chain(server.certificate_path, server.key_path)
    context.load_verify_locations(authority.pair.certificate_path)
    return tls.Machine(context)


def test_machine_when_peer_has_a_certificate_then_knows_its_fingerprint(
    authority: certificates.Authority, machine: tls.Machine
) -> None:
    pair = authority.device("device")

    Peer(authority, pair).shake_hands(machine)

    assert machine.handshake_done
    assert machine.peer_fingerprint == pair.fingerprint


def test_machine_when_large_data_flows_both_ways_then_it_arrives_whole(
    authority: certificates.Authority, machine: tls.Machine
) -> None:
    peer = Peer(authority, authority.device("device"))
    peer.shake_hands(machine)
    data = bytes(range(256)) * 600

    peer.tls.write(data)
    received = peer.exchange(machine)
    machine.send(data)
    peer.incoming.write(machine.outgoing())
    answered = b""
    while len(answered) < len(data):
        answered += peer.tls.read(65536)

    assert received == data
    assert answered == data


def test_machine_when_peer_says_goodbye_then_peer_closed(
    authority: certificates.Authority, machine: tls.Machine
) -> None:
    peer = Peer(authority, authority.device("device"))
    peer.shake_hands(machine)

    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.exchange(machine)

    assert machine.peer_closed


def test_machine_when_closed_then_peer_sees_the_end(authority: certificates.Authority, machine: tls.Machine) -> None:
    peer = Peer(authority, authority.device("device"))
    peer.shake_hands(machine)

    machine.close()
    peer.incoming.write(machine.outgoing())

    assert peer.tls.read(1) == b""


@pytest.mark.parametrize("kind", ["none", "expired", "foreign"])
def test_machine_when_certificate_is_not_good_then_handshake_fails(
    authority: certificates.Authority, machine: tls.Machine, tmp_path: Path, kind: str
) -> None:
    pairs = {
        "none": None,
        "expired": authority.device("device", expired=True),
        "foreign": certificates.Authority(tmp_path / "other").device("device"),
    }

    with pytest.raises(ssl.SSLError):
        Peer(authority, pairs[kind]).shake_hands(machine)

    assert not machine.handshake_done


def test_machine_when_bytes_are_not_tls_then_raises(machine: tls.Machine) -> None:
    with pytest.raises(ssl.SSLError):
        machine.receive(b"GET / HTTP/1.1\r\n\r\n" * 4)
