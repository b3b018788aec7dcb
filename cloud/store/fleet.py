"""What devices report of themselves: core devices and their installed components, in and out.

`ingest` takes fleet-status messages; the questions answer in the shapes of the `greengrassv2` API (times are epoch
seconds). Effective deployments are in `cloud.store.effective`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import delete, insert, select, update

from cloud.core import executions, fleet_status, rollout
from cloud.store import effective, schema
from cloud.store import executions as execution_store

effective_deployments = effective.effective_deployments

_devices = schema.core_devices
_installed = schema.installed_components
_chunks = schema.status_chunks
_modes = schema.device_modes
_REASON_CHARS = 1000  # lifecycleStateDetails in the API's model


def ingest(tx: sqlalchemy.Connection, thing: str, payload: bytes, now_ms: int) -> str:
    """Takes one message of a device; returns why it changed nothing, or "".

    A COMPLETE message replaces the set of components, in parts only once all parts are there; a PARTIAL one adds and
    changes. What was seen already or was overtaken is dropped.
    """
    message = fleet_status.read(payload)
    if isinstance(message, fleet_status.Refused):
        return message.reason
    known = tx.execute(select(_devices).where(_devices.c.thing == thing)).first()
    if known is not None and not fleet_status.is_news(message, known.sequence, known.updated_ms):
        return f"fleet status {message.sequence_number} of {thing} is not newer than {known.sequence}"
    if message.message_type == fleet_status.COMPLETE and message.chunk().total_chunks > 1:
        whole = _collect(tx, thing, message, payload)
        if whole is None:
            return ""
        message = whole
    _save_device(tx, thing, message, now_ms, new=known is None)
    _save_components(tx, thing, message, message.timestamp or now_ms)
    _complete_execution(tx, thing, message)
    return ""


def core_devices(
    tx: sqlalchemy.Connection,
    *,
    group_arn: str | None = None,
    status: str | None = None,
    runtime: str | None = None,
    after: str = "",
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Core devices by name, those after `after`. With a group: that ever ended one of its deployments well."""
    query = select(_devices).where(_devices.c.thing > after)
    if status is not None:
        query = query.where(_devices.c.status == status)
    if runtime is not None:
        query = query.where(_devices.c.runtime == runtime)
    if group_arn is not None:
        jobs, deployments = schema.job_executions, schema.deployments
        ran = select(jobs.c.thing).join(deployments, deployments.c.id == jobs.c.deployment_id)
        ran = ran.where(deployments.c.target_arn == group_arn, jobs.c.status == "SUCCEEDED")
        query = query.where(_devices.c.thing.in_(ran))
    return [_summary(row) for row in tx.execute(query.order_by(_devices.c.thing).limit(limit))]


def core_device(tx: sqlalchemy.Connection, thing: str) -> dict[str, Any] | None:
    """One core device with its nucleus's version; None until its first message."""
    row = tx.execute(select(_devices).where(_devices.c.thing == thing)).first()
    return None if row is None else {**_summary(row), "coreVersion": row.core_version}


def modes(tx: sqlalchemy.Connection) -> list[dict[str, Any]]:
    """Devices in another mode than the usual one, by name."""
    rows = tx.execute(select(_modes).order_by(_modes.c.thing))
    return [{"thing": row.thing, "mode": row.mode, "reason": row.reason} for row in rows]


def forget(tx: sqlalchemy.Connection, thing: str) -> bool:
    """Removes a core device's record; its next message makes a new one. False if there is none."""
    tx.execute(delete(_installed).where(_installed.c.thing == thing))
    tx.execute(delete(_chunks).where(_chunks.c.thing == thing))
    tx.execute(delete(_modes).where(_modes.c.thing == thing))
    return tx.execute(delete(_devices).where(_devices.c.thing == thing)).rowcount > 0


def installed_components(tx: sqlalchemy.Connection, thing: str, *, roots_only: bool) -> list[dict[str, Any]]:
    """A device's components by name."""
    query = select(_installed).where(_installed.c.thing == thing)
    if roots_only:
        query = query.where(_installed.c.is_root.is_(True))
    return [_component(tx, row) for row in tx.execute(query.order_by(_installed.c.name)).all()]


def _collect(
    tx: sqlalchemy.Connection, thing: str, message: fleet_status.Message, payload: bytes
) -> fleet_status.Message | None:
    """Keeps a part; returns the whole when it was the last one missing, and forgets the parts then."""
    mine = (_chunks.c.thing == thing, _chunks.c.sequence == message.sequence_number)
    chunk_id = message.chunk().chunk_id
    # One message at a time: parts of another one will never be completed.
    tx.execute(delete(_chunks).where(_chunks.c.thing == thing, _chunks.c.sequence != message.sequence_number))
    tx.execute(delete(_chunks).where(*mine, _chunks.c.chunk == chunk_id))
    tx.execute(insert(_chunks).values(thing=thing, sequence=message.sequence_number, chunk=chunk_id, payload=payload))
    payloads = tx.execute(select(_chunks.c.payload).where(*mine).order_by(_chunks.c.chunk)).scalars()
    parts = [part for part in map(fleet_status.read, payloads) if isinstance(part, fleet_status.Message)]
    whole = fleet_status.assemble(parts)
    if whole is not None:
        tx.execute(delete(_chunks).where(*mine))
    return whole


