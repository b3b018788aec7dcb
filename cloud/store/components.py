"""The registry of component versions and their artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from msgspec import Struct
from sqlalchemy import Connection, RowMapping

from cloud.core import candidates
from cloud.store import schema
from nucleus.core import version

DEPLOYABLE = "DEPLOYABLE"


class Artifact(Struct, frozen=True):
    """`id` is the base64url SHA-256 without padding, `digest` the base64 SHA-256 (design.md 4.6, row 19)."""

    id: str
    file: str
    size: int
    digest: str


def get(tx: Connection, name: str, component_version: str) -> RowMapping | None:
    t = schema.components
    query = sql.select(t).where(t.c.name == name, t.c.version == component_version)
    return tx.execute(query).mappings().one_or_none()


def add(tx: Connection, row: Mapping[str, Any], artifacts: Sequence[Artifact]) -> None:
    """Inserts a version; the caller has made sure that it is new. The same bytes under one name count once."""
    tx.execute(schema.components.insert().values(**row))
    for artifact in dict.fromkeys(artifacts):
        values = {"component": row["name"], "version": row["version"], "artifact_id": artifact.id}
        more = {"file": artifact.file, "size": artifact.size, "digest": artifact.digest}
        tx.execute(schema.artifacts.insert().values(values | more))


def delete(tx: Connection, name: str, component_version: str) -> None:
    a, c = schema.artifacts, schema.components
    tx.execute(a.delete().where(a.c.component == name, a.c.version == component_version))
    tx.execute(c.delete().where(c.c.name == name, c.c.version == component_version))


def names(tx: Connection, after: str, limit: int) -> list[str]:
    t = schema.components
    query = sql.select(t.c.name).distinct().where(t.c.name > after).order_by(t.c.name).limit(limit)
    return list(tx.execute(query).scalars())


def versions(tx: Connection, name: str) -> list[RowMapping]:
    """All versions of a component, the greatest first."""
    t = schema.components
    rows = tx.execute(sql.select(t).where(t.c.name == name)).mappings().all()
    return sorted(rows, key=lambda row: version.Version.parse(row["version"]), reverse=True)


def offers(tx: Connection, name: str) -> list[candidates.Offer]:
    """What devices may be given of a component."""
    t = schema.components
    query = sql.select(t.c.version, t.c.arn, t.c.device_recipe).where(t.c.name == name, t.c.state == DEPLOYABLE)
    return [candidates.Offer(*row) for row in tx.execute(query)]


def held(tx: Connection, wanted: Mapping[str, str]) -> set[tuple[str, str]]:
    """Which of the wanted versions (by component name) are in the registry."""
    t = schema.components
    query = sql.select(t.c.name, t.c.version).where(t.c.name.in_(list(wanted)), t.c.state == DEPLOYABLE)
    return {(name, number) for name, number in tx.execute(query) if wanted[name] == number}


def artifact(tx: Connection, name: str, component_version: str, artifact_id: str, file: str) -> RowMapping | None:
    t = schema.artifacts
    query = sql.select(t).where(t.c.component == name, t.c.version == component_version)
    query = query.where(t.c.artifact_id == artifact_id, t.c.file == file)
    return tx.execute(query).mappings().one_or_none()
