"""`python -m nucleus.vault csr|seal|open|rekey|verify|authority|server`: cryptography of the nucleus, in a process that ends.

So the daemon never loads `cryptography`. What is asked comes on standard input, the answer goes to standard output, both
one JSON object; nothing secret is in arguments, environment or files. `csr` asks nothing and answers {"privateKey",
"request"} (PEM, P-256). `verify` is for Ed25519 signatures; the others are about secrets at rest (AES-256-GCM):

    verify {"version": 1, "items": [{"publicKey": B (DER), "data": B, "signature": B}, …]}
           -> {"version": 1, "items": [{"valid": true or false}, …]}

    seal   {"version": 1, "keys": [PEM], "salt": B, "items": [{"context": [text, …], "value": B}, …]}
           -> {"version": 1, "key": ID, "items": [{"nonce": B, "sealed": B}, …]}
    open   {"version": 1, "keys": [PEM, …], "key": ID, "salt": B, "items": [{"context", "nonce", "sealed"}, …]}
           -> {"version": 1, "items": [{"value": B} | {"damaged": true}, …]}
    rekey  as open, and "newSalt"; the first of the keys seals anew -> as seal; {"damaged": true} for what cannot be opened

Certificates for a local broker (P-256, PEM; times in epoch seconds; `from` and `until` bound the validity):

    authority {"version": 1, "items": [{"name", "from", "until"}]} -> {"version": 1, "items": [{"privateKey", "certificate"}]}
    server    {"version": 1, "keys": [PEM of the authority], "authority": PEM, "items": [{"name", "names": [DNS name or
              address, …], "from", "until"}, …]} -> {"version": 1, "items": [{"privateKey", "publicKey", "certificate"}, …]}

B is base64. ID is the SHA-256 of a key's public half; the data key is HKDF-SHA256 of the private half with the salt. An
item opens only with the context it was sealed with. Exit codes: 2 a wrong call or request, 3 the package `cryptography` is
not installed, 4 no key with this ID was given; the last line of standard error says why, without values.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import os
import resource
import sys
from typing import Any

try:
    from cryptography import exceptions, x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.ciphers import aead
    from cryptography.hazmat.primitives.kdf import hkdf
except ImportError:
    print(
        "cannot do cryptography: the package `cryptography` is not installed (pip install cryptography)",
        file=sys.stderr,
    )
    sys.exit(3)

VERSION = 1
LIMIT_BYTES = 64 * 1024 * 1024  # of a request
LIMIT_ITEMS = 10_000
_PURPOSE = b"marram secrets at rest 1"
_NONCE_BYTES = 12
_WRONG, _NO_KEY = 2, 4


class RefusedError(Exception):
    """Why there is no answer, and the exit code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def csr() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return {
        "privateKey": _pem(key),
        "request": request.public_bytes(serialization.Encoding.PEM).decode(),
    }


def seal(request: dict[str, Any]) -> dict[str, Any]:
    key = _keys(request)[0]
    cipher = _cipher(key, _bytes(request["salt"]))
    items = [_sealed(cipher, one["context"], _bytes(one["value"])) for one in request["items"]]
    return {"version": VERSION, "key": identity(key), "items": items}


def unseal(request: dict[str, Any]) -> dict[str, Any]:
    return {"version": VERSION, "items": [_told(value) for value in _opened(request)]}


def rekey(request: dict[str, Any]) -> dict[str, Any]:
    """Opens with the key that `key` names and seals with the first one."""
    key = _keys(request)[0]
    cipher = _cipher(key, _bytes(request["newSalt"]))
    items = [
        {"damaged": True} if value is None else _sealed(cipher, one["context"], value)
        for one, value in zip(request["items"], _opened(request), strict=True)
    ]
    return {"version": VERSION, "key": identity(key), "items": items}


def verify(request: dict[str, Any]) -> dict[str, Any]:
    return {"version": VERSION, "items": [{"valid": _is_valid(one)} for one in request["items"]]}


def authority(request: dict[str, Any]) -> dict[str, Any]:
    """A certificate authority of its own for each item."""
    return {"version": VERSION, "items": [_authority(one) for one in request["items"]]}


def _authority(one: dict[str, Any]) -> dict[str, str]:
    key, name = ec.generate_private_key(ec.SECP256R1()), _name(one)
    made = _certificate(one, name, name, key.public_key(), key.public_key(), is_authority=True)
    return {"privateKey": _pem(key), "certificate": _pem(made.sign(key, hashes.SHA256()))}


def server(request: dict[str, Any]) -> dict[str, Any]:
    """A key pair with a certificate of the authority for each item."""
    key, issuer = _keys(request)[0], x509.load_pem_x509_certificate(request["authority"].encode())
    return {"version": VERSION, "items": [_server(one, key, issuer) for one in request["items"]]}


