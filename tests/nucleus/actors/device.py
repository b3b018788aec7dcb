"""A nucleus without cloud, in one process with the test: real files, real processes, the deployer's real parts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from nucleus.actors import (
    application,
    bootstrap,
    bootstrap_step,
    consent,
    deployer,
    deployment,
    preparation,
    supervisor,
    validation,
)
from nucleus.core import builtin, desired, document, errors, negotiate, release, run_as, status
from nucleus.core.lifecycle import Effect
from nucleus.host import files, launch, logs, places, process
from nucleus.store import components, deployments
from nucleus.store import configuration as configuration_store
from nucleus.uplink import dataplane

GROUP = "thinggroup/turbines"
PLATFORM = {"os": "linux", "architecture": "amd64"}


def recipe(name: str, version: str, lifecycle: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A recipe of one manifest; `more` are top-level keys."""
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "Manifests": [{"Lifecycle": dict(lifecycle)}],
        **more,
    }


class Reports:
    """A source that confirms every report and remembers it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self._news = asyncio.Event()

    async def until(self, state: str, beyond: int = 0) -> None:
        """Waits until there are more than `beyond` reports and the last one is `state`."""
        async with asyncio.timeout(10):
            while len(self.seen) <= beyond or self.seen[-1][1] != state:
                self._news.clear()
                await self._news.wait()

    async def until_waiting(self, text: str) -> str:
        """Waits until a report says that it waits for something with this text in it; returns all of that."""
        async with asyncio.timeout(10):
            while True:
                for _, _, details in self.seen:
                    if text in details.get("marram-waiting-for", ""):
                        return details["marram-waiting-for"]
                self._news.clear()
                await self._news.wait()

    async def report(self, record: deployments.Record, state: str, details: dict[str, str], /) -> bool:
        self.seen.append((record.id, state, details))
        self._news.set()
        return True


class Plane:
    """A cloud that knows in which groups the device is, None while it cannot be asked, and no component at all."""

    def __init__(self, groups: set[str] | None) -> None:
        self.groups = groups

    async def thing_groups(self) -> set[str]:
        if self.groups is None:
            raise dataplane.Unavailable("NETWORK_ERROR", "no answer")
        return self.groups

    async def resolve(self, ask: negotiate.Ask, platform: Mapping[str, str], local: str | None) -> negotiate.Candidate:
        raise errors.NucleusError("NO_AVAILABLE_COMPONENT_VERSION", negotiate.no_candidate(ask))


def opened(store: configuration_store.ConfigurationStore) -> configuration_store.ConfigurationStore:
    store.open()
    return store


class Device:
    """`root` survives; open it twice for a restart."""

    def __init__(
        self,
        root: Path,
        *,
        records: deployments.DeploymentStore | None = None,
        configuration: configuration_store.ConfigurationStore | None = None,
        write_again_s: float = deployment.WRITE_AGAIN_S,
        plane: Plane | None = None,
        local_once_s: float = preparation.LOCAL_ONCE_S,
        removal_s: float = application.REMOVAL_S,
        version: str = release.VERSION,
    ) -> None:
        self.places = places.Places(root)
        self.log = self._prepared()
        self.configuration = opened(configuration or configuration_store.ConfigurationStore(self.places.config))
        self.store = components.ComponentStore(self.places)
        environment = {"PATH": os.environ["PATH"], "HOME": str(root), "AWS_IOT_THING_NAME": "t1"}
        user = str(os.getuid())
        self.supervisor = supervisor.Supervisor(self.places, environment, user, self.log, lambda health: None)
        self.consent = consent.Consent(self.log)
        self.validation = validation.Validation(self.log)
        self.reports = Reports()
        self.ended: asyncio.Queue[deployments.Record] = asyncio.Queue()
        self.left: asyncio.Queue[int] = asyncio.Queue()  # codes with which the nucleus wanted to go down
        records = records or deployments.DeploymentStore(self.places)
        parts = deployment.Parts(
            store=records,
            bootstrapper=self._bootstrapper(records, environment, version),
            configuration=self.configuration,
            components=self.store,
            supervisor=self.supervisor,
            preparation=self._preparation(plane, local_once_s),
            consent=self.consent,
            validation=self.validation,
            log=self.log,
            write_again_s=write_again_s,
            removal_s=removal_s,
        )
        sources = dict.fromkeys((deployments.JOB, deployments.SHADOW), self.reports)
        self.deployer = deployer.Deployer(parts, sources=sources, on_end=self.ended.put_nowait, log=self.log)

    def _prepared(self) -> logs.Log:
        for folder in (self.places.root, self.places.logs, self.places.config, self.places.processes):
            files.make_directory(folder, 0o755)
        return logs.Log("test", directory=self.places.logs)

    def _preparation(self, plane: Plane | None, local_once_s: float) -> preparation.Preparation:
        return preparation.Preparation(
            where=self.places,
            device=desired.Device(root_path=str(self.places.root), thing_name="t1", platform=PLATFORM),
            store=self.store,
            plane=plane,  # type: ignore[arg-type]  # has what preparation asks
            local_once_s=local_once_s,
            fetcher=None,
            tree=lambda: self.configuration.tree,
            log=self.log,
        )

    def _bootstrapper(
        self, records: deployments.DeploymentStore, environment: Mapping[str, str], version: str
    ) -> bootstrap.Bootstrapper:
        return bootstrap.Bootstrapper(
            where=self.places,
            launches=launch.Launches(self.places.root, under_loader=False),
            steps=bootstrap_step.Steps(self.places, environment, lambda: run_as.defaults({}, str(os.getuid()))),
            records=records,
            running=self.supervisor,
            leave=self.left.put_nowait,
            nucleus=lambda: self.configuration.component(builtin.NUCLEUS),
            log=self.log,
            version=version,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Device]:
        process.end_survivors(self.places.processes, self.log)
        allowed = self.deployer.restore()
        for one in desired.installed(self.configuration.tree).values():
            if one.name in allowed:
                self.supervisor.adopt(one, Effect.START)
        async with asyncio.TaskGroup() as group:
            supervision = group.create_task(self.supervisor.run())
            work = group.create_task(self.deployer.run())
            try:
                yield self
            finally:
                work.cancel()
                self.supervisor.stop()
                await supervision

    def publish(self, *recipes: dict[str, Any]) -> None:
        """Puts recipes where `submit` takes them from: a deployment's end cleans the store."""
        folder = self.places.root / "published"
        folder.mkdir(exist_ok=True)
        for one in recipes:
            (folder / f"{one['ComponentName']}-{one['ComponentVersion']}.yaml").write_text(yaml.safe_dump(one))

    def submit(self, wanted: Mapping[str, str | document.Wish], **more: Any) -> deployments.Record:
        """Submits a job document for GROUP; the watch window is 0 unless given."""
        published = self.places.root / "published"
        self.store.take_local(published if published.is_dir() else None, None)
        wishes = {
            name: one if isinstance(one, document.Wish) else document.Wish(version=one) for name, one in wanted.items()
        }
        now = self.configuration.now()
        arn = f"arn:aws:greengrass:us-east-1:123456789012:configuration:{GROUP}:{now}"
        source = more.pop("source", deployments.JOB)
        fields: dict[str, Any] = {"watch_s": 0.0, "created_ms": now, "group": GROUP} | more
        found = document.Document(deployment_id=f"d{now}", configuration_arn=arn, components=wishes, **fields)
        record = deployments.Record(document=found, source=source, carrier=f"job-{now}", queued_ms=now)
        self.deployer.submit(record)
        return record

    async def deploy(self, wanted: Mapping[str, str | document.Wish], **more: Any) -> status.Result:
        """Submits and waits for the end; returns the result."""
        record = self.submit(wanted, **more)
        return await self.end_of(record.id)

    async def end_of(self, deployment_id: str) -> status.Result:
        async with asyncio.timeout(60):
            while True:
                record = await self.ended.get()
                if record.id == deployment_id:
                    assert record.result is not None
                    return record.result

    async def until(self, name: str, state: str) -> None:
        """Waits until a component is in a state."""
        async with asyncio.timeout(30):
            while True:
                seen = self.supervisor.revision
                one = self.supervisor.health().get(name)
                if one is not None and one.state.name == state:
                    return
                await self.supervisor.changed(seen)
