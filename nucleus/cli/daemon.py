"""The way to a running nucleus: its root folder, the user's token file, the IPC client.

The token file is `<root>/cli_ipc_info/user-<uid>` (spec/nucleus.md 8.1), readable by its user only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from nucleus.cli import exits
from nucleus.host import places
from nucleus.ipc import client

Command = TypeVar("Command", bound=Callable[..., Any])


def option(command: Command) -> Command:
    """The option `--root` of device verbs."""
    return click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        envvar=["MARRAM_DEVICE_ROOT", "GGC_ROOT_PATH"],
        help="The device's root folder (or MARRAM_DEVICE_ROOT).",
    )(command)


@contextmanager
def connect(root: Path) -> Iterator[client.Client]:
    """A connection to the nucleus of `root`; refusals and a nucleus that is not there end the command."""
    file = places.Places(root.absolute()).cli_tokens / f"user-{os.getuid()}"
    try:
        facts = json.loads(file.read_bytes())
        token, socket = facts["cli_auth_token"], facts["domain_socket_path"]
    except FileNotFoundError:
        why = f"there is no {file}; is it running (marram nucleus run --root {root})?"
        raise exits.Failure(f"cannot reach the nucleus: {why}") from None
    except PermissionError:
        raise exits.Failure(f"cannot reach the nucleus: {file} belongs to another user", exits.NOT_AUTHORISED) from None
    except (ValueError, KeyError, TypeError):
        raise exits.Failure(f"cannot reach the nucleus: {file} is damaged; restart the nucleus") from None
    try:
        with client.Client(socket_path=socket, token=token) as connection:
            yield connection
    except client.IPCError as error:
        code = exits.NOT_AUTHORISED if error.code in ("UnauthorizedError", "AccessDenied") else exits.ERROR
        raise exits.Failure(f"cannot do this on the nucleus of {root}: {error.message or error.code}", code) from None
    except OSError as error:
        raise exits.Failure(f"cannot reach the nucleus of {root}: {error}; is it running?") from None
