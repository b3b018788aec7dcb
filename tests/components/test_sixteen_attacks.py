"""THE TABLE of the sixteen attacks on models: each is refused with a code, and what served before still answers.

All of them go against one real agent, which a nucleus started, that trusts one key, has seen a security floor and serves a
signed 1.0.0. The attacker writes the folder that is offered, whenever it likes, and talks to the agent's socket. Tests in
other modules hold the same against the nucleus (before any script runs), the command line and the doors: ALSO.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import model_client
import pytest

from nucleus.ipc import connection
from tests.components import parts, test_attacks
from tests.nucleus import fakes_ipc

AGENT, OTHER = "marram.ModelAgent", "com.example.Other"
GOOD, OFFERED, OLD, FLOOR = "1.0.0", "1.1.0", "1.0.1", "1.0.5"
OURS, THEIRS, REVOKED = (test_attacks.Signer() for _ in range(3))


class Scene:
    """The device under attack."""

    def __init__(self, device: parts.Device, world: fakes_ipc.World) -> None:
        self.device = device
        self.tokens = {name: world.do(world.add, name) for name in (AGENT, parts.MODEL_NAME, OTHER)}
        keys = {OURS.id: {"name": "ours", "publicKey": base64.b64encode(OURS.der).decode()}}
        (device.root / "trust.json").write_text(json.dumps({"keys": keys, "revoked": [REVOKED.id]}))
        (device.root / "security_floors.json").write_text("{}")
        socket_path = {"AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(world.path)}
        device.start_agent(
            "--nucleus-root", str(device.root), environment={"SVCUID": self.tokens[AGENT], **socket_path}
        )
        good = self.offer(self.folder(GOOD, OURS, lambda _: None), GOOD)
        assert good["ok"], good
        (device.root / "security_floors.json").write_text(json.dumps({parts.MODEL_NAME: FLOOR}))

    def folder(
        self,
        version: str,
        signer: test_attacks.Signer | None,
        before: Callable[[Path], object] = lambda _: None,
        after: Callable[[Path], object] = lambda _: None,
        **content: Any,
    ) -> Path:
        """The repository's model in a folder: changed, signed as `version`, changed again."""
        made = parts.changed_model(self.device.root / "offered", lambda described: None)
        before(made)
        if signer is not None:
            signer.sign(made, version, **content)
        after(made)
        return made

    def offer(self, folder: Path, version: str = OFFERED, token: str = f"token-{parts.MODEL_NAME}") -> dict[str, Any]:
        try:
            return self.ask("offer", parts.MODEL_NAME, version, token, artifacts=str(folder))
        finally:
            folder.rename(folder.with_name(f"offered-{len(list(folder.parent.iterdir()))}"))

    def ask(self, verb: str, component: str, version: str, token: str, **more: str) -> dict[str, Any]:
        request = {"op": verb, "component": component, "version": version, "token": token}
        return parts.ask(self.device, request | more)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with parts.device() as made:
        world = fakes_ipc.World(made.root / "ipc.socket", connection.Limits())
        with fakes_ipc.serving_in_thread(world):
            yield Scene(made, world)


def _cut(folder: Path) -> None:
    path = folder / "power_curve.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    test_attacks._right_digest(folder)


def _swap(folder: Path) -> None:
    (folder / "power_curve.onnx").write_bytes((parts.MODEL / GOOD / "power_curve.onnx").read_bytes())


def _grow(folder: Path) -> None:
    with (folder / "power_curve.onnx").open("r+b") as file:
        file.truncate(600 * 1024 * 1024)  # a hole: it takes no space on the disk


def _edited(edit: Callable[[Any], None]) -> Callable[[Path], None]:
    return lambda folder: test_attacks._change(folder, edit)


def _strip(folder: Path) -> None:
    for name in ("marram.manifest.json", "marram.manifest.sig"):
        (folder / name).unlink()


