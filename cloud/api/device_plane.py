"""What devices ask over mutual TLS (spec/cloud.md 2): candidates, artifacts, their thing groups.

The certificate's IoT policies decide, as on AWS: `greengrass:…` actions on component versions and core devices.
"""

from __future__ import annotations

import base64
from typing import Any

from msgspec import Struct

from cloud.api import authorisation, calls, components, errors, thing_groups
from cloud.core import candidates
from cloud.store import components as component_store
from nucleus.core import errors as nucleus_errors


class Platform(Struct, frozen=True):
    attributes: dict[str, str] = {}


class Wanted(Struct, frozen=True, rename="camel"):
    component_name: str
    version_requirements: dict[str, str] = {}


class ResolveBody(Struct, frozen=True, rename="camel"):
    """The body of ResolveComponentCandidates. `componentVersion` of a candidate is a hint that we need not take."""

    platform: Platform = Platform()
    component_candidates: tuple[Wanted, ...] = ()


def resolve(call: calls.Call) -> dict[str, Any]:
    """ResolveComponentCandidates: exactly one version for each candidate asked for."""
    body = call.read(ResolveBody)
    if not body.component_candidates:
        raise errors.validation("cannot resolve: componentCandidates is empty", [("componentCandidates", "is empty")])
    return {"resolvedComponentVersions": [_resolved(call, body.platform, one) for one in body.component_candidates]}


def artifact(call: calls.Call) -> dict[str, Any]:
    """GetComponentVersionArtifact."""
    name, number = components.split_arn(call, call.path["arn"])
    authorisation.require(call, "greengrass:GetComponentVersionArtifact", f"components:{name}:versions:{number}")
    return components.artifact(call)


def thing_groups_of(call: calls.Call) -> dict[str, Any]:
    """ListThingGroupsForCoreDevice, of the device itself only."""
    thing = call.path["thing"]
    assert call.device is not None  # the route says so
    if thing not in call.device.things:
        raise errors.denied(f"cannot list the thing groups of {thing}: this certificate does not speak for it")
    authorisation.require(call, "greengrass:ListThingGroupsForCoreDevice", f"coreDevices:{thing}")
    return thing_groups.of_core_device(call, thing)


def _resolved(call: calls.Call, platform: Platform, wanted: Wanted) -> dict[str, Any]:
    offers = component_store.offers(call.tx, wanted.component_name)
    try:
        chosen = candidates.select(wanted.component_name, wanted.version_requirements, platform.attributes, offers)
    except nucleus_errors.NucleusError as error:
        raise errors.validation(error.detail, [("versionRequirements", error.detail)]) from None
    if isinstance(chosen, candidates.Refusal):
        raise errors.not_found(chosen.message, wanted.component_name, "component")
    authorisation.require(
        call, "greengrass:ResolveComponentCandidates", f"components:{wanted.component_name}:versions:{chosen.version}"
    )
    return {
        "arn": chosen.arn,
        "componentName": wanted.component_name,
        "componentVersion": chosen.version,
        "recipe": base64.b64encode(chosen.recipe.encode()).decode(),
        "vendorGuidance": "ACTIVE",
    }
