"""Builds the services behind the built-in components from the daemon's parts, for the composition root (app.py)."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct, structs

from nucleus import settings
from nucleus.actors import (
    broker,
    builtins,
    client_devices,
    secrets,
    server_certificates,
    shadow_manager,
    strongbox,
    token_exchange,
)
from nucleus.core import builtin, configuration, shadow_settings
from nucleus.core import client_devices as device_words
from nucleus.core import secrets as secret_words
from nucleus.core.lifecycle import State
from nucleus.host import addresses, faults, logs, places, vault
from nucleus.ipc import ports
from nucleus.ipc import shadows as shadow_messages
from nucleus.store import client_devices as device_store
from nucleus.store import configuration as configuration_store
from nucleus.store import secrets as secrets_store
from nucleus.store import shadows as shadow_store
from nucleus.uplink import dataplane, http, mqtt, secretsmanager


class Parts(Struct, frozen=True):
    """What the services are built from; the first four are None on a device without a cloud."""

    cloud: settings.Cloud | None
    client: http.Http | None
    connection: mqtt.Connection | None
    tokens: token_exchange.TokenExchange | None
    where: places.Places
    store: configuration_store.ConfigurationStore
    known: builtins.BuiltIns
    local: broker.Broker
    thing: str  # empty without a cloud
    log: logs.Log


class Services(Struct, frozen=True):
    """The services by their names in ipc.ports.Ports; None for what this device cannot have."""

    secrets: secrets.Secrets | None = None
    shadows: shadow_manager.ShadowManager | None = None
    client_devices: ports.ClientDeviceAuth | None = None
    faults: Callable[[str], bool] | None = None

    def running(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run for them."""
        certificates = self.client_devices.certificates if self.client_devices is not None else None
        return [one.run() for one in (self.secrets, self.shadows, certificates) if one is not None]


def build(parts: Parts) -> Services:
    return Services(
        secrets=secret_manager(parts),
        shadows=shadow_service(parts),
        client_devices=client_device_auth(parts),
        faults=faults.service_errors(parts.where.root, parts.log),
    )


def shadow_service(parts: Parts) -> shadow_manager.ShadowManager:
    """The local shadows of every device; they are synchronised where there is a cloud."""
    store, name = parts.store, builtin.SHADOW_MANAGER

    def read() -> shadow_settings.Settings | None:
        if not builtin.in_force(store.tree, name):
            return None
        return shadow_settings.read(_settings(store, name), parts.thing)

    made = shadow_manager.ShadowManager(
        shadow_store.ShadowStore(parts.where.work(name)),
        parts.local,
        shadow_messages.Messages(),
        parts.connection,
        read=read,
        report=lambda is_well, why: parts.known.report(name, State.RUNNING if is_well else State.ERRORED, why),
        log=parts.log.bind(part="shadows"),
    )
    store.watch(("services", name), lambda _changes: made.changed())
    if parts.connection is not None:
        parts.connection.on_connected(made.connected)
    return made


def client_device_auth(parts: Parts) -> ports.ClientDeviceAuth:
    """What client devices and their broker need; without a cloud nobody new can be verified."""
    store, name, log = parts.store, builtin.CLIENT_DEVICES, parts.log.bind(part="client_devices")
    kept = device_store.ClientDeviceStore(parts.where.root / "client_devices")

    def read() -> device_words.Settings:
        return device_words.read(_settings(store, name))

    def changed(_changes: tuple[configuration.Change, ...] = ()) -> None:
        devices.changed()
        certificates.changed()
        if builtin.in_force(store.tree, name):
            why = "; ".join(read().problems)
            parts.known.report(name, State.ERRORED if why else State.RUNNING, why)

    devices = client_devices.ClientDevices(kept, _client_device_question(parts), read, log)
    certificates = server_certificates.ServerCertificates(kept, vault.call, addresses.names, read, log)
    changed()
    store.watch(("services", name), changed)
    return ports.ClientDeviceAuth(devices, certificates, lambda: builtin.in_force(store.tree, name))


def _client_device_question(parts: Parts) -> client_devices.Ask:
    cloud, client = parts.cloud, parts.client
    if cloud is not None and client is not None:
        return dataplane.DataPlane(client, cloud.data_plane_url, cloud.thing).client_device

    async def nobody(_pem: str, _thing: str) -> tuple[bool, float]:
        raise dataplane.Unavailable(
            "NETWORK_ERROR", "cannot verify client devices: this device has no identity in a cloud"
        )

    return nobody


def secret_manager(parts: Parts) -> secrets.Secrets | None:
    """The secret manager of a device with an identity, else None; without a role alias it serves what it has stored."""
    cloud, client, connection, store = parts.cloud, parts.client, parts.connection, parts.store
    if cloud is None or client is None or connection is None:
        return None
    log = parts.log.bind(part="secrets")

    def region(secret: str) -> str:
        usual = str(_settings(store, builtin.NUCLEUS).get("awsRegion") or "us-east-1")
        return secret_words.region(secret, usual)

    def read() -> secret_words.Settings:
        found = secret_words.read(_settings(store, builtin.SECRET_MANAGER))
        usual = secret_words.address(_settings(store, builtin.NUCLEUS))
        return structs.replace(found, endpoint=found.endpoint or usual)

    def endpoint(secret: str) -> str:
        return secret_words.endpoint(read().endpoint, secret, region(secret))

    def report(why: str) -> None:
        if builtin.in_force(store.tree, builtin.SECRET_MANAGER):
            parts.known.report(builtin.SECRET_MANAGER, State.ERRORED if why else State.RUNNING, why)

    made = secrets.Secrets(
        strongbox.Strongbox(secrets_store.SecretStore(parts.where.root / "secrets"), cloud.private_key, log),
        secretsmanager.SecretsManager(client, lambda: _credentials(parts.tokens), endpoint, region).get,
        read,
        log,
        report,
    )
    for name in (builtin.SECRET_MANAGER, builtin.NUCLEUS):
        store.watch(("services", name, "configuration"), lambda _changes: made.changed())
    connection.on_connected(made.connected)
    return made


async def _credentials(tokens: token_exchange.TokenExchange | None) -> secretsmanager.Credentials:
    """Those of the role alias, as components get them. Raises dataplane.Unavailable."""
    failing = "cannot ask for secrets"
    if tokens is None:
        why = f"{failing}: this device has no role for it; set iotCredEndpoint and iotRoleAlias of {builtin.NUCLEUS}"
        raise dataplane.Unavailable("CREDENTIAL_ENDPOINT_AUTH_FAILURE", why)
    try:
        answer = await tokens.current()
    except TimeoutError:
        raise dataplane.Unavailable("NETWORK_ERROR", f"{failing}: the cloud gives no credentials in time") from None
    found = json.loads(answer.body)
    if answer.status != 200:
        code = "CREDENTIAL_ENDPOINT_AUTH_FAILURE" if 400 <= answer.status < 500 else "NETWORK_ERROR"
        raise dataplane.Unavailable(code, f"{failing}: {found['message']}")
    return secretsmanager.Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])


def _settings(store: configuration_store.ConfigurationStore, name: str) -> dict[str, Any]:
    """The configuration of a built-in component."""
    try:
        found = configuration.get(store.tree, ("services", name, "configuration"))
    except KeyError:
        return {}
    return found if isinstance(found, dict) else {}
