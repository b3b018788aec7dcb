"""Recipes and artifacts on disk (spec/nucleus.md 9.1, 3.6, 1.4).

A recipe is saved as JSON (which is YAML) in `<hash>@<version>.recipe.yaml`, its ARN in `<hash>@<version>.metadata.json`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from nucleus.core import errors, negotiate, recipe, version
from nucleus.host import files, places

MIN_FREE_BYTES = 20 * 1024 * 1024  # spec/nucleus.md 3.4
STORE_LIMIT_BYTES = 10_000_000_000  # `componentStoreMaxSizeBytes`
CHUNK_BYTES = 1024 * 1024


class ComponentStore:
    """What lies in `packages/` of one nucleus."""

    def __init__(self, where: places.Places) -> None:
        self._places = where

    def save(self, candidate: negotiate.Candidate) -> None:
        path = self._places.recipe(candidate.name, candidate.version)
        files.make_directory(path.parent, 0o700)
        metadata = {"componentName": candidate.name, "componentVersionArn": candidate.arn}
        files.write_durably(_metadata(path), json.dumps(metadata).encode())
        files.write_durably(path, json.dumps(recipe.describe(candidate.recipe)).encode())

    def load(self, name: str, wanted: str) -> negotiate.Candidate | None:
        """The stored recipe, or None if there is none. Raises NucleusError when it cannot be read."""
        path = self._places.recipe(name, wanted)
        if not path.exists():
            return None
        found = recipe.read(path.read_bytes(), str(path))
        return negotiate.Candidate(name=name, version=wanted, recipe=found, arn=self._arn(path))

    def versions(self, name: str) -> list[version.Version]:
        """Stored versions of a component, greatest first."""
        pattern = self._places.recipe(name, "*").name
        found = []
        for path in self._recipes().glob(pattern):
            with contextlib.suppress(errors.NucleusError):  # a file that somebody else put there
                found.append(version.Version.parse(path.name.split("@", 1)[1].removesuffix(".recipe.yaml")))
        return sorted(found, reverse=True)

    def local_candidate(
        self, ask: negotiate.Ask, running: str | None, platform: Mapping[str, str]
    ) -> negotiate.Candidate | None:
        """The running version if it satisfies the requirements, else the greatest stored one (spec 3.3).

        A recipe that a failing disk has spoiled is no candidate: the cloud may have a good copy.
        """
        ranges = [version.Range.parse(text) for _, text in ask.requirements]
        known = self.versions(ask.name)
        if running is not None:
            known.sort(key=lambda one: str(one) != running)
        for one in known:
            if all(wanted.allows(one) for wanted in ranges):
                try:
                    candidate = self.load(ask.name, str(one))
                except (errors.NucleusError, OSError):
                    continue
                if candidate is not None and recipe.choose(candidate.recipe, platform) is not None:
                    return candidate
        return None

    def folder(self, candidate: negotiate.Candidate) -> Path:
        """Where its artifacts lie."""
        return self._places.artifacts(candidate.name, candidate.version)

    def artifact_path(self, candidate: negotiate.Candidate, artifact: recipe.Artifact) -> Path:
        return files.join(self.folder(candidate), recipe.file_name(artifact))

    def is_present(self, candidate: negotiate.Candidate, artifact: recipe.Artifact) -> bool:
        """True if the file is there with the recipe's digest; without a digest an existing file is accepted."""
        path = self.artifact_path(candidate, artifact)
        if not path.exists():
            return False
        return not artifact.digest or file_digest(path) == artifact.digest

    def check_space(self, what: str, size_bytes: int) -> None:
        """Raises NucleusError DISK_SPACE_CRITICAL when a download of that size must not begin."""
        free = files.free_bytes(self._places.root)
        if free - size_bytes < MIN_FREE_BYTES:
            raise errors.NucleusError(
                "DISK_SPACE_CRITICAL",
                f"cannot download {what}: it needs {size_bytes} bytes and {free} are free "
                f"({MIN_FREE_BYTES} must stay free); free some space and deploy again",
            )
        if self._used() + size_bytes > STORE_LIMIT_BYTES:
            raise errors.NucleusError(
                "DISK_SPACE_CRITICAL",
                f"cannot download {what}: the component store would exceed {STORE_LIMIT_BYTES} bytes",
            )

    def finish(self, candidate: negotiate.Candidate, artifact: recipe.Artifact) -> None:
        """Sets permissions of a complete artifact and unpacks it; doing it twice changes nothing."""
        path = self.artifact_path(candidate, artifact)
        path.chmod(permission_bits(artifact))
        if artifact.unarchive != "ZIP":
            return
        target = files.join(self._places.unarchived(candidate.name, candidate.version), path.stem)
        mark = target.parent / f".{path.stem}.unpacked"  # holds the digest of what was unpacked
        digest = file_digest(path)
        if mark.exists() and mark.read_text() == digest and target.is_dir():
            return
        files.make_directory(target.parent, 0o755)
        files.unzip(path, target, limit_bytes=STORE_LIMIT_BYTES)
        for unpacked in (one for one in target.rglob("*") if one.is_file()):
            unpacked.chmod(permission_bits(artifact) | (unpacked.stat().st_mode & 0o111))
        files.write_durably(mark, digest.encode(), 0o644)

    def take_local(self, recipes: Path | None, artifacts: Path | None) -> tuple[tuple[str, str], ...]:
        """Copies recipes and artifact folders of a local deployment into the store; returns (name, version) of each.

        Raises NucleusError at the first bad recipe, before anything is copied.
        """
        found = []
        for path in sorted(recipes.iterdir()) if recipes is not None else ():
            if path.suffix.lower() in (".yaml", ".yml", ".json") and path.is_file():
                found.append(recipe.read(path.read_bytes(), str(path)))
        for one in found:
            self.save(negotiate.Candidate(name=one.name, version=one.version, recipe=one))
            source = artifacts / one.name / one.version if artifacts is not None else None
            if source is not None and source.is_dir():
                _copy_folder(source, self._places.artifacts(one.name, one.version))
                shutil.rmtree(self._places.unarchived(one.name, one.version), ignore_errors=True)
        return tuple((one.name, one.version) for one in found)

    def clean(self, keep: Mapping[str, frozenset[str]]) -> list[str]:
        """Deletes every stored version that `keep` (name → versions) does not name; returns `name version` of each."""
        removed = []
        for path in list(self._recipes().glob("*.recipe.yaml")):
            try:
                one = recipe.read(path.read_bytes(), str(path))
            except errors.NucleusError:
                path.unlink(missing_ok=True)  # unreadable: of no use to anybody
                continue
            if one.version in keep.get(one.name, frozenset()):
                continue
            shutil.rmtree(self._places.artifacts(one.name, one.version), ignore_errors=True)
            shutil.rmtree(self._places.unarchived(one.name, one.version), ignore_errors=True)
            _metadata(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            removed.append(f"{one.name} {one.version}")
        return removed

    def _recipes(self) -> Path:
        return self._places.root / "packages" / "recipes"

    def _used(self) -> int:
        return sum(path.stat().st_size for path in _files(self._places.root / "packages"))

    def _arn(self, path: Path) -> str:
        try:
            return str(json.loads(_metadata(path).read_bytes()).get("componentVersionArn") or "")
        except (OSError, ValueError):
            return ""  # written before the recipe: absent only when somebody deleted it


def permission_bits(artifact: recipe.Artifact) -> int:
    """POSIX bits of spec/nucleus.md 1.4; the owner keeps `w` so that a nucleus without root can clean up."""
    shared = artifact.read in ("OWNER", "ALL") or artifact.execute in ("OWNER", "ALL")
    bits = 0o600 | (0o040 if shared else 0) | (0o004 if "ALL" in (artifact.read, artifact.execute) else 0)
    if artifact.execute in ("OWNER", "ALL"):
        bits |= 0o110 | (0o001 if artifact.execute == "ALL" else 0)
    return bits


def file_digest(path: Path) -> str:
    """Base64 of the SHA-256 of a file, as recipes carry it."""
    return base64.b64encode(sha256(path)).decode()


def sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()


def _metadata(recipe_path: Path) -> Path:
    return recipe_path.with_name(recipe_path.name.removesuffix(".recipe.yaml") + ".metadata.json")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _copy_folder(source: Path, target: Path) -> None:
    files.make_directory(target, 0o755)
    for path in _files(source):
        place = files.join(target, *path.relative_to(source).parts)
        files.make_directory(place.parent, 0o755)
        fresh = place.with_name(f".{place.name}.new")  # a running process keeps its old file
        shutil.copyfile(path, fresh)
        fresh.replace(place)
