"""Answers what a local deployment would do, and why the device has what it has, touching nothing.

A trial works on a folder of its own with links to the stored recipes, so that what the cloud answers and what the user's
recipe folder holds never reaches the store. Nothing is downloaded but recipes.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from nucleus.actors import deployment, keeper, preparation
from nucleus.core import (
    bootstrap,
    builtin,
    component,
    configuration,
    desired,
    document,
    errors,
    explain,
    local,
    negotiate,
    plan,
    recipe,
)
from nucleus.core.lifecycle import State
from nucleus.host import files, places, snapshots
from nucleus.store import components, deployments

FOLDER = "artifact folder"


class Planner:
    """Reads what the deployer would use; `where` is the nucleus's own folder."""

    def __init__(self, where: places.Places, parts: deployment.Parts) -> None:
        self._places = where
        self._configuration = parts.configuration
        self._components = parts.components
        self._supervisor = parts.supervisor
        self._preparation = parts.preparation

    async def plan(self, request: local.LocalRequest) -> explain.Outlook:
        """What the request would do if it were deployed now. Raises NucleusError where the deployment would fail."""
        tree = self._configuration.tree
        group = document.local_group(request)
        now = self._configuration.now()
        wanted = document.local(
            request, deployment_id="as asked", created_ms=now, running_roots=desired.roots(tree).get(group, {})
        )
        record = deployments.Record(document=wanted, source=deployments.LOCAL, queued_ms=now, request=request)
        with tempfile.TemporaryDirectory(prefix="marram-plan-") as folder:
            trial = await asyncio.to_thread(self._trial_store, places.Places(Path(folder)), request)
            prepared = self._preparation.over(trial)
            impatient = asyncio.Event()
            impatient.set()  # an answer that does not come now is an error: nothing waits behind a question
            resolved = await prepared.resolve(record, lambda _waiting: None, impatient)
            found = prepared.compose(record, preparation.Ready(resolved), tree, now)
            downloads = await self._sized(
                await asyncio.to_thread(self._downloads, resolved, request), resolved, request
            )
        actual = desired.installed(tree)
        warnings = await asyncio.to_thread(self._not_restorable, actual, found.components)
        broken = [name for name, one in self._supervisor.health().items() if one.state is State.BROKEN]
        return explain.outlook(
            group,
            actual,
            plan.plan(actual, found.components, broken=broken),
            restart_keys=bootstrap.restart_keys(_nucleus(tree), _nucleus(found.tree)),
            downloads=downloads,
            changes=[change for change in found.changes if _is_news(tree, change)],
            asking=explain.requirers(prepared.roots(record), {name: one.recipe for name, one in resolved.items()}),
            warnings=warnings,
        )

    def why(self) -> tuple[explain.Reason, ...]:
        """Why every installed component is there in its version."""
        tree = self._configuration.tree
        recipes: dict[str, recipe.Recipe] = {}
        stored: dict[str, list[str]] = {}
        for name, one in desired.installed(tree).items():
            stored[name] = [str(each) for each in self._components.versions(name)]
            try:
                candidate = self._components.load(name, one.version)
            except errors.NucleusError:
                continue  # a damaged recipe: its requirements are unknown, the rest can be told
            if candidate is not None:
                recipes[name] = candidate.recipe
        return explain.reasons(tree, recipes, stored)

    def _trial_store(self, trial: places.Places, request: local.LocalRequest) -> components.ComponentStore:
        """A store with the device's recipes and those of the request's folder."""
        theirs = trial.recipe("any", "0.0.0").parent
        files.make_directory(theirs.parent)
        files.make_directory(theirs)
        for path in self._places.recipe("any", "0.0.0").parent.glob("*.json"):
            (theirs / path.name).symlink_to(path)
        for path in self._places.recipe("any", "0.0.0").parent.glob("*.yaml"):
            (theirs / path.name).symlink_to(path)
        store = components.ComponentStore(trial)
        store.take_local(Path(request.recipe_directory) if request.recipe_directory else None, None)
        return store

    def _downloads(
        self, resolved: dict[str, negotiate.Candidate], request: local.LocalRequest
    ) -> list[explain.Download]:
        """Artifacts that are not in the store in the right form."""
        found = []
        given = Path(request.artifacts_directory) if request.artifacts_directory else None
        for one in resolved.values():
            manifest = recipe.choose(one.recipe, self._preparation.platform)
            for artifact in manifest.artifacts if manifest is not None else ():
                source = "cloud" if one.arn else "nowhere: it is in no artifact folder, and no cloud has it"
                if given is not None and (given / one.name / one.version / recipe.file_name(artifact)).is_file():
                    source = FOLDER
                elif self._components.is_present(one, artifact):
                    continue
                found.append(explain.Download(one.name, one.version, artifact.uri, source))
        return found

    async def _sized(
        self,
        downloads: list[explain.Download],
        resolved: dict[str, negotiate.Candidate],
        request: local.LocalRequest,
    ) -> list[explain.Download]:
        """With the size of each, where the folder or the cloud tells it."""
        limit = asyncio.Semaphore(preparation.DOWNLOADS_AT_ONCE)
        given = Path(request.artifacts_directory) if request.artifacts_directory else None

        async def size(one: explain.Download) -> int | None:
            artifact = self._artifact(resolved[one.component], one.uri)
            if one.source == FOLDER and given is not None:
                path = given / one.component / one.version / recipe.file_name(artifact)
                return (await asyncio.to_thread(path.stat)).st_size
            if self._preparation.fetcher is None:
                return None
            async with limit:
                return await self._preparation.fetcher.size(resolved[one.component], artifact)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(size(one)) for one in downloads]
        return [
            msgspec.structs.replace(one, size_bytes=task.result()) for one, task in zip(downloads, tasks, strict=True)
        ]

    def _artifact(self, one: negotiate.Candidate, uri: str) -> recipe.Artifact:
        manifest = recipe.choose(one.recipe, self._preparation.platform)
        return next(each for each in (manifest.artifacts if manifest is not None else ()) if each.uri == uri)

    def _not_restorable(
        self, actual: dict[str, component.Component], target: dict[str, component.Component]
    ) -> list[str]:
        """A sentence for each component whose rollbackState would not be kept, because it passes a limit now."""
        found = []
        for name, one in sorted(target.items()):
            old = actual.get(name)
            if old is None or old.version == one.version:
                continue
            wish = keeper.wish(one) or keeper.wish(old)
            why = snapshots.why_not(self._places.work(name), wish.paths, max_bytes=wish.max_bytes) if wish else ""
            if why:
                found.append(f"a rollback would not restore the state of {name} {old.version}: {why}")
        return found


def _is_news(tree: configuration.Tree, change: configuration.Change) -> bool:
    """Whether a change gives a key another value (others only carry a newer stamp)."""
    node = configuration.find(tree, change.path)
    if change.removed or not isinstance(node, configuration.Leaf):
        return True
    return bool(node.value != change.value)


def _nucleus(tree: configuration.Tree) -> dict[str, Any]:
    plain: dict[str, Any] = configuration.plain(
        configuration.subtree(tree, ("services", builtin.NUCLEUS, "configuration"))
    )
    return plain
