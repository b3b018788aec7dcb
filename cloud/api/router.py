"""ONE table of routes: who may call, how a request looks, which function answers.

An operator's call is dispatched on the scope of its signature (spec/cloud.md 1.8), a device's on its certificate. In a
template `{name}` is one encoded segment, `{name+}` the rest of the path; `query` must be among the parameters.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from urllib import parse

import msgspec
from msgspec import Struct

from cloud.api import (
    calls,
    certificates,
    client_devices,
    components,
    core_devices,
    deployments,
    device_modes,
    device_plane,
    downloads,
    endpoints,
    multipart,
    policies,
    progress,
    provisioning,
    renewal,
    role_aliases,
    s3,
    sts,
    tags,
    thing_groups,
    things,
)
from cloud.objects import files


class Access(enum.Enum):
    """What a call must bring. The operators' values are the service names of SigV4 scopes."""

    GREENGRASS = "greengrass"
    IOT = "iot"
    STS = "sts"
    S3 = "s3"
    OPEN = "open"  # nothing
    DEVICE = "device"  # a device's certificate
    PRESIGNED = "presigned"  # a signed URL, without certificate


class Route(Struct, frozen=True):
    """`streams`: the body is an upload of any length, received before the function is called.
    `writes`: a device's call that changes something; an operator's does unless it is a GET or HEAD.

    `gather` makes a stored object of others first, outside the transaction, for it may take long.
    """

    access: Access
    method: str
    template: str
    operation: calls.Operation
    status: int = 200
    query: str = ""
    streams: bool = False
    writes: bool = False
    gather: Callable[[calls.Call], files.Stored] | None = None


class Match(Struct, frozen=True):
    route: Route
    path: Mapping[str, str]


_GG = "/greengrass/v2"
_COMPONENT = _GG + "/components/{arn}"
_DEPLOYMENT = _GG + "/deployments/{deploymentId}"
_CORE = _GG + "/coreDevices/{thing}"
_THING = "/things/{thingName}"
_GROUP = "/thing-groups/{thingGroupName}"
_CERTIFICATE = "/certificates/{certificateId}"
_TEMPLATE = "/provisioning-templates/{templateName}"
_ROLE_ALIAS = "/role-aliases/{roleAlias}"
_OBJECT = "/{bucket}/{key+}"

