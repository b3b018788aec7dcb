"""Uploads in parts, as boto3, the aws CLI and GDK do from 8 MiB on.

Parts lie in the object index under the bucket `.multipart`, which no client can name, until they are joined.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from xml.sax import saxutils

from cloud.api import calls, errors, s3
from cloud.objects import files
from cloud.store import objects_index

_PARTS = ".multipart"
_PART = re.compile(r"<Part>(.*?)</Part>", re.DOTALL)
_NUMBER = re.compile(r"<PartNumber>\s*(\d{1,5})\s*</PartNumber>")
_ETAG = re.compile(r"<ETag>\s*(?:&quot;|\")?([0-9a-f]{32})(?:&quot;|\")?\s*</ETag>")
_LIMIT_PARTS = 10_000


def create(call: calls.Call) -> calls.Answer:
    """CreateMultipartUpload. The upload's first row holds where it will go and as what."""
    s3.admit(call)
    upload_id = secrets.token_hex(16)
    bucket, key = call.path["bucket"], call.path["key"]
    kind = call.headers.get("content-type", "binary/octet-stream")[:256]
    nothing = files.Stored("", "", 0)
    target = _target(upload_id, bucket, key)
    objects_index.put(call.tx, _PARTS, target, nothing, etag="", content_type=kind, now_ms=call.now_ms)
    names = f"<Bucket>{bucket}</Bucket><Key>{saxutils.escape(key)}</Key><UploadId>{upload_id}</UploadId>"
    return s3.xml(f'<InitiateMultipartUploadResult xmlns="{s3.NAMESPACE}">{names}</InitiateMultipartUploadResult>')


def put(call: calls.Call) -> calls.Answer:
    """UploadPart; the body is stored already."""
    upload_id, number = _upload(call), call.first("partNumber")
    if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= _LIMIT_PARTS:
        raise errors.ApiError(400, "InvalidArgument", f"cannot take part {number!r}: 1 to {_LIMIT_PARTS}")
    assert call.stored is not None  # the route says that the body is streamed
    name, etag = _part(upload_id, int(number)), call.stored.md5
    objects_index.put(call.tx, _PARTS, name, call.stored, etag=etag, content_type="", now_ms=call.now_ms)
    return calls.Answer(200, {"etag": f'"{etag}"'})


def join(call: calls.Call) -> files.Stored:
    """The bytes of the parts that CompleteMultipartUpload names, in their order, as one object."""
    upload_id = _upload(call)
    parts = [_held(call, upload_id, number, etag) for number, etag in _named(call)]
    with call.services.objects.receive() as incoming:
        for sha256 in parts:
            for block in call.services.objects.read(sha256):
                incoming.write(block)
        return incoming.keep()


def complete(call: calls.Call) -> calls.Answer:
    """CompleteMultipartUpload; `join` has made the object."""
    upload_id, bucket, key = _upload(call), call.path["bucket"], call.path["key"]
    first = objects_index.get(call.tx, _PARTS, _target(upload_id, bucket, key))
    assert first is not None  # _upload has seen it
    assert call.stored is not None  # the route says that it is gathered
    named = _named(call)
    digest = hashlib.md5(b"".join(bytes.fromhex(etag) for _, etag in named), usedforsecurity=False).hexdigest()
    etag, kind = f"{digest}-{len(named)}", first["content_type"]
    objects_index.put(call.tx, bucket, key, call.stored, etag=etag, content_type=kind, now_ms=call.now_ms)
    _forget(call, upload_id)
    names = f"<Bucket>{bucket}</Bucket><Key>{saxutils.escape(key)}</Key><ETag>&quot;{etag}&quot;</ETag>"
    return s3.xml(f'<CompleteMultipartUploadResult xmlns="{s3.NAMESPACE}">{names}</CompleteMultipartUploadResult>')


def abort(call: calls.Call) -> calls.Answer:
    """AbortMultipartUpload."""
    _forget(call, _upload(call))
    return calls.Answer(204)


def _upload(call: calls.Call) -> str:
    """The id of an upload to this very bucket and key. Raises ApiError NoSuchUpload."""
    upload_id = call.first("uploadId")
    if objects_index.get(call.tx, _PARTS, _target(upload_id, call.path["bucket"], call.path["key"])) is None:
        message = f"cannot find upload {upload_id} of {call.path['key']}: it is done, aborted or was never begun"
        raise errors.ApiError(404, "NoSuchUpload", message)
    return upload_id


def _named(call: calls.Call) -> list[tuple[int, str]]:
    """Number and etag of the parts that the body names."""
    found = []
    for text in _PART.findall(call.body.decode(errors="replace")):
        number, etag = _NUMBER.search(text), _ETAG.search(text)
        if number is None or etag is None:
            raise errors.ApiError(400, "MalformedXML", "cannot complete the upload: a part has no number or no ETag")
        found.append((int(number[1]), etag[1]))
    if not found or [number for number, _ in found] != sorted({number for number, _ in found}):
        raise errors.ApiError(
            400, "InvalidPartOrder", "cannot complete the upload: name each part once, in ascending order"
        )
    return found


def _held(call: calls.Call, upload_id: str, number: int, etag: str) -> str:
    """The SHA-256 of a part that was uploaded."""
    row = objects_index.get(call.tx, _PARTS, _part(upload_id, number))
    if row is None or row["etag"] != etag:
        message = f"cannot complete the upload: part {number} is missing or was sent otherwise"
        raise errors.ApiError(400, "InvalidPart", message)
    return str(row["sha256"])


def _forget(call: calls.Call, upload_id: str) -> None:
    while rows := objects_index.listed(call.tx, _PARTS, f"{upload_id}/", "", 1000):
        for row in rows:
            objects_index.remove(call.tx, _PARTS, row["key"])


def _target(upload_id: str, bucket: str, key: str) -> str:
    """Hashed, for a key may fill its column."""
    return f"{upload_id}/to/{hashlib.sha256(f'{bucket}/{key}'.encode()).hexdigest()}"


def _part(upload_id: str, number: int) -> str:
    return f"{upload_id}/part/{number:05}"
