"""Bytes by digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cloud.objects import files


def test_receive_when_kept_then_readable_by_digest_and_in_ranges(tmp_path: Path) -> None:
    objects, data = files.Objects(tmp_path / "objects"), b"0123456789" * 100_000

    with objects.receive() as incoming:
        incoming.write(data[:500])
        incoming.write(data[500:])
        stored = incoming.keep()

    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert b"".join(objects.read(stored.sha256)) == data
    assert b"".join(objects.read(stored.sha256, 999_995, 100)) == data[-5:]
    assert b"".join(objects.read(stored.sha256, 3, 4)) == b"3456"


def test_receive_when_not_kept_then_nothing_is_left(tmp_path: Path) -> None:
    objects = files.Objects(tmp_path / "objects")

    with objects.receive() as incoming:
        incoming.write(b"x")

    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []


def test_receive_when_the_same_bytes_come_twice_then_one_file(tmp_path: Path) -> None:
    objects = files.Objects(tmp_path / "objects")
    for _ in range(2):
        with objects.receive() as incoming:
            incoming.write(b"x")
            stored = incoming.keep()

    assert [path.name for path in (tmp_path / "objects").rglob("*") if path.is_file()] == [stored.sha256]


def test_sweep_when_unreferenced_then_removed(tmp_path: Path) -> None:
    objects = files.Objects(tmp_path / "objects")
    digests = []
    for data in (b"a", b"b"):
        with objects.receive() as incoming:
            incoming.write(data)
            digests.append(incoming.keep().sha256)

    removed = objects.sweep({digests[0]})

    assert removed == 1
    assert objects.path(digests[0]).exists()
    assert not objects.path(digests[1]).exists()


def test_clean_when_a_predecessor_was_killed_then_its_uploads_go(tmp_path: Path) -> None:
    objects = files.Objects(tmp_path / "objects")
    (tmp_path / "objects" / "incoming").mkdir(parents=True)
    (tmp_path / "objects" / "incoming" / "half").write_bytes(b"x")

    assert objects.clean() == 1
    assert objects.clean() == 0


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "g" * 64, "a" * 63])
def test_path_when_no_digest_then_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        files.Objects(tmp_path).path(name)
