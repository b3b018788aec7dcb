"""Fleet status over MQTT: takes what registered things report (spec/cloud.md 3.5); there is no answer."""

from __future__ import annotations

import sqlalchemy

from cloud.store import fleet, identities


def handle(tx: sqlalchemy.Connection, thing: str, payload: bytes, now_ms: int) -> str:
    """Returns why a message changed nothing, or ""."""
    if identities.thing(tx, thing) is None:
        return f"cannot take the fleet status of {thing}: no such thing is registered"
    return fleet.ingest(tx, thing, payload, now_ms)
