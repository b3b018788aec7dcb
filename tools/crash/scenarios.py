"""The deployments of each scenario, what they must end in, and the state they must leave."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

A, B, C = "com.example.A", "com.example.B", "com.example.C"
STAYS = {"Run": "exec sleep 100000"}


class Step(Struct, frozen=True, kw_only=True):
    """One deployment: roots, a merge for A, how it must end."""

    roots: dict[str, str]
    merge: dict[str, Any] = {}
    ends: str


class Scenario(Struct, frozen=True, kw_only=True):
    """`before` is carried out undisturbed, `steps` under fire; `leaves` are the versions installed at the end."""

    before: tuple[Step, ...] = ()
    steps: tuple[Step, ...]
    leaves: dict[str, str]
    speed: int


INSTALL = Step(roots={A: "1.0.0", B: "1.0.0"}, merge={"speed": 1}, ends="SUCCESSFUL")

SCENARIOS = {
    "install": Scenario(steps=(INSTALL,), leaves={A: "1.0.0", B: "1.0.0"}, speed=1),
    "upgrade": Scenario(
        before=(INSTALL,),
        steps=(Step(roots={A: "1.1.0", C: "1.0.0"}, merge={"speed": 2}, ends="SUCCESSFUL"),),
        leaves={A: "1.1.0", C: "1.0.0"},
        speed=2,
    ),
    "failing": Scenario(
        before=(INSTALL,),
        steps=(Step(roots={A: "2.0.0", C: "1.0.0"}, merge={"speed": 3}, ends="FAILED_ROLLBACK_COMPLETE"),),
        leaves={A: "1.0.0", B: "1.0.0"},
        speed=1,
    ),
    "two in a row": Scenario(
        steps=(INSTALL, Step(roots={A: "1.1.0"}, ends="SUCCESSFUL")), leaves={A: "1.1.0"}, speed=1
    ),
}


def recipes() -> list[dict[str, Any]]:
    """Every component version; A 2.0.0 never starts."""
    fails = {"Startup": {"Script": "exit 3", "Timeout": 5}}
    versions = ((A, "1.0.0", STAYS), (A, "1.1.0", STAYS), (A, "2.0.0", fails), (B, "1.0.0", STAYS), (C, "1.0.0", STAYS))
    return [
        {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": name,
            "ComponentVersion": version,
            "ComponentConfiguration": {"DefaultConfiguration": {"speed": 0}},
            "Manifests": [{"Lifecycle": lifecycle}],
        }
        for name, version, lifecycle in versions
    ]