def _server(one: dict[str, Any], signer: Any, issuer: x509.Certificate) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    made = _certificate(one, _name(one), issuer.subject, key.public_key(), signer.public_key(), is_authority=False)
    names = x509.SubjectAlternativeName([_general_name(text) for text in one["names"]])
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    made = made.add_extension(names, critical=False).add_extension(usage, critical=False)
    return {
        "privateKey": _pem(key),
        "publicKey": _pem(key.public_key()),
        "certificate": _pem(made.sign(signer, hashes.SHA256())),
    }


def _certificate(
    one: dict[str, Any], subject: x509.Name, issuer: x509.Name, key: Any, signer: Any, *, is_authority: bool
) -> x509.CertificateBuilder:
    signs = {"key_cert_sign": is_authority, "crl_sign": is_authority}
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = dict.fromkeys((*others, "encipher_only", "decipher_only"), False) | signs
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(one["from"], datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(one["until"], datetime.UTC))
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _name(one: dict[str, Any]) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, one["name"][:64])])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(thing: Any) -> str:
    """A certificate, a public or a private key."""
    encoding = serialization.Encoding.PEM
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(encoding).decode()
    if isinstance(thing, ec.EllipticCurvePublicKey):
        return thing.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    none = serialization.NoEncryption()
    return str(thing.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none).decode())


def _is_valid(one: dict[str, Any]) -> bool:
    key = serialization.load_der_public_key(_bytes(one["publicKey"]))
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise RefusedError(_WRONG, "cannot verify: the public key is not Ed25519")
    try:
        key.verify(_bytes(one["signature"]), _bytes(one["data"]))
    except exceptions.InvalidSignature:
        return False
    return True


def identity(key: Any) -> str:
    """The SHA-256 of a key's public half, hexadecimal."""
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()


def _keys(request: dict[str, Any]) -> list[Any]:
    found = [serialization.load_pem_private_key(pem.encode(), None) for pem in request["keys"]]
    if not found:
        raise ValueError("no keys")
    return found


def _opened(request: dict[str, Any]) -> list[bytes | None]:
    """The values, None for what is not what was sealed."""
    key = next((one for one in _keys(request) if identity(one) == request["key"]), None)
    if key is None:
        raise RefusedError(_NO_KEY, "cannot open secrets: they are sealed with a key of this device that is gone")
    cipher = _cipher(key, _bytes(request["salt"]))
    found: list[bytes | None] = []
    for one in request["items"]:
        try:
            found.append(cipher.decrypt(_bytes(one["nonce"]), _bytes(one["sealed"]), _context(one["context"])))
        except (exceptions.InvalidTag, ValueError):
            found.append(None)
    return found


def _cipher(key: Any, salt: bytes) -> aead.AESGCM:
    derived = hkdf.HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=_PURPOSE).derive(_private(key))
    return aead.AESGCM(derived)


def _private(key: Any) -> bytes:
    """The private half in one form, however its file is written."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
    if isinstance(key, rsa.RSAPrivateKey):
        return key.private_numbers().d.to_bytes((key.key_size + 7) // 8, "big")
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.private_bytes_raw()
    raise RefusedError(_WRONG, "cannot keep secrets: the device's private key is neither EC, RSA nor Ed25519")


def _sealed(cipher: aead.AESGCM, context: list[str], value: bytes) -> dict[str, Any]:
    nonce = os.urandom(_NONCE_BYTES)
    return {"nonce": _text(nonce), "sealed": _text(cipher.encrypt(nonce, value, _context(context)))}


def _context(parts: list[str]) -> bytes:
    """The associated data: JSON keeps ["a", "bc"] and ["ab", "c"] apart."""
    return json.dumps([VERSION, *map(str, parts)]).encode()


def _told(value: bytes | None) -> dict[str, Any]:
    return {"damaged": True} if value is None else {"value": _text(value)}


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _asked() -> dict[str, Any]:
    data = sys.stdin.buffer.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"larger than {LIMIT_BYTES} bytes")
    found = json.loads(data)
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError(f"not of version {VERSION}")
    if len(found["items"]) > LIMIT_ITEMS:
        raise ValueError(f"more than {LIMIT_ITEMS} items")
    return found


OPERATIONS = {
    "seal": seal,
    "open": unseal,
    "rekey": rekey,
    "verify": verify,
    "authority": authority,
    "server": server,
}


def main(arguments: list[str]) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no key in a core file
    if arguments == ["csr"]:
        json.dump(csr(), sys.stdout)
        return 0
    if len(arguments) != 1 or arguments[0] not in OPERATIONS:
        print("usage: python -m nucleus.vault csr|seal|open|rekey|verify|authority|server", file=sys.stderr)
        return _WRONG
    try:
        json.dump(OPERATIONS[arguments[0]](_asked()), sys.stdout)
    except RefusedError as error:
        print(error, file=sys.stderr)
        return error.code
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        print(f"cannot {arguments[0]}: the request is wrong ({type(error).__name__})", file=sys.stderr)
        return _WRONG
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
