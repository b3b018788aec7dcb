"""Fetches the artifacts of a component version: resumed, verified, never half visible (spec/nucleus.md 3.4)."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

from nucleus.core import errors, negotiate, recipe
from nucleus.host import files
from nucleus.store import components
from nucleus.uplink import dataplane, http

SIZE_S = 5.0  # a plan does not wait longer for the size of an artifact


class Artifacts:
    """Downloads into the component store. A partial download stays as `.<file>.part` and is resumed."""

    def __init__(self, client: http.Http, plane: dataplane.DataPlane, store: components.ComponentStore) -> None:
        self._http = client
        self._plane = plane
        self._store = store

    async def fetch(self, candidate: negotiate.Candidate, artifact: recipe.Artifact) -> None:
        """Makes one artifact complete in the store.

        Raises dataplane.Unavailable (try again), or NucleusError naming component, version and file.
        """
        what = f"{recipe.file_name(artifact)} of {candidate.name} {candidate.version}"
        if not artifact.digest or artifact.algorithm.upper() != "SHA-256":
            raise errors.NucleusError(
                "RECIPE_MISSING_ARTIFACT_HASH_ALGORITHM", f"cannot fetch {what}: its recipe has no SHA-256 digest"
            )
        scheme, _, name = artifact.uri.partition(":")
        if scheme.lower() != "greengrass":
            raise errors.NucleusError(
                "UNSUPPORTED_ARTIFACT_SCHEME",
                f"cannot fetch {what}: this nucleus has no {scheme}: downloads; publish it with `marram component publish`",
            )
        url = await self._plane.artifact_url(candidate.arn, name)
        path = self._store.artifact_path(candidate, artifact)
        files.make_directory(path.parent, 0o755)
        part = path.with_name(f".{path.name}.part")
        resumed = await self._download(url, part, what)
        if resumed and await asyncio.to_thread(components.file_digest, part) != artifact.digest:
            part.unlink()  # its beginning was of other bytes: this version was published anew meanwhile, or a crash tore it
            await self._download(url, part, what)
        if await asyncio.to_thread(components.file_digest, part) != artifact.digest:
            part.unlink()
            raise errors.NucleusError(
                "ARTIFACT_CHECKSUM_MISMATCH",
                f"cannot fetch {what}: the bytes do not have the digest of the recipe; publish the component again",
            )
        await asyncio.to_thread(_complete, part, path)

    async def size(self, candidate: negotiate.Candidate, artifact: recipe.Artifact) -> int | None:
        """Bytes of an artifact that would be fetched; None when nobody tells within SIZE_S.

        Asked by a GET of the first byte: a presigned address is signed for GET, so HEAD is refused by S3.
        """
        scheme, _, name = artifact.uri.partition(":")
        if scheme.lower() != "greengrass" or not candidate.arn:
            return None
        try:
            async with asyncio.timeout(SIZE_S):
                url = await self._plane.artifact_url(candidate.arn, name)
                told = await self._http.request("GET", url, headers={"Range": "bytes=0-0"}, timeout_s=SIZE_S)
        except (TimeoutError, errors.NucleusError):
            return None
        total = told.headers.get("content-range", "").rpartition("/")[2]
        return int(total) if told.status == 206 and total.isdecimal() else None

    async def _download(self, url: str, part: Path, what: str) -> bool:
        """Completes the partial file; True if it had a beginning already."""
        have = part.stat().st_size if part.exists() else 0
        sink = _Sink(part, have, what, self._store.check_space)
        try:
            await self._http.stream("GET", url, sink.start, headers={"Range": f"bytes={have}-"} if have else {})
        except errors.NucleusError as error:
            if sink.failure is not None:
                raise sink.failure from error
            raise dataplane.Unavailable(error.code, f"cannot fetch {what}: {error.detail}") from error
        finally:
            sink.close()
        return have > 0


class _Sink:
    """Where the bytes of one answer go; called on the CRT's thread. `failure` is what the caller shall be told."""

    def __init__(self, part: Path, have: int, what: str, check_space: Callable[[str, int], None]) -> None:
        self.failure: errors.NucleusError | None = None
        self._part = part
        self._have = have
        self._what = what
        self._check_space = check_space
        self._descriptor = -1

    def start(self, status: int, headers: dict[str, str]) -> Callable[[bytes], None]:
        try:
            self._open(status, headers)
        except errors.NucleusError as error:
            self.failure = error
            raise
        return self._write

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _open(self, status: int, headers: dict[str, str]) -> None:
        """Opens the file to append to; checks the space first. 416 means that the part is complete already, or too long."""
        what = self._what
        if status == 416 and self._have:
            return
        if status == 429 or status >= 500:
            raise dataplane.Unavailable("SERVER_ERROR", f"cannot fetch {what}: the server answered {status}")
        if status not in (200, 206):
            raise errors.NucleusError("DOWNLOAD_GREENGRASS_ARTIFACT_ERROR", f"cannot fetch {what}: answer {status}")
        if not headers.get("content-length", "").isdecimal():
            raise errors.NucleusError(
                "GREENGRASS_ARTIFACT_SIZE_NOT_FOUND", f"cannot fetch {what}: its size is not given"
            )
        begins = headers.get("content-range", f"bytes {self._have}-")
        if status == 206 and not begins.startswith(f"bytes {self._have}-"):
            raise dataplane.Unavailable("SERVER_ERROR", f"cannot fetch {what}: asked from {self._have}, got {begins}")
        self._check_space(what, int(headers["content-length"]))
        with files.writing(self._part):
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            flags |= os.O_APPEND if status == 206 else os.O_TRUNC
            self._descriptor = os.open(self._part, flags, 0o600)

    def _write(self, chunk: bytes) -> None:
        if self._descriptor < 0:
            return  # the body of a 416
        try:
            files.write_all(self._descriptor, chunk)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if full:
                self._part.unlink(missing_ok=True)  # or nothing else on this device could write any more
            code = "DISK_SPACE_CRITICAL" if full else "IO_WRITE_ERROR"
            why = f"cannot fetch {self._what}: {error.strerror}; free some space and deploy again"
            self.failure = errors.NucleusError(code, why)
            raise


def _complete(part: Path, path: Path) -> None:
    with files.writing(path):
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
        files.sync_directory(path.parent)
