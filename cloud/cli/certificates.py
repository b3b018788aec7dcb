"""Certificates and policies through the `iot` operations, for devices and for operators alike."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloud.cli import session as sessions


def issue(session: sessions.Session, policies: Sequence[str], thing: str = "") -> Mapping[str, Any]:
    """CreateKeysAndCertificate with policies attached, and the thing if one is named: the operation's answer."""
    iot = session.client("iot")
    made: Mapping[str, Any] = iot.create_keys_and_certificate(setAsActive=True)
    for policy in policies:
        iot.attach_policy(policyName=policy, target=made["certificateArn"])
    if thing:
        iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
    return made


def policy(session: sessions.Session, name: str, statements: Sequence[Mapping[str, Any]]) -> str:
    """Creates a policy unless one of that name exists, and returns its name."""
    iot = session.client("iot")
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    # One of the same name has the same content: names say what is granted.
    with contextlib.suppress(iot.exceptions.ResourceAlreadyExistsException):
        iot.create_policy(policyName=name, policyDocument=document)
    return name


def device_policy(session: sessions.Session) -> str:
    """What every core device may: its own client ids and topics, the data plane; nothing of another thing's."""
    thing = "${iot:Connection.Thing.ThingName}"
    topics = [f"topic/$aws/things/{thing}/*"]
    return policy(
        session,
        "marram-core-device",
        [
            _allow(session, ["iot:Connect"], [f"client/{thing}", f"client/{thing}#*"]),
            _allow(session, ["iot:Publish", "iot:Receive"], topics),
            _allow(session, ["iot:Subscribe"], [f"topicfilter/$aws/things/{thing}/*"]),
            {"Effect": "Allow", "Action": ["greengrass:*"], "Resource": ["*"]},
        ],
    )


def topic_policy(session: sessions.Session, topic_filter: str) -> str:
    """What the components of a device may beside that: publish and hear one topic filter."""
    pattern = as_pattern(topic_filter)
    return policy(
        session,
        f"marram-topic-{_slug([topic_filter])}",
        [
            _allow(session, ["iot:Publish", "iot:Receive"], [f"topic/{pattern}"]),
            _allow(session, ["iot:Subscribe"], [f"topicfilter/{pattern}"]),
        ],
    )


def role_alias_policy(session: sessions.Session, alias: str) -> str:
    """What a device needs to get the credentials of a role alias."""
    resource = f"arn:aws:iot:{session.region}:{session.account}:rolealias/{alias}"
    statement = {"Effect": "Allow", "Action": ["iot:AssumeRoleWithCertificate"], "Resource": [resource]}
    return policy(session, f"marram-role-alias-{_slug([alias])}", [statement])


def listener_policy(session: sessions.Session, name: str, topics: Sequence[str]) -> str:
    """What an operator's certificate may: connect under its own name and hear these topic filters."""
    patterns = [as_pattern(one) for one in topics]
    return policy(
        session,
        f"marram-listener-{name}-{_slug(topics)}",
        [
            _allow(session, ["iot:Connect"], [f"client/{name}-*"]),
            _allow(session, ["iot:Subscribe"], [f"topicfilter/{one}" for one in patterns]),
            _allow(session, ["iot:Receive"], [f"topic/{one}" for one in patterns]),
        ],
    )


def as_pattern(topic_filter: str) -> str:
    """A topic filter as the wildcards of policies say it: `#` and `+` are `*` there."""
    return topic_filter.replace("#", "*").replace("+", "*")


def write(directory: Path, files: Mapping[str, str | bytes]) -> None:
    """Writes files into a new or existing folder; `*.key` are readable by their owner only."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        path = directory / name
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if name.endswith(".key") else 0o644)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)


def _allow(session: sessions.Session, actions: Sequence[str], tails: Sequence[str]) -> dict[str, Any]:
    arns = [f"arn:aws:iot:{session.region}:{session.account}:{tail}" for tail in tails]
    return {"Effect": "Allow", "Action": list(actions), "Resource": arns}


def _slug(topics: Sequence[str]) -> str:
    """A readable name of topic filters, made unique by a digest."""
    text = " ".join(topics)
    words = re.sub(r"[^\w.-]+", "_", text.replace("#", "all").replace("+", "each")).strip("_")[:32]
    return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
