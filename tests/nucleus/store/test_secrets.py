"""The file of sealed secrets: whole or absent whatever happens, and never in the way of a start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nucleus.core import secrets as words
from nucleus.store import secrets

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbC123"
WRITER = """
import sys
from pathlib import Path
from nucleus.core import secrets as words
from nucleus.store import secrets
store = secrets.SecretStore(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    version = words.Version(%r, "db", str(number), ("AWSCURRENT",))
    store.save(secrets.Contents("k", "f", b"salt", (secrets.Sealed(version, b"n", b"x" * 100_000),)))
    print(number, flush=True)
"""


def contents(sealed: bytes = b"sealed") -> secrets.Contents:
    version = words.Version(ARN, "db", "v1", ("AWSCURRENT", "blue"), True)
    return secrets.Contents("key", "file", b"\x00salt", (secrets.Sealed(version, b"\xffnonce", sealed),))


def test_load_when_saved_then_the_same_and_only_the_nucleus_may_read_it(tmp_path: Path) -> None:
    store = secrets.SecretStore(tmp_path / "secrets")
    store.save(contents())

    assert secrets.SecretStore(tmp_path / "secrets").load() == (contents(), "")
    assert (tmp_path / "secrets" / secrets.FILE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_save_when_nothing_is_left_then_the_file_goes(tmp_path: Path) -> None:
    store = secrets.SecretStore(tmp_path)
    store.save(secrets.Contents())
    assert list(tmp_path.iterdir()) == []

    store.save(contents())
    store.save(secrets.Contents())

    assert list(tmp_path.iterdir()) == []
    assert store.load() == (secrets.Contents(), "")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\x00" * 100, b'{"entries": 7}', b'{"format": 2, "entries": []}', b"[" * 100_000]
)
def test_load_when_the_file_is_damaged_then_empty_told_and_put_aside(tmp_path: Path, data: bytes) -> None:
    (tmp_path / secrets.FILE).write_bytes(data)
    store = secrets.SecretStore(tmp_path)

    found, told = store.load()

    assert found == secrets.Contents()
    assert secrets.FILE in told
    assert (tmp_path / f"{secrets.FILE}.damaged").read_bytes() == data
    assert store.load() == (secrets.Contents(), "")


def test_load_when_the_path_is_a_folder_then_empty_and_told(tmp_path: Path) -> None:
    (tmp_path / secrets.FILE).mkdir()

    found, told = secrets.SecretStore(tmp_path).load()

    assert found == secrets.Contents()
    assert told


def test_load_when_any_prefix_of_the_file_is_there_then_it_never_raises(tmp_path: Path) -> None:
    store = secrets.SecretStore(tmp_path)
    store.save(contents())
    whole = (tmp_path / secrets.FILE).read_bytes()

    for length in range(len(whole)):
        (tmp_path / secrets.FILE).write_bytes(whole[:length])
        assert store.load()[0] == secrets.Contents()


def test_save_when_killed_at_any_moment_then_a_whole_file_of_before_or_after_is_there(tmp_path: Path) -> None:
    for kill in range(5):
        command = [sys.executable, "-c", WRITER % ARN, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            done = [process.stdout.readline() for _ in range(2 + 3 * kill)][-1]
            os.kill(process.pid, signal.SIGKILL)
            done = (process.stdout.read().split() or [done.strip()])[-1]

        found, told = secrets.SecretStore(tmp_path).load()

        assert told == ""
        assert int(found.entries[0].version.id) >= int(done)
        assert len(found.entries[0].sealed) == 100_000
