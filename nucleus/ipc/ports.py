"""What the IPC server needs from the rest of the daemon, as small protocols.

Only `app.py` knows who stands behind them; tests use the fakes of tests/nucleus/fakes_ipc.py.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from nucleus.actors import (
    broker,
    client_devices,
    component_metrics,
    consent,
    passwords,
    server_certificates,
    validation,
)
from nucleus.core import component, configuration, explain, local, secrets

T = TypeVar("T")
Cancel = Callable[[], None]


class Log(Protocol):
    """The part of host.logs.Log that the server uses."""

    def debug(self, event: str, /, **fields: Any) -> None: ...
    def info(self, event: str, /, **fields: Any) -> None: ...
    def warning(self, event: str, /, **fields: Any) -> None: ...
    def error(self, event: str, /, **fields: Any) -> None: ...


class StateName(Protocol):
    """Any enum of lifecycle states whose member names are the wire's."""

    @property
    def name(self) -> str: ...


class Health(Protocol):
    """The part of core.lifecycle.Health that components may see."""

    @property
    def version(self) -> str: ...
    @property
    def state(self) -> StateName: ...


class Components(Protocol):
    """The supervisor's side of the operations about components."""

    def health(self) -> Mapping[str, Health]: ...
    def component(self, name: str, /) -> component.Component | None: ...
    def report(self, name: str, state: str, /) -> None: ...
    def restart(self, name: str, /) -> bool: ...
    def stop_component(self, name: str, /) -> bool: ...
    async def pause(self, name: str, /) -> None: ...
    async def resume(self, name: str, /) -> None: ...


class Configuration(Protocol):
    """The configuration store: a commit is durable and told to the watchers when it returns.

    Watchers hear of changes at, below or above their prefix, but not of writes that leave a value as it is.
    """

    @property
    def tree(self) -> configuration.Tree: ...
    def now(self) -> int: ...
    def derived(self, key: Hashable, make: Callable[[], T], /) -> T: ...
    def commit(self, changes: Sequence[configuration.Change], /) -> None: ...
    def watch(
        self, prefix: configuration.Path, callback: Callable[[tuple[configuration.Change, ...]], None], /
    ) -> Cancel: ...


class Deployments(Protocol):
    """The deployer's side. `create_local` returns the new deployment's id and raises NucleusError.

    `cancel_local` is for a deployment that `status` knows; False: it is too late.
    """

    async def create_local(self, request: local.LocalRequest, caller: str, /) -> str: ...
    def status(self, deployment_id: str, /) -> local.LocalStatus | None: ...
    def cancel_local(self, deployment_id: str, /) -> bool: ...
    def list(self) -> list[local.LocalStatus]: ...


class Plans(Protocol):
    """What the command line may ask beyond the model: a deployment's outlook, and why things are as they are."""

    async def plan(self, request: local.LocalRequest, /) -> explain.Outlook: ...
    def why(self) -> tuple[explain.Reason, ...]: ...


class IncomingMessage(Protocol):
    """A message of the cloud's broker; `properties` holds the MQTT 5 fields under their IPC names, blobs as bytes."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def retain(self) -> bool: ...
    @property
    def properties(self) -> Mapping[str, Any]: ...


class Uplink(Protocol):
    """The MQTT connection to the cloud, as nucleus.uplink.mqtt.Connection offers it.

    `publish` returns when the message is in the spool; its properties are the MQTT 5 fields under their IPC names
    (`retain`, `userProperties`, `messageExpiryIntervalSeconds`, `correlationData` as bytes, `responseTopic`,
    `payloadFormat`, `contentType`). `subscribe` returns after the SUBACK. Both raise NucleusError. `on_status` tells when
    `connected` changes.
    """

    @property
    def connected(self) -> bool: ...
    def on_status(self, callback: Callable[[bool], None], /) -> Cancel: ...
    async def publish(self, topic: str, payload: bytes, qos: int, **properties: Any) -> None: ...
    async def subscribe(self, filter_: str, qos: int, deliver: Callable[[IncomingMessage], None], /) -> Cancel: ...


class Secrets(Protocol):
    """The secret manager: both raise secrets.MissingError for what is not here, `get` other NucleusErrors for faults."""

    async def resource(self, id_: str, /) -> str: ...
    async def get(
        self, id_: str, version_id: str = "", stage: str = "", /, *, refresh: bool = False
    ) -> tuple[secrets.Version, bytes]: ...


class Shadows(Protocol):
    """The local shadow service: both raise actors.shadows.Rejected. The classic shadow has the empty name."""

    async def request(self, verb: str, thing: str, name: str, payload: bytes, /) -> bytes: ...
    async def names(self, thing: str, after: str, limit: int, /) -> list[str]: ...


class ClientDeviceAuth(Struct, frozen=True):
    """What client devices and their broker need; `in_force`: whether the built-in component is deployed or configured."""

    devices: client_devices.ClientDevices
    certificates: server_certificates.ServerCertificates
    in_force: Callable[[], bool]


class Ports(Struct, frozen=True):
    """Everything the server asks. `identify` maps a token to the component's name, None for an unknown one."""

    identify: Callable[[str], str | None]
    configuration: Configuration
    components: Components
    deployments: Deployments
    uplink: Uplink
    broker: broker.Broker
    consent: consent.Consent
    validation: validation.Validation
    restart: Callable[[], None] | None = None  # begins an orderly restart of the daemon
    plans: Plans | None = None  # None: nobody deploys here (tests of the server)
    built_ins: Callable[[], Mapping[str, Health]] = dict  # health of the components without processes
    secrets: Secrets | None = None  # aws.greengrass.SecretManager; None on a device without a cloud
    shadows: Shadows | None = None  # aws.greengrass.ShadowManager
    client_devices: ClientDeviceAuth | None = None  # aws.greengrass.clientdevices.Auth
    faults: Callable[[str], bool] | None = None  # whether an operation must fail now: only in a test root
    passwords: passwords.Passwords = msgspec.field(default_factory=passwords.Passwords)
    metrics: component_metrics.ComponentMetrics = msgspec.field(default_factory=component_metrics.ComponentMetrics)
