"""The REST door of the Open Inference Protocol: paths, JSON and the binary extension over agent_oip_http.py.

    GET  v2 | v2/health/live | v2/health/ready | v2/models/stats
    GET  v2/models/NAME[/versions/VERSION][/ready | /config | /stats]
    POST v2/models/NAME[/versions/VERSION]/infer
    GET  v2/systemsharedmemory[/region/NAME]/status, POST …/region/NAME/register, POST …[/region/NAME]/unregister
    POST v2/repository/index | v2/repository/models/NAME/load | v2/repository/models/NAME/unload

A body with `Inference-Header-Content-Length: N` is N bytes of JSON and then tensors (agent_oip.py); an answer with tensors
as bytes has the same header. Errors are {"error": message} with the statuses of _STATUSES. At most PARSERS bodies are
read as JSON at a time and each has at most JSON_LIMIT_BYTES of it, because JSON takes many times its size in memory.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import agent_oip
import agent_oip_http
import agent_oip_repository
import agent_oip_service

JSON_LIMIT_BYTES = 4 * 1024 * 1024
PARSERS = 2
_STATUSES = {
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "FAILED_PRECONDITION": HTTPStatus.BAD_REQUEST,
    "ALREADY_EXISTS": HTTPStatus.BAD_REQUEST,
    "RESOURCE_EXHAUSTED": HTTPStatus.SERVICE_UNAVAILABLE,
    "PERMISSION_DENIED": HTTPStatus.UNAUTHORIZED,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "DEADLINE_EXCEEDED": HTTPStatus.SERVICE_UNAVAILABLE,
    "UNIMPLEMENTED": HTTPStatus.NOT_IMPLEMENTED,
}
_LENGTH = "Inference-Header-Content-Length"
_MODEL = re.compile(r"v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|config|stats|infer))?")
_SHARED = re.compile(r"v2/systemsharedmemory(?:/region/([^/]+))?/(status|register|unregister)")
_REPOSITORY = re.compile(r"v2/repository/models/([^/]+)/(load|unload)")


class Door:
    """Answers requests; `server` listens from the start."""

    def __init__(self, address: str, inside: agent_oip_service.Inside) -> None:
        self._inside = inside
        service = inside.service
        self._parsers = threading.BoundedSemaphore(PARSERS)
        self._plain: dict[tuple[str, str], Callable[[agent_oip_http.Asked], agent_oip_http.Reply]] = {
            ("GET", "v2"): lambda _: _json(service.server()),
            ("GET", "v2/health/live"): lambda _: agent_oip_http.Reply(HTTPStatus.OK),
            ("GET", "v2/health/ready"): lambda _: _yes(service.ready()),
            ("GET", "v2/models/stats"): lambda _: _json({"model_stats": service.statistics()}),
            ("POST", "v2/repository/index"): self._index,
        }
        self.server = agent_oip_http.Server(address, self.answer, _refusal)

    def answer(self, asked: agent_oip_http.Asked) -> agent_oip_http.Reply:
        """The reply to one request; whatever goes wrong with it is a reply, too."""
        try:
            return self._route(asked)
        except agent_oip.OipError as error:
            return _refusal(_STATUSES.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR), str(error))
        except agent_oip_http.HttpError:
            raise
        except Exception as error:  # a request must never end the agent: the others keep their models
            print(f"cannot answer {asked.method} {asked.path[:200]!r}: {error!r}", file=sys.stderr, flush=True)
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")

    def _route(self, asked: agent_oip_http.Asked) -> agent_oip_http.Reply:
        path = urllib.parse.urlsplit(asked.path).path.strip("/")
        methods = {method for method, known in self._plain if known == path}
        if methods:
            return self._plain[_allowed(asked.method, methods), path](asked)
        if found := _MODEL.fullmatch(path):
            name, version, what = (urllib.parse.unquote(part or "") for part in found.groups())
            _allowed(asked.method, {"POST" if what == "infer" else "GET"})
            return self._infer(name, version, asked) if what == "infer" else self._tell(name, version, what)
        if found := _REPOSITORY.fullmatch(path):
            _allowed(asked.method, {"POST"})
            return self._change(urllib.parse.unquote(found[1]), found[2], asked)
        if found := _SHARED.fullmatch(path):
            _allowed(asked.method, {"GET" if found[2] == "status" else "POST"})
            return self._share(urllib.parse.unquote(found[1] or ""), found[2], asked)
        raise agent_oip_http.HttpError(HTTPStatus.NOT_FOUND, "Not Found")

    def _tell(self, name: str, version: str, what: str) -> agent_oip_http.Reply:
        match what:
            case "ready":
                with contextlib.suppress(agent_oip.OipError):
                    self._inside.service.serving(name, version)
                    return _yes(True)
                return _yes(False)
            case "config":
                return _json(self._inside.service.config(name, version))
            case "stats":
                return _json({"model_stats": self._inside.service.statistics(name, version)})
            case _:
                return _json(self._inside.service.metadata(name, version))

    def _infer(self, name: str, version: str, asked: agent_oip_http.Asked) -> agent_oip_http.Reply:
        size, token, regions = _header_length(asked), _token(asked), self._inside.regions
        with self._parsers:
            given = _parsed(asked.body[:size], JSON_LIMIT_BYTES)
            request = agent_oip.read_request(given, asked.body[size:], lambda place: regions.read(place, token))
        answer = self._inside.infer(name, version, request, token)
        head, parts = agent_oip.write_answer(name, answer.version, request, answer.outputs)
        text = json.dumps(head, separators=(",", ":")).encode()
        if not parts:
            return agent_oip_http.Reply(HTTPStatus.OK, [text])
        headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(text))}
        return agent_oip_http.Reply(HTTPStatus.OK, [text, *parts], headers)

    def _index(self, asked: agent_oip_http.Asked) -> agent_oip_http.Reply:
        given = _parsed(asked.body, JSON_LIMIT_BYTES) if asked.body else {}
        return _json(self._inside.repository.index(given.get("ready") is True))

    def _change(self, name: str, verb: str, asked: agent_oip_http.Asked) -> agent_oip_http.Reply:
        token = _token(asked)
        self._inside.repository.authorize(token)  # before anything is parsed
        if verb == "unload":
            self._inside.repository.unload(name, token)
            return agent_oip_http.Reply(HTTPStatus.OK)
        with self._parsers:
            files = _files(_parsed(asked.body, agent_oip_http.BODY_LIMIT_BYTES) if asked.body else {})
        self._inside.repository.load(name, token, files)
        return agent_oip_http.Reply(HTTPStatus.OK)

    def _share(self, name: str, verb: str, asked: agent_oip_http.Asked) -> agent_oip_http.Reply:
        token = _token(asked)
        if verb == "status":
            return _json(self._inside.regions.status(name, token))
        if verb == "unregister":
            self._inside.regions.unregister(name, token)
            return agent_oip_http.Reply(HTTPStatus.OK)
        given = _parsed(asked.body, JSON_LIMIT_BYTES)
        self._inside.regions.register(name, given.get("key"), given.get("offset", 0), given.get("byte_size"), token)
        return agent_oip_http.Reply(HTTPStatus.OK)


def _token(asked: agent_oip_http.Asked) -> str:
    return str(asked.headers.get(agent_oip_repository.TOKEN_HEADER, ""))


def _parsed(text: memoryview, limit_bytes: int) -> dict[str, Any]:
    if len(text) > limit_bytes:
        raise agent_oip_http.HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"JSON of {len(text)} bytes is above the limit of {limit_bytes}; send tensors as binary data",
        )
    return agent_oip.read_json(text)


def _header_length(asked: agent_oip_http.Asked) -> int:
    given = asked.headers.get(_LENGTH)
    if given is None:
        return len(asked.body)
    if not given.isascii() or not given.isdigit() or len(given) > 12 or not 0 < int(given) <= len(asked.body):
        raise agent_oip.wrong(f"Unable to parse {_LENGTH}, got: {given[:30]}; the body has {len(asked.body)} bytes")
    return int(given)


def _files(given: Mapping[str, Any]) -> dict[str, bytes]:
    parameters = given.get("parameters", {})
    if not isinstance(parameters, dict):
        raise agent_oip.wrong("'parameters' must be an object")
    found = {key: value for key, value in parameters.items() if key.startswith("file:")}
    try:
        return {key: base64.b64decode(value, validate=True) for key, value in found.items()}
    except (ValueError, TypeError, binascii.Error) as error:
        raise agent_oip.wrong(f"failed to load: a file is no base64: {error}") from error


def _allowed(method: str, methods: set[str]) -> str:
    if method not in methods:
        raise agent_oip_http.HttpError(HTTPStatus.METHOD_NOT_ALLOWED, f"Method Not Allowed: use {', '.join(methods)}")
    return method


def _json(value: Any) -> agent_oip_http.Reply:
    return agent_oip_http.Reply(HTTPStatus.OK, [json.dumps(value, separators=(",", ":")).encode()])


def _yes(yes: bool) -> agent_oip_http.Reply:
    return agent_oip_http.Reply(HTTPStatus.OK if yes else HTTPStatus.BAD_REQUEST)


def _refusal(status: HTTPStatus, message: str) -> agent_oip_http.Reply:
    return agent_oip_http.Reply(status, [json.dumps({"error": message}).encode()])
