"""The scenarios that need nothing but the device: messages, configuration, life cycle, deployments, its own tokens.

Roles: `main` may do everything its policies can grant, `poor` has no policy, `stream` is aws.greengrass.StreamManager, `cli`
is the device's user (a second connection of main with the command line's token).
"""

from __future__ import annotations

from tools.ipc_matrix import steps
from tools.ipc_matrix.steps import Call, Do, Event, Has, Scenario, Subscribe

blob, ok, refused, not_opened = steps.blob, steps.ok, steps.refused, steps.not_opened

IA = "InvalidArgumentsError"
RNF = "ResourceNotFoundError"
UA = "UnauthorizedError"
SE = "ServiceError"
NOBODY = "com.example.Nobody"
NO_DEPLOYMENT = "00000000-0000-4000-8000-000000000000"

_JSON = {"topic": "mx/json", "publishMessage": {"jsonMessage": {"message": {"n": [1, 1.5, "ü", True, None]}}}}
_BINARY = {"topic": "mx/bin", "publishMessage": {"binaryMessage": {"message": blob(b"\x00\xff\x10")}}}
_ALL = {"topic": "mx/#", "receiveMode": "RECEIVE_ALL_MESSAGES"}
_PUBSUB = (
    ok("PublishToTopic", _JSON),
    refused("PublishToTopic", UA, _JSON, role="poor"),
    Scenario("SubscribeToTopic", "ok", (Subscribe("SubscribeToTopic", _ALL),)),
    Scenario(
        "SubscribeToTopic",
        "event jsonMessage",
        (
            Subscribe("SubscribeToTopic", _ALL),
            Call("PublishToTopic", _JSON),
            Event({"jsonMessage": {"message": {"n": [1, 1.5, "ü", True, None]}, "context": {"topic": "mx/json"}}}),
        ),
    ),
    Scenario(
        "SubscribeToTopic",
        "event binaryMessage",
        (
            Subscribe("SubscribeToTopic", _ALL),
            Call("PublishToTopic", _BINARY),
            Event({"binaryMessage": {"message": blob(b"\x00\xff\x10"), "context": {"topic": "mx/bin"}}}),
        ),
    ),
    not_opened("SubscribeToTopic", IA, {"topic": ""}),
    not_opened("SubscribeToTopic", UA, {"topic": "mx/json"}, role="poor"),
)

_CONFIGURATION = (
    ok(
        "GetConfiguration",
        {"keyPath": ["nested"]},
        {"componentName": "<main>", "value": {"text": "hello", "number": 7, "list": [1, "two"]}},
    ),
    refused("GetConfiguration", RNF, {"keyPath": ["not", "there"]}),
    ok("UpdateConfiguration", {"keyPath": ["own"], "timestamp": "<now>", "valueToMerge": {"a": 1, "b": {"c": [2]}}}),
    refused("UpdateConfiguration", UA, {"keyPath": [], "timestamp": "<now>", "valueToMerge": {"a": 1}}, role="cli"),
    refused("UpdateConfiguration", IA, {"timestamp": "<now>", "valueToMerge": {"accessControl": {}}}),
    refused(
        "UpdateConfiguration",
        "FailedUpdateConditionCheckError",
        {"keyPath": ["own"], "timestamp": 1000.5, "valueToMerge": {"a": 2}},
    ),
    Scenario(
        "SubscribeToConfigurationUpdate",
        "ok",
        (Subscribe("SubscribeToConfigurationUpdate", {"keyPath": ["nested"]}),),
    ),
    Scenario(
        "SubscribeToConfigurationUpdate",
        "event configurationUpdateEvent",
        (
            Subscribe("SubscribeToConfigurationUpdate", {"componentName": "<main>", "keyPath": ["watched"]}),
            Call("UpdateConfiguration", {"keyPath": ["watched"], "timestamp": "<now>", "valueToMerge": {"n": "<now>"}}),
            Event({"configurationUpdateEvent": {"componentName": "<main>", "keyPath": ["watched", "n"]}}),
        ),
    ),
    not_opened("SubscribeToConfigurationUpdate", RNF, {"keyPath": ["not", "there"]}),
)

