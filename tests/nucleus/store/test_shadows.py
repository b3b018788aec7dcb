"""The file of the shadows: versions, pages, what a killed process and a damaged file leave."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nucleus.core import errors, shadow, shadow_sync
from nucleus.store import shadows

WRITER = """
import sys
from pathlib import Path
from nucleus.core import shadow, shadow_sync
from nucleus.store import shadows
store = shadows.ShadowStore(Path(sys.argv[1]))
store.open()
held = shadow.Shadow()
while True:
    held = shadow.update(held, shadow.Request({"reported": {"n": held.version + 1, "fill": "x" * 500}}), 0)
    with store.writing():
        store.save("thing", "name", held)
        store.save_synced("thing", "name", shadow_sync.Synced(held.state, held.version, held.version))
    print(held.version, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> shadows.ShadowStore:
    one = shadows.ShadowStore(tmp_path)
    assert one.open() == ""
    return one


def test_store_when_opened_again_then_shadows_tombstones_and_bases_are_there(
    store: shadows.ShadowStore, tmp_path: Path
) -> None:
    held = shadow.Shadow({"desired": {"ä": [1, {"b": None}]}}, {"desired": {"ä": [{"timestamp": 1}]}}, 3, 5)
    gone = shadow.tombstone(held, 7)
    synced = shadow_sync.Synced({"desired": {"ä": True}}, 3, 9)
    with store.writing():
        store.save("t", "", held)
        store.save("t", "gone", gone)
        store.save_synced("t", "", synced)
        store.save_synced("t", "gone", shadow_sync.Synced(None, 4, 10))
    store.close()
    again = shadows.ShadowStore(tmp_path)

    assert again.open() == ""
    assert again.find("t", "") == held
    assert again.find("t", "gone") == gone
    assert again.find("t", "never") is None
    assert again.synced("t", "") == synced
    assert again.synced("t", "gone") == shadow_sync.Synced(None, 4, 10)
    assert again.synced("t", "never") == shadow_sync.Synced()
    again.close()


def test_names_when_paged_then_sorted_without_the_classic_and_the_deleted(store: shadows.ShadowStore) -> None:
    with store.writing():
        for name in ("", "c", "a", "b", "d"):
            store.save("t", name, shadow.Shadow(version=1))
        store.save("t", "b", shadow.Shadow(version=2, deleted=True))
        store.save("u", "x", shadow.Shadow(version=1))

    assert store.names("t", "", 2) == ["a", "c"]
    assert store.names("t", "c", 2) == ["d"]
    store.close()


def test_writing_when_it_fails_then_nothing_of_it_is_saved(store: shadows.ShadowStore) -> None:
    def fails() -> None:
        with store.writing():
            store.save("t", "a", shadow.Shadow(version=1))
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError):
        fails()

    assert store.find("t", "a") is None
    store.close()


def test_store_when_the_writer_is_killed_then_what_it_told_is_there_with_its_base(tmp_path: Path) -> None:
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        told = 0
        for line in process.stdout:
            told = int(line)
            if told >= 40:
                process.send_signal(signal.SIGKILL)
                break
        rest = process.stdout.read().split(b"\n")
        process.wait(10)
        process.stdout.close()
        told = max([told, *(int(one) for one in rest[:-1])])

        store = shadows.ShadowStore(tmp_path)
        assert store.open() == ""
        held, synced = store.find("thing", "name"), store.synced("thing", "name")
        store.close()
        assert held is not None
        assert held.version in (told, told + 1)
        assert held.state["reported"]["n"] == held.version == synced.local_version
        assert synced.base == held.state


@pytest.mark.parametrize("damage", ["all", "page", "short"])
def test_open_when_the_file_is_damaged_then_it_is_set_aside_and_told(
    store: shadows.ShadowStore, tmp_path: Path, damage: str
) -> None:
    with store.writing():
        for number in range(200):
            store.save("t", f"n{number}", shadow.Shadow({"reported": {"x": "y" * 200}}, version=1))
    store.close()
    path = tmp_path / shadows.FILE
    data = path.read_bytes()
    broken = {"all": b"no database " * 100, "page": data[:8192] + b"\xff" * 4096 + data[12288:], "short": data[:5000]}
    path.write_bytes(broken[damage])
    again = shadows.ShadowStore(tmp_path)

    told = again.open()

    assert "damaged" in told
    (aside,) = [one for one in tmp_path.glob(f"{shadows.FILE}.damaged-*") if one.suffix not in ("-wal", "-shm")][:1]
    assert aside.name in told
    assert aside.read_bytes() == broken[damage]
    assert again.find("t", "n1") is None
    again.close()


def test_open_when_the_folder_cannot_be_written_then_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "shadows").write_text("a file where the folder should be")

    with pytest.raises(errors.NucleusError, match="shadows"):
        shadows.ShadowStore(tmp_path / "shadows").open()


def test_use_when_not_open_then_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.NucleusError, match="not open"):
        shadows.ShadowStore(tmp_path).find("t", "")
