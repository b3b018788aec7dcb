"""What the access policies say to one request, and what would allow it: for people, not for the server."""

from __future__ import annotations

import json
import re

from msgspec import Struct

from nucleus.core import authorization

_METRIC = "aws.greengrass#PutComponentMetric"
_STREAM_MANAGER = "aws.greengrass.StreamManager"
# Checked without policies: these callers alone may call them.
_RESERVED = {
    "aws.greengrass#CancelLocalDeployment": ("the command line",),
    "aws.greengrass#ValidateAuthorizationToken": (_STREAM_MANAGER, "marram.ModelAgent"),
}
_SPECIAL = re.compile(r"[*?]|\$(?=\{)")


class Verdict(Struct, frozen=True):
    """`service` is empty if no policy is asked; `remedy` is a sentence if it is denied."""

    service: str
    allowed: bool
    sentence: str
    remedy: str = ""


def of(policies: authorization.Policies, caller: str, operation: str, resource: str) -> Verdict:
    """Judges a full operation name (`aws.greengrass#PublishToTopic`)."""
    if operation in _RESERVED:
        holders = _RESERVED[operation]
        told = " and ".join(holders)
        return Verdict("", caller in holders, f"only {told} may call {operation}; no policy can grant it")
    if operation == _METRIC and (not caller.startswith("aws.") or caller == _STREAM_MANAGER):
        why = (
            "needs no policy for metrics"
            if caller == _STREAM_MANAGER
            else "may not put metrics: its name must begin with aws."
        )
        return Verdict("", caller == _STREAM_MANAGER, f"{caller} {why}")
    service = next((name for name, known in authorization.SERVICES.items() if operation in known), "")
    if not service:
        return Verdict("", True, f"no policy of a component is asked about {operation}")
    allowed = authorization.allows(policies, caller, service, operation, resource)
    sentence = authorization.explain(policies, caller, service, operation, resource)
    if allowed:
        return Verdict(service, True, sentence)
    literal = _SPECIAL.sub(lambda found: f"${{{found[0]}}}", resource)
    policy = {"operations": [operation], "resources": [literal]}
    access = {"accessControl": {service: {f"{caller}:{service}:1": policy}}}
    return Verdict(service, False, sentence, f"the configuration of {caller} allows it with {json.dumps(access)}")
