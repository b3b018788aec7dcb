"""`python -m nucleus.uplink.provisioning`: gives a new device its identity, in a process that ends, so the daemon stays small.

Standard input is a JSON object: `root` and either `claim` (the claim's configuration) or `plugin` and `parameters`. A plug-in
is `module:function` or `FILE.py[:function]` (default `provision`); it is called with the parameters and returns
{"system": {thingName, certificateFilePath, privateKeyPath, rootCaPath}, "nucleus": {iotDataEndpoint, …}}. Standard output
is that object and nothing else. Exit 75 means that the same attempt may succeed later.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucleus.core import errors
from nucleus.uplink import claim

LATER = 75  # EX_TEMPFAIL
SYSTEM = ("thingName", "certificateFilePath", "privateKeyPath", "rootCaPath")


def main() -> int:
    order = json.load(sys.stdin)
    answer = os.dup(1)
    os.dup2(2, 1)  # what a plug-in prints must not get into the answer
    try:
        found = checked(_provision(order))
    except (TimeoutError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return LATER
    except errors.NucleusError as error:
        print(f"{error.detail} [{error.code}]", file=sys.stderr)
        return 1
    os.write(answer, json.dumps(found).encode())
    return 0


def checked(found: Any) -> dict[str, Any]:
    """What a plug-in returned, if it is an identity. Raises NucleusError naming what is missing."""
    if not isinstance(found, Mapping) or not isinstance(found.get("system"), Mapping):
        raise errors.NucleusError("BAD_REQUEST", "cannot provision: the plug-in did not return an object with `system`")
    system, nucleus = found["system"], found.get("nucleus") or {}
    missing = [name for name in SYSTEM if not system.get(name)]
    if missing or not isinstance(nucleus, Mapping) or not nucleus.get("iotDataEndpoint"):
        what = ", ".join(missing) or "nucleus.iotDataEndpoint"
        raise errors.NucleusError("BAD_REQUEST", f"cannot provision: the plug-in's answer lacks {what}")
    return {"system": {name: str(system[name]) for name in SYSTEM}, "nucleus": dict(nucleus)}


def _provision(order: Mapping[str, Any]) -> Any:
    if "claim" in order:
        return claim.provision(order["claim"], Path(order["root"]))
    try:
        return _function(str(order["plugin"]))(dict(order.get("parameters") or {}))
    except OSError:
        raise
    except Exception as error:  # whatever foreign code raises
        why = f"{type(error).__name__}: {error}"
        raise errors.NucleusError(
            "BAD_REQUEST", f"cannot provision: plug-in {order['plugin']} failed: {why}"
        ) from error


def _function(target: str) -> Any:
    where, _, name = target.partition(":")
    if not where.endswith(".py"):
        return getattr(importlib.import_module(where), name or "provision")
    spec = importlib.util.spec_from_file_location("marram_provisioning_plugin", where)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name or "provision")


if __name__ == "__main__":
    sys.exit(main())
