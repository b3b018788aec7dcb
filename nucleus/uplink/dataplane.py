"""The data plane: three calls over mutual TLS (spec/cloud.md 2.2 to 2.4)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nucleus.core import errors, negotiate, recipe
from nucleus.uplink import http

RESOLVE = "/greengrass/v2/resolveComponentCandidates"


class Unavailable(errors.NucleusError):
    """The cloud gave no answer now (network, 5xx, 429): the same call may succeed later."""


class DataPlane:
    """Calls of one core device."""

    def __init__(self, client: http.Http, base_url: str, thing: str) -> None:
        self._http = client
        self._base = base_url.rstrip("/")
        self._thing = thing

    async def resolve(self, ask: negotiate.Ask, platform: Mapping[str, str], local: str | None) -> negotiate.Candidate:
        """The version the cloud chooses. Raises Unavailable, or NucleusError with the code of spec/nucleus.md 3.3."""
        candidate: dict[str, Any] = {"componentName": ask.name, "versionRequirements": dict(ask.requirements)}
        if local is not None:
            candidate["componentVersion"] = local
        body = {"platform": {"attributes": dict(platform)}, "componentCandidates": [candidate]}
        try:
            answer = await self._call("POST", RESOLVE, body, negotiate.no_candidate(ask))
        except errors.NucleusError as error:
            raise _unresolved(error) from error
        found = answer.get("resolvedComponentVersions")
        if not isinstance(found, list) or len(found) != 1:
            raise errors.NucleusError(
                "RESOLVE_COMPONENT_CANDIDATES_BAD_RESPONSE",
                f"cannot resolve {ask.name}: the cloud answered {len(found or ())} versions where exactly one is expected",
            )
        return _candidate(ask, found[0])

    async def artifact_url(self, arn: str, name: str) -> str:
        """A presigned URL for `greengrass:<name>` of a component version. Raises like resolve."""
        path = f"/greengrass/v2/components/{quote(arn, safe='')}/artifacts/{quote(name)}"
        answer = await self._call("GET", path, None, f"cannot get the address of artifact {name} of {arn}")
        return str(answer["preSignedUrl"])

    async def thing_groups(self) -> set[str]:
        """Names of the groups this device is in, parents included. Raises like resolve (403: ACCESS_DENIED)."""
        names: set[str] = set()
        token = ""
        while True:
            path = f"/greengrass/v2/coreDevices/{quote(self._thing)}/thingGroups"
            path += f"?nextToken={quote(token)}" if token else ""
            answer = await self._call("GET", path, None, "cannot list this device's thing groups")
            for group in answer.get("thingGroups") or ():
                parents = group.get("rootToParentThingGroups") or ()
                names |= {str(one["thingGroupName"]) for one in (group, *parents)}
            token = str(answer.get("nextToken") or "")
            if not token:
                return names

    async def _call(self, method: str, path: str, body: Any, failing: str) -> dict[str, Any]:
        try:
            answer = await self._http.request(
                method,
                self._base + path,
                body=json.dumps(body).encode() if body is not None else b"",
                headers={"Content-Type": "application/json"} if body is not None else {},
            )
        except errors.NucleusError as error:
            raise Unavailable(error.code, f"{failing}: {error.detail}") from error
        if answer.status == 429 or answer.status >= 500:
            raise Unavailable("SERVER_ERROR", f"{failing}: the cloud answered {answer.status}")
        try:
            decoded = json.loads(answer.body or b"{}")
        except ValueError as error:
            raise Unavailable("CLOUD_API_ERROR", f"{failing}: the answer is no JSON") from error
        if answer.status >= 400:
            raise _refusal(answer.status, failing, str(decoded.get("message") or decoded.get("Message") or ""))
        if not isinstance(decoded, dict):
            raise Unavailable("CLOUD_API_ERROR", f"{failing}: the answer is no object")
        return decoded


def _refusal(status: int, failing: str, message: str) -> errors.NucleusError:
    codes = {403: "ACCESS_DENIED", 404: "RESOURCE_NOT_FOUND", 409: "CONFLICTED_REQUEST"}
    return errors.NucleusError(
        codes.get(status, "BAD_REQUEST"), f"{failing}: {message or f'the cloud answered {status}'}"
    )


def _unresolved(error: errors.NucleusError) -> errors.NucleusError:
    """The codes of spec/nucleus.md 3.3 for a refused resolve; Unavailable stays what it is."""
    codes = {
        "RESOURCE_NOT_FOUND": "NO_AVAILABLE_COMPONENT_VERSION",
        "ACCESS_DENIED": "RESOLVE_COMPONENT_CANDIDATES_ACCESS_DENIED",
    }
    if isinstance(error, Unavailable) or error.code not in codes:
        return error
    return errors.NucleusError(codes[error.code], error.detail)


def _candidate(ask: negotiate.Ask, found: Any) -> negotiate.Candidate:
    try:
        text = base64.b64decode(found["recipe"], validate=True)
        name, version, arn = found["componentName"], found["componentVersion"], found["arn"]
    except (KeyError, TypeError, ValueError) as error:
        raise errors.NucleusError(
            "RESOLVE_COMPONENT_CANDIDATES_BAD_RESPONSE", f"cannot resolve {ask.name}: the answer lacks {error}"
        ) from error
    read = recipe.read(text, f"recipe of {name} {version} from the cloud")
    return negotiate.Candidate(name=name, version=version, recipe=read, arn=arn)
