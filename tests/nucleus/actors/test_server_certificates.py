"""Server certificates: what is in them, that they are kept, and when they are replaced."""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nucleus.actors import server_certificates
from nucleus.core import client_devices as words
from nucleus.core import errors
from nucleus.host import logs, vault
from nucleus.store import client_devices as store

BROKER = "com.example.Broker"
DAY_S = 86_400.0


class Bench:
    """The real vault, with the clock, the addresses and the configuration in the test's hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "client_devices"
        self.log = logs.Log("test", directory=folder / "logs")
        self.now_s = float(int(time.time()))
        self.names = ["10.1.2.3", "host.local"]
        self.configuration: dict[str, Any] = {"marram": {"serverNames": ["broker.local"]}}
        self.made: list[str] = []
        self.is_broken = False
        self.start()

    def start(self) -> None:
        self.certificates = server_certificates.ServerCertificates(
            store.ClientDeviceStore(self.folder),
            self._vault,
            lambda: self.names,
            lambda: words.read(self.configuration),
            self.log,
            wall=lambda: self.now_s,
        )

    async def _vault(self, operation: str, request: Any) -> dict[str, Any]:
        if self.is_broken:
            raise errors.NucleusError("IO_ERROR", "cannot make it")
        self.made.append(operation)
        return await vault.call(operation, request)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_current_when_first_then_key_names_and_authority_belong_together(bench: Bench) -> None:
    made = await bench.certificates.current(BROKER)

    certificate, authority = (
        x509.load_pem_x509_certificate(one.encode()) for one in (made.certificate, made.authority)
    )
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "broker.local", "host.local"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.1.2.3")]
    key = serialization.load_pem_private_key(made.private_key.encode(), None).public_key()
    assert key == serialization.load_pem_public_key(made.public_key.encode()) == certificate.public_key()
    assert certificate.not_valid_after_utc.timestamp() == bench.now_s + 7 * DAY_S
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (bench.folder / "authority.pem").read_text() == made.authority
    modes = {path.name: path.stat().st_mode & 0o777 for path in bench.folder.iterdir()}
    assert {mode for name, mode in modes.items() if name != "authority.pem"} == {0o600}
    assert bench.folder.stat().st_mode & 0o777 == 0o700


async def test_current_when_asked_again_even_after_a_restart_then_the_same_of_one_authority(bench: Bench) -> None:
    first = await bench.certificates.current(BROKER)
    bench.start()

    assert await bench.certificates.current(BROKER) == first
    other = await bench.certificates.current("com.example.Other")
    assert other.authority == first.authority
    assert other.private_key != first.private_key
    assert bench.made == ["authority", "server", "server"]


async def test_look_when_a_third_is_left_then_a_new_one_reaches_the_subscriber_once(bench: Bench) -> None:
    first = await bench.certificates.current(BROKER)
    heard: list[store.Server] = []
    cancel = bench.certificates.subscribe(BROKER, heard.append)
    assert await bench.certificates.look() == server_certificates.LOOK_S
    bench.now_s += 7 * DAY_S * 2 / 3 - 5
    assert await bench.certificates.look() == 5
    assert heard == []

    bench.now_s += 5
    await bench.certificates.look()
    await bench.certificates.look()

    assert [one.until_s for one in heard] == [bench.now_s + 7 * DAY_S]
    assert heard[0].private_key != first.private_key
    cancel()
    bench.now_s += 7 * DAY_S
    await bench.certificates.look()
    assert len(heard) == 1


async def test_subscribe_when_made_again_by_the_next_image_then_only_what_is_new_is_heard(bench: Bench) -> None:
    await bench.certificates.current(BROKER)
    bench.start()
    heard: list[store.Server] = []
    bench.certificates.subscribe(BROKER, heard.append)

    await bench.certificates.look()
    assert heard == []
    bench.names.append("10.9.9.9")
    await bench.certificates.look()

    assert ["10.9.9.9" in one.names for one in heard] == [True]


@pytest.mark.parametrize("what", ["validity", "clock set back", "authority ends"])
async def test_current_when_it_does_not_fit_any_more_then_another(bench: Bench, what: str) -> None:
    first = await bench.certificates.current(BROKER)
    if what == "validity":
        bench.configuration["certificates"] = {"serverCertificateValiditySeconds": 172_800}
    bench.now_s += {"validity": 0, "clock set back": -DAY_S, "authority ends": 3600 * DAY_S}[what]

    second = await bench.certificates.current(BROKER)

    assert second.certificate != first.certificate
    assert (second.authority != first.authority) == (what == "authority ends")


async def test_look_when_it_cannot_be_made_then_it_is_tried_again_soon(bench: Bench) -> None:
    bench.certificates.subscribe(BROKER, lambda _made: None)
    bench.is_broken = True

    assert await bench.certificates.look() == server_certificates.AGAIN_S
    bench.is_broken = False
    assert await bench.certificates.look() == server_certificates.LOOK_S
