"""Validity and fingerprint of an X.509 certificate, read from its PEM text without a cryptography library (RFC 5280, 4.1)."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re

from msgspec import Struct

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


class Validity(Struct, frozen=True):
    """Both ends in epoch seconds."""

    not_before: float
    not_after: float


def validity(pem: str) -> Validity:
    """Of the first certificate in the text. Raises ValueError with a sentence."""
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("it holds no PEM certificate")
    try:
        certificate, _ = _element(base64.b64decode(found[1]), _SEQUENCE)
        body, _ = _element(certificate, _SEQUENCE)
        if body[:1] == bytes([_VERSION]):
            _, body = _element(body, _VERSION)
        for _ in range(3):  # serial number, signature algorithm, issuer
            _, body = _element(body)
        times, _ = _element(body, _SEQUENCE)
        not_before, rest = _time(times)
        return Validity(not_before, _time(rest)[0])
    except (binascii.Error, IndexError, ValueError) as error:
        raise ValueError(f"its certificate is damaged ({error})") from None


def fingerprint(pem: str) -> str:
    """The SHA-256 of the first certificate in the text, hexadecimal: its id in the cloud. Raises ValueError."""
    validity(pem)
    found = _PEM.search(pem)
    assert found is not None  # validity has read it
    return hashlib.sha256(base64.b64decode(found[1])).hexdigest()


def _element(data: bytes, tag: int = -1) -> tuple[bytes, bytes]:
    """The content of the first DER element, and what comes after it: tag u8, length (1-5 bytes), content."""
    if tag not in (-1, data[0]):
        raise ValueError(f"tag {data[0]:#x} where {tag:#x} belongs")
    size, at = data[1], 2
    if size & 0x80:
        at += size & 0x7F
        size = int.from_bytes(data[2:at], "big")
    if len(data) < at + size:
        raise ValueError("it is cut off")
    return data[at : at + size], data[at + size :]


def _time(data: bytes) -> tuple[float, bytes]:
    content, rest = _element(data)
    if data[0] not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError(f"tag {data[0]:#x} where a time belongs")
    text = content.decode("ascii")
    if data[0] == _UTC_TIME:  # two digits of the year; 50 and more are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    moment = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
    return moment.timestamp(), rest
