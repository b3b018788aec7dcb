"""Everything a deployment needs before anything is changed: groups, resolved components, their artifacts.

An answer that the cloud cannot give now is asked for again until the deployment's deadline, always saying what is waited
for (the original retries silently and for ever: nucleus issue 1312).
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from nucleus.actors import patience, trust
from nucleus.core import admission, builtin, configuration, desired, document, errors, negotiate, recipe
from nucleus.host import logs, places, users
from nucleus.store import components, deployments
from nucleus.uplink import artifacts, dataplane

Say = Callable[[str], None]

LOCAL_ONCE_S = 5.0
DOWNLOADS_AT_ONCE = 4


class Ready(Struct, frozen=True):
    """Resolved components, dependencies first, with every artifact in the store."""

    resolved: dict[str, negotiate.Candidate]


class Preparation:
    """Asks and fetches for deployments. `plane` and `fetcher` are None on a device without a cloud."""

    def __init__(
        self,
        *,
        where: places.Places,
        device: desired.Device,
        store: components.ComponentStore,
        plane: dataplane.DataPlane | None,
        fetcher: artifacts.Artifacts | None,
        tree: Callable[[], configuration.Tree],
        log: logs.Log,
        local_once_s: float = LOCAL_ONCE_S,
    ) -> None:
        self._local_once_s = local_once_s
        self._trust = trust.Trust(where.root, store, device.platform, log)
        self._places = where
        self._device = device
        self._store = store
        self._plane = plane
        self.fetcher = fetcher
        self._tree = tree
        self._log = log
        self._waits = patience.Waits()

    def is_unanswered(self, deployment_id: str) -> bool:
        """Whether this deployment waits for a network that does not answer; nothing has changed by then."""
        return self._waits.unanswered[deployment_id] > 0

    @property
    def fault_file(self) -> Path:
        return self._places.root / "fault"

    @property
    def platform(self) -> dict[str, str]:
        return self._device.platform

    def over(self, store: components.ComponentStore) -> Preparation:
        """The same with another store of recipes, for a trial: it resolves and composes, and downloads nothing."""
        trial = copy.copy(self)
        trial._store = store
        trial.fetcher = None
        return trial

    async def prepare(
        self, record: deployments.Record, say: Say, cancelled: asyncio.Event, keep: patience.Keep | None = None
    ) -> Ready:
        """Raises NucleusError; everything done so far (answers, downloads) is kept for the next try, also after a restart."""
        retry = patience.Patience(record, say, cancelled, self._local_once_s, keep, self._waits)
        resolved = await self._resolve(record, retry, say)
        limit = asyncio.Semaphore(DOWNLOADS_AT_ONCE)
        say("downloading artifacts")
        async with patience.first_error(asyncio.TaskGroup()) as group:
            for one in resolved.values():
                group.create_task(self._fetch(one, retry, limit))
        await self._trust.check(resolved, desired.installed(self._tree()))
        return Ready(resolved)

    async def resolve(
        self, record: deployments.Record, say: Say, cancelled: asyncio.Event
    ) -> dict[str, negotiate.Candidate]:
        """The components and versions of a deployment, dependencies first; notes the device's groups in the record."""
        return await self._resolve(record, patience.Patience(record, say, cancelled, self._local_once_s), say)

    async def _resolve(
        self, record: deployments.Record, retry: patience.Patience, say: Say
    ) -> dict[str, negotiate.Candidate]:
        missing = sorted(set(record.document.capabilities) - document.CAPABILITIES)
        if missing:
            raise errors.NucleusError(
                "NUCLEUS_MISSING_REQUIRED_CAPABILITIES",
                f"cannot deploy {record.id}: this nucleus has no {', '.join(missing)}",
            )
        others = desired.roots(self._tree()).keys() - {record.document.group, document.LOCAL_GROUP}
        if others:  # membership decides whose roots count
            record.groups = await self._groups(record, retry)
            return await self._negotiate(record, retry, say)
        async with patience.first_error(asyncio.TaskGroup()) as group:  # a round trip less over a slow link
            groups = group.create_task(self._groups(record, retry))
            resolved = group.create_task(self._negotiate(record, retry, say))
        record.groups = groups.result()
        return resolved.result()

    def compose(
        self, record: deployments.Record, ready: Ready, tree: configuration.Tree, stamp: int, *, astray: bool = False
    ) -> desired.Desired:
        """Raises NucleusError; among others RUN_WITH_CONFIG_NOT_VALID for a user that this device does not have."""
        _check_users(record.document)
        paths = {name: self._paths(name, one.version) for name, one in ready.resolved.items()}
        return desired.compose(ready.resolved, record.document, tree, paths, self._device, stamp=stamp, astray=astray)

    def left_groups(self, record: deployments.Record, tree: configuration.Tree) -> frozenset[str]:
        """Groups with roots on this device that it has left; unknown membership keeps all (spec/nucleus.md 5.7)."""
        if record.groups is None:
            return frozenset()
        current = {f"thinggroup/{name}" for name in record.groups} | {record.document.group}
        return frozenset(
            group for group in desired.roots(tree) if group.startswith("thinggroup/") and group not in current
        )

    async def _groups(self, record: deployments.Record, retry: patience.Patience) -> tuple[str, ...] | None:
        plane = self._plane
        if plane is None:
            return None
        try:
            if record.source == deployments.LOCAL:
                return tuple(sorted(await retry.once(plane.thing_groups)))
            return tuple(sorted(await retry.until_answered(plane.thing_groups, "this device's thing groups")))
        except errors.NucleusError as error:
            if record.source != deployments.LOCAL and error.code != "ACCESS_DENIED":
                raise
            self._log.warning("groups.unknown", why=error.detail)
            return None

    def roots(self, record: deployments.Record) -> dict[str, dict[str, str]]:
        """The deployment's own group first, then every other group the device still belongs to."""
        leaving = self.left_groups(record, self._tree())
        wanted = record.document
        found = {wanted.group: {name: wish.version for name, wish in wanted.components.items()}}
        for group, members in desired.roots(self._tree()).items():
            if group != wanted.group and group not in leaving:
                found[group] = members
        return found

    async def _negotiate(
        self, record: deployments.Record, retry: patience.Patience, say: Say
    ) -> dict[str, negotiate.Candidate]:
        state = negotiate.begin(self.roots(record))
        answers: dict[negotiate.Ask, negotiate.Candidate | None] = {**patience.answered(record, self._store)}
        refusals: dict[negotiate.Ask | None, errors.NucleusError] = {}
        while True:
            step = negotiate.step(state, answers)
            if isinstance(step, negotiate.Conflict):
                code, detail = step.code, f"cannot deploy {record.id}: {step.detail}"
                raise refusals.get(step.ask) or errors.NucleusError(code, detail)
            if isinstance(step, negotiate.Resolved):
                admission.check(step.components, record.document.components, self._device.platform)
                return {name: step.components[name] for name in step.order}
            asks = sorted(step.asks, key=lambda ask: ask.name)
            say(f"resolving {', '.join(ask.name for ask in asks)}")
            async with patience.first_error(asyncio.TaskGroup()) as group:
                tasks = {ask: group.create_task(self._answer(ask, retry, refusals)) for ask in asks}
            answers |= {ask: task.result() for ask, task in tasks.items()}
            retry.keep_answers()

    async def _answer(
        self, ask: negotiate.Ask, retry: patience.Patience, refusals: dict[negotiate.Ask | None, errors.NucleusError]
    ) -> negotiate.Candidate | None:
        """None if there is no version for it, which need not be the end: another order may never ask for it."""
        try:
            return await self._candidate(ask, retry)
        except errors.NucleusError as error:
            if error.code != "NO_AVAILABLE_COMPONENT_VERSION":
                raise
            refusals[ask] = error
            return None

    async def _candidate(self, ask: negotiate.Ask, retry: patience.Patience) -> negotiate.Candidate:
        admission.refuse_part(ask)
        if ask.name in builtin.NAMES:
            found = builtin.candidate(ask)
            if found is None:
                raise _none(ask)
            return found
        running = desired.installed(self._tree()).get(ask.name)
        local = self._store.local_candidate(ask, running.version if running else None, self._device.platform)
        asked_locally = any(requirer == document.LOCAL_GROUP for requirer, _ in ask.requirements)
        plane = self._plane
        if plane is None or (local is not None and asked_locally):
            if local is None:
                raise _none(ask)
            return local
        version = local.version if local else None
        if local is not None:
            try:
                found = await retry.once(lambda: plane.resolve(ask, self._device.platform, version))
            except errors.NucleusError as error:
                self._log.warning("resolve.fell_back", component=ask.name, version=version, why=error.detail)
                return local
        else:
            found = await retry.until_answered(
                lambda: plane.resolve(ask, self._device.platform, None), f"the cloud to resolve {ask.name}"
            )
        self._store.save(found)
        retry.note(ask, found)
        return found

    async def _fetch(self, one: negotiate.Candidate, retry: patience.Patience, limit: asyncio.Semaphore) -> None:
        manifest = recipe.choose(one.recipe, self._device.platform)
        for artifact in manifest.artifacts if manifest is not None else ():
            async with limit:
                try:
                    if not await asyncio.to_thread(self._store.is_present, one, artifact):
                        await self._download(one, artifact, retry)
                    await asyncio.to_thread(self._store.finish, one, artifact)
                except OSError as error:
                    what = f"{recipe.file_name(artifact)} of {one.name} {one.version}"
                    raise errors.NucleusError("IO_ERROR", f"cannot prepare {what}: {error}") from error

    async def _download(self, one: negotiate.Candidate, artifact: recipe.Artifact, retry: patience.Patience) -> None:
        fetcher = self.fetcher
        what = f"{recipe.file_name(artifact)} of {one.name} {one.version}"
        if fetcher is None or not one.arn:
            raise errors.NucleusError(
                "ARTIFACT_DOWNLOAD_ERROR",
                f"cannot fetch {what}: it is not in the artifact directory, and its recipe did not come from a cloud",
            )
        await retry.until_answered(lambda: fetcher.fetch(one, artifact), f"the download of {what}")

    def _paths(self, name: str, version: str) -> desired.Paths:
        return desired.Paths(
            artifacts=str(self._places.artifacts(name, version)),
            decompressed=str(self._places.unarchived(name, version)),
            work=str(self._places.work(name)),
        )


def _check_users(wanted: document.Document) -> None:
    for name, wish in wanted.components.items():
        user = wish.run_with.posix_user if wish.run_with is not None else ""
        if not user:
            continue
        try:
            users.find(user)
        except users.Unknown as error:
            why = f"cannot run {name} {wish.version} as runWith.posixUser says: {error}"
            raise errors.NucleusError("RUN_WITH_CONFIG_NOT_VALID", why) from None


def _none(ask: negotiate.Ask) -> errors.NucleusError:
    return errors.NucleusError("NO_AVAILABLE_COMPONENT_VERSION", negotiate.no_candidate(ask))
