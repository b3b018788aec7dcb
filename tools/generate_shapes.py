"""Writes nucleus/wire/shapes.py from the model inside the installed awsiotsdk.

    .venv/bin/python -m tools.generate_shapes           write the file
    .venv/bin/python -m tools.generate_shapes --check   exit 1 when the file is out of date

The Python model does not say which members are required: REQUIRED adds that, and WIDER the values the original accepts
beyond the model (spec/ipc.md 3, spec/nucleus.md 2.9).
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from awsiot.greengrasscoreipc import model

TARGET = Path(__file__).resolve().parent.parent / "nucleus" / "wire" / "shapes.py"
NAMESPACE = "aws.greengrass#"

# keyPath of GetConfiguration and SubscribeToConfigurationUpdate is required in the model and optional in the original.
REQUIRED = {
    name: members.split()
    for name, members in {
        "PublishToTopicRequest": "topic publishMessage",
        "SubscribeToTopicRequest": "topic",
        "PublishToIoTCoreRequest": "topicName qos",
        "SubscribeToIoTCoreRequest": "topicName qos",
        "UpdateConfigurationRequest": "timestamp valueToMerge",
        "SendConfigurationValidityReportRequest": "configurationValidityReport",
        "ConfigurationValidityReport": "status deploymentId",
        "UpdateStateRequest": "state",
        "DeferComponentUpdateRequest": "deploymentId",
        "PauseComponentRequest": "componentName",
        "ResumeComponentRequest": "componentName",
        "GetSecretValueRequest": "secretId",
        "GetThingShadowRequest": "thingName",
        "UpdateThingShadowRequest": "thingName payload",
        "DeleteThingShadowRequest": "thingName",
        "ListNamedShadowsForThingRequest": "thingName",
        "GetComponentDetailsRequest": "componentName",
        "RestartComponentRequest": "componentName",
        "StopComponentRequest": "componentName",
        "GetLocalDeploymentStatusRequest": "deploymentId",
        "ValidateAuthorizationTokenRequest": "token",
        "PutComponentMetricRequest": "metrics",
        "Metric": "name unit value",
        "SubscribeToCertificateUpdatesRequest": "certificateOptions",
        "CertificateOptions": "certificateType",
        "VerifyClientDeviceIdentityRequest": "credential",
        "GetClientDeviceAuthTokenRequest": "credential",
        "AuthorizeClientDeviceActionRequest": "clientDeviceAuthToken operation resource",
    }.items()
}
WIDER = {"ReportedLifecycleState": ["FINISHED"]}
_PLAIN = {"str": "string", "int": "integer", "float": "double", "bool": "boolean"}


def operations() -> dict[str, tuple[str, str, str, str]]:
    """Operation -> (kind, request shape, response shape, event shape), read from the model's operation classes."""
    found = {}
    classes: list[tuple[str, Any]] = inspect.getmembers(model, inspect.isclass)
    for _, one in classes:
        if not one.__name__.endswith("Operation") or one.__module__ != model.__name__:
            continue
        events = one._response_stream_type()
        shapes = (_name(one._request_type()), _name(one._response_type()), _name(events) if events else "")
        found[_name(one)] = ("streaming" if events else "unary", *shapes)
    return dict(sorted(found.items()))


def shapes() -> dict[str, str]:
    """Shape -> its members as text, e.g. `topic*:string publishMessage*:PublishMessage`; a union begins with `|`."""
    found = {}
    for name, shape in inspect.getmembers(model, inspect.isclass):
        if hasattr(shape, "_from_payload") and "_to_payload" in vars(shape):
            union = "tagged union" in (shape.__doc__ or "")
            found[name] = ("| " if union else "") + " ".join(_members(name, shape))
    return dict(sorted(found.items()))


def enums() -> dict[str, tuple[str, ...]]:
    """Enum -> its values."""
    found = {}
    for name, one in inspect.getmembers(model, inspect.isclass):
        values = [v for k, v in vars(one).items() if k.isupper() and isinstance(v, str)]
        if values and one.__module__ == model.__name__:
            found[name] = tuple(values + WIDER.get(name, []))
    return dict(sorted(found.items()))


def _name(one: Any) -> str:
    return str(one._model_name()).removeprefix(NAMESPACE)


def _members(name: str, shape: Any) -> list[str]:
    hints = inspect.signature(shape.__init__).parameters
    source = inspect.getsource(shape._to_payload)
    pairs = re.findall(r"if self\.(\w+) is not None:\n\s+payload\['(\w+)'\] = (.*)", source)
    required = REQUIRED.get(name, [])
    unknown = set(required) - {wire for _, wire, _ in pairs}
    if unknown:
        raise SystemExit(f"cannot generate {name}: the model knows no member {', '.join(sorted(unknown))}")
    found = []
    for attribute, wire, expression in pairs:
        kind = _kind(str(hints[attribute].annotation), expression, _enum(shape, attribute))
        found.append(f"{wire}{'*' if wire in required else ''}:{kind}")
    return found


def _enum(shape: Any, attribute: str) -> str:
    found = re.search(rf"^\s+{attribute}: (\w+) enum value", shape.__doc__ or "", re.MULTILINE)
    return found.group(1) if found else ""


def _kind(annotation: str, expression: str, enum: str) -> str:
    """One of the kinds that nucleus/wire/requests.py checks."""
    if "base64" in expression:
        return "blob"
    if ".timestamp()" in expression:
        return "timestamp"
    text = annotation.replace("awsiot.greengrasscoreipc.model.", "").replace("typing.", "").replace("Optional", "Union")
    text = re.sub(r"^Union\[(.*?)(, NoneType)?\]$", r"\1", text)
    return _collection(text).replace("string", enum or "string")


def _collection(text: str) -> str:
    if text.startswith("List["):
        return f"[{_collection(text[5:-1])}]"
    if text == "Dict[str, Any]":
        return "document"
    if text.startswith("Dict[str, "):
        return f"{{{_collection(text[10:-1])}}}"
    return _PLAIN.get(text, text)


def render() -> str:
    version = importlib.metadata.version("awsiotsdk")
    lines = [
        f'"""The IPC model as tables, generated by tools/generate_shapes.py from awsiotsdk {version}. Do not edit.',
        "",
        "A shape is its members as text: `name:kind`, `*` for required; a leading `|` makes a union (one member only).",
        "Kinds: string integer double boolean blob (base64) timestamp (seconds) document (any JSON), an enum, a shape,",
        "`[kind]` for a list, `{kind}` for a map. nucleus/wire/requests.py reads it.",
        '"""',
        "",
        "# operation: (kind, request, response, events)",
        "OPERATIONS: dict[str, tuple[str, str, str, str]] = {",
        *(f'    "{name}": {_quoted(row)},' for name, row in operations().items()),
        "}",
        "",
        "SHAPES: dict[str, str] = {",
        *(f'    "{name}": "{text}",' for name, text in shapes().items()),
        "}",
        "",
        "ENUMS: dict[str, tuple[str, ...]] = {",
        *(f'    "{name}": {_quoted(values)},' for name, values in enums().items()),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(values: tuple[str, ...]) -> str:
    body = ", ".join(f'"{value}"' for value in values)
    return f"({body},)" if len(values) == 1 else f"({body})"


def main() -> None:
    text = render()
    if "--check" in sys.argv:
        sys.exit(
            0 if TARGET.read_text() == text else f"{TARGET.name} is out of date: run python -m tools.generate_shapes"
        )
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
