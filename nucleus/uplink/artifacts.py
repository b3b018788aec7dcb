"""Fetches the artifacts of a component version: resumed, verified, never half visible (spec/nucleus.md 3.4)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from nucleus.core import errors, negotiate, recipe
from nucleus.host import files
from nucleus.store import components
from nucleus.uplink import dataplane, http


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
        await self._download(url, part, what)
        if await asyncio.to_thread(components.file_digest, part) != artifact.digest:
            part.unlink()
            raise errors.NucleusError(
                "ARTIFACT_CHECKSUM_MISMATCH",
                f"cannot fetch {what}: the bytes do not have the digest of the recipe; publish the component again",
            )
        await asyncio.to_thread(_complete, part, path)

    async def _download(self, url: str, part: Path, what: str) -> None:
        have = part.stat().st_size if part.exists() else 0
        failure: list[errors.NucleusError] = []
        stream: list[IO[bytes]] = []

        def start(status: int, headers: dict[str, str]) -> Callable[[bytes], None]:
            try:
                stream.append(self._open(part, have, status, headers, what))
            except errors.NucleusError as error:
                failure.append(error)
                raise
            return write

        def write(chunk: bytes) -> None:
            try:
                stream[-1].write(chunk)
            except OSError as error:
                failure.append(_disk(what, error))
                raise

        try:
            await self._http.stream("GET", url, start, headers={"Range": f"bytes={have}-"} if have else {})
        except errors.NucleusError as error:
            if failure:
                raise failure[-1] from error
            raise dataplane.Unavailable(error.code, f"cannot fetch {what}: {error.detail}") from error
        finally:
            for one in stream:
                one.close()

    def _open(self, part: Path, have: int, status: int, headers: dict[str, str], what: str) -> IO[bytes]:
        """The file to append to; checks the space first. 416 means that the part is complete already."""
        if status == 429 or status >= 500:
            raise dataplane.Unavailable("SERVER_ERROR", f"cannot fetch {what}: the server answered {status}")
        if status == 416 and have:
            return Path(os.devnull).open("ab")
        if status not in (200, 206):
            raise errors.NucleusError("DOWNLOAD_GREENGRASS_ARTIFACT_ERROR", f"cannot fetch {what}: answer {status}")
        if "content-length" not in headers:
            raise errors.NucleusError(
                "GREENGRASS_ARTIFACT_SIZE_NOT_FOUND", f"cannot fetch {what}: its size is not given"
            )
        self._store.check_space(what, int(headers["content-length"]))
        try:
            return part.open("ab" if status == 206 else "wb")
        except OSError as error:
            raise _disk(what, error) from error


def _complete(part: Path, path: Path) -> None:
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(path)
    files.sync_directory(path.parent)


def _disk(what: str, error: OSError) -> errors.NucleusError:
    code = "DISK_SPACE_CRITICAL" if error.errno in (28, 122) else "IO_WRITE_ERROR"  # ENOSPC, EDQUOT
    return errors.NucleusError(code, f"cannot fetch {what}: {error.strerror}; free some space and deploy again")
