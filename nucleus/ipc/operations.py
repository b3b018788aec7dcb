"""THE TABLE: every operation of the model, who may call it on what, and its handler (spec/ipc.md 3).

A row's `service` is the accessControl service that must allow the caller (empty: no check); `resource` the request's
member that names the resource, a literal in quotes, or a function of call and request that gives it. Request and response
shapes are in nucleus/wire/shapes.py under the operation's name.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from nucleus.core import authorization
from nucleus.ipc import (
    authorizer,
    call,
    client_devices,
    components,
    configuration,
    deployments,
    explanations,
    iotcore,
    lifecycle,
    metrics,
    passwords,
    pubsub,
    secrets,
    shadows,
    tokens,
    updates,
)
from nucleus.wire import requests, rpc

Answer = dict[str, Any]
Handler = Callable[[call.Call, dict[str, Any]], Answer | Awaitable[Answer]]
Resource = Callable[[call.Call, dict[str, Any]], str | tuple[str, ...] | Awaitable[str]]

_PUBSUB = "aws.greengrass.ipc.pubsub"
_MQTT = authorization.MQTT
_LIFECYCLE = "aws.greengrass.ipc.lifecycle"
_METRIC = "aws.greengrass.ipc.componentmetric"
_SECRET = "aws.greengrass.SecretManager"  # noqa: S105 the name of a policy service
_SHADOW = authorization.SHADOW
_AUTH = "aws.greengrass.clientdevices.Auth"
_CLI = authorization.CLI
_ANY = "'*'"


class Row(Struct, frozen=True):
    """One operation."""

    handler: Handler
    service: str = ""
    resource: str | Resource = ""


TABLE: dict[str, Row] = {
    "PublishToTopic": Row(pubsub.publish, _PUBSUB, "topic"),
    "SubscribeToTopic": Row(pubsub.subscribe, _PUBSUB, "topic"),
    "PublishToIoTCore": Row(iotcore.publish, _MQTT, "topicName"),
    "SubscribeToIoTCore": Row(iotcore.subscribe, _MQTT, "topicName"),
    "SubscribeToIoTCoreConnectionStatus": Row(iotcore.subscribe_to_status),
    "GetConfiguration": Row(configuration.get),
    "UpdateConfiguration": Row(configuration.update),
    "SubscribeToConfigurationUpdate": Row(configuration.subscribe),
    "SubscribeToValidateConfigurationUpdates": Row(updates.subscribe_to_validation),
    "SendConfigurationValidityReport": Row(updates.report_validity),
    "UpdateState": Row(lifecycle.update_state),
    "SubscribeToComponentUpdates": Row(updates.subscribe),
    "DeferComponentUpdate": Row(updates.defer),
    "PauseComponent": Row(lifecycle.pause, _LIFECYCLE, "componentName"),
    "ResumeComponent": Row(lifecycle.resume, _LIFECYCLE, "componentName"),
    "GetComponentDetails": Row(components.details, _CLI, "componentName"),
    "ListComponents": Row(components.list_all, _CLI, _ANY),
    "RestartComponent": Row(lifecycle.restart, _CLI, "componentName"),
    "StopComponent": Row(lifecycle.stop, _CLI, "componentName"),
    "CreateLocalDeployment": Row(deployments.create, _CLI, _ANY),
    "CancelLocalDeployment": Row(deployments.cancel, _CLI, _ANY),
    "GetLocalDeploymentStatus": Row(deployments.status, _CLI, "deploymentId"),
    "ListLocalDeployments": Row(deployments.list_all, _CLI, _ANY),
    "CreateDebugPassword": Row(passwords.create, _CLI, _ANY),
    "GetSecretValue": Row(secrets.get, _SECRET, secrets.resource),
    # The resource of shadows is built from the request (a shadow's topic), not one of its members.
    "GetThingShadow": Row(shadows.get, _SHADOW, shadows.resource),
    "UpdateThingShadow": Row(shadows.update, _SHADOW, shadows.resource),
    "DeleteThingShadow": Row(shadows.delete, _SHADOW, shadows.resource),
    "ListNamedShadowsForThing": Row(shadows.names, _SHADOW, shadows.thing),
    "ValidateAuthorizationToken": Row(tokens.validate),  # judges the caller itself
    "PutComponentMetric": Row(metrics.put, _METRIC, metrics.names),
    "SubscribeToCertificateUpdates": Row(client_devices.subscribe, _AUTH, _ANY),
    "VerifyClientDeviceIdentity": Row(client_devices.verify, _AUTH, _ANY),
    "GetClientDeviceAuthToken": Row(client_devices.token, _AUTH, _ANY),
    "AuthorizeClientDeviceAction": Row(client_devices.authorize, _AUTH, _ANY),
    # Ours, not the model's (wire/extensions.py): no policy can grant them, so only CLI identities may call them.
    "marram#PlanLocalDeployment": Row(explanations.plan, _CLI, _ANY),
    "marram#ExplainDeployment": Row(explanations.why, _CLI, _ANY),
    "marram#ExplainAccess": Row(explanations.access, _CLI, _ANY),
    "marram#RestartNucleus": Row(lifecycle.restart_nucleus, _CLI, _ANY),
    "marram#GetConfigurationOrigins": Row(explanations.origins, _CLI, _ANY),
}


def serve(one: call.Call, payload: bytes, access: authorizer.Authorizer) -> Answer | Awaitable[Answer]:
    """Checks a request and hands it to its handler.

    Raises OperationError; also for an operation that is unknown, because new clients know more than we do.
    """
    row = TABLE.get(one.operation)
    if row is None:
        name = rpc.NAMESPACE + one.operation
        raise rpc.OperationError("ServiceError", f"Operation {name} is not supported by this nucleus")
    if one.ports.faults is not None and one.ports.faults(one.operation):
        raise rpc.OperationError("ServiceError", f"cannot {one.operation}: the fault switch of this test root says so")
    request = _repeated(one.operation, payload) if len(payload) <= _REPEATED_BYTES else _read(one.operation, payload)
    if not row.service:
        return row.handler(one, request)
    resource = _resource(row, one, request)
    if not isinstance(resource, str | tuple):
        return _serve_later(row, one, request, access, resource)
    for each in (resource,) if isinstance(resource, str) else resource:
        access.require(one.caller, row.service, one.operation, each)
    return row.handler(one, request)


def _resource(row: Row, one: call.Call, request: dict[str, Any]) -> str | tuple[str, ...] | Awaitable[str]:
    if not isinstance(row.resource, str):
        return row.resource(one, request)
    return row.resource.strip("'") if row.resource.startswith("'") else str(request[row.resource])


async def _serve_later(
    row: Row, one: call.Call, request: dict[str, Any], access: authorizer.Authorizer, resource: Awaitable[str]
) -> Answer:
    """For a resource that has to be found out first."""
    access.require(one.caller, row.service, one.operation, await resource)
    answer = row.handler(one, request)
    return answer if isinstance(answer, dict) else await answer


def _read(operation: str, payload: bytes) -> dict[str, Any]:
    """The checked request; handlers must leave it as it is."""
    try:
        return requests.check(operation, rpc.load(payload))
    except requests.RequestError as error:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot {operation}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise rpc.OperationError("InvalidArgumentsError", f"cannot {operation}: no JSON: {error}") from None


_REPEATED_BYTES = 128  # components poll with the same few short requests
_repeated = functools.lru_cache(maxsize=1024)(_read)