def _save_device(
    tx: sqlalchemy.Connection, thing: str, message: fleet_status.Message, now_ms: int, *, new: bool
) -> None:
    values = {
        "core_version": message.ggc_version[:64],
        "platform": message.platform[:64],
        "architecture": message.architecture[:64],
        "runtime": message.runtime[:64],
        "status": message.overall_device_status[:16],
        "sequence": message.sequence_number,
        "updated_ms": message.timestamp or now_ms,
    }
    if new:
        tx.execute(insert(_devices).values(thing=thing, **values))
    else:
        tx.execute(update(_devices).where(_devices.c.thing == thing).values(values))
    _save_mode(tx, thing, message.marram)


def _save_mode(tx: sqlalchemy.Connection, thing: str, told: fleet_status.Extension | None) -> None:
    """Every message tells the mode; one without it says that the device works as usual."""
    tx.execute(delete(_modes).where(_modes.c.thing == thing))
    if told is not None and told.mode:
        tx.execute(insert(_modes).values(thing=thing, mode=told.mode[:32], reason=told.reason[:_REASON_CHARS]))


def _save_components(tx: sqlalchemy.Connection, thing: str, message: fleet_status.Message, at_ms: int) -> None:
    mine = _installed.c.thing == thing
    held = {row.name: row for row in tx.execute(select(_installed).where(mine))}
    listed = {one.component_name: one for one in message.components or () if len(one.component_name) <= 128}
    gone = {name for name, one in listed.items() if one.status == fleet_status.UNINSTALLED}
    if message.message_type == fleet_status.COMPLETE:
        gone |= held.keys() - listed.keys()
    for name in gone & held.keys():
        tx.execute(delete(_installed).where(mine, _installed.c.name == name))
    for name in listed.keys() - gone:
        values = _values(listed[name], at_ms)
        row = held.get(name)
        if row is None:
            tx.execute(insert(_installed).values(thing=thing, name=name, changed_ms=at_ms, **values))
            continue
        same = (row.version, row.state) == (values["version"], values["state"])
        values["changed_ms"] = row.changed_ms if same else at_ms
        tx.execute(update(_installed).where(mine, _installed.c.name == name).values(values))


def _values(one: fleet_status.Installed, at_ms: int) -> dict[str, Any]:
    details = one.component_status_details or fleet_status.StatusDetails()
    return {
        "version": one.version[:64],
        "state": one.status[:16],
        "state_details": (details.status_reason or "")[:_REASON_CHARS],
        "status_codes": msgspec.json.encode(details.status_codes or []).decode(),
        "is_root": one.is_root,
        "configuration_arns": msgspec.json.encode(one.fleet_config_arns or []).decode(),
        "reported_ms": at_ms,
    }


def _complete_execution(tx: sqlalchemy.Connection, thing: str, message: fleet_status.Message) -> None:
    """Fills in why a deployment ended as it did where the job's own update did not say (nucleus lite)."""
    reported = message.deployment_information
    if reported is None or not reported.deployment_id or not reported.status_details:
        return
    where = [reported.deployment_id]
    ended = execution_store.of_deployments(tx, where, ("SUCCEEDED", "FAILED", "REJECTED", *executions.PENDING))
    for one in ended:
        if one.thing == thing and not one.details:
            details = fleet_status.job_details(reported.status_details)
            execution_store.save(tx, [msgspec.structs.replace(one, details=details)])


def _summary(row: Any) -> dict[str, Any]:
    return {
        "coreDeviceThingName": row.thing,
        "status": row.status,
        "lastStatusUpdateTimestamp": row.updated_ms / 1000,
        "platform": row.platform,
        "architecture": row.architecture,
        "runtime": row.runtime,
    }


def _component(tx: sqlalchemy.Connection, row: Any) -> dict[str, Any]:
    return {
        "componentName": row.name,
        "componentVersion": row.version,
        "lifecycleState": row.state,
        "lifecycleStateDetails": row.state_details,
        "isRoot": row.is_root,
        "lastStatusChangeTimestamp": row.changed_ms / 1000,
        "lastReportedTimestamp": row.reported_ms / 1000,
        "lastInstallationSource": _source(tx, msgspec.json.decode(row.configuration_arns, type=list[str])),
        "lifecycleStatusCodes": msgspec.json.decode(row.status_codes),
    }


def _source(tx: sqlalchemy.Connection, arns: list[str]) -> str:
    """The deployment whose configuration is named first, or LOCAL."""
    named = rollout.configuration(arns[0]) if arns else None
    if named is None:
        return "LOCAL"
    table = schema.deployments
    where = (table.c.target_arn == named[0], table.c.revision == named[1])
    return str(tx.execute(select(table.c.id).where(*where)).scalar() or "LOCAL")
