"""Attacks on the model agent: every one is refused with a code, and what served before still answers.

The nucleus's own checks of signatures are in tests/nucleus/actors/test_trust.py; here are the bytes the agent itself loads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_aliases
import agent_check
import agent_engine
import agent_oip
import agent_oip_repository
import agent_registry
import agent_report
import agent_settings
import agent_trials
import model_client
import numpy as np
import onnx
import pytest
from awscrt import crypto
from onnx import external_data_helper, helper, numpy_helper

from nucleus.core import signing
from tests.components import parts

GOOD, OFFERED = "1.0.0", "1.1.0"


class Signer:
    def __init__(self) -> None:
        self.private = crypto.EC.new_generate(crypto.ECType.P_256)
        self.der = self.private.export_key(crypto.ECExportFormat.SPKI)
        self.id = signing.key_id(self.der)

    def sign(self, folder: Path, version: str, **content: Any) -> None:
        """Writes manifest and signature for the two files of a model."""
        names = ("model.json", "power_curve.onnx")
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        manifest = signing.write_manifest(parts.MODEL_NAME, version, digests, **content)
        (folder / signing.MANIFEST).write_bytes(manifest)
        signature = self.private.sign(hashlib.sha256(manifest).digest())
        (folder / signing.SIGNATURE).write_bytes(signing.write_signature(self.id, signature))


OURS, THEIRS = Signer(), Signer()


class Scene:
    """A device that trusts OURS, whose agent serves a signed 1.0.0."""

    def __init__(self, device: parts.Device) -> None:
        self.device = device
        self.trust()
        device.start_agent("--nucleus-root", str(device.root))
        folder = self.model(GOOD)
        OURS.sign(folder, GOOD)
        done = device.offer(GOOD, folder)
        assert done.returncode == 0, done.stderr

    def trust(self, **more: Any) -> None:
        keys = {OURS.id: {"name": "ours", "publicKey": base64.b64encode(OURS.der).decode()}}
        (self.device.root / "trust.json").write_text(json.dumps({"keys": keys, **more}))

    def model(self, version: str) -> Path:
        """A copy of the repository's model of that version, unsigned."""
        folder = self.device.root / "offered" / version
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(parts.MODEL / version, folder)
        return folder

    def refused(self, folder: Path, version: str = OFFERED) -> str:
        """What the offer's script said; 1.0.0 must still answer."""
        done = self.device.offer(version, folder)
        assert done.returncode == 1, done.stdout
        client = model_client.Client(str(self.device.socket))
        assert parts.predict(client).version == GOOD
        client.close()
        return done.stderr


@pytest.fixture
def scene(device: parts.Device) -> Scene:
    return Scene(device)


def _change(folder: Path, edit: Callable[[onnx.ModelProto], None]) -> None:
    """Edits the graph and makes the digest in model.json right again, as a careful attacker does."""
    path = folder / "power_curve.onnx"
    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())
    _right_digest(folder)


def _right_digest(folder: Path) -> None:
    manifest = json.loads((folder / "model.json").read_bytes())
    manifest["sha256"] = hashlib.sha256((folder / "power_curve.onnx").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(manifest))


def _swap(folder: Path) -> None:
    shutil.copyfile(parts.MODEL / GOOD / "power_curve.onnx", folder / "power_curve.onnx")
    _right_digest(folder)


def _link(folder: Path) -> None:
    target = folder.with_name("elsewhere.onnx")
    (folder / "power_curve.onnx").replace(target)
    (folder / "power_curve.onnx").symlink_to(target)


@pytest.mark.parametrize(
    ("code", "signer", "content", "attack"),
    [
        ("SIGNING_KEY_UNKNOWN", THEIRS, {}, None),
        ("SIGNATURE_MISSING", None, {}, None),
        ("WRONG_DEVICE_CLASS", OURS, {"classes": ("gateway",)}, None),
        ("ARTIFACT_CHANGED", OURS, {}, _swap),
        ("Too many levels of symbolic links", OURS, {}, _link),
    ],
    ids=["wrong key", "signature stripped", "another device class", "tampered after install", "symbolic link"],
)
def test_offer_when_its_signature_does_not_hold_then_refused(
    scene: Scene, code: str, signer: Signer | None, content: dict[str, Any], attack: Callable[[Path], None] | None
) -> None:
    folder = scene.model(OFFERED)
    if signer is not None:
        signer.sign(folder, OFFERED, **content)
    if attack is not None:
        attack(folder)

    assert code in scene.refused(folder)


