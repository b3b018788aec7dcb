"""Where a deployment stands by the configuration itself: the leaf COMMITTED, written in the same atomic commits.

Its value is `<id>` (in force, not decided), `<id> settled` (decided, only its record does not say so yet) or
`<id> rolled back`. So a crash between two durable writes is never a guess.
"""

from __future__ import annotations

from collections.abc import Callable

from nucleus.core import configuration, desired, document, progress, stages, status, undo
from nucleus.host import launch, logs, process
from nucleus.store import configuration as configuration_store
from nucleus.store import deployments

MAX_ACTIVATIONS = 3  # the third launch that finds the same deployment undecided plans back (issue "The device core", e)
MAX_CAUSE = 2000  # characters of the loader's note that go into the cause
_ALWAYS_BACK = frozenset({"NUCLEUS_RESTART_FAILURE", "COMPONENT_BOOTSTRAP_ERROR", "COMPONENT_BOOTSTRAP_TIMEOUT"})
_SETTLED, _ROLLED_BACK = " settled", " rolled back"

Store = configuration_store.ConfigurationStore


def mark(store: Store, value: str) -> configuration.Change:
    """The leaf that says which deployment's changes are in force; part of the same atomic commit."""
    return configuration.Change(deployments.COMMITTED, value, store.now(), "nucleus")


def settled(store: Store, record: deployments.Record) -> configuration.Change:
    return mark(store, record.id + _SETTLED)


def is_committed(store: Store, record: deployments.Record) -> bool:
    """In force and not decided. A record that never saw its way back written cannot be: it was lost or came again.

    What takes another deployment back decides about that one's changes, as long as they are the last in force.
    """
    mine = record.regrets + _SETTLED if record.regrets else record.id
    return _marked(store) == mine and record.previous is not None


def is_rolled_back(store: Store, record: deployments.Record) -> bool:
    """On its way back: the configuration of before is in force again."""
    return _marked(store) == record.id + _ROLLED_BACK


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
    back = undo.still_ours(store.tree, record.undo)
    store.commit((*back, mark(store, record.id + _ROLLED_BACK)))


def must_return(record: deployments.Record) -> bool:
    """Failures that lead back whatever the policy says: with the new state the nucleus did not come up, or half of it
    was never committed (spec/nucleus.md 5.9: a snapshot always)."""
    return record.failure is not None and record.failure.stack[0] in _ALWAYS_BACK


def heed_panic(
    records_store: deployments.DeploymentStore,
    store: Store,
    records: list[deployments.Record],
    launches: launch.Launches,
    log: logs.Log,
) -> None:
    """At launch: the loader went back to this version of the nucleus, because the one of a deployment did not start."""
    note = launches.panic()
    if not note:
        return
    log.error("nucleus.went_back", note=note)
    for record in records:
        own = record.bootstrap.own
        if record.result is None and record.failure is None and own is not None and is_committed(store, record):
            cause = f"version {own.new} of the nucleus did not start, {own.old} runs again: {note}"
            record.failure = deployments.Failure(("NUCLEUS_RESTART_FAILURE",), cause[:MAX_CAUSE])
            records_store.save(record)
    launches.forget_panic()


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
        if record.failure is not None and (must_return(record) or record.document.failure_policy == document.ROLLBACK):
            roll_back_configuration(store, record)


def enter(
    records_store: deployments.DeploymentStore, record: deployments.Record
) -> Callable[[deployments.Record], None]:
    """Before anything is asked or fetched; durable, unless it was said already when it was accepted.

    Returns what keeps the record meanwhile.
    """
    if not record.stage:
        begin(record)
        records_store.save(record)
    return records_store.save


def begin(record: deployments.Record) -> None:
    record.stage, record.stage_boot = stages.PREPARATION, process.boot_id()


def give_up_before_commit(
    records_store: deployments.DeploymentStore, store: Store, records: list[deployments.Record], log: logs.Log
) -> None:
    """At launch, before any process starts: ends a deployment that kills the nucleus before it is in force.

    Raises NucleusError when the disk does not take it.
    """
    orderly = records_store.take_orderly()
    record = _at_work(store, records)
    if record is None:
        return
    known = stages.Reached(record.stage, record.stage_launches, record.stage_boot)
    found = stages.at_launch(
        known, bootstrapping=bool(record.bootstrap.forward), orderly=orderly, boot=process.boot_id()
    )
    if found == known:
        return
    record.stage, record.stage_launches, record.stage_boot = found.stage, found.launches, found.boot
    why = stages.why_given_up(found)
    if why:
        log.error("deployment.given_up", deployment=record.id, stage=found.stage, launches=found.launches)
        failed = deployments.Failure(("NUCLEUS_RESTART_FAILURE",), why)
        if found.stage == stages.BOOTSTRAP:
            record.failure = failed  # the steps that ran lead back
        else:
            record.result = status.failure(progress.Failed(failed.stack, why), "FAILED_NO_STATE_CHANGE")
    records_store.save(record)


def _at_work(store: Store, records: list[deployments.Record]) -> deployments.Record | None:
    """The one that was carried out before its commit; a local one overtakes what waits for the network."""
    open_ones = [one for one in records if one.result is None]
    if any(is_committed(store, one) or is_rolled_back(store, one) or is_settled(store, one) for one in open_ones):
        return None  # one that is in force, on its way back, or decided
    begun = [one for one in open_ones if one.stage and one.failure is None]
    return min(begun, key=lambda one: one.source != deployments.LOCAL, default=None)


def again(known: deployments.Record, record: deployments.Record) -> bool:
    """Whether a job that has ended here shall run again: queued anew (back in its group), or not cancelled after all."""
    if known.result is None or record.source != deployments.JOB:
        return False
    return known.queued_ms != record.queued_ms or known.result.status == status.CANCELED


def stale(store: Store, record: deployments.Record) -> status.Result | None:
    """A revision older than the last processed one of its group is refused (spec/nucleus.md 5.6)."""
    newest = desired.last_created_ms(store.tree, record.document.group)
    if record.source == deployments.LOCAL or record.document.created_ms >= newest:
        return None
    cause = f"{record.document.group} was created before a deployment of that group that is already processed"
    return status.rejected("REJECTED_STALE_DEPLOYMENT", cause)


def _marked(store: Store) -> str:
    try:
        return str(configuration.get(store.tree, deployments.COMMITTED))
    except KeyError:
        return ""
