"""The admission gate: final verdicts, accuracy certificates, replay of captures, and what takes too long."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_capture_files
import agent_certificate
import agent_check
import agent_entry
import agent_gate
import agent_guard
import agent_loader
import agent_registry
import agent_replay
import agent_room
import agent_sampling
import agent_settings
import agent_verdicts
import numpy as np
import onnxruntime
import pytest
from awscrt import crypto
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.optimise import certificates
from nucleus.core import signing
from tests.components import doubling, parts

EARLIER = "(decided earlier)"


@pytest.fixture
def scene(device: parts.Device) -> Iterator[doubling.Scene]:
    made = doubling.Scene(device)
    yield made
    made.close()


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_refusal_when_offered_again_then_same_answer_at_once_even_after_a_restart(scene: doubling.Scene) -> None:
    folder = scene.model("2.0.0")
    described = json.loads((folder / "model.json").read_text())
    described["golden"]["samples"][0]["outputs"]["y"] = [7]
    (folder / "model.json").write_text(json.dumps(described))
    first = scene.offer("2.0.0", folder)
    assert "golden sample 1 of 1: y is 0, expected 7" in first.stderr
    assert EARLIER not in first.stderr

    again = scene.offer("2.0.0", folder)
    scene.agent.kill()
    scene.agent.wait(parts.WAIT_S)
    scene.device.start_agent()
    later = scene.offer("2.0.0", folder)
    other = scene.offer("2.0.0", folder, pinned=True)

    assert (again.returncode, later.returncode) == (1, 1)
    reason = first.stderr.partition("; numbers still")[0]
    assert again.stderr.startswith(f"{reason} {EARLIER}; numbers still answers with ")
    assert later.stderr == again.stderr
    assert (other.returncode, EARLIER in other.stderr) == (1, False)  # other settings are judged anew
    reply = parts.ask(
        scene.device, {"op": "offer", "component": parts.MODEL_NAME, "version": "2.0.0", "artifacts": str(folder)}
    )
    assert reply["code"] == "GOLDEN_MISMATCH"


def test_verdicts_when_their_file_is_damaged_then_put_aside_and_judged_anew(tmp_path: Path) -> None:
    (tmp_path / "verdicts.json").write_text('{"verdicts": [{"digest"')

    verdicts = agent_verdicts.Verdicts(tmp_path)

    assert verdicts.find("d", "r", "s") is None
    assert (tmp_path / "verdicts.json.unreadable").read_text() == '{"verdicts": [{"digest"'
    assert verdicts.keep("d", "r", "s", False, "GOLDEN_MISMATCH", "wrong")
    kept = agent_verdicts.Verdicts(tmp_path).find("d", "r", "s")
    assert kept is not None
    assert (kept.accepted, kept.code, kept.reason) == (False, "GOLDEN_MISMATCH", "wrong")


@settings(max_examples=25)  # each writes files
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.sampled_from(["X", "BUSY", "GATE_TIMEOUT"]))))
def test_verdicts_when_kept_in_any_order_then_the_newest_few_are_found_and_no_passing_one(
    tmp_path_factory: pytest.TempPathFactory, kept: list[tuple[str, bool, str]]
) -> None:
    folder = tmp_path_factory.mktemp("verdicts")
    verdicts, expected = agent_verdicts.Verdicts(folder, limit=3), dict[str, tuple[bool, str]]()
    for digest, accepted, word in kept:
        code = "" if accepted else word
        final = verdicts.keep(digest, "r", "s", accepted, code)
        assert final is (code not in agent_verdicts.NOT_FINAL)
        if final and expected.get(digest) != (accepted, code):
            expected.pop(digest, None)
            expected[digest] = (accepted, code)
            expected = dict(list(expected.items())[-3:])

    for found in (verdicts, agent_verdicts.Verdicts(folder, limit=3)):
        each = {digest: found.find(digest, "r", "s") for digest in "abcdef"}
        assert {d: (v.accepted, v.code) for d, v in each.items() if v is not None} == expected


# ---- time ------------------------------------------------------------------------------------------------------------


class Hanging:
    """Work that ends when it is told to, and what came of it."""

    def __init__(self) -> None:
        self.go_on, self.closed = threading.Event(), threading.Event()

    def __call__(self) -> Hanging:
        self.go_on.wait(parts.WAIT_S)
        return self

    def close(self) -> None:
        self.closed.set()


def test_step_when_it_takes_too_long_then_refused_for_now_and_what_comes_late_is_closed() -> None:
    hanging = [Hanging() for _ in range(agent_gate.STUCK_LIMIT)]
    for each in hanging:
        with pytest.raises(agent_check.RefusedError, match=r"its load took longer than 0\.01 s") as found:
            agent_gate.bounded("load", 0.01, each)
        assert found.value.code == "GATE_TIMEOUT"
        assert found.value.code in agent_verdicts.NOT_FINAL

    with pytest.raises(agent_check.RefusedError, match="2 models that took too long") as full:
        agent_gate.bounded("load", 5, lambda: 1)
    assert full.value.code == "RESOURCE_EXHAUSTED"

    for each in hanging:
        each.go_on.set()
        assert each.closed.wait(parts.WAIT_S)

    def free() -> bool:
        try:
            return agent_gate.bounded("load", 5, lambda: 1) == 1
        except agent_check.RefusedError:
            return False

    parts.until(free, "the gate to take models again")


def test_step_when_it_fails_then_its_own_error_is_raised() -> None:
    def fail() -> None:
        raise agent_check.RefusedError("no", "GOLDEN_MISMATCH")

    with pytest.raises(agent_check.RefusedError, match="no"):
        agent_gate.bounded("load", 5, fail)


def test_load_when_golden_samples_take_too_long_then_refused_for_now(tmp_path: Path) -> None:
    folder = doubling.table(tmp_path / "slow", "1.0.0", [0.0], work=150)
    data, model = (folder / "model.json").read_bytes(), (folder / "table.onnx").read_bytes()
    registry = agent_registry.Registry.open(tmp_path / "registry")
    held = agent_entry.Held("1.0.0", agent_registry.digest(data, model), "c")
    manifest = agent_check.read_manifest(data)
    package = agent_loader.Package("a", held, manifest, model, agent_settings.DEFAULT, limit_s=0.001)
    loader = agent_loader.Loader(registry)

    with pytest.raises(agent_check.RefusedError, match="its load with its golden samples took longer") as found:
        loader.load(package)
    parts.until(lambda: not [each for each in threading.enumerate() if each.name.startswith("load with")])
    loaded = loader.load(dataclasses.replace(package, limit_s=30.0))

    assert found.value.code == "GATE_TIMEOUT"
    assert loaded.version == "1.0.0"
    registry.close()


def test_gate_when_every_step_takes_its_whole_time_then_below_the_minute_of_a_startup() -> None:
    assert agent_gate.LOAD_S + agent_gate.REPLAY_S + agent_room.DRAIN_S <= 55


# ---- certificates ----------------------------------------------------------------------------------------------------


class Certified:
    """A device that demands certificates and trusts one key, whose agent serves nothing yet."""

    def __init__(self, device: parts.Device) -> None:
        self.device = device
        self.private = crypto.EC.new_generate(crypto.ECType.P_256)
        der = self.private.export_key(crypto.ECExportFormat.SPKI)
        self.key = signing.key_id(der)
        trusted = {"keys": {self.key: {"name": "ours", "publicKey": base64.b64encode(der).decode()}}}
        (device.root / "trust.json").write_text(json.dumps(trusted))
        environment = {"MARRAM_REQUIRE_CERTIFICATE": "true"}
        device.start_agent("--nucleus-root", str(device.root), environment=environment)
        self.folder = doubling.table(device.root / "offered", "1.0.0", [2.0 * x for x in range(100)])

    def certificate(self) -> dict[str, Any]:
        """What optimise would write for this model on this machine."""
        kind, features = certificates.machine()
        sha256 = hashlib.sha256((self.folder / "table.onnx").read_bytes()).hexdigest()
        return {
            "format": 1,
            "model": {"sha256": sha256, "sourceSha256": "0" * 64},
            "runtime": {
                "name": "onnxruntime",
                "version": onnxruntime.__version__,
                "provider": "CPUExecutionProvider",
            },
            "target": {"class": kind, "features": list(features)},
            "precision": "int8",
            "data": {"calibrationSha256": "", "evaluationSha256": "1" * 64, "evaluationSamples": 200},
            "metric": {"name": "f1", "against": "source", "source": 1.0, "candidate": 0.98},
            "interval": {"low": -0.025, "high": -0.015, "confidence": 0.95, "method": "bootstrap"},
            "margin": 0.03,
            "measured": {"latencyMs": 4.0},
            "issuedAt": "2026-11-24T12:00:00+00:00",
        }

    def offer(self, certificate: dict[str, Any] | None) -> Any:
        names = ["model.json", "table.onnx"]
        if certificate is not None:
            (self.folder / "certificate.json").write_text(json.dumps(certificate))
            names.append("certificate.json")
        digests = {name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest() for name in names}
        manifest = signing.write_manifest(parts.MODEL_NAME, "1.0.0", digests)
        (self.folder / signing.MANIFEST).write_bytes(manifest)
        signature = self.private.sign(hashlib.sha256(manifest).digest())
        (self.folder / signing.SIGNATURE).write_bytes(signing.write_signature(self.key, signature))
        return self.again()

    def again(self) -> Any:
        return self.device.offer("1.0.0", self.folder)


@pytest.fixture(scope="module")
def refusing() -> Iterator[Certified]:
    """One device for all offers that must be refused."""
    with parts.device() as made:
        yield Certified(made)


def put(section: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[section].update({key: value})


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "other-model": (put("model", "sha256", "2" * 64), "it is for a model with SHA-256 222222222222"),
    "other-runtime": (put("runtime", "name", "openvino"), "it is for openvino"),
    "other-provider": (put("runtime", "provider", "CUDAExecutionProvider"), "with CUDAExecutionProvider"),
    "other-version": (put("runtime", "version", "0.9.1"), "it was measured with onnxruntime 0.9.1"),
    "other-machine": (put("target", "class", "linux/mips"), "it was measured on linux/mips"),
    "lacking": (put("target", "features", ["sve3"]), "a machine with sve3, which this one lacks"),
    "lowered": (lambda content: content.update(precision="bfloat16"), "measured at bfloat16"),
    "margin": (put("interval", "low", -0.031), "may lose more than its margin"),
    "no-number": (put("interval", "low", float("nan")), "cannot be read"),
    "incomplete": (lambda content: content.pop("margin"), "lacks 'margin'"),
    "newer": (lambda content: content.update(format=2), "format 2 is not known here"),
    "no-digest": (put("data", "evaluationSha256", "unknown"), "is no SHA-256"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_certificate_when_it_does_not_speak_for_this_model_here_then_refused(refusing: Certified, case: str) -> None:
    change, reason = BAD[case]
    content = refusing.certificate()
    change(content)

    done = refusing.offer(content)

    assert (done.returncode, "CERTIFICATE_NOT_VALID: " in done.stderr) == (1, True)
    assert reason in done.stderr


def test_certificate_when_it_is_demanded_and_right_then_accepted_with_its_figures(device: parts.Device) -> None:
    scene = Certified(device)

    missing = scene.offer(None)
    (scene.folder / "certificate.json").write_text(json.dumps(scene.certificate()))
    unsigned = scene.again()
    good = scene.offer(scene.certificate())

    assert (missing.returncode, "CERTIFICATE_MISSING" in missing.stderr) == (1, True)
    assert (unsigned.returncode, "ARTIFACT_NOT_SIGNED" in unsigned.stderr) == (1, True)
    assert good.returncode == 0, good.stderr
    assert "; f1 0.98 against source (-0.025 to -0.015 at 0.95, margin 0.03)" in good.stdout


def test_certificate_when_nobody_is_trusted_then_a_demanded_one_proves_nothing(device: parts.Device) -> None:
    device.start_agent(environment={"MARRAM_REQUIRE_CERTIFICATE": "true"})
    folder = doubling.table(device.root / "offered", "1.0.0", [0.0])
    missing = device.offer("1.0.0", folder)
    (folder / "certificate.json").write_text("{}")

    done = device.offer("1.0.0", folder)

    assert (missing.returncode, "CERTIFICATE_MISSING" in missing.stderr) == (1, True)
    assert (done.returncode, "CERTIFICATE_NOT_SIGNED: nobody signed its certificate" in done.stderr) == (1, True)


def test_certificate_when_it_is_not_demanded_then_what_is_there_must_be_right(scene: doubling.Scene) -> None:
    folder = scene.model("2.0.0")
    (folder / "certificate.json").write_text("[]")

    done = scene.offer("2.0.0", folder)

    assert (done.returncode, "CERTIFICATE_NOT_VALID" in done.stderr) == (1, True)
    (folder / "certificate.json").unlink()
    (folder / "certificate.json").symlink_to(folder / "model.json")
    assert "certificate.json: Too many levels of symbolic links" in scene.offer("2.0.0", folder).stderr
    (folder / "certificate.json").unlink()
    assert scene.offer("2.0.0", folder).returncode == 0


def test_target_when_optimise_and_agent_look_at_one_machine_then_they_see_the_same() -> None:
    kind, features = certificates.machine()

    assert agent_certificate.target() == agent_certificate.Target(kind, frozenset(features))
    assert certificates.FEATURES == agent_certificate.FEATURES


# ---- replay ----------------------------------------------------------------------------------------------------------

REPLAY = {"records": 50, "minimum": 0.9, "measure": "close", "tolerance": 0.01}


def test_replay_when_captured_requests_are_answered_otherwise_then_refused_with_the_figures(
    device: parts.Device,
) -> None:
    scene = doubling.Scene(device, capture={"rate": 1.0, "perMinute": 10_000})
    scene.ask(100)
    store = device.work("marram.ModelAgent") / "samples"
    parts.until(lambda: sum(len(file.read_text().splitlines()) for file in store.rglob("*.jsonl")) == 100)

    bad = scene.offer("2.0.0", scene.model("2.0.0", wrong=30), replay=REPLAY)
    good = scene.offer("3.0.0", scene.model("3.0.0", wrong=2), replay=REPLAY)
    scene.close()

    assert bad.returncode == 1
    wrong = sum(0 < x <= 30 for x in (number * 37 % doubling.TABLE for number in range(50, 100)))
    assert f"{50 - wrong} of 50 captured requests agree by close, 90.00% are wanted" in bad.stderr
    assert "the newest that does not: y is " in bad.stderr
    assert good.returncode == 0, good.stderr
    assert " of 50 captured requests agree by close)" in good.stdout


def test_replay_when_nothing_was_captured_then_it_is_no_hindrance(scene: doubling.Scene) -> None:
    done = scene.offer("2.0.0", scene.model("2.0.0", wrong=60), replay=REPLAY)

    assert done.returncode == 0, done.stderr
    assert "0 of 0 captured requests agree" in done.stdout


def test_replay_when_the_serving_model_is_not_in_memory_then_refused_for_now_and_told_what_to_do(
    tmp_path: Path,
) -> None:
    """It would compare nothing and let everything pass."""
    stored(tmp_path, [np.ones((2, 2), np.float32)], 3072)
    gone = agent_guard.Guard.parked(types.SimpleNamespace(name="m", inputs=DECLARED))
    terms = agent_replay.read(REPLAY)
    assert terms is not None

    with pytest.raises(agent_check.RefusedError, match="swap: spill") as refused:
        agent_replay.run(terms, [tmp_path], "m", None, gone, time.monotonic() + 10)

    assert refused.value.code == "REPLAY_IMPOSSIBLE"
    assert refused.value.code in agent_verdicts.NOT_FINAL
    assert agent_replay.run(terms, [tmp_path / "empty"], "m", None, gone, time.monotonic() + 10) is not None


DECLARED = (agent_check.Tensor("x", "float32", (-1, 2)),)


def stored(root: Path, arrays: list[Any], embed_bytes: int) -> list[Path]:
    """A store with a capture for each array; the files of its lines."""
    files = agent_capture_files.Files(root, "d", 10_000_000, embed_bytes)
    files.open(lambda identity: None)
    for number, array in enumerate(arrays):
        items = agent_sampling.items({"x": array})
        record = agent_capture_files.Record("m", str(uuid.uuid4()), 1e9 + number * 1800, items, ())
        assert files.write([record]) == [""]
    return sorted(root.rglob("*.jsonl"))


@pytest.mark.parametrize("embed_bytes", [10, 3072], ids=["files", "embedded"])
def test_captures_when_read_back_then_the_newest_first_and_damaged_ones_do_not_fit(
    tmp_path: Path, embed_bytes: int
) -> None:
    arrays = [np.full((2, 2), number, np.float32) for number in range(6)]
    arrays[3] = np.zeros((2, 3), np.float32)  # another model's
    units = stored(tmp_path, arrays, embed_bytes)
    with units[-1].open("ab") as file:
        file.write(b'{"eventMetadata": {"eventId": "half a line')
    whole = units[0].read_text().splitlines(keepends=True)
    units[0].write_text(whole[0].replace("Tensor[float32; 2, 2]", "Tensor[float32; 2, 9]") + "".join(whole[1:]))

    found = list(agent_replay.newest([tmp_path], "m", DECLARED))

    assert [int(each["x"][0, 0]) if each else -1 for each in found] == [5, 4, -1, 2, 1, -1]
    assert list(agent_replay.newest([tmp_path], "other", DECLARED)) == []


def test_captures_when_a_line_names_a_file_elsewhere_then_it_is_not_read(tmp_path: Path) -> None:
    (unit,) = stored(tmp_path / "store", [np.ones((2, 2), np.float32)], 1)
    line = json.loads(unit.read_text())
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 16)
    for file in (str(secret), "../../../../../../secret"):
        line["deviceFleetInputs"][0]["file"] = file
        unit.write_text(json.dumps(line) + "\n")
        assert list(agent_replay.newest([tmp_path / "store"], "m", DECLARED)) == [{}]
