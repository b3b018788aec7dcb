"""The authority: what it makes, and that it makes it once."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from cloud.store import pki


def test_create_when_one_exists_then_refused(tmp_path: Path) -> None:
    pki.Authority.create(tmp_path)

    with pytest.raises(FileExistsError):
        pki.Authority.create(tmp_path)


def test_open_when_created_then_the_same_and_keys_are_private(tmp_path: Path) -> None:
    made = pki.Authority.create(tmp_path)

    opened = pki.Authority.open(tmp_path)

    assert opened.pem == made.pem
    assert opened.sign("x") == made.sign("x") != made.sign("y")
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0


def test_server_when_names_are_covered_then_kept_else_renewed(tmp_path: Path) -> None:
    authority = pki.Authority.create(tmp_path)

    first = authority.issue_server(["localhost", "127.0.0.1"])[0].read_bytes()
    again = authority.issue_server(["127.0.0.1"])[0].read_bytes()
    more = authority.issue_server(["localhost", "gg.example.com"])[0].read_bytes()

    assert first == again != more
    assert (tmp_path / "server.key").stat().st_mode & 0o077 == 0


def test_device_when_issued_then_id_is_the_fingerprint_and_it_began_an_hour_ago(tmp_path: Path) -> None:
    made = pki.Authority.create(tmp_path).issue_device()

    certificate = x509.load_pem_x509_certificate(made.pem.encode())

    assert made.id == hashlib.sha256(ssl.PEM_cert_to_DER_cert(made.pem)).hexdigest()
    assert made.not_after_ms - made.not_before_ms == pki.DEVICE_DAYS * 86_400_000 + 3_600_000
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
