"""Hands a model component to the model agent and takes it back: the scripts of a model's recipe (standard library only).

    hand_over.py offer    --artifacts DIR --component NAME --version V --socket PATH [--wait-seconds 60] [--settings JSON]
    hand_over.py release  --component NAME --version V --socket PATH
    hand_over.py withdraw --component NAME --version V --socket PATH

`offer` (Startup) waits for the agent, and ends with 0 once it serves the model of DIR; a model that serves already is
accepted at once. A refusal is one line on standard error and exit code 1; no agent within the time is exit code 3.
`release` (Shutdown) only tells the agent that the component stopped: the model keeps answering until a successor is
accepted. `withdraw` (Uninstall) ends it. An agent that is not there, or silent for 1.5 s, has nothing to be told: both end
with 0. One that cannot do it just now (BUSY, a full disk) is asked again for 6 s. What it does not do all the same is a
line on standard error; `release` ends with 0 even so, because a stop may not fail for it, `withdraw` with 1, so that the
nucleus notes it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import agent_frames

REFUSED = 1
UNREACHABLE = 3
_FAREWELL_S = 1.5  # for an answer to release and withdraw
_INSIST_S = 6.0  # the recipes give Shutdown and Uninstall 10 s
_PASSING = ("BUSY", "INTERNAL", "RESOURCE_EXHAUSTED")  # reasons of a moment, where nothing is judged
_PAUSE_S = 0.1
_CLOSED = "the agent has no room for another connection, or closed it without an answer"


def offer(request: dict[str, Any], path: str, wait_s: float) -> int:
    """Offers until the agent said yes or no, or `wait_s` passed; returns the exit code."""
    end = time.monotonic() + wait_s
    what = f"{request['component']} {request['version']}"
    while True:
        reply, reason = _ask(request, path, end)
        if reply.get("ok") is True:
            print(reply["message"], flush=True)
            return 0
        if reply and reply.get("code") != "BUSY":
            print(f"cannot serve {what}: {reason}", file=sys.stderr, flush=True)
            return REFUSED
        if time.monotonic() + _PAUSE_S >= end:
            print(f"cannot offer {what} to the model agent within {wait_s:g} s: {reason}", file=sys.stderr, flush=True)
            return UNREACHABLE
        threading.Event().wait(_PAUSE_S)


def farewell(request: dict[str, Any], path: str) -> int:
    """Releases or withdraws; asks again while the agent is there and cannot do it just now. Returns the exit code."""
    begun = time.monotonic()
    while True:
        reply, reason = _ask(request, path, time.monotonic() + _FAREWELL_S)
        passing = reply.get("code") in _PASSING
        closed = reason == _CLOSED
        longest_s = _INSIST_S if passing else _FAREWELL_S if closed else 0.0
        if time.monotonic() + _PAUSE_S >= begun + longest_s:
            break
        threading.Event().wait(_PAUSE_S)
    if reply.get("ok") is True or not reply:
        print(reply.get("message") or f"the model agent was not told: {reason}", flush=True)
        return 0
    print(f"the model agent did not {request['op']} {request['component']}: {reason}", file=sys.stderr, flush=True)
    return REFUSED if request["op"] == "withdraw" else 0


def _ask(request: dict[str, Any], path: str, end: float) -> tuple[dict[str, Any], str]:
    """The agent's reply, or an empty one and why there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(end - time.monotonic(), 0.01))
        try:
            connection.connect(path)
            with contextlib.suppress(BrokenPipeError):  # closed already; why may still be read
                agent_frames.send(connection, request)
            reply, _ = agent_frames.receive(connection)
        except (agent_frames.ClosedError, ConnectionResetError, BlockingIOError):  # the last one: too many wait already
            return {}, _CLOSED
        except (OSError, agent_frames.FrameError) as error:
            return {}, f"the agent at {path} does not answer: {error or type(error).__name__}"
    return reply, f"{reply.get('code')}: {reply.get('message')}"


def main(arguments: list[str]) -> int:
    """Reads the command line and does it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="hand_over.py", description=__doc__.partition("\n")[0])
    parser.add_argument("verb", choices=("offer", "release", "withdraw"))
    parser.add_argument("--artifacts", help="the folder that holds model.json and the model (offer)")
    parser.add_argument("--component", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--socket", default="../marram.ModelAgent/agent.sock")
    parser.add_argument("--wait-seconds", type=float, default=60.0, help="how long to wait for the agent (offer)")
    parser.add_argument("--settings", default="", help="JSON of the model's configuration (offer; agent_settings.py)")
    given = parser.parse_args(arguments)
    request: dict[str, Any] = {"op": given.verb, "component": given.component, "version": given.version}
    request["token"] = os.environ.get("SVCUID", "")  # says to the agent that this is the component
    if given.verb != "offer":
        return farewell(request, given.socket)
    if not given.artifacts:
        parser.error("offer needs --artifacts")
    request["artifacts"] = str(Path(given.artifacts).resolve())
    try:
        request["settings"] = json.loads(given.settings or "{}")
    except ValueError as error:
        parser.error(f"--settings is not JSON: {error}")
    return offer(request, given.socket, given.wait_seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
