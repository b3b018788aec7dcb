"""Artifact URIs: which schemes there are and the file name an artifact gets on the device (spec/nucleus.md 1.4)."""

from __future__ import annotations

import re

from nucleus.core import errors

SCHEMES = ("s3", "greengrass", "docker")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_S3 = re.compile(r"//([A-Za-z0-9._-]{1,255})/(.+)", re.DOTALL)
_LIMIT_NAME_BYTES = 255  # of a file name on Linux


def scheme(uri: str) -> str:
    """`s3`, `greengrass` or `docker`. Raises NucleusError with the original's code for everything else."""
    if not uri.strip():
        raise errors.NucleusError("EMPTY_ARTIFACT_URI", "cannot use an artifact without a URI")
    match = _SCHEME.fullmatch(uri)
    if match is None:
        raise _refused(
            "EMPTY_ARTIFACT_SCHEME", uri, "it has no scheme; write s3://BUCKET/KEY, greengrass:… or docker:…"
        )
    name = match[1].lower()
    if name not in SCHEMES:
        raise _refused("UNSUPPORTED_ARTIFACT_SCHEME", uri, f"its scheme must be one of {', '.join(SCHEMES)}")
    if name == "s3" and _S3.fullmatch(match[2]) is None:
        raise _refused("S3_ARTIFACT_URI_NOT_VALID", uri, "it must read s3://BUCKET/KEY")
    if name == "docker" and not match[2].strip("/"):
        raise _refused("DOCKER_ARTIFACT_URI_NOT_VALID", uri, "it must read docker:IMAGE[:TAG|@DIGEST]")
    return name


def file_name(uri: str) -> str:
    """The last path segment: one plain file name. Raises NucleusError ARTIFACT_URI_NOT_VALID for anything else."""
    name = uri.rpartition("/")[2] if "/" in uri else uri.rpartition(":")[2]
    if not name or name in (".", ".."):
        raise _refused("ARTIFACT_URI_NOT_VALID", uri, "it must end in a file name")
    if "\\" in name or not name.isprintable() or len(name.encode()) > _LIMIT_NAME_BYTES:
        raise _refused(
            "ARTIFACT_URI_NOT_VALID", uri, "its file name has characters that cannot be used, or is too long"
        )
    return name


def _refused(code: str, uri: str, why: str) -> errors.NucleusError:
    return errors.NucleusError(code, f'cannot use artifact "{uri[:200]}": {why}')
