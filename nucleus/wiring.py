"""Builds the parts of the daemon that need several others, for the composition root (app.py)."""

from __future__ import annotations

from collections.abc import Callable

from nucleus import settings
from nucleus.actors import token_exchange
from nucleus.host import logs
from nucleus.store import configuration as configuration_store
from nucleus.uplink import http, mqtt


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
