"""What is kept for client devices: written with the right modes, read again, and nothing when damaged."""

from __future__ import annotations

from pathlib import Path

from nucleus.store import client_devices

SERVER = client_devices.Server("a", "key", "public", "certificate", "authority", ("localhost",), 1.0, 3.0, 2.0)


def test_store_when_written_then_read_again_by_another(tmp_path: Path) -> None:
    folder = tmp_path / "client_devices"
    one = client_devices.ClientDeviceStore(folder)
    verified = (client_devices.Verified("id", "thing", 1.0, 2.0),)
    authority = client_devices.Authority("key", "certificate", 3.0)
    one.save_verified(verified)
    one.save_authority(authority)
    one.save_server(SERVER)

    again = client_devices.ClientDeviceStore(folder)

    assert (again.verified(), again.authority(), again.server("a")) == (verified, authority, SERVER)
    assert again.server("b") is None
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.json")} == {0o600}
    assert (folder / "authority.pem").read_text() == "certificate"


def test_store_when_files_are_missing_or_damaged_then_as_if_there_were_none(tmp_path: Path) -> None:
    one = client_devices.ClientDeviceStore(tmp_path)
    assert (one.verified(), one.authority(), one.server("a")) == ((), None, None)
    one.save_server(SERVER)
    for path in (*tmp_path.iterdir(), tmp_path / "verified.json", tmp_path / "authority.json"):
        path.write_bytes(b"[" * 100_000)

    assert (one.verified(), one.authority(), one.server("a")) == ((), None, None)
