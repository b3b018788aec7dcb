"""`marram bundle`: made, looked through and handed to a real agent; what is wrong with a file is found before it is unpacked."""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nucleus.cli import bundle_file, exits
from tests.cli import marram
from tests.components import parts

NAME = parts.MODEL_NAME
OWN, FOREIGN = "ours", "theirs"


class Author:
    """Makes keys and bundles below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (OWN, FOREIGN):
            assert marram.run("key", "create", name, "--out", folder).code == 0

    def path(self, name: str) -> Path:
        return self.folder / name

    def make(self, version: str, *more: str, key: str = OWN, model: str = "") -> Path:
        """A bundle of a model of the repository as this version; without a key it is not signed."""
        out = self.path(f"{version}-{key}.bundle")
        signed = ("--key", self.path(f"{key}.key")) if key else ()
        source = parts.MODEL / (model or version)
        done = marram.run(
            *("bundle", "create", source, "--out", out, "--component", NAME, "--version", version), *signed, *more
        )
        assert done.code == 0, done.err
        return out

    def trust(self, root: Path, *more: str) -> None:
        assert marram.run("key", "trust", self.path(f"{OWN}.pub"), "--root", root, *more).code == 0


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Author:
    return Author(tmp_path_factory.mktemp("author"))


@pytest.fixture
def device() -> Iterator[parts.Device]:
    with parts.device() as made:
        yield made


def apply(device: parts.Device, bundle: Path, *more: str) -> marram.Result:
    return marram.run("bundle", "apply", bundle, "--root", device.root, *more)


def test_bundle_when_signed_then_applied_again_replaced_and_kept_above_its_floor(
    author: Author, device: parts.Device
) -> None:
    device.start_agent("--nucleus-root", str(device.root))
    author.trust(device.root)
    first, second = author.make("1.0.0"), author.make("1.1.0", "--floor", "1.1.0", "--settings", '{"pinned": true}')

    done = [apply(device, bundle) for bundle in (first, first, second, second, first)]

    assert [one.code for one in done] == [0, 0, 0, 0, exits.NOT_AUTHORISED], done
    assert "power-curve now answers with" in done[0].out
    assert "already answers with" in done[1].out
    assert "1.1.0" in done[2].out
    assert "[BELOW_SECURITY_FLOOR]" in done[4].err
    row = parts.serving(device)[0]
    assert (row["serving"], row["previous"], row["owner"], row["pinned"]) == ("1.1.0", "1.0.0", "bundle", True)


def test_bundle_when_it_serves_then_no_deployment_takes_the_alias_before_it_is_given_back(
    author: Author, device: parts.Device
) -> None:
    device.start_agent()
    assert apply(device, author.make("1.0.0", key="")).code == 0

    refused = device.offer("1.1.0")
    request = {"op": "offer", "component": NAME, "version": "1.1.0", "artifacts": str(parts.MODEL / "1.1.0")}
    assert parts.ask(device, request)["code"] == "FAILED_PRECONDITION"
    given_back = marram.run("bundle", "release", NAME, "--root", device.root)
    accepted = device.offer("1.1.0")
    nothing = marram.run("bundle", "release", NAME, "--root", device.root)

    assert (refused.returncode, given_back.code, accepted.returncode) == (1, 0, 0), given_back
    assert "marram bundle release" in refused.stderr
    assert "still answers with 1.0.0" in given_back.out
    assert (nothing.code, "[NOT_FOUND]" in nothing.err) == (exits.UNSATISFIED, True)
    assert parts.serving(device)[0]["owner"] == "deployment"


def test_apply_when_the_model_is_refused_then_says_so_and_changes_neither_what_answers_nor_the_floor(
    author: Author, device: parts.Device
) -> None:
    device.start_agent("--nucleus-root", str(device.root))
    author.trust(device.root)
    assert apply(device, author.make("1.1.0")).code == 0

    refused = apply(device, author.make("1.2.0", "--floor", "1.2.0"))
    again = apply(device, author.make("1.0.0"))

    assert refused.code == exits.UNSATISFIED
    assert "golden sample" in refused.err
    assert "still answers with" in refused.err
    assert again.code == 0, again.err


def test_apply_when_no_agent_is_there_then_gives_up_in_time(author: Author, device: parts.Device) -> None:
    done = apply(device, author.make("1.0.0"), "--timeout", "0.3")

    assert done.code == exits.TIMED_OUT
    assert "[AGENT_UNREACHABLE]" in done.err


def test_verify_when_only_a_public_key_is_there_then_tells_what_is_in_it(author: Author) -> None:
    bundle = author.make("1.1.0", "--for-class", "turbine", "--settings", '{"isolated": true}')
    asked = ("bundle", "verify", bundle, "--key", author.path(f"{OWN}.pub"))

    found = marram.run(*asked, "--device-class", "turbine", "-o", "json")
    told = marram.run(*asked, "--device-class", "turbine")
    elsewhere = marram.run(*asked, "--device-class", "gateway")
    nobody = marram.run("bundle", "verify", bundle)

    item = found.json["item"]
    assert (item["component"], item["version"], item["alias"], item["key"]) == (NAME, "1.1.0", "power-curve", OWN)
    assert item["settings"] == {"isolated": True}
    assert {"model.json", "power_curve.onnx", "settings.json"} < set(item["files"])
    assert f"is whole: {NAME} 1.1.0" in told.out
    assert (elsewhere.code, "[WRONG_DEVICE_CLASS]" in elsewhere.err) == (exits.NOT_AUTHORISED, True)
    assert (nobody.code, "say whom to trust" in nobody.err) == (exits.ERROR, True)


def test_create_when_made_twice_of_a_signed_folder_then_the_same_bytes(author: Author, tmp_path: Path) -> None:
    signed = tmp_path / "signed"
    signed.mkdir()
    bundle_file.unpack(bundle_file.read(author.make("1.1.0")), signed)
    outs = [tmp_path / "a.bundle", tmp_path / "b.bundle"]

    for out in outs:
        assert marram.run("bundle", "create", signed, "--out", out).code == 0

    assert outs[0].read_bytes() == outs[1].read_bytes()
    names = zipfile.ZipFile(outs[0]).namelist()
    assert names == sorted(names)
    assert marram.run("bundle", "verify", outs[0], "--key", author.path(f"{OWN}.pub")).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "say --component and --version"),
        (("--settings", "{}"), "give --key"),
        (("--component", "x", "--version", "1.0.0", "--settings", "[]", "--key", "KEY"), "must be a JSON object"),
        (("--component", "x", "--version", "1.0.0", "--settings", "{", "--key", "KEY"), "no JSON"),
        (("--component", "x", "--version", "1.0.0", "--floor", "2.0.0", "--key", "KEY"), "would rule out 1.0.0"),
    ],
    ids=["nameless", "settings unsigned", "settings no object", "settings no JSON", "floor too high"],
)
def test_create_when_something_is_missing_or_wrong_then_says_what_to_do(
    author: Author, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    given = [str(author.path(f"{OWN}.key")) if one == "KEY" else one for one in options]
    shutil.copytree(parts.MODEL / "1.0.0", tmp_path / "model")
    done = marram.run("bundle", "create", tmp_path / "model", "--out", tmp_path / "x.bundle", *given)

    assert (done.code, words in done.err, (tmp_path / "x.bundle").exists()) == (exits.ERROR, True, False), done.err


# ---- files that nobody should have sent ------------------------------------------------------------------------------


def _rewritten(path: Path, change: Callable[[dict[str, bytes]], None], kind: int = zipfile.ZIP_STORED) -> None:
    """The same bundle with other content, whole as a ZIP."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def _set(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda path: _rewritten(path, lambda files: files.update({name: data}))


