"""What a release of the nucleus checks before it is trusted with a root: imports, TLS, and that it can read the store.

Run by the release that is to be replaced, beside its own running daemon: so nothing here writes, repairs or connects.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from awscrt import io

from nucleus import app, settings
from nucleus.core import configuration, desired, errors, release
from nucleus.host import journal, places
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments


def run(root: Path) -> tuple[str, ...]:
    """Sentences on what works. Raises NucleusError for the first thing that does not."""
    where = places.Places(root)
    found = settings.read(root / "config.yaml", root)
    said = [f"imports: {app.__name__} and everything it needs", "configuration file: readable"]
    said.append(_tls(found.cloud))
    said.append(_store(where))
    return (*said, release.VERSION)


def _tls(cloud: settings.Cloud | None) -> str:
    if cloud is None:
        io.ClientTlsContext(io.TlsContextOptions())
        return "TLS: a client context"
    try:
        options = io.TlsContextOptions.create_client_with_mtls_from_path(str(cloud.certificate), str(cloud.private_key))
        options.override_default_trust_store_from_path(None, str(cloud.root_ca))
        io.ClientTlsContext(options)
    except (RuntimeError, ValueError, OSError) as error:
        why = f"cannot make a TLS context from {cloud.certificate}: {error}"
        raise errors.NucleusError("TLS_HANDSHAKE_FAILURE", why) from error
    return "TLS: a client context with this device's certificate"


def _store(where: places.Places) -> str:
    """Records and journal as they are on disk, whoever may be writing them."""
    tree, unknown = configuration_store.read(journal.read(configuration_store.path(where.config)))
    components = desired.installed(tree)
    if unknown:
        why = f"cannot read {unknown} records of the configuration: they are not changes as this release knows them"
        raise errors.NucleusError("IO_READ_ERROR", why)
    records = 0
    for path in sorted(where.deployments.glob("*/record.json")):
        try:
            msgspec.json.decode(path.read_bytes(), type=deployments.Record)
        except (OSError, ValueError) as error:
            raise errors.NucleusError("IO_READ_ERROR", f"cannot read {path}: {error}") from error
        records += 1
    leaves = sum(1 for _ in configuration.leaves(tree))
    return f"store: {leaves} values of configuration, {len(components)} components, {records} deployments"
