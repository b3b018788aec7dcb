from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nucleus.core import certificate


def _pem(start: datetime.datetime, end: datetime.datetime) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "long name " * 6)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("years", [(1970, 2049), (1999, 2050), (2026, 2126)])
def test_validity_when_a_library_made_the_certificate_then_both_ends_are_read(years: tuple[int, int]) -> None:
    start, end = (datetime.datetime(year, 2, 3, 4, 5, 6, tzinfo=datetime.UTC) for year in years)

    found = certificate.validity("text before\n" + _pem(start, end))

    assert found == certificate.Validity(start.timestamp(), end.timestamp())


@pytest.mark.parametrize("keep", [0, 4, 10, 40, 80, 120])
def test_validity_when_the_certificate_is_cut_off_then_a_sentence_says_so(keep: int) -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    lines = _pem(now, now + datetime.timedelta(days=1)).splitlines()
    body = "".join(lines[1:-1])[:keep]

    with pytest.raises(ValueError, match=r"damaged|no PEM"):
        certificate.validity("\n".join((lines[0], body, lines[-1])))


def test_validity_when_there_is_no_certificate_then_a_sentence_says_so() -> None:
    with pytest.raises(ValueError, match="no PEM certificate"):
        certificate.validity("-----BEGIN EC PRIVATE KEY-----")
