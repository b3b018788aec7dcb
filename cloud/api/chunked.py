"""Bodies in `aws-chunked` coding, as S3 clients stream them: signed chunks or plain ones, with trailers.

Frame: size in hexadecimal, optional `;chunk-signature=…`, CRLF, bytes, CRLF; size 0 ends; then trailer lines, CRLF.
Source: S3 API reference, "Signature calculations for streaming uploads".
"""

from __future__ import annotations

import hashlib
import hmac
import re

from cloud.api import errors

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
MODES = (SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER)

_LIMIT_CHUNK_BYTES = 16 * 1024 * 1024  # a chunk is held whole until its signature is known; SDKs send up to 1 MiB
_LIMIT_LINE_BYTES = 4096
_LIMIT_TRAILERS = 16
_HEAD = re.compile(rb"([0-9a-fA-F]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?")
_EMPTY = hashlib.sha256(b"").hexdigest()


class Signer:
    """Verifies the chain of chunk signatures that starts at the request's own."""

    def __init__(self, key: bytes, timestamp: str, scope: str, seed: str) -> None:
        self._key = key
        self._prefix = f"{timestamp}\n{scope}"
        self._previous = seed

    def chunk(self, data: bytes, signature: str) -> None:
        """Raises ApiError 403 for a chunk the key's holder did not sign at this place."""
        self._check("AWS4-HMAC-SHA256-PAYLOAD", f"{_EMPTY}\n{hashlib.sha256(data).hexdigest()}", signature)

    def trailer(self, canonical: bytes, signature: str) -> None:
        self._check("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(canonical).hexdigest(), signature)

    def _check(self, kind: str, digest: str, signature: str) -> None:
        text = f"{kind}\n{self._prefix}\n{self._previous}\n{digest}"
        expected = hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            message = "a chunk of the upload does not carry the signature that belongs to it"
            raise errors.ApiError(403, "InvalidSignatureException", message)
        self._previous = signature


class Decoder:
    """Takes bytes as they arrive, gives the bytes of complete chunks; `trailers` are complete once `done`."""

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer
        self._buffer = bytearray()
        self._chunk: tuple[int, str] | None = None  # size and signature of the chunk being received
        self._in_trailers = False
        self.trailers: dict[str, str] = {}
        self.done = False

    def receive(self, data: bytes) -> bytes:
        """Raises ApiError 400 for what is not of the coding, 403 for a wrong signature."""
        if self.done and data:
            raise _malformed("bytes follow the end")
        self._buffer += data
        out = bytearray()
        while not self.done and self._step(out):
            pass
        return bytes(out)

    def _step(self, out: bytearray) -> bool:
        """Takes one line or one chunk off the buffer; False if it is not complete yet."""
        if self._chunk is not None:
            return self._take_chunk(out)
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _LIMIT_LINE_BYTES:
                raise _malformed("a line is too long")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._in_trailers:
            self._take_trailer(line)
        else:
            self._take_head(line)
        return True

    def _take_head(self, line: bytes) -> None:
        found = _HEAD.fullmatch(line)
        if found is None:
            raise _malformed("a chunk has no readable head")
        size, signature = int(found[1], 16), (found[2] or b"").decode()
        if size > _LIMIT_CHUNK_BYTES:
            raise _malformed(f"a chunk is larger than {_LIMIT_CHUNK_BYTES} bytes")
        if size:
            self._chunk = (size, signature)
            return
        if self._signer is not None:
            self._signer.chunk(b"", signature)
        self._in_trailers = True

    def _take_chunk(self, out: bytearray) -> bool:
        assert self._chunk is not None
        size, signature = self._chunk
        if len(self._buffer) < size + 2:
            return False
        data = bytes(self._buffer[:size])
        if self._buffer[size : size + 2] != b"\r\n":
            raise _malformed("a chunk is longer than its head says")
        del self._buffer[: size + 2]
        if self._signer is not None:
            self._signer.chunk(data, signature)
        self._chunk = None
        out += data
        return True

    def _take_trailer(self, line: bytes) -> None:
        if line:
            name, _, value = line.decode("latin-1").partition(":")
            if len(self.trailers) >= _LIMIT_TRAILERS:
                raise _malformed("it has too many trailers")
            self.trailers[name.strip().lower()] = value.strip()
            return
        signature = self.trailers.pop("x-amz-trailer-signature", "")
        if self._signer is not None and self.trailers:
            canonical = "".join(f"{name}:{value}\n" for name, value in sorted(self.trailers.items()))
            self._signer.trailer(canonical.encode(), signature)
        self.done = True


def _malformed(why: str) -> errors.ApiError:
    return errors.ApiError(400, "IncompleteBody", f"cannot read the aws-chunked body: {why}")
