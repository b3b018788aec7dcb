"""What the model declares (spec/ipc.md 3): the errors of each operation, and those no input or state can reach here.

The model's Python client does not carry the declared errors; the JavaScript one does and refuses every other, so the
table is checked by running it.
"""

from __future__ import annotations

from collections.abc import Mapping

_SHORT = {
    "SE": "ServiceError",
    "UA": "UnauthorizedError",
    "RNF": "ResourceNotFoundError",
    "IA": "InvalidArgumentsError",
    "CF": "ConflictError",
    "FUC": "FailedUpdateConditionCheckError",
    "CNF": "ComponentNotFoundError",
    "IRD": "InvalidRecipeDirectoryPathError",
    "IAD": "InvalidArtifactsDirectoryPathError",
    "IT": "InvalidTokenError",
    "IC": "InvalidCredentialError",
    "ICT": "InvalidClientDeviceAuthTokenError",
}
SHORT: Mapping[str, str] = {name: short for short, name in _SHORT.items()}

_TABLE = """
PublishToTopic SE UA
SubscribeToTopic SE UA IA
PublishToIoTCore SE UA
SubscribeToIoTCore SE UA
SubscribeToIoTCoreConnectionStatus SE
GetConfiguration SE RNF
UpdateConfiguration SE UA CF FUC IA
SubscribeToConfigurationUpdate SE RNF
SubscribeToValidateConfigurationUpdates SE
SendConfigurationValidityReport SE IA
UpdateState SE RNF
SubscribeToComponentUpdates SE RNF
DeferComponentUpdate SE RNF IA
PauseComponent SE UA RNF
ResumeComponent SE UA RNF
GetSecretValue SE UA RNF
GetThingShadow SE UA IA RNF
UpdateThingShadow SE UA IA CF
DeleteThingShadow SE UA IA RNF
ListNamedShadowsForThing SE UA IA RNF
GetComponentDetails SE RNF IA
ListComponents SE
RestartComponent SE CNF IA
StopComponent SE CNF IA
CreateLocalDeployment SE IRD IAD IA
CancelLocalDeployment SE RNF IA
GetLocalDeploymentStatus SE RNF
ListLocalDeployments SE
CreateDebugPassword SE UA
ValidateAuthorizationToken SE UA IT
PutComponentMetric SE UA IA
SubscribeToCertificateUpdates SE UA IA
VerifyClientDeviceIdentity SE UA IA
GetClientDeviceAuthToken SE UA IA IC
AuthorizeClientDeviceAction SE UA IA ICT
"""
ERRORS: Mapping[str, tuple[str, ...]] = {
    line.split()[0]: tuple(_SHORT[one] for one in line.split()[1:]) for line in _TABLE.strip().splitlines()
}

# Declared, but nothing a client sends and no state of the device leads there.
UNREACHABLE: Mapping[tuple[str, str], str] = {
    (
        "UpdateConfiguration",
        "ConflictError",
    ): "writes are applied one after another by one loop, so none conflicts; a stale one is FailedUpdateConditionCheckError",
    (
        "ListNamedShadowsForThing",
        "ResourceNotFoundError",
    ): "a thing without shadows has an empty list, as in the original",
}
