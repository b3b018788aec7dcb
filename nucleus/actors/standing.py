"""Where a deployment stands by the configuration itself: the leaf COMMITTED, written in the same atomic commits.

Its value is `<id>` (in force, not decided), `<id> settled` (decided, only its record does not say so yet) or
`<id> rolled back`. So a crash between two durable writes is never a guess.
"""

from __future__ import annotations

from nucleus.core import configuration, desired, document
from nucleus.host import logs
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments

MAX_ACTIVATIONS = 3  # the third launch that finds the same deployment undecided plans back (issue "The device core", e)
_SETTLED, _ROLLED_BACK = " settled", " rolled back"

Store = configuration_store.ConfigurationStore


def mark(store: Store, value: str) -> configuration.Change:
    """The leaf that says which deployment's changes are in force; part of the same atomic commit."""
    return configuration.Change(deployments.COMMITTED, value, store.now(), "nucleus")


def settled(store: Store, record: deployments.Record) -> configuration.Change:
    return mark(store, record.id + _SETTLED)


def is_committed(store: Store, record: deployments.Record) -> bool:
    """In force and not decided. A record that never saw its way back written cannot be: it was lost or came again."""
    return _marked(store) == record.id and record.previous is not None


def is_settled(store: Store, record: deployments.Record) -> bool:
    return _marked(store) == record.id + _SETTLED


def forget(store: Store, record: deployments.Record) -> None:
    """Before a deployment is accepted that was here before (its record was lost, or it shall run again)."""
    if _marked(store) in (record.id, record.id + _SETTLED, record.id + _ROLLED_BACK):
        store.commit((mark(store, ""),))


def roll_back_configuration(store: Store, record: deployments.Record) -> None:
    """Restores every key that the deployment wrote, unless a component has written it since; twice changes nothing."""
    if not is_committed(store, record):
        return
    back = desired.still_ours(store.tree, record.undo)
    store.commit((*back, mark(store, record.id + _ROLLED_BACK)))


def give_up_on_loops(
    records_store: deployments.DeploymentStore, store: Store, records: list[deployments.Record], log: logs.Log
) -> None:
    """At launch, before any process starts: counts activations and plans back a deployment that kills the nucleus.

    Raises NucleusError when the disk does not take it: nothing is rolled back then.
    """
    for record in records:
        if record.result is not None or not is_committed(store, record):
            continue
        record.activations += 1
        if record.activations >= MAX_ACTIVATIONS and record.failure is None:
            why = f"the nucleus was started {record.activations} times without reaching the end of this deployment"
            record.failure = deployments.Failure(("NUCLEUS_RESTART_FAILURE",), why)
            log.error("deployment.given_up", deployment=record.id, activations=record.activations)
        records_store.save(record)
        if record.failure is not None and record.document.failure_policy == document.ROLLBACK:
            roll_back_configuration(store, record)


def _marked(store: Store) -> str:
    try:
        return str(configuration.get(store.tree, deployments.COMMITTED))
    except KeyError:
        return ""