TABLE: tuple[Route, ...] = (
    Route(Access.OPEN, "GET", "/marram/v1/ca", endpoints.ca),
    Route(Access.OPEN, "GET", "/marram/v1/endpoints", endpoints.all_of_them),
    Route(Access.GREENGRASS, "GET", "/marram/v1/deployments/{deploymentId}/devices", progress.devices),
    Route(Access.GREENGRASS, "GET", "/marram/v1/deviceModes", device_modes.listed),
    # --- greengrassv2: components
    Route(Access.GREENGRASS, "POST", _GG + "/createComponentVersion", components.create, 201),
    Route(Access.GREENGRASS, "GET", _GG + "/components", components.listed),
    Route(Access.GREENGRASS, "GET", _COMPONENT, components.get),
    Route(Access.GREENGRASS, "DELETE", _COMPONENT, components.delete, 204),
    Route(Access.GREENGRASS, "GET", _COMPONENT + "/metadata", components.describe),
    Route(Access.GREENGRASS, "GET", _COMPONENT + "/versions", components.versions),
    Route(Access.GREENGRASS, "GET", _COMPONENT + "/artifacts/{artifactName+}", components.artifact),
    # --- greengrassv2: deployments
    Route(Access.GREENGRASS, "POST", _GG + "/deployments", deployments.create, 201),
    Route(Access.GREENGRASS, "GET", _GG + "/deployments", deployments.listed),
    Route(Access.GREENGRASS, "GET", _DEPLOYMENT, deployments.get),
    Route(Access.GREENGRASS, "DELETE", _DEPLOYMENT, deployments.delete, 204),
    Route(Access.GREENGRASS, "POST", _DEPLOYMENT + "/cancel", deployments.cancel),
    # --- greengrassv2: core devices
    Route(Access.GREENGRASS, "GET", _GG + "/coreDevices", core_devices.listed),
    Route(Access.GREENGRASS, "GET", _CORE, core_devices.get),
    Route(Access.GREENGRASS, "DELETE", _CORE, core_devices.delete, 204),
    Route(Access.GREENGRASS, "GET", _CORE + "/effectiveDeployments", core_devices.effective_deployments),
    Route(Access.GREENGRASS, "GET", _CORE + "/installedComponents", core_devices.installed_components),
    # --- greengrassv2: tags
    Route(Access.GREENGRASS, "GET", "/tags/{resourceArn+}", tags.listed),
    Route(Access.GREENGRASS, "POST", "/tags/{resourceArn+}", tags.add),
    Route(Access.GREENGRASS, "DELETE", "/tags/{resourceArn+}", tags.remove),
    # --- iot: things
    Route(Access.IOT, "GET", "/things", things.listed),
    Route(Access.IOT, "POST", _THING, things.create),
    Route(Access.IOT, "GET", _THING, things.describe),
    Route(Access.IOT, "PATCH", _THING, things.update),
    Route(Access.IOT, "DELETE", _THING, things.delete),
    Route(Access.IOT, "PUT", _THING + "/principals", things.attach_principal),
    Route(Access.IOT, "DELETE", _THING + "/principals", things.detach_principal),
    Route(Access.IOT, "GET", _THING + "/principals", things.principals_of),
    Route(Access.IOT, "GET", "/principals/things", things.of_principal),
    # --- iot: thing groups
    Route(Access.IOT, "PUT", "/thing-groups/addThingToThingGroup", thing_groups.add_thing),
    Route(Access.IOT, "PUT", "/thing-groups/removeThingFromThingGroup", thing_groups.remove_thing),
    Route(Access.IOT, "GET", "/thing-groups", thing_groups.listed),
    Route(Access.IOT, "POST", _GROUP, thing_groups.create),
    Route(Access.IOT, "GET", _GROUP, thing_groups.describe),
    Route(Access.IOT, "DELETE", _GROUP, thing_groups.delete),
    Route(Access.IOT, "GET", _GROUP + "/things", thing_groups.members),
    Route(Access.IOT, "GET", _THING + "/thing-groups", thing_groups.of_thing),
    # --- iot: certificates and policies
    Route(Access.IOT, "POST", "/keys-and-certificate", certificates.create),
    Route(Access.IOT, "GET", "/certificates", certificates.listed),
    Route(Access.IOT, "GET", _CERTIFICATE, certificates.describe),
    Route(Access.IOT, "PUT", _CERTIFICATE, certificates.update),
    Route(Access.IOT, "DELETE", _CERTIFICATE, certificates.delete),
    Route(Access.IOT, "GET", "/policies", policies.listed),
    Route(Access.IOT, "POST", "/policies/{policyName}", policies.create),
    Route(Access.IOT, "GET", "/policies/{policyName}", policies.get),
    Route(Access.IOT, "DELETE", "/policies/{policyName}", policies.delete),
    Route(Access.IOT, "PUT", "/target-policies/{policyName}", policies.attach),
    Route(Access.IOT, "POST", "/target-policies/{policyName}", policies.detach),
    Route(Access.IOT, "POST", "/attached-policies/{target+}", policies.attached),
    Route(Access.IOT, "POST", "/policy-targets/{policyName}", policies.targets),
    Route(Access.IOT, "GET", "/endpoint", endpoints.describe),
    # --- iot: role aliases
    Route(Access.IOT, "GET", "/role-aliases", role_aliases.listed),
    Route(Access.IOT, "POST", _ROLE_ALIAS, role_aliases.create),
    Route(Access.IOT, "GET", _ROLE_ALIAS, role_aliases.describe),
    Route(Access.IOT, "PUT", _ROLE_ALIAS, role_aliases.update),
    Route(Access.IOT, "DELETE", _ROLE_ALIAS, role_aliases.delete),
    # --- iot: fleet provisioning
    Route(Access.IOT, "GET", "/provisioning-templates", provisioning.listed),
    Route(Access.IOT, "POST", "/provisioning-templates", provisioning.create),
    Route(Access.IOT, "GET", _TEMPLATE, provisioning.describe),
    Route(Access.IOT, "PATCH", _TEMPLATE, provisioning.update),
    Route(Access.IOT, "DELETE", _TEMPLATE, provisioning.delete),
    Route(Access.IOT, "POST", _TEMPLATE + "/provisioning-claim", provisioning.claim),
    # --- sts
    Route(Access.STS, "POST", "/", sts.act),
    Route(Access.STS, "GET", "/", sts.act),
    # --- s3
    Route(Access.S3, "GET", "/", s3.buckets),
    Route(Access.S3, "GET", "/{bucket}", s3.location, query="location"),
    Route(Access.S3, "GET", "/{bucket}", s3.listed, query="list-type"),
    Route(Access.S3, "PUT", "/{bucket}", s3.create_bucket),
    Route(Access.S3, "HEAD", "/{bucket}", s3.head_bucket),
    Route(Access.S3, "POST", _OBJECT, multipart.create, query="uploads"),
    Route(Access.S3, "PUT", _OBJECT, multipart.put, query="partNumber", streams=True),
    Route(Access.S3, "POST", _OBJECT, multipart.complete, query="uploadId", gather=multipart.join),
    Route(Access.S3, "DELETE", _OBJECT, multipart.abort, query="uploadId"),
    Route(Access.S3, "PUT", _OBJECT, s3.put, streams=True),
    Route(Access.S3, "GET", _OBJECT, s3.get),
    Route(Access.S3, "HEAD", _OBJECT, s3.head),
    Route(Access.S3, "DELETE", _OBJECT, s3.delete, 204),
    # --- the device server
    Route(Access.PRESIGNED, "GET", downloads.PREFIX + "/{artifactId}/{file}", downloads.get),
    Route(Access.DEVICE, "POST", _GG + "/resolveComponentCandidates", device_plane.resolve),
    Route(Access.DEVICE, "GET", _COMPONENT + "/artifacts/{artifactName+}", device_plane.artifact),
    Route(Access.DEVICE, "GET", _CORE + "/thingGroups", device_plane.thing_groups_of),
    Route(Access.DEVICE, "POST", "/marram/v1/certificates/renew", renewal.renew, writes=True),
    Route(Access.DEVICE, "POST", "/marram/v1/certificates/confirm", renewal.confirm, writes=True),
    Route(Access.DEVICE, "POST", "/marram/v1/client-devices/verify", client_devices.verify),
    Route(Access.DEVICE, "GET", _ROLE_ALIAS + "/credentials", role_aliases.credentials, writes=True),
)