_DEPLOY_ME = Do("deploy_me", save="deployment")
# Only a deployment of the cloud asks the components whether they may be updated.
_FROM_CLOUD, _ENDED = Do("deploy_from_cloud", save="deployment"), Do("wait_cloud", {"deployment": "<deployment>"})
_REPORTED = Do("wait_deployment", {"deployment": "<deployment>"})
_VALIDATE = {"validateConfigurationUpdateEvent": {"configuration": dict, "deploymentId": "<deployment>"}}
_REPORT = {"configurationValidityReport": {"status": "ACCEPTED", "deploymentId": "<deployment>", "message": "fine"}}
_NO_REPORT = {"configurationValidityReport": {"status": "REJECTED", "deploymentId": NO_DEPLOYMENT}}
_PRE = {"preUpdateEvent": {"deploymentId": "<deployment>", "isGgcRestarting": False}}
_POST = {"postUpdateEvent": {"deploymentId": "<deployment>"}}
_GO_ON = {"deploymentId": "<deployment>", "recheckAfterMs": 0, "message": "go on"}
_UPDATES = (
    Scenario("SubscribeToValidateConfigurationUpdates", "ok", (Subscribe("SubscribeToValidateConfigurationUpdates"),)),
    Scenario(
        "SubscribeToValidateConfigurationUpdates",
        "event validateConfigurationUpdateEvent",
        (
            Subscribe("SubscribeToValidateConfigurationUpdates"),
            _DEPLOY_ME,
            Event(_VALIDATE),
            Call("SendConfigurationValidityReport", _REPORT),
            _REPORTED,
        ),
    ),
    Scenario(
        "SendConfigurationValidityReport",
        "ok",
        (
            Subscribe("SubscribeToValidateConfigurationUpdates"),
            _DEPLOY_ME,
            Event(_VALIDATE),
            Call("SendConfigurationValidityReport", _REPORT),
            _REPORTED,
        ),
    ),
    refused("SendConfigurationValidityReport", IA, _NO_REPORT),
    Scenario("SubscribeToComponentUpdates", "ok", (Subscribe("SubscribeToComponentUpdates"),)),
    Scenario(
        "SubscribeToComponentUpdates",
        "event preUpdateEvent",
        (
            Subscribe("SubscribeToComponentUpdates"),
            _FROM_CLOUD,
            Event(_PRE),
            Call("DeferComponentUpdate", _GO_ON),
            _ENDED,
        ),
    ),
    Scenario(
        "SubscribeToComponentUpdates",
        "event postUpdateEvent",
        (
            Subscribe("SubscribeToComponentUpdates"),
            _FROM_CLOUD,
            Event(_PRE),
            Call("DeferComponentUpdate", _GO_ON),
            Event(_POST),
            _ENDED,
        ),
    ),
    Scenario(
        "DeferComponentUpdate",
        "ok",
        (
            Subscribe("SubscribeToComponentUpdates"),
            _FROM_CLOUD,
            Event(_PRE),
            Call("DeferComponentUpdate", {"deploymentId": "<deployment>", "recheckAfterMs": 300, "message": "busy"}),
            Event(_PRE),  # asked again
            Call("DeferComponentUpdate", _GO_ON),
            _ENDED,
        ),
    ),
    not_opened("SubscribeToComponentUpdates", RNF, role="cli"),
    refused("DeferComponentUpdate", RNF, {"deploymentId": NO_DEPLOYMENT, "recheckAfterMs": 0}, role="cli"),
    refused("DeferComponentUpdate", IA, {"deploymentId": NO_DEPLOYMENT, "recheckAfterMs": 0}),
    Scenario(
        "DeferComponentUpdate",
        SE,
        (
            Subscribe("SubscribeToComponentUpdates"),
            Call("DeferComponentUpdate", {"deploymentId": NO_DEPLOYMENT, "recheckAfterMs": 0}, error=SE),
        ),
    ),
    not_opened("SubscribeToValidateConfigurationUpdates", SE, role="cli"),
)

