"""GET /marram/v1/deviceModes: core devices in SAFE_MODE and why, which AWS's shapes have no place for."""

from __future__ import annotations

from typing import Any

from cloud.api import calls
from cloud.store import fleet


def listed(call: calls.Call) -> dict[str, Any]:
    """All of them by name: those that are not listed work as usual."""
    return {"devices": fleet.modes(call.tx)}
