"""CreateDebugPassword (spec/ipc.md 3). There is no certificate of a local console, so its hashes are left out."""

from __future__ import annotations

from typing import Any

from nucleus.actors import passwords
from nucleus.ipc import call


def create(one: call.Call, request: dict[str, Any]) -> dict[str, Any]:
    """A password for the user `debug`; only its hash stays here."""
    made = one.ports.passwords.create()
    return {"username": passwords.USER, "password": made.password, "passwordExpiration": made.expires_at}