def test_offer_when_its_key_was_revoked_or_its_version_is_below_the_floor_then_refused(scene: Scene) -> None:
    folder = scene.model(OFFERED)
    OURS.sign(folder, OFFERED)
    (scene.device.root / "security_floors.json").write_text(json.dumps({parts.MODEL_NAME: "1.2.0"}))
    assert "BELOW_SECURITY_FLOOR" in scene.refused(folder)

    scene.trust(revoked=[OURS.id])
    assert "SIGNING_KEY_REVOKED" in scene.refused(folder)


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))  # as raw data
    external_data_helper.set_external_data(tensor, location="../../../trust.json")
    tensor.ClearField("raw_data")


def _hidden_external(model: onnx.ModelProto) -> None:
    """In a branch of a condition, where a look at the initializers alone would not find it."""
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "hidden")
    external_data_helper.set_external_data(tensor, location="/etc/passwd")
    branch = helper.make_graph([helper.make_node("Constant", [], ["x"], value=tensor)], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch))


def _external_default(model: onnx.ModelProto) -> None:
    """As what a function's attribute is when a node does not say: onnxruntime puts it in where the function is called."""
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "hidden")
    external_data_helper.set_external_data(tensor, location="trust.json")
    function = model.functions.add(name="Hidden", domain="com.microsoft", output=["o"])
    function.attribute_proto.append(helper.make_attribute("v", tensor))
    constant = function.node.add(op_type="Constant", output=["o"])
    constant.attribute.add(name="value", ref_attr_name="v", type=onnx.AttributeProto.TENSOR)


def _custom(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Shell", ["conditions"], ["z"], domain="com.attacker"))
    model.opset_import.append(helper.make_opsetid("com.attacker", 1))


def _opset(model: onnx.ModelProto) -> None:
    for one in model.opset_import:
        one.version = 999


def _nan(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(array, np.nan), tensor.name))


@pytest.mark.parametrize(
    ("words", "attack"),
    [
        ("EXTERNAL_DATA", _external),
        ("EXTERNAL_DATA", _hidden_external),
        ("EXTERNAL_DATA", _external_default),
        ("CUSTOM_OPERATORS", _custom),
        ("cannot be loaded", _opset),
        ("NaN or infinite", _nan),
    ],
    ids=[
        *("external data", "hidden external data", "external data of a function's default"),
        *("foreign operators", "bad opset", "NaN weights"),
    ],
)
def test_offer_when_signed_but_the_model_itself_is_bad_then_refused(
    scene: Scene, words: str, attack: Callable[[onnx.ModelProto], None]
) -> None:
    folder = scene.model(OFFERED)
    _change(folder, attack)
    OURS.sign(folder, OFFERED)

    assert words in scene.refused(folder)


def test_offer_when_numbers_of_fields_have_more_bits_than_protobuf_reads_then_refused(scene: Scene) -> None:
    """onnxruntime's reader drops what is above 32 bits: it would see external data where others see unknown fields."""
    location = onnx.StringStringEntryProto(key="location", value="trust.json").SerializeToString()
    tensor = onnx.TensorProto(name="hidden", data_type=onnx.TensorProto.FLOAT, dims=[1]).SerializeToString()
    tensor += b"\xea\x80\x80\x80\x10" + bytes([len(location)]) + location  # field 13, external_data, and bit 32
    tensor += b"\xf0\x80\x80\x80\x10\x01"  # field 14, data_location EXTERNAL, and bit 32
    graph = b"\x2a" + bytes([len(tensor)]) + tensor  # one more initializer
    hidden = b"\x3a" + bytes([len(graph)]) + graph  # a second `graph` is merged into the first
    folder = scene.model(OFFERED)
    with (folder / "power_curve.onnx").open("ab") as file:
        file.write(hidden)
    _right_digest(folder)
    OURS.sign(folder, OFFERED)

    assert "NOT_ONNX: power_curve.onnx: it is no ONNX model: the number of a field is too large" in scene.refused(
        folder
    )


