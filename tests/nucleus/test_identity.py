"""The identity file over the configuration file: provisioned, renewed, overruled; and the ways to get one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nucleus import identity
from nucleus.core import errors

GIVEN = {"thingName": "T", "certificateFilePath": "d.pem", "privateKeyPath": "d.key", "rootCaPath": "ca.pem"}


def test_overlay_when_file_names_no_thing_then_the_given_identity_and_its_port(tmp_path: Path) -> None:
    identity.save(tmp_path, {"system": GIVEN, "nucleus": {"iotDataEndpoint": "h", "mqtt": {"port": 1}}})

    system, nucleus = identity.overlay({}, {"mqtt": {"keepAliveTimeoutMs": 2}, "other": 3}, tmp_path)

    assert system == GIVEN
    assert nucleus == {"iotDataEndpoint": "h", "mqtt": {"port": 1, "keepAliveTimeoutMs": 2}, "other": 3}


def test_overlay_when_file_names_a_thing_then_it_decides(tmp_path: Path) -> None:
    identity.save(tmp_path, {"system": GIVEN, "nucleus": {}})

    assert identity.overlay({"thingName": "Mine"}, {}, tmp_path) == ({"thingName": "Mine"}, {})


def test_overlay_when_certificate_was_renewed_then_new_until_the_file_names_another(tmp_path: Path) -> None:
    old, new, key = tmp_path / "old.pem", tmp_path / "new.pem", tmp_path / "new.key"
    old.write_text("old")
    mine = {"thingName": "Mine", "certificateFilePath": str(old), "privateKeyPath": "old.key"}

    identity.renewed(tmp_path, old, new, key)

    system, _ = identity.overlay(mine, {}, tmp_path)
    assert system == {"thingName": "Mine", "certificateFilePath": str(new), "privateKeyPath": str(key)}
    assert identity.is_unconfirmed(tmp_path, new)
    identity.confirm(tmp_path)
    assert not identity.is_unconfirmed(tmp_path, new)
    old.write_text("the operator's next one")
    assert identity.overlay(mine, {}, tmp_path)[0] == mine


def test_renewed_when_identity_was_provisioned_then_the_rest_of_it_stays(tmp_path: Path) -> None:
    identity.save(tmp_path, {"system": GIVEN, "nucleus": {"iotDataEndpoint": "h"}})

    identity.renewed(tmp_path, Path("d.pem"), Path("n.pem"), Path("n.key"))

    system, nucleus = identity.overlay({}, {}, tmp_path)
    assert system == GIVEN | {"certificateFilePath": "n.pem", "privateKeyPath": "n.key"}
    assert nucleus == {"iotDataEndpoint": "h"}


@pytest.mark.parametrize("text", ["", "[]", "{}x", '{"system": 1}', '{"system": {}}'])
def test_overlay_when_file_is_damaged_then_told_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / identity.FILE).write_text(text)

    with pytest.raises(errors.NucleusError, match="delete it to provision"):
        identity.overlay({}, {}, tmp_path)


def test_order_when_ways_are_counted_then_none_one_or_an_error(tmp_path: Path) -> None:
    claim = {identity.CLAIM: {"configuration": {"provisioningTemplate": "T"}}}
    plugin: dict[str, Any] = {"marram": {"provisioning": {"plugin": "a.py", "parameters": {"x": 1}}}}

    assert identity.order({}, {}, tmp_path) is None
    assert identity.order({}, claim, tmp_path) == {"root": str(tmp_path), "claim": {"provisioningTemplate": "T"}}
    assert identity.order(plugin, {}, tmp_path) == {"root": str(tmp_path), "plugin": "a.py", "parameters": {"x": 1}}
    with pytest.raises(errors.NucleusError, match=r"claim, a\.py"):
        identity.order(plugin, claim, tmp_path)


def test_vault_when_cryptography_is_absent_then_says_so(tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('not here')")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import nucleus.vault"]

    ended = subprocess.run(command, capture_output=True, timeout=30, check=False)

    assert ended.returncode == 3
    assert b"pip install cryptography" in ended.stderr
