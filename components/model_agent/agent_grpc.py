"""What the gRPC doors have in common: the server, and functions of calls behind their codecs.

The synchronous server with a pool of threads: it was quicker than grpc.aio in every measurement (spec ml.md 9), and
onnxruntime computes outside of Python's lock. One call more than may wait is RESOURCE_EXHAUSTED. Needs grpcio.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc

Function = Callable[[Any, Any], Any]  # (request, context) -> response
_MESSAGE_CHARACTERS = 1000  # of an error: it travels in a header


@dataclass(frozen=True)
class Bounds:
    """Threads that answer, calls in them and before them, and bytes of a message that is taken."""

    workers: int
    waiting: int
    message_bytes: int


@dataclass(frozen=True)
class Protocol:
    """`messages` has NAMERequest and NAMEResponse for each call; `refused` is an error whose `code` names a status."""

    service: str
    messages: Any
    refused: type[Exception]


def server(protocol: Protocol, functions: Mapping[str, Function], bounds: Bounds) -> Any:
    """A server of this service that listens nowhere yet and is not started."""
    made = grpc.server(
        futures.ThreadPoolExecutor(bounds.workers, thread_name_prefix=protocol.service.rpartition(".")[2]),
        options=(
            ("grpc.max_receive_message_length", bounds.message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),  # while one agent takes over from another: agent_oip_address.free
        ),
        maximum_concurrent_rpcs=bounds.waiting,
    )
    handlers = {name: _handler(name, function, protocol) for name, function in functions.items()}
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(protocol.service, handlers),))
    return made


def _handler(name: str, function: Function, protocol: Protocol) -> Any:
    """`function` behind its codec; what it raises becomes the status of the call."""
    asked_type, response_type = (getattr(protocol.messages, f"{name}{kind}") for kind in ("Request", "Response"))

    def answer(asked: Any, context: Any) -> Any:
        try:
            return function(asked, context)
        except protocol.refused as error:
            code, message = getattr(grpc.StatusCode, getattr(error, "code", "UNKNOWN")), str(error)
        except Exception as error:  # a request must never end the agent: the others keep their models
            print(f"{protocol.service}: cannot answer {name}: {error!r}", file=sys.stderr, flush=True)
            code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        context.set_code(code)
        context.set_details(message[:_MESSAGE_CHARACTERS])
        return response_type()

    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=asked_type.FromString, response_serializer=response_type.SerializeToString
    )
