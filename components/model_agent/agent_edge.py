"""Edge Manager's door: the gRPC service of agent_edge.proto on a Unix socket, for clients of that agent as they are.

All seven calls and every status code of its table. Where this agent knows more codes: PERMISSION_DENIED for a load without
the token, FAILED_PRECONDITION for the unload of an alias that is somebody else's, RESOURCE_EXHAUSTED for a full queue.
The socket is for the agent's user only. Needs grpcio and protobuf.
"""

from __future__ import annotations

import hmac
import os
import re
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_aliases
import agent_capture
import agent_check
import agent_edge_captures
import agent_edge_messages
import agent_edge_pb2
import agent_engine
import agent_grpc
import agent_identity

SERVICE = "AWS.SageMaker.Edge.Agent"
OWNER = "door:edge-manager"  # of what LoadModel loaded; no component can be called so
TOKEN_KEY = "marram-token"  # noqa: S105 - the name of a metadata key
WORKERS = 16
WAITING_LIMIT = 64  # calls in the pool and before it
LONGEST_S = 60.0  # a prediction of a client that names no deadline
MEMORY_PER_BYTE = 4  # a loaded model against its file, fp32 measured (spec ml.md 9)
_ALIAS = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_ALIAS_LIMIT = 256
_messages: Any = agent_edge_pb2  # its classes are made at import and known to no checker
wrong = agent_edge_messages.wrong


@dataclass(frozen=True)
class Rules:
    """What the door allows; `token` "" lets nobody load, `open_load` everybody."""

    token: str
    open_load: bool = False
    message_bytes: int = 64 * 1024 * 1024  # of a message, and of a tensor in shared memory
    models: int = 16  # that may be loaded here
    memory_bytes: int = 512 * 1024 * 1024  # that they may take, estimated


class Service:
    """What the calls do: message in, message out, EdgeError."""

    def __init__(
        self,
        aliases: agent_aliases.Aliases,
        engine: agent_engine.Engine,
        captures: agent_edge_captures.Captures,
        rules: Rules,
    ) -> None:
        self._aliases = aliases
        self._engine = engine
        self._captures = captures
        self._rules = rules
        self._callers = agent_identity.callers(aliases.listed)
        self._changing = threading.Lock()

    def predict(self, asked: Any, context: Any) -> Any:
        """Inputs by place or name, outputs as bytes."""
        serving = self._aliases.serving(asked.name)
        if serving is None:
            raise _unknown(asked.name)
        inputs = agent_edge_messages.arrays(asked.tensors, serving.model.manifest, self._rules.message_bytes)
        left = context.time_remaining()
        deadline = time.monotonic() + (LONGEST_S if left is None else min(left, LONGEST_S))
        try:
            answer = self._engine.predict(asked.name, inputs, deadline)
        except agent_engine.NotReadyError:
            raise _unknown(asked.name) from None
        except agent_engine.BusyError as error:
            raise agent_edge_messages.EdgeError("RESOURCE_EXHAUSTED", str(error)) from None
        except agent_check.InputError as error:
            raise wrong(str(error)) from None
        return _messages.PredictResponse(tensors=agent_edge_messages.tensors(answer.outputs))

    def load(self, asked: Any, context: Any) -> Any:
        """Serves the package in the local folder `url` under the alias `name`."""
        alias = _alias(asked.name)
        self._authorize("loading", context)
        folder = Path(asked.url.removeprefix("file://"))
        with self._changing:
            entry = self._entry(alias)
            if entry is not None:
                raise agent_edge_messages.EdgeError(
                    "ALREADY_EXISTS", f"the alias {alias} is used by {entry['component']}"
                )
            if not asked.url or "\0" in asked.url or not (folder / "model.json").is_file():
                raise agent_edge_messages.EdgeError(
                    "NOT_FOUND", f"there is no package at {asked.url[:300]!r}: a folder with model.json"
                )
            self._check_room(folder)
            try:
                print(f"edge manager: {self._aliases.load(OWNER, alias, folder.resolve())}", flush=True)
            except agent_aliases.TakenError as error:
                raise agent_edge_messages.EdgeError("ALREADY_EXISTS", str(error)) from None
            except agent_check.RefusedError as error:
                print(f"refused {OWNER} {alias}: {error}", flush=True)
                code = "RESOURCE_EXHAUSTED" if error.code == "RESOURCE_EXHAUSTED" else "FAILED_PRECONDITION"
                raise agent_edge_messages.EdgeError(code, f"cannot load {alias}: {error}") from None
        return _messages.LoadModelResponse(model=self._described(alias))

    def unload(self, asked: Any, context: Any) -> Any:
        """Empties an alias that was loaded here."""
        with self._changing:
            entry = self._entry(asked.name)
            if entry is None:
                raise _unknown(asked.name)
            self._authorize("unloading", context)
            if entry["component"] != OWNER:
                who = f"it belongs to {entry['component']} ({entry['owner']})"
                raise agent_edge_messages.EdgeError("FAILED_PRECONDITION", f"cannot unload {asked.name}: {who}")
            print(f"edge manager: {self._aliases.withdraw(OWNER, entry['offered'], asked.name)}", flush=True)
            self._engine.forget(asked.name)
        return _messages.UnLoadModelResponse()

    def listed(self, *_: Any) -> Any:
        """Every alias of the agent, whoever brought it."""
        models = [self._described(entry["alias"]) for entry in self._aliases.listed()]
        return _messages.ListModelsResponse(models=models)

    def describe(self, asked: Any, _: Any) -> Any:
        """One alias."""
        return _messages.DescribeModelResponse(model=self._described(_alias(asked.name)))

    def capture(self, asked: Any, _: Any) -> Any:
        """Keeps a record; the answer comes when it is safe on disk."""
        if self._entry(_alias(asked.model_name)) is None:
            raise _unknown(asked.model_name)
        try:
            self._captures.submit(_record(asked, self._rules.message_bytes))
        except agent_capture.CaptureError as error:
            raise agent_edge_messages.EdgeError(error.code, str(error)) from None
        return _messages.CaptureDataResponse()

    def capture_status(self, asked: Any, _: Any) -> Any:
        """What became of a capture."""
        status = self._captures.status(_canonical(asked.capture_id))
        if status is None:
            raise agent_edge_messages.EdgeError("NOT_FOUND", f"no capture {asked.capture_id[:64]!r} is known")
        return _messages.GetCaptureDataStatusResponse(status=_messages.CaptureDataStatus.Value(status))

    def _described(self, alias: str) -> Any:
        entry, serving = self._entry(alias), self._aliases.serving(alias)
        if entry is None:
            raise _unknown(alias)
        return agent_edge_messages.model(alias, entry["source"], serving.model.manifest if serving else None)

    def _entry(self, alias: str) -> dict[str, Any] | None:
        return next((entry for entry in self._aliases.listed() if entry["alias"] == alias), None)

    def _authorize(self, what: str, context: Any) -> None:
        if self._rules.open_load:
            return
        given = [value for key, value in context.invocation_metadata() if key == TOKEN_KEY and isinstance(value, str)]
        if not self._rules.token or not any(
            hmac.compare_digest(each.encode(), self._rules.token.encode()) or self._callers.known(each)
            for each in given
        ):
            raise agent_edge_messages.EdgeError(
                "PERMISSION_DENIED",
                f"{what} needs the metadata {TOKEN_KEY}, or edgeManager.allowUnauthenticatedLoad in the agent's configuration",
            )

    def _check_room(self, folder: Path) -> None:
        mine = [entry["alias"] for entry in self._aliases.listed() if entry["component"] == OWNER]
        if len(mine) >= self._rules.models:
            raise agent_edge_messages.EdgeError(
                "RESOURCE_EXHAUSTED", f"{len(mine)} models are loaded here already; unload one"
            )
        loaded = sum(serving.size for alias in mine if (serving := self._aliases.serving(alias)))
        needed = MEMORY_PER_BYTE * (loaded + _largest(folder))
        if needed > self._rules.memory_bytes:
            figures = f"with it they would take about {needed} bytes of {self._rules.memory_bytes}"
            raise agent_edge_messages.EdgeError(
                "RESOURCE_EXHAUSTED", f"no memory for another model: {figures}; unload one"
            )


