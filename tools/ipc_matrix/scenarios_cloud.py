"""The scenarios that have the cloud behind them: its messages, secrets, shadows, client devices, and the connection itself."""

from __future__ import annotations

from tools.ipc_matrix import scenarios, steps
from tools.ipc_matrix.steps import Call, Do, Event, Json, Scenario, Subscribe

IA, RNF, UA = scenarios.IA, scenarios.RNF, scenarios.UA
blob, document, ok = steps.blob, steps.document, steps.ok
refused, not_opened = steps.refused, steps.not_opened

_FIELDS = {
    "topicName": "mx/<thing>/up",
    "payload": blob("hello"),
    "userProperties": [{"key": "k", "value": "v1"}, {"key": "k", "value": "v2"}],
    "messageExpiryIntervalSeconds": 600,
    "correlationData": blob(b"\x01\x02"),
    "responseTopic": "mx/<thing>/answers",
    "payloadFormat": "1",
    "contentType": "text/plain",
}
_PUBLISH = {**_FIELDS, "qos": "1", "retain": False}
_LISTEN = {"topicName": "mx/<thing>/#", "qos": "1"}
# The broker counts the expiry down, so it may come as less.
_ARRIVED = {"message": {**_FIELDS, "retain": False, "messageExpiryIntervalSeconds": int}}
_IOT_CORE = (
    ok("PublishToIoTCore", _PUBLISH),
    refused("PublishToIoTCore", UA, _PUBLISH, role="poor"),
    Scenario("SubscribeToIoTCore", "ok", (Subscribe("SubscribeToIoTCore", _LISTEN),)),
    Scenario(
        "SubscribeToIoTCore",
        "event message",
        (Subscribe("SubscribeToIoTCore", _LISTEN), Call("PublishToIoTCore", _PUBLISH), Event(_ARRIVED)),
    ),
    not_opened("SubscribeToIoTCore", UA, _LISTEN, role="poor"),
)

_SECRET = {"secretId": "<secret>", "versionId": str, "versionStage": ["AWSCURRENT"]}
_SECRETS = (
    ok(
        "GetSecretValue",
        {"secretId": "<secret_name>", "versionStage": "AWSCURRENT", "refresh": True},
        {**_SECRET, "secretValue": {"secretString": "the-value"}},
    ),
    ok(
        "GetSecretValue",
        {"secretId": "<secret_binary>"},
        {"secretId": "<secret_binary>", "secretValue": {"secretBinary": blob(b"\x00\x01\xff")}},
    ),
    refused("GetSecretValue", UA, {"secretId": "<secret>"}, role="poor"),
    refused("GetSecretValue", RNF, {"secretId": "not-configured"}),
)

_SHADOW = {"thingName": "<thing>", "shadowName": "matrix"}
_UPDATE = {**_SHADOW, "payload": document({"state": {"desired": {"on": True}, "reported": {"on": False}}})}
_LIST = {"thingName": "<thing>", "pageSize": 10}
_CONFLICT = {**_SHADOW, "payload": document({"state": {"desired": {"on": False}}, "version": 999})}
_NO_SHADOW = {"thingName": "<thing>", "shadowName": "not-there"}
_SHADOWS = (
    ok(
        "UpdateThingShadow",
        _UPDATE,
        {"payload": Json({"state": {"desired": {"on": True}, "reported": {"on": False}}, "version": int})},
    ),
    refused("UpdateThingShadow", "ConflictError", _CONFLICT),
    refused("UpdateThingShadow", IA, {**_SHADOW, "payload": blob("no json")}),
    refused("UpdateThingShadow", UA, _UPDATE, role="poor"),
    ok(
        "GetThingShadow",
        _SHADOW,
        {"payload": Json({"state": {"desired": {"on": True}, "delta": {"on": True}}, "version": int})},
    ),
    refused("GetThingShadow", RNF, _NO_SHADOW),
    refused("GetThingShadow", IA, {"thingName": "not a thing's name!"}),
    refused("GetThingShadow", UA, _SHADOW, role="poor"),
    ok("ListNamedShadowsForThing", _LIST, {"results": ["matrix"], "timestamp": float}),
    refused("ListNamedShadowsForThing", IA, {**_LIST, "pageSize": 101}),
    refused("ListNamedShadowsForThing", UA, _LIST, role="poor"),
    Scenario(
        "DeleteThingShadow",
        "ok",
        (Call("UpdateThingShadow", _UPDATE), Call("DeleteThingShadow", _SHADOW, {"payload": None})),
    ),
    refused("DeleteThingShadow", RNF, _NO_SHADOW),
    refused("DeleteThingShadow", IA, {"thingName": "not a thing's name!"}),
    refused("DeleteThingShadow", UA, _SHADOW, role="poor"),
)

