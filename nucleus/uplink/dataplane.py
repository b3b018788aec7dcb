"""The data plane: three calls over mutual TLS (spec/cloud.md 2.2 to 2.4), and one of our own service."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from nucleus.core import errors, negotiate, recipe
from nucleus.uplink import http

RESOLVE = "/greengrass/v2/resolveComponentCandidates"
CLIENT_DEVICE = "/marram/v1/client-devices/verify"


class Unavailable(errors.NucleusError):
    """The cloud gave no answer now (network, 5xx, 429): the same call may succeed later."""


class _Asked(Struct, frozen=True, eq=False):
    """An ask of this turn; `found` gets the candidate, or None when it has to be asked alone."""

    ask: negotiate.Ask
    local: str | None
    found: asyncio.Future[negotiate.Candidate | None]


class DataPlane:
    """Calls of one core device."""

    def __init__(self, client: http.Http, base_url: str, thing: str) -> None:
        self._http = client
        self._base = base_url.rstrip("/")
        self._thing = thing
        self._asked: list[_Asked] = []
        self._one_by_one = False  # a service that answers only one candidate a call

    async def warm(self) -> None:
        """Opens a connection ahead of the calls that will follow; that it cannot be opened is found out by them."""
        await self._http.warm(self._base)

    async def resolve(self, ask: negotiate.Ask, platform: Mapping[str, str], local: str | None) -> negotiate.Candidate:
        """The version the cloud chooses; asks of the same turn of the loop travel in one call.

        Raises Unavailable, or NucleusError with the code of spec/nucleus.md 3.3.
        """
        one = _Asked(ask, local, asyncio.get_running_loop().create_future())
        self._asked.append(one)
        await asyncio.sleep(0)  # lets the others of this turn ask
        if any(other is one for other in self._asked):
            together, self._asked = self._asked, []
            await self._resolve_together(together, platform)
        found = await one.found
        return found if found is not None else await self._resolve_one(one, platform)

    async def _resolve_together(self, together: list[_Asked], platform: Mapping[str, str]) -> None:
        """Answers all, or leaves each to ask alone (None): the original asks for exactly one, so a service may refuse."""
        found: list[negotiate.Candidate | None] = [None] * len(together)
        if len(together) > 1 and not self._one_by_one:
            try:
                found = [*await self._resolve_many(together, platform)]
            except Unavailable as error:
                self._fail(together, error)
                return
            except errors.NucleusError as error:
                self._one_by_one = error.code == "RESOLVE_COMPONENT_CANDIDATES_BAD_RESPONSE"
        for one, candidate in zip(together, found, strict=True):
            if not one.found.done():
                one.found.set_result(candidate)

    def _fail(self, together: list[_Asked], error: Unavailable) -> None:
        for one in together:
            if not one.found.done():
                one.found.set_exception(Unavailable(error.code, f"cannot resolve {one.ask.name}: {error.detail}"))

    async def _resolve_many(self, together: list[_Asked], platform: Mapping[str, str]) -> list[negotiate.Candidate]:
        body = _body([(one.ask, one.local) for one in together], platform)
        names = ", ".join(one.ask.name for one in together)
        answer = await self._call("POST", RESOLVE, body, f"cannot resolve {names}")
        found = answer.get("resolvedComponentVersions")
        by_name = {one.get("componentName"): one for one in found} if isinstance(found, list) else {}
        if by_name.keys() != {one.ask.name for one in together}:
            raise errors.NucleusError(
                "RESOLVE_COMPONENT_CANDIDATES_BAD_RESPONSE", f"cannot resolve {names} in one call"
            )
        return [_candidate(one.ask, by_name[one.ask.name]) for one in together]

    async def _resolve_one(self, one: _Asked, platform: Mapping[str, str]) -> negotiate.Candidate:
        ask = one.ask
        try:
            answer = await self._call("POST", RESOLVE, _body([(ask, one.local)], platform), negotiate.no_candidate(ask))
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

    async def client_device(self, pem: str, thing: str) -> tuple[bool, float]:
        """Whether a certificate is ACTIVE and, with a thing, attached to it; until when it is valid (epoch seconds).

        A route of our own service: the original's paths are not public. Raises like resolve.
        """
        body = {"certificatePem": pem} | ({"thingName": thing} if thing else {})
        answer = await self._call("POST", CLIENT_DEVICE, body, f"cannot verify client device {thing}".rstrip())
        try:
            is_good = answer["active"] is True and (not thing or answer["attached"] is True)
            return is_good, float(answer["notAfter"])
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable("CLOUD_API_ERROR", f"cannot verify a client device: the answer lacks {error}") from None

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
        except (ValueError, RecursionError) as error:
            raise Unavailable("CLOUD_API_ERROR", f"{failing}: the answer is no JSON") from error
        if not isinstance(decoded, dict):
            raise Unavailable("CLOUD_API_ERROR", f"{failing}: the answer is no object")
        if answer.status >= 400:
            raise _refusal(answer.status, failing, str(decoded.get("message") or decoded.get("Message") or ""))
        return decoded


def _body(asks: list[tuple[negotiate.Ask, str | None]], platform: Mapping[str, str]) -> dict[str, Any]:
    candidates = [
        {"componentName": ask.name, "versionRequirements": dict(ask.requirements)}
        | ({"componentVersion": local} if local is not None else {})
        for ask, local in asks
    ]
    return {"platform": {"attributes": dict(platform)}, "componentCandidates": candidates}


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
