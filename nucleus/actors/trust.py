"""Checks the signatures of what a deployment brings, before any script of it runs (core/signing.py has the rules).

In: resolved components whose artifacts are in the store; store/trust.py. Out: NucleusError, or nothing; and the security
floors that signed versions have set, which only ever rise. A floor counts from the deployment after its own, so that a bad
update with a high floor does not forbid the way back from itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from nucleus.core import component, errors, negotiate, recipe, signing
from nucleus.host import logs
from nucleus.store import components, trust
from nucleus.uplink import verifier

_SIGNATURE_FILES = (signing.MANIFEST, signing.SIGNATURE)


class Trust:
    """`root` holds trust.json; it is read anew for every check, so that a revocation counts at once."""

    def __init__(
        self,
        root: Path,
        packages: components.ComponentStore,
        platform: Mapping[str, str],
        log: logs.Log,
    ) -> None:
        self._root = root
        self._packages = packages
        self._platform = platform
        self._log = log
        self._taken: set[tuple[str, str]] = set()  # versions whose floors are known

    async def check(
        self, resolved: Mapping[str, negotiate.Candidate], installed: Mapping[str, component.Component]
    ) -> None:
        """Judges what a deployment resolved, after the floors of what is installed. Raises NucleusError, signing.CODES."""
        await self._raise_floors(installed)
        for one in resolved.values():
            found = await self._verified(one)
            if found is not None:
                self._log.info("trust.verified", component=one.name, version=one.version, key=found.key)

    async def _raise_floors(self, installed: Mapping[str, component.Component]) -> None:
        """What is installed when the next deployment comes has proven itself; what cannot be read changes nothing."""
        new = {(name, one.version) for name, one in installed.items()} - self._taken
        raised: dict[str, str] = {}
        for name, version in sorted(new):
            try:
                candidate = self._packages.load(name, version)
                found = await self._verified(candidate) if candidate is not None else None
            except errors.NucleusError as error:
                self._log.warning("trust.floor_unknown", component=name, version=version, why=error.detail)
                continue
            if found is not None and found.floor:
                raised[name] = found.floor
            self._taken.add((name, version))
        if raised:
            await asyncio.to_thread(trust.raise_floors, self._root, raised)
            self._log.info("trust.floors_raised", floors=raised)

    async def _verified(self, one: negotiate.Candidate) -> signing.Manifest | None:
        manifest = recipe.choose(one.recipe, self._platform)
        names = frozenset(recipe.file_name(artifact) for artifact in manifest.artifacts) if manifest else frozenset()
        if signing.MODEL not in names and signing.MANIFEST not in names:
            return None
        try:
            return await asyncio.to_thread(self._judge, one, names)
        except signing.NotTrustedError as refusal:
            raise errors.NucleusError(refusal.code, str(refusal)) from None
        except OSError as error:
            what = f"cannot check the signature of {one.name} {one.version}: {error}"
            raise errors.NucleusError("IO_READ_ERROR", what) from error

    def _judge(self, one: negotiate.Candidate, names: frozenset[str]) -> signing.Manifest | None:
        known = trust.read(self._root)
        if not known.demands:
            return None
        folder, floor = self._packages.folder(one), trust.floors(self._root).get(one.name, "")
        digests = {name: components.sha256(folder / name).hex() for name in names - {*_SIGNATURE_FILES}}
        manifest, signature = (_content(folder / name) if name in names else None for name in _SIGNATURE_FILES)
        return signing.check(one.name, one.version, digests, manifest, signature, known, verifier.verify, floor)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(signing.LIMIT_BYTES + 1)
