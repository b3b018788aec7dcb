"""The vault's process: what it seals only it opens, with the same key, and nothing but pipes is used."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.kdf import hkdf

from nucleus import vault

SALT, CONTEXT = b"s" * 32, ["arn:x", "v1", "text"]


def pem(key: Any) -> str:
    made = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return str(made.decode())


KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def run(operation: str, data: bytes | dict[str, Any]) -> subprocess.CompletedProcess[bytes]:
    given = data if isinstance(data, bytes) else json.dumps(data).encode()
    return subprocess.run(
        [sys.executable, "-m", "nucleus.vault", operation], input=given, capture_output=True, timeout=60, check=False
    )


def seal(*values: bytes, key: Any = KEY, context: list[str] = CONTEXT) -> dict[str, Any]:
    items = [{"context": context, "value": text(value)} for value in values]
    return vault.seal({"version": 1, "keys": [pem(key)], "salt": text(SALT), "items": items})


def request(sealed: dict[str, Any], *keys: Any, context: list[str] = CONTEXT, **more: Any) -> dict[str, Any]:
    items = [{"context": context, **one} for one in sealed["items"]]
    given = [pem(one) for one in keys or (KEY,)]
    return {"version": 1, "keys": given, "key": sealed["key"], "salt": text(SALT), "items": items, **more}


def test_process_when_it_seals_and_another_opens_then_the_values_come_back() -> None:
    values = [b"", b"hello", bytes(range(256)) * 256]
    items = [{"context": CONTEXT, "value": text(value)} for value in values]

    sealed = run("seal", {"version": 1, "keys": [pem(KEY)], "salt": text(SALT), "items": items})
    opened = run("open", request(json.loads(sealed.stdout)))

    assert (sealed.returncode, opened.returncode, sealed.stderr, opened.stderr) == (0, 0, b"", b"")
    assert [base64.b64decode(one["value"]) for one in json.loads(opened.stdout)["items"]] == values


def test_seal_when_looked_at_then_it_is_aes_256_gcm_of_an_hkdf_of_the_private_value() -> None:
    """Against another writing of the same definition: what is on devices must open for ever."""
    found = seal(b"hello")

    number = KEY.private_numbers().private_value.to_bytes(32, "big")
    derived = hkdf.HKDF(hashes.SHA256(), 32, SALT, b"marram secrets at rest 1").derive(number)
    one = found["items"][0]
    context = b'[1, "arn:x", "v1", "text"]'
    assert (
        aead.AESGCM(derived).decrypt(base64.b64decode(one["nonce"]), base64.b64decode(one["sealed"]), context)
        == b"hello"
    )


def test_seal_when_twice_then_nonces_differ() -> None:
    found = [one["nonce"] for one in seal(b"x", b"x")["items"] + seal(b"x")["items"]]

    assert len(set(found)) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP384R1()),
    ],
)
def test_open_when_the_key_is_of_another_kind_then_it_works_too(make: Any) -> None:
    key = make()

    found = vault.unseal(request(seal(b"hello", key=key), OTHER, key))

    assert found["items"] == [{"value": text(b"hello")}]


def test_seal_when_the_keys_file_is_written_in_another_way_then_the_data_key_is_the_same() -> None:
    sec1 = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )

    found = vault.unseal(request(seal(b"hello")) | {"keys": [sec1.decode()]})

    assert found["items"] == [{"value": text(b"hello")}]


def test_open_when_one_item_is_changed_or_moved_then_that_one_is_damaged_and_the_others_open() -> None:
    asked = request(seal(b"one", b"two", b"three", b"four"))
    asked["items"][0]["sealed"] = text(bytes(20))
    asked["items"][1]["context"] = ["arn:x", "v2", "text"]
    asked["items"][2]["nonce"] = text(b"")

    found = vault.unseal(asked)["items"]

    assert found == [{"damaged": True}, {"damaged": True}, {"damaged": True}, {"value": text(b"four")}]


def test_context_when_parts_could_run_together_then_they_do_not() -> None:
    asked = request(seal(b"one", context=["ab", "c"]), context=["a", "bc"])

    assert vault.unseal(asked)["items"] == [{"damaged": True}]


def test_rekey_when_the_old_key_is_there_then_sealed_for_the_new_one_and_damage_is_told() -> None:
    asked = request(seal(b"one", b"two"), OTHER, KEY, newSalt=text(b"n" * 32))
    asked["items"][1]["sealed"] = text(bytes(20))

    found = vault.rekey(asked)

    assert found["key"] == vault.identity(OTHER)
    assert found["items"][1] == {"damaged": True}
    again = request({"key": found["key"], "items": found["items"][:1]}, OTHER) | {"salt": text(b"n" * 32)}
    assert vault.unseal(again)["items"] == [{"value": text(b"one")}]


@pytest.mark.parametrize("operation", ["open", "rekey"])
def test_process_when_the_key_is_gone_then_exit_4_and_a_reason(operation: str) -> None:
    ended = run(operation, request(seal(b"secret-value"), OTHER, newSalt=text(SALT)))

    assert (ended.returncode, ended.stdout) == (4, b"")
    assert b"key of this device that is gone" in ended.stderr


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"version": 2}',
        b'{"version": 1}',
        b'{"version": 1, "keys": [], "salt": "", "items": []}',
        b"[" * 100_000,
    ],
)
def test_process_when_the_request_is_wrong_then_exit_2_without_values(data: bytes) -> None:
    ended = run("seal", data)

    assert (ended.returncode, ended.stdout) == (2, b"")
    assert len(ended.stderr.splitlines()) == 1


def test_process_when_a_value_is_wrong_then_the_reason_does_not_hold_it() -> None:
    items = [{"context": CONTEXT, "value": "top-secret!"}]

    ended = run("seal", {"version": 1, "keys": [pem(KEY)], "salt": text(SALT), "items": items})

    assert ended.returncode == 2
    assert b"top-secret" not in ended.stderr
    assert b"PRIVATE" not in ended.stderr


@pytest.mark.parametrize("arguments", [[], ["seal", "x"], ["unseal"], ["--help"]])
def test_process_when_called_wrongly_then_usage(arguments: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "nucleus.vault", *arguments], input=b"", capture_output=True, timeout=30, check=False
    )

    assert ended.returncode == 2
    assert b"usage" in ended.stderr


def test_process_when_it_works_then_it_writes_no_file(tmp_path: Path) -> None:
    script = (
        "import sys; written = []\n"
        "def hook(event, args):\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'): written.append(args[0])\n"
        "sys.addaudithook(hook)\n"
        "from nucleus import vault\n"
        "code = vault.main(['seal'])\n"
        "sys.exit(code or len(written))"
    )
    items = [{"context": CONTEXT, "value": text(b"x")}]
    asked = {"version": 1, "keys": [pem(KEY)], "salt": text(SALT), "items": items}

    ended = subprocess.run(
        [sys.executable, "-B", "-c", script],
        input=json.dumps(asked).encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["items"]
