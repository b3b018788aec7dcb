"""Verifies a signature: P-256 in this process (awscrt), Ed25519 in a short-lived one, because awscrt cannot."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys

from nucleus.core import signing
from nucleus.uplink import crt

TIMEOUT_S = 30.0


def verify(algorithm: str, der: bytes, data: bytes, signature: bytes) -> bool:
    """signing.Verify; blocks. Raises ValueError or OSError when it cannot be told."""
    if algorithm == signing.ECDSA:
        key = crt.crypto.EC.new_key_from_der_data(der)
        return bool(key.verify(hashlib.sha256(data).digest(), signature))
    one = {"publicKey": der, "data": data, "signature": signature}
    asked = {"version": 1, "items": [{name: base64.b64encode(value).decode() for name, value in one.items()}]}
    command = [sys.executable, "-m", "nucleus.vault", "verify"]
    done = subprocess.run(
        command, input=json.dumps(asked).encode(), capture_output=True, check=False, timeout=TIMEOUT_S
    )
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip() or f"the vault ended with {done.returncode}")
    return bool(json.loads(done.stdout)["items"][0]["valid"])