_TARGET, _NONE, _EMPTY = {"componentName": "<target>"}, {"componentName": NOBODY}, {"componentName": ""}
_LIFECYCLE = (
    ok("UpdateState", {"state": "RUNNING"}),
    refused("UpdateState", RNF, {"state": "RUNNING"}, role="cli"),
    ok("PauseComponent", _TARGET),
    refused("PauseComponent", UA, _TARGET, role="poor"),
    refused("PauseComponent", RNF, _NONE),
    ok("ResumeComponent", _TARGET),
    refused("ResumeComponent", UA, _TARGET, role="poor"),
    refused("ResumeComponent", RNF, _NONE),
    ok(
        "GetComponentDetails",
        _TARGET,
        {"componentDetails": {"componentName": "<target>", "version": "1.0.0", "state": "RUNNING"}},
    ),
    refused("GetComponentDetails", RNF, _NONE),
    refused("GetComponentDetails", IA, _EMPTY, refusable=True),
    ok(
        "ListComponents",
        {},
        {"components": Has({"componentName": "<main>", "version": "1.0.0", "state": "RUNNING", "configuration": dict})},
    ),
    ok("RestartComponent", _TARGET, {"restartStatus": "SUCCEEDED"}),
    refused("RestartComponent", "ComponentNotFoundError", _NONE),
    refused("RestartComponent", IA, _EMPTY, refusable=True),
    Scenario(
        "StopComponent",
        "ok",
        (
            Do("wait_state", {"name": "<target>", "state": "RUNNING"}),
            Call("StopComponent", _TARGET, {"stopStatus": "SUCCEEDED"}),
            Do("wait_state", {"name": "<target>", "state": "FINISHED"}),
        ),
    ),
    refused("StopComponent", "ComponentNotFoundError", _NONE),
    refused("StopComponent", IA, _EMPTY, refusable=True),
)

_NEW = {
    "recipeDirectoryPath": "<recipes>",
    "rootComponentVersionsToAdd": {"<extra>": "1.0.0"},
    "componentToConfiguration": {"<extra>": {"MERGE": {"a": 1}}},
    "componentToRunWithInfo": {
        "<extra>": {"posixUser": "<user>", "systemResourceLimits": {"cpus": 1.5, "memory": 64000}}
    },
    "failureHandlingPolicy": "ROLLBACK",
}
_ID = {"deploymentId": "<created>"}
_SAVE = {"created": "deploymentId"}
_DEPLOYMENTS = (
    Scenario(
        "CreateLocalDeployment",
        "ok",
        (
            Call("CreateLocalDeployment", _NEW, {"deploymentId": str}, save=_SAVE),
            Do("wait_deployment", {"deployment": "<created>"}),
        ),
    ),
    refused("CreateLocalDeployment", "InvalidRecipeDirectoryPathError", {"recipeDirectoryPath": "/not/there"}),
    refused("CreateLocalDeployment", "InvalidArtifactsDirectoryPathError", {"artifactsDirectoryPath": "/not/there"}),
    refused("CreateLocalDeployment", IA, {"componentToConfiguration": {"<extra>": {"WRONG": 1}}}),
    ok(
        "GetLocalDeploymentStatus",
        _ID,
        {
            "deployment": {
                "deploymentId": "<created>",
                "status": "SUCCEEDED",
                "createdOn": str,
                "deploymentStatusDetails": {"detailedDeploymentStatus": "SUCCESSFUL"},
            }
        },
    ),
    refused("GetLocalDeploymentStatus", RNF, {"deploymentId": NO_DEPLOYMENT}),
    ok("ListLocalDeployments", {}, {"localDeployments": Has({"deploymentId": "<created>", "status": "SUCCEEDED"})}),
    Scenario(
        "CancelLocalDeployment",
        "ok",
        (
            Do("fault", {"text": "pause-before-activation:30"}),
            _DEPLOY_ME,
            Do("wait_deployment", {"deployment": "<deployment>", "status": "IN_PROGRESS"}),
            Call("CancelLocalDeployment", {"deploymentId": "<deployment>"}, {"message": str}, role="cli"),
            Do("wait_deployment", {"deployment": "<deployment>", "status": "CANCELED"}),
        ),
    ),
    refused("CancelLocalDeployment", RNF, {"deploymentId": NO_DEPLOYMENT}, role="cli"),
    refused("CancelLocalDeployment", IA, {"deploymentId": "no-uuid"}, role="cli"),
)

_METRIC = {"metrics": [{"name": "Bytes", "unit": "BYTES", "value": 12.5}]}
_TOKENS = (
    ok("CreateDebugPassword", {}, {"username": str, "password": str, "passwordExpiration": float}),
    refused("CreateDebugPassword", UA, role="poor"),
    ok("ValidateAuthorizationToken", {"token": "<token>"}, {"isValid": True}, role="stream"),
    refused("ValidateAuthorizationToken", "InvalidTokenError", {"token": "WRONG"}, role="stream"),
    refused("ValidateAuthorizationToken", UA, {"token": "<token>"}),
    ok("PutComponentMetric", _METRIC, role="stream"),
    refused("PutComponentMetric", UA, _METRIC),
    refused("PutComponentMetric", IA, {"metrics": []}, role="stream"),
)

SCENARIOS = _PUBSUB + _CONFIGURATION + _LIFECYCLE + _UPDATES + _DEPLOYMENTS + _TOKENS