_SERVER = {"certificateOptions": {"certificateType": "SERVER"}}
_CERTIFICATE = {"privateKey": str, "publicKey": str, "certificate": str, "caCertificates": list}
_IDENTITY = {"credential": {"clientDeviceCertificate": "<client_certificate>"}}
_CREDENTIAL = {"credential": {"mqttCredential": {"clientId": "<client>", "certificatePem": "<client_certificate>"}}}
_BAD_CREDENTIAL = {"credential": {"mqttCredential": {"clientId": "<client>", "certificatePem": "no certificate"}}}
_ACTION = {"clientDeviceAuthToken": "<client_token>", "operation": "mqtt:publish", "resource": "mqtt:topic:matrix/up"}
_TOKEN = Call(
    "GetClientDeviceAuthToken",
    _CREDENTIAL,
    {"clientDeviceAuthToken": str},
    save={"client_token": "clientDeviceAuthToken"},
)
_CLIENT_DEVICES = (
    Scenario("SubscribeToCertificateUpdates", "ok", (Subscribe("SubscribeToCertificateUpdates", _SERVER),)),
    Scenario(
        "SubscribeToCertificateUpdates",
        "event certificateUpdate",
        (Subscribe("SubscribeToCertificateUpdates", _SERVER), Event({"certificateUpdate": _CERTIFICATE})),
    ),
    not_opened("SubscribeToCertificateUpdates", UA, _SERVER, role="poor"),
    not_opened(
        "SubscribeToCertificateUpdates", IA, {"certificateOptions": {"certificateType": "CLIENT"}}, refusable=True
    ),
    ok("VerifyClientDeviceIdentity", _IDENTITY, {"isValidClientDevice": True}),
    refused("VerifyClientDeviceIdentity", UA, _IDENTITY, role="poor"),
    refused("VerifyClientDeviceIdentity", IA, {"credential": {}}, refusable=True),
    Scenario("GetClientDeviceAuthToken", "ok", (_TOKEN,)),
    refused("GetClientDeviceAuthToken", UA, _CREDENTIAL, role="poor"),
    refused("GetClientDeviceAuthToken", "InvalidCredentialError", _BAD_CREDENTIAL),
    refused("GetClientDeviceAuthToken", IA, {"credential": {}}, refusable=True),
    Scenario(
        "AuthorizeClientDeviceAction",
        "ok",
        (_TOKEN, Call("AuthorizeClientDeviceAction", _ACTION, {"isAuthorized": True})),
    ),
    refused("AuthorizeClientDeviceAction", UA, _ACTION, role="poor"),
    refused("AuthorizeClientDeviceAction", IA, {**_ACTION, "operation": ""}),
    refused(
        "AuthorizeClientDeviceAction",
        "InvalidClientDeviceAuthTokenError",
        {**_ACTION, "clientDeviceAuthToken": "WRONG"},
    ),
)

_STATUS = "SubscribeToIoTCoreConnectionStatus"
_CONNECTION = (
    Scenario(_STATUS, "ok", (Subscribe(_STATUS),)),
    Scenario(
        _STATUS,
        "event connectionStatusEvent",
        (
            Subscribe(_STATUS),
            Do("cloud_down"),
            Event({"connectionStatusEvent": {"status": "DISCONNECTED"}}, skip=True),
            Do("cloud_up"),
            Event({"connectionStatusEvent": {"status": "CONNECTED"}}, skip=True),
        ),
    ),
)

SCENARIOS = _IOT_CORE + _SECRETS + _SHADOWS + _CLIENT_DEVICES
LAST = _CONNECTION  # these take the cloud away for a moment
