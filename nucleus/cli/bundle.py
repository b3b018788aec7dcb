"""`marram bundle create|verify|apply|release`: a model in one file, brought by an OTA that is not ours, or by hand.

For use case 2 of the design: the update of the device exists already, only the model travels. `verify` and `apply` need no
network and no nucleus. Exit codes are in the README: an OTA's script can tell a bad file from a model that was refused.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nucleus.cli import bundle_file, daemon, exits, models, output, sign
from nucleus.core import errors, signing
from nucleus.store import trust
from nucleus.uplink import verifier

T = TypeVar("T")
PAUSE_S = 0.2
_SIGNATURE = (signing.MANIFEST, signing.SIGNATURE)
_TRY_AGAIN = ("BUSY", models.UNREACHABLE)
_file = click.argument("bundle", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The bundle to write.")
@click.option("--component", default="", help="The model's component; default: the one that it is signed for.")
@click.option("--version", default="", help="Its version; default: the one that it is signed for, or model.json's.")
@click.option("--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="NAME.key: sign it anew.")
@click.option("--settings", default="", help="JSON of runtime settings; needs --key, because they are signed, too.")
@click.option("--floor", default="", help="With --key: devices that took this accept no version below it ever after.")
@click.option("--for-class", "classes", multiple=True, help="With --key: only for devices of this class; repeatable.")
def create(
    folder: Path,
    out: Path,
    component: str,
    version: str,
    key: Path | None,
    settings: str,
    floor: str,
    classes: tuple[str, ...],
) -> None:
    """Writes a bundle of the model in FOLDER (model.json, its file, certificate.json, and a signature if it has one)."""
    if not key and (settings or floor or classes):
        raise exits.Failure(f"cannot make {out}: --settings, --floor and --for-class are signed; give --key")
    with tempfile.TemporaryDirectory(prefix="marram-") as staging:
        files = _collect(folder, Path(staging), settings, keep_signature=key is None)
        name, number = _named(folder, files, component, version)
        if floor and signing.order(floor) > signing.order(number):
            raise exits.Failure(f"cannot make {out}: the floor {floor} would rule out {number} itself")
        if key is not None:
            digests = {each: hashlib.sha256(path.read_bytes()).hexdigest() for each, path in files.items()}
            sign.write((name, number), digests, key, Path(staging), floor, classes)
            files |= {each: Path(staging) / each for each in _SIGNATURE}
        bundle_file.write(out, name, number, files)
    made = bundle_file.read(out)
    told = "signed" if signing.MANIFEST in made.digests else "not signed: devices that trust a key refuse it"
    click.echo(f"Wrote {out}: {name} {number} for the alias {made.alias}, {sum(made.sizes.values()):,} bytes, {told}.")


@click.command()
@_file
@click.option(
    "--root", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Judge as this device would."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="NAME.pub to trust, instead of --root; repeatable.",
)
@click.option("--device-class", default="", help="With --key: judge as a device of this class.")
@output.option
def verify(bundle: Path, root: Path | None, keys: tuple[Path, ...], device_class: str, output_: str) -> None:
    """Checks BUNDLE without a network: whole, and signed by a trusted key. Nothing is unpacked or changed."""
    if (root is None) == (not keys):
        raise exits.Failure(f"cannot verify {bundle}: say whom to trust, by --key NAME.pub or --root DEVICE")
    found = bundle_file.read(bundle)
    if root is not None:
        known, floor = _trust_of(root, found.component)
    else:
        known, floor = _trust_in(keys, device_class), ""
    manifest = _judge(found, known, floor)
    item = {
        "component": found.component,
        "version": found.version,
        "alias": found.alias,
        "key": known.keys[manifest.key].name if manifest else "",
        "keyId": manifest.key if manifest else "",
        "floor": manifest.floor if manifest else "",
        "classes": list(manifest.classes) if manifest else [],
        "settings": found.settings,
        "files": {name: {"sizeBytes": found.sizes[name], "sha256": found.digests[name]} for name in found.digests},
    }
    if output_ == "json":
        output.record("bundle", item, output_)
        return
    signed = f"signed by {item['key']} ({item['keyId']})" if manifest else "not signed, and this device trusts no key"
    size = sum(found.sizes.values())
    click.echo(
        f"{bundle} is whole: {found.component} {found.version} for the alias {found.alias}, {size:,} bytes, {signed}."
    )


@click.command()
@_file
@daemon.option
@click.option("--timeout", "timeout_s", default=60.0, help="Seconds to wait for the model agent.")
def apply(bundle: Path, root: Path, timeout_s: float) -> None:
    """Hands the model in BUNDLE to the model agent of this device, which checks it and serves it; again is no change."""
    found = bundle_file.read(bundle)
    known, floor = _trust_of(root, found.component)
    manifest = _judge(found, known, floor)
    with tempfile.TemporaryDirectory(prefix="marram-bundle-") as staging:
        folder = Path(staging)
        folder.chmod(0o755)  # the agent may run as another user
        bundle_file.unpack(found, folder)
        request = {"op": "apply_bundle", "component": found.component, "version": found.version}
        message = _ask(root, request | {"artifacts": str(folder), "settings": found.settings}, timeout_s)
    if manifest is not None and manifest.floor:
        # Only now: what was refused must not rule out what serves.
        _try(lambda: trust.raise_floors(root, {found.component: manifest.floor}))
    click.echo(message)


@click.command()
@click.argument("component")
@daemon.option
@click.option("--timeout", "timeout_s", default=60.0, help="Seconds to wait for the model agent.")
def release(component: str, root: Path, timeout_s: float) -> None:
    """Gives what bundles of COMPONENT serve back to deployments: it answers until a deployed model takes its place."""
    click.echo(_ask(root, {"op": "release_bundle", "component": component}, timeout_s))


def _collect(folder: Path, staging: Path, settings: str, *, keep_signature: bool) -> dict[str, Path]:
    """The files of a bundle by name."""
    described = _json(folder / signing.MODEL)
    model = described.get("file")
    if not isinstance(model, str) or Path(model).name != model or not (folder / model).is_file():
        raise exits.Failure(f"cannot make a bundle of {folder}: its {signing.MODEL} names no file that is there")
    names = {signing.MODEL, model}
    names |= {name for name in (bundle_file.CERTIFICATE, bundle_file.SETTINGS) if (folder / name).is_file()}
    if keep_signature and (folder / signing.MANIFEST).is_file():
        names |= {*_SIGNATURE, *_json(folder / signing.MANIFEST).get("artifacts", {})}
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise exits.Failure(
            f"cannot make a bundle of {folder}: {', '.join(missing)} is signed but not there; give --key"
        )
    files = {name: folder / name for name in names}
    if settings:
        files[bundle_file.SETTINGS] = staging / bundle_file.SETTINGS
        files[bundle_file.SETTINGS].write_text(_settings(settings))
    return files


def _settings(text: str) -> str:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise exits.Failure(f"cannot use --settings: it is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise exits.Failure(
            "cannot use --settings: it must be a JSON object, as under `model` in a recipe's configuration"
        )
    return json.dumps(given, sort_keys=True) + "\n"


def _named(folder: Path, files: dict[str, Path], component: str, version: str) -> tuple[str, str]:
    """Component and version: as told, as signed, or as model.json has the version."""
    signed = _json(files[signing.MANIFEST]) if signing.MANIFEST in files else {}
    told = _json(folder / signing.MANIFEST) if (folder / signing.MANIFEST).is_file() else {}
    name = component or str(told.get("component", ""))
    number = version or str(told.get("version") or _json(folder / signing.MODEL).get("version", ""))
    if not name or not number:
        raise exits.Failure(f"cannot make a bundle of {folder}: say --component and --version")
    if signed and (name, number) != (signed.get("component"), signed.get("version")):
        what = f"{signed.get('component')} {signed.get('version')}"
        raise exits.Failure(f"cannot make a bundle of {folder} as {name} {number}: it is signed as {what}; give --key")
    return name, number


def _judge(found: bundle_file.Bundle, known: signing.Trust, floor: str) -> signing.Manifest | None:
    """The verified manifest, None where nobody is trusted. Raises Failure with the code of the refusal."""
    digests = {name: digest for name, digest in found.digests.items() if name not in _SIGNATURE}
    manifest, signature = (found.small.get(name) for name in _SIGNATURE)
    try:
        judged = signing.check(
            found.component, found.version, digests, manifest, signature, known, verifier.verify, floor
        )
    except signing.NotTrustedError as refusal:
        raise exits.Failure(f"{refusal} [{refusal.code}]", exits.NOT_AUTHORISED) from None
    if judged is not None and judged.artifacts.keys() - digests.keys():
        lacking = ", ".join(sorted(judged.artifacts.keys() - digests.keys()))
        why = f"{lacking} was signed and is not in it; bring it again [{bundle_file.CODE}]"
        raise exits.Failure(f"cannot use {found.path}: {why}", exits.NOT_AUTHORISED)
    return judged


def _trust_of(root: Path, component: str) -> tuple[signing.Trust, str]:
    """Whom the device trusts, and the lowest version of the component that it accepts."""
    return _try(lambda: (trust.read(root), trust.floors(root).get(component, "")))


def _trust_in(keys: tuple[Path, ...], device_class: str) -> signing.Trust:
    found = {}
    for path in keys:
        try:
            der = signing.public_key(path.read_text(errors="replace"))
        except (OSError, ValueError) as error:
            raise exits.Failure(f"cannot trust {path}: {error}") from None
        found[signing.key_id(der)] = signing.Key(signing.key_id(der), path.stem, der)
    return signing.Trust(found, frozenset(), device_class)


def _ask(root: Path, request: dict[str, Any], timeout_s: float) -> str:
    """The agent's message. Raises Failure: refused, not allowed, or nobody there in time."""
    end = time.monotonic() + timeout_s
    while True:
        answer = models.answer(root, request)
        if answer.get("ok") is True:
            return str(answer["message"])
        code, why = str(answer.get("code")), str(answer.get("message"))
        if code not in _TRY_AGAIN:
            break
        if time.monotonic() + PAUSE_S > end:
            raise exits.Failure(f"cannot hand it over within {timeout_s:g} s: {why} [{code}]", exits.TIMED_OUT)
        threading.Event().wait(PAUSE_S)
    denied = code in ("PERMISSION_DENIED", "UNAUTHENTICATED")
    raise exits.Failure(
        f"the model agent refused: {why} [{code}]", exits.NOT_AUTHORISED if denied else exits.UNSATISFIED
    )


def _try(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except errors.NucleusError as error:
        raise exits.Failure(error.detail) from None
    except OSError as error:
        raise exits.Failure(f"cannot use the device's root: {error}") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise exits.Failure(f"cannot read {path}: {error}") from None
    if not isinstance(found, dict):
        raise exits.Failure(f"cannot read {path}: it is no JSON object")
    return found