@pytest.mark.parametrize("size", [10, 1000], ids=["short", "half"])
def test_offer_when_signed_but_truncated_then_refused(scene: Scene, size: int) -> None:
    folder = scene.model(OFFERED)
    path = folder / "power_curve.onnx"
    path.write_bytes(path.read_bytes()[:size])
    _right_digest(folder)
    OURS.sign(folder, OFFERED)

    assert "NOT_ONNX" in scene.refused(folder) or "cannot be loaded" in scene.refused(folder)


def test_offer_when_larger_than_the_limit_then_refused_without_reading_it_all(scene: Scene) -> None:
    folder = scene.model(OFFERED)
    with (folder / "power_curve.onnx").open("r+b") as file:
        file.truncate(600 * 1024 * 1024)  # a hole: it takes no space on the disk

    assert "is larger than" in scene.refused(folder)


def test_load_over_a_door_when_signed_or_not_then_judged_for_the_component_that_its_manifest_names(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(scene.device.agent_files)  # where marram_signing.py lies
    registry = agent_registry.Registry.open(tmp_path / "store")
    aliases = agent_aliases.Aliases(registry, 0, scene.device.root)
    folder, owner = scene.model(OFFERED), "door:edge-manager"

    with pytest.raises(agent_check.RefusedError, match="SIGNATURE_MISSING"):
        aliases.load(owner, "mine", folder)
    THEIRS.sign(folder, OFFERED)
    with pytest.raises(agent_check.RefusedError, match="SIGNING_KEY_UNKNOWN"):
        aliases.load(owner, "mine", folder)
    OURS.sign(folder, OFFERED)
    aliases.load(owner, "mine", folder)
    with pytest.raises(agent_aliases.TakenError):
        aliases.load(owner, "mine", folder)
    (scene.device.root / "security_floors.json").write_text(json.dumps({parts.MODEL_NAME: "2.0.0"}))
    with pytest.raises(agent_check.RefusedError, match="SECURITY_FLOOR"):
        aliases.load(owner, "other", folder)
    assert [each["alias"] for each in aliases.listed()] == ["mine"]
    registry.close()


def test_hold_when_the_version_before_is_below_the_floor_then_refused_and_the_new_one_answers(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(scene.device.agent_files)  # where marram_signing.py lies
    registry = agent_registry.Registry.open(tmp_path / "store")
    aliases = agent_aliases.Aliases(registry, 0, scene.device.root)
    for version in (GOOD, OFFERED):
        OURS.sign(scene.model(version), version)
        aliases.offer(parts.MODEL_NAME, version, scene.device.root / "offered" / version)
    floors = scene.device.root / "security_floors.json"

    for content in (json.dumps({parts.MODEL_NAME: OFFERED}), "[" * 100_000):
        floors.write_text(content)
        with pytest.raises(agent_check.RefusedError, match=r"BELOW_SECURITY_FLOOR|SIGNATURE_NOT_VALID"):
            aliases.hold("power-curve", "drift", "what an attacker showed to the model")
        assert aliases.listed()[0]["serving"] == OFFERED
    floors.write_text(json.dumps({parts.MODEL_NAME: GOOD}))
    assert aliases.hold("power-curve", "drift", "the weather").endswith(f"gives way to {GOOD}")
    registry.close()


def test_offer_when_a_candidates_key_was_revoked_meanwhile_then_refused_and_it_never_answers(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(scene.device.agent_files)  # where marram_signing.py lies
    registry = agent_registry.Registry.open(tmp_path / "store")
    aliases = agent_aliases.Aliases(registry, 0, scene.device.root)
    trial = agent_settings.Settings(trial={"mode": "shadow"})
    for version in (GOOD, OFFERED):
        OURS.sign(scene.model(version), version)
        aliases.offer(parts.MODEL_NAME, version, scene.device.root / "offered" / version, trial)
    scene.trust(revoked=[OURS.id])

    with pytest.raises(agent_check.RefusedError, match="SIGNING_KEY_REVOKED"):
        aliases.offer(parts.MODEL_NAME, OFFERED, scene.device.root / "offered" / OFFERED)

    assert aliases.listed()[0]["serving"] == GOOD
    registry.close()


def test_trial_when_the_candidates_key_was_revoked_meanwhile_then_its_win_makes_it_leave(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody offers it again: the trial that it wins would let it answer. Who signed it is known after a restart, too."""
    monkeypatch.syspath_prepend(scene.device.agent_files)  # where marram_signing.py lies
    terms = {"mode": "shadow", "share": 1.0, "measure": "close", "tolerance": 1e6, "minimum": 0.5, "minimumSamples": 20}
    trial = agent_settings.read({"trial": {**terms, "cpuShare": 1.0, "maxSeconds": 3600}})
    registry = agent_registry.Registry.open(tmp_path / "store")
    aliases = agent_aliases.Aliases(registry, 0, scene.device.root)
    for version in (GOOD, OFFERED):
        OURS.sign(scene.model(version), version)
        aliases.offer(parts.MODEL_NAME, version, scene.device.root / "offered" / version, trial)
    registry.close()
    registry = agent_registry.Registry.open(tmp_path / "store")
    aliases = agent_aliases.Aliases(registry, 0, scene.device.root)
    aliases.restore()
    trials = agent_trials.Trials(aliases, agent_report.NONE)
    engine = agent_engine.Engine(aliases.serving)
    engine.observers.append(trials.observe)
    assert aliases.listed()[0]["state"] == "trial"
    scene.trust(revoked=[OURS.id])

    def ended() -> bool:
        trials.tick()
        engine.predict("power-curve", parts.BATCH, time.monotonic() + 20)
        return bool(aliases.listed()[0]["state"] != "trial")

    parts.until(ended, "the end of the trial")

    (row,) = aliases.listed()
    assert (row["serving"], row["state"]) == (GOOD, "serving")
    assert row["reason"].startswith("SIGNING_KEY_REVOKED: ")
    trials.close()
    registry.close()


class Kept:
    """The table of an agent that keeps GOOD as what was before OFFERED, both signed by OURS, and reads whom to trust anew."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene, self.folder = scene, folder
        self.start()
        for version in (GOOD, OFFERED):
            self.offer(version)

    def start(self) -> list[str]:
        self._registry = agent_registry.Registry.open(self.folder)
        self.aliases = agent_aliases.Aliases(self._registry, 0, self.scene.device.root)
        return self.aliases.restore()

    def restart(self) -> str:
        """What the agent says of the alias when it starts."""
        self.close()
        (line,) = self.start()
        return line

    def close(self) -> None:
        self._registry.close()

    def offer(self, version: str, signer: Signer = OURS, **settings: Any) -> str:
        signer.sign(self.scene.model(version), version)
        folder = self.scene.device.root / "offered" / version
        return self.aliases.offer(parts.MODEL_NAME, version, folder, agent_settings.Settings(**settings))

    def forget(self) -> None:
        """OFFERED serves, and GOOD has never done so: it can be tried."""
        self.aliases.withdraw(parts.MODEL_NAME, OFFERED)
        self.offer(OFFERED)

    def damage(self) -> None:
        """The copy of what serves."""
        key = self._registry.aliases["power-curve"].serving.key
        (self.folder / "models" / key / "power_curve.onnx").write_bytes(b"")

    def rule_out(self, how: str) -> None:
        """What is older than OFFERED, or everything of OURS."""
        if how == "BELOW_SECURITY_FLOOR":
            (self.scene.device.root / "security_floors.json").write_text(json.dumps({parts.MODEL_NAME: OFFERED}))
        else:
            self.scene.trust(revoked=[OURS.id])


@pytest.fixture
def kept(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.syspath_prepend(scene.device.agent_files)  # where marram_signing.py lies
    made = Kept(scene, tmp_path / "store")
    yield made
    made.close()


ENDLESS_CANARY = {
    "mode": "canary",
    "share": 1.0,
    "measure": "close",
    "tolerance": 1e6,
    "minimum": 0.5,
    "minimumSamples": 99999,
    "cpuShare": 1.0,
    "maxSeconds": 3600,
}
RULED_OUT = pytest.mark.parametrize("code", ["BELOW_SECURITY_FLOOR", "SIGNING_KEY_REVOKED"])


@RULED_OUT
def test_restart_when_what_serves_is_damaged_and_the_one_before_was_ruled_out_then_it_does_not_answer_again(
    kept: Kept, code: str
) -> None:
    kept.damage()
    kept.rule_out(code)

    said = kept.restart()

    assert f"{GOOD} may not answer in its place: {code}: " in said
    assert "its copy cannot be read" in said or "its copy is damaged" in said
    assert (kept.aliases.serving("power-curve"), kept.aliases.listed()) == (None, [])


@RULED_OUT
def test_request_when_what_served_is_evicted_and_damaged_and_the_one_before_was_ruled_out_then_not_ready(
    kept: Kept, code: str
) -> None:
    engine = agent_engine.Engine(kept.aliases.serving)
    engine.wake = kept.aliases.wake
    serving = kept.aliases.serving("power-curve")
    assert serving is not None
    assert serving.model.drain(parts.WAIT_S)
    kept.damage()
    kept.rule_out(code)

    with pytest.raises(agent_engine.NotReadyError):
        engine.predict("power-curve", parts.BATCH, time.monotonic() + parts.WAIT_S)

    assert kept.aliases.listed() == []


def test_restart_when_what_serves_is_damaged_and_nothing_was_ruled_out_then_the_one_before_answers(kept: Kept) -> None:
    kept.damage()

    said = kept.restart()

    assert said.startswith(f"power-curve answers with {parts.MODEL_NAME} {GOOD}; ")


def test_restart_when_the_key_of_what_serves_was_revoked_then_it_answers_and_no_other_version_of_that_key_may(
    kept: Kept,
) -> None:
    """A revocation decides about what comes to answer, not about what answers: an application is not stopped from afar."""
    kept.rule_out("SIGNING_KEY_REVOKED")

    said = kept.restart()

    assert said == f"power-curve answers with {parts.MODEL_NAME} {OFFERED}"
    engine = agent_engine.Engine(kept.aliases.serving)
    assert engine.predict("power-curve", parts.BATCH, time.monotonic() + parts.WAIT_S).version == OFFERED
    with pytest.raises(agent_check.RefusedError, match="SIGNING_KEY_REVOKED"):
        kept.aliases.hold("power-curve", "drift", "the weather")
    with pytest.raises(agent_check.RefusedError, match="SIGNING_KEY_REVOKED"):
        kept.offer(GOOD)


def test_hold_when_the_version_before_was_signed_anew_before_its_key_was_revoked_then_it_answers_again(
    kept: Kept,
) -> None:
    keys = {one.id: {"name": "k", "publicKey": base64.b64encode(one.der).decode()} for one in (OURS, THEIRS)}
    kept.scene.trust(keys=keys)
    kept.forget()
    assert "already answers" in kept.offer(OFFERED, THEIRS)
    kept.offer(GOOD, THEIRS)
    kept.scene.trust(keys=keys, revoked=[OURS.id])

    said = kept.aliases.hold("power-curve", "drift", "the weather")

    assert said.endswith(f"gives way to {OFFERED}")


def test_restart_when_the_candidates_key_was_revoked_then_it_is_not_tried_any_more(kept: Kept) -> None:
    kept.forget()
    kept.offer(GOOD, trial={"mode": "canary"})
    assert kept.aliases.listed()[0]["state"] == "trial"
    kept.rule_out("SIGNING_KEY_REVOKED")

    said = kept.restart()

    assert f"; {GOOD} cannot be tried: SIGNING_KEY_REVOKED: " in said
    assert (kept.aliases.listed()[0]["state"], kept.aliases.candidate("power-curve")) == ("serving", None)


@RULED_OUT
def test_canary_when_the_candidate_is_ruled_out_while_it_answers_then_it_leaves_and_may_come_back_when_that_ends(
    kept: Kept, code: str
) -> None:
    settings = {"trial": ENDLESS_CANARY}
    (kept.scene.device.root / "security_floors.json").write_text("{}")
    kept.forget()
    assert "accepted for a canary trial" in kept.offer(GOOD, **settings)
    trials, engine = agent_trials.Trials(kept.aliases, agent_report.NONE), agent_engine.Engine(kept.aliases.serving)
    engine.route, engine.fell_back = trials.route, trials.fell_back

    def answers() -> str:
        return engine.predict("power-curve", parts.BATCH, time.monotonic() + parts.WAIT_S).version

    trials.tick()
    assert answers() == GOOD
    kept.rule_out(code)
    trials.tick()

    assert (answers(), kept.aliases.listed()[0]["state"]) == (OFFERED, "serving")
    assert kept.aliases.listed()[0]["reason"].startswith(f"{code}: ")
    assert [(one["outcome"], one["code"]) for one in trials.listed()] == [("refused", code)]
    with pytest.raises(agent_check.RefusedError, match=code):
        kept.offer(GOOD, **settings)
    kept.scene.trust()
    (kept.scene.device.root / "security_floors.json").write_text("{}")
    assert "accepted for a canary trial" in kept.offer(GOOD, **settings)
    trials.close()


def test_trial_when_it_is_won_while_whom_to_trust_cannot_be_read_then_promoted_when_it_can(kept: Kept) -> None:
    terms = {"mode": "shadow", "share": 1.0, "measure": "close", "tolerance": 1e6, "minimum": 0.5, "minimumSamples": 20}
    kept.forget()
    kept.offer(GOOD, trial={**terms, "cpuShare": 1.0, "maxSeconds": 3600})
    trials, engine = agent_trials.Trials(kept.aliases, agent_report.NONE), agent_engine.Engine(kept.aliases.serving)
    engine.observers.append(trials.observe)
    (kept.scene.device.root / "trust.json").write_text("{")

    def said() -> str:
        engine.predict("power-curve", parts.BATCH, time.monotonic() + parts.WAIT_S)
        return "".join(line for line in trials.tick() if "waits" in line)

    assert "ended as promoted; it waits to be acted on: SIGNATURE_NOT_VALID" in parts.until(said, "the end")
    assert kept.aliases.listed()[0]["serving"] == OFFERED
    kept.scene.trust()
    trials.tick()

    assert kept.aliases.listed()[0]["serving"] == GOOD
    assert [one["outcome"] for one in trials.listed()] == ["promoted"]
    trials.close()


def test_trial_when_whom_to_trust_cannot_be_read_for_a_while_then_it_goes_on_over_a_restart_too(kept: Kept) -> None:
    kept.forget()
    kept.offer(GOOD, trial=ENDLESS_CANARY)
    trials = agent_trials.Trials(kept.aliases, agent_report.NONE)
    trials.tick()
    (kept.scene.device.root / "trust.json").write_text("{")

    trials.tick()

    assert [one["outcome"] for one in trials.listed()] == ["running"]
    trials.close()
    assert kept.restart().endswith(f", {GOOD} is being tried")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("power_curve.onnx", "is no plain file"),
        ("certificate.json", "is no plain file"),
        (signing.MANIFEST, "SIGNATURE_NOT_VALID"),
        (signing.SIGNATURE, "SIGNATURE_NOT_VALID"),
    ],
)
def test_offer_when_a_file_is_a_pipe_then_refused_at_once(scene: Scene, name: str, words: str) -> None:
    folder = scene.model(OFFERED)
    OURS.sign(folder, OFFERED)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)

    assert words in scene.refused(folder)


def test_repository_when_a_key_is_trusted_then_signed_folders_load_replace_each_other_and_others_are_refused(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(scene.device.agent_files)  # where marram_signing.py lies
    registry = agent_registry.Registry.open(tmp_path / "store")
    aliases = agent_aliases.Aliases(registry, 0, scene.device.root)
    repository = agent_oip_repository.Repository(aliases, "token", tmp_path / "repository")
    stored = tmp_path / "repository" / "power-curve"

    def store(version: str, signer: Signer | None) -> None:
        shutil.rmtree(stored, ignore_errors=True)
        shutil.copytree(scene.model(version), stored)
        if signer is not None:
            signer.sign(stored, version)

    store(GOOD, OURS)
    repository.load("power-curve", "token", {})
    store(OFFERED, OURS)
    repository.load("power-curve", "token", {})
    for signer, code in ((None, "SIGNATURE_MISSING"), (THEIRS, "SIGNING_KEY_UNKNOWN")):
        store(GOOD, signer)
        with pytest.raises(agent_oip.OipError, match=code):
            repository.load("power-curve", "token", {})

    (row,) = aliases.listed()
    assert (row["serving"], row["previous"], row["owner"]) == (OFFERED, GOOD, "local")
    repository.unload("power-curve", "token")
    assert aliases.listed() == []
    registry.close()