def find(access: Access, method: str, raw_path: str, query: Mapping[str, object]) -> Match | None:
    """The first route of the table that fits an encoded path."""
    for route, pattern in _COMPILED.get((access, method), ()):
        found = pattern.fullmatch(raw_path)
        if found is not None and (not route.query or route.query in query):
            return Match(route, {name: parse.unquote(value) for name, value in found.groupdict().items()})
    return None


def perform(route: Route, call: calls.Call) -> calls.Answer:
    """Calls the route's function; a plain value becomes compact JSON, as devices with small buffers want it."""
    given = route.operation(call)
    if isinstance(given, calls.Answer):
        return given
    if given is None:
        return calls.Answer(route.status)
    return calls.Answer(route.status, {"content-type": "application/json"}, msgspec.json.encode(given))


def _compile(template: str) -> re.Pattern[str]:
    """Slashes at the end are no part of a bucket's or resource's name."""
    text = re.sub(r"\{(\w+)\\\+\}", r"(?P<\1>.+)", re.escape(template).replace(r"\{", "{").replace(r"\}", "}"))
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text) + "/?")


_COMPILED: dict[tuple[Access, str], tuple[tuple[Route, re.Pattern[str]], ...]] = {
    key: tuple((route, _compile(route.template)) for route in TABLE if (route.access, route.method) == key)
    for key in {(route.access, route.method) for route in TABLE}
}
