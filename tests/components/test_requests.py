"""Requests the agent cannot answer: each is told why, and none harms the agent."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agent_frames
import model_client
import numpy as np
import psutil
import pytest

from tests.components import parts


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"conditions": np.zeros((1, 2), dtype=np.float64)}, r"input conditions is float64 \[1, 2\]"),
        ({"conditions": np.zeros((1, 3), dtype=np.float32)}, r"this model takes float32 \[-1, 2\]"),
        ({"weather": np.zeros((1, 2), dtype=np.float32)}, "inputs are weather; this model takes conditions"),
        ({}, "inputs are none"),
        ({"conditions": np.zeros((3_000_000, 2), dtype=np.float32)}, "above the agent's limit"),
        ({"conditions": np.array(["a"])}, "is not one of float16"),
    ],
    ids=["dtype", "shape", "name", "none", "large", "text"],
)
def test_predict_when_inputs_do_not_fit_then_rejected(
    device: parts.Device, client: model_client.Client, inputs: dict[str, Any], reason: str
) -> None:
    device.start_agent()
    device.offer("1.0.0")

    with pytest.raises(model_client.RejectedError, match=reason):
        client.predict("power-curve", inputs, deadline_s=20)

    assert parts.predict(client).version == "1.0.0"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({}, b""),
        ({"op": "dance"}, b""),
        ({"op": "predict", "alias": 3, "tensors": []}, b""),
        ({"op": "predict", "alias": "power-curve", "tensors": "x"}, b""),
        ({"op": "predict", "alias": "power-curve", "tensors": [3]}, b""),
        ({"op": "predict", "alias": "power-curve", "tensors": [{"name": "a", "dtype": "float32", "shape": [-1]}]}, b""),
        (
            {"op": "predict", "alias": "power-curve", "tensors": [{"name": "a", "dtype": "float32", "shape": [9]}]},
            b"12",
        ),
        ({"op": "predict", "alias": "power-curve", "tensors": []}, b"12"),
        ({"op": "predict", "alias": "power-curve", "tensors": [], "deadline_s": 10**400}, b""),
        (
            {"op": "predict", "alias": "power-curve", "tensors": [{"name": "a", "dtype": "bool", "shape": [0, 2**62]}]},
            b"",
        ),
        (
            {"op": "predict", "alias": "power-curve", "tensors": [{"name": "a", "dtype": "int8", "shape": [0, 2**70]}]},
            b"",
        ),
        ({"op": "offer", "component": "a"}, b""),
        ({"op": "release", "component": "", "version": "1"}, b""),
    ],
)
def test_request_when_it_makes_no_sense_then_answered_and_the_agent_lives(
    unharmed: parts.Device, header: dict[str, Any], body: bytes
) -> None:
    reply = parts.ask(unharmed, header, body)

    assert (reply["ok"], reply["code"]) == (False, "INVALID_ARGUMENT")
    assert parts.serving(unharmed)[0]["version"] == "1.0.0"


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">II", 2**31, 0),
        struct.pack(">II", 2, 2**31) + b"{}",
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 2, 0) + b"{\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["header", "body", "list", "text", "http"],
)
def test_frame_when_it_is_none_then_told_and_closed(unharmed: parts.Device, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(20)
        one.connect(str(unharmed.socket))
        one.sendall(sent)

        assert agent_frames.receive(one)[0]["code"] == "INVALID_ARGUMENT"
        with contextlib.suppress(ConnectionResetError):  # how a close looks that leaves bytes unread
            assert one.recv(1) == b""


def test_frames_when_they_come_byte_by_byte_or_together_then_each_is_answered(unharmed: parts.Device) -> None:
    text = json.dumps({"op": "list"}).encode()
    frame = agent_frames.PRELUDE.pack(len(text), 0) + text
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(20)
        one.connect(str(unharmed.socket))
        for byte in frame:
            one.sendall(bytes([byte]))
        one.sendall(frame + frame)

        assert [agent_frames.receive(one)[0]["ok"] for _ in range(3)] == [True, True, True]


def descriptors(process: Any) -> tuple[int, int]:
    return resource.RLIMIT_NOFILE, len(list(Path(f"/proc/{process.pid}/fd").iterdir())) + 3


def address_space(process: Any) -> tuple[int, int]:
    """No room for the stack of another thread."""
    return resource.RLIMIT_AS, int(psutil.Process(process.pid).memory_info().vms) + 2_000_000


def test_body_when_it_is_only_announced_then_no_memory_is_taken_for_it_and_one_that_comes_is_whole() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = agent_frames.Reader(theirs)
        agent_frames.bound(theirs, 20, 20)
        ours.sendall(agent_frames.PRELUDE.pack(2, agent_frames.BODY_LIMIT_BYTES) + b"{}x")
        tracemalloc.start()
        with pytest.raises(TimeoutError):
            reader.frame(0.05)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < agent_frames.BODY_LIMIT_BYTES // 4

        body = bytes(range(251)) * (agent_frames.BODY_LIMIT_BYTES // 251)
        sender = threading.Thread(target=agent_frames.send, args=(ours, {"op": "predict"}, body))
        sender.start()
        assert reader.frame(20) == (b'{"op":"predict"}', body)
        sender.join()


def test_refusal_when_the_request_has_lines_and_more_in_its_names_then_the_log_has_one_line(
    unharmed: parts.Device,
) -> None:
    header = {"op": "offer", "component": "a\nrestored: \ud800", "version": "1" * 10_000, "artifacts": "/nowhere"}

    reply = parts.ask(unharmed, header)

    assert reply["code"] == "REFUSED"
    log = unharmed.log("marram.ModelAgent")
    assert "\nrefused a?restored: ? 1111" in log
    assert max(map(len, log.splitlines())) < 2_100


@pytest.mark.parametrize("scarce", [descriptors, address_space], ids=["descriptors", "threads"])
def test_connection_when_the_system_has_nothing_left_for_it_then_the_next_ones_are_answered_again(
    device: parts.Device, scarce: Callable[[Any], tuple[int, int]]
) -> None:
    process = device.start_agent()
    limit, few = scarce(process)
    before = resource.prlimit(process.pid, limit)
    resource.prlimit(process.pid, limit, (few, before[1]))
    held = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(12)]
    for one in held:
        one.connect(str(device.socket))
    with contextlib.suppress(OSError, agent_frames.ClosedError):  # not reached, or told BUSY
        held[-1].settimeout(0.5)
        agent_frames.receive(held[-1])
    for one in held:
        one.close()

    resource.prlimit(process.pid, limit, before)

    parts.until(lambda: ask_or_busy(device) == "ok", "connections to be taken again")


def ask_or_busy(device: parts.Device) -> str:
    try:
        reply = parts.ask(device, {"op": "list"})
    except OSError:  # it closed while we wrote
        return "BUSY"
    return str(reply.get("code", "ok"))
