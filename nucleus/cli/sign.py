"""`marram component sign`: writes the signed manifest of a component version beside its artifacts (core/signing.py)."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from pathlib import Path

import click
from awscrt import crypto

from nucleus.cli import artifacts, exits
from nucleus.core import recipe, signing

_FILES = (signing.MANIFEST, signing.SIGNATURE)


@click.command()
@click.argument("recipe_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="RECIPE")
@click.option("--key", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False), help="NAME.key.")
@click.option(
    "--artifacts",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the artifact files, default: the recipe's; the signature goes into the first.",
)
@click.option("--floor", default="", help="Devices that had this version accept none below this one ever after.")
@click.option("--for-class", "classes", multiple=True, help="Only for devices of this class; repeatable.")
def sign(recipe_file: Path, key: Path, folders: tuple[Path, ...], floor: str, classes: tuple[str, ...]) -> None:
    """Signs every artifact of RECIPE; then publish it, or deploy it locally."""
    read = artifacts.read_recipe(recipe_file)
    folders = folders or (recipe_file.parent,)
    places = _places(read)
    lacking = [name for place, names in places.items() for name in _signature(place) if name not in names]
    if lacking:
        lines = "".join(f"\n  - URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/{name}" for name in lacking)
        raise exits.Failure(f"cannot sign {recipe_file}: its Artifacts must name the signature's files, too:{lines}")
    if floor and signing.order(floor) > signing.order(read.version):
        raise exits.Failure(f"cannot sign {recipe_file}: the floor {floor} would rule out {read.version} itself")
    digests = _digests(read, folders)
    for place, names in places.items():
        own = {Path(name).name: digests[name] for name in names if name in digests}
        id_ = write((read.name, read.version), own, key, folders[0] / place, floor, classes)
        click.echo(f"Signed {read.name} {read.version} with {id_}: {folders[0] / place / signing.MANIFEST}")


def write(
    component: tuple[str, str],
    digests: dict[str, str],
    key: Path,
    folder: Path,
    floor: str = "",
    classes: tuple[str, ...] = (),
) -> str:
    """Writes manifest and signature over files with these digests into the folder; returns the key's id. Raises Failure."""
    private = _private(key)
    manifest = signing.write_manifest(*component, digests, floor=floor, classes=classes)
    der = private.export_key(crypto.ECExportFormat.SPKI)
    signature = private.sign(hashlib.sha256(manifest).digest())
    (folder / signing.MANIFEST).write_bytes(manifest)
    (folder / signing.SIGNATURE).write_bytes(signing.write_signature(signing.key_id(der), signature))
    return signing.key_id(der)


def _places(read: recipe.Recipe) -> dict[str, list[str]]:
    """The artifacts by the folder whose manifest covers them: one that names a manifest, else the whole recipe's, ""."""
    names, found = artifacts.names(read), dict[str, list[str]]()
    for name in names:
        folder = name.rpartition("/")[0]
        found.setdefault(folder if f"{folder}/{signing.MANIFEST}" in names else "", []).append(name)
    return found


def _signature(place: str) -> tuple[str, ...]:
    """The names of a place's two files."""
    return tuple(f"{place}/{name}".lstrip("/") for name in _FILES)


def _digests(read: recipe.Recipe, folders: tuple[Path, ...]) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="marram-") as staging:
        leave_out = [name for name in artifacts.names(read) if Path(name).name in _FILES]
        files = artifacts.collect(read, folders, Path(staging), leave_out=leave_out)
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def _private(path: Path) -> crypto.EC:
    found = re.search(r"-----BEGIN (?:EC )?PRIVATE KEY-----(.+?)-----END", path.read_text(errors="replace"), re.DOTALL)
    try:
        if found is None:
            raise ValueError("it holds no private key in PEM form (or one behind a password)")
        key = crypto.EC.new_key_from_der_data(base64.b64decode("".join(found[1].split()), validate=True))
        signing.algorithm_of(key.export_key(crypto.ECExportFormat.SPKI))
    except (ValueError, RuntimeError) as error:
        raise exits.Failure(f"cannot sign with {path}: {error}; marram key create makes one") from None
    return key
