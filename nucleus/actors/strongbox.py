"""The secrets of this device, sealed: what is new is sealed by the vault's process, what is needed is opened by it.

In: `open` once, `put` with answers of the cloud, `value` of one version. Opened values stay in memory for some minutes after
the last need, at most PLAIN_BYTES of them. One process serves many values. Invariants: the file holds nothing readable; a
value that does not open is forgotten, so that it is fetched again.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from nucleus.core import errors, secrets
from nucleus.host import logs, vault
from nucleus.store import secrets as secrets_store
from nucleus.uplink import secretsmanager

PLAIN_S = 300.0
PLAIN_BYTES = 1024 * 1024
LIMIT_BYTES = 16 * 1024 * 1024  # of all sealed values
_SALT_BYTES = 32

Key = tuple[str, str]  # ARN and version id


class Strongbox:
    """`key_file` is the device's private key, PEM."""

    def __init__(
        self, store: secrets_store.SecretStore, key_file: Path, log: logs.Log, *, plain_s: float = PLAIN_S
    ) -> None:
        self._store = store
        self._key_file = key_file
        self._log = log
        self._plain_s = plain_s
        self._contents = self._written = secrets_store.Contents()
        self._plain: dict[Key, bytes] = {}
        self._forget: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()

    @property
    def versions(self) -> tuple[secrets.Version, ...]:
        return tuple(one.version for one in self._contents.entries)

    @property
    def opened(self) -> int:
        """How many values are in memory."""
        return len(self._plain)

    async def open(self) -> None:
        """Reads the file; seals anew what the key of before a renewal has sealed. Never raises NucleusError."""
        async with self._lock:
            self._contents, repaired = await asyncio.to_thread(self._store.load)
            self._written = self._contents
            if repaired:
                self._log.warning("secrets.repaired", what=repaired)
            if self._contents.entries and self._contents.key_file != str(self._key_file):
                await self._rekey()

    async def put(
        self, answers: Sequence[secretsmanager.Answer], settings: secrets.Settings, *, prune: bool, keep: bool = False
    ) -> None:
        """Takes in what the cloud answered, in this order; `prune` drops what is not wanted any more.

        `keep`: the values will be asked for at once. Raises NucleusError if they cannot be sealed; a full disk is only told.
        """
        async with self._lock:
            known = self._by_key()
            fresh = [one for one in answers if _key(one.version) not in known]
            known |= await self._seal(fresh, known) if fresh else {}
            if keep:
                self._remember({_key(one.version): one.value for one in answers if _key(one.version) in known})
                self._needed()
            versions = self.versions
            for one in answers:
                versions = secrets.merged(versions, one.version) if _key(one.version) in known else versions
            versions = secrets.kept(settings, versions) if prune else versions
            entries = [structs.replace(known[_key(one)], version=one) for one in versions if _key(one) in known]
            await self._replace(structs.replace(self._contents, entries=tuple(entries)))

    async def value(self, version: secrets.Version) -> bytes | None:
        """The value of a version; None if it is damaged, and then forgotten. Raises NucleusError if the vault fails."""
        self._needed()
        if _key(version) not in self._plain:
            async with self._lock:
                if _key(version) not in self._plain and _key(version) in self._by_key():
                    await self._open_some(version)
        return self._plain.get(_key(version))

    def forget(self) -> None:
        """Drops the opened values."""
        self._plain.clear()
        if self._forget is not None:
            self._forget.cancel()
            self._forget = None

    # ---- all below with the lock held ----------------------------------------------------------------------------

    def _needed(self) -> None:
        if self._forget is not None:
            self._forget.cancel()
        self._forget = asyncio.get_running_loop().call_later(self._plain_s, self.forget)

    def _remember(self, values: dict[Key, bytes]) -> None:
        """Keeps opened values, the last ones rather than the first."""
        for key, value in values.items():
            self._plain.pop(key, None)
            self._plain[key] = value
        while len(self._plain) > 1 and sum(map(len, self._plain.values())) > PLAIN_BYTES:
            del self._plain[next(iter(self._plain))]

    def _by_key(self) -> dict[Key, secrets_store.Sealed]:
        return {_key(one.version): one for one in self._contents.entries}

    async def _seal(
        self, fresh: Sequence[secretsmanager.Answer], known: dict[Key, secrets_store.Sealed]
    ) -> dict[Key, secrets_store.Sealed]:
        """Seals values with the data key of the file. If that is of another device key, the file begins anew."""
        room = LIMIT_BYTES - sum(len(one.sealed) for one in known.values())
        if sum(len(one.value) for one in fresh) > room:
            raise errors.NucleusError("IO_ERROR", f"cannot keep secrets: more than {LIMIT_BYTES} bytes altogether")
        salt = self._contents.salt or os.urandom(_SALT_BYTES)
        items = [{"context": _context(one.version), "value": _text(one.value)} for one in fresh]
        answer = await vault.call(
            "seal", {"version": 1, "keys": await self._keys(), "salt": _text(salt), "items": items}
        )
        if self._contents.entries and answer["key"] != self._contents.key:
            self._log.warning(
                "secrets.another_key", what="the device's key was replaced; all secrets are fetched again"
            )
            known.clear()
            self._contents = secrets_store.Contents()
            self._plain.clear()
        self._contents = structs.replace(self._contents, key=answer["key"], key_file=str(self._key_file), salt=salt)
        return _sealed([one.version for one in fresh], answer["items"])

    async def _open_some(self, first: secrets.Version) -> None:
        """Opens the first and, in the same process, others as far as they may stay in memory."""
        chosen, room = [self._by_key()[_key(first)]], PLAIN_BYTES
        for one in self._contents.entries:
            room -= len(one.sealed)
            if room > 0 and one is not chosen[0]:
                chosen.append(one)
        request = await self._request(chosen)
        try:
            items = (await vault.call("open", request))["items"]
        except vault.KeyGoneError as error:
            await self._lost(error)
            return
        found = {
            _key(one.version): base64.b64decode(item["value"])
            for one, item in zip(chosen, items, strict=True)
            if "value" in item
        }
        self._remember(dict(reversed(found.items())))  # the first of the chosen is the one that is needed now
        damaged = [one for one in chosen if _key(one.version) not in found]
        if damaged:
            self._log.error("secrets.damaged", secrets=[one.version.arn for one in damaged], then="fetched again")
            whole = tuple(one for one in self._contents.entries if one not in damaged)
            await self._replace(structs.replace(self._contents, entries=whole))

    async def _rekey(self) -> None:
        salt = os.urandom(_SALT_BYTES)
        old = self._contents
        try:
            answer = await vault.call("rekey", await self._request(old.entries) | {"newSalt": _text(salt)})
        except vault.KeyGoneError as error:
            await self._lost(error)
            return
        except errors.NucleusError as error:
            self._log.error("secrets.not_sealed_anew", why=error.detail)
            return
        sealed = _sealed([one.version for one in old.entries], answer["items"])
        self._log.info("secrets.sealed_anew", count=len(sealed), lost=len(old.entries) - len(sealed))
        await self._replace(secrets_store.Contents(answer["key"], str(self._key_file), salt, tuple(sealed.values())))

    async def _lost(self, error: errors.NucleusError) -> None:
        self._log.error("secrets.lost", why=error.detail, then="fetched again")
        await asyncio.to_thread(self._store.put_aside)
        self._contents = self._written = secrets_store.Contents()
        self._plain.clear()

    async def _request(self, entries: Sequence[secrets_store.Sealed]) -> dict[str, Any]:
        items = [
            {"context": _context(one.version), "nonce": _text(one.nonce), "sealed": _text(one.sealed)}
            for one in entries
        ]
        known = self._contents
        return {"version": 1, "keys": await self._keys(), "key": known.key, "salt": _text(known.salt), "items": items}

    async def _keys(self) -> list[str]:
        """The present key and, if it is there, the one that sealed."""
        try:
            found = [await asyncio.to_thread(self._key_file.read_text)]
        except (OSError, ValueError) as error:
            why = f"cannot read {self._key_file}: {error}; secrets are sealed with this device's private key"
            raise errors.NucleusError("IO_READ_ERROR", why) from error
        former = Path(self._contents.key_file or self._key_file)
        if former != self._key_file and former.is_file():
            found.append(await asyncio.to_thread(former.read_text))
        return found

    async def _replace(self, contents: secrets_store.Contents) -> None:
        """Makes it what is known, and what is on disk as far as the disk lets us."""
        self._contents = contents
        self._plain = {key: value for key, value in self._plain.items() if key in self._by_key()}
        if contents == self._written:
            return
        try:
            await asyncio.to_thread(self._store.save, contents)
            self._written = contents
        except errors.NucleusError as error:
            self._log.error("secrets.not_saved", why=error.detail, then="kept in memory, saved with the next refresh")


def _key(version: secrets.Version) -> Key:
    return version.arn, version.id


def _context(version: secrets.Version) -> list[str]:
    """What a sealed value is bound to."""
    return [version.arn, version.id, "binary" if version.is_binary else "text"]


def _sealed(versions: Sequence[secrets.Version], items: list[dict[str, Any]]) -> dict[Key, secrets_store.Sealed]:
    return {
        _key(version): secrets_store.Sealed(version, base64.b64decode(item["nonce"]), base64.b64decode(item["sealed"]))
        for version, item in zip(versions, items, strict=True)
        if "sealed" in item
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