def _drop(name: str) -> Callable[[Path], None]:
    return lambda path: _rewritten(path, lambda files: files.pop(name) and None)


def _flip(path: Path) -> None:
    """One bit of the model, and the ZIP's own checksums made right again."""

    def change(files: dict[str, bytes]) -> None:
        model = bytearray(files["power_curve.onnx"])
        model[len(model) // 2] ^= 1
        files["power_curve.onnx"] = bytes(model)

    _rewritten(path, change)


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _link(path: Path) -> None:
    entry = zipfile.ZipInfo("certificate.json")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "/etc/passwd")


def _twice(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("model.json", b"{}")


def _many(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(bundle_file.LIMIT_ENTRIES):
            archive.writestr(f"file{number}", b"")


def _endless(path: Path) -> None:
    """A directory of 100,000 entries, which the standard library would read at once."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, *[0] * 6) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(entry) * 100_000, 0, 0)
    path.write_bytes(entry * 100_000 + end)


def _large(path: Path) -> None:
    """Says of its first entry that it is larger than a bundle may be."""
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    path.write_bytes(data[: at + 24] + struct.pack("<I", bundle_file.LIMIT_BYTES + 1) + data[at + 28 :])


def _bomb(path: Path) -> None:
    """A megabyte and more of zeros in a kilobyte, in a file that may be a megabyte."""
    _rewritten(path, lambda files: files.update({"certificate.json": bytes(1024 * 1024 + 1)}), zipfile.ZIP_DEFLATED)


def _as_another_version(path: Path) -> None:
    sheet = {"format": 1, "component": NAME, "version": "9.0.0"}
    _rewritten(path, lambda files: files.update({bundle_file.SHEET: json.dumps(sheet).encode()}))


def _nothing(_: Path) -> None:
    return None


BAD = bundle_file.CODE


@pytest.mark.parametrize(
    ("code", "exit_code", "attack"),
    [
        pytest.param(BAD, exits.ERROR, lambda path: path.write_bytes(b"no zip"), id="no zip"),
        pytest.param(BAD, exits.ERROR, _cut, id="cut off"),
        pytest.param(BAD, exits.ERROR, _damage, id="damaged"),
        pytest.param(BAD, exits.ERROR, _flip, id="another model"),
        pytest.param(BAD, exits.ERROR, _link, id="symbolic link"),
        pytest.param(BAD, exits.ERROR, _set("../../evil", b""), id="traversal"),
        pytest.param(BAD, exits.ERROR, _set("/etc/evil", b""), id="absolute"),
        pytest.param(BAD, exits.ERROR, _twice, id="twice"),
        pytest.param(BAD, exits.ERROR, _many, id="too many"),
        pytest.param(BAD, exits.ERROR, _large, id="too large"),
        pytest.param(BAD, exits.ERROR, _bomb, id="bomb"),
        pytest.param(BAD, exits.ERROR, _drop("model.json"), id="no model"),
        pytest.param(BAD, exits.ERROR, _drop(bundle_file.SHEET), id="no sheet"),
        pytest.param(BAD, exits.ERROR, _set(bundle_file.SHEET, b'{"format": 2}'), id="newer format"),
        pytest.param(BAD, exits.ERROR, _set("settings.json", b"[]"), id="settings no object"),
        pytest.param(BAD, exits.NOT_AUTHORISED, _drop("settings.json"), id="settings stripped"),
        pytest.param("ARTIFACT_CHANGED", exits.NOT_AUTHORISED, _set("settings.json", b"{}"), id="settings changed"),
        pytest.param("ARTIFACT_NOT_SIGNED", exits.NOT_AUTHORISED, _set("certificate.json", b"{}"), id="file added"),
        pytest.param("SIGNATURE_MISSING", exits.NOT_AUTHORISED, _drop("marram.manifest.sig"), id="signature stripped"),
        pytest.param("MANIFEST_NOT_VALID", exits.NOT_AUTHORISED, _as_another_version, id="another version"),
    ],
)
def test_verify_and_apply_when_the_file_was_tampered_with_then_refused_with_a_code(
    author: Author, tmp_path: Path, code: str, exit_code: int, attack: Callable[[Path], object]
) -> None:
    bundle = tmp_path / "model.bundle"
    shutil.copyfile(author.make("1.1.0", "--settings", '{"pinned": true}'), bundle)
    author.trust(tmp_path)
    attack(bundle)

    verified = marram.run("bundle", "verify", bundle, "--root", tmp_path)
    applied = marram.run("bundle", "apply", bundle, "--root", tmp_path, "--timeout", "0")

    assert (verified.code, applied.code) == (exit_code, exit_code), (verified.err, applied.err)
    assert f"[{code}]" in verified.err
    assert f"[{code}]" in applied.err


def test_read_when_the_directory_is_endless_then_it_is_not_taken_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "endless.bundle"
    _endless(path)

    with pytest.raises(exits.Failure, match="its directory is larger"):
        bundle_file.read(path)


def test_create_when_a_foreign_manifest_names_files_elsewhere_then_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "foreign", tmp_path / "made.bundle"
    shutil.copytree(parts.MODEL / "1.1.0", folder)
    (tmp_path / "secret").write_text("private")
    manifest = {"component": NAME, "version": "1.1.0", "artifacts": {"../secret": "0" * 64}}
    (folder / "marram.manifest.json").write_text(json.dumps(manifest))
    (folder / "marram.manifest.sig").write_text("{}")

    done = marram.run("bundle", "create", folder, "--out", out)

    assert (done.code, "'../secret' is no plain file name" in done.err, out.exists()) == (exits.ERROR, True, False)


def test_verify_when_the_key_is_foreign_or_revoked_then_refused(author: Author, tmp_path: Path) -> None:
    author.trust(tmp_path)
    ours, theirs = author.make("1.0.0"), author.make("1.0.0", key=FOREIGN)

    foreign = marram.run("bundle", "verify", theirs, "--root", tmp_path)
    good = marram.run("bundle", "verify", ours, "--root", tmp_path)
    marram.run("key", "revoke", OWN, "--root", tmp_path)
    revoked = marram.run("bundle", "verify", ours, "--root", tmp_path)

    assert (foreign.code, good.code, revoked.code) == (exits.NOT_AUTHORISED, 0, exits.NOT_AUTHORISED)
    assert "[SIGNING_KEY_UNKNOWN]" in foreign.err
    assert "[SIGNING_KEY_REVOKED]" in revoked.err
