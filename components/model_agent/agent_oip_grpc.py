"""The gRPC door of the Open Inference Protocol: agent_oip.proto's messages to and from agent_oip_service.py.

WORKERS requests at a time; one more is RESOURCE_EXHAUSTED. Tensors are accepted raw and typed and answered raw. It listens on
a loopback address or a Unix socket (for this user only).

Needs grpcio and protobuf. Messages of agent_oip_pb2 are made by `make protos`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import agent_grpc
import agent_oip
import agent_oip_address
import agent_oip_pb2
import agent_oip_repository
import agent_oip_service
import numpy as np

WORKERS = 64
MESSAGE_LIMIT_BYTES = agent_oip.TENSOR_LIMIT_BYTES + 64 * 1024
SERVICE = "inference.GRPCInferenceService"
_TYPED = {
    "BOOL": ("bool_contents", np.bool_),
    **{f"INT{bits}": ("int_contents", np.int64) for bits in (8, 16, 32)},
    "INT64": ("int64_contents", np.int64),
    **{f"UINT{bits}": ("uint_contents", np.uint64) for bits in (8, 16, 32)},
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
}
_messages: Any = agent_oip_pb2  # its classes are made at import and known to no checker


class Door:
    """Answers from the start; `where` is the address as a client names it. Raises OSError if it cannot listen."""

    def __init__(self, address: str, inside: agent_oip_service.Inside) -> None:
        self._inside = inside
        protocol = agent_grpc.Protocol(SERVICE, _messages, agent_oip.OipError)
        bounds = agent_grpc.Bounds(WORKERS, WORKERS, MESSAGE_LIMIT_BYTES)
        self._server = agent_grpc.server(protocol, self._functions(), bounds)
        self.where, self._inode = _listen(self._server, address)
        self._server.start()

    def close(self, grace_s: float) -> threading.Event:
        """Takes no more requests and gives those under way `grace_s`; the event is set when all have ended."""
        closed: threading.Event = self._server.stop(grace_s)
        if self._inode:
            agent_oip_address.leave(self.where.removeprefix("unix:"), self._inode)
        return closed

    def _functions(self) -> dict[str, agent_grpc.Function]:
        service, repository = self._inside.service, self._inside.repository
        return {
            "ServerLive": lambda *_: _messages.ServerLiveResponse(live=True),
            "ServerReady": lambda *_: _messages.ServerReadyResponse(ready=service.ready()),
            "ServerMetadata": lambda *_: _messages.ServerMetadataResponse(**service.server()),
            "ModelReady": self._model_ready,
            "ModelMetadata": lambda asked, _: _messages.ModelMetadataResponse(
                **service.metadata(asked.name, asked.version)
            ),
            "ModelConfig": lambda asked, _: _messages.ModelConfigResponse(
                config=_messages.ModelConfig(**service.config(asked.name, asked.version))
            ),
            "ModelStatistics": lambda asked, _: _messages.ModelStatisticsResponse(
                model_stats=service.statistics(asked.name, asked.version)
            ),
            "ModelInfer": self._infer,
            "RepositoryIndex": lambda asked, _: _messages.RepositoryIndexResponse(models=repository.index(asked.ready)),
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._shared_status,
            "SystemSharedMemoryRegister": self._shared_register,
            "SystemSharedMemoryUnregister": self._shared_unregister,
        }

    def _model_ready(self, asked: Any, _: Any) -> Any:
        try:
            self._inside.service.serving(asked.name, asked.version)
        except agent_oip.OipError:
            return _messages.ModelReadyResponse(ready=False)
        return _messages.ModelReadyResponse(ready=True)

    def _infer(self, asked: Any, context: Any) -> Any:
        token, regions = _token(context), self._inside.regions
        request = _request(asked, lambda place: regions.read(place, token))
        left_s = context.time_remaining()
        answer = self._inside.infer(asked.model_name, asked.model_version, request, token, left_s)
        reply = _messages.ModelInferResponse(
            model_name=asked.model_name, model_version=answer.version, id=request.identity
        )
        for name, array in answer.outputs.items():
            told = reply.outputs.add(name=name, datatype=agent_oip.datatype_of(name, array), shape=array.shape)
            place = request.places.get(name)
            if place is not None:
                told.parameters["shared_memory_region"].string_param = place.region
                told.parameters["shared_memory_byte_size"].int64_param = place.size
                told.parameters["shared_memory_offset"].int64_param = place.offset
            # One entry for each output, in order, also for those that lie elsewhere.
            reply.raw_output_contents.append(agent_oip.to_bytes(array) if place is None else b"")
        return reply

    def _load(self, asked: Any, context: Any) -> Any:
        given = {name: value.bytes_param for name, value in asked.parameters.items() if name.startswith("file:")}
        self._inside.repository.load(asked.model_name, _token(context), given)
        return _messages.RepositoryModelLoadResponse()

    def _unload(self, asked: Any, context: Any) -> Any:
        self._inside.repository.unload(asked.model_name, _token(context))
        return _messages.RepositoryModelUnloadResponse()

    def _shared_status(self, asked: Any, context: Any) -> Any:
        rows = self._inside.regions.status(asked.name, _token(context))
        return _messages.SystemSharedMemoryStatusResponse(regions={row["name"]: row for row in rows})

    def _shared_register(self, asked: Any, context: Any) -> Any:
        self._inside.regions.register(asked.name, asked.key, asked.offset, asked.byte_size, _token(context))
        return _messages.SystemSharedMemoryRegisterResponse()

    def _shared_unregister(self, asked: Any, context: Any) -> Any:
        self._inside.regions.unregister(asked.name, _token(context))
        return _messages.SystemSharedMemoryUnregisterResponse()


def _listen(server: Any, address: str) -> tuple[str, int]:
    """Binds, and returns the address with its port, and the inode of a Unix socket or 0."""
    try:
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            return address, agent_oip_address.place(path, lambda other: server.add_insecure_port(f"unix:{other}"))
        return f"{address.rpartition(':')[0]}:{server.add_insecure_port(address)}", 0
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error


def _request(asked: Any, shared: agent_oip.Read) -> agent_oip.Request:
    parameters = _plain(asked.parameters)
    agent_oip.refuse_parameters(parameters)
    places = [agent_oip.place(_plain(each.parameters)) for each in asked.inputs]
    raw = list(asked.raw_input_contents)
    if raw and len(raw) != places.count(None):
        raise agent_oip.wrong(
            f"expected number of raw input contents is {places.count(None)}, one for each input; got {len(raw)}"
        )
    inputs: dict[str, agent_oip.Array] = {}
    sent = iter(raw)
    for each, place in zip(asked.inputs, places, strict=True):
        name, datatype, shape = agent_oip.described(each.name, each.datatype, list(each.shape), inputs)
        if place is not None:
            inputs[name] = agent_oip.from_bytes(name, datatype, shape, shared(place))
        elif not raw:
            inputs[name] = _typed(name, datatype, shape, each.contents)
        elif each.contents.ListFields():
            raise agent_oip.wrong(f"contents field must not be specified when using raw_input_contents for '{name}'")
        else:
            inputs[name] = agent_oip.from_bytes(name, datatype, shape, next(sent))
    wanted = [(each.name, _plain(each.parameters)) for each in asked.outputs]
    outputs = {name: True for name, _ in wanted}
    timeout_s = agent_oip.timeout(parameters.get("timeout"))
    return agent_oip.Request(inputs, outputs, True, asked.id, timeout_s, agent_oip.places(wanted))


def _typed(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> agent_oip.Array:
    if datatype not in _TYPED:
        raise agent_oip.wrong(f"input '{name}': {datatype} has no typed contents; use raw_input_contents")
    wanted, dtype = _TYPED[datatype]
    if any(each.name != wanted for each, _ in contents.ListFields()):
        raise agent_oip.wrong(f"input '{name}': {datatype} goes into {wanted}, and into no other field of its contents")
    values = getattr(contents, wanted)
    return agent_oip.from_values(name, datatype, shape, np.fromiter(values, dtype, len(values)))


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    plain = {}
    for key, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice:
            plain[key] = getattr(value, choice)
    return plain


def _token(context: Any) -> str:
    for key, value in context.invocation_metadata():
        if key == agent_oip_repository.TOKEN_HEADER and isinstance(value, str):
            return value
    return ""