Attack = Callable[[Scene], dict[str, Any]]
ATTACKS: dict[str, tuple[str, Attack]] = {
    "wrong key": ("SIGNING_KEY_UNKNOWN", lambda s: s.offer(s.folder(OFFERED, THEIRS))),
    "revoked key": ("SIGNING_KEY_REVOKED", lambda s: s.offer(s.folder(OFFERED, REVOKED))),
    "swapped artifact": ("ARTIFACT_CHANGED", lambda s: s.offer(s.folder(OFFERED, OURS, after=_swap))),
    "replay below the floor": ("BELOW_SECURITY_FLOOR", lambda s: s.offer(s.folder(OLD, OURS), OLD)),
    "truncated file": ("NOT_ONNX", lambda s: s.offer(s.folder(OFFERED, OURS, _cut))),
    "manifest for another device class": (
        "WRONG_DEVICE_CLASS",
        lambda s: s.offer(s.folder(OFFERED, OURS, classes=("gateway",))),
    ),
    "symlink": ("NOT_A_PLAIN_FILE", lambda s: s.offer(s.folder(OFFERED, OURS, after=test_attacks._link))),
    "oversize": ("TOO_LARGE", lambda s: s.offer(s.folder(OFFERED, OURS, after=_grow))),
    "bad opset": ("NOT_LOADABLE", lambda s: s.offer(s.folder(OFFERED, OURS, _edited(test_attacks._opset)))),
    "NaN weights": ("NOT_A_NUMBER", lambda s: s.offer(s.folder(OFFERED, OURS, _edited(test_attacks._nan)))),
    "tampered after install": (
        "ARTIFACT_CHANGED",
        lambda s: s.offer(s.folder(OFFERED, OURS, after=test_attacks._swap)),
    ),
    "signature stripped": ("SIGNATURE_MISSING", lambda s: s.offer(s.folder(OFFERED, OURS, after=_strip))),
    "external-data escape": (
        "EXTERNAL_DATA",
        lambda s: s.offer(s.folder(OFFERED, OURS, _edited(test_attacks._external))),
    ),
    "custom-op library": (
        "CUSTOM_OPERATORS",
        lambda s: s.offer(s.folder(OFFERED, OURS, _edited(test_attacks._custom))),
    ),
    "load without token": ("UNAUTHENTICATED", lambda s: s.offer(s.folder(OFFERED, OURS), token="")),
    "unload of another's alias": (
        "PERMISSION_DENIED",
        lambda s: s.ask("withdraw", parts.MODEL_NAME, GOOD, s.tokens[OTHER]),
    ),
}
# Where the same is held elsewhere: module and test.
_TRUST, _BUNDLE, _HERE = "tests.nucleus.actors.test_trust", "tests.cli.test_bundle", "tests.components.test_attacks"
_TAMPERED = "test_verify_and_apply_when_the_file_was_tampered_with_then_refused_with_a_code"
_SIGNATURE = "test_offer_when_its_signature_does_not_hold_then_refused"
_MODEL = "test_offer_when_signed_but_the_model_itself_is_bad_then_refused"
_TOKEN = "test_change_when_the_token_is_not_the_components_then_refused_and_the_model_answers_on"
_BEFORE = "test_deployment_when_not_to_be_trusted_then_fails_with_the_code_and_nothing_ran"
ALSO: dict[str, tuple[tuple[str, str], ...]] = {
    "wrong key": ((_TRUST, _BEFORE), (_HERE, _SIGNATURE)),
    "revoked key": (
        (_TRUST, "test_key_when_revoked_then_what_it_signed_is_refused_and_another_key_serves"),
        (_BUNDLE, "test_verify_when_the_key_is_foreign_or_revoked_then_refused"),
    ),
    "swapped artifact": ((_TRUST, _BEFORE), (_BUNDLE, _TAMPERED)),
    "replay below the floor": (
        (_TRUST, "test_floor_when_raised_then_older_versions_are_refused_and_those_at_or_above_it_roll_back"),
        (_HERE, "test_offer_when_its_key_was_revoked_or_its_version_is_below_the_floor_then_refused"),
    ),
    "truncated file": ((_HERE, "test_offer_when_signed_but_truncated_then_refused"), (_BUNDLE, _TAMPERED)),
    "manifest for another device class": ((_HERE, _SIGNATURE),),
    "symlink": ((_HERE, _SIGNATURE), (_BUNDLE, _TAMPERED)),
    "oversize": ((_HERE, "test_offer_when_larger_than_the_limit_then_refused_without_reading_it_all"),),
    "bad opset": ((_HERE, _MODEL),),
    "NaN weights": ((_HERE, _MODEL),),
    "tampered after install": (
        (_TRUST, "test_artifact_when_tampered_after_it_was_installed_then_the_next_deployment_of_it_is_refused"),
        (_HERE, _SIGNATURE),
    ),
    "signature stripped": ((_TRUST, _BEFORE), (_HERE, _SIGNATURE), (_BUNDLE, _TAMPERED)),
    "external-data escape": ((_HERE, _MODEL),),
    "custom-op library": ((_HERE, _MODEL),),
    "load without token": (("tests.components.test_identity", _TOKEN),),
    "unload of another's alias": (("tests.components.test_identity", _TOKEN),),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_when_tried_then_refused_with_its_code_and_the_good_model_answers(scene: Scene, name: str) -> None:
    code, attack = ATTACKS[name]

    reply = attack(scene)

    assert (reply["ok"], reply["code"]) == (False, code), reply
    client = model_client.Client(str(scene.device.socket))
    assert parts.predict(client).version == GOOD
    client.close()
    assert [(row["serving"], row["component"]) for row in parts.serving(scene.device)] == [(GOOD, parts.MODEL_NAME)]


def test_offer_when_nobody_attacks_then_the_same_folder_is_accepted() -> None:
    with parts.device() as made:
        world = fakes_ipc.World(made.root / "ipc.socket", connection.Limits())
        with fakes_ipc.serving_in_thread(world):
            scene = Scene(made, world)

            reply = scene.offer(scene.folder(OFFERED, OURS))

    assert reply["ok"], reply


def test_table_when_counted_then_sixteen_and_every_test_it_names_is_there() -> None:
    named = {place for places in ALSO.values() for place in places}

    assert len(ATTACKS) == 16
    assert ALSO.keys() == ATTACKS.keys()
    for module, test in sorted(named):
        assert inspect.isfunction(getattr(importlib.import_module(module), test, None)), f"{module} has no {test}"
