"""Calls `python -m nucleus.vault`: what needs the package `cryptography` happens there, over pipes, and ends with it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from nucleus.core import errors

TIMEOUT_S = 30.0
NO_KEY = 4  # exit code: none of the given keys is the one that sealed


class KeyGoneError(errors.NucleusError):
    """What is sealed can never be opened with the keys of this device."""


async def call(operation: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The vault's answer (nucleus/vault.py says what to ask). Raises NucleusError IO_ERROR, KeyGoneError."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "nucleus.vault", operation)
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise errors.NucleusError("IO_ERROR", f"cannot {operation}: {error}") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, said = await process.communicate(b"" if request is None else json.dumps(request).encode())
    except TimeoutError:
        raise errors.NucleusError("IO_ERROR", f"cannot {operation}: no result within {TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"cannot {operation}: the vault ended with code {process.returncode}"
        raise (KeyGoneError if process.returncode == NO_KEY else errors.NucleusError)("IO_ERROR", why)
    return dict(json.loads(output))
