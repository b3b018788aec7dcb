"""The composition root: builds every part of the daemon once and runs them in one TaskGroup."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import structs

from nucleus import passing, plugins, variables, wiring
from nucleus import settings as start
from nucleus.actors import (
    bootstrap,
    bootstrap_step,
    broker,
    builtins,
    component_metrics,
    consent,
    deployer,
    deployment,
    fleet_status,
    leaving,
    planner,
    preparation,
    supervisor,
    validation,
)
from nucleus.core import builtin, configuration, desired, errors, log_settings, run_as, status
from nucleus.core.lifecycle import Health
from nucleus.host import cli_token, files, launch, logs, notify, places
from nucleus.ipc import ports, server
from nucleus.store import components, deployments
from nucleus.store import configuration as configuration_store
from nucleus.uplink import artifacts, listeners, mqtt, offline, proxy


def run(root: Path, config: Path | None = None) -> int:
    """Runs the nucleus in `root` until SIGTERM or SIGINT; returns the exit code.

    Raises NucleusError when it cannot start: a bad configuration file, or another nucleus in the same root.
    """
    root = root.resolve()
    where = places.Places(root)
    for folder, mode in ((root, 0o755), (where.logs, 0o700), (where.config, 0o700), (where.processes, 0o700)):
        files.make_directory(folder, mode)
    passed = passing.Passing(where, config)
    log = logs.Log("nucleus", directory=where.logs)
    try:
        while True:
            settings = start.read(config or root / start.FILE, root)
            code = asyncio.run(Daemon(where, settings, log, passed).run())
            by_itself = code == leaving.RESTART and launch.LOADER_VARIABLE not in os.environ
            if code != leaving.AGAIN and not by_itself:
                return code
    finally:
        passed.close(log)


class Daemon:
    """Every part of one nucleus; `run()` returns after an orderly stop."""

    def __init__(self, where: places.Places, settings: start.Settings, log: logs.Log, passed: passing.Passing) -> None:
        self._places = where
        self._settings = settings
        self._log = log
        self._passed = passed
        self._leaving = leaving.Leaving()
        self._notifier = notify.Notifier.from_environment(os.environ)
        self._cli_tokens: dict[str, str] = {}
        self._builtins = builtins.BuiltIns(lambda: self._configuration.tree, self._component_changed)
        self._metrics = component_metrics.ComponentMetrics()
        self._fleet: fleet_status.FleetStatus | None = None

    async def run(self) -> int:
        started = time.monotonic()
        ended = await self._passed.clear(self._log)
        self._log.info("nucleus.starting", version=status.VERSION, pid=os.getpid(), survivors_ended=ended)
        self._build()
        carried = self._passed.state
        allowed = self._deployer.restore(handed_over=carried is not None)
        try:
            self._cli_tokens = carried.cli_tokens if carried else cli_token.write(self._places, self._socket())
        except errors.NucleusError as error:  # a full disk: the command line must wait, the components must not
            self._log.error("cli.no_token", why=error.detail)
        if self._tokens is not None:
            await self._tokens.start(carried.ports if carried else {})
        wanted = [one for one in desired.installed(self._configuration.tree).values() if one.name in allowed]
        await self._passed.start(self._supervisor, wanted, self._log)
        self._leaving.on_signals()
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(part) for part in self._parts()]
            supervision = group.create_task(self._supervisor.run())
            self._log.info("nucleus.started", milliseconds=round((time.monotonic() - started) * 1000))
            self._notifier.tell("READY=1")
            code = await self._leaving.asked()
            if code == leaving.HAND_OVER:
                self._notifier.reloading()
                parts = passing.Parts(self._server, self._supervisor, self._connection, self._tokens, self._cli_tokens)
                await self._passed.over(parts, work[0], self._leaving, self._log)  # returns only when it is impossible
                code = leaving.RESTART if self._leaving.code else 0
            self._notifier.ending(code)
            deployments.DeploymentStore(self._places).mark_orderly()
            self._log.info("nucleus.stopping", code=code)
            work[0].cancel()  # the deployer first: nothing may be started while everything is stopped
            self._supervisor.stop()
            await supervision
            for task in work:
                task.cancel()
        self._log.info("nucleus.stopped")
        return code

    # ---- building ------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        log, where = self._log, self._places
        self._configuration = configuration_store.ConfigurationStore(where.config)
        if repaired := self._configuration.open():
            log.warning("configuration.repaired", what=repaired)
        wiring.take_file(self._configuration, self._settings, log)
        nucleus = self._nucleus()
        log.style.adopt(log_settings.read(nucleus))
        device = desired.Device(
            root_path=str(where.root),
            thing_name=self._settings.thing,
            platform=start.detect_platform(nucleus.get("platformOverride") or {}),
        )
        environment = variables.common(self._settings, nucleus, self._socket())
        self._supervisor = supervisor.Supervisor(
            where,
            environment,
            self._settings.fallback_user,
            log.bind(part="supervisor"),
            self._component_changed,
        )
        self._supervisor.set_defaults(self._defaults())
        self._configuration.watch(("services", builtin.NUCLEUS, "configuration"), self._nucleus_changed)
        uplinks = wiring.connect(
            self._settings.cloud, self._passed.state, where, self._configuration, log.bind(part="uplink")
        )
        self._http, self._connection, self._plane = uplinks
        self._store = components.ComponentStore(where)
        self._build_deployer(device)
        self._broker = broker.Broker()
        if self._connection is not None:
            self._build_cloud_side(self._connection, device)
        self._build_services(environment)
        ipc = log.bind(part="ipc")
        self._server = server.Server(self._socket(), self._ports(), ipc, carried=lambda: self._passed.sockets)

    def _build_services(self, environment: dict[str, str]) -> None:
        log = self._log
        self._tokens = wiring.exchange(
            self._settings.cloud,
            self._http,
            self._connection,
            self._supervisor.identify,
            self._configuration,
            environment,
            log,
        )
        cloud, thing, store, known = self._settings.cloud, self._settings.thing, self._configuration, self._builtins
        uplinks = (cloud, self._http, self._connection, self._tokens)
        self._services = plugins.build(plugins.Parts(*uplinks, self._places, store, known, self._broker, thing, log))

    def _build_deployer(self, device: desired.Device) -> None:
        client, plane, log = self._http, self._plane, self._log.bind(part="deployer")
        fetcher = artifacts.Artifacts(client, plane, self._store) if client is not None and plane is not None else None
        common = variables.common(self._settings, self._nucleus(), self._socket())
        self._consent = consent.Consent(log.bind(part="consent"))
        self._validation = validation.Validation(log.bind(part="consent"))
        records = deployments.DeploymentStore(self._places)
        parts = deployment.Parts(
            store=records,
            bootstrapper=bootstrap.Bootstrapper(
                where=self._places,
                launches=launch.Launches(self._places.root, under_loader=launch.LOADER_VARIABLE in os.environ),
                steps=bootstrap_step.Steps(self._places, common, self._defaults, self._log.style),
                records=records,
                running=self._supervisor,
                leave=self._leaving.ask,
                nucleus=self._nucleus,
                log=log.bind(part="bootstrap"),
            ),
            configuration=self._configuration,
            components=self._store,
            supervisor=self._supervisor,
            preparation=preparation.Preparation(
                where=self._places,
                device=device,
                store=self._store,
                plane=self._plane,
                fetcher=fetcher,
                tree=lambda: self._configuration.tree,
                log=log,
            ),
            consent=self._consent,
            validation=self._validation,
            log=log,
        )
        self._planner = planner.Planner(self._places, parts)
        self._deployer = deployer.Deployer(parts, sources={}, on_end=self._deployment_ended, log=log)

    def _build_cloud_side(self, connection: mqtt.Connection, device: desired.Device) -> None:
        thing, log = self._settings.thing, self._log.bind(part="uplink")
        self._jobs = listeners.JobSource(
            connection, thing, self._deployer, log, self._plane.warm if self._plane else None
        )
        self._shadow = listeners.ShadowSource(connection, thing, self._deployer, log)
        self._deployer.add_source(deployments.JOB, self._jobs)
        self._deployer.add_source(deployments.SHADOW, self._shadow)
        self._fleet = fleet_status.FleetStatus(
            connection,
            thing=thing,
            platform=device.platform,
            store=self._configuration,
            health=lambda: self._builtins.health() | self._supervisor.health(),
            log=log,
        )
        self._telemetry = wiring.measuring(
            connection, thing, self._places, self._supervisor, self._nucleus, self._metrics, self._log
        )
        connection.on_connected(self._deployer.wake_reports)
        connection.on_connected(self._fleet.connected)

    def _parts(self) -> list[Any]:
        """Everything that runs besides the supervisor; the deployer is the first."""
        found: list[Any] = [self._notifier.watch_over(self._when_listening(self._deployer.run))]
        if self._connection is not None and self._fleet is not None:
            found += [
                self._when_listening(self._connection.run),
                self._jobs.run(),
                self._shadow.run(),
                self._fleet.run(),
            ]
            found.append(wiring.renew(self._settings, self._connection, self._places, self._leaving, self._log).run())
            found.append(self._telemetry.run())
        if self._tokens is not None:
            found.append(self._tokens.run())
        found += self._services.running()
        if self._settings.provisioning is not None:
            found.append(wiring.provision(self._settings, self._places, self._leaving, self._log).run())
        return [*found, self._server.run()]  # last: what components asked meanwhile finds everybody at work

    async def _when_listening(self, run: Callable[[], Awaitable[None]]) -> None:
        """Begins when every subscription of components stands: what finds no taker would be gone."""
        await self._server.listening.wait()
        await run()

    def _ports(self) -> ports.Ports:
        return ports.Ports(
            identify=self._identify,
            configuration=self._configuration,
            components=self._supervisor,
            deployments=self._deployer,
            uplink=proxy.Proxy(self._connection) if self._connection is not None else offline.Offline(),
            broker=self._broker,
            consent=self._consent,
            validation=self._validation,
            plans=self._planner,
            restart=lambda: self._leaving.ask(leaving.HAND_OVER),
            built_ins=self._builtins.health,
            metrics=self._metrics,
            **structs.asdict(self._services),
        )

    # ---- small questions -----------------------------------------------------------------------------------------

    def _nucleus(self) -> dict[str, Any]:
        try:
            found = configuration.get(self._configuration.tree, ("services", builtin.NUCLEUS, "configuration"))
        except KeyError:
            return {}
        return found if isinstance(found, dict) else {}

    def _defaults(self) -> run_as.Defaults:
        return run_as.defaults(self._nucleus(), self._settings.fallback_user)

    def _socket(self) -> Path:
        return Path(self._settings.socket) if self._settings.socket else self._places.socket

    def _identify(self, token: str) -> str | None:
        return self._cli_tokens.get(token) or self._supervisor.identify(token)

    # ---- events between parts --------------------------------------------------------------------------------------

    def _component_changed(self, health: Health) -> None:
        if self._fleet is not None:
            self._fleet.component_changed(health)

    def _deployment_ended(self, record: deployments.Record) -> None:
        if self._fleet is not None:
            self._fleet.deployment_ended(record)

    def _nucleus_changed(self, _changes: tuple[configuration.Change, ...]) -> None:
        self._supervisor.set_defaults(self._defaults())
        self._log.style.adopt(log_settings.read(self._nucleus()))
