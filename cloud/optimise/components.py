"""The winner as a model component: one recipe for all targets, and a folder of artifacts for each of them.

    OUT/<component>-<version>.yaml      a manifest for each target, the one with most conditions first
    OUT/artifacts/<target>/             model.onnx, model.json, certificate.json (and the signature, which the caller adds)

A target's manifest is replaced by a later run for the same target; the others stay. Two targets that a device could not tell
apart are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cloud.optimise import targets
from nucleus.core import errors, recipe, signing

MODEL, DESCRIPTION, CERTIFICATE = "model.onnx", signing.MODEL, "certificate.json"
FILES = (MODEL, DESCRIPTION, CERTIFICATE)
_PLACE = "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION"
_SCRIPT = "exec {configuration:/python} {marram.ModelAgent:artifacts:path}/hand_over.py"
_HEADER = "# Written by marram model optimise; run it again for another target to add a manifest.\n"


class ComponentError(Exception):
    """The component cannot be written; the message says why."""


class Component(msgspec.Struct, frozen=True):
    """Name and version of the component, and the alias that its model serves."""

    name: str
    version: str
    alias: str
    publisher: str = "marram model optimise"


def write(out: Path, component: Component, target: targets.Target, files: Mapping[str, bytes]) -> tuple[Path, Path]:
    """Writes recipe and artifacts; returns the recipe's file and the folder of artifacts. Raises ComponentError."""
    path = out / f"{component.name}-{component.version}.yaml"
    text = _text(component, target, path.read_text() if path.exists() else "")
    folder = out / "artifacts" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in (signing.MANIFEST, signing.SIGNATURE):  # of what lay here before
        (folder / name).unlink(missing_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path.write_text(text)
    return path, folder


def _text(component: Component, target: targets.Target, before: str) -> str:
    kept = _others(before, component, target)
    mine = _manifest(component, target)
    clash = next((one for one in kept if one["Platform"] == mine["Platform"]), None)
    if clash is not None:
        told = ", ".join(f"{key} {value}" for key, value in mine["Platform"].items())
        raise ComponentError(
            f"cannot add {target.name}: {clash['Name']} is for {told}, too, and a device could not choose; "
            "give the target a `platform` that tells them apart"
        )
    manifests = sorted([*kept, mine], key=lambda one: -len(one["Platform"]))
    content = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": component.name,
        "ComponentVersion": component.version,
        "ComponentDescription": f"The model of alias {component.alias}, optimised for "
        + ", ".join(str(one["Name"]) for one in manifests),
        "ComponentPublisher": component.publisher,
        "ComponentConfiguration": {
            "DefaultConfiguration": {
                "python": "python3",
                "agentSocket": "../marram.ModelAgent/agent.sock",
                "model": {},
            }
        },
        "ComponentDependencies": {
            "marram.ModelAgent": {"VersionRequirement": ">=1.0.0 <2.0.0", "DependencyType": "HARD"}
        },
        "Manifests": manifests,
    }
    text = _HEADER + yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)
    try:
        recipe.read(text.encode(), f"{component.name}-{component.version}.yaml")
    except errors.NucleusError as error:
        raise ComponentError(error.detail) from error
    return text


def _others(before: str, component: Component, target: targets.Target) -> list[dict[str, Any]]:
    """The manifests of other targets in the recipe as it was."""
    if not before:
        return []
    content = yaml.safe_load(before)
    if not isinstance(content, dict) or content.get("ComponentName") != component.name:
        raise ComponentError(f"cannot add a manifest: the recipe there is not {component.name}'s")
    return [one for one in content.get("Manifests", []) if one.get("Name") != target.name]


def _manifest(component: Component, target: targets.Target) -> dict[str, Any]:
    who = f"--component {component.name} --version {component.version} --socket {{configuration:/agentSocket}}"
    offer = f'{_SCRIPT} offer --artifacts {{artifacts:path}} {who} --settings "$MODEL_SETTINGS"'
    names = (*FILES, signing.MANIFEST, signing.SIGNATURE)
    return {
        "Name": target.name,
        "Platform": {"os": "linux", "architecture": target.architecture, **target.platform},
        "Lifecycle": {
            "Setenv": {"MODEL_SETTINGS": "{configuration:/model}"},
            "Startup": {"Script": offer, "Timeout": 120},
            "Shutdown": {"Script": f"{_SCRIPT} release {who}", "Timeout": 10},
            "Uninstall": {"Script": f"{_SCRIPT} withdraw {who}", "Timeout": 10},
        },
        "Artifacts": [{"URI": f"{_PLACE}/{target.name}/{name}"} for name in names],
    }
