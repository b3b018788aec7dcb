"""`marram model list|status|release|trial`: the model agent of this device, asked over its own socket.

The agent is a component and need not be installed, so nothing of it is imported: a frame is `header length u32, body length
u32` (big-endian), a JSON header and a body (components/model_agent/agent_frames.py).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import click

from nucleus.cli import daemon, exits, output
from nucleus.host import places

AGENT = "marram.ModelAgent"
UNREACHABLE = "AGENT_UNREACHABLE"
ANSWER_S = 60.0  # a model that comes back has to be loaded first
_ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
_PRELUDE = struct.Struct(">II")
_COLUMNS = {
    "ALIAS": "alias",
    "SERVING": "serving",
    "DESIRED": "desired",
    "PREVIOUS": "previous",
    "STATE": "state",
    "HELD BY": "held_by",
    "OWNER": "component",
    "REQUESTS": "requests",
    "ERRORS": "errors",
    "P99 MS": "p99_ms",
}
_OF_TRIALS = {
    "ALIAS": "alias",
    "VERSION": "version",
    "MODE": "mode",
    "OUTCOME": "outcome",
    "CODE": "code",
    "SAMPLES": "samples",
    "AGREEMENT": "agreement",
    "AT LEAST": "low",
    "WANTED": "minimum",
    "SECONDS": "elapsedSeconds",
    "REASON": "reason",
}


@click.command("list")
@daemon.option
@output.option
def list_models(root: Path, output_: str) -> None:
    """Lists the models of this device: what serves, what is desired, and why they differ."""
    output.show("models", _models(root), _COLUMNS, output_)


@click.command("status")
@click.argument("alias")
@daemon.option
@output.option
def status(alias: str, root: Path, output_: str) -> None:
    """Shows all there is to say of one model."""
    found = next((each for each in _models(root) if each["alias"] == alias), None)
    if found is None:
        raise exits.Failure(f"cannot show {alias}: no model has this alias; see `marram model list`")
    observed = answer(root, {"op": "observed", "alias": alias})  # older agents know no such question
    output.record("model", {**found, **observed.get("observed", {})}, output_)


@click.command("release")
@click.argument("alias")
@daemon.option
def release(alias: str, root: Path) -> None:
    """Ends a hold: the desired version answers again."""
    click.echo(_asked(root, {"op": "release_hold", "alias": alias})["message"])


@click.command("trial")
@click.argument("alias", required=False)
@daemon.option
@output.option
def trial(alias: str | None, root: Path, output_: str) -> None:
    """Shows how trials of new versions stand, those that run first; of all models or of one."""
    found = _asked(root, {"op": "trial", **({"alias": alias} if alias else {})})["trials"]
    output.show("trials", found, _OF_TRIALS, output_)


def _models(root: Path) -> list[dict[str, Any]]:
    answer = _asked(root, {"op": "list"})
    figures = answer.get("figures", {})
    return [_with_figures(each, figures.get(each["alias"], {})) for each in answer["models"]]


def _with_figures(row: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    more = {name: figures.get(name, 0) for name in ("errors", "refused", "waiting", "mean_ms", "p50_ms", "p99_ms")}
    return {**row, "requests": figures.get("count", 0), **more}


def _asked(root: Path, header: dict[str, Any]) -> dict[str, Any]:
    """The header of the agent's answer. Raises exits.Failure for a refusal and for an agent that is not there."""
    told = answer(root, header)
    if told.get("ok") is not True:
        code = exits.NOT_AUTHORISED if told.get("code") in ("PERMISSION_DENIED", "UNAUTHENTICATED") else exits.ERROR
        what = (
            told["message"]
            if told.get("away")
            else f"the model agent refused: {told.get('code')}: {told.get('message')}"
        )
        raise exits.Failure(what, code)
    return told


def answer(root: Path, header: dict[str, Any]) -> dict[str, Any]:
    """The header of the agent's answer; one with `away`, code and message for an agent that is not there."""
    path = places.Places(root.absolute()).work(AGENT) / "agent.sock"
    try:
        return _exchange(path, header)
    except FileNotFoundError:
        code, why = UNREACHABLE, f": there is no {path}; is {AGENT} deployed and running?"
    except PermissionError:
        code, why = "PERMISSION_DENIED", f": {path} is another user's"
    except (OSError, ValueError) as error:
        code, why = UNREACHABLE, f" at {path}: {error}; see `marram logs {AGENT}`"
    return {"ok": False, "away": True, "code": code, "message": f"cannot reach the model agent{why}"}


def _exchange(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # a socket's path is bounded, a root's is not
        try:
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        text = json.dumps(header).encode()
        connection.sendall(_PRELUDE.pack(len(text), 0) + text)
        length, rest = _PRELUDE.unpack(_exactly(connection, _PRELUDE.size))
        if length + rest > _ANSWER_LIMIT_BYTES:
            raise ValueError(f"it answered with {length + rest} bytes")
        answer = json.loads(_exactly(connection, length))
        if isinstance(answer, dict) and answer.get("continued") is True:  # too large for a header
            answer = json.loads(_exactly(connection, rest))
    if not isinstance(answer, dict):
        raise ValueError("it answered with no JSON object")
    return answer


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ValueError("it closed the connection")
        data += part
    return data
