"""Packs the working tree as an update of the nucleus: `python -m tools.make_nucleus_zip VERSION DIRECTORY`.

Writes `DIRECTORY/nucleus.zip` (wheels of marram under that version, of what a device needs, and of pip) and the recipe
`DIRECTORY/marram.Nucleus-VERSION.yaml`. Works offline: the other wheels are packed from what is installed here, so the ZIP
fits machines like this one.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import yaml

from nucleus.core import release

ROOT = Path(__file__).parents[1]
NEEDED = ("awsiotsdk", "awscrt", "click", "msgspec", "psutil", "pyyaml", "pip")
ARCHIVE = "nucleus.zip"
_KINDS = (".py", ".sh", ".json", ".md")
_STAMP = (2020, 1, 1, 0, 0, 0)  # the same tree makes the same bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", help="the version the packed nucleus says it is")
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    (arguments.directory / ARCHIVE).write_bytes(archive(arguments.version))
    recipe_file = arguments.directory / f"{release.COMPONENT}-{arguments.version}.yaml"
    recipe_file.write_text(yaml.safe_dump(recipe(arguments.version), sort_keys=False))
    print(arguments.directory / ARCHIVE, recipe_file, sep="\n")
    return 0


def recipe(version: str) -> dict[str, object]:
    artifact = {"URI": f"s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/{ARCHIVE}", "Unarchive": "ZIP"}
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": release.COMPONENT,
        "ComponentVersion": version,
        "ComponentType": release.COMPONENT_TYPE,
        "ComponentDescription": "The nucleus itself: wheels that it installs beside itself, tests and switches to.",
        "ComponentPublisher": "Marram",
        "Manifests": [{"Platform": {"os": "linux"}, "Artifacts": [artifact]}],
    }


def archive(version: str, changes: Mapping[str, bytes] | None = None) -> bytes:
    """The ZIP of wheels. `changes` replaces files of marram by path, to make releases that fail on purpose."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as target:  # wheels are compressed already
        for name, data in (_marram(version, changes or {}), *map(_installed, NEEDED)):
            target.writestr(zipfile.ZipInfo(name, _STAMP), data)
    return packed.getvalue()


def _marram(version: str, changes: Mapping[str, bytes]) -> tuple[str, bytes]:
    files = {
        str(path.relative_to(ROOT)): path.read_bytes()
        for package in ("nucleus", "cloud")
        for path in sorted((ROOT / package).rglob("*"))
        if path.suffix in _KINDS and path.is_file()
    }
    ours = "nucleus/core/release.py"
    files[ours] = re.sub(rb'VERSION = "[^"]*"', f'VERSION = "{version}"'.encode(), files[ours], count=1)
    info = f"marram-{version}.dist-info"
    project = metadata.distribution("marram")
    requires = "".join(f"Requires-Dist: {one}\n" for one in project.requires or ())
    head = f"Metadata-Version: 2.1\nName: marram\nVersion: {version}\nRequires-Python: >=3.11\n"
    files[f"{info}/METADATA"] = (head + requires).encode()
    files[f"{info}/entry_points.txt"] = (project.read_text("entry_points.txt") or "").encode()
    return _wheel(f"marram-{version}-py3-none-any.whl", info, {**files, **changes}, ["py3-none-any"], pure=True)


def _installed(name: str) -> tuple[str, bytes]:
    """The wheel of an installed distribution, made again from its files."""
    found = metadata.distribution(name)
    told = found.read_text("WHEEL") or ""
    tags = re.findall(r"^Tag: (\S+)", told, re.MULTILINE)
    info = next(path.parts[0] for path in found.files or () if path.parts[0].endswith(".dist-info"))
    files = {
        str(path): Path(str(found.locate_file(path))).read_bytes()
        for path in found.files or ()
        if not _left_out(path.parts) and Path(str(found.locate_file(path))).is_file()
    }
    stem = info.removesuffix(".dist-info")
    file_name = f"{stem}-{_joined(tags)}.whl"
    return _wheel(file_name, info, files, tags, pure="Root-Is-Purelib: true" in told)


def _left_out(parts: tuple[str, ...]) -> bool:
    """Scripts outside of site-packages, compiled files, and what an installer adds."""
    return ".." in parts or "__pycache__" in parts or parts[-1] in ("RECORD", "WHEEL", "INSTALLER", "REQUESTED")


def _joined(tags: list[str]) -> str:
    """One compressed tag set as in file names: each part the distinct values, joined by dots."""
    columns = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(column)) for column in columns)


def _wheel(name: str, info: str, files: Mapping[str, bytes], tags: list[str], *, pure: bool) -> tuple[str, bytes]:
    lines = ["Wheel-Version: 1.0", "Generator: marram-tools", f"Root-Is-Purelib: {str(pure).lower()}"]
    whole = dict(files) | {f"{info}/WHEEL": "\n".join([*lines, *(f"Tag: {tag}" for tag in tags), ""]).encode()}
    whole[f"{info}/RECORD"] = "".join([*_rows(whole), f"{info}/RECORD,,\n"]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for path, data in whole.items():
            entry = zipfile.ZipInfo(path, _STAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            target.writestr(entry, data)
    return name, packed.getvalue()


def _rows(files: Mapping[str, bytes]) -> Iterator[str]:
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        yield f"{path},sha256={digest},{len(data)}\n"


if __name__ == "__main__":
    raise SystemExit(main())
