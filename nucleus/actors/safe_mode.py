"""At launch: gives up a way back that takes the nucleus down again and again, and says what may start."""

from __future__ import annotations

import time

from nucleus.actors import standing
from nucleus.core import desired, errors, progress, safe_mode, status
from nucleus.host import logs
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments


def at_launch(
    records_store: deployments.DeploymentStore,
    store: configuration_store.ConfigurationStore,
    records: list[deployments.Record],
    log: logs.Log,
) -> frozenset[str]:
    """Names of the components that may start; call it after `standing.give_up_on_loops`, before any process starts.

    Raises NucleusError when the disk does not take the facts.
    """
    for record in records:
        if record.result is None and record.failure is not None and standing.is_rolled_back(store, record):
            record.returns += 1
            if record.returns >= safe_mode.MAX_RETURNS:
                _enter(store, record, log)
            records_store.save(record)
    if safe_mode.why(store.tree):
        store.commit(safe_mode.launched(store.tree, time.time(), store.now()))
    installed = desired.installed(store.tree)
    found = safe_mode.allowed(store.tree, installed, _good(records))
    if safe_mode.why(store.tree):
        held = ", ".join(sorted(set(installed) - found))
        log.error("nucleus.safe_mode", why=safe_mode.why(store.tree), started=", ".join(sorted(found)), held_back=held)
    return found


def leave(store: configuration_store.ConfigurationStore, record: deployments.Record, log: logs.Log) -> None:
    """After the end of a deployment: one that succeeded has started everything it wants."""
    if record.result is None or record.result.status != status.SUCCEEDED or not safe_mode.why(store.tree):
        return
    try:
        store.commit(safe_mode.left(store.now()))
    except errors.NucleusError as error:  # a full disk: it stays until the next one that succeeds
        log.error("nucleus.safe_mode_not_left", code=error.code, why=error.detail)


def _enter(store: configuration_store.ConfigurationStore, record: deployments.Record, log: logs.Log) -> None:
    assert record.failure is not None
    why = (
        f"{record.failure.cause}. The way back took the nucleus down {record.returns} times, too: SAFE_MODE, only the "
        "last good set of components starts; deploy something that works"
    )
    store.commit(safe_mode.entered(why, store.now()))
    record.result = status.failure(progress.Failed(record.failure.stack, why), "FAILED_UNABLE_TO_ROLLBACK")
    log.error("deployment.way_back_given_up", deployment=record.id, returns=record.returns)


def _good(records: list[deployments.Record]) -> dict[str, str]:
    """What the last deployment that succeeded resolved."""
    good = [one for one in records if one.result is not None and one.result.status == status.SUCCEEDED]
    return good[-1].resolved if good else {}
