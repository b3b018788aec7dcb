"""Certificates from the vault's process: a chain that holds, and wrong requests told without values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nucleus import vault
from tests.nucleus import test_vault

ITEM = {"name": "n", "from": 1_700_000_000, "until": 1_800_000_000.5}


def test_process_when_asked_for_an_authority_and_a_server_then_a_chain() -> None:
    authority = vault.authority({"items": [ITEM]})["items"][0]
    request = {"version": 1, "keys": [authority["privateKey"]], "authority": authority["certificate"]}
    items = [{**ITEM, "name": "x" * 99, "names": ["localhost", "*.local", "::1"]} for _ in range(2)]

    ended = test_vault.run("server", {**request, "items": items})

    assert ended.returncode == 0, ended.stderr
    first, second = json.loads(ended.stdout)["items"]
    made = x509.load_pem_x509_certificate(first["certificate"].encode())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(authority["certificate"].encode()))
    assert made.not_valid_before_utc.timestamp() == ITEM["from"]
    key = serialization.load_pem_private_key(first["privateKey"].encode(), None)
    assert key.public_key() == made.public_key()
    assert second["privateKey"] != first["privateKey"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"items": [{**ITEM, "names": ["ä"]}]},
        {"items": [{**ITEM, "names": "x", "until": "later"}]},
        {"items": [{**ITEM, "until": 0, "names": []}]},
        {"items": [ITEM]},
        {"authority": "no certificate"},
        {"keys": []},
    ],
)
def test_process_when_the_request_is_wrong_then_a_sentence_and_no_values(wrong: dict[str, Any]) -> None:
    authority = vault.authority({"items": [ITEM]})["items"][0]
    request = {"version": 1, "keys": [authority["privateKey"]], "authority": authority["certificate"]}

    ended = test_vault.run("server", {**request, "items": [{**ITEM, "names": ["a"]}], **wrong})

    assert ended.returncode == 2
    assert ended.stdout == b""
    assert b"cannot server: the request is wrong" in ended.stderr
    assert b"PRIVATE" not in ended.stderr
