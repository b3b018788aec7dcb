"""`marram key create|list|trust|revoke`: keys that sign, and whom this device trusts (store/trust.py).

Trust is a file of the device and no deployment can change it: who may write the root folder decides.
"""

from __future__ import annotations

import base64
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
from awscrt import crypto

from nucleus.cli import exits, output
from nucleus.core import errors, signing
from nucleus.store import trust as store

T = TypeVar("T")

_root = click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    envvar=["MARRAM_DEVICE_ROOT", "GGC_ROOT_PATH"],
    help="The device's root folder (or MARRAM_DEVICE_ROOT).",
)


@click.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder for them, default: this one.",
)
def create(name: str, out: Path) -> None:
    """Makes NAME.key (private, P-256: keep it off the devices) and NAME.pub (to be trusted by them)."""
    key = _generate()
    der = key.export_key(crypto.ECExportFormat.SPKI)
    out.mkdir(parents=True, exist_ok=True)
    private, public = out / f"{name}.key", out / f"{name}.pub"
    for path, label, data, mode in (
        (private, "PRIVATE KEY", key.export_key(crypto.ECExportFormat.PKCS8), 0o600),
        (public, "PUBLIC KEY", der, 0o644),
    ):
        _write_new(path, _pem(label, data), mode)
    click.echo(f"Made {private} and {public}; the key's id is {signing.key_id(der)}.")


@click.command("list")
@_root
@output.option
def list_keys(root: Path, output_: str) -> None:
    """Lists the keys that this device trusts, and those it does not any more."""
    found = _try(lambda: store.read(root))
    rows = [{"id": one.id, "name": one.name, "state": "trusted"} for one in found.keys.values()]
    rows += [{"id": one, "name": "", "state": "revoked"} for one in sorted(found.revoked)]
    output.show("keys", rows, {"KEY": "id", "NAME": "name", "STATE": "state"}, output_)


@click.command()
@click.argument("public_key", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", default="", help="What to call it, default: the file's name.")
@click.option(
    "--device-class", default="", help="Also say what kind of device this is, for models made for some kinds only."
)
@_root
def trust(public_key: Path, name: str, device_class: str, root: Path) -> None:
    """Trusts PUBLIC_KEY (PEM, P-256 or Ed25519); from then on a model must be signed by a trusted key."""
    try:
        der = signing.public_key(public_key.read_text(errors="replace"))
    except (OSError, ValueError) as error:
        raise exits.Failure(f"cannot trust {public_key}: {error}") from None
    key = _try(lambda: store.add(root, name or public_key.stem, der))
    if device_class:
        _try(lambda: store.set_class(root, device_class))
    click.echo(f"{root} trusts {key.name} ({key.id}); models that no trusted key signed are refused now.")


@click.command()
@click.argument("key_id")
@_root
def revoke(key_id: str, root: Path) -> None:
    """Trusts the key with KEY_ID (or its name) no more; what it signed is refused from the next deployment on."""
    known = _try(lambda: store.read(root))
    ids = [one.id for one in known.keys.values() if key_id in (one.id, one.name)] or [key_id]
    if len(ids) > 1:
        raise exits.Failure(f"cannot revoke {key_id}: {len(ids)} keys have that name; give the id (marram key list)")
    if len(ids[0]) != signing.ID_CHARACTERS or set(ids[0]) - set("0123456789abcdef"):
        raise exits.Failure(f"cannot revoke {key_id}: no trusted key has that name; see marram key list")
    _try(lambda: store.revoke(root, ids[0]))
    click.echo(
        f"{root} does not trust {ids[0]} any more; a model of it that serves goes on until another version is deployed."
    )


def _generate() -> crypto.EC:
    """A key that can be read again: awscrt writes one in some hundred so that it cannot read it itself."""
    while True:
        key = crypto.EC.new_generate(crypto.ECType.P_256)
        try:
            crypto.EC.new_key_from_der_data(key.export_key(crypto.ECExportFormat.PKCS8))
        except RuntimeError:
            continue
        return key


def _try(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except errors.NucleusError as error:
        raise exits.Failure(error.detail) from None


def _pem(label: str, der: bytes) -> str:
    lines = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise exits.Failure(f"cannot make {path}: it is there already, and a key is never written over") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
