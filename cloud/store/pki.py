"""The service's certificate authority: one P-256 CA for 20 years, its server certificate, certificates for devices.

Lies below the service's root as `ca.pem ca.key server.pem server.key` (design.md 4.6, row 19). Keys are mode 0600.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from cloud.core import tls

CA_DAYS = 20 * 365
SERVER_DAYS = 365
DEVICE_DAYS = 10 * 365
RENEW_DAYS = 30  # the server certificate is renewed at a start within this time of its end
_BACKDATED = datetime.timedelta(hours=1)  # a device's clock may be behind ours


class Certificate(Struct, frozen=True):
    """A certificate as the registry keeps it; `id` is the SHA-256 of the DER in lower-case hexadecimal."""

    id: str
    pem: str
    private_key: str
    public_key: str
    not_before_ms: int
    not_after_ms: int


class Authority:
    """Signs certificates. Made by `create` once and by `open` at every later start."""

    def __init__(self, root: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._root = root
        self._certificate = certificate
        self._key = key
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    @classmethod
    def create(cls, root: Path) -> Authority:
        """Makes the CA of a new service. Raises FileExistsError rather than replace one that devices trust."""
        if (root / "ca.key").exists():
            raise FileExistsError(f"cannot create a certificate authority in {root}: it has one already")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Marram CA {os.urandom(4).hex()}")])
        builder = _builder(name, name, key.public_key(), datetime.timedelta(days=CA_DAYS)).add_extension(
            x509.BasicConstraints(True, 0), critical=True
        )
        builder = builder.add_extension(_usage(ca=True), critical=True)
        certificate = builder.add_extension(_key_id(key.public_key()), critical=False).sign(key, hashes.SHA256())
        _write(root / "ca.key", _private(key), 0o600)
        _write(root / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return cls(root, certificate, key)

    @classmethod
    def open(cls, root: Path) -> Authority:
        """Raises FileNotFoundError if `create` never ran here, ValueError if a file is damaged."""
        key = serialization.load_pem_private_key((root / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"cannot open the certificate authority: {root / 'ca.key'} holds no elliptic-curve key")
        return cls(root, x509.load_pem_x509_certificate((root / "ca.pem").read_bytes()), key)

    def issue_server(self, names: Sequence[str]) -> tuple[Path, Path]:
        """Writes `server.pem` and `server.key` for these names and addresses (the first is the common name).

        A certificate that already covers the names and has more than RENEW_DAYS left stays.
        """
        paths = (self._root / "server.pem", self._root / "server.key")
        if self._serves(paths, names):
            return paths
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._leaf(
            names[0], key.public_key(), datetime.timedelta(days=SERVER_DAYS), ExtendedKeyUsageOID.SERVER_AUTH
        )
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        certificate = builder.add_extension(alternatives, critical=False).sign(self._key, hashes.SHA256())
        _write(paths[1], _private(key), 0o600)
        _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return paths

    def issue_device(self, *, lifetime_s: int = DEVICE_DAYS * 86_400) -> Certificate:
        """A new key pair and its certificate; the private key is nowhere kept."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._issued(key.public_key(), _private(key).decode(), lifetime_s)

    def issue_from_csr(self, text: str) -> Certificate:
        """A device's certificate for the key of a request (PEM); `private_key` is "".

        Raises ValueError for a request that cannot be read, is not signed by its key, or has a weak one. Of its subject and
        extensions nothing is taken over.
        """
        request = x509.load_pem_x509_csr(text.encode())
        key = request.public_key()
        if not request.is_signature_valid:
            raise ValueError("the certificate signing request is not signed by its own key")
        curve = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1")
        if not curve and not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048):
            raise ValueError("the certificate signing request needs a key of P-256, P-384 or RSA from 2048 bits")
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        return self._issued(key, "", DEVICE_DAYS * 86_400)

    def _issued(
        self, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, private_key: str, lifetime_s: int
    ) -> Certificate:
        builder = self._leaf(
            "AWS IoT Certificate", key, datetime.timedelta(seconds=lifetime_s), ExtendedKeyUsageOID.CLIENT_AUTH
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return Certificate(
            id=certificate.fingerprint(hashes.SHA256()).hex(),
            pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            private_key=private_key,
            public_key=public.decode(),
            not_before_ms=int(certificate.not_valid_before_utc.timestamp() * 1000),
            not_after_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
        )

    def device_context(self) -> ssl.SSLContext:
        """TLS of the device HTTPS server; client certificates are optional, for presigned downloads come without."""
        # Every HTTPS client of the Java nucleus offers both (spec/cloud.md J5); no overlap is no error either.
        context = tls.server_context(["http/1.1", "x-amzn-http-ca"])
        context.load_cert_chain(self._root / "server.pem", self._root / "server.key")
        context.load_verify_locations(cadata=self.pem)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def sign(self, text: str) -> str:
        """A keyed digest for presigned URLs, 128 bits in hexadecimal; the key is derived from the CA's own."""
        secret = self._key.private_numbers().private_value.to_bytes(32, "big")
        key = hmac.digest(secret, b"marram presigned downloads", "sha256")
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32]

    def _leaf(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        lifetime: datetime.timedelta,
        purpose: x509.ObjectIdentifier,
    ) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
        builder = _builder(subject, self._certificate.subject, key, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(_key_id(key), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(issuer, critical=False)

    def _serves(self, paths: tuple[Path, Path], names: Sequence[str]) -> bool:
        if not all(path.exists() for path in paths):
            return False
        certificate = x509.load_pem_x509_certificate(paths[0].read_bytes())
        left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        covered = {_general_name(name) for name in names} <= set(held)
        return covered and left.days > RENEW_DAYS and certificate.issuer == self._certificate.subject


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write new, fsync, rename, fsync directory: a torn CA key would cost every device."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
