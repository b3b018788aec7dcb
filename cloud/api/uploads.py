"""Receiving the body of an upload: streamed to a file, every digest that was promised checked before it counts."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping

from cloud.api import checksums, chunked, errors, identity
from cloud.objects import files

LIMIT_BYTES = 5 * 1024**3  # of one object or part, as S3 has it
_UNSIGNED = "UNSIGNED-PAYLOAD"


class Upload:
    """What is being received: decode, digest, write, then `finish`."""

    def __init__(self, incoming: files.Incoming, headers: Mapping[str, str], signer: chunked.Signer | None) -> None:
        self._incoming = incoming
        self._headers = headers
        self._mode = headers.get("x-amz-content-sha256", _UNSIGNED)
        self._decoder = chunked.Decoder(signer) if self._mode in chunked.MODES else None
        self._checksum = checksums.announced(headers)

    def write(self, data: bytes) -> None:
        block = self._decoder.receive(data) if self._decoder is not None else data
        if self._incoming.size + len(block) > LIMIT_BYTES:
            raise errors.ApiError(400, "EntityTooLarge", f"cannot take an object of over {LIMIT_BYTES} bytes")
        self._incoming.write(block)
        if self._checksum is not None:
            self._checksum.update(block)

    def finish(self) -> files.Stored:
        """Checks what was promised and makes the bytes durable. Raises ApiError 400."""
        given = dict(self._headers)
        if self._decoder is not None:
            if not self._decoder.done:
                raise errors.ApiError(400, "IncompleteBody", "cannot take the object: the body ends too early")
            given |= self._decoder.trailers
        elif self._mode not in (_UNSIGNED, self._incoming.sha256):
            message = "cannot take the object: the body does not have the signed x-amz-content-sha256"
            raise errors.ApiError(400, "XAmzContentSHA256Mismatch", message)
        self._check_length(given)
        if self._checksum is not None:
            self._checksum.check(given)
        return self._incoming.keep()

    def _check_length(self, given: Mapping[str, str]) -> None:
        wanted = given.get("x-amz-decoded-content-length")
        if wanted is not None and wanted != str(self._incoming.size):
            message = f"cannot take the object: it has {self._incoming.size} bytes, not {wanted}"
            raise errors.ApiError(400, "IncompleteBody", message)
        md5 = given.get("content-md5")
        if md5 is not None and base64.b64encode(bytes.fromhex(self._incoming.md5)).decode() != md5:
            raise errors.ApiError(
                400, "BadDigest", "cannot take the object: its MD5 is not the stated one; send it again"
            )


async def receive(
    objects: files.Objects, body: AsyncIterator[bytes], headers: Mapping[str, str], signer: chunked.Signer | None
) -> files.Stored:
    """Streams a body into the store. Disk work runs in threads, in blocks of `files.BLOCK_BYTES`."""
    incoming = await asyncio.to_thread(objects.receive)
    with incoming:
        upload = Upload(incoming, headers, signer)
        pending = bytearray()
        async for data in body:
            pending += data
            if len(pending) >= files.BLOCK_BYTES:
                await asyncio.to_thread(upload.write, bytes(pending))
                pending.clear()
        await asyncio.to_thread(upload.write, bytes(pending))
        return await asyncio.to_thread(upload.finish)


def signer(claim: identity.Claim, secret: str, headers: Mapping[str, str]) -> chunked.Signer | None:
    """Who checks the chunks' signatures, if they have any."""
    if headers.get("x-amz-content-sha256") not in (chunked.SIGNED, chunked.SIGNED_TRAILER):
        return None
    return chunked.Signer(identity.signing_key(claim, secret), claim.timestamp, claim.scope, claim.signature)
