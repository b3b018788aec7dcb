"""Durable writes, checked paths, and archives that want to get out."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import errors
from nucleus.host import files
from tests.nucleus.host import test_journal


def archive(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as opened:
        for name, content in entries:
            opened.writestr(name, content)
    return path


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_write_durably_when_written_then_content_and_bits(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    files.write_durably(path, b"new" * 100_000, mode)

    assert path.read_bytes() == b"new" * 100_000
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert names(tmp_path) == ["file"]


def test_write_durably_when_the_disk_is_full_then_the_old_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    with test_journal.full_disk(10), pytest.raises(errors.NucleusError, match=f"cannot write {path}"):
        files.write_durably(path, b"x" * 1000)

    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_write_durably_when_a_crash_left_its_new_file_then_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_text("half")

    files.write_durably(tmp_path / "file", b"whole")

    assert names(tmp_path) == ["file"]


def test_write_durably_when_somebody_put_a_link_in_its_way_then_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".file.new").symlink_to(tmp_path / "victim")

    with pytest.raises(errors.NucleusError):
        files.write_durably(tmp_path / "file", b"x")

    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("parts", [("a",), ("a", "b"), ("a/b", "c"), (".hidden",), ("..a",), ("a..b",)])
def test_join_when_the_parts_stay_inside_then_the_path(tmp_path: Path, parts: tuple[str, ...]) -> None:
    assert files.join(tmp_path, *parts) == tmp_path.joinpath(*parts)


@pytest.mark.parametrize(
    "parts", [("..",), ("a", ".."), ("a/../b",), ("/etc",), ("a", "/etc"), ("",), ("a\0b",), ("../x",)]
)
def test_join_when_a_part_leads_outside_then_refused(tmp_path: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(errors.NucleusError, match="cannot use path") as caught:
        files.join(tmp_path, *parts)

    assert caught.value.code == "IO_ERROR"


def test_join_when_a_link_leads_outside_then_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "root" / "fine").symlink_to(tmp_path / "root")

    with pytest.raises(errors.NucleusError):
        files.join(tmp_path / "root", "link", "x")
    assert files.join(tmp_path / "root", "fine", "x")


@given(st.lists(st.text(alphabet="ab./\\ \0~", max_size=6), max_size=3))
def test_join_when_any_parts_then_inside_or_refused(parts: list[str]) -> None:
    root = Path("/nonexistent/root")
    try:
        path = files.join(root, *parts)
    except errors.NucleusError:
        return
    assert Path(os.path.normpath(path)).is_relative_to(root)


def test_make_directory_when_made_then_exact_bits_in_spite_of_the_umask(tmp_path: Path) -> None:
    files.make_directory(tmp_path / "a" / "b", 0o755)
    files.make_directory(tmp_path / "a" / "b", 0o711)

    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o711


def test_make_directory_when_a_file_is_there_then_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(errors.NucleusError, match=r"cannot write .*file"):
        files.make_directory(tmp_path / "file")


def test_free_bytes_when_the_path_is_not_there_yet_then_of_its_parent(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "a" / "b") > 0


def test_unzip_when_the_archive_is_good_then_exactly_its_content(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", ("a/b/c.txt", b"deep"), ("top", b""), ("empty/", b""), ("a/d", b"x"))
    target = tmp_path / "out" / "a"
    files.make_directory(target)
    (target / "from before").write_text("")

    files.unzip(source, target, limit_bytes=5)

    assert names(target) == ["a", "a/b", "a/b/c.txt", "a/d", "empty", "top"]
    assert (target / "a/b/c.txt").read_bytes() == b"deep"
    assert stat.S_IMODE((target / "a/b").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "a/b/c.txt").stat().st_mode) == 0o644
    assert names(tmp_path / "out") == [f"a/{name}".rstrip("/") if name else "a" for name in ["", *names(target)]]


def test_unzip_when_an_entry_is_executable_then_its_file_is_too(tmp_path: Path) -> None:
    script = special("run.sh", stat.S_IFREG)

    files.unzip(archive(tmp_path / "a.zip", (script, b"#!/bin/sh"), ("data", b"")), tmp_path / "a", limit_bytes=100)

    assert stat.S_IMODE((tmp_path / "a" / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "a" / "data").stat().st_mode) == 0o644


ESCAPES: list[tuple[str | zipfile.ZipInfo, str]] = [
    ("../outside", "it would lie outside"),
    ("a/../../outside", "it would lie outside"),
    ("a/..", "it would lie outside"),
    ("/etc/passwd", "it would lie outside"),
    ("..\\outside", "characters that are not allowed"),
    ("C:\\outside", "characters that are not allowed"),
    ("line\nfeed", "characters that are not allowed"),
    (special("link", stat.S_IFLNK), "links and devices"),
    (special("pipe", stat.S_IFIFO), "links and devices"),
    (special("disk", stat.S_IFBLK), "links and devices"),
    ("good", "another entry has the same name"),
    ("good/below", "another entry has the same name"),
    ("large", "larger than allowed"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("entry", "why"), ESCAPES)
def test_unzip_when_an_entry_is_bad_then_it_is_named_and_nothing_stays(
    tmp_path: Path, entry: str | zipfile.ZipInfo, why: str
) -> None:
    source = archive(tmp_path / "a.zip", ("good", b"x"), (entry, b"/etc/passwd" * (100 if entry == "large" else 1)))
    target = tmp_path / "out" / "a"
    files.make_directory(target)
    (target / "from before").write_text("")

    with pytest.raises(errors.NucleusError, match=why) as caught:
        files.unzip(source, target, limit_bytes=1000)

    name = entry if isinstance(entry, str) else entry.filename
    assert caught.value.code == "IO_UNZIP_ERROR"
    assert f"entry {name!r}" in caught.value.detail
    assert str(source) in caught.value.detail
    assert names(tmp_path) == ["a.zip", "out", "out/a", "out/a/from before"]


def test_unzip_when_a_name_hides_behind_a_zero_byte_then_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", ("good.txtX../../evil", b"x"))
    source.write_bytes(source.read_bytes().replace(b"good.txtX", b"good.txt\0"))

    with pytest.raises(errors.NucleusError) as caught:
        files.unzip(source, tmp_path / "a", limit_bytes=1000)

    assert caught.value.code == "IO_UNZIP_ERROR"


def test_unzip_when_the_headers_lie_about_the_size_then_still_bounded(tmp_path: Path) -> None:
    """A bomb: 10 MB of zeros whose headers promise 1 byte."""
    source = archive(tmp_path / "a.zip", ("bomb", bytes(10_000_000)))
    source.write_bytes(source.read_bytes().replace(struct.pack("<I", 10_000_000), struct.pack("<I", 1)))

    with pytest.raises(errors.NucleusError) as caught:
        files.unzip(source, tmp_path / "a", limit_bytes=1000)

    assert caught.value.code == "IO_UNZIP_ERROR"
    assert "'bomb'" in caught.value.detail
    assert names(tmp_path) == ["a.zip"]


def test_unzip_when_it_is_no_archive_or_a_part_of_one_then_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.zip", ("a", os.urandom(2000)), ("b", b"x" * 2000)).read_bytes()

    for length in [0, 1, 22, 100, 1000, len(whole) - 30, len(whole) - 1]:
        (tmp_path / "a.zip").write_bytes(whole[:length])
        with pytest.raises(errors.NucleusError) as caught:
            files.unzip(tmp_path / "a.zip", tmp_path / "a", limit_bytes=10_000)
        assert caught.value.code == "IO_UNZIP_ERROR"
        assert not (tmp_path / "a").exists()


def test_unzip_when_content_is_damaged_then_the_entry_is_named(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", ("fine", b"x"), ("damaged", b"y" * 100), compression=zipfile.ZIP_STORED)
    source.write_bytes(source.read_bytes().replace(b"yyyyyyyy", b"yyyzyyyy", 1))

    with pytest.raises(errors.NucleusError, match=r"'damaged'.*cannot be read") as caught:
        files.unzip(source, tmp_path / "a", limit_bytes=1000)

    assert caught.value.code == "IO_UNZIP_ERROR"


def test_unzip_when_encrypted_then_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.zip", ("secret", b"x"))
    data = bytearray(source.read_bytes())
    data[6] |= 1
    data[data.rindex(b"PK\1\2") + 8] |= 1
    source.write_bytes(data)

    with pytest.raises(errors.NucleusError, match="encrypted"):
        files.unzip(source, tmp_path / "a", limit_bytes=1000)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_unzip_when_bytes_of_an_archive_are_overwritten_then_an_error_or_its_content(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    data = bytearray(archive(directory / "a.zip", ("one", b"x" * 50), ("two/three", b"y" * 50)).read_bytes())
    data[at : at + len(noise)] = noise
    (directory / "a.zip").write_bytes(data)

    try:
        files.unzip(directory / "a.zip", directory / "out", limit_bytes=1000)
    except errors.NucleusError as error:
        assert error.code in ("IO_UNZIP_ERROR", "IO_WRITE_ERROR")  # noqa: PT017
        assert not (directory / "out").exists()


def test_unzip_when_the_archive_is_missing_then_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(errors.NucleusError, match=r"cannot read .*nothing\.zip"):
        files.unzip(tmp_path / "nothing.zip", tmp_path / "a", limit_bytes=1)


def test_writing_when_the_device_is_full_then_the_code_says_so() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)

    try:
        with pytest.raises(errors.NucleusError, match="No space left") as caught, files.writing(Path("/data/x")):
            files.write_all(descriptor, b"x")
    finally:
        os.close(descriptor)

    assert caught.value.code == "DISK_SPACE_CRITICAL"
    assert "/data/x" in caught.value.detail