class Door:
    """Answers from the start on the Unix socket `path`. Raises OSError if it cannot listen."""

    def __init__(self, path: str, service: Service, message_bytes: int) -> None:
        functions: dict[str, agent_grpc.Function] = {
            "Predict": service.predict,
            "LoadModel": service.load,
            "UnLoadModel": service.unload,
            "ListModels": service.listed,
            "DescribeModel": service.describe,
            "CaptureData": service.capture,
            "GetCaptureDataStatus": service.capture_status,
        }
        protocol = agent_grpc.Protocol(SERVICE, _messages, agent_edge_messages.EdgeError)
        self._server = agent_grpc.server(protocol, functions, agent_grpc.Bounds(WORKERS, WAITING_LIMIT, message_bytes))
        before = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {path}: {error}") from error
        finally:
            os.umask(before)
        self._server.start()

    def close(self, grace_s: float) -> None:
        """Takes no more calls and gives those under way `grace_s`."""
        self._server.stop(grace_s).wait(grace_s + 1)


def _record(asked: Any, limit: int) -> agent_capture.Record:
    identity = _canonical(asked.capture_id)
    if not identity:
        raise wrong(f"the capture id {asked.capture_id[:64]!r} is no UUID")
    inputs = agent_edge_messages.captured(asked.input_tensors, asked.inputs, limit)
    outputs = agent_edge_messages.captured(asked.output_tensors, asked.outputs, limit)
    if not inputs and not outputs:
        raise wrong("the capture holds nothing")
    moment = asked.inference_timestamp
    if moment.seconds < 0 or not 0 <= moment.nanos < 1_000_000_000:
        raise wrong(f"the time of the inference is none: {moment.seconds} s, {moment.nanos} ns")
    at = moment.seconds + moment.nanos / 1e9 if asked.HasField("inference_timestamp") else time.time()
    return agent_capture.Record(asked.model_name, identity, at, inputs, outputs)


def _canonical(identity: str) -> str:
    try:
        return str(uuid.UUID(identity))
    except ValueError:
        return ""


def _alias(name: str) -> str:
    if not _ALIAS.fullmatch(name) or len(name) > _ALIAS_LIMIT:
        raise wrong(f"{name[:64]!r} is no alias: letters, digits and dashes between them")
    return name


def _unknown(alias: str) -> agent_edge_messages.EdgeError:
    return agent_edge_messages.EdgeError("NOT_FOUND", f"no model is loaded as {alias[:64]!r}")


def _largest(folder: Path) -> int:
    try:
        return max(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError):
        return 0  # the gate says what is wrong with it
