"""The composition root: builds every part of the daemon once and runs them in one TaskGroup."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from nucleus import settings as start
from nucleus import wiring
from nucleus.actors import broker, deployer, deployment, fleet_status, preparation, supervisor
from nucleus.core import builtin, configuration, desired, errors, status
from nucleus.core.lifecycle import Effect, Health
from nucleus.host import files, logs, places, process
from nucleus.ipc import ports, server
from nucleus.store import components, deployments
from nucleus.store import configuration as configuration_store
from nucleus.uplink import artifacts, dataplane, http, listeners, mqtt, spool

PATH_ALWAYS = ("/bin", "/usr/bin", "/sbin", "/usr/sbin")  # spec/nucleus.md 2.7


def run(root: Path, config: Path | None = None) -> int:
    """Runs the nucleus in `root` until SIGTERM or SIGINT; returns the exit code.

    Raises NucleusError when it cannot start: a bad configuration file, or another nucleus in the same root.
    """
    root = root.resolve()
    where = places.Places(root)
    for folder, mode in ((root, 0o755), (where.logs, 0o700), (where.config, 0o700), (where.processes, 0o700)):
        files.make_directory(folder, mode)
    lock = _lock(root)
    try:
        settings = start.read(config or root / "config.yaml", root)
        log = logs.Log("nucleus", directory=where.logs)
        asyncio.run(Daemon(where, settings, log).run())
    finally:
        os.close(lock)
    return 0


class Daemon:
    """Every part of one nucleus; `run()` returns after an orderly stop."""

    def __init__(self, where: places.Places, settings: start.Settings, log: logs.Log) -> None:
        self._places = where
        self._settings = settings
        self._log = log
        self._cli_tokens: dict[str, str] = {}
        self._fleet: fleet_status.FleetStatus | None = None

    async def run(self) -> None:
        started = time.monotonic()
        ended = await asyncio.to_thread(process.end_survivors, self._places.processes, self._log)
        self._log.info("nucleus.starting", version=status.VERSION, pid=os.getpid(), survivors_ended=ended)
        self._build()
        self._deployer.restore()
        self._write_cli_token()
        if self._tokens is not None:
            await self._tokens.start()
        for one in desired.installed(self._configuration.tree).values():
            self._supervisor.adopt(one, Effect.START)
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(part) for part in self._parts()]
            supervision = group.create_task(self._supervisor.run())
            self._log.info("nucleus.started", milliseconds=round((time.monotonic() - started) * 1000))
            await stopping.wait()  # no deadline: this is how long the daemon runs
            self._log.info("nucleus.stopping")
            work[0].cancel()  # the deployer first: nothing may be started while everything is stopped
            self._supervisor.stop()
            await supervision
            for task in work:
                task.cancel()
        self._log.info("nucleus.stopped")

    # ---- building ------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        log, where = self._log, self._places
        self._configuration = configuration_store.ConfigurationStore(where.config)
        repaired = self._configuration.open()
        if repaired:
            log.warning("configuration.repaired", what=repaired)
        self._take_file()
        nucleus = self._nucleus()
        device = desired.Device(
            root_path=str(where.root),
            thing_name=self._settings.thing,
            platform=start.detect_platform(nucleus.get("platformOverride") or {}),
        )
        environment = self._environment(nucleus)
        self._supervisor = supervisor.Supervisor(
            where,
            environment,
            _default_user(nucleus),
            log.bind(part="supervisor"),
            self._component_changed,
        )
        self._configuration.watch(("services", builtin.NUCLEUS, "configuration"), self._nucleus_changed)
        self._connect()
        self._store = components.ComponentStore(where)
        self._build_deployer(device)
        self._broker = broker.Broker()
        if self._connection is not None:
            self._build_cloud_side(self._connection, device)
        self._tokens = wiring.exchange(
            self._settings.cloud,
            self._http,
            self._connection,
            self._supervisor.identify,
            self._configuration,
            environment,
            log,
        )
        self._server = server.Server(self._socket(), self._ports(), log.bind(part="ipc"))

    def _connect(self) -> None:
        """The connection to the cloud, when there is one in the settings."""
        cloud = self._settings.cloud
        self._connection: mqtt.Connection | None = None
        self._http: http.Http | None = None
        self._plane: dataplane.DataPlane | None = None
        if cloud is None:
            return
        identity: dict[str, Any] = {
            "certificate": cloud.certificate,
            "private_key": cloud.private_key,
            "root_ca": cloud.root_ca,
        }
        endpoint = mqtt.Endpoint(host=cloud.mqtt_host, port=cloud.mqtt_port, client_id=cloud.thing, **identity)
        log = self._log.bind(part="uplink")
        self._connection = mqtt.Connection(endpoint, spool.Spool(log), log)
        self._http = http.Http(**identity)
        self._plane = dataplane.DataPlane(self._http, cloud.data_plane_url, cloud.thing)

    def _build_deployer(self, device: desired.Device) -> None:
        fetcher = None
        if self._http is not None and self._plane is not None:
            fetcher = artifacts.Artifacts(self._http, self._plane, self._store)
        log = self._log.bind(part="deployer")
        parts = deployment.Parts(
            store=deployments.DeploymentStore(self._places),
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
            log=log,
        )
        self._deployer = deployer.Deployer(parts, sources={}, on_end=self._deployment_ended, log=log)

    def _build_cloud_side(self, connection: mqtt.Connection, device: desired.Device) -> None:
        thing, log = self._settings.thing, self._log.bind(part="uplink")
        self._jobs = listeners.JobSource(connection, thing, self._deployer, log)
        self._shadow = listeners.ShadowSource(connection, thing, self._deployer, log)
        self._deployer.add_source(deployments.JOB, self._jobs)
        self._deployer.add_source(deployments.SHADOW, self._shadow)
        self._fleet = fleet_status.FleetStatus(
            connection,
            thing=thing,
            platform=device.platform,
            store=self._configuration,
            health=self._supervisor.health,
            log=log,
        )
        connection.on_connected(self._deployer.wake_reports)
        connection.on_connected(self._fleet.connected)

    def _parts(self) -> list[Any]:
        """Everything that runs besides the supervisor; the deployer is the first."""
        found: list[Any] = [self._deployer.run(), self._server.run()]
        if self._connection is not None and self._fleet is not None:
            found += [self._connection.run(), self._jobs.run(), self._shadow.run(), self._fleet.run()]
        if self._tokens is not None:
            found.append(self._tokens.run())
        return found

    def _ports(self) -> ports.Ports:
        return ports.Ports(
            identify=self._identify,
            configuration=self._configuration,
            components=self._supervisor,
            deployments=self._deployer,
            uplink=self._connection or _Offline(),
            broker=self._broker,
        )

    # ---- small questions -----------------------------------------------------------------------------------------

    def _nucleus(self) -> dict[str, Any]:
        try:
            found = configuration.get(self._configuration.tree, ("services", builtin.NUCLEUS, "configuration"))
        except KeyError:
            return {}
        return found if isinstance(found, dict) else {}

    def _take_file(self) -> None:
        """Puts the file's configuration below everything a deployment has set (stamp 1, as defaults)."""
        tree = self._configuration.tree
        changes: list[configuration.Change] = []
        services = {builtin.NUCLEUS: {"configuration": self._settings.nucleus}} | self._settings.services
        for name, one in services.items():
            values = one.get("configuration") if isinstance(one, dict) else None
            if isinstance(values, dict) and values:
                tree, made = configuration.merge(tree, ("services", name, "configuration"), values, 1, "file")
                changes += made
        if changes:
            self._configuration.commit(tuple(changes))

    def _environment(self, nucleus: dict[str, Any]) -> dict[str, str]:
        """The variables of spec/nucleus.md 2.7 that are the same for all components."""
        path = os.environ.get("PATH", "")
        missing = [one for one in PATH_ALWAYS if one not in path.split(":")]
        region = str(nucleus.get("awsRegion") or "us-east-1")
        socket = str(self._socket())
        short = len(socket.encode()) <= places.SOCKET_PATH_LIMIT
        found = {
            "PATH": ":".join(part for part in (path, *missing) if part),
            "HOME": os.environ.get("HOME", "/"),
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH": socket,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": socket if short else "../../ipc.socket",
            "AWS_IOT_THING_NAME": self._settings.thing,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "GGC_VERSION": status.VERSION,
        }
        if self._settings.cloud is not None:
            found["GG_ROOT_CA_PATH"] = str(self._settings.cloud.root_ca)
        return found

    def _socket(self) -> Path:
        return Path(self._settings.socket) if self._settings.socket else self._places.socket

    def _identify(self, token: str) -> str | None:
        return self._cli_tokens.get(token) or self._supervisor.identify(token)

    def _write_cli_token(self) -> None:
        """Whoever may read the file may use the CLI: mode 0600 (spec/nucleus.md 8.1)."""
        token = secrets.token_hex(16).upper()
        user = os.getuid()
        self._cli_tokens[token] = f"greengrass-cli#user-{user}"
        files.make_directory(self._places.cli_tokens, 0o755)
        body = {"cli_auth_token": token, "domain_socket_path": str(self._socket())}
        files.write_durably(self._places.cli_tokens / f"user-{user}", json.dumps(body).encode(), 0o600)

    # ---- events between parts --------------------------------------------------------------------------------------

    def _component_changed(self, health: Health) -> None:
        if self._fleet is not None:
            self._fleet.component_changed(health)

    def _deployment_ended(self, record: deployments.Record) -> None:
        if self._fleet is not None:
            self._fleet.deployment_ended(record)

    def _nucleus_changed(self, _changes: tuple[configuration.Change, ...]) -> None:
        self._supervisor.set_default_user(_default_user(self._nucleus()))


class _Offline:
    """The uplink of a device without cloud settings: refuses, with the reason."""

    async def publish(self, topic: str, payload: bytes, qos: int = 1, **properties: Any) -> None:
        raise errors.NucleusError("NETWORK_ERROR", f"cannot publish to {topic}: this nucleus has no cloud settings")

    async def subscribe(self, filter_: str, qos: int, deliver: Any, /) -> ports.Cancel:
        raise errors.NucleusError("NETWORK_ERROR", f"cannot subscribe to {filter_}: this nucleus has no cloud settings")


def _default_user(nucleus: dict[str, Any]) -> str:
    return str((nucleus.get("runWithDefault") or {}).get("posixUser") or "")


def _lock(root: Path) -> int:
    """Two nuclei in one root would run every component twice. The lock ends with the process, however it ends."""
    descriptor = os.open(root / "nucleus.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise errors.NucleusError("IO_ERROR", f"cannot start: another nucleus is running in {root}") from None
    return descriptor
