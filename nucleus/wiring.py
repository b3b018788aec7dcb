"""Builds the parts of the daemon that need several others, for the composition root (app.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib import parse

from nucleus import identity, settings
from nucleus.actors import component_metrics, leaving, provisioning, renewal, supervisor, telemetry, token_exchange
from nucleus.core import builtin, configuration, desired, errors, handover, mqtt_settings
from nucleus.core import telemetry as telemetry_words
from nucleus.host import logs, places
from nucleus.store import configuration as configuration_store
from nucleus.store import spool as spool_store
from nucleus.uplink import dataplane, http, mqtt, spool

GIVEN = ("services", "DeploymentService", "runtime", "givenFile")  # which file of --config was taken over last


def connect(
    cloud: settings.Cloud | None,
    carried: handover.State | None,
    where: places.Places,
    store: configuration_store.ConfigurationStore,
    log: logs.Log,
) -> tuple[http.Http | None, mqtt.Connection | None, dataplane.DataPlane | None]:
    """The ways to the cloud, when there is one in the settings; with what the process image before this one carried."""
    if cloud is None:
        return None, None, None
    identity: dict[str, Any] = {
        "certificate": cloud.certificate,
        "private_key": cloud.private_key,
        "root_ca": cloud.root_ca,
    }
    try:
        client = http.Http(**identity)
    except errors.NucleusError as error:  # a damaged certificate must not keep the components from running
        log.error("uplink.impossible", why=error.detail)
        return None, None, None
    endpoint = mqtt.Endpoint(host=cloud.mqtt_host, port=cloud.mqtt_port, client_id=cloud.thing, **identity)
    outgoing = spool.Spool(log, store=spool_store.SpoolStore(where.work(builtin.DISK_SPOOLER)))
    connection = mqtt.Connection(endpoint, outgoing, log, carried.uplink if carried else None)

    def configure(_changes: tuple[configuration.Change, ...] = ()) -> None:
        node = configuration.find(store.tree, ("services", builtin.NUCLEUS, "configuration"))
        found = configuration.plain(node) if node is not None else {}
        outgoing.configure(mqtt_settings.read(found if isinstance(found, dict) else {}))

    configure()
    store.watch(("services", builtin.NUCLEUS, "configuration", "mqtt"), configure)
    return client, connection, dataplane.DataPlane(client, cloud.data_plane_url, cloud.thing)


def exchange(
    cloud: settings.Cloud | None,
    client: http.Http | None,
    connection: mqtt.Connection | None,
    identify: Callable[[str], str | None],
    store: configuration_store.ConfigurationStore,
    environment: dict[str, str],
    log: logs.Log,
) -> token_exchange.TokenExchange | None:
    """The token exchange of a device whose cloud has a role alias for it, else None."""
    if cloud is None or client is None or connection is None or not cloud.credentials_url:
        return None

    async def fetch() -> tuple[int, bytes]:
        answer = await client.request("GET", cloud.credentials_url, headers={"x-amzn-iot-thingname": cloud.thing})
        return answer.status, answer.body

    made = token_exchange.TokenExchange(fetch, identify, store, environment, log.bind(part="token_exchange"))
    connection.on_connected(made.forget_failure)
    return made


def provision(
    found: settings.Settings, where: places.Places, leave: leaving.Leaving, log: logs.Log
) -> provisioning.Provisioning:
    """What gives this device its identity; the daemon then begins anew, for components carry its name and region."""

    def done(values: dict[str, Any]) -> None:
        identity.save(where.root, values)
        leave.ask(leaving.AGAIN)

    assert found.provisioning is not None
    return provisioning.Provisioning(found.provisioning, done, log.bind(part="provisioning"))


def measuring(
    connection: mqtt.Connection,
    thing: str,
    where: places.Places,
    running: supervisor.Supervisor,
    nucleus: Callable[[], dict[str, Any]],
    metrics: component_metrics.ComponentMetrics,
    log: logs.Log,
) -> telemetry.Telemetry:
    """The telemetry of a device with a cloud; its settings may change at any time."""
    return telemetry.Telemetry(
        connection,
        thing=thing,
        folder=where.root / "telemetry",
        health=running.health,
        settings=lambda: telemetry_words.read(nucleus()),
        log=log.bind(part="telemetry"),
        reported=metrics.take,
    )


def take_file(store: configuration_store.ConfigurationStore, found: settings.Settings, log: logs.Log) -> None:
    """Puts the file's configuration below everything a deployment has set (stamp 1, as defaults).

    One that was given with `--config` replaces all there is (spec/nucleus.md 4.2), once: a nucleus that is started again
    with the same one, by its supervisor or for a deployment, keeps what deployments have brought since.
    """
    tree = store.tree
    changes: list[configuration.Change] = []
    if found.given and configuration.plain(configuration.subtree(tree, GIVEN)).get("digest") != found.given:
        lost = sorted(desired.installed(tree))
        stamp = store.now()
        changes += [configuration.Change((name,), stamp=stamp, removed=True) for name in configuration.plain(tree)]
        changes.append(configuration.Change((*GIVEN, "digest"), found.given, stamp, "file"))
        tree = configuration.apply(tree, changes)
        log.warning("configuration.replaced", by="the file given with --config", forgotten=", ".join(lost))
    services = {builtin.NUCLEUS: {"configuration": found.nucleus}} | found.services
    for name, one in services.items():
        values = one.get("configuration") if isinstance(one, dict) else None
        if isinstance(values, dict) and values:
            tree, made = configuration.merge(tree, ("services", name, "configuration"), values, 1, "file")
            changes += made
    try:
        store.commit(changes)
    except errors.NucleusError as error:  # a full disk: what was there before still holds
        log.error("configuration.file_not_taken", code=error.code, why=error.detail)


def renew(
    found: settings.Settings, connection: mqtt.Connection, where: places.Places, leave: leaving.Leaving, log: logs.Log
) -> renewal.Renewal:
    """What renews the device's certificate in time."""
    cloud, root = found.cloud, where.root
    assert cloud is not None

    async def call(method: str, path: str, body: bytes, pair: renewal.Pair | None) -> tuple[int, bytes]:
        used = pair or renewal.Pair(cloud.certificate, cloud.private_key)
        client = http.Http(certificate=used.certificate, private_key=used.private_key, root_ca=cloud.root_ca)
        try:
            answer = await client.request(method, cloud.data_plane_url + path, body=body)
        finally:
            await client.close()
        return answer.status, answer.body

    ours = found.nucleus.get("marram")
    days = ours.get("certificateRenewalDays") if isinstance(ours, dict) else None
    made = renewal.Renewal(
        cloud.certificate,
        root,
        call,
        lambda pair: identity.renewed(root, cloud.certificate, pair.certificate, pair.private_key),
        log.bind(part="renewal"),
        proof=f"/greengrass/v2/coreDevices/{parse.quote(cloud.thing)}/thingGroups",
        before_days=days if isinstance(days, int | float) else renewal.BEFORE_DAYS,
        begin_again=lambda: leave.ask(leaving.HAND_OVER),
        unconfirmed=identity.is_unconfirmed(root, cloud.certificate),
        confirmed=lambda: identity.confirm(root),
    )
    connection.on_connected(made.connected)
    return made
