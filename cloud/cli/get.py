"""`marram get …`: lists of what the service knows, for people or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cloud.cli import session as sessions
from cloud.cli import targets
from nucleus.cli import exits, output


@click.command()
@click.option("-g", "--group", default="", help="Only devices that a deployment to this group reached.")
@click.option("--status", type=click.Choice(["HEALTHY", "UNHEALTHY"]), help="Only devices with this status.")
@sessions.option
@output.option
def devices(group: str, status: str | None, root: Path | None, output_: str) -> None:
    """Lists core devices: those that reported at least once."""
    session = sessions.open_session(root)
    query = {"thingGroupArn": targets.arn(session, group)} if group else {}
    query |= {"status": status} if status else {}
    modes = _modes(session)
    found = [
        {**one, **{key: modes.get(one["coreDeviceThingName"], {}).get(key, "") for key in ("mode", "reason")}}
        for one in _all(session, "list_core_devices", "coreDevices", query)
    ]
    columns = {
        "DEVICE": "coreDeviceThingName",
        "STATUS": "status",
        "LAST REPORT": "lastStatusUpdateTimestamp",
        "PLATFORM": "platform",
        "ARCHITECTURE": "architecture",
        "MODE": "mode",
        "REASON": "reason",
    }
    output.show("devices", found, columns, output_)


@click.command()
@click.option("--device", default="", help="The device whose components to list; without one, the published ones.")
@sessions.option
@output.option
def components(device: str, root: Path | None, output_: str) -> None:
    """Lists the components on a device as it last reported them, or the published ones with their newest version."""
    session = sessions.open_session(root)
    if not device:
        published = _all(session, "list_components", "components", {})
        columns = {"COMPONENT": "componentName", "NEWEST": "latestVersion.componentVersion", "ARN": "arn"}
        output.show("components", published, columns, output_)
        return
    query = {"coreDeviceThingName": device, "topologyFilter": "ALL"}
    found = _all(session, "list_installed_components", "installedComponents", query)
    columns = {
        "COMPONENT": "componentName",
        "VERSION": "componentVersion",
        "STATE": "lifecycleState",
        "ROOT": "isRoot",
        "SINCE": "lastStatusChangeTimestamp",
        "DETAILS": "lifecycleStateDetails",
    }
    output.show("installedComponents", found, columns, output_)


@click.command()
@click.option("-t", "--target", default="", help="Only those of this GROUP or thing:NAME.")
@click.option("--latest", is_flag=True, help="Only the newest of each target.")
@sessions.option
@output.option
def deployments(target: str, latest: bool, root: Path | None, output_: str) -> None:
    """Lists deployments, newest first."""
    session = sessions.open_session(root)
    query = {"historyFilter": "LATEST_ONLY" if latest else "ALL"}
    query |= {"targetArn": targets.arn(session, target)} if target else {}
    found = _all(session, "list_deployments", "deployments", query)
    columns = {
        "DEPLOYMENT": "deploymentId",
        "TARGET": "target",
        "REVISION": "revisionId",
        "STATUS": "deploymentStatus",
        "CREATED": "creationTimestamp",
        "NAME": "deploymentName",
    }
    named = [{**one, "target": targets.short(one["targetArn"])} for one in found]
    output.show("deployments", named, columns, output_)


@click.command()
@click.option("--device", required=True, help="The device.")
@sessions.option
@output.option
def effective(device: str, root: Path | None, output_: str) -> None:
    """Lists the deployments that a device was sent, and what became of them."""
    session = sessions.open_session(root)
    query = {"coreDeviceThingName": device}
    found = _all(session, "list_effective_deployments", "effectiveDeployments", query)
    columns = {
        "DEPLOYMENT": "deploymentId",
        "TARGET": "target",
        "RESULT": "coreDeviceExecutionStatus",
        "CHANGED": "modifiedTimestamp",
        "REASON": "reason",
    }
    named = [{**one, "target": targets.short(one["targetArn"])} for one in found]
    output.show("effectiveDeployments", named, columns, output_)


@click.command()
@sessions.option
@output.option
def groups(root: Path | None, output_: str) -> None:
    """Lists thing groups."""
    session = sessions.open_session(root)
    found = _all(session, "list_thing_groups", "thingGroups", {}, service="iot")
    output.show("groups", found, {"GROUP": "groupName", "ARN": "groupArn"}, output_)


@click.command()
@click.option("-g", "--group", default="", help="Only the members of this group.")
@sessions.option
@output.option
def things(group: str, root: Path | None, output_: str) -> None:
    """Lists things."""
    session = sessions.open_session(root)
    if group:
        names = _all(session, "list_things_in_thing_group", "things", {"thingGroupName": group}, service="iot")
        output.show("things", [{"thingName": name} for name in names], {"THING": "thingName"}, output_)
        return
    found = _all(session, "list_things", "things", {}, service="iot")
    output.show("things", found, {"THING": "thingName", "ARN": "thingArn"}, output_)


def _modes(session: sessions.Session) -> dict[str, dict[str, str]]:
    """Devices in SAFE_MODE; none where the service does not know our own routes (AWS)."""
    try:
        return {one["thing"]: one for one in session.get("/marram/v1/deviceModes")["devices"]}
    except exits.Failure:
        return {}


def _all(session: sessions.Session, operation: str, key: str, query: dict[str, Any], *, service: str = "") -> list[Any]:
    """All pages of a list operation."""
    client = session.client(service or "greengrassv2")
    pages = client.get_paginator(operation).paginate(**query)
    return [one for page in pages for one in page[key]]
